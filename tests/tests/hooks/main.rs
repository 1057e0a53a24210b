//! What others hook in where packets pass on the kernel's way has its turn, whichever path they
//! take; with `fastpath = "required"` it is told.

mod cases;
mod crowd;
mod firewall;
mod streams;
mod wire;

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use overlay_tests::{
    agent::Agent,
    assembly::{EXIT, set},
    bpf::{Hook, Link, Program},
    counters::{carried, reasons},
    guard::Guard,
    kernel, netns, poll, run,
    shape::{Scenario, Shape},
    topology::UNDERLAY,
};
use serde_json::Value;

/// `TC_ACT_SHOT`, and `TCX_NEXT`.
const SHOT: i32 = 2;
const NEXT: i32 = -1;
/// `XDP_DROP`.
const XDP_DROP: i32 = 1;
/// Pings that are sent to see that none arrives.
const SEVERAL: usize = 3;
/// Of which nodes the fast path is on.
const PATHS: [[bool; 2]; 4] = [[true, true], [false, false], [true, false], [false, true]];

/// Two nodes, and a container of each.
struct Stand {
    guard: Guard,
}

/// Something that drops what passes.
#[derive(Clone)]
struct Case {
    what: &'static str,
    /// The node, counted from 1, whose agent has to heed it.
    node: u8,
    /// A part of what `status` says of it.
    told: &'static str,
    put: Put,
}

#[derive(Clone)]
enum Put {
    /// By commands on the node: one that puts it there, and one that takes it away.
    Command(String, String),
    /// A TCX program on a device of the node.
    Program(String, Hook),
    /// An XDP program in the driver of the interface of the node's container.
    Inside,
    /// One in the driver of the node's underlay.
    Underlay,
}

/// What stays there as long as the value lives.
enum There {
    Command(String),
    Program(Link),
}

impl Stand {
    fn up(name: &str, required: bool) -> Result<Self> {
        let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
        let guard = Guard::configured(shape, |_, config| {
            if required {
                config.networks[0].fastpath = Some("required".to_owned());
            }
        })?;
        Ok(Self { guard })
    }

    fn node(&self, number: u8) -> &str {
        &self.guard.topology().nodes[usize::from(number) - 1].namespace
    }

    fn container(&self, number: u8) -> &str {
        let node = &self.guard.topology().nodes[usize::from(number) - 1];
        &node.containers[0].namespace
    }

    /// The node's side of its container's veth.
    fn veth(&self, number: u8) -> Result<String> {
        let status = self.guard.agent(number).json(&["status"])?;
        let device = status["endpoints"][0]["device"].as_str();
        Ok(device.context("the container has no device")?.to_owned())
    }

    fn ping_arrives(&self) -> Result<bool> {
        let to = self.guard.topology().nodes[1].containers[0].address;
        let from = self.container(1);
        let ping = format!("ip netns exec {from} ping -n -q -c 1 -W 0.5 {to}");
        Ok(run::output(ping)?.code == Some(0))
    }

    fn agent(&self, number: u8) -> Agent {
        self.guard.agent(number)
    }

    fn put(&self, case: &Case) -> Result<There> {
        let node = self.node(case.node);
        match &case.put {
            Put::Command(put, take) => {
                shell(node, put)?;
                Ok(There::Command(take.clone()))
            }
            Put::Program(device, hook) => {
                let program = Program::load(&[set(0, SHOT), EXIT])?;
                Ok(There::Program(attached(node, || {
                    Ok(program.attach(if_nametoindex(device.as_str())?, *hook)?)
                })?))
            }
            Put::Inside => in_driver(self.container(case.node), "eth0"),
            Put::Underlay => in_driver(node, UNDERLAY),
        }
    }

    fn take(&self, case: &Case, there: There) -> Result<()> {
        match there {
            There::Command(take) => shell(self.node(case.node), &take),
            There::Program(link) => {
                drop(link);
                Ok(())
            }
        }
    }

    /// Whether a ping is carried by the programs of these nodes.
    fn is_fast(&self, on: [bool; 2]) -> Result<bool> {
        let count = || -> Result<u64> {
            let [one, other] = [1, 2].map(|node| carried(&self.agent(node).instance));
            Ok(one?.sent + other?.received)
        };
        let before = count()?;
        let programs = on.into_iter().map(u64::from).sum::<u64>();
        Ok(self.ping_arrives()? && count()? == before + programs)
    }

    fn becomes_fast(&self, on: [bool; 2], after: &str) {
        let outcome = poll::until_well(|| match self.is_fast(on) {
            Ok(true) => None,
            other => Some(format!("{other:?}")),
        });
        assert_eq!(outcome, Ok(()), "after {after}, {on:?}");
    }

    /// Puts something there, sees that nothing passes, and takes it away.
    fn try_one(&self, case: &Case, on: [bool; 2]) -> Result<()> {
        let fast = on[usize::from(case.node) - 1];
        let there = self.put(case).context(case.what)?;
        poll::until(|| self.ping_arrives(), |it| !*it)
            .with_context(|| format!("{} is passed by, {on:?}", case.what))?;
        // What the kernel carries can pass nothing by.
        for _ in 0..if fast { SEVERAL } else { 0 } {
            ensure!(!self.ping_arrives()?, "{} is passed by, {on:?}", case.what);
        }
        if fast && !case.told.is_empty() {
            let agent = self.agent(case.node);
            agent
                .status_until(|status| says(status, case.told) && status["healthy"] == true)
                .with_context(|| format!("{}, {on:?}", case.what))?;
            let text = agent.tell(&["status"])?;
            let mut lines = text.lines();
            let says_so = |line: &str| {
                line.contains("carried by the kernel because of") && line.contains(case.told)
            };
            assert!(lines.any(says_so), "{}: {text}", case.what);
        }
        self.take(case, there).context(case.what)?;
        self.becomes_fast(on, case.what);
        Ok(())
    }
}

