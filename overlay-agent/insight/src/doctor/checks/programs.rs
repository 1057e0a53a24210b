//! Programs of others where ours are, and whether ours are run at all.

use overlay_common::reasons::PassReason;
use overlay_control::{Cure, Finding, Severity};
use overlay_core::{objects::Hook, plural::count};

use super::{Check, Fault, Looked, advice};
use crate::doctor::facts::{Facts, OtherProgram};

const DETACHED: Fault = Fault::warning(
    "program-detached",
    "The kernel's VXLAN device carries what should pass there, and nothing checks its sources.",
);
const AHEAD: Fault = Fault::warning(
    "program-before-ours",
    "It sees packets first, and what it takes, drops or changes is not what ours see.",
);
const XDP: Fault = Fault::warning(
    "foreign-xdp",
    "It sees packets before everything else, and what it drops or redirects nobody counts here.",
);
const STANDSTILL: Fault = Fault::problem(
    "counters-stand-still",
    "The programs do not see the packets, so nothing of what `status` and `stats` show is current.",
);

pub(super) const CHECKS: [Check; 4] = [
    DETACHED.always(detached),
    AHEAD.if_seen(ahead),
    XDP.if_seen(xdp),
    STANDSTILL.if_seen(standstill),
];

/// Fewer packets than that may have come by another device.
const ENOUGH: u64 = 3;

/// How many packets have arrived at the underlay, if our program there has seen none of them: what
/// peers answer outside of the tunnel is not for it, and counted as that.
fn stands_still(facts: &Facts) -> Result<Option<u64>, String> {
    let growth = facts.growth.as_ref().map_err(Clone::clone)?;
    let mut peers = facts.peers.iter();
    let is_answered = peers.any(|peer| peer.underlay.is_answered());
    let arrived: u64 = facts.underlay.iter().map(|device| device.received).sum();
    let still = is_answered && growth.passed(PassReason::NotOurs) == 0;
    Ok((arrived >= ENOUGH && still).then_some(arrived))
}

fn detached(facts: &Facts) -> Vec<Finding> {
    let detached = facts.detached.iter();
    detached
        .map(|(device, hook)| {
            let what = format!("{hook} was attached there, and somebody has taken it off");
            let cure = advice("start the agent, which attaches it again");
            DETACHED.at(device, what, cure)
        })
        .collect()
}

fn ahead(facts: &Facts) -> Looked {
    let ahead = facts.ahead.as_ref().map_err(Clone::clone)?;
    let still = stands_still(facts).unwrap_or_default();
    Ok(ahead
        .iter()
        .map(|ahead| {
            let swallows = still.filter(|_| ahead.hook == Hook::FromUnderlay);
            let effect = swallows.map_or(String::new(), |arrived| {
                let packets = count(arrived, "packet");
                format!(", and lets nothing through: {packets} arrived, ours have seen none")
            });
            let what = format!(
                "{} before {} there{effect}",
                told(&ahead.programs),
                ahead.hook
            );
            let found = AHEAD.at(ahead.device, what, removal(facts, &ahead.programs));
            Finding {
                severity: if swallows.is_some() {
                    Severity::Problem
                } else {
                    found.severity
                },
                ..found
            }
        })
        .collect())
}

fn xdp(facts: &Facts) -> Looked {
    let foreign = facts.foreign_xdp.as_ref().map_err(Clone::clone)?;
    Ok(foreign
        .iter()
        .map(|found| {
            let programs = std::slice::from_ref(&found.program);
            let what = format!("{} on it", told(programs));
            XDP.at(found.device, what, removal(facts, programs))
        })
        .collect())
}

