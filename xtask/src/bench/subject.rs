//! The subjects of the comparison.

use std::fmt;

use clap::ValueEnum;
use overlay_tests::shape::Scenario;

/// One way for packets to get from one end to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Subject {
    /// Node to node over the underlay, without containers: what cannot be beaten
    Bare,
    /// Containers, packets redirected by two tiny programs, no tunnel: what no tunnel can beat
    Ceiling,
    /// Containers on nodes that route to each other
    Direct,
    /// The kernel's VXLAN device, set up as flannel does
    Vxlan,
    /// A tunnel in user space
    Tun,
    /// overlay
    Overlay,
    /// overlay with its fast path off: the kernel's devices that it keeps beside it
    OverlayOff,
    /// Another build of overlay's agent, named by --baseline
    Baseline,
    /// From the kernel's VXLAN device, which sends checksums, to overlay
    Mixed,
    /// From overlay to the kernel's VXLAN device
    MixedBack,
    /// overlay, to an address that the client's node translates (DNAT) to the server's
    Services,
    /// The kernel's VXLAN device, through the same translation
    ServicesVxlan,
    /// overlay over one of two uplinks, each shaped to 40 Mbit/s
    OneUplink,
    /// overlay over both of them (ECMP)
    TwoUplinks,
}

impl Subject {
    /// All of them, in the order of tables and charts.
    pub(crate) const ALL: &[Self] = &[
        Self::Bare,
        Self::Ceiling,
        Self::Direct,
        Self::Vxlan,
        Self::Tun,
        Self::Overlay,
        Self::OverlayOff,
        Self::Baseline,
        Self::Mixed,
        Self::MixedBack,
        Self::Services,
        Self::ServicesVxlan,
        Self::OneUplink,
        Self::TwoUplinks,
    ];
    /// Those whose limit is the machine: all but the last two.
    pub(crate) const UNSHAPED: &[Self] = Self::ALL.split_at(Self::ALL.len() - 2).0;
    /// Those of one kind on both nodes, without translation: of these all but the last four.
    pub(crate) const PLAIN: &[Self] = Self::UNSHAPED.split_at(Self::UNSHAPED.len() - 4).0;
    /// Those that many flows are worth comparing for.
    pub(crate) const FLOWS: &[Self] = &[
        Self::Bare,
        Self::Ceiling,
        Self::Direct,
        Self::Vxlan,
        Self::Tun,
        Self::Overlay,
        Self::OverlayOff,
        Self::Baseline,
        Self::OneUplink,
        Self::TwoUplinks,
    ];
    /// Those whose packets do not pass through a process.
    pub(crate) const IN_KERNEL: &[Self] = &[
        Self::Bare,
        Self::Ceiling,
        Self::Direct,
        Self::Vxlan,
        Self::Overlay,
        Self::OverlayOff,
        Self::Baseline,
    ];
    /// Those that carry traffic between containers of one node in ways worth comparing.
    pub(crate) const LOCAL: &[Self] = &[Self::Ceiling, Self::Overlay, Self::OverlayOff];
    /// Those whose cost could grow with the number of peers.
    pub(crate) const GROWING: &[Self] = &[Self::Vxlan, Self::Overlay];

    /// The name on the command line and in `results.json`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Ceiling => "ceiling",
            Self::Direct => "direct",
            Self::Vxlan => "vxlan",
            Self::Tun => "tun",
            Self::Overlay => "overlay",
            Self::OverlayOff => "overlay-off",
            Self::Baseline => "baseline",
            Self::Mixed => "mixed",
            Self::MixedBack => "mixed-back",
            Self::Services => "services",
            Self::ServicesVxlan => "services-vxlan",
            Self::OneUplink => "one-uplink",
            Self::TwoUplinks => "two-uplinks",
        }
    }

    /// One line for the legend.
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Bare => "node to node over the underlay, no containers",
            Self::Ceiling => "containers, packets redirected by tiny programs, no tunnel",
            Self::Direct => "containers, nodes that route to each other",
            Self::Vxlan => "containers, the kernel's VXLAN device as flannel sets it up",
            Self::Tun => "containers, a UDP tunnel in user space (socat)",
            Self::Overlay => "containers, overlay as it is",
            Self::OverlayOff => "containers, overlay with its fast path off",
            Self::Baseline => "containers, overlay by another build of its agent",
            Self::Mixed => "containers, from the kernel's VXLAN device with checksums to overlay",
            Self::MixedBack => "containers, from overlay to the kernel's VXLAN device",
            Self::Services => "containers, overlay behind a service's address (DNAT)",
            Self::ServicesVxlan => "containers, the kernel's VXLAN device behind the same address",
            Self::OneUplink => "containers, overlay over one of two lines of 40 Mbit/s",
            Self::TwoUplinks => "containers, overlay over both of these lines",
        }
    }

    /// The lab that it is measured in, by name and scenario.
    pub(crate) const fn lab(self) -> (&'static str, Scenario) {
        match self {
            // Nodes that route have nothing on the underlay but their addresses.
            Self::Bare | Self::Direct => ("bmdirect", Scenario::Direct),
            Self::Ceiling => ("bmceil", Scenario::Direct),
            Self::Vxlan => ("bmvxlan", Scenario::Vxlan),
            Self::Tun => ("bmtun", Scenario::Tun),
            Self::Overlay => ("bmover", Scenario::Overlay),
            Self::OverlayOff => ("bmoff", Scenario::Overlay),
            Self::Baseline => ("bmbase", Scenario::Overlay),
            Self::Mixed | Self::MixedBack => ("bmmixed", Scenario::Mixed),
            Self::Services => ("bmsvc", Scenario::Overlay),
            Self::ServicesVxlan => ("bmsvcvx", Scenario::Vxlan),
            Self::OneUplink => ("bmoneup", Scenario::Overlay),
            Self::TwoUplinks => ("bmtwoup", Scenario::Overlay),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_and_the_results_use_the_same_names() {
        for &subject in Subject::ALL {
            let value = subject.to_possible_value().unwrap();
            assert_eq!(value.get_name(), subject.name());
        }
        assert_eq!(Subject::ALL.len(), Subject::value_variants().len());
        let others = [
            Subject::Mixed,
            Subject::MixedBack,
            Subject::Services,
            Subject::ServicesVxlan,
            Subject::OneUplink,
            Subject::TwoUplinks,
        ];
        assert!(!Subject::PLAIN.iter().any(|it| others.contains(it)));
        assert_eq!(&Subject::FLOWS[..Subject::PLAIN.len()], Subject::PLAIN);
    }

    #[test]
    fn no_two_kinds_share_a_lab() {
        for one in Subject::ALL {
            for other in Subject::ALL {
                let same = one.lab().0 == other.lab().0;
                assert!(!same || one.lab().1 == other.lab().1, "{one} and {other}");
            }
        }
    }
}
