//! `overlay-agent top` in a terminal of 80 columns and 24 rows, with keys pressed.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    faults::{Fault, Faulty},
    guard::Guard,
    poll,
    raw::{self, Socket},
    shape::{Scenario, Shape},
    terminal::{Terminal, USUAL},
};

/// Smaller than usual.
const SMALL: (usize, usize) = (50, 12);

fn command(agent: &Agent) -> String {
    let argv = agent.argv(&["top", "--interval", "0.2", "--instance", &agent.instance]);
    // What is left of the terminal's mode is seen by what the shell says then.
    format!("{}; echo ended with $?", argv.join(" "))
}

fn fits(screen: &str, (columns, rows): (usize, usize)) -> Result<()> {
    ensure!(screen.lines().count() <= rows, "{screen}");
    for line in screen.lines() {
        ensure!(line.chars().count() <= columns, "{line}\n{screen}");
    }
    Ok(())
}

#[test]
fn a_terminal_shows_the_node_and_follows_keys() -> Result<()> {
    let guard = Guard::overlay("ttop")?;
    let nodes = &guard.topology().nodes;
    let (here, there) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let answer = check::ping(&here.namespace, there.address)?;
    assert_eq!(answer, Answer::Ttl(62));
    let mut spoofed = [0; 60];
    spoofed[6..12].copy_from_slice(&raw::mac_of(&here.namespace, "eth0")?);
    spoofed[11] ^= 0x40;
    let device = Socket::open(&here.namespace, "eth0")?;
    device.send(&spoofed)?;

    let agent = guard.agent(1);
    let terminal = Terminal::open("ttop-overlay", "sh")?;
    terminal.enter(&command(&agent))?;
    let peer = nodes[1].namespace.as_str();
    let screen = terminal.shows(&[
        "healthy",
        "fast path on",
        "per second",
        "PEER",
        peer,
        "q quit",
    ])?;
    fits(&screen, USUAL)?;
    // Traffic is seen as it goes.
    let mut rates = false;
    for _ in 0..50 {
        check::ping(&here.namespace, there.address)?;
        let screen = terminal.screen()?;
        let line = screen.lines().find(|line| line.contains(peer));
        rates = line.is_some_and(|line| !line.contains(" 0 B "));
        if rates {
            break;
        }
    }
    assert!(rates, "{}", terminal.screen()?);

    terminal.press("Tab")?;
    terminal.shows(&["This node answers probes and sends none", "probe = \"5s\""])?;
    terminal.press("Tab")?;
    terminal.shows(&["ENDPOINT", &here.namespace, "(this node)"])?;
    terminal.press("Right")?;
    terminal.shows(&["REASON", "PACKETS"])?;
    device.send(&spoofed)?;
    terminal.shows(&["spoofed_source", &here.namespace])?;
    for _ in 0..3 {
        terminal.press("Left")?;
    }
    terminal.shows(&["PEER", peer])?;
    terminal.press("BTab")?;
    terminal.shows(&["none"])?;
    terminal.press("Tab")?;

    terminal.resize(SMALL)?;
    let screen = terminal.shows(&["PEER", "q quit"])?;
    fits(&screen, SMALL)?;
    terminal.resize(USUAL)?;
    terminal.shows(&["PEER", "s sort"])?;

    // An agent that is away is told, and comes back.
    agent.stop()?;
    terminal.shows(&["no answer"])?;
    agent.start()?;
    terminal.shows(&["healthy"])?;

    for key in ["q", "C-c"] {
        terminal.press(key)?;
        let screen = terminal.shows(&["ended with 0"])?;
        ensure!(!screen.contains("PEER"), "{screen}");
        // Typing is seen again: the terminal is as it was.
        terminal.enter("clear; stty -a | grep -o '[-]*icanon\\|[-]*echo '")?;
        let screen = terminal.shows(&["icanon", "echo"])?;
        ensure!(
            !screen.contains("-icanon") && !screen.contains("-echo "),
            "{screen}"
        );
        terminal.enter(&format!("clear; {}", command(&agent)))?;
        terminal.shows(&["PEER", peer])?;
    }
    // A terminal that is closed takes it along.
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"])?;
    let shell = shell.trim();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"))?;
    let process = format!("/proc/{}", children.trim());
    assert!(fs::read_to_string(format!("{process}/cmdline"))?.contains("top"));
    drop(terminal);
    let gone = poll::until_well(|| Path::new(&process).exists().then_some("it goes on"));
    assert_eq!(gone, Ok(()));
    Ok(guard.down()?)
}

#[test]
fn the_mesh_is_drawn_and_a_lost_peer_is_seen() -> Result<()> {
    let shape = Shape::of("ttopmesh", Scenario::Overlay, 3, 1)?;
    let guard = Guard::configured(shape, |_, config| config.node.probe = Some("1s"))?;
    let topology = guard.topology();
    let agent = guard.agent(1);
    let [cut, other] = [1, 2].map(|at| topology.nodes[at].namespace.as_str());
    let terminal = Terminal::open("ttopmesh-overlay", "sh")?;
    terminal.enter(&command(&agent))?;
    terminal.shows(&["PEER", "Health"])?;
    terminal.press("Tab")?;
    for peer in [cut, other] {
        terminal.shows_of(peer, &["<-> answers", " ms", " 0 % ", " 1450 "])?;
        terminal.until(|screen| {
            let line = screen.lines().find(|line| line.contains(peer))?;
            let bars = line.chars().filter(|sign| ('▁'..='█').contains(sign));
            (bars.count() < 3).then(|| format!("three bars of {peer}"))
        })?;
    }
    let screen = terminal.shows(&["asked every 1s:  answers 2", "LAST ROUND TRIPS"])?;
    fits(&screen, USUAL)?;
    print!("{screen}");

    let fault = Faulty::towards(topology, &topology.nodes[1], Fault::Partition)?;
    terminal.shows_of(cut, &["-x- silent", "xxx"])?;
    let screen = terminal.shows(&[
        "it answered ",
        " s ago",
        "Health 1 lost",
        "silent 1",
        "degraded",
    ])?;
    fits(&screen, USUAL)?;
    print!("{screen}");
    // The worst is above.
    let place = |name: &str| screen.find(name);
    assert!(
        place(&format!("lab {cut}")) < place(&format!("lab {other}")),
        "{screen}"
    );
    terminal.shows_of(other, &["<-> answers"])?;
    terminal.resize(SMALL)?;
    fits(&terminal.shows_of(cut, &["-x- silent"])?, SMALL)?;
    terminal.resize(USUAL)?;

    drop(fault);
    terminal.shows_of(cut, &["<-> answers", " ms"])?;
    let screen = terminal.shows(&["asked every 1s:  answers 2", "healthy"])?;
    ensure!(!screen.contains("lost "), "{screen}");
    print!("{screen}");

    let mut config = guard.first_config();
    config.node.probe = Some("off");
    fs::write(agent.config_file(), config.to_toml())?;
    let screen = terminal.shows(&["Probes are off", "probe = \"5s\" in [node]"])?;
    ensure!(!screen.contains("STATE"), "{screen}");
    terminal.press("q")?;
    terminal.shows(&["ended with 0"])?;
    Ok(guard.down()?)
}
