//! What the agent's own nftables tables do with what the kernel carries, and no program judges.

use std::net::IpAddr;

use overlay_control::explain::Header;
use overlay_core::{
    filter::{Connection, Hook, Packet, Ruleset},
    model::{Family, IfName},
    objects::{GuardRules, IN_THE_CLEAR, TUNNEL_FROM_ENDPOINT, guard_table},
    surroundings::NextHop,
};
use overlay_kernel::nft;
use tokio::task::spawn_blocking;

use super::{case::Case, kernel::Told, stage::Seen};

/// With which address as its source a packet of a network leaves the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// With its own: somebody has sent it that way.
    AsItIs,
    /// With the node's.
    Masqueraded,
    /// With none; whether its sender hears of it.
    Not { answered: bool },
}

impl Leaves {
    /// By a device of no network, by these rules.
    fn by(rules: &GuardRules, device: IfName, source: IpAddr, destination: IpAddr) -> Self {
        let leaving = &rules.leaving;
        let exit = leaving.exits.get(&(device, Family::of(destination)));
        let led_there = exit.is_some_and(|nets| match nets {
            Some(nets) => nets.iter().any(|net| net.contains(&destination)),
            None => true,
        });
        let mut sources = leaving.sources.iter();
        let kept = sources.find(|(net, _)| net.contains(&source));
        match kept {
            // What IPsec encrypts is not known from here.
            _ if led_there || leaving.encrypts => Self::AsItIs,
            None => Self::AsItIs,
            Some((_, Some(translated))) if translated.contains(&source) => Self::Masqueraded,
            Some(_) => Self::Not {
                answered: leaving.answers,
            },
        }
    }
}

/// What becomes of a packet that the node's routes lead out of all networks.
pub(super) async fn leaves(case: &Case, way: &NextHop, ends: (Option<IpAddr>, IpAddr)) -> Told {
    let (source, destination) = ends;
    let device = case.names.device(way.oif);
    let via = way.gateway.map(|via| format!(" via {via}"));
    let name = device.map_or_else(|| "a device".to_owned(), |device| device.to_string());
    let routed = format!("the node routes it by {name}{}", via.unwrap_or_default());
    let (Some(rules), Some(device), Some(source)) = (&case.guard, device, source) else {
        return (vec![format!("{routed}, beside the overlay")], true);
    };
    let leaves = Leaves::by(rules, device, source, destination);
    let table = guard_table(&case.instance);
    let (what, delivers) = match leaves {
        Leaves::AsItIs => ("beside the overlay".to_owned(), true),
        Leaves::Masqueraded => (
            "with the node's address as its source (masquerade)".to_owned(),
            true,
        ),
        Leaves::Not { answered: true } => (
            format!(
                "by its default route, where the table {table} refuses it ({IN_THE_CLEAR}): it \
                 would leave with {source} as its source; the sender hears \"unreachable\""
            ),
            false,
        ),
        Leaves::Not { answered: false } => match renamed(device, source, destination).await {
            Some(place) => (format!("with another source, by {place}"), true),
            None => (
                format!(
                    "by its default route, where the table {table} drops it ({IN_THE_CLEAR}) if it \
                     still has {source} as its source: no rule is known that certainly translates \
                     it; the sender hears nothing"
                ),
                false,
            ),
        },
    };
    let mut sentences = vec![format!("{routed}, {what}")];
    if !delivers {
        sentences.push(
            "it leaves by a route of yours that is not a default route, with masquerade = true, or \
             with in_the_clear = \"accept\""
                .to_owned(),
        );
    }
    (sentences, delivers)
}

/// The rule of somebody that gives it another source.
async fn renamed(device: IfName, source: IpAddr, destination: IpAddr) -> Option<String> {
    let listed = spawn_blocking(nft::ruleset).await.ok()?.ok()?;
    let ruleset = Ruleset::read(&listed, |_, _| false);
    let packet = Packet {
        input: None,
        output: Some(device.as_str()),
        source,
        destination,
        udp_port: None,
        connection: Connection::New,
    };
    let fate = ruleset.fate(Hook::Postrouting, &packet);
    fate.renamed.map(|place| place.to_string())
}

