//! A namespace is ours when we have made it, and never because of its name.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use overlay_tests::{
    agent::Agent,
    config::{Config, Endpoint},
    guard::Guard,
    netns::{self, Temporary, retried},
    poll, run, scenario,
    shape::{Scenario, Shape},
    state,
};

/// Longer than the agent takes to notice anything.
const WHILE: Duration = Duration::from_secs(3);

/// A namespace of somebody who has an interface there already.
struct Stranger {
    name: String,
    _namespace: Temporary,
}

impl Stranger {
    fn make(name: String) -> Result<Self> {
        Self::furnish(Temporary::make(&name)?, name)
    }

    fn furnish(namespace: Temporary, name: String) -> Result<Self> {
        for line in [
            format!("ip -n {name} link add eth0 type veth peer name other"),
            format!("ip -n {name} addr add 192.0.2.9/24 dev eth0"),
            format!("ip -n {name} link set eth0 up"),
        ] {
            run::checked(line)?;
        }
        Ok(Self {
            name,
            _namespace: namespace,
        })
    }

    /// All that can be told of it.
    fn look(&self) -> Result<(u64, String)> {
        let name = &self.name;
        let mut seen = String::new();
        for view in ["link", "addr", "route", "-6 route"] {
            seen += &run::checked(format!("ip -n {name} -details {view}"))?;
        }
        Ok((netns::number(name)?, seen))
    }
}

/// The configuration of a node with an endpoint of this name and namespace, and no other.
fn with_endpoint(guard: &Guard, node: usize, netns: &str) -> Config {
    let mut config = scenario::agents::config(guard.topology(), &guard.topology().nodes[node]);
    config.endpoints = vec![Endpoint {
        name: "app".to_owned(),
        network: config.networks[0].name.clone(),
        netns: Some(netns.to_owned()),
        ..Endpoint::default()
    }];
    config
}

fn configure(guard: &Guard, node: usize, config: &Config) -> Result<()> {
    let namespace = &guard.topology().nodes[node].namespace;
    let file = state::config_file(&guard.topology().shape.name, namespace);
    Ok(fs::write(file, config.to_toml())?)
}

/// Waits until `status` tells of a problem with the endpoint, and nothing is left to be done.
fn complains(agent: &Agent) -> Result<()> {
    let told = poll::until_well(|| {
        let status = match agent.ask(&["status"]) {
            Ok(status) => status,
            Err(error) => return Some(error.to_string()),
        };
        let steps = match agent.plan() {
            Ok(steps) => steps,
            Err(error) => return Some(error.to_string()),
        };
        let told = status.code == Some(1) && status.stdout.contains("has an interface eth0");
        (!told || !steps.is_empty()).then(|| format!("{}{}{steps:?}", status.stdout, status.stderr))
    });
    assert_eq!(told, Ok(()), "{}", agent.log()?);
    Ok(())
}

/// Starts an agent whose endpoint is to be in a stranger's namespace, and ends it and its node.
fn is_left_alone(agent: &Agent, stranger: &Stranger) -> Result<()> {
    let before = stranger.look()?;
    assert!(!agent.start_anyhow()?, "it should not be well");
    complains(agent)?;
    assert_eq!(stranger.look()?, before);
    agent.stop()?;
    agent.tell(&["down"])?;
    assert_eq!(stranger.look()?, before, "after down");
    Ok(())
}

#[test]
fn one_with_the_interface_stays_as_it_is() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tstr", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    let stranger = Stranger::make("tstr-app".to_owned())?;
    let before = stranger.look()?;

    configure(&guard, 0, &with_endpoint(&guard, 0, &stranger.name))?;
    let plan = agent.plan()?;
    assert!(
        !plan
            .iter()
            .any(|step| step.to_string().contains("namespace")),
        "{plan:?}"
    );
    assert!(!agent.start_anyhow()?, "it should not be well");
    complains(&agent)?;
    assert_eq!(stranger.look()?, before, "by the configuration");

    configure(
        &guard,
        0,
        &scenario::agents::config(guard.topology(), &guard.topology().nodes[0]),
    )?;
    agent.is_well()?;
    assert_eq!(
        stranger.look()?,
        before,
        "when it is taken out of the configuration"
    );

    let refused = agent.ask(&[
        "endpoint",
        "add",
        "app",
        "--network",
        "lab",
        "--netns",
        &stranger.name,
    ])?;
    assert!(!refused.success, "{}", refused.stdout);
    assert_eq!(stranger.look()?, before, "by endpoint add");
    agent.stop()?;
    agent.tell(&["down"])?;
    assert_eq!(stranger.look()?, before, "after down");
    Ok(guard.down()?)
}

#[test]
fn one_that_took_the_name_of_ours_is_not_ours() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tstrn", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    let name = "tstrn-app";
    configure(&guard, 0, &with_endpoint(&guard, 0, name))?;
    agent.start()?;
    run::checked(format!("ip netns del {name}"))?;
    poll::until_ok(|| netns::number(name)).context("the agent makes it again")?;

    // While nobody looks somebody else takes the name.
    agent.kill()?;
    run::checked(format!("ip netns del {name}"))?;
    let stranger = Stranger::make(name.to_owned())?;
    is_left_alone(&agent, &stranger)?;
    Ok(guard.down()?)
}

/// The kernel gives numbers of namespaces again: by number alone it would be ours.
#[test]
fn one_that_took_the_name_and_the_number_of_ours_is_not_ours() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tstrm", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    let name = "tstrm-app";
    configure(&guard, 0, &with_endpoint(&guard, 0, name))?;
    // Other tests make namespaces, too.
    let namespace = retried::<anyhow::Error>(|| {
        agent.start()?;
        let number = netns::number(name)?;
        agent.kill()?;
        run::checked(format!("ip netns del {name}"))?;
        Ok(Temporary::with_number(name, number)?)
    })?;
    let stranger = Stranger::furnish(namespace, name.to_owned())?;
    is_left_alone(&agent, &stranger)?;
    Ok(guard.down()?)
}

