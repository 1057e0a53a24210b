//! The socket: whatever comes in gets a clear answer, and the agent lives on.

mod private;

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{agent::Agent, guard::Guard, poll};
use serde_json::{Value, json};

/// More than the agent gives a client to think.
const PATIENCE: Duration = Duration::from_secs(20);
const STATUS: &str = r#"{"op":"status"}"#;

fn socket(agent: &Agent) -> PathBuf {
    Path::new("/run/overlay")
        .join(&agent.instance)
        .join("api.sock")
}

/// A client that is not ours.
struct Client {
    write: UnixStream,
    read: BufReader<UnixStream>,
}

impl Client {
    fn connect(agent: &Agent) -> Result<Self> {
        let write = UnixStream::connect(socket(agent))?;
        write.set_read_timeout(Some(PATIENCE))?;
        write.set_write_timeout(Some(PATIENCE))?;
        let read = BufReader::new(write.try_clone()?);
        Ok(Self { write, read })
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.read.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("not an answer: {line:?}"))
    }

    fn ask(&mut self, request: &[u8]) -> Result<Value> {
        self.write.write_all(request)?;
        self.write.write_all(b"\n")?;
        self.answer()
    }
}

fn refusal(answer: &Value) -> Result<&str> {
    let kinds = ["bad_input", "not_found", "exists"];
    let mut refusals = kinds.iter().filter_map(|kind| answer[*kind].as_str());
    refusals
        .next()
        .with_context(|| format!("it was not refused: {answer}"))
}