/// Whether a container speaks to the end of a tunnel, here or elsewhere.
pub(super) fn speaks_to_tunnel(
    case: &Case,
    headers: &[Header],
    destination: IpAddr,
    local: bool,
) -> Option<Told> {
    let rules = case.guard.as_ref()?;
    let udp = headers.iter().find(|header| header.name == "UDP")?;
    let port = udp.field("destination port")?.parse().ok()?;
    let mut peers = rules.senders.vteps.iter().map(|(_, vtep)| *vtep);
    let is_end = local || rules.own.contains(&destination) || peers.any(|it| it == destination);
    (is_end && rules.ports.contains(&port)).then(|| {
        let table = guard_table(&case.instance);
        let sentence = format!(
            "it is for a tunnel's end, to which no container speaks: the table {table} drops it \
             ({TUNNEL_FROM_ENDPOINT})"
        );
        (vec![sentence], false)
    })
}

/// What a program would drop where none is attached, and a table drops all the same.
pub(super) fn drops_too(case: &Case, seen: &Seen) -> Option<String> {
    let rules = case.guard.as_ref()?;
    let reason = seen.stage.verdict.reason.as_deref();
    let reason = reason.filter(|_| seen.is_dropped())?;
    let holds = match reason {
        "spoofed_source" | "spoofed_neighbour" => {
            let mut endpoints = rules.endpoints.iter();
            endpoints.any(|endpoint| endpoint.index == seen.ifindex)
        }
        "other_network" => !rules.apart.is_empty(),
        "invalid_vxlan_header"
        | "unencrypted"
        | "unknown_vtep"
        | "inner_vlan_tag"
        | "source_not_behind_vtep"
        | "martian_source" => true,
        _ => false,
    };
    let table = guard_table(&case.instance);
    holds.then(|| format!("the table {table} drops it, too ({reason})"))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use overlay_core::{
        model::Family,
        objects::{GuardRules, Leaving},
    };

    use super::Leaves;

    fn rules(answers: bool) -> GuardRules {
        GuardRules {
            leaving: Leaving {
                sources: [
                    ("10.244.0.0/16".parse().unwrap(), None),
                    (
                        "10.245.0.0/16".parse().unwrap(),
                        Some("10.245.1.0/24".parse().unwrap()),
                    ),
                ]
                .into(),
                exits: [
                    (
                        ("eth0".parse().unwrap(), Family::V4),
                        Some(["192.0.2.0/24".parse().unwrap()].into()),
                    ),
                    (("wg0".parse().unwrap(), Family::V4), None),
                ]
                .into(),
                answers,
                ..Leaving::default()
            },
            ..GuardRules::default()
        }
    }

    #[test]
    fn what_leaves_by_a_default_route_leaves_with_another_source_or_not_at_all() {
        let by = |answers, device: &str, source: &str, to: &str| {
            let [source, to] = [source, to].map(|it| it.parse::<IpAddr>().unwrap());
            Leaves::by(&rules(answers), device.parse().unwrap(), source, to)
        };
        let refused = |answered| Leaves::Not { answered };
        for (device, source, to, expected) in [
            ("eth0", "10.244.1.2", "192.0.2.9", Leaves::AsItIs),
            ("wg0", "10.244.1.2", "198.51.100.9", Leaves::AsItIs),
            ("eth0", "203.0.113.9", "198.51.100.9", Leaves::AsItIs),
            ("eth0", "10.245.1.2", "198.51.100.9", Leaves::Masqueraded),
            ("eth0", "10.245.2.2", "198.51.100.9", refused(true)),
            ("eth0", "10.244.1.2", "198.51.100.9", refused(true)),
        ] {
            assert_eq!(by(true, device, source, to), expected, "{source} to {to}");
        }
        let silent = by(false, "eth0", "10.244.1.2", "198.51.100.9");
        assert_eq!(silent, refused(false));
    }
}
