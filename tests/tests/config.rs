//! The configuration: a change is applied as a difference, a mistake is refused whole.

use std::{fs, net::IpAddr, os::unix::fs::symlink, path::Path, thread};

use anyhow::{Result, bail};
use nix::libc;
use overlay_tests::{
    check::{self, Answer},
    config::{Endpoint, line_of},
    guard::Guard,
    poll, run,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
};

fn answers(from: &str, address: &str) -> Result<bool> {
    Ok(matches!(
        check::ping(from, address.parse::<IpAddr>()?)?,
        Answer::Ttl(_)
    ))
}

#[test]
fn a_change_is_applied_and_the_rest_is_left_alone() -> Result<()> {
    let guard = Guard::pair("treload")?;
    let agent = guard.agent(1);
    let look = || run::checked("ip -n treload-n1c1 -4 -details address show dev eth0");
    let before = look()?;

    let mut config = guard.first_config();
    config.endpoints.push(Endpoint {
        name: "extra".to_owned(),
        network: "lab".to_owned(),
        netns: Some("treload-n1cx".to_owned()),
        address: vec!["10.244.1.77".to_owned()],
        ..Endpoint::default()
    });
    fs::write(agent.config_file(), config.to_toml())?;
    let added = poll::until_well(|| match answers("treload-n2c1", "10.244.1.77") {
        Ok(true) => None,
        Ok(false) => Some("10.244.1.77 does not answer".to_owned()),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(added, Ok(()), "{}", agent.log()?);
    assert_eq!(look()?, before, "the other container was touched");

    config.endpoints.pop();
    fs::write(agent.config_file(), config.to_toml())?;
    let namespace = Path::new("/run/netns/treload-n1cx");
    let removed = poll::until_well(|| match (namespace.exists(), agent.plan()) {
        (false, Ok(plan)) if plan.is_empty() => None,
        (exists, plan) => Some(format!("namespace there: {exists}, to be done: {plan:?}")),
    });
    assert_eq!(removed, Ok(()), "{}", agent.log()?);
    assert_eq!(look()?, before, "the other container was touched");
    Ok(guard.down()?)
}

#[test]
fn a_peer_comes_and_goes() -> Result<()> {
    let guard = Guard::pair("tpeer")?;
    let agent = guard.agent(1);
    let route = || run::checked("ip -n tpeer-n1 route show 10.244.2.0/24");
    let whole = guard.first_config();
    let mut alone = whole.clone();
    alone.networks[0].peers.clear();
    for (config, there) in [(alone, false), (whole, true)] {
        fs::write(agent.config_file(), config.to_toml())?;
        let done = poll::until_well(|| match route() {
            Ok(route) => (route.trim().is_empty() == there).then_some(format!("route: {route:?}")),
            Err(error) => Some(error.to_string()),
        });
        assert_eq!(done, Ok(()), "{}", agent.log()?);
        assert_eq!(answers("tpeer-n1c1", "10.244.2.10")?, there);
    }
    Ok(guard.down()?)
}

/// A pipe that nobody writes into, and a device without an end, in the place of the file and of one
/// of peers: the agent lives on.
#[test]
fn what_cannot_be_read_is_not_waited_for() -> Result<()> {
    let guard = Guard::pair("tpipe")?;
    let agent = guard.agent(1);
    let file = agent.config_file();
    let folder = file.with_file_name("peers.d");
    let text = fs::read_to_string(&file)?;
    fs::create_dir(&folder)?;
    for path in [&file, &folder.join("more.toml")] {
        let make: [&dyn Fn() -> Result<()>; 2] = [
            &|| Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?),
            &|| Ok(symlink("/dev/zero", path)?),
        ];
        for make in make {
            // As a user's tool would put it there: never half of it.
            if path.exists() {
                fs::remove_file(path)?;
            }
            make()?;
            agent.tells("refused")?;
            let check = [
                &["timeout".to_owned(), "20".to_owned()][..],
                &agent.argv(&["check", "--config", &file.to_string_lossy()]),
            ]
            .concat();
            let check = run::output(&check)?;
            assert_eq!(check.code, Some(2), "{check:?}");
            assert!(answers("tpipe-n1c1", "10.244.2.10")?);
        }
        fs::remove_file(path)?;
        fs::write(&file, &text)?;
        agent.is_well()?;
    }
    Ok(guard.down()?)
}

#[test]
fn a_mistake_is_refused_whole_and_named() -> Result<()> {
    let guard = Guard::pair("tbad")?;
    let agent = guard.agent(1);
    let before = Snapshot::of(&agent.instance)?;

    let mut config = guard.first_config();
    // A good change and a bad one: neither may be applied.
    config.endpoints.push(Endpoint {
        name: "good".to_owned(),
        network: "lab".to_owned(),
        netns: Some("tbad-n1cx".to_owned()),
        address: vec!["10.244.1.77".to_owned()],
        ..Endpoint::default()
    });
    config.networks[0].peers[0].subnet = vec!["10.99.0.0/24".to_owned()];
    let text = config.to_toml();
    let line = line_of(&text, "10.99.0.0/24");
    fs::write(agent.config_file(), text)?;

    let place = format!(":{}: networks[0].peers[0].subnet", line.unwrap_or_default());
    let logged = poll::until_well(|| match agent.log() {
        Ok(log) if log.contains(&place) => None,
        Ok(log) => Some(format!("no {place:?} in {log}")),
        Err(error) => Some(error.to_string()),
    });
    assert_eq!(logged, Ok(()));
    assert!(
        !Path::new("/run/netns/tbad-n1cx").exists(),
        "the good half was applied"
    );
    let changes = Snapshot::of(&agent.instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    assert!(answers("tbad-n1c1", "10.244.2.10")?);

    fs::write(agent.config_file(), guard.first_config().to_toml())?;
    agent.is_well()?;
    Ok(guard.down()?)
}

#[test]
fn plan_changes_nothing() -> Result<()> {
    let guard = Guard::underlay(Shape::of("tdry", Scenario::Overlay, 2, 1)?)?;
    let agent = guard.agent(1);
    fs::write(agent.config_file(), guard.first_config().to_toml())?;
    let before = Snapshot::of(&agent.instance)?;
    assert!(!agent.plan()?.is_empty(), "everything is to be made");
    let changes = Snapshot::of(&agent.instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    Ok(guard.down()?)
}

/// Has the kernel refuse inotify to this thread and to all that it starts, as it does when the
/// instances of a user are used up.
fn use_up_inotify() -> Result<()> {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| {
        let code = u16::try_from(code)?;
        anyhow::Ok(libc::sock_filter { code, jt, jf, k })
    };
    let number = u32::try_from(libc::SYS_inotify_init1)?;
    let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EMFILE)?;
    let mut code = [
        // The number of the call is the first field of `struct seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)?,
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number)?,
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, refused)?,
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW)?,
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(code.len())?,
        filter: code.as_mut_ptr(),
    };
    let program: *const libc::sock_fprog = &raw const program;
    // SAFETY: the kernel copies the program, which `code` outlives, before it returns.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, program) };
    if set != 0 {
        bail!("set a filter of calls: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

#[test]
fn a_file_behind_links_is_followed_with_inotify_and_without() -> Result<()> {
    let guard = Guard::pair("tlinks")?;
    let agent = guard.agent(1);
    let mut config = guard.first_config();
    let versions = tempfile::tempdir()?;
    let inside = |name: &str| versions.path().join(name);
    // As Kubernetes mounts a ConfigMap: the file is a link by way of another link.
    for version in ["..v1", "..v2"] {
        fs::create_dir(inside(version))?;
        fs::write(inside(version).join("node.toml"), config.to_toml())?;
        config.networks[0].peers.clear();
    }
    symlink("..v1", inside("..data"))?;
    fs::remove_file(agent.config_file())?;
    symlink(inside("..data/node.toml"), agent.config_file())?;
    let peers_are = |count: usize, after: &str| -> Result<()> {
        let are = poll::until_well(|| match agent.json(&["status"]) {
            Ok(status) => {
                let peers = &status["networks"][0]["peers"];
                let is = peers.as_array().is_some_and(|peers| peers.len() == count);
                (!is).then(|| peers.to_string())
            }
            Err(error) => Some(error.to_string()),
        });
        assert_eq!(are, Ok(()), "{after}: {}", agent.log()?);
        Ok(())
    };
    for with_inotify in [true, false] {
        agent.stop()?;
        thread::scope(|scope| {
            let started = scope.spawn(|| {
                if !with_inotify {
                    use_up_inotify()?;
                }
                Ok(agent.start()?)
            });
            started.join().unwrap_or_else(|_| bail!("panicked"))
        })?;
        let told = agent.log()?.contains("looked at twice a second instead");
        assert_eq!(told, !with_inotify, "{}", agent.log()?);
        for (version, peers) in [("..v2", 0), ("..v1", 1)] {
            symlink(version, inside("..data_tmp"))?;
            fs::rename(inside("..data_tmp"), inside("..data"))?;
            peers_are(peers, version)?;
        }
        // What it leads to is written in place.
        let target = inside("..v1/node.toml");
        let whole = fs::read_to_string(&target)?;
        fs::copy(inside("..v2/node.toml"), &target)?;
        peers_are(0, "written in place")?;
        fs::write(&target, whole)?;
        peers_are(1, "written back")?;
    }
    Ok(guard.down()?)
}
