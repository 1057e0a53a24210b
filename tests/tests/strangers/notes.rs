//! Somebody has removed the notes by which an instance knows what it has pinned.

use std::fs;

use anyhow::{Context as _, Result};
use overlay_tests::{guard::Guard, run};

/// Nothing of it is proven any more, so it stays; but nobody says that it is somebody else's, and what is
/// said removes it.
#[test]
fn without_them_what_stays_is_told_with_a_cure_that_cures() -> Result<()> {
    let guard = Guard::overlay("tstrn")?;
    let agent = guard.agent(1);
    let pins = format!("/sys/fs/bpf/overlay/{}", agent.instance);
    agent.kill()?;
    fs::remove_dir_all(format!("{pins}/made"))?;
    let down = agent.json(&["down"])?;
    let left = down["left"].as_array().context("nothing is left")?;
    let told = left.iter().filter_map(|sentence| sentence.as_str());
    let told = told.collect::<Vec<_>>().join("\n");
    for part in ["links/from_underlay-eth1", "has no notes of what this"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("did not make"), "{told}");

    let (_, cure) = told.split_once("remove it with \"").context("no cure")?;
    let (cure, _) = cure.split_once('"').context("no command")?;
    assert_eq!(cure, format!("rm -r {pins}"));
    run::checked(cure.to_owned())?;
    let again = agent.tell(&["down"])?;
    assert!(again.contains("nothing to remove"), "{again}");
    Ok(guard.down()?)
}
