//! The scenarios that the kernel alone can build: each stands, and leaves nothing.

use std::{fs, path::Path};

use anyhow::{Result, bail};
use overlay_tests::{
    check::{self, path_mtu},
    error::Error,
    families::Families,
    guard::Guard,
    lab::{self, Raised},
    netns, processes, run, scenario,
    script::{Step, inside, words},
    shape::{Scenario, Shape, ShapeError},
    snapshot::Snapshot,
    state::{self, State},
    topology::{TUN_MTU, Topology, VXLAN_MTU},
    uplink::Uplink,
};

/// IPv4 and ICMP headers in front of `ping`'s data.
const PING_HEADERS: u16 = 28;

/// Raises a lab, checks every pair, takes it down and looks for anything left.
fn stands_and_leaves_nothing(shape: Shape, pings: usize) -> Result<()> {
    let before = host_links()?;
    let guard = Guard::up(shape)?;
    let topology = guard.topology().clone();
    let matrix = check::all_pairs(&topology)?;
    assert_eq!(matrix.faults(), Vec::<String>::new(), "\n{matrix}");
    assert_eq!(matrix.len(), pings);
    guard.down()?;
    assert_eq!(host_links()?, before);
    nothing_is_left(&topology)
}

fn nothing_is_left(topology: &Topology) -> Result<()> {
    let name = &topology.shape.name;
    for namespace in topology.namespaces() {
        assert!(
            !Path::new("/run/netns").join(&namespace).exists(),
            "{namespace} is left"
        );
    }
    assert_eq!(processes::of_lab(name)?, []);
    assert!(
        !state::folder(name).exists(),
        "{} is left",
        state::folder(name).display()
    );
    Ok(())
}

/// Names of the devices outside all namespaces, where no lab has any.
fn host_links() -> Result<Vec<String>> {
    let links = run::json("ip -j link show")?;
    let names = links.as_array().into_iter().flatten();
    Ok(names.map(|link| link["ifname"].to_string()).collect())
}

#[test]
fn single_has_4_pings() -> Result<()> {
    stands_and_leaves_nothing(Shape::usual("tsingle", Scenario::Single)?, 4)
}

#[test]
fn bridge_has_12_pings() -> Result<()> {
    stands_and_leaves_nothing(Shape::usual("tbridge", Scenario::Bridge)?, 12)
}

#[test]
fn direct_has_48_pings() -> Result<()> {
    stands_and_leaves_nothing(Shape::usual("tdirect", Scenario::Direct)?, 48)
}

#[test]
fn tun_has_48_pings() -> Result<()> {
    stands_and_leaves_nothing(Shape::usual("ttun", Scenario::Tun)?, 48)
}

#[test]
fn vxlan_has_48_pings() -> Result<()> {
    stands_and_leaves_nothing(Shape::usual("tvxlan", Scenario::Vxlan)?, 48)
}

/// Peers and subnets come from etcd alone, which is a real one, with three members.
#[test]
fn etcd_has_108_pings() -> Result<()> {
    let shape = Shape::usual("tetcdlab", Scenario::Etcd)?;
    for node in &Topology::new(shape.clone()).nodes {
        let config = scenario::etcd::config(&Topology::new(shape.clone()), node, None);
        assert!(
            !config.contains("peers") && !config.contains("networks"),
            "{config}"
        );
    }
    stands_and_leaves_nothing(shape, 108)
}

#[test]
fn more_nodes_meet_at_a_switch() -> Result<()> {
    let shape = Shape::of("tmany", Scenario::Vxlan, 4, 1)?;
    stands_and_leaves_nothing(shape, 8 * 12)
}

#[test]
fn vxlan_over_ipv6_carries_both_families() -> Result<()> {
    let shape = Shape::usual("tvxsix", Scenario::Vxlan)?;
    stands_and_leaves_nothing(shape.speaking(Families::V6, Families::Both)?, 84)
}

#[test]
fn vxlan_over_either_family_carries_both() -> Result<()> {
    let shape = Shape::of("tvxdual", Scenario::Vxlan, 3, 1)?;
    stands_and_leaves_nothing(shape.speaking(Families::Both, Families::Both)?, 102)
}

/// The overlay on underlays of these kinds.
fn stand_on(uplinks: &[Uplink]) -> Result<()> {
    for (number, uplink) in uplinks.iter().enumerate() {
        let shape = Shape::usual(&format!("ton{number}"), Scenario::Overlay)?.on_uplink(*uplink)?;
        println!("{shape}");
        stands_and_leaves_nothing(shape, 48)?;
    }
    Ok(())
}

