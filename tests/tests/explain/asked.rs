//! What is asked, of whom, and in which state of the programs.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    families::Families,
    guard::Guard,
    processes::Process,
    run,
    shape::{Scenario, Shape},
};
use serde_json::Value;

use crate::said::{explain, lab};

#[test]
fn another_state_of_the_programs_is_told() -> Result<()> {
    let guard = lab("texpoff", Families::V4)?;
    let agent = guard.agent(1);
    let question = ["texpoff-n1c1", "texpoff-n2c1"];
    agent.tell(&["log-level", "debug"])?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "watched");
    agent.tell(&["log-level", "off"])?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "same");
    agent.fastpath(false)?;
    let said = explain(&agent, &question)?;
    assert_eq!(said.hops[0]["stages"][0]["attached"], "nothing");
    Ok(guard.down()?)
}

/// An agent that stands still until the value goes.
struct Stopped(Process);

impl Stopped {
    fn at(agent: &Agent) -> Result<Self> {
        let process = agent.process()?.context("no agent")?;
        process.signal(Signal::SIGSTOP)?;
        Ok(Self(process))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(Signal::SIGCONT) {
            eprintln!("an agent stays stopped: {error}");
        }
    }
}

/// Another lab has the same addresses and names of networks: nobody there is asked, whether it
/// answers or stands still.
#[test]
fn nobody_is_asked_but_the_peer() -> Result<()> {
    let guard = Guard::overlay("texpwho")?;
    let other = Guard::overlay("texpels")?;
    let (agent, peer) = (guard.agent(1), guard.agent(2));
    let question = ["texpwho-n1c1", "10.244.2.10"];
    let strangers = other.agents();
    let stopped = strangers.iter().map(Stopped::at);
    let stopped = stopped.collect::<Result<Vec<_>>>()?;
    // By address and by name.
    for to in ["10.244.2.10", "texpwho-n2c1"] {
        let said = explain(&agent, &["texpwho-n1c1", to])?;
        assert!(said.good && said.hops.len() == 2, "{:#?}", said.hops);
        assert_eq!(said.hops[1]["instance"], "texpwho-n2");
    }
    drop(stopped);

    // One that stands still is not waited for for ever, and is told of; one that is not there has
    // no other one in its place.
    let not_asked = |why: [&str; 2]| -> Result<()> {
        let text = agent.ask(&[&["explain"], &question[..]].concat())?;
        for words in ["node at 192.168.56.12 was not asked"].iter().chain(&why) {
            assert!(text.stdout.contains(words), "{words}: {}", text.stdout);
        }
        assert!(!text.stdout.contains("\nnode texpels"), "{}", text.stdout);
        let json = agent.ask(&[&["explain"], &question[..], &["-o", "json"]].concat())?;
        assert!(json.stderr.contains("was not asked"), "{}", json.stderr);
        let hops: Vec<Value> = serde_json::from_str(&json.stdout)?;
        assert_eq!(hops.len(), 1, "{hops:#?}");
        Ok(())
    };
    let stopped = Stopped::at(&peer)?;
    // Other tests' agents may not answer either.
    not_asked(["texpwho-n2", " not answer"])?;
    drop(stopped);
    peer.kill()?;
    not_asked(["the peer is", "texpwho-n2"])?;
    other.down()?;
    Ok(guard.down()?)
}

/// The last line, typed on the other node, says what would have been said.
#[test]
fn the_other_node_goes_on_with_what_was_printed() -> Result<()> {
    let guard = lab("texprec", Families::V4)?;
    let (agent, peer) = (guard.agent(1), guard.agent(2));
    let question = [
        "texprec-n1c1",
        "10.244.2.10",
        "--proto",
        "tcp",
        "--dport",
        "5432",
    ];
    let together = explain(&agent, &question)?;
    peer.stop()?;
    let said = agent.ask(&[&["explain"], &question[..]].concat())?;
    assert_eq!(said.code, Some(0), "{said:?}");
    peer.start()?;
    let last = said.stdout.trim_end().lines().next_back();
    let command = last
        .and_then(|line| line.split_once("overlay-agent "))
        .map(|(_, rest)| rest);
    let command = command.with_context(|| said.stdout.clone())?;
    // By its name: where the program is on the other machine, this one does not know.
    assert_eq!(
        last,
        Some(format!("  # overlay-agent {command}").as_str()),
        "{}",
        said.stdout
    );
    let typed: Vec<&str> = command.split(' ').collect();
    let there = explain(&peer, &typed[1..])?;
    assert!(there.good && there.hops.len() == 1, "{:#?}", there.hops);
    assert_eq!(there.hops[0]["instance"], "texprec-n2");
    assert_eq!(there.ttl(), together.ttl());
    assert_eq!(there.steps(0), together.steps(1));

    // From a pipe, broken into lines as a terminal does it.
    let frame = typed.last().context("a frame")?;
    let half = frame.len() / 2;
    let pipe = format!(
        "printf '%s\\n%s\\n' {} {} | {}",
        &frame[..half],
        &frame[half..],
        peer.argv(&["explain", "--received", "-", "--instance", "texprec-n2"])
            .join(" ")
    );
    let out = run::output(["sh", "-c", &pipe].map(str::to_owned))?;
    assert!(
        out.success && out.stdout.contains("delivered to texprec-n2c1"),
        "{out:?}"
    );

    for (frame, says) in [
        ("", "hexadecimal"),
        ("abc", "hexadecimal"),
        ("zz", "hexadecimal"),
        ("00", "frame"),
    ] {
        let out = peer.ask(&["explain", "--received", frame])?;
        assert_eq!(out.code, Some(2), "{frame}: {out:?}");
        assert!(out.stderr.contains(says), "{frame}: {}", out.stderr);
    }
    let both = peer.ask(&["explain", "a", "b", "--received", frame])?;
    assert_eq!(both.code, Some(2), "{both:?}");
    Ok(guard.down()?)
}

