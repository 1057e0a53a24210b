//! What cannot be attached is refused with a reason, a code of its own and nothing else.

use std::{fs, path::Path};

use anyhow::Result;
use overlay_tests::{guard::Guard, netns::Temporary, run};

use super::list;

/// What is asked for, the exit code, and what must be said.
type Refused<'a> = (&'a str, &'a [&'a str], i32, &'a str);

#[test]
fn what_is_refused_leaves_no_trace() -> Result<()> {
    let guard = Guard::pair("tepno")?;
    let agent = guard.agent(1);
    let node = agent.instance.clone();
    let taken = Temporary::make("tepno-taken")?;
    run::checked("ip -n tepno-taken link add eth0 type bridge")?;
    let free = Temporary::make("tepno-free")?;
    run::checked(format!("ip -n {node} link add other type bridge"))?;
    run::checked(format!("ip -n {node} address add 203.0.113.1/24 dev other"))?;
    agent.is_well()?;
    let before = (list(&agent)?, agent.log()?);

    let own_node = format!("/run/netns/{node}");
    let refused: [Refused<'_>; 10] = [
        ("x", &["--netns", "/run/netns/tepno-none"], 5, "there is no"),
        ("x", &["--pid", "4194304"], 5, "no process 4194304"),
        ("x", &["--netns", "tepno-taken"], 6, "an interface eth0"),
        (
            "x",
            &["--netns", "/run/netns/tepno-taken"],
            6,
            "an interface eth0",
        ),
        ("x", &["--netns", &own_node], 2, "the node's own"),
        ("node", &["--netns", "tepno-free"], 2, "the node itself"),
        ("10.244.1.9", &["--netns", "tepno-free"], 2, "an address"),
        ("x", &["--netns", "no/path"], 2, "nor an absolute path"),
        ("tepno-n1c1", &["--netns", "tepno-free"], 6, "this name"),
        (
            "x",
            &["--netns", "tepno-free", "--interface", "all"],
            2,
            "not an interface name",
        ),
    ];
    for (name, arguments, code, said) in refused {
        let add = ["endpoint", "add", name, "--network", "lab"];
        let out = agent.ask(&[&add[..], arguments].concat())?;
        assert_eq!(out.code, Some(code), "{name} {arguments:?}: {out:?}");
        assert!(out.stderr.contains(said), "{name} {arguments:?}: {out:?}");
    }
    assert_eq!((list(&agent)?, agent.log()?), before);
    let interfaces = run::checked("ip -n tepno-free -o link show")?;
    assert_eq!(interfaces.lines().count(), 1, "{interfaces}");
    assert!(!Path::new("/run/netns/tepno-none").exists());

    // An address that a device of the node has.
    let address = |verb: &str, net: &str| {
        run::checked(format!("ip -n {node} address {verb} {net} dev other"))
    };
    address("add", "10.244.1.77/32")?;
    agent.tells("other of this node has 10.244.1.77")?;
    let asked = ["endpoint", "add", "x", "--network", "lab", "--netns"];
    let asked = [&asked[..], &["tepno-free", "--address", "10.244.1.77"]].concat();
    let out = agent.ask(&asked)?;
    assert_eq!(out.code, Some(6), "{out:?}");
    address("del", "10.244.1.77/32")?;
    agent.is_well()?;
    agent.tell(&asked)?;
    // Of an endpoint that is there, and of a peer's.
    address("add", "10.244.1.77/32")?;
    agent.tells("reach endpoint x: other of this node has 10.244.1.77, too")?;
    address("del", "10.244.1.77/32")?;
    address("add", "10.244.2.10/32")?;
    agent.tells("peer tepno-n2's subnet")?;
    address("del", "10.244.2.10/32")?;
    agent.is_well()?;
    agent.tell(&["endpoint", "del", "x"])?;
    agent.until_done()?;
    drop((taken, free));
    Ok(guard.down()?)
}

/// A file with such a name is refused, too, with its line.
#[test]
fn a_name_that_commands_take_for_something_else_is_refused_in_the_file() -> Result<()> {
    let guard = Guard::pair("tepnn")?;
    let agent = guard.agent(1);
    for name in ["node", "10.244.1.9"] {
        let mut config = guard.first_config();
        name.clone_into(&mut config.endpoints[0].name);
        let file = agent.config_file().with_extension("other");
        fs::write(&file, config.to_toml())?;
        let out = agent.call(&["check", "--config", &file.to_string_lossy()])?;
        assert_eq!(out.code, Some(2), "{out:?}");
        assert!(
            out.stderr.contains("endpoints[0].name") && out.stderr.contains("choose another"),
            "{out:?}"
        );
        fs::remove_file(file)?;
    }
    Ok(guard.down()?)
}
