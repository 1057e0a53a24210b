//! Names of containers, as containers ask for them at their gateway.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    guard::Guard,
    netns, poll, run,
    script::{inside, words},
};
use serde_json::{Value, json};

const A: u16 = 1;
const PTR: u16 = 12;
/// The code of an answer (RFC 1035, 4.1.1).
const NO_SUCH_NAME: u8 = 3;
/// Where the test's own name server is, in each node.
const UPSTREAM: u16 = 5353;

fn lab(name: &str) -> Result<Guard> {
    let guard = Guard::pair(name)?;
    for number in [1, 2] {
        let agent = guard.agent(number);
        let text = fs::read_to_string(agent.config_file())?;
        let names = format!(
            "\n[names]\nzone = \"overlay.internal\"\nforward = [\"127.0.0.1:{UPSTREAM}\"]\n"
        );
        fs::write(agent.config_file(), text + &names)?;
        agent.kill()?;
        agent.start()?;
    }
    Ok(guard)
}

/// A question in the form of the wire.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

/// What was answered: its code, and all that it contains.
struct Told {
    code: u8,
    records: u16,
    bytes: Vec<u8>,
}

impl Told {
    fn read(bytes: Vec<u8>) -> Result<Self> {
        ensure!(bytes.len() > 12 && bytes[..2] == [0x12, 0x34], "{bytes:?}");
        Ok(Self {
            code: bytes[3] & 0xf,
            records: u16::from_be_bytes([bytes[6], bytes[7]]),
            bytes,
        })
    }

    /// Whether the answer has these bytes in it, such as an address.
    fn has(&self, part: &[u8]) -> bool {
        self.records > 0 && self.bytes.windows(part.len()).any(|it| it == part)
    }
}

/// What a container gets for an answer; `None` when there is none.
fn ask(container: &str, server: IpAddr, name: &str, kind: u16) -> Result<Option<Told>> {
    let received = netns::inside(container, || -> std::io::Result<_> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send_to(&question(name, kind), SocketAddr::new(server, 53))?;
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer)?;
        Ok(buffer[..length].to_vec())
    })?;
    received.ok().map(Told::read).transpose()
}

fn ask_by_tcp(container: &str, server: IpAddr, name: &str) -> Result<Told> {
    let received = netns::inside(container, || -> std::io::Result<_> {
        let mut stream = TcpStream::connect(SocketAddr::new(server, 53))?;
        let question = question(name, A);
        let length = u16::try_from(question.len()).unwrap_or(0);
        stream.write_all(&[&length.to_be_bytes()[..], &question].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    })?;
    Told::read(received?)
}

/// Asks until the answer has something in it: a name that has just come may take a moment.
fn is_told(container: &str, server: IpAddr, name: &str, kind: u16, part: &[u8]) -> Result<()> {
    poll::until_well(|| match ask(container, server, name, kind) {
        Ok(Some(told)) if told.has(part) => None,
        Ok(told) => Some(told.map_or("no answer".to_owned(), |it| {
            format!("code {}, {:?}", it.code, it.bytes)
        })),
        Err(error) => Some(error.to_string()),
    })
    .map_err(|why| anyhow::anyhow!("{container} asks {server} for {name}: {why}"))
}

/// A name server for everything, in a node: it answers one question, with 192.0.2.99.
fn upstream(node: &str) -> Result<std::thread::JoinHandle<Option<Vec<u8>>>> {
    let socket = netns::inside(node, || UdpSocket::bind((Ipv4Addr::LOCALHOST, UPSTREAM)))??;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        let mut answer = buffer[..length].to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 99]);
        socket.send_to(&answer, from).ok()?;
        Some(buffer[..length].to_vec())
    }))
}

fn add(agent: &Agent, name: &str) -> Result<()> {
    agent.attach(name, &format!("{}-{name}", agent.instance))?;
    Ok(())
}