#[test]
fn what_cannot_be_asked_is_bad_input() -> Result<()> {
    let guard = Guard::overlay("texpbad")?;
    let agent = guard.agent(1);
    for (arguments, says) in [
        (&["nobody", "10.244.2.10"][..], "endpoint list"),
        (&["texpbad-n1c1", "nobody"], "address"),
        (&["node", "nobody"], "address"),
    ] {
        let out = agent.ask(&[&["explain"], arguments].concat())?;
        assert_eq!(out.code, Some(5), "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains(says), "{arguments:?}: {}", out.stderr);
    }
    for (arguments, says) in [
        (&["texpbad-n1c1", "fd00::1"][..], "family"),
        (&["texpbad-n1c1", "10.244.2.10", "--size", "12"], "headers"),
        (
            &["texpbad-n1c1", "10.244.2.10", "--dport", "53"],
            "--proto udp",
        ),
        (
            &["texpbad-n1c1", "10.244.2.10", "--size", "60000"],
            "at most",
        ),
    ] {
        let out = agent.ask(&[&["explain"], arguments].concat())?;
        assert_eq!(out.code, Some(2), "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.contains(says), "{arguments:?}: {}", out.stderr);
    }
    Ok(guard.down()?)
}

#[test]
fn the_guard_is_asked_before_the_stack() -> Result<()> {
    for (name, rx, programs) in [
        ("texpgt", None, &["underlay_guard", "from_underlay"][..]),
        ("texpgx", Some("xdp"), &["underlay_guard"]),
    ] {
        let shape = Shape::of(name, Scenario::Overlay, 2, 1)?;
        let guard = Guard::configured(shape, |_, config| {
            config.node.guard = Some("native");
            config.node.rx = rx;
        })?;
        let nodes = &guard.topology().nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        assert_eq!(check::ping(&from.namespace, to.address)?, Answer::Ttl(62));
        let said = explain(&guard.agent(1), &[&from.namespace, &to.address.to_string()])?;
        assert!(said.good, "{:#?}", said.hops);
        let stages = said.hops[1]["stages"].as_array().context("stages")?;
        let met: Vec<_> = stages.iter().map(|stage| &stage["program"]).collect();
        assert_eq!(met, programs);
        assert_eq!(said.ttl(), Some(62));
        guard.down()?;
    }
    Ok(())
}

#[test]
fn the_next_node_can_be_named() -> Result<()> {
    let guard = lab("texppeer", Families::V4)?;
    let agent = guard.agent(1);
    let nodes = &guard.topology().nodes;
    let far = nodes[1].containers[0].address.to_string();
    let from = &nodes[0].containers[0].namespace;
    let socket = format!("/run/overlay/{}/api.sock", nodes[1].namespace);
    for peer in [nodes[1].namespace.as_str(), &socket] {
        let said = explain(&agent, &[from, &far, "--peer", peer])?;
        assert!(said.good && said.hops.len() == 2, "{:#?}", said.hops);
    }
    // The wrong one says so, and nobody is no node.
    let wrong = agent.ask(&["explain", from, &far, "--peer", &agent.instance])?;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(
        wrong.stderr.contains("cannot continue on the peer"),
        "{}",
        wrong.stderr
    );
    let nobody = agent.ask(&["explain", from, &far, "--peer", "nobody"])?;
    assert_eq!(nobody.code, Some(3), "{}", nobody.stderr);
    // What was found out before is there all the same.
    assert!(nobody.stdout.contains("from_endpoint"), "{}", nobody.stdout);
    Ok(guard.down()?)
}
