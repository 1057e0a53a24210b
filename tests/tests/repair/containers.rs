//! A container's namespace goes, or is another one all of a sudden.

use std::path::Path;

use anyhow::Result;
use overlay_tests::check::{self, Answer};

use crate::{bystander::Bystander, stand::Stand};

#[test]
fn a_namespace_that_is_deleted_is_made_again() -> Result<()> {
    let stand = Stand::raise("trns")?;
    let name = stand.container(1, 1).namespace.clone();
    let bystander = Bystander::watch(&stand)?;
    stand.on_node(&format!("ip netns del {name}"))?;
    stand.is_whole("its namespace was deleted")?;
    let (lost, sent) = bystander.lost()?;
    assert_eq!(lost, 0, "of {sent} packets of others");
    stand.agent.tell(&["down"])?;
    let path = Path::new("/run/netns").join(&name);
    assert!(!path.exists(), "what the agent has made, it removes");
    Ok(stand.guard.down()?)
}

#[test]
fn a_namespace_that_the_user_makes_anew_is_the_users() -> Result<()> {
    let stand = Stand::raise("trnew")?;
    let name = stand.container(1, 1).namespace.clone();
    // A new one in the place of the old in one step, so that the agent does not come in between.
    stand.on_node(&format!(
        "ip netns add {name}-new && ip -n {name}-new link set lo up && ip -n {name}-new link add own0 type bridge \
         && umount -l /run/netns/{name} && mount --move /run/netns/{name}-new /run/netns/{name} \
         || mount --bind /run/netns/{name}-new /run/netns/{name}; umount -l /run/netns/{name}-new; rm -f /run/netns/{name}-new"
    ))?;
    stand.is_whole("another namespace had its name")?;
    let own = Stand::within(&name, "ip link show own0")?;
    assert!(own.contains("own0"), "{own}");
    let to = stand.container(2, 1).address;
    assert_eq!(check::ping(&name, to)?, Answer::Ttl(62));

    stand.agent.tell(&["down"])?;
    let left = Stand::within(&name, "ip -o link show")?;
    assert!(left.contains("own0") && !left.contains("eth0"), "{left}");
    Ok(stand.guard.down()?)
}

#[test]
fn a_namespace_by_path_that_goes_is_a_problem_until_it_is_back() -> Result<()> {
    let stand = Stand::raise("trpath")?;
    let namespace = overlay_tests::netns::Temporary::make("trpath-x")?;
    let path = "/run/netns/trpath-x";
    stand
        .agent
        .tell(&["endpoint", "add", "x", "--network", "lab", "--netns", path])?;
    drop(namespace);
    stand.agent.tells(path)?;
    let namespace = overlay_tests::netns::Temporary::make("trpath-x")?;
    stand.is_whole("it was back")?;
    let to = stand.container(2, 1).address;
    assert_eq!(check::ping("trpath-x", to)?, Answer::Ttl(62));
    stand.agent.tell(&["endpoint", "del", "x"])?;
    drop(namespace);
    Ok(stand.guard.down()?)
}