#[test]
fn an_overlay_stands_on_bridges_macvlans_loopbacks_and_tuns() -> Result<()> {
    stand_on(&[Uplink::Bridge, Uplink::Macvlan, Uplink::Lo, Uplink::Tun])
}

#[test]
#[ignore = "it needs modules of Debian's kernels: cargo xtask vm"]
fn an_overlay_stands_on_vlans_and_bonds() -> Result<()> {
    // The module that is loaded for the first bond makes a device of its own, bond0 (`max_bonds`).
    run::checked("ip link add tonload type bond")?;
    run::checked("ip link del tonload")?;
    stand_on(&[Uplink::Vlan, Uplink::Bond])
}

#[test]
fn an_overlay_of_either_family_stands_on_loopbacks_and_tuns() -> Result<()> {
    let shape = Shape::of("tondual", Scenario::Overlay, 3, 1)?;
    let dual = shape.speaking(Families::Both, Families::Both)?;
    stands_and_leaves_nothing(dual.on_uplink(Uplink::Lo)?, 102)?;
    let shape = Shape::usual("tonsix", Scenario::Overlay)?;
    let six = shape.speaking(Families::V6, Families::Both)?;
    stands_and_leaves_nothing(six.on_uplink(Uplink::Tun)?, 84)
}

#[test]
fn a_tun_joins_two_nodes_and_tunnels_alone_choose_their_underlay() -> Result<()> {
    let three = Shape::of("tthree", Scenario::Overlay, 3, 1)?;
    assert!(matches!(
        three.on_uplink(Uplink::Tun),
        Err(ShapeError::OnlyTwoNodes(3))
    ));
    let bridge = Shape::usual("tonlybr", Scenario::Bridge)?;
    assert!(matches!(
        bridge.on_uplink(Uplink::Macvlan),
        Err(ShapeError::OnlyCard { .. })
    ));
    Ok(())
}

#[test]
fn a_scenario_of_the_talk_has_no_ipv6() -> Result<()> {
    let shape = Shape::usual("tsix", Scenario::Tun)?;
    match shape.speaking(Families::V6, Families::V6) {
        Err(ShapeError::OnlyIpv4(Scenario::Tun)) => Ok(()),
        other => bail!("{other:?}"),
    }
}

/// Asserts the largest packet that passes unfragmented, and what is said of a larger one.
fn carries_exactly(guard: &Guard, mtu: u16) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let ping = |size: u16| {
        let ping = format!(
            "ping -n -c 1 -W 5 -M do -s {} {}",
            size - PING_HEADERS,
            to.address
        );
        run::output(inside(&from.namespace, ping))
    };
    let fits = ping(mtu)?;
    assert!(fits.success, "{}{}", fits.stdout, fits.stderr);
    let too_big = ping(mtu + 1)?;
    assert!(!too_big.success, "{}{}", too_big.stdout, too_big.stderr);
    // A router has said it, or the sender's own device.
    assert_eq!(path_mtu(&from.namespace, to.address.into())?, mtu);
    Ok(())
}

#[test]
fn the_udp_tunnel_carries_what_is_left_of_the_underlay() -> Result<()> {
    carries_exactly(
        &Guard::up(Shape::usual("ttunmtu", Scenario::Tun)?)?,
        TUN_MTU,
    )
}

#[test]
fn vxlan_carries_what_is_left_of_the_underlay() -> Result<()> {
    carries_exactly(
        &Guard::up(Shape::usual("tvxmtu", Scenario::Vxlan)?)?,
        VXLAN_MTU,
    )
}

#[test]
fn a_second_up_is_harmless_and_another_shape_is_refused() -> Result<()> {
    let shape = Shape::usual("tagain", Scenario::Bridge)?;
    let guard = Guard::up(shape.clone())?;
    let before = Snapshot::of("tagain-n1")?;
    let again = lab::up(&shape, &lab::agent_program(), &mut |_| {})?;
    assert_eq!(again, Raised::Before);

    let other = Shape::new("tagain".parse()?, Scenario::Bridge, None, Some(3))?;
    match lab::up(&other, &lab::agent_program(), &mut |_| {}) {
        Err(Error::OtherShape { running }) => assert_eq!(*running, shape),
        other => bail!("{other:?}"),
    }
    let changes = Snapshot::of("tagain-n1")?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    Ok(guard.down()?)
}

