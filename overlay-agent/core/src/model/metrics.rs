//! Where counters are exported.

use std::{
    net::{Ipv4Addr, SocketAddr},
    str::FromStr,
};

use super::InvalidValue;

/// Where it is unless the configuration says otherwise; the port is nobody's by convention.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9466);

/// Where Prometheus finds the node's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metrics {
    /// At the usual address, if it is free.
    #[default]
    Usual,
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl Metrics {
    /// The address, unless it is off.
    pub const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Usual => Some(USUAL),
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

impl FromStr for Metrics {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address: Option<SocketAddr> = text.parse().ok();
        let address = address.filter(|address| address.port() != 0);
        address
            .map(Self::At)
            .ok_or_else(|| InvalidValue::Metrics(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn metrics_are_at_an_address_or_off() {
        assert_eq!("off".parse(), Ok(Metrics::Off));
        for address in ["127.0.0.1:9466", "[::1]:9466", "0.0.0.0:80"] {
            let metrics: Metrics = address.parse().unwrap();
            assert_eq!(metrics.address().unwrap().to_string(), address);
        }
        for wrong in [
            "",
            "on",
            "9466",
            "localhost:9466",
            "127.0.0.1",
            "127.0.0.1:0",
        ] {
            let error = wrong.parse::<Metrics>().unwrap_err();
            assert!(error.to_string().contains("127.0.0.1:9466"), "{error}");
        }
    }
}
