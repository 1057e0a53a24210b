//! Newer releases of etcd than the one that the other tests have.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::lab::{Cluster, until, until_said};

/// Folders with etcd and `etcdctl`, a release each; none where `cargo xtask setup` found none.
fn releases() -> Result<Vec<PathBuf>> {
    let Some(folder) = std::env::var_os("OVERLAY_ETCDS") else {
        return Ok(Vec::new());
    };
    let mut releases = Vec::new();
    for release in fs::read_dir(folder)? {
        let programs = release?.path().join("usr/bin");
        if programs.join("etcd").is_file() && programs.join("etcdctl").is_file() {
            releases.push(programs);
        }
    }
    Ok(releases)
}

#[test]
fn newer_releases_are_followed_alike() -> Result<()> {
    for (number, programs) in releases()?.into_iter().enumerate() {
        println!("{}", programs.display());
        let name = ["tenewa", "tenewb", "tenewc", "tenewd"][number % 4];
        let mut cluster = Cluster::new(name, 2, 1, false)?;
        cluster.programs = Some(programs);
        cluster.start("first")?;
        follows(&cluster)?;
        cluster.guard.down()?;
    }
    Ok(())
}

fn follows(cluster: &Cluster) -> Result<()> {
    let agents = cluster.joined()?;
    cluster.reaches(1, 2)?;
    let own = cluster.leases()?;
    assert_eq!(own.len(), 2, "{own:?}");
    cluster.lose_lease(&agents[1])?;
    // Revisions that a node needs are gone while it does not hear of them.
    let revision = agents[0].json(&["cluster", "status"])?["revision"].clone();
    cluster.etcdctl(&format!("compact {revision}"))?;
    // One that comes back empty, and counts from one again.
    cluster.kill(1)?;
    until_said(&agents[0], "etcd cannot be followed")?;
    cluster.start("second")?;
    until_said(&agents[0], "there is no /coreos.com/network/config in etcd")?;
    cluster.reaches(2, 1)?;
    cluster.init()?;
    for agent in &agents {
        agent.is_well()?;
    }
    until("both leases", || {
        let mut leases = cluster.leases()?;
        leases.sort();
        let mut own = own.clone();
        own.sort();
        anyhow::ensure!(leases == own, "{leases:?}, not {own:?}");
        Ok(())
    })?;
    cluster.reaches(1, 2)
}
