//! What people want to know of a node: [`doctor`] finds what is wrong, [`explain`] follows a packet,
//! [`stats`] tells whose the counters are, and [`metrics`] tells Prometheus.

pub mod doctor;
pub mod explain;
pub mod metrics;
pub mod stats;
