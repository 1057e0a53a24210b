//! Routes and rules that refuse packets hold on both paths: senders hear what the kernel would
//! tell them, and `status` says why.

mod neighbour;
mod tables;

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Error, Result, bail};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    counters::carried,
    families::{Families, Family},
    guard::Guard,
    poll, run,
    shape::{Scenario, Shape},
};
use serde_json::Value;

const ACTIONS: [&str; 3] = ["blackhole", "prohibit", "unreachable"];
/// Of pings, the first of which may have been lost otherwise.
const SEVERAL: usize = 3;
/// What `check::ping` makes of no answer.
const SILENCE: &str = "no answer in time";
/// Longer than a sender that is told of an error waits.
const PATIENCE: Duration = Duration::from_millis(700);

/// Two nodes, and a container of each.
struct Stand {
    guard: Guard,
}

/// Routes and rules on the first node.
struct Case {
    family: Family,
    /// As `ip` is given each, without `add` and `del`: the object, and the rest.
    parts: Vec<(&'static str, String)>,
    /// A part of what `status` says of it.
    told: String,
}

impl Case {
    fn what(&self) -> String {
        let parts = self.parts.iter();
        let parts = parts.map(|(object, rest)| format!("{object} {rest}"));
        parts.collect::<Vec<_>>().join("; ")
    }
}

impl Stand {
    fn up(name: &str, outer: Families) -> Result<Self> {
        let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
        let guard = Guard::up(shape.speaking(outer, Families::Both)?)?;
        let stand = Self { guard };
        // Whoever is refused hears of it each time.
        for setting in ["net.ipv4.icmp_ratemask", "net.ipv6.icmp.ratelimit"] {
            let set = format!("ip netns exec {} sysctl -qw {setting}=0", stand.node());
            run::checked(set)?;
        }
        Ok(stand)
    }

    fn agent(&self) -> Agent {
        self.guard.agent(1)
    }

    fn node(&self) -> &str {
        &self.guard.topology().nodes[0].namespace
    }

    fn far(&self, family: Family) -> IpAddr {
        self.guard.topology().nodes[1].containers[0].at(family)
    }

    fn ping(&self, family: Family) -> Result<Answer> {
        let near = &self.guard.topology().nodes[0].containers[0];
        Ok(check::ping_for(
            &near.namespace,
            self.far(family),
            PATIENCE,
        )?)
    }

    /// Whether a ping goes by the programs.
    fn is_fast(&self, family: Family, on: bool) -> Result<bool> {
        let count = || Ok::<_, Error>(carried(&self.agent().instance)?.sent);
        let before = count()?;
        let arrives = matches!(self.ping(family)?, Answer::Ttl(_));
        Ok(arrives && count()? - before == u64::from(on))
    }

    fn becomes_fast(&self, on: bool, after: &str) {
        for family in [Family::V4, Family::V6] {
            let outcome = poll::until_well(|| match self.is_fast(family, on) {
                Ok(true) => None,
                other => Some(format!("{other:?}")),
            });
            assert_eq!(outcome, Ok(()), "after {after}, {family:?}");
        }
    }

    fn ip(&self, case: &Case, verb: &str) -> Result<()> {
        let node = self.node();
        let number = match case.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        for (object, rest) in &case.parts {
            let line = format!("ip -{number} -n {node} {object} {verb} {rest}");
            run::checked(line).map(drop)?;
        }
        Ok(())
    }

    /// What a sender hears while it is there.
    fn heard(&self, case: &Case, family: Family, on: bool) -> Result<String> {
        let what = case.what();
        self.ip(case, "add")?;
        let stopped = poll::until_well(|| match self.ping(family) {
            Ok(Answer::None(_)) => None,
            other => Some(format!("{other:?}")),
        });
        assert_eq!(stopped, Ok(()), "{what} is passed by, {on}");
        if on {
            self.agent()
                .status_until(|status| says(status, &case.told))
                .with_context(|| what.clone())?;
        }
        let mut heard = SILENCE.to_owned();
        for _ in 0..SEVERAL {
            match self.ping(family)? {
                Answer::None(reason) if heard == SILENCE => heard = reason,
                Answer::None(_) => {}
                arrived @ Answer::Ttl(_) => bail!("{what}: {arrived:?}"),
            }
        }
        self.ip(case, "del")?;
        self.becomes_fast(on, &what);
        Ok(heard)
    }

    fn cases(&self, outer: Family) -> Vec<(Case, Family)> {
        let other = &self.guard.topology().nodes[1];
        let own = &self.guard.topology().nodes[0].containers[0];
        let mut cases = Vec::new();
        for action in ACTIONS {
            for family in [Family::V4, Family::V6] {
                let far = self.far(family);
                let subnet = other.subnet_at(family);
                for (object, rest, told) in [
                    (
                        "route",
                        format!("{action} {far}"),
                        format!("{action} route"),
                    ),
                    // Before the agent's own, which has another metric.
                    (
                        "route",
                        format!("{action} {subnet} metric 1"),
                        format!("{action} route"),
                    ),
                    (
                        "rule",
                        format!("to {subnet} priority 99 {action}"),
                        format!("{action} rule"),
                    ),
                    (
                        "rule",
                        format!("from {} priority 99 {action}", own.at(family)),
                        format!("{action} rule"),
                    ),
                ] {
                    let parts = vec![(object, rest)];
                    let case = Case {
                        family,
                        parts,
                        told,
                    };
                    cases.push((case, family));
                }
            }
            let vtep = other.underlay_at(outer);
            for (object, rest) in [
                ("route", format!("{action} {vtep}")),
                ("rule", format!("to {vtep} priority 99 {action}")),
            ] {
                let case = Case {
                    family: outer,
                    parts: vec![(object, rest)],
                    told: vtep.to_string(),
                };
                cases.push((case, Family::V4));
            }
        }
        cases
    }

    fn compare(&self, cases: &[(Case, Family)]) -> Result<()> {
        for (case, family) in cases {
            let mut heard = Vec::new();
            for on in [true, false] {
                self.agent().fastpath(on)?;
                self.becomes_fast(on, "the switch");
                heard.push(self.heard(case, *family, on)?);
            }
            let [fast, slow] = heard.as_slice() else {
                unreachable!("two paths")
            };
            assert_eq!(fast, slow, "{}", case.what());
        }
        Ok(())
    }
}

/// Whether a hook or a problem is told so.
fn says(status: &Value, told: &str) -> bool {
    let networks = status["networks"].as_array().into_iter().flatten();
    let endpoints = status["endpoints"].as_array().into_iter().flatten();
    let hooks = networks.chain(endpoints);
    let mut hooks = hooks.flat_map(|one| one["hooks"].as_array().into_iter().flatten());
    hooks.any(|hook| hook.to_string().contains(told))
        || status["problems"].to_string().contains(told)
}

#[test]
fn what_routes_and_rules_refuse_is_refused_on_both_paths() -> Result<()> {
    let stand = Stand::up("troutes", Families::V4)?;
    stand.compare(&stand.cases(Family::V4))?;
    Ok(stand.guard.down()?)
}

#[test]
fn what_they_refuse_is_refused_over_ipv6() -> Result<()> {
    let stand = Stand::up("troutes6", Families::V6)?;
    stand.compare(&stand.cases(Family::V6))?;
    Ok(stand.guard.down()?)
}
