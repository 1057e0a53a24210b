//! Bad input: one clear error each, exit code 2 (4 for a lack of rights), and nothing was changed.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use overlay_tests::{
    agent::Agent,
    config::{Config, Endpoint, Peer, line_of},
    guard::Guard,
    run::{self, Output},
    script::{inside, words},
    shape::{Scenario, Shape},
    snapshot::Snapshot,
};

/// A change that makes a good configuration bad, and what must be said about it.
struct Mistake {
    make: fn(&mut Config),
    /// A text in the line at fault.
    line: &'static str,
    /// The field at fault.
    field: &'static str,
}

const MISTAKES: [Mistake; 14] = [
    Mistake {
        make: |config| config.networks[0].vni = 0x0100_0000,
        line: "vni = 16777216",
        field: "networks[0].vni",
    },
    Mistake {
        make: |config| config.networks[0].vni = 0,
        line: "vni = 0",
        field: "networks[0].vni",
    },
    Mistake {
        make: |config| config.networks[0].port = 0,
        line: "port = 0",
        field: "networks[0].port",
    },
    Mistake {
        make: |config| config.networks[0].subnet = vec!["10.99.1.0/24".to_owned()],
        line: "10.99.1.0/24",
        field: "networks[0].subnet",
    },
    Mistake {
        make: |config| config.networks[0].cidr = vec!["10.244.0.1/16".to_owned()],
        line: "10.244.0.1/16",
        field: "networks[0].cidr",
    },
    Mistake {
        make: |config| config.networks[0].peers[0].subnet = vec!["10.244.0.0/22".to_owned()],
        line: "10.244.0.0/22",
        field: "networks[0].peers[0].subnet",
    },
    Mistake {
        make: |config| config.networks[0].peers[0].subnet = vec!["10.99.2.0/24".to_owned()],
        line: "10.99.2.0/24",
        field: "networks[0].peers[0].subnet",
    },
    Mistake {
        make: |config| config.networks[0].peers[0].vtep = "192.168.56.300".into(),
        line: "192.168.56.300",
        field: "networks[0].peers[0].vtep",
    },
    Mistake {
        make: |config| config.networks[0].peers[0].mac = Some("01:00:5e:00:00:01".to_owned()),
        line: "01:00:5e:00:00:01",
        field: "networks[0].peers[0].mac",
    },
    Mistake {
        make: |config| {
            let twin = Peer {
                name: "twin".to_owned(),
                subnet: vec!["10.244.9.0/24".to_owned()],
                ..config.networks[0].peers[0].clone()
            };
            config.networks[0].peers.push(twin);
        },
        line: "",
        field: "networks[0].peers[1].vtep",
    },
    Mistake {
        make: |config| config.endpoints[0].network = "elsewhere".into(),
        line: "elsewhere",
        field: "endpoints[0].network",
    },
    Mistake {
        make: |config| config.endpoints[0].address = vec!["10.244.2.10".to_owned()],
        line: "10.244.2.10\"",
        field: "endpoints[0].address",
    },
    Mistake {
        make: |config| config.endpoints[0].address = vec!["10.244.1.1".to_owned()],
        line: "10.244.1.1\"",
        field: "endpoints[0].address",
    },
    Mistake {
        make: |config| {
            let twin = Endpoint {
                name: "twin".to_owned(),
                netns: Some("twin".to_owned()),
                ..config.endpoints[0].clone()
            };
            config.endpoints.push(twin);
        },
        line: "",
        field: "endpoints[1].address",
    },
];

/// `check` without a single capability: it needs none.
fn check_config(agent: &Agent, path: &Path) -> Result<Output> {
    let mut argv = words("setpriv --bounding-set=-all --inh-caps=-all");
    argv.extend(agent.argv(&["check", "--config", &path.to_string_lossy()]));
    Ok(run::output(&argv)?)
}

#[test]
fn each_mistake_is_named_by_line_and_field() -> Result<()> {
    let guard = Guard::underlay(Shape::of("tcheck", Scenario::Overlay, 2, 1)?)?;
    let agent = guard.agent(1);
    let path = agent.config_file();

    fs::write(&path, guard.first_config().to_toml())?;
    let fine = check_config(&agent, &path)?;
    assert_eq!(fine.code, Some(0), "{}{}", fine.stdout, fine.stderr);

    for Mistake { make, line, field } in &MISTAKES {
        let mut config = guard.first_config();
        make(&mut config);
        let text = config.to_toml();
        fs::write(&path, &text)?;
        let out = check_config(&agent, &path)?;
        assert_eq!(out.code, Some(2), "{field}: {}{}", out.stdout, out.stderr);
        let place = match line_of(&text, line) {
            Some(number) if !line.is_empty() => format!("{}:{number}: {field}", path.display()),
            _ => format!(": {field}"),
        };
        assert!(
            out.stderr.contains(&place),
            "no {place:?} in {:?} for\n{text}",
            out.stderr
        );
    }
    Ok(guard.down()?)
}