#[test]
fn one_of_another_instance_is_not_fought_for() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tstri", Scenario::Overlay)?)?;
    let name = "tstri-app";
    for [first, second] in [[0, 1], [1, 0]] {
        let agents = [guard.agent(1), guard.agent(2)];
        configure(&guard, first, &with_endpoint(&guard, first, name))?;
        configure(&guard, second, &with_endpoint(&guard, second, name))?;
        agents[first].start()?;
        let before = netns::number(name)?;
        assert!(!agents[second].start_anyhow()?, "it should not be well");
        complains(&agents[second])?;
        let lines = |agent: &Agent| -> Result<usize> { Ok(agent.log()?.lines().count()) };
        let said = [lines(&agents[0])?, lines(&agents[1])?];
        let end = Instant::now() + WHILE;
        while Instant::now() < end {
            assert_eq!(netns::number(name)?, before, "{}", agents[second].log()?);
            thread::sleep(Duration::from_millis(50));
        }
        for (agent, said) in agents.iter().zip(said) {
            assert_eq!(lines(agent)?, said, "nothing happens:\n{}", agent.log()?);
            agent.stop()?;
        }
        agents[second].tell(&["down"])?;
        assert_eq!(netns::number(name)?, before, "after the other's end");
        agents[first].tell(&["down"])?;
        assert!(netns::number(name).is_err(), "its own end removes it");
    }
    Ok(guard.down()?)
}

/// A node is no container, whoever's it is.
#[test]
fn the_node_of_another_instance_is_refused() -> Result<()> {
    let guard = Guard::overlay("tstro")?;
    let [agent, other] = [guard.agent(1), guard.agent(2)];
    let node = &other.instance;
    let look = || run::checked(format!("ip -n {node} link"));
    let before = look()?;
    let add = ["endpoint", "add", "app", "--network", "lab"];
    let at = ["--netns", node, "--interface", "net1"];
    let refused = agent.ask(&[&add[..], &at].concat())?;
    assert!(!refused.success, "{}", refused.stdout);
    let whose = format!("is the node of instance {node}");
    assert!(refused.stderr.contains(&whose), "{}", refused.stderr);
    assert_eq!(look()?, before, "by endpoint add");

    let mut config = with_endpoint(&guard, 0, node);
    config.endpoints[0].interface = Some("net1".to_owned());
    configure(&guard, 0, &config)?;
    agent.tells(&whose)?;
    assert_eq!(look()?, before, "by the configuration");
    Ok(guard.down()?)
}

/// A device in the way, by what makes it, and what is said of it.
const IN_THE_WAY: [(&str, &str, &str); 2] = [
    (
        "ovlbr1",
        "link add ovlbr1 type bridge",
        "instance other of this node has ovlbr1",
    ),
    (
        "vx9",
        "link add vx9 type vxlan id 9 dstport 4789 local 192.168.56.11",
        "of instance other has UDP port 4789",
    ),
];

/// One message, and no untrue one about the port.
#[test]
fn a_node_that_is_called_otherwise_is_told_whose_devices_are_there() -> Result<()> {
    let guard = Guard::overlay("tstre")?;
    let (agent, node) = (guard.agent(1), &guard.topology().nodes[0].namespace);
    let mut config = guard.first_config();
    config.node.name = "tstre-new".to_owned();
    configure(&guard, 0, &config)?;
    agent.has_logged("node.name is tstre-new now, and this stays instance")?;
    let file = agent.config_file().to_string_lossy().into_owned();
    let run = ["run", "--config", &file, "--netns", node];
    for running in [true, false] {
        if !running {
            agent.stop()?;
        }
        let out = agent.call(&run)?;
        assert!(!out.success, "{}", out.stderr);
        assert_eq!(out.stderr.lines().count(), 1, "{}", out.stderr);
        let cure = format!("--instance {node}");
        assert!(out.stderr.contains(&cure), "{}", out.stderr);
        assert!(!out.stderr.contains("another program"), "{}", out.stderr);
    }
    Ok(guard.down()?)
}

/// Nobody is told to delete what another instance uses, or somebody else.
#[test]
fn a_device_of_another_instance_is_said_to_be_its() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tstrd", Scenario::Overlay)?)?;
    let (agent, node) = (guard.agent(1), &guard.topology().nodes[0].namespace);
    configure(&guard, 0, &guard.first_config())?;
    for (device, make, said_of_it) in IN_THE_WAY {
        for (alias, theirs) in [("overlay:other", false), ("mine", true)] {
            for line in [make.to_owned(), format!("link set {device} alias {alias}")] {
                run::checked(format!("ip -n {node} {line}"))?;
            }
            let config = agent.config_file().to_string_lossy().into_owned();
            let config = ["--config", &config, "--netns", node];
            let out = agent.call(&[&["plan"], &config[..]].concat())?;
            let plan = out.stdout + &out.stderr;
            assert!(!out.success, "{plan}");
            assert_eq!(plan.contains(said_of_it), !theirs, "{plan}");
            let out = agent.call(&[&["doctor"], &config[..]].concat())?;
            let doctor = out.stdout + &out.stderr;
            assert!(!out.success && doctor.contains(device), "{doctor}");
            let look = format!("ip -d link show {device}");
            assert_eq!(doctor.contains(&look), theirs, "{doctor}");
            assert!(!doctor.contains("ip link del"), "{doctor}");
            run::checked(format!("ip -n {node} link del {device}"))?;
        }
    }
    Ok(guard.down()?)
}
