//! Another nft than the machine's own, of a newer release: it makes what the agent asks for, what it prints can
//! be read again, and rules that only it knows have their turn.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    families::{Families, Family},
    guard::Guard,
    packages::Release,
    poll, run,
    script::words,
    shape::{Scenario, Shape},
    topology::VNI,
};
use serde_json::Value;

/// A folder with a program `nft` that is the packages' own, with their libraries.
fn newer_nft() -> Result<Option<tempfile::TempDir>> {
    let Some(packages) = Release::Forky.folder() else {
        return Ok(None);
    };
    let loader = only(&packages.join("usr/lib64"), "ld-linux")
        .or_else(|_| only(&packages.join("usr/lib"), "ld-linux"))?;
    let libraries = only(&packages.join("usr/lib"), "-linux-gnu")?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("nft");
    let script = format!(
        "#!/bin/sh\nexec {} --library-path {} {} \"$@\"\n",
        loader.display(),
        libraries.display(),
        packages.join("usr/sbin/nft").display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(Some(folder))
}

/// What has this in its name.
fn only(folder: &Path, part: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(part) {
            return Ok(entry.path());
        }
    }
    anyhow::bail!("there is no {part} in {}", folder.display())
}

fn inside(node: &str, command: &str) -> Vec<String> {
    words(format!("ip netns exec {node} {command}"))
}

#[test]
fn it_makes_the_tables_and_reads_what_it_prints_of_them() -> Result<()> {
    let Some(folder) = newer_nft()? else {
        return Ok(());
    };
    let shape = Shape::usual("tnewnft", Scenario::Overlay)?;
    let shape = shape.speaking(Families::V4, Families::Both)?;
    let guard = Guard::configured(shape, |_, config| {
        config.networks[0].masquerade = Some(true);
    })?;
    let path = std::env::var("PATH")?;
    let nft = folder.path().join("nft");
    for agent in guard.agents() {
        let node = &agent.instance;
        agent.tell(&["down"])?;
        agent.stop()?;
        let agent = agent.with("PATH", format!("{}:{path}", folder.path().display()));
        agent.start_anyhow()?;
        agent.is_well()?;
        assert_eq!(agent.plan()?, Vec::<Value>::new());
        let listed = run::checked(inside(node, &format!("{} list ruleset", nft.display())))?;
        for table in [
            format!("inet guard.overlay-{node}"),
            format!("bridge guard.overlay-{node}"),
            format!("inet overlay-{node}"),
        ] {
            assert!(listed.contains(&format!("table {table} {{")), "{listed}");
        }
        // As an administrator saves all rules of a node.
        let saved = folder.path().join(node);
        fs::write(&saved, listed)?;
        let check = format!("{} --check --file {}", nft.display(), saved.display());
        run::checked(inside(node, &check))?;
    }
    for on in [true, false] {
        for agent in guard.agents() {
            agent.fastpath(on)?;
        }
        let nodes = &guard.topology().nodes;
        let to = &nodes[1].containers[0];
        for address in [Family::V4, Family::V6].map(|family| to.at(family)) {
            let ping = format!("ping -n -q -c 2 -W 5 {address}");
            run::checked(inside(&nodes[0].containers[0].namespace, &ping))?;
        }
    }
    Ok(guard.down()?)
}

/// Whether the status names a chain that packets are left to the kernel for.
fn names_the_chain(agent: &Agent) -> Result<bool> {
    let status = agent.json(&["status"])?;
    let networks = status["networks"].as_array().context("networks")?;
    let mut hooks = networks
        .iter()
        .filter_map(|one| one["hooks"].as_array())
        .flatten();
    Ok(hooks.any(|hook| {
        let what = hook["what"].as_str();
        what.is_some_and(|what| what.contains("nft chain inet strangers c"))
    }))
}

#[test]
fn a_rule_that_looks_into_the_tunnel_has_its_turn_whether_nft_lists_it_or_not() -> Result<()> {
    let Some(folder) = newer_nft()? else {
        return Ok(());
    };
    let guard = Guard::overlay("tnewrule")?;
    let nodes = &guard.topology().nodes;
    let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
    let agent = guard.agent(2);
    let ping = format!("ping -n -q -c 1 -W 0.5 {}", to.address);
    let arrives =
        || -> Result<bool> { Ok(run::output(inside(&from.namespace, &ping))?.code == Some(0)) };
    for (field, path) in [("ip saddr", "filter"), ("vni", "raw")] {
        ensure!(arrives()?, "before");
        let value = if field == "vni" {
            VNI.to_string()
        } else {
            from.address.to_string()
        };
        let rules = folder.path().join("rules");
        let text = format!(
            "table inet strangers {{ chain c {{ type filter hook input priority {path}; udp dport {} vxlan {field} {value} drop; }}; }}",
            guard.topology().port()
        );
        fs::write(&rules, text)?;
        let nft = folder.path().join("nft");
        let add = format!("{} --file {}", nft.display(), rules.display());
        run::checked(inside(&agent.instance, &add))?;
        let heeded = poll::until_well(|| match (arrives(), names_the_chain(&agent)) {
            (Ok(false), Ok(true)) => None,
            other => Some(format!("{other:?}")),
        });
        assert_eq!(heeded, Ok(()), "{field}");
        for _ in 0..3 {
            ensure!(!arrives()?, "{field} is passed by");
        }
        run::checked(inside(&agent.instance, "nft delete table inet strangers"))?;
        let gone = poll::until_well(|| match (arrives(), names_the_chain(&agent)) {
            (Ok(true), Ok(false)) => None,
            other => Some(format!("{other:?}")),
        });
        assert_eq!(gone, Ok(()), "{field}");
    }
    Ok(guard.down()?)
}