#[test]
fn all_mistakes_are_told_at_once_and_unknown_keys_too() -> Result<()> {
    let guard = Guard::underlay(Shape::of("tchecks", Scenario::Overlay, 2, 1)?)?;
    let agent = guard.agent(1);
    let path = agent.config_file();
    let tell = |text: &str| -> Result<String> {
        fs::write(&path, text)?;
        let out = check_config(&agent, &path)?;
        ensure!(
            out.code == Some(2),
            "exit code {:?}: {}{}",
            out.code,
            out.stdout,
            out.stderr
        );
        Ok(out.stderr)
    };

    let mut config = guard.first_config();
    config.networks[0].port = 0;
    config.endpoints[0].network = "elsewhere".to_owned();
    let said = tell(&config.to_toml())?;
    assert!(
        said.contains("networks[0].port") && said.contains("endpoints[0].network"),
        "{said}"
    );

    let text = guard.first_config().to_toml();
    let said = tell(&text.replace("[node]", "[node]\ncolour = \"red\""))?;
    assert!(
        said.contains("colour") && said.contains(&format!("{}:2:", path.display())),
        "{said}"
    );
    let said = tell(&text.replace("[node]", "[node"))?;
    assert!(said.contains(&format!("{}:1:", path.display())), "{said}");

    fs::remove_file(&path)?;
    let out = check_config(&agent, &path)?;
    assert_eq!(out.code, Some(2));
    assert!(
        out.stderr.contains(&*path.to_string_lossy()),
        "{}",
        out.stderr
    );
    Ok(guard.down()?)
}

/// Runs `overlay-agent run` in the node, after a prefix such as `setpriv …`; it must refuse,
/// name what is wrong and change nothing.
fn refuses(agent: &Agent, prefix: &[&str], config: &Config, words_in_error: &[&str]) -> Result<()> {
    fs::write(agent.config_file(), config.to_toml())?;
    let before = Snapshot::of(&agent.instance)?;
    let mut argv = words(inside(&agent.instance, "timeout 30"));
    argv.extend(prefix.iter().map(|&word| word.to_owned()));
    let path = agent.config_file();
    argv.extend(agent.argv(&["run", "--config", &path.to_string_lossy()]));
    let out = run::output(&argv)?;
    let for_lack_of_rights = words_in_error.iter().any(|word| word.starts_with("CAP_"));
    let code = if for_lack_of_rights { 4 } else { 2 };
    assert_eq!(
        out.code,
        Some(code),
        "{argv:?}: {}{}",
        out.stdout,
        out.stderr
    );
    for word in words_in_error {
        assert!(out.stderr.contains(word), "no {word:?} in {}", out.stderr);
    }
    let changes = Snapshot::of(&agent.instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "{changes}");
    for container in &config.endpoints {
        let netns = container.netns.as_deref().unwrap_or_default();
        assert!(
            !Path::new("/run/netns").join(netns).exists(),
            "{netns} was made"
        );
    }
    Ok(())
}

#[test]
fn what_cannot_be_built_is_refused_before_anything_is_changed() -> Result<()> {
    let guard = Guard::underlay(Shape::of("trefuse", Scenario::Overlay, 2, 1)?)?;
    let agent = guard.agent(1);
    let node = agent.instance.clone();
    let good = guard.first_config();
    let ip = |line: &str| run::checked(format!("ip -n {node} {line}"));

    let mut config = good.clone();
    config.networks[0].peers[0].vtep = "192.168.56.11".to_owned();
    refuses(&agent, &[], &config, &["192.168.56.11", "own"])?;

    ip("link add other type vxlan id 7 local 192.168.56.11 dstport 4789 nolearning")?;
    refuses(&agent, &[], &good, &["4789", "other"])?;
    ip("link del other")?;

    ip("link add other type bridge")?;
    ip("addr add 10.244.1.1/24 dev other")?;
    refuses(&agent, &[], &good, &["10.244.1.1", "other"])?;
    ip("link del other")?;

    ip("route add 10.244.2.0/24 via 192.168.56.12")?;
    refuses(&agent, &[], &good, &["10.244.2.0/24", "eth1"])?;
    ip("route del 10.244.2.0/24")?;

    refuses(
        &agent,
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        &good,
        &["CAP_NET_ADMIN", "CAP_BPF"],
    )?;
    Ok(guard.down()?)
}

#[test]
fn a_required_fast_path_that_cannot_be_is_refused() -> Result<()> {
    let guard = Guard::underlay(Shape::of("trequire", Scenario::Overlay, 2, 1)?)?;
    let mut config = guard.first_config();
    config.networks[0].fastpath = Some("required".to_owned());
    // A mount namespace of its own, without the BPF file system.
    let without = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "umount /sys/fs/bpf && exec \"$@\"",
        "sh",
    ];
    refuses(&guard.agent(1), &without, &config, &["/sys/fs/bpf"])?;
    Ok(guard.down()?)
}