fn standstill(facts: &Facts) -> Looked {
    let explained =
        |found: &Result<Vec<_>, String>| found.as_ref().is_ok_and(|all| !all.is_empty());
    let by_xdp = facts.foreign_xdp.as_ref().is_ok_and(|all| !all.is_empty());
    if explained(&facts.ahead) || by_xdp {
        return Ok(Vec::new());
    }
    let Some(arrived) = stands_still(facts)? else {
        return Ok(Vec::new());
    };
    let devices = super::list(facts.underlay.iter().map(|device| device.name));
    let what = format!(
        "{} arrived, answers of peers among them, and none was counted",
        count(arrived, "packet")
    );
    let [off, on] = ["fastpath off", "fastpath on"].map(|words| facts.commands.agent(words));
    let cure = advice(format!("\"{off}\" and \"{on}\" attach the programs anew"));
    Ok(vec![STANDSTILL.at(devices, what, cure)])
}

fn told(programs: &[OtherProgram]) -> String {
    let name = |program: &OtherProgram| match program.name.as_str() {
        "" => format!("without a name (id {})", program.id),
        name => format!("{name:?} (id {})", program.id),
    };
    match programs {
        [only] => format!("program {} runs", name(only)),
        _ => format!("programs {} run", super::list(programs.iter().map(name))),
    }
}

/// Somebody may need it, and that is no command's to decide.
fn removal(facts: &Facts, programs: &[OtherProgram]) -> Cure {
    let commands = programs.iter().filter_map(|program| {
        let command = program.removal.as_deref()?;
        Some(format!("\"{}\"", facts.commands.on_node(command)))
    });
    let commands: Vec<String> = commands.collect();
    advice(if commands.is_empty() {
        "ask whose it is; if nobody needs it, take it off".to_owned()
    } else {
        let commands = commands.join(" and ");
        format!("ask whose it is; if nobody needs it, take it off with {commands}")
    })
}

#[cfg(test)]
mod tests {
    use overlay_common::reasons::PassReason;
    use overlay_control::Severity;
    use overlay_core::objects::Hook;

    use super::super::healthy::only;
    use crate::doctor::facts::{Ahead, Facts, ForeignXdp, Growth, OtherProgram};

    fn program() -> OtherProgram {
        OtherProgram {
            id: 7,
            name: "snoop".to_owned(),
            removal: Some("bpftool link detach id 9".to_owned()),
        }
    }

    fn before(facts: &mut Facts) {
        facts.ahead = Ok(vec![Ahead {
            device: "eth1".parse().unwrap(),
            hook: Hook::FromUnderlay,
            programs: vec![program()],
        }]);
    }

    /// What containers send is still counted.
    fn still(facts: &mut Facts) {
        facts.growth = Ok(Growth {
            passes: vec![(PassReason::NotUnicast, 5)],
            ..Growth::default()
        });
    }

    #[test]
    fn a_program_that_swallows_is_worse_than_one_that_looks() {
        let found = only("program-before-ours", before);
        assert_eq!(found.severity, Severity::Warning);
        assert!(found.cure.commands.is_empty(), "somebody may need it");
        assert!(
            found.cure.text.contains("\"bpftool link detach id 9\""),
            "{found:?}"
        );
        let found = only("program-before-ours", |facts| {
            before(facts);
            still(facts);
        });
        assert_eq!(found.severity, Severity::Problem);
        assert!(found.what.contains("100 packets arrived"), "{found:?}");
    }

    #[test]
    fn a_program_that_was_taken_off_is_told() {
        let found = only("program-detached", |facts| {
            let place = ("eth1".parse().unwrap(), Hook::FromUnderlay);
            facts.detached = vec![place];
        });
        assert!(found.what.starts_with("from_underlay was"), "{found:?}");
    }

    #[test]
    fn xdp_of_others_is_told() {
        let found = only("foreign-xdp", |facts| {
            facts.foreign_xdp = Ok(vec![ForeignXdp {
                device: "eth1".parse().unwrap(),
                program: program(),
            }]);
        });
        assert_eq!(found.what, "program \"snoop\" (id 7) runs on it");
    }

    #[test]
    fn counters_that_stand_still_are_told_unless_nothing_arrives() {
        let found = only("counters-stand-still", still);
        assert!(found.what.starts_with("100 packets arrived"), "{found:?}");
        let quiet = super::super::healthy::broken(|facts| {
            still(facts);
            facts.underlay[0].received = 0;
        });
        assert!(quiet.is_empty(), "{quiet:#?}");
    }
}