#[test]
fn containers_find_each_other_by_name_across_nodes() -> Result<()> {
    let guard = lab("tnames")?;
    let [here, there] = [1, 2].map(|number| guard.agent(number));
    let _places = [
        netns::Temporary::make(&format!("{}-web", here.instance))?,
        netns::Temporary::make(&format!("{}-db", there.instance))?,
    ];
    add(&here, "web")?;
    add(&there, "db")?;
    let [first, second] = ["tnames-n1c1", "tnames-n2c1"];
    let gateways = [1, 2].map(|node| IpAddr::from([10, 244, node, 1]));
    let address = |agent: &Agent, name: &str| -> Result<[u8; 4]> {
        let listed = agent.json(&["endpoint", "list"])?;
        let all = listed.as_array().context("not a list")?;
        let one = all.iter().find(|it| it["name"] == name);
        let text = one.and_then(|it| it["addresses"][0].as_str());
        let address: Ipv4Addr = text.context("no address")?.parse()?;
        Ok(address.octets())
    };
    let (web, db) = (address(&here, "web")?, address(&there, "db")?);

    // Each knows its own, and asks the other.
    for (container, gateway) in [(first, gateways[0]), (second, gateways[1])] {
        is_told(container, gateway, "web.lab.overlay.internal", A, &web)?;
        is_told(container, gateway, "DB.lab.Overlay.internal", A, &db)?;
    }
    let told = ask_by_tcp(first, gateways[0], "db.lab.overlay.internal")?;
    ensure!(told.has(&db), "{:?}", told.bytes);
    let [a, b, c, d] = db;
    let reverse = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
    is_told(
        first,
        gateways[0],
        &reverse,
        PTR,
        b"\x02db\x03lab\x07overlay",
    )?;

    // Nobody has that name, and the answer is not one of somebody else.
    let none = ask(first, gateways[0], "none.lab.overlay.internal", A)?.context("no answer")?;
    ensure!(none.code == NO_SUCH_NAME && none.records == 0);

    // All other names are others'.
    let server = upstream("tnames-n1")?;
    is_told(first, gateways[0], "example.org", A, &[192, 0, 2, 99])?;
    let asked = server.join().ok().flatten().context("nobody asked")?;
    ensure!(asked[2..] == question("example.org", A)[2..], "{asked:?}");
    ensure!(asked[..2] != [0x12, 0x34], "its identifier can be guessed");

    // The node is a resolver for nobody else.
    run::checked("ip -n tnames-n2 route add 10.244.1.1/32 via 192.168.56.11")?;
    stranger(gateways[0])?;
    run::checked("ip -n tnames-n2 route del 10.244.1.1/32")?;

    // What is gone has no name any more; what the agent answers is told.
    there.json(&["endpoint", "del", "db"])?;
    poll::until_well(
        || match ask(first, gateways[0], "db.lab.overlay.internal", A) {
            Ok(Some(told)) if told.code == NO_SUCH_NAME => None,
            other => Some(format!("{:?}", other.map(|it| it.map(|it| it.code)))),
        },
    )
    .map_err(anyhow::Error::msg)?;
    let status = here.json(&["status"])?;
    let names = &status["names"];
    ensure!(names["zone"] == "overlay.internal" && names["at"] == json!(["10.244.1.1"]));
    for counter in ["answered", "asked_of_peers", "forwarded"] {
        ensure!(names[counter].as_u64() > Some(0), "{counter}: {names}");
    }
    ensure!(status["healthy"] == true, "{}", status["problems"]);

    // Turned off, nothing listens.
    let text = fs::read_to_string(here.config_file())?;
    let (without, _) = text.split_once("\n[names]").context("no names")?;
    fs::write(here.config_file(), without)?;
    listens("tnames-n1", false)?;
    Ok(guard.down()?)
}

/// Whether a name server listens in a node, waited for.
fn listens(node: &str, wanted: bool) -> Result<()> {
    let ask = words(inside(node, "ss -Hlnu sport = :53"));
    poll::until(
        || run::checked(&ask),
        |open| open.trim().is_empty() != wanted,
    )?;
    Ok(())
}

