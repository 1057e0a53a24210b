//! Firewalls that write rules themselves: what is inserted among their rules is gone at their next
//! start, so they are told by their own commands.

use overlay_control::Cure;
use overlay_core::{
    filter::{Place, Ruleset, Writer},
    model::IfName,
};

use crate::doctor::facts::{Facts, NetworkFacts};

/// Lets the tunnel's port in or out at a device; `None` where rules are to be inserted by hand.
pub(super) fn let_tunnel_pass(
    facts: &Facts,
    place: &Place,
    device: IfName,
    port: u16,
    arriving: bool,
) -> Option<Cure> {
    let ruleset = facts.ruleset.as_ref().ok()?;
    match ruleset.writer_of(place)? {
        Writer::Firewalld if arriving => {
            let zone = format!(
                "$(firewall-cmd --get-zone-of-interface={device} 2>/dev/null || firewall-cmd \
                 --get-default-zone)"
            );
            let add = format!("firewall-cmd --permanent --zone={zone} --add-port={port}/udp");
            Some(told(facts, "firewalld", [add, RELOAD.to_owned()]))
        }
        Writer::Ufw => {
            let way = if arriving { "in" } else { "out" };
            let allow = format!("ufw allow {way} on {device} proto udp to any port {port}");
            Some(told(facts, "ufw", [allow]))
        }
        Writer::Firewalld | Writer::Docker => None,
    }
}

/// Lets pass what is forwarded between a network's own devices.
pub(super) fn let_network_pass(
    facts: &Facts,
    place: &Place,
    network: &NetworkFacts,
) -> Option<Cure> {
    let ruleset: &Ruleset = facts.ruleset.as_ref().ok()?;
    let bridge = network.bridge;
    let tunnels = network.tunnels.iter().copied();
    let pairs = tunnels
        .clone()
        .flat_map(|tunnel| [(bridge, tunnel), (tunnel, bridge)]);
    let by_pair = |write: fn(IfName, IfName) -> String| -> Vec<String> {
        pairs.clone().map(|(from, to)| write(from, to)).collect()
    };
    Some(match ruleset.writer_of(place)? {
        Writer::Firewalld => {
            let devices = std::iter::once(bridge).chain(tunnels);
            let add = devices.map(|device| {
                format!("firewall-cmd --permanent --zone=trusted --add-interface={device}")
            });
            told(facts, "firewalld", add.chain([RELOAD.to_owned()]))
        }
        Writer::Ufw => {
            let allow = |from, to| format!("ufw route allow in on {from} out on {to}");
            told(facts, "ufw", by_pair(allow))
        }
        Writer::Docker => {
            let accept = |from, to| format!("iptables -I DOCKER-USER -i {from} -o {to} -j ACCEPT");
            told(facts, "Docker", by_pair(accept))
        }
    })
}

/// What makes the permanent rules those that hold.
const RELOAD: &str = "firewall-cmd --reload";

fn told(facts: &Facts, who: &str, commands: impl IntoIterator<Item = String>) -> Cure {
    let commands = commands.into_iter();
    Cure {
        text: format!("{who} writes these rules: tell it"),
        commands: commands
            .map(|command| facts.commands.on_node(command))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use overlay_core::{filter::Ruleset, model::FastPath};

    use super::super::healthy::{broken, only};
    use crate::doctor::facts::Facts;

    /// As the tools of Debian 12 set them (firewalld 1.3.3, ufw 0.36.2): as installed, and after
    /// the commands of the cures.
    const FIREWALLD: [&str; 2] = [
        include_str!("../../../../core/src/filter/rulesets/firewalld.json"),
        include_str!("../../../../core/src/filter/rulesets/firewalld-allowed.json"),
    ];
    const UFW: [&str; 2] = [
        include_str!("../../../../core/src/filter/rulesets/ufw.json"),
        include_str!("../../../../core/src/filter/rulesets/ufw-allowed.json"),
    ];

    fn read(listing: &str) -> Ruleset {
        Ruleset::read(&serde_json::from_str(listing).unwrap(), |_, _| false)
    }

    fn beside(listing: &str) -> impl FnOnce(&mut Facts) + use<> {
        let ruleset = read(listing);
        move |facts| {
            facts.networks[0].fastpath = FastPath::Off;
            facts.ruleset = Ok(ruleset);
        }
    }

    /// The commands that cure a fault of a network that the kernel carries.
    fn commands(listing: &str, id: &str) -> Vec<String> {
        let found = broken(beside(listing));
        let found: Vec<_> = found
            .into_iter()
            .filter(|found| found.check == id)
            .collect();
        assert_eq!(found.len(), 1, "{id}: {found:?}");
        found[0].cure.commands.clone()
    }

    #[test]
    fn firewalld_is_told_by_its_own_commands() {
        let [installed, allowed] = FIREWALLD;
        assert_eq!(
            commands(installed, "firewall-drops-tunnel"),
            [
                "firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface=eth1 2>/dev/null || firewall-cmd --get-default-zone) --add-port=4789/udp",
                "firewall-cmd --reload",
            ]
        );
        assert_eq!(
            commands(installed, "firewall-drops-forwarded"),
            [
                "firewall-cmd --permanent --zone=trusted --add-interface=ovlbr1",
                "firewall-cmd --permanent --zone=trusted --add-interface=ovl1",
                "firewall-cmd --reload",
            ]
        );
        assert_eq!(broken(beside(allowed)), []);
    }

    #[test]
    fn ufw_is_told_by_its_own_commands() {
        let [installed, allowed] = UFW;
        assert_eq!(
            commands(installed, "firewall-drops-tunnel"),
            ["ufw allow in on eth1 proto udp to any port 4789"]
        );
        assert_eq!(
            commands(installed, "firewall-drops-forwarded"),
            [
                "ufw route allow in on ovlbr1 out on ovl1",
                "ufw route allow in on ovl1 out on ovlbr1",
            ]
        );
        assert_eq!(broken(beside(allowed)), []);
        // Nor is anything passed by on the fast path.
        assert_eq!(broken(|facts| facts.ruleset = Ok(read(allowed))), []);
    }

    #[test]
    fn docker_s_rules_are_the_administrator_s_to_add() {
        let listing = r#"{"nftables":[
            {"chain":{"family":"ip","table":"filter","name":"FORWARD","type":"filter","hook":"forward","prio":0,"policy":"drop"}},
            {"chain":{"family":"ip","table":"filter","name":"DOCKER-USER"}}
        ]}"#;
        let found = only("firewall-drops-forwarded", beside(listing));
        assert_eq!(
            found.cure.commands,
            [
                "iptables -I DOCKER-USER -i ovlbr1 -o ovl1 -j ACCEPT",
                "iptables -I DOCKER-USER -i ovl1 -o ovlbr1 -j ACCEPT",
            ]
        );
    }
}
