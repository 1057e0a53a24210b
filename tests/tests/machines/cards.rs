//! What each model of a network card shows, whatever it can: `cargo xtask vm --nic CARD`.

use anyhow::{Context as _, Result};
use overlay_tests::{
    config::Config,
    families::{Families, Family},
    machines::{Machine, Machines},
    topology::UNDERLAY,
};
use serde_json::Value;

use crate::{
    Path, XdpMode, all_arrives_on_both_paths, nothing_was_dropped, payloads_arrive, payloads_of,
    pings_are_counted, raise, runs_xdp,
};

/// What a card may do itself, as `ethtool -K` takes it.
const OFFLOADS: [&str; 7] = ["rx", "tx", "sg", "tso", "gso", "gro", "rxvlan"];
/// What is worth knowing of it, as `ethtool -k` prints it.
const TELLING: &str = "checksum-ip|checksumming|generic-seg|tcp-seg|udp_tnl|receive-off";

/// Switches an offload of both cards; false where they do not let it be switched.
fn set(machines: &Machines, offload: &str, to: &str) -> Result<bool> {
    let outcomes = machines
        .both
        .each_ref()
        .map(|machine| machine.run(&format!("ethtool -K {UNDERLAY} {offload} {to}")));
    match outcomes {
        [Ok(_), Ok(_)] => Ok(true),
        [Err(_), Err(_)] => Ok(false),
        [Err(error), _] | [_, Err(error)] => Err(error.into()),
    }
}

fn describe(machine: &Machine) -> Result<()> {
    for command in [
        format!("ethtool -i {UNDERLAY} | head -n 2"),
        format!("ethtool -k {UNDERLAY} | grep -E '{TELLING}'"),
    ] {
        println!("{}", machine.run(&command)?);
    }
    Ok(())
}

/// Doctor says of a card with several queues that it spreads UDP by addresses alone when it does, and
/// its cure ends that.
fn doctor_knows_how_it_spreads(machine: &Machine) -> Result<()> {
    let queues = machine.run(&format!(
        "ls -d /sys/class/net/{UNDERLAY}/queues/rx-* | wc -l"
    ))?;
    let queues: u32 = queues.trim().parse()?;
    let fields = machine.run(&format!("ethtool -n {UNDERLAY} rx-flow-hash udp4 || true"))?;
    println!("{queues} receive queues; {fields}");
    let is_noted = || -> Result<bool> {
        let doctor = format!("doctor --output json --instance {}", machine.node.namespace);
        let found = machine.run(&format!("overlay-agent {doctor} || true"))?;
        let found: Value = serde_json::from_str(&found)?;
        let findings = found["findings"].as_array().context("no findings")?;
        Ok(findings
            .iter()
            .any(|finding| finding["check"] == "one-receive-queue"))
    };
    let by_addresses = fields.contains("IP SA") && !fields.contains("L4 bytes");
    assert_eq!(is_noted()?, queues > 1 && by_addresses, "{fields}");
    if is_noted()? {
        machine.run(&format!("ethtool -N {UNDERLAY} rx-flow-hash udp4 sdfn"))?;
        assert!(!is_noted()?, "its cure has cured");
    }
    Ok(())
}

/// Whether doctor finds wrong checksums on a machine, while the other's container sends to its.
fn receives_wrong_checksums(receiver: &Machine, sender: &Machine) -> Result<bool> {
    let address = receiver.container().at(Family::V4);
    let send = format!(
        "for i in $(seq 300); do echo $i | ip netns exec {} socat - UDP4-SENDTO:{address}:9; \
         sleep 0.1; done </dev/null >/dev/null 2>&1 & echo $!",
        sender.container().namespace
    );
    let sending = sender.run(&send)?;
    let doctor = format!(
        "overlay-agent doctor --output json --instance {} || true",
        receiver.node.namespace
    );
    let found = receiver.run(&doctor);
    sender.run(&format!("kill {}", sending.trim()))?;
    let found: Value = serde_json::from_str(&found?)?;
    let findings = found["findings"].as_array().context("no findings")?;
    Ok(findings
        .iter()
        .any(|finding| finding["check"] == "checksums-wrong"))
}