fn descriptors(pid: i32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() -> Result<()> {
    let guard = Guard::pair("tapi")?;
    let agent = guard.agent(1);
    let add = |fields: &str| {
        format!(r#"{{"op":"endpoint_add","name":"x","network":"lab","netns":"tapi-x"{fields}}}"#)
    };
    let behind = |prefix: &str| {
        add(&format!(
            r#","forwarding":true,"allowed_sources":["{prefix}"]"#
        ))
    };
    let named = |name: &str| {
        let name = serde_json::to_string(name).unwrap_or_default();
        format!(r#"{{"op":"endpoint_add","name":{name},"network":"lab","netns":"tapi-x"}}"#)
    };
    let in_netns = |netns: &str| {
        format!(r#"{{"op":"endpoint_add","name":"x","network":"lab","netns":"{netns}"}}"#)
    };
    let nested = "[".repeat(10_000);
    let long = "x".repeat(300);
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "request"),
        ("status".to_owned(), "request"),
        (nested, "invalid type"),
        ("{\"op\":\"status\"".to_owned(), "EOF"),
        (r#"{"op":"reboot"}"#.to_owned(), "reboot"),
        (r#"{"op":"status","colour":"red"}"#.to_owned(), "colour"),
        (add(r#","colour":"red""#), "colour"),
        (add(r#","pid":-1"#), "-1"),
        (add(r#","pid":4294967296"#), "4294967296"),
        (add(r#","pid":7"#), "either"),
        (add(r#","addresses":"10.244.1.9""#), "sequence"),
        (add(r#","addresses":["10.244.1.300"]"#), "10.244.1.300"),
        (add(r#","addresses":["10.99.1.9"]"#), "10.99.1.9"),
        (
            add(r#","interface":"much-too-long-name""#),
            "much-too-long-name",
        ),
        (add(r#","interface":"a/b""#), "a/b"),
        (add(r#","forwarding":"yes""#), "yes"),
        (add(r#","allowed_sources":["10.244.99.0/24"]"#), "forwards"),
        (behind("10.244.99.1/24"), "10.244.99.0/24"),
        (behind("10.244.2.0/28"), "peer tapi-n2"),
        (behind("10.244.1.0/28"), "this node"),
        (behind("fd00::/64"), "fd00::/64"),
        (behind("everywhere"), "everywhere"),
        (named(""), "name"),
        (named("../x"), "../x"),
        (named("a/b"), "a/b"),
        (named("a b"), "a b"),
        (named("a\0b"), "name"),
        (named(&long), "name"),
        (in_netns("../../etc/passwd"), "passwd"),
        (in_netns("a/b"), "a/b"),
        (r#"{"op":"endpoint_del","name":"../x"}"#.to_owned(), "../x"),
        (r#"{"op":"fastpath","on":"yes"}"#.to_owned(), "yes"),
    ];
    let mut client = Client::connect(&agent)?;
    for (request, said) in &cases {
        let answer = client.ask(request.as_bytes())?;
        let why = refusal(&answer).with_context(|| request.clone())?;
        assert!(why.contains(said), "no {said:?} in {why:?} for {request}");
        // The same connection goes on.
        let status = client.ask(STATUS.as_bytes())?;
        assert_eq!(status["status"]["healthy"], true, "after {request}");
    }
    assert!(!Path::new("/run/netns/tapi-x").exists());
    assert_eq!(agent.plan()?, Vec::<Value>::new());
    Ok(guard.down()?)
}

#[test]
fn status_tells_who_looks_at_packets() -> Result<()> {
    let guard = Guard::pair("tapiwat")?;
    let agent = guard.agent(1);
    let watched = |agent: &Agent| -> Result<(Value, Value, String)> {
        let mut status = agent.json(&["status"])?;
        let [capture, level] = ["capture", "log_level"].map(|field| status[field].take());
        Ok((capture, level, agent.tell(&["status"])?))
    };
    let (capture, level, text) = watched(&agent)?;
    assert_eq!((capture, level), (Value::Null, "off".into()));
    assert!(
        !text.contains("capture") && !text.contains("log level"),
        "{text}"
    );

    let container = &guard.topology().nodes[0].containers[0].namespace;
    let start = json!({
        "op": "capture_start",
        "endpoint": container,
        "peer": null,
        "reasons": ["dropped"],
        "hooks": [],
        "snap": 128,
    });
    let mut client = Client::connect(&agent)?;
    assert_eq!(client.ask(start.to_string().as_bytes())?, "done");
    // One that nobody reads would end.
    let over = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                client.ask(br#"{"op":"capture_read"}"#)?;
            }
            let rest = client.ask(br#"{"op":"capture_stop"}"#)?;
            ensure!(rest["captured"].is_object(), "{rest}");
            Ok(())
        });
        let seen = watched(&agent);
        over.store(true, Ordering::Relaxed);
        reader.join().map_err(|_| anyhow::anyhow!("the reader"))??;
        seen
    });
    let (capture, _, text) = seen?;
    let process = std::process::id();
    assert_eq!(capture["by"], json!({ "user": 0, "process": process }));
    assert_eq!(capture["wanted"]["endpoint"], container.as_str());
    assert!(
        capture["since"].as_str() > Some("2026-01-01T00:00:00.000Z") && capture["age_ms"].is_u64(),
        "{capture}"
    );
    for part in [
        format!("capture by process {process} of user 0"),
        format!("of endpoint {container}  reason dropped"),
    ] {
        assert!(text.contains(&part), "no {part:?} in\n{text}");
    }

    agent.tell(&["log-level", "warn"])?;
    let (capture, level, text) = watched(&agent)?;
    assert_eq!((capture, level), (Value::Null, "warn".into()));
    assert!(
        text.contains("packet log: warn") && !text.contains("capture"),
        "{text}"
    );
    agent.tell(&["log-level", "off"])?;
    let (_, level, text) = watched(&agent)?;
    assert_eq!(level, "off");
    assert!(!text.contains("log level"), "{text}");

    let doing = Client::connect(&agent)?.ask(br#"{"op":"activity"}"#)?;
    assert_eq!(doing, json!({ "activity": "waiting" }));
    Ok(guard.down()?)
}

#[test]
fn endless_slow_and_many_clients_keep_nobody_waiting_for_long() -> Result<()> {
    let guard = Guard::pair("tapislow")?;
    let agent = guard.agent(1);
    let process = agent.process()?.context("no agent runs")?;
    let before = descriptors(process.pid)?;

    // One request that never ends.
    let mut endless = Client::connect(&agent)?;
    let sent = endless.write.write_all(&vec![b'x'; 1 << 20]);
    let answer = endless.answer();
    match (sent, answer) {
        (_, Ok(answer)) => assert!(refusal(&answer)?.contains("longer than"), "{answer}"),
        // Closed before all of it was taken: the answer can be lost with it.
        (Err(error), Err(_)) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
        (Ok(()), Err(error)) => return Err(error),
    }

    // Many that say nothing, or half of something.
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut client = Client::connect(&agent)?;
        client.write.write_all(br#"{"op":"#)?;
        idle.push(client);
    }
    agent.is_well().context("while 100 clients say nothing")?;

    // One that asks and never reads.
    let mut deaf = UnixStream::connect(socket(&agent))?;
    deaf.set_write_timeout(Some(Duration::from_secs(2)))?;
    for _ in 0..10_000 {
        if deaf.write_all(format!("{STATUS}\n").as_bytes()).is_err() {
            break;
        }
    }
    assert!(agent.ask(&["status"])?.success, "while one does not listen");

    drop((endless, idle, deaf));
    poll::until(|| descriptors(process.pid), |now| *now <= before)?;
    assert!(process.is_alive());
    Ok(guard.down()?)
}

#[test]
fn damaged_requests_get_an_answer_each() -> Result<()> {
    let guard = Guard::pair("tapifuzz")?;
    let agent = guard.agent(1);
    let process = agent.process()?.context("no agent runs")?;
    let before = descriptors(process.pid)?;
    let requests = [
        r#"{"op":"endpoint_add","name":"x","network":"none","netns":"y","pid":null,"addresses":["10.244.1.9"],"interface":"eth0"}"#,
        r#"{"op":"endpoint_del","name":"nobody"}"#,
        STATUS,
    ];
    // xorshift64 (Marsaglia 2003), the same every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chance = |limit: u8| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [first, ..] = state.to_be_bytes();
        first % limit
    };
    let mut client = Client::connect(&agent)?;
    for round in 0..2000 {
        let mut request = requests[usize::from(chance(3))].as_bytes().to_vec();
        for _ in 0..=chance(4) {
            let place = usize::from(chance(u8::MAX)) % request.len();
            match chance(3) {
                0 => request[place] = chance(u8::MAX),
                1 => drop(request.remove(place)),
                _ => request.insert(place, chance(u8::MAX)),
            }
        }
        // A line end would make two requests of one.
        request.retain(|byte| *byte != b'\n');
        let answer = client
            .ask(&request)
            .with_context(|| format!("round {round}: {}", request.escape_ascii()))?;
        // A byte less makes another request of one.
        let known = [
            "bad_input",
            "not_found",
            "exists",
            "failed",
            "status",
            "stats",
        ];
        assert!(
            known.iter().any(|kind| !answer[*kind].is_null()),
            "{answer} to {}",
            request.escape_ascii()
        );
    }
    drop(client);
    assert!(process.is_alive());
    poll::until(|| descriptors(process.pid), |now| *now <= before)?;
    assert_eq!(agent.plan()?, Vec::<Value>::new());
    Ok(guard.down()?)
}
