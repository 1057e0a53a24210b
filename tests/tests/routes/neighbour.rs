//! A neighbour on the underlay that has another MAC all of a sudden, and says nothing of it.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    check::{self, Answer},
    counters::carried,
    families::{Families, Family},
    guard::Guard,
    kernel, poll, raw, run,
    shape::{Scenario, Shape},
    topology::UNDERLAY,
};

const MACS: [&str; 2] = ["02:00:00:00:99:01", "02:00:00:00:99:02"];
/// Longer than the kernel believes an entry, as it is set here.
const PAUSE: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_millis(500);

struct Stand {
    guard: Guard,
    family: Family,
}

impl Stand {
    /// Nobody asks or probes but for what containers send.
    fn up(name: &str, family: Family) -> Result<Self> {
        let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
        let (outer, number, asks) = match family {
            Family::V4 => (Families::V4, 4, "arp operation request"),
            Family::V6 => (Families::V6, 6, "icmpv6 type nd-neighbor-solicit"),
        };
        let shape = shape.speaking(outer, Families::V4)?;
        let guard = Guard::configured(shape, |_, config| config.node.probe = Some("off"))?;
        let stand = Self { guard, family };
        let neigh = format!("net.ipv{number}.neigh.{UNDERLAY}");
        stand.on(
            0,
            &format!(
                "sysctl -qw {neigh}.base_reachable_time_ms=1000 {neigh}.delay_first_probe_time=1"
            ),
        )?;
        // What is known already is believed for as long as was right when it was learned.
        stand.on(0, &format!("ip neigh flush dev {UNDERLAY}"))?;
        // Whoever asks tells of himself.
        let quiet = format!(
            "nft 'table netdev quiet {{ chain c {{ type filter hook egress device {UNDERLAY} \
             priority 0; {asks} drop; }}; }}'"
        );
        // And so it has to know whom it answers: what it asks in vain it would forget.
        stand.on(1, &stand.remembered()?)?;
        stand.on(1, &quiet)?;
        Ok(stand)
    }

    fn on(&self, node: usize, line: &str) -> Result<String> {
        let namespace = &self.guard.topology().nodes[node].namespace;
        let inside = ["ip", "netns", "exec", namespace, "sh", "-ec", line];
        Ok(run::checked(inside.map(str::to_owned))?)
    }

    fn arrives(&self) -> Result<bool> {
        let [near, far] =
            [0, 1].map(|node: usize| &self.guard.topology().nodes[node].containers[0]);
        let answer = check::ping_for(&near.namespace, far.at(Family::V4), PATIENCE)?;
        Ok(matches!(answer, Answer::Ttl(_)))
    }

    fn until_it_arrives(&self, what: &str) {
        let outcome = poll::until_well(|| match self.arrives() {
            Ok(true) => None,
            other => Some(format!("{other:?}")),
        });
        let known = [0, 1].map(|node| {
            self.on(
                node,
                &format!("ip neigh show dev {UNDERLAY}; ip -br link show dev {UNDERLAY}"),
            )
        });
        assert_eq!(outcome, Ok(()), "{what}, {known:?}");
    }

    /// What has the second node remember the first one's MAC.
    fn remembered(&self) -> Result<String> {
        let node = &self.guard.topology().nodes[0];
        let mac = raw::mac_of(&node.namespace, UNDERLAY)?;
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let near = node.underlay_at(self.family);
        Ok(format!(
            "ip neigh replace {near} lladdr {mac} dev {UNDERLAY} nud permanent"
        ))
    }

    /// The MAC that the first node knows, if any.
    fn known(&self) -> Result<Option<String>> {
        let address = self.guard.topology().nodes[1].underlay_at(self.family);
        let line = self.on(0, &format!("ip neigh show {address} dev {UNDERLAY}"))?;
        let mut words = line.split_whitespace().skip_while(|word| *word != "lladdr");
        Ok(words.nth(1).map(str::to_owned))
    }

    fn try_both_paths(&self) -> Result<()> {
        for (on, mac) in [true, false].into_iter().zip(MACS) {
            let what = format!("fast path {on}");
            self.guard.agent(1).fastpath(on)?;
            self.until_it_arrives(&what);
            // What was asked for that packet is answered by then.
            thread::sleep(PAUSE);
            let old = self.known()?.context("no MAC is known")?;
            let before = carried(&self.guard.agent(1).instance)?.sent;
            let remember = self.remembered()?;
            self.on(
                1,
                &format!("ip link set dev {UNDERLAY} address {mac}; {remember}"),
            )?;
            thread::sleep(PAUSE);
            // Nobody has told, and nobody has asked everybody: at most the node at the old address, in vain.
            let known = self.known()?;
            assert!(
                known.as_ref().is_none_or(|known| *known == old),
                "{what}: {known:?}"
            );
            self.until_it_arrives(&what);
            assert_eq!(self.known()?.as_deref(), Some(mac), "{what}");
            let sent = carried(&self.guard.agent(1).instance)?.sent - before;
            ensure!((sent > 0) == on, "{what}: {sent} by the programs");
        }
        Ok(())
    }
}

/// The traffic of the programs has the kernel ask for it as its own would.
fn is_noticed(name: &str, family: Family) -> Result<()> {
    // There are chains at egress then.
    if !kernel::has_tcx() {
        return Ok(());
    }
    let stand = Stand::up(name, family)?;
    stand.try_both_paths()?;
    Ok(stand.guard.down()?)
}

#[test]
fn a_silent_change_of_a_neighbour_is_noticed_by_traffic_of_either_path() -> Result<()> {
    is_noticed("tneigh", Family::V4)
}

#[test]
fn it_is_noticed_over_ipv6() -> Result<()> {
    is_noticed("tneigh6", Family::V6)
}
