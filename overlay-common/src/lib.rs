//! The contract between overlay's eBPF programs and its agent.
//!
//! Everything that crosses the border between kernel and user space is defined
//! here and nowhere else: the names of programs and maps, the layout of keys and
//! values, the reasons for which a packet is dropped or left to the kernel, and
//! the two rules that both ends of a tunnel must derive alike
//! ([`wire::vtep_mac`], [`wire::source_port`]).
//!
//! Addresses are byte arrays in network order, exactly as they stand in a
//! packet, so that `bpftool map dump` prints them the way people write them.
//! Every other integer is in host order, unless its name ends in `_be`.

#![cfg_attr(not(test), no_std)]

pub mod journal;
pub mod maps;
pub mod reasons;
pub mod wire;

/// Number of the layout that [`maps`] and [`reasons`] describe.
///
/// It is part of the pin path: an agent never fills maps of another layout.
/// Raise it with every change to a key, a value, a map's type or a reason's order.
pub const ABI: u32 = 11;

/// Names of the programs in the eBPF object, as `bpftool prog show` prints them.
pub mod programs {
    /// TC ingress on the host side of an endpoint's veth.
    pub const FROM_ENDPOINT: &str = "from_endpoint";
    /// TC ingress on an underlay interface.
    pub const FROM_UNDERLAY: &str = "from_underlay";
    /// TC egress on the VXLAN device: what the node itself sends or routes.
    pub const FROM_HOST: &str = "from_host";
    /// TC egress on the host side of an endpoint's veth: what the kernel delivers. It counts
    /// nothing, and leaves everything as it is.
    pub const TO_ENDPOINT: &str = "to_endpoint";
    /// XDP in the driver of an underlay interface.
    pub const UNDERLAY_GUARD: &str = "underlay_guard";
    /// The same in the stack. It counts as [`UNDERLAY_GUARD`].
    pub const GENERIC_GUARD: &str = "generic_guard";

    /// A program, by the slot of [`DROPS`](crate::maps::DROPS) and
    /// [`PASSES`](crate::maps::PASSES) that it counts in.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[repr(u32)]
    pub enum Program {
        /// [`FROM_ENDPOINT`].
        FromEndpoint,
        /// [`FROM_HOST`].
        FromHost,
        /// [`FROM_UNDERLAY`].
        FromUnderlay,
        /// [`UNDERLAY_GUARD`], which counts no passes: what it passes, `from_underlay` counts.
        UnderlayGuard,
    }

    impl Program {
        /// Every program, in the order of its slot.
        pub const ALL: [Self; 4] = [
            Self::FromEndpoint,
            Self::FromHost,
            Self::FromUnderlay,
            Self::UnderlayGuard,
        ];

        /// Its name in the object.
        pub const fn name(self) -> &'static str {
            match self {
                Self::FromEndpoint => FROM_ENDPOINT,
                Self::FromHost => FROM_HOST,
                Self::FromUnderlay => FROM_UNDERLAY,
                Self::UnderlayGuard => UNDERLAY_GUARD,
            }
        }
    }
}

/// Names of the globals in the eBPF object, which are set before it is loaded.
pub mod globals {
    /// A `u32`: unless it is 0, `underlay_guard` strips what it can, for `from_underlay` to deliver.
    pub const STRIP: &str = "STRIP";
}
