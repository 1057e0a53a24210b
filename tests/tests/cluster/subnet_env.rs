//! The file for flannel's CNI plugin, at a path where somebody else may have one.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::lab::{Cluster, until, until_found};

const THEIRS: &str = "FLANNEL_NETWORK=10.1.0.0/16\n# of another\n";
const OURS: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.9.1/24\nFLANNEL_MTU=1450\n\
                    FLANNEL_IPMASQ=false\n";

#[test]
fn what_others_have_written_there_stays_and_ours_goes_with_us() -> Result<()> {
    let cluster = Cluster::up("teenv", 1)?;
    let folder = Path::new(cluster.data.path());
    let (file, beside) = (folder.join("subnet.env"), folder.join("subnet.new"));
    let configure = |file: &Path| {
        let more = format!(
            "subnet = \"10.244.9.0/24\"\nsubnet_env = \"{}\"",
            file.display()
        );
        cluster.configure(1, &more)
    };
    let holds = |file: &Path, text: &'static str| {
        until(text, || {
            let found = fs::read_to_string(file)?;
            anyhow::ensure!(found == text, "{found}");
            Ok(())
        })
    };
    for path in [&file, &beside] {
        fs::write(path, THEIRS)?;
    }
    configure(&file)?;
    cluster.init()?;
    let agent = cluster.guard.agent(1);
    agent.start_anyhow()?;
    until_found(&agent, "cluster-subnet-env")?;
    let status = agent.json(&["status"])?;
    let problems = status["problems"].as_array().context("problems")?;
    let cure = format!("rm {}", file.display());
    assert!(
        problems
            .iter()
            .any(|problem| problem.to_string().contains(&cure)),
        "{problems:#?}"
    );
    assert_eq!(fs::read_to_string(&file)?, THEIRS);

    fs::remove_file(&file)?;
    holds(&file, OURS)?;
    agent.is_well()?;

    // Somebody writes to it: it is theirs from then on, also for an agent that starts anew.
    let edited = format!("{OURS}# by hand\n");
    fs::write(&file, &edited)?;
    agent.stop()?;
    agent.start_anyhow()?;
    until_found(&agent, "cluster-subnet-env")?;
    assert_eq!(fs::read_to_string(&file)?, edited);

    // It is left where it is; the one at another path is ours.
    let elsewhere = folder.join("elsewhere.env");
    configure(&elsewhere)?;
    holds(&elsewhere, OURS)?;
    agent.is_well()?;
    assert_eq!(fs::read_to_string(&file)?, edited);

    // An agent that was killed and started again knows its own, and takes it along.
    agent.kill()?;
    agent.start_anyhow()?;
    configure(&folder.join("third.env"))?;
    holds(&folder.join("third.env"), OURS)?;
    assert!(!elsewhere.exists());
    agent.tell(&["down"])?;
    assert!(!folder.join("third.env").exists());
    assert_eq!(fs::read_to_string(&file)?, edited);
    assert_eq!(fs::read_to_string(&beside)?, THEIRS);
    Ok(cluster.guard.down()?)
}