/// Whether the status names a hook.
fn says(status: &Value, told: &str) -> bool {
    let lists = ["networks", "endpoints"].map(|list| status[list].as_array());
    let all = lists.into_iter().flatten().flatten();
    let mut hooks = all.filter_map(|one| one["hooks"].as_array()).flatten();
    hooks.any(|hook| {
        hook["what"]
            .as_str()
            .is_some_and(|what| what.contains(told))
    })
}

fn attached(namespace: &str, attach: impl FnOnce() -> Result<Link> + Send) -> Result<Link> {
    netns::inside(namespace, attach)?
}

/// Drops what arrives in the driver of an interface.
fn in_driver(namespace: &str, device: &str) -> Result<There> {
    let program = Program::load_xdp(&[set(0, XDP_DROP), EXIT])?;
    let attach = || Ok(program.attach_in_driver(if_nametoindex(device)?)?);
    Ok(There::Program(attached(namespace, attach)?))
}

fn shell(node: &str, line: &str) -> Result<()> {
    let inside = ["ip", "netns", "exec", node, "sh", "-ec", line];
    run::checked(inside.map(str::to_owned))?;
    Ok(())
}

#[test]
fn what_others_hook_in_has_its_turn_on_both_paths_and_between_them() -> Result<()> {
    let stand = Stand::up("thooks", false)?;
    let cases = stand.cases()?;
    let more = [stand.firewall(), stand.at_the_wire()].concat();
    for on in PATHS {
        for (node, on) in [1, 2].into_iter().zip(on) {
            stand.agent(node).fastpath(on)?;
        }
        stand.becomes_fast(on, "the switch");
        for case in &cases {
            stand.try_one(case, on)?;
        }
        // Where the other node stands does not matter to these.
        for case in more.iter().filter(|_| on[0] == on[1]) {
            stand.try_one(case, on)?;
        }
    }
    Ok(stand.guard.down()?)
}

/// What is hooked in and lets everything pass costs speed, and not one packet.
#[test]
fn nothing_is_lost_while_hooks_come_and_go() -> Result<()> {
    if !kernel::has_tcx() {
        return Ok(());
    }
    let stand = Stand::up("thooksl", false)?;
    stand.becomes_fast([true; 2], "the start");
    let device = stand.veth(2)?;
    let to = stand.guard.topology().nodes[1].containers[0].address;
    let ping = format!(
        "ip netns exec {} ping -n -q -i 0.005 -c 600 -W 2 {to}",
        stand.container(1)
    );
    let pinging = std::thread::spawn(move || run::checked(ping));
    let passed = || -> Result<u64> {
        let counted = reasons(&stand.agent(2).instance, "PASSES")?;
        let hooked = counted.iter().find(|(reason, _)| reason == "hooked");
        Ok(hooked.map_or(0, |(_, count)| *count))
    };
    let program = Program::load(&[set(0, NEXT), EXIT])?;
    while !pinging.is_finished() {
        let before = passed()?;
        let link = attached(stand.node(2), || {
            Ok(program.attach(if_nametoindex(device.as_str())?, Hook::Egress)?)
        })?;
        poll::until(&passed, |now| *now > before || pinging.is_finished())?;
        drop(link);
    }
    let told = pinging.join().ok().context("the pings panicked")??;
    assert!(told.contains(" 0% packet loss"), "{told}");
    assert!(passed()? > 0);
    Ok(stand.guard.down()?)
}

/// Whether a finding of doctor, and a problem of `status`, name what is passed by.
fn is_told_as_passed_by(agent: &Agent, told: &str) -> Result<bool> {
    let names = |entry: &Value, name: &str| {
        entry[name] == "hook-passed-by" && entry.to_string().contains(told)
    };
    let some = |answer: &Value, list: &str, name: &str| {
        let entries = answer[list].as_array().into_iter().flatten();
        entries.into_iter().any(|entry| names(entry, name))
    };
    Ok(some(&agent.json(&["status"])?, "problems", "id")
        && some(&agent.json(&["doctor"])?, "findings", "check"))
}

/// Each hook is named by `status` and doctor with what it is and whose, and has no effect.
#[test]
fn what_a_required_fast_path_passes_by_is_told() -> Result<()> {
    let stand = Stand::up("thooksr", true)?;
    stand.becomes_fast([true; 2], "the start");
    let all = [stand.cases()?, stand.firewall(), stand.at_the_wire()].concat();
    // Routes and rules of routing hold all the same, and what names nothing has its turn.
    let of_routes = |case: &&Case| case.told.ends_with(" route") || case.told.ends_with(" rule");
    let passed_by = all.iter().filter(|case| !case.told.is_empty());
    for case in passed_by.filter(|case| !of_routes(case)) {
        let there = stand.put(case).context(case.what)?;
        let agent = stand.agent(case.node);
        let told = poll::until_well(|| match is_told_as_passed_by(&agent, case.told) {
            Ok(true) => None,
            other => Some(format!("{other:?}, status {:?}", agent.json(&["status"]))),
        });
        assert_eq!(told, Ok(()), "{}", case.what);
        stand.becomes_fast([true; 2], case.what);
        stand.take(case, there).context(case.what)?;
        poll::until(|| is_told_as_passed_by(&agent, case.told), |it| !*it)
            .with_context(|| format!("{} is gone", case.what))?;
    }
    Ok(stand.guard.down()?)
}
