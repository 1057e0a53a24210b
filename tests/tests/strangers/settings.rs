//! Kernel settings that somebody else has changed after the agent did.

use std::fs;

use anyhow::Result;
use overlay_tests::{
    guard::Guard,
    run,
    shape::{Scenario, Shape},
};

const LOOSE: &str = "net.ipv4.conf.eth1.rp_filter";
const FORWARD: &str = "net.ipv4.ip_forward";

#[test]
fn only_what_is_as_we_left_it_is_put_back() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tstrs", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    fs::write(agent.config_file(), guard.first_config().to_toml())?;
    let on_node = |command: String| -> Result<String> {
        let command = format!("nsenter --net=/run/netns/{} {command}", agent.instance);
        Ok(run::checked(command)?.trim().to_owned())
    };
    let value = |key: &str| on_node(format!("sysctl -n {key}"));
    let set = |key: &str, value: &str| on_node(format!("sysctl -qw {key}={value}"));

    for killed in [false, true] {
        set(LOOSE, "1")?;
        set(FORWARD, "0")?;
        agent.start()?;
        assert_eq!((value(LOOSE)?, value(FORWARD)?), ("2".into(), "1".into()));
        if killed {
            agent.kill()?;
        }
        // An operator has no use for the filter at all.
        set(LOOSE, "0")?;
        let said = agent.tell(&["down"])?;
        assert_eq!((value(LOOSE)?, value(FORWARD)?), ("0".into(), "0".into()));
        let told = "setting net/ipv4/conf/eth1/rp_filter is 0";
        assert!(said.contains(told), "{said}");
        assert!(!said.contains("ip_forward"), "{said}");
    }

    // Without anybody else, all is as it was.
    set(LOOSE, "1")?;
    agent.start()?;
    let down = agent.json(&["down"])?;
    assert_eq!(down["left"], serde_json::json!([]), "{down}");
    assert_eq!(down["removed"], agent.instance.as_str());
    assert_eq!((value(LOOSE)?, value(FORWARD)?), ("1".into(), "0".into()));
    Ok(guard.down()?)
}
