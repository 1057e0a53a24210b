//! What others have hooked in at devices.

use crate::objects::Hook;

/// Which way packets go where something is hooked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// They come in by the device.
    Ingress,
    /// They are sent by it.
    Egress,
}

impl Side {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// A hook of ours at this side: programs are asked for by hooks.
    pub const fn hook(self) -> Hook {
        match self {
            Self::Ingress => Hook::FromUnderlay,
            Self::Egress => Hook::FromHost,
        }
    }

    /// As `tc` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Something of somebody else's at a device, which the programs pass by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignHook {
    /// Which way packets go there.
    pub side: Side,
    /// What it is, as `tc` and `bpftool` call it.
    pub what: String,
    /// Whether the kernel keeps what a program has redirected from it, wherever that leaves.
    pub spares_redirected: bool,
}

/// Ids of the TCX programs of a device: ingress, egress.
pub type TcxPrograms = [Vec<u32>; 2];
