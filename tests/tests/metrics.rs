//! Counters for Prometheus: scraped by a real one, at the address that the configuration names,
//! and not to be disturbed by whoever else connects.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    netns, poll, run,
    script::{inside, words},
};
use serde_json::Value;

/// Where the agent listens unless it is told otherwise.
const USUAL: &str = "127.0.0.1:9466";
const PROMETHEUS: &str = "127.0.0.1:9090";
/// More than are served at a time.
const CROWD: usize = 12;

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("process {} was not ended: {error}", self.0.id());
        }
    }
}

fn lab_with_traffic(name: &str) -> Result<Guard> {
    let guard = Guard::overlay(name)?;
    ping(&guard)?;
    Ok(guard)
}

fn ping(guard: &Guard) -> Result<()> {
    let nodes = &guard.topology().nodes;
    let there = nodes[1].containers[0].address;
    let answer = check::ping(&nodes[0].containers[0].namespace, there)?;
    assert_eq!(answer, Answer::Ttl(62));
    Ok(())
}

fn on_node(agent: &Agent, command: &str) -> Result<String> {
    Ok(run::checked(inside(&agent.instance, command))?)
}

fn scrape(agent: &Agent, address: &str) -> Result<String> {
    on_node(
        agent,
        &format!("curl -sS --max-time 60 http://{address}/metrics"),
    )
}

/// The value of a metric with these labels on a page.
fn value(page: &str, metric: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(metric))?;
    line.trim().parse().ok()
}

#[test]
fn a_real_prometheus_finds_what_was_sent() -> Result<()> {
    let guard = lab_with_traffic("tprom")?;
    let agent = guard.agent(1);
    let peer = &guard.topology().nodes[1].namespace;
    let page = scrape(&agent, USUAL)?;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run promtool; \"cargo xtask setup\" brings it")?;
    promtool
        .stdin
        .take()
        .context("its input")?
        .write_all(page.as_bytes())?;
    let said = promtool.wait_with_output()?;
    assert!(said.status.success(), "{said:?}\n{page}");
    assert!(said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");

    let folder = tempfile::tempdir()?;
    let config = folder.path().join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s }}\n\
         scrape_configs:\n\
         - job_name: overlay\n\
         \x20 static_configs: [{{ targets: [\"{USUAL}\"] }}]\n"
    );
    fs::write(&config, text)?;
    let log = fs::File::create(folder.path().join("log"))?;
    let argv = words(inside(
        &agent.instance,
        format!(
            "prometheus --config.file={} --storage.tsdb.path={} --web.listen-address={PROMETHEUS}",
            config.display(),
            folder.path().join("data").display(),
        ),
    ));
    let server = Command::new(&argv[0])
        .args(&argv[1..])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let _server = Running(server);
    ping(&guard)?;
    let stats = agent.json(&["stats"])?;
    let sent = stats["networks"][0]["peers"][0]["tx"]["packets"].as_f64();
    assert!(sent > Some(1.0), "{stats:#}");
    let query = |query: &str| -> Result<Option<f64>> {
        let command =
            format!("curl -sS -G http://{PROMETHEUS}/api/v1/query --data-urlencode query={query}");
        let answer: Value = serde_json::from_str(&on_node(&agent, &command)?)?;
        let value = answer["data"]["result"][0]["value"][1].as_str();
        Ok(value.and_then(|value| value.parse().ok()))
    };
    poll::until_ok(|| {
        let found = query(&format!(
            "overlay_peer_transmit_packets_total{{peer=\"{peer}\"}}"
        ))?;
        ensure!(found == sent, "{found:?}, and {sent:?} were sent");
        Ok(())
    })?;
    assert_eq!(query("overlay_healthy")?, Some(1.0));
    assert_eq!(query("up")?, Some(1.0));
    assert_eq!(
        query("sum(overlay_program_packets_total{fate=\"dropped\"})")?,
        query("sum(overlay_drop_packets_total)")?
    );
    Ok(guard.down()?)
}

#[test]
fn counters_are_where_the_configuration_wants_them() -> Result<()> {
    let guard = lab_with_traffic("tpromcfg")?;
    let agent = guard.agent(1);
    let mut config = guard.first_config();
    let mut set = |metrics: &str| {
        config.node.metrics = Some(metrics.to_owned());
        fs::write(agent.config_file(), config.to_toml())
    };
    set("127.0.0.1:9999")?;
    poll::until_ok(|| {
        let page = scrape(&agent, "127.0.0.1:9999")?;
        ensure!(value(&page, "overlay_healthy") == Some(1.0), "{page}");
        Ok(())
    })?;
    assert!(scrape(&agent, USUAL).is_err(), "it listens there, too");
    set("off")?;
    poll::until_ok(|| {
        ensure!(scrape(&agent, "127.0.0.1:9999").is_err(), "it goes on");
        Ok(())
    })?;
    // Nobody has this address (RFC 5737).
    set("192.0.2.1:9466")?;
    let problem = "export counters at 192.0.2.1:9466";
    poll::until_ok(|| {
        let status = agent.json(&["status"])?;
        let problems = status["problems"].to_string();
        ensure!(
            problems.contains(problem) && problems.contains("node.metrics"),
            "{problems}"
        );
        Ok(())
    })?;
    set(USUAL)?;
    poll::until_ok(|| {
        let page = scrape(&agent, USUAL)?;
        ensure!(value(&page, "overlay_problems") == Some(0.0), "{page}");
        Ok(())
    })?;
    Ok(guard.down()?)
}

#[test]
fn slow_and_loud_clients_do_no_harm() -> Result<()> {
    let guard = lab_with_traffic("tpromdos")?;
    let agent = guard.agent(1);
    let connect = || -> Result<TcpStream> {
        let address: SocketAddr = USUAL.parse()?;
        let stream = netns::inside(&agent.instance, || TcpStream::connect(address))??;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        Ok(stream)
    };
    let mut loud = connect()?;
    let head = [
        b"GET /metrics HTTP/1.1\r\nX: ".to_vec(),
        vec![b'x'; 1 << 20],
    ]
    .concat();
    // It hangs up in the middle: then the rest cannot be written.
    let _ = loud.write_all(&head);
    let mut answer = Vec::new();
    let end = loud.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        end.is_err() || answer.is_empty() || answer.contains(" 431 "),
        "{answer}"
    );

    let slow = (0..CROWD)
        .map(|_| {
            let mut stream = connect()?;
            stream.write_all(b"GET /metr")?;
            Ok(stream)
        })
        .collect::<Result<Vec<_>>>()?;
    // Other clients are served meanwhile, and whoever scrapes has their turn.
    assert!(agent.ask(&["status"])?.success);
    let page = scrape(&agent, USUAL)?;
    assert_eq!(value(&page, "overlay_healthy"), Some(1.0), "{page}");
    drop(slow);
    for (method, path, status) in [
        ("POST", "/metrics", "405"),
        ("GET", "/", "404"),
        ("GET", "/metrics", "200"),
    ] {
        let command =
            format!("curl -sS -o /dev/null -w %{{http_code}} -X {method} http://{USUAL}{path}");
        assert_eq!(on_node(&agent, &command)?, status, "{method} {path}");
    }
    Ok(guard.down()?)
}
