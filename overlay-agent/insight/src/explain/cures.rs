//! Cures for dropped packets.

use overlay_common::reasons::DropReason;

/// The rule of `[networks.security]` that drops packets for a reason; some reasons have none.
pub const fn rule(reason: DropReason) -> Option<&'static str> {
    Some(match reason {
        DropReason::SpoofedSource | DropReason::SpoofedNeighbour => "endpoint_source",
        DropReason::OtherNetwork => "other_networks",
        DropReason::UnknownVtep => "unknown_vtep",
        DropReason::SourceNotBehindVtep => "inner_source",
        DropReason::MartianSource => "martians",
        DropReason::Malformed => "malformed",
        DropReason::InvalidVxlanHeader
        | DropReason::InnerVlanTag
        | DropReason::EcnNotCapable
        | DropReason::ResizeFailed
        | DropReason::Unencrypted => return None,
    })
}

/// The same of a reason by its name, also of those that only the kernel's path knows.
pub fn rule_of(reason: &str) -> Option<&'static str> {
    if reason == "in_the_clear" {
        return Some("in_the_clear");
    }
    let known = DropReason::ALL.iter().find(|known| known.name() == reason);
    known.copied().and_then(rule)
}

/// One sentence for people.
pub(super) const fn cure(reason: DropReason) -> &'static str {
    match reason {
        DropReason::SpoofedSource => {
            "send from the endpoint's own MAC and address; for one that forwards for others, set forwarding and allowed_sources; or set endpoint_source = \"accept\""
        }
        DropReason::SpoofedNeighbour => {
            "let the endpoint claim its own addresses alone; for one that forwards for others, set forwarding and allowed_sources; or set endpoint_source = \"accept\""
        }
        DropReason::OtherNetwork => {
            "attach both endpoints to one network, or set other_networks = \"accept\" in both networks"
        }
        DropReason::InvalidVxlanHeader => {
            "let the sender speak VXLAN by RFC 7348, without extensions such as GPE or GBP"
        }
        DropReason::UnknownVtep => {
            "add the sender to the network's peers with this address as its vtep, or set unknown_vtep = \"accept\""
        }
        DropReason::InnerVlanTag => "send without a VLAN tag",
        DropReason::SourceNotBehindVtep => {
            "add the source's prefix to the subnets of the peer that sends it, or set inner_source = \"accept\""
        }
        DropReason::MartianSource => {
            "send from an address of the sender's, or set martians = \"accept\""
        }
        DropReason::Malformed => {
            "look for what cuts packets off on the way, or set malformed = \"accept\" to leave them to the kernel"
        }
        DropReason::EcnNotCapable => {
            "look for the router that marks congestion on packets which do not carry such marks"
        }
        DropReason::Unencrypted => {
            "set encryption = \"wireguard\" on the sender, too, and see that nobody else sends in its name"
        }
        DropReason::ResizeFailed => {
            "this should not happen: report it with the packet and the kernel's release"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DropReason, cure, rule, rule_of};

    #[test]
    fn the_rule_of_a_reason_is_the_one_that_its_cure_switches() {
        for &reason in DropReason::ALL {
            let switch = cure(reason)
                .split_once(" = \"accept\"")
                .map(|(before, _)| before);
            let named = switch.and_then(|before| before.rsplit(' ').next());
            assert_eq!(rule(reason), named, "{}", reason.name());
            assert_eq!(rule_of(reason.name()), named);
        }
    }
}
