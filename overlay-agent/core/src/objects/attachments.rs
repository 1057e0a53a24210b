//! Programs on devices.

use std::fmt;

use overlay_common::programs;
use serde::Serialize;

/// A place where one of our programs is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// TC ingress of the node's side of an endpoint's veth.
    FromEndpoint,
    /// TC ingress of an underlay device.
    FromUnderlay,
    /// TC egress of a VXLAN device.
    FromHost,
    /// TC egress of the node's side of an endpoint's veth.
    ToEndpoint,
    /// XDP of an underlay device, in its driver.
    GuardNative,
    /// XDP of an underlay device, in the stack.
    GuardGeneric,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 6] = [
        Self::FromEndpoint,
        Self::FromUnderlay,
        Self::FromHost,
        Self::ToEndpoint,
        Self::GuardNative,
        Self::GuardGeneric,
    ];

    /// Name of the program in the eBPF object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::FromEndpoint => programs::FROM_ENDPOINT,
            Self::FromUnderlay => programs::FROM_UNDERLAY,
            Self::FromHost => programs::FROM_HOST,
            Self::ToEndpoint => programs::TO_ENDPOINT,
            Self::GuardNative => programs::UNDERLAY_GUARD,
            Self::GuardGeneric => programs::GENERIC_GUARD,
        }
    }

    /// Name of the program in counters and in what is told of packets.
    pub const fn counted_as(self) -> &'static str {
        match self {
            Self::GuardGeneric => programs::UNDERLAY_GUARD,
            other => other.program(),
        }
    }

    /// Name of the hook, in pins and texts: the program's, unless that has several hooks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GuardNative => "underlay_guard_native",
            Self::GuardGeneric => "underlay_guard_generic",
            Self::FromEndpoint | Self::FromUnderlay | Self::FromHost | Self::ToEndpoint => {
                self.program()
            }
        }
    }

    /// Whether it sees what leaves by the device; else it sees what arrives there.
    pub const fn is_egress(self) -> bool {
        matches!(self, Self::FromHost | Self::ToEndpoint)
    }

    /// Whether it is one of XDP; else it is one of TC.
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::GuardNative | Self::GuardGeneric)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whether an attachment does what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentState {
    /// The program that this agent loaded runs there.
    Current,
    /// An earlier agent's program runs there.
    Outdated,
    /// Our pin or handle is there, but no program runs: the device is another one, or somebody detached it.
    Broken,
}

impl AttachmentState {
    /// The state as an agent sees it that has loaded programs of its own.
    #[must_use]
    pub const fn of_another_agent(self) -> Self {
        match self {
            Self::Current | Self::Outdated => Self::Outdated,
            Self::Broken => Self::Broken,
        }
    }
}