#[test]
fn down_may_be_repeated() -> Result<()> {
    let shape = Shape::usual("ttwice", Scenario::Single)?;
    Guard::up(shape.clone())?.down()?;
    assert!(
        !lab::down(&shape.name, &mut |_| {})?,
        "there was nothing to take down"
    );
    nothing_is_left(&Topology::new(shape))
}

#[test]
fn an_up_that_fails_cleans_up() -> Result<()> {
    let shape = Shape::usual("tfail", Scenario::Overlay)?;
    match lab::up(&shape, Path::new("/bin/false"), &mut |_| {}) {
        Err(Error::Ended { task, .. }) => assert_eq!(task, "tfail-n1"),
        other => bail!("{other:?}"),
    }
    nothing_is_left(&Topology::new(shape))
}

#[test]
fn what_was_left_half_built_is_taken_down_first() -> Result<()> {
    let shape = Shape::usual("thalf", Scenario::Tun)?;
    let guard = Guard::holding(shape.clone());
    let topology = guard.topology().clone();
    let script = scenario::up(&topology, Path::new(""));
    fs::create_dir_all(state::folder(&shape.name))?;
    State {
        shape: shape.clone(),
        agent: "".into(),
        ready: false,
    }
    .save()?;
    for section in &script.sections[..3] {
        for step in &section.steps {
            run::run_step(&shape.name, step)?;
        }
    }
    let raised = lab::up(&shape, Path::new(""), &mut |_| {})?;
    assert_eq!(raised, Raised::Now);
    check::all_pairs_are_well(&topology)?;
    guard.down()?;
    nothing_is_left(&topology)
}

#[test]
fn a_namespace_of_somebody_else_is_left_alone() -> Result<()> {
    lab::require_root()?;
    let _foreign = netns::Temporary::make("talien-n1")?;
    let shape = Shape::usual("talien", Scenario::Single)?;
    match lab::up(&shape, Path::new(""), &mut |_| {}) {
        Err(Error::ForeignNamespace(name)) => assert_eq!(name, "talien-n1"),
        other => bail!("{other:?}"),
    }
    assert!(!lab::down(&shape.name, &mut |_| {})?);
    assert!(Path::new("/run/netns/talien-n1").exists());
    Ok(())
}

#[test]
fn the_explained_commands_build_the_same_lab() -> Result<()> {
    for (name, scenario) in [("ttypedd", Scenario::Direct), ("ttypedv", Scenario::Vxlan)] {
        let shape = Shape::usual(name, scenario)?;
        let ours = Guard::up(shape.clone())?;
        let built = Snapshot::of(&format!("{name}-n1"))?;
        ours.down()?;

        let guard = Guard::underlay(shape)?;
        let script = format!(
            "set -e\n{}",
            scenario::containers(guard.topology(), Path::new(""))
        );
        run::checked(["sh", "-c", &script].map(str::to_owned))?;
        check::all_pairs_are_well(guard.topology())?;
        // Links have indices and random addresses; routes and settings have not.
        let typed = Snapshot::of(&format!("{name}-n1"))?;
        for view in ["ip -4 -j route show table all", "ip -j rule show"] {
            assert_eq!(typed.view(view), built.view(view));
        }
    }
    Ok(())
}

#[test]
fn processes_of_a_lab_end_with_it() -> Result<()> {
    let guard = Guard::up(Shape::usual("tproc", Scenario::Single)?)?;
    let name = guard.topology().shape.name.clone();
    run::run_step(
        &name,
        &Step::Start {
            task: "sleeper".to_owned(),
            argv: words("nsenter --net=/run/netns/tproc-n1c1 sleep 1000"),
            log: state::log_file(&name, "sleeper"),
        },
    )?;
    let Some(sleeper) = processes::task(&name, "sleeper")? else {
        bail!("not started")
    };
    guard.down()?;
    assert!(!sleeper.is_alive());
    Ok(())
}

#[test]
fn every_scenario_is_documented() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lab.md");
    let page = fs::read_to_string(page)?;
    for scenario in Scenario::ALL {
        let name = format!("`{}`", scenario.name());
        let option = format!("`--scenario {}`", scenario.name());
        assert!(page.contains(&name) || page.contains(&option), "{name}");
    }
    Ok(())
}
