//! What a container sends out of its network leaves by a default route with the node's address, or
//! not at all; and by routes of the operator's as it is.

use std::net::IpAddr;

use anyhow::{Context as _, Error, Result, ensure};
use overlay_tests::{
    check::{self, Answer},
    config::Config,
    families::Family,
    poll, run,
};

use crate::{FAR, NOBODY, ROUTED, Router, Stand};

const IN_THE_CLEAR: &str = "in_the_clear";
const UNREACHABLE: &str = "unreachable";
/// Of the world, by the node and its router.
const TTL: u8 = 63;

/// Of somebody else's: what is for one of the router's addresses gets the node's, and who asks
/// the node gets an answer of a container.
fn translation(container: &[IpAddr; 2]) -> String {
    let [v4, v6] = container;
    format!(
        "table inet other {{
           chain post {{
             type nat hook postrouting priority srcnat;
             ip saddr 10.244.0.0/16 ip daddr {} masquerade
             ip6 saddr fd00:244::/48 ip6 daddr {} masquerade
           }}
           chain pre {{
             type nat hook prerouting priority dstnat;
             ip daddr 203.0.113.1 icmp type echo-request dnat ip to {v4}
             ip6 daddr 2001:db8:113::1 icmpv6 type echo-request dnat ip6 to {v6}
           }}
         }}",
        ROUTED[0], ROUTED[1]
    )
}

impl Stand {
    /// A packet to this address is dropped for this reason; its sender hears of it, or not.
    fn refuses(&self, to: &str, reason: &str, answers: bool) -> Result<()> {
        let agent = self.agent();
        let count = || Ok::<_, Error>(agent.drops()?.get(reason).copied().unwrap_or_default());
        let before = count()?;
        let ping = format!("ip netns exec {} ping -n -c1 -W1 {to}", self.quiet());
        let out = run::output(ping)?;
        ensure!(!out.success, "{to}: {}", out.stdout);
        // Its summary counts errors.
        let heard = out.stdout.contains(" errors");
        ensure!(heard == answers, "{to}: {}", out.stdout);
        let counted = count()? - before;
        ensure!(counted == 1, "{to}: {reason} {counted}\n{}", out.stdout);
        let said = agent.ask(&["explain", self.quiet(), to])?;
        let tells = reason == UNREACHABLE || said.stdout.contains(reason);
        ensure!(said.code == Some(1) && tells, "{to}: {said:?}");
        Ok(())
    }

    /// Once what has just been changed is heeded.
    fn comes_to_refuse(&self, to: &str, reason: &str, answers: bool) -> Result<()> {
        poll::until_ok(|| self.refuses(to, reason, answers))
    }

    fn comes_to_reach(&self, to: &str, why: &str) -> Result<()> {
        let to: IpAddr = to.parse()?;
        poll::until(
            || check::ping(self.quiet(), to),
            |answer| *answer == Answer::Ttl(TTL),
        )
        .with_context(|| format!("{why}: {to}"))?;
        let said = self
            .agent()
            .ask(&["explain", self.quiet(), &to.to_string()])?;
        ensure!(said.success, "{why}: {to}: {said:?}");
        Ok(())
    }

    fn routed(&self, command: &str) -> Result<()> {
        for (to, via) in ROUTED.into_iter().zip(Router::ADDRESSES) {
            self.ip(&format!("route {command} {to} via {via}"))?;
        }
        Ok(())
    }

    fn nothing_leaves(&self) -> Result<()> {
        for to in FAR {
            self.refuses(to, IN_THE_CLEAR, true)?;
        }
        for to in NOBODY {
            self.refuses(to, UNREACHABLE, true)?;
        }
        Ok(())
    }

    /// Where the operator's routes lead, and nowhere else.
    fn by_routes(&self) -> Result<()> {
        self.routed("add")?;
        for (to, far) in ROUTED.into_iter().zip(FAR) {
            self.comes_to_reach(to, "a route leads there")?;
            self.refuses(far, IN_THE_CLEAR, true)?;
        }
        self.routed("del")?;
        for to in ROUTED {
            self.comes_to_refuse(to, IN_THE_CLEAR, true)?;
        }
        Ok(())
    }

    /// Translated by somebody else, in either direction; what is not is dropped then, too.
    fn translated_by_others(&self) -> Result<()> {
        let container = &self.guard.topology().nodes[0].containers[1];
        let both = [Family::V4, Family::V6].map(|family| container.at(family));
        let node = self.node();
        let nft = |command: &str| {
            let enter = format!("--net=/run/netns/{node}");
            run::checked(["nsenter", &enter, "nft", command].map(str::to_owned)).map(drop)
        };
        nft(&translation(&both))?;
        for (to, far) in ROUTED.into_iter().zip(FAR) {
            self.comes_to_reach(to, "translated")?;
            self.refuses(far, IN_THE_CLEAR, false)?;
        }
        for (from, to) in FAR.into_iter().zip(["203.0.113.1", "2001:db8:113::1"]) {
            let ping = format!(
                "ip netns exec {} ping -n -c1 -W2 -I {from} {to}",
                self.router.name
            );
            let said = run::checked(ping)?;
            ensure!(said.contains(&format!("ttl={TTL}")), "{said}");
        }
        nft("delete table inet other")?;
        for to in ROUTED {
            self.comes_to_refuse(to, IN_THE_CLEAR, true)?;
        }
        Ok(())
    }

    fn configured(&self, why: &str, change: impl Fn(&mut Config)) -> Result<()> {
        let mut config = self.config.clone();
        change(&mut config);
        self.write(&config)?;
        for to in FAR {
            self.comes_to_reach(to, why)?;
        }
        self.write(&self.config)?;
        for to in FAR {
            self.comes_to_refuse(to, IN_THE_CLEAR, true)?;
        }
        Ok(())
    }
}

#[test]
fn no_container_leaves_by_a_default_route_as_itself() -> Result<()> {
    let stand = Stand::raise("tleave")?;
    // Whoever is refused hears of it each time.
    for setting in ["net.ipv4.icmp_ratemask", "net.ipv6.icmp.ratelimit"] {
        let set = format!("ip netns exec {} sysctl -qw {setting}=0", stand.node());
        run::checked(set)?;
    }
    stand.is_whole("the start")?;
    for on in [true, false] {
        stand.agent().fastpath(on)?;
        stand.nothing_leaves()?;
        let (inner, _) = Router::seen(&stand.router.name)?;
        assert_eq!(inner, 0, "at the router");
    }
    // From here on some do, as they are, and find back.
    for (range, via) in [
        ("10.244.0.0/16", "203.0.113.1"),
        ("fd00:244::/48", "2001:db8:113::1"),
    ] {
        let back = format!("ip -n {} route add {range} via {via}", stand.router.name);
        run::checked(back)?;
    }
    for on in [true, false] {
        stand.agent().fastpath(on)?;
        stand.by_routes()?;
        stand.translated_by_others()?;
        stand.configured("the rule is off", |config| {
            let security = &mut config.networks[0].security;
            security.insert(IN_THE_CLEAR, "accept");
        })?;
        stand.configured("masqueraded", |config| {
            config.networks[0].masquerade = Some(true);
        })?;
        assert_eq!(stand.agent().plan()?, Vec::<serde_json::Value>::new());
    }
    Ok(stand.guard.down()?)
}
