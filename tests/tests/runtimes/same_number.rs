//! The kernel gives numbers of namespaces again, and runtimes give paths again: a container is
//! neither.

use anyhow::{Result, ensure};
use overlay_tests::{
    guard::Guard,
    netns::{self, Temporary, retried},
    poll,
};

use crate::{ID, address, attachments, ip, plugin::Cni, reaches};

#[test]
fn a_namespace_with_the_path_and_number_of_another_one_is_a_new_container() -> Result<()> {
    let guard = Guard::pair("tcnn")?;
    let agent = guard.agent(1);
    let first = Cni::new("tcnn-n1", ID, "tcnn-a");
    // While an agent runs, and the next container is there at once.
    let place = retried::<anyhow::Error>(|| {
        let place = Temporary::make("tcnn-a")?;
        let number = netns::number("tcnn-a")?;
        first.run("ADD")?.well()?;
        drop(place);
        Ok(Temporary::with_number("tcnn-a", number)?)
    })?;
    let second = Cni::new("tcnn-n1", &ID.replace('a', "b"), "tcnn-a");
    let result = second.run("ADD")?.well()?;
    reaches("tcnn-n2c1", address(&result)?)?;
    ensure!(
        attachments(&agent)?.len() == 1,
        "{:?}",
        attachments(&agent)?
    );
    first.run("DEL")?.well()?;
    reaches("tcnn-n2c1", address(&result)?)?;

    // While none runs: what is there at its start is nobody's.
    second.run("DEL")?.well()?;
    drop(place);
    let place = retried::<anyhow::Error>(|| {
        let place = Temporary::make("tcnn-a")?;
        let number = netns::number("tcnn-a")?;
        second.run("ADD")?.well()?;
        agent.kill()?;
        drop(place);
        let namespace = Temporary::with_number("tcnn-a", number)?;
        if namespace.is_none() {
            agent.start()?;
        }
        Ok(namespace)
    })?;
    agent.start()?;
    let forgotten = poll::until_well(|| match attachments(&agent) {
        Ok(left) => (!left.is_empty()).then(|| format!("{left:?}")),
        Err(error) => Some(error.to_string()),
    });
    ensure!(forgotten == Ok(()), "{forgotten:?}\n{}", agent.log()?);
    let inside = ip("tcnn-a", "link show")?;
    ensure!(
        inside.as_array().is_some_and(|links| links.len() == 1),
        "a stranger has got {inside}"
    );
    ensure!(agent.plan()?.is_empty(), "{:?}", agent.plan()?);
    drop(place);
    Ok(guard.down()?)
}
