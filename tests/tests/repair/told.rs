//! A repair of what others broke is told and counted; what somebody asked for is no repair.

use anyhow::Result;
use overlay_tests::poll;

use crate::stand::Stand;

#[test]
fn a_repair_is_a_warning_that_says_what_was_missing() -> Result<()> {
    let stand = Stand::raise("trtold")?;
    let agent = &stand.agent;
    let repairs = || -> Result<u64> {
        Ok(agent.json(&["stats"])?["repairs"]
            .as_u64()
            .unwrap_or(u64::MAX))
    };
    let warnings = || -> Result<Vec<String>> {
        let log = agent.log()?;
        let lines = log.lines().filter(|line| line.contains("WARN repairing"));
        Ok(lines.map(str::to_owned).collect())
    };
    stand.is_whole("the start")?;
    // A switch, a container that comes and one that goes.
    agent.fastpath(false)?;
    agent.fastpath(true)?;
    agent.attach("trtold-more", "trtold-more")?;
    agent.tell(&["endpoint", "del", "trtold-more"])?;
    stand.is_whole("what was asked for")?;
    assert_eq!(repairs()?, 0, "{:?}", warnings()?);
    assert_eq!(warnings()?, Vec::<String>::new());

    for (command, missing) in [
        ("ip link del ovl1", "device ovl1 was missing"),
        ("ip route del 10.244.2.0/24", "route 10.244.2.0/24"),
        ("ip link set ovlbr1 down", "device ovlbr1 had lost"),
        (
            "nft delete table inet guard.overlay-trtold-n1",
            "the guard of the tunnels' ports",
        ),
    ] {
        let before = repairs()?;
        stand.on_node(command)?;
        let told = poll::until_well(|| match warnings() {
            Ok(lines) if lines.iter().any(|line| line.contains(missing)) => None,
            other => Some(format!("{other:?}")),
        });
        assert_eq!(told, Ok(()), "{command}");
        stand.is_whole(command)?;
        assert!(repairs()? > before, "{command}");
    }
    Ok(stand.guard.down()?)
}