/// Who is not of the network gets no answer, by whatever way the question comes.
fn stranger(gateway: IpAddr) -> Result<()> {
    let told = netns::inside("tnames-n2", || -> std::io::Result<_> {
        let socket = UdpSocket::bind((Ipv4Addr::new(192, 168, 56, 12), 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let name = question("web.lab.overlay.internal", A);
        socket.send_to(&name, SocketAddr::new(gateway, 53))?;
        socket.recv(&mut [0; 512])
    })?;
    ensure!(told.is_err(), "a stranger was answered: {told:?}");
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_told_and_taken_when_it_is_free() -> Result<()> {
    let guard = lab("tnamet")?;
    let agent = guard.agent(1);
    let text = fs::read_to_string(agent.config_file())?;
    let (without, _) = text.split_once("\n[names]").context("no names")?;
    fs::write(agent.config_file(), without)?;
    listens("tnamet-n1", false)?;
    let other = netns::inside("tnamet-n1", || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)))??;
    fs::write(agent.config_file(), &text)?;
    agent.status_until(|status| status["problems"][0]["id"] == "names-closed")?;
    let doctor = agent.call(&[
        "doctor",
        "--sample",
        "0.1",
        "-o",
        "json",
        "--instance",
        "tnamet-n1",
    ])?;
    let doctor: Value = serde_json::from_str(&doctor.stdout)?;
    let findings = doctor["findings"].as_array().context("findings")?;
    let found = findings.iter().any(|it| it["check"] == "names-closed");
    ensure!(found, "{doctor}");
    drop(other);
    // A round that repairs looks at everything.
    run::checked("ip -n tnamet-n1 link set ovlbr1 down")?;
    agent.status_until(|status| status["healthy"] == true)?;
    listens("tnamet-n1", true)?;
    Ok(guard.down()?)
}

#[test]
fn a_name_is_found_among_many_peers_that_are_silent() -> Result<()> {
    let guard = lab("tnamem")?;
    let [here, there] = [1, 2].map(|number| guard.agent(number));
    let _place = netns::Temporary::make(&format!("{}-db", there.instance))?;
    add(&there, "db")?;
    // More than are asked at once, and before the one that knows it.
    let silent = (100..250).map(|number| {
        format!(
            "[[networks.peers]]\nname = \"silent{number}\"\nvtep = \"192.168.56.{number}\"\n\
             subnet = \"10.244.{number}.0/24\"\n\n"
        )
    });
    let text = fs::read_to_string(here.config_file())?;
    let (before, after) = text
        .split_once("[[networks.peers]]")
        .context("no peers in the configuration")?;
    let silent: String = silent.collect();
    let all = format!("{before}{silent}[[networks.peers]]{after}");
    fs::write(here.config_file(), all)?;
    poll::until(
        || here.json(&["peer", "list"]),
        |peers| peers.as_array().map_or(0, Vec::len) == 151,
    )?;
    let gateway = IpAddr::from([10, 244, 1, 1]);
    let name = "db.lab.overlay.internal";
    for _ in 0..3 {
        is_told("tnamem-n1c1", gateway, name, A, b"\x0a\xf4\x02")?;
    }
    let none = ask("tnamem-n1c1", gateway, "none.lab.overlay.internal", A)?;
    ensure!(none.context("no answer")?.code == NO_SUCH_NAME);
    // Another container comes by the name.
    there.call(&["endpoint", "del", "db", "--instance", &there.instance])?;
    poll::until_well(|| match ask("tnamem-n1c1", gateway, name, A) {
        Ok(Some(told)) if told.code == NO_SUCH_NAME => None,
        Ok(told) => Some(told.map_or("no answer".to_owned(), |it| format!("{:?}", it.bytes))),
        Err(error) => Some(error.to_string()),
    })
    .map_err(anyhow::Error::msg)?;
    Ok(guard.down()?)
}
