//! Kernel settings without which the slow path does not work.

use std::iter;

use overlay_control::Finding;

use super::{Check, Fault, Looked, command};
use crate::doctor::{commands, facts::Facts};

const FORWARDING: Fault = Fault::problem(
    "ip-forward-off",
    "The kernel drops what it should route between containers and peers.",
);
const REVERSE_PATH: Fault = Fault::problem(
    "rp-filter-strict",
    "The kernel drops what arrives by another device than its answer leaves by, such as a remote \
     node's answer to a container.",
);

pub(super) const CHECKS: [Check; 2] = [
    FORWARDING.if_seen(forwarding),
    REVERSE_PATH.if_seen(reverse_path),
];

/// An agent sets them when it starts: before that they are nobody's fault.
fn must_be_set(facts: &Facts) -> Result<(), String> {
    if facts.agent.established {
        Ok(())
    } else {
        Err("the instance has made nothing here; its agent sets them when it starts".to_owned())
    }
}

fn forwarding(facts: &Facts) -> Looked {
    must_be_set(facts)?;
    let off = |key: &str| facts.settings.get(key).is_some_and(|value| value == "0");
    let has_ipv6 = facts
        .networks
        .iter()
        .flat_map(|network| &network.cidrs)
        .any(|cidr| cidr.addr().is_ipv6());
    let mut keys = vec!["net/ipv4/ip_forward".to_owned()];
    keys.extend(has_ipv6.then(|| "net/ipv6/conf/all/forwarding".to_owned()));
    if !off(&keys[0]) {
        // To set it sets it for all devices.
        let networks = facts.networks.iter();
        let devices =
            networks.flat_map(|network| iter::once(&network.bridge).chain(&network.tunnels));
        keys.extend(devices.map(|device| format!("net/ipv4/conf/{device}/forwarding")));
    }
    let found = keys.iter().filter(|key| off(key));
    Ok(found.map(|key| set(facts, &FORWARDING, key, "1")).collect())
}

fn reverse_path(facts: &Facts) -> Looked {
    must_be_set(facts)?;
    let value = |device: &str| {
        let key = format!("net/ipv4/conf/{device}/rp_filter");
        facts.settings.get(&key).map(String::as_str)
    };
    let underlay = facts.underlay.iter().map(|device| device.name);
    let tunnels = facts.networks.iter().flat_map(|network| &network.tunnels);
    let strict = underlay.chain(tunnels.copied()).filter(|device| {
        // The kernel takes the larger of the two.
        value(device.as_str()).max(value("all")) == Some("1")
    });
    Ok(strict
        .map(|device| {
            let key = format!("net/ipv4/conf/{device}/rp_filter");
            set(facts, &REVERSE_PATH, &key, "2")
        })
        .collect())
}

fn set(facts: &Facts, fault: &Fault, key: &str, good: &str) -> Finding {
    let is = facts.settings.get(key).map_or("unset", String::as_str);
    let set = facts.commands.on_node(commands::set(key, good));
    let what = format!("it is {is} and has to be {good}");
    let cure = command("set it, and find who changed it", set);
    fault.at(commands::setting(key), what, cure)
}

#[cfg(test)]
mod tests {
    use super::super::healthy::{broken, facts, only};

    fn put(key: &str, value: &str) -> impl FnOnce(&mut crate::doctor::facts::Facts) {
        let (key, value) = (key.to_owned(), value.to_owned());
        move |facts| drop(facts.settings.insert(key, value))
    }

    #[test]
    fn a_setting_is_told_with_the_command_that_sets_it() {
        let found = only("ip-forward-off", put("net/ipv4/ip_forward", "0"));
        assert_eq!(found.cure.commands, ["sysctl -w net.ipv4.ip_forward=1"]);
        let found = only("ip-forward-off", put("net/ipv4/conf/ovl1/forwarding", "0"));
        assert_eq!(
            found.cure.commands,
            ["sysctl -w net.ipv4.conf.ovl1.forwarding=1"]
        );
        let found = only("rp-filter-strict", put("net/ipv4/conf/eth1/rp_filter", "1"));
        assert_eq!(found.object, "net.ipv4.conf.eth1.rp_filter");
        assert_eq!(
            found.cure.commands,
            ["sysctl -w net.ipv4.conf.eth1.rp_filter=2"]
        );
    }

    #[test]
    fn the_larger_value_counts() {
        // A loose device is loose, whatever holds for all.
        assert!(broken(put("net/ipv4/conf/all/rp_filter", "1")).is_empty());
    }

    #[test]
    fn before_an_agent_has_run_nothing_is_wrong() {
        let mut facts = facts();
        facts.agent.established = false;
        put("net/ipv4/ip_forward", "0")(&mut facts);
        let judgement = super::super::judge(&facts);
        assert!(judgement.findings.is_empty());
        assert_eq!(judgement.skipped.len(), 2);
    }
}