/// Two nodes whose cards make right checksums inside tunnels, if need be by doctor's own cure, which
/// leaves checksums to the kernel; whether it was needed.
fn raise_cured(over: Families, change: impl Fn(&mut Config)) -> Result<(Machines, bool)> {
    let machines = raise(over, change)?;
    let [one, two] = &machines.both;
    for (sender, receiver) in [(one, two), (two, one)] {
        if !receives_wrong_checksums(receiver, sender)? {
            continue;
        }
        println!("it makes checksums inside tunnels wrongly; taking doctor's cure");
        sender.run(&format!("ethtool -K {UNDERLAY} tx-checksum-ip-generic off"))?;
        assert!(
            !receives_wrong_checksums(receiver, sender)?,
            "doctor's cure has not cured"
        );
    }
    // It can be a test before this one that has taken it.
    let off = format!("ethtool -k {UNDERLAY} | grep -q 'tx-checksum-ip-generic: off$'");
    let cured = one.run(&off).is_ok();
    Ok((machines, cured))
}

#[test]
#[ignore = "it needs a second machine: cargo xtask vm"]
fn card_with_each_offload_off_in_turn() -> Result<()> {
    let over = Families::V4;
    let (machines, cured) = raise_cured(over, |_| {})?;
    describe(&machines.both[0])?;
    doctor_knows_how_it_spreads(&machines.both[0])?;
    let port = machines.both[1].echo()?;
    all_arrives_on_both_paths(&machines, port, over)?;
    for offload in OFFLOADS {
        if offload == "tx" && cured {
            println!("{offload}: it is off already, and stays so");
            continue;
        }
        if !set(&machines, offload, "off")? {
            println!("{offload}: it does not let it be switched off");
            continue;
        }
        payloads_of(&machines, port, &format!("{offload} off"), Family::V4)?;
        if !set(&machines, offload, "on")? {
            println!("{offload}: it does not have it");
        }
    }
    nothing_was_dropped(&machines)?;
    Ok(machines.down()?)
}

/// The programs carry everything with such a guard; false where the driver refuses it, and the
/// agent says what to set instead.
fn carries(mode: XdpMode, change: impl Fn(&mut Config)) -> Result<bool> {
    let over = Families::V4;
    let (machines, path) = match raise_cured(over, &change) {
        Ok((machines, _)) => (machines, Path::Tc(over)),
        Err(error) if mode == XdpMode::Driver => {
            let said = format!("{error:#}");
            assert!(said.contains("set guard = \"generic\""), "{said}");
            println!("{said}");
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    for machine in &machines.both {
        runs_xdp(machine, mode)?;
    }
    let port = machines.both[1].echo()?;
    pings_are_counted(&machines, path)?;
    payloads_arrive(&machines, port, "guarded")?;
    nothing_was_dropped(&machines)?;
    machines.down()?;
    Ok(true)
}

#[test]
#[ignore = "it needs a second machine: cargo xtask vm"]
fn card_guarded_behind_the_driver() -> Result<()> {
    assert!(carries(XdpMode::Generic, |config| {
        config.node.guard = Some("generic");
    })?);
    Ok(())
}

#[test]
#[ignore = "it needs a second machine: cargo xtask vm"]
fn card_guarded_and_stripped_in_the_driver_if_it_lets_that_be_done() -> Result<()> {
    let guarded = carries(XdpMode::Driver, |config| {
        config.node.guard = Some("native");
    })?;
    println!("guard = \"native\": {guarded}");
    if guarded {
        let stripped = carries(XdpMode::Driver, |config| {
            config.node.guard = Some("native");
            config.node.rx = Some("xdp");
        })?;
        println!("rx = \"xdp\": {stripped}");
    }
    Ok(())
}
