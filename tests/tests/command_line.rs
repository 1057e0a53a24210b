//! The command line as people who know `kubectl`, `ip` and `docker` type it.

use anyhow::Result;
use overlay_tests::{agent::Agent, guard::Guard, netns::Temporary};
use serde_json::Value;

/// Runs a command as it stands; what it prints.
fn typed(agent: &Agent, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let out = agent.call(&words)?;
    assert!(out.success, "{line}: {}{}", out.stdout, out.stderr);
    Ok(out.stdout)
}

#[test]
fn usual_names_and_a_usual_environment_are_understood() -> Result<()> {
    let guard = Guard::overlay("tcmd")?;
    let agent = guard.agent(1);
    let instance = &agent.instance;
    let at_home = agent.with("OVERLAY_INSTANCE", instance);

    let status: Value = serde_json::from_str(&typed(&at_home, "status -o json")?)?;
    assert_eq!(status["instance"], instance.as_str(), "{status}");

    let container = Temporary::make("tcmd-more")?;
    typed(
        &at_home,
        "endpoint add more --network lab --netns tcmd-more",
    )?;
    assert!(typed(&at_home, "endpoint ls")?.contains("more"));
    typed(&at_home, "endpoint delete more")?;
    assert!(!typed(&at_home, "endpoint list")?.contains("more"));
    drop(container);

    typed(&at_home, "down")?;
    // What is wanted is so already.
    let again = typed(&at_home, "down")?;
    assert!(again.contains("nothing to remove"), "{again}");
    Ok(guard.down()?)
}
