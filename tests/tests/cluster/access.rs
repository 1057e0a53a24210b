//! What members ask for: certificates, a user, rights.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use overlay_tests::run;

use crate::lab::{Cluster, until_said};

/// What a node needs, for files of the test.
fn access(cluster: &Cluster, ca: &str, password: &str) -> String {
    let file = |name: &str| cluster.file(name).display().to_string();
    format!(
        "ca = {:?}\ncert = {:?}\nkey = {:?}\nuser = \"nodes\"\npassword_file = {:?}\n",
        file(ca),
        file("node.pem"),
        file("node.key"),
        file(password),
    )
}

/// Does what `cluster init --role` prints, without its last commands.
fn grant(cluster: &Cluster, leave_out: usize) -> Result<Vec<String>> {
    let printed = cluster.cluster(1, &["init", "--role"])?;
    anyhow::ensure!(printed.success, "{printed:?}");
    let commands: Vec<String> = printed
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("etcdctl "))
        .map(|command| match command.strip_prefix("user add ") {
            // It would ask.
            Some(user) => format!("user add {user}:right"),
            None => command.to_owned(),
        })
        .collect();
    let (now, later) = commands.split_at(commands.len() - leave_out);
    for command in now {
        cluster.etcdctl(command)?;
    }
    Ok(later.to_vec())
}

#[test]
fn members_are_known_by_certificates_and_nodes_by_certificates_and_passwords() -> Result<()> {
    let mut cluster = Cluster::new("tetls", 2, 1, true)?;
    // The shortest that a token can last: each later request needs a new one.
    let secret = cluster.file("jwt");
    fs::write(&secret, "a key that only the test knows")?;
    cluster.more = format!(
        "--auth-token jwt,priv-key={},sign-method=HS256,ttl=1s",
        secret.display()
    );
    cluster.start("data")?;
    let agents = [cluster.guard.agent(1), cluster.guard.agent(2)];
    for (file, text) in [("wrong", "wrong\n"), ("right", "right\n")] {
        fs::write(cluster.file(file), text)?;
        fs::set_permissions(cluster.file(file), fs::Permissions::from_mode(0o600))?;
    }
    fs::set_permissions(cluster.file("node.key"), fs::Permissions::from_mode(0o600))?;
    for node in 1..=2 {
        cluster.configure(node, &access(&cluster, "ca.pem", "right"))?;
    }
    // As long as etcd has no users none is needed.
    cluster.init()?;
    let later = grant(&cluster, 1)?;
    for command in [
        "user add root:root",
        "user grant-role root root",
        "auth enable",
    ] {
        cluster.etcdctl(command)?;
    }
    cluster.user = Some("root:root");

    // Each fault has a name, and its cure is enough.
    fs::copy(cluster.file("node.pem"), cluster.file("other-ca.pem"))?;
    cluster.configure(1, &access(&cluster, "other-ca.pem", "right"))?;
    agents[0].start_anyhow()?;
    until_said(&agents[0], "give in cluster.ca the CA that has signed")?;
    cluster.configure(1, &access(&cluster, "ca.pem", "wrong"))?;
    until_said(&agents[0], "the password in cluster.password_file")?;
    cluster.configure(1, &access(&cluster, "ca.pem", "right"))?;
    until_said(
        &agents[0],
        "overlay-agent cluster init --config FILE --role\" prints",
    )?;
    for command in &later {
        cluster.etcdctl(command)?;
    }
    agents[0].is_well()?;
    let refused = cluster.cluster(1, &["init", "--cidr", "10.244.0.0/16"])?;
    assert!(refused.stderr.contains("permission denied"), "{refused:?}");
    cluster.configure(2, &access(&cluster, "nowhere.pem", "right"))?;
    agents[1].start_anyhow()?;
    until_said(&agents[1], "nowhere.pem: No such file")?;
    let without = "ca = \"CA\"\n".replace("CA", &cluster.file("ca.pem").display().to_string());
    cluster.configure(2, &without)?;
    until_said(
        &agents[1],
        "give in cluster.cert and cluster.key a certificate",
    )?;
    cluster.configure(2, &access(&cluster, "ca.pem", "right"))?;
    agents[1].is_well()?;
    cluster.reaches(1, 2)?;

    // The token of the start has long been too old.
    cluster.lose_lease(&agents[1])?;
    agents[1].is_well()?;

    // A new CA, and all certificates with it; the files are read again, by the same helper.
    let helpers = || {
        run::checked(overlay_tests::script::words(
            "pgrep -f overlay-cluster.follow -U nobody",
        ))
    };
    let before = helpers()?;
    cluster.kill(1)?;
    cluster.certify()?;
    cluster.start("data")?;
    for agent in &agents {
        agent.is_well()?;
    }
    assert_eq!(helpers()?, before);
    cluster.reaches(2, 1)?;
    Ok(cluster.guard.down()?)
}
