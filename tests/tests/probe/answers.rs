//! Who is answered, how often, and with how much.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::Result;
use overlay_tests::{netns, poll, run, script::inside};

use crate::stand::Stand;

const PORT: u16 = 14_789;
/// Bytes of the shortest question, and of the longest answer.
const LENGTH: usize = 112;
const ANSWER: usize = 116;

/// A question as the documentation has it.
fn question(sequence: u32, length: usize) -> Vec<u8> {
    let mut bytes = b"ovlp\x01\x01\x00\x8c\x00\x00\x00\x01".to_vec();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(0x0102_0304_0506_0708_u64.to_be_bytes());
    bytes.extend(u32::MAX.to_be_bytes());
    bytes.extend(3_u32.to_be_bytes());
    bytes.extend(*b"9.9.9\0\0\0\0\0\0\0\0\0\0\0");
    bytes.extend(*b"somebody");
    bytes.resize(length.max(LENGTH), 0);
    bytes
}

/// A socket in a namespace that speaks to the first node's gateway.
fn speaker(namespace: &str, address: IpAddr, port: u16, to: SocketAddr) -> Result<UdpSocket> {
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((address, port))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok(socket)
    };
    Ok(netns::inside(namespace, open)??)
}

/// What comes back; `None` when nothing does.
fn answer(socket: &UdpSocket) -> Result<Option<Vec<u8>>> {
    let mut buffer = [0; 4096];
    match socket.recv(&mut buffer) {
        Ok(length) => Ok(Some(buffer[..length].to_vec())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // A node that has nobody at the port says so.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn until_count(stand: &Stand, of: &str, expected: u64) -> Result<()> {
    let found = poll::until_well(|| match stand.status(1) {
        Ok(status) => {
            let count = status["probe"]["messages"][of].as_u64();
            (count != Some(expected)).then(|| format!("{of}: {count:?}, not {expected}"))
        }
        Err(error) => Some(error.to_string()),
    });
    found.map_err(anyhow::Error::msg)
}

#[test]
fn peers_alone_are_answered_and_rubbish_is_counted() -> Result<()> {
    let stand = Stand::raise("tprans", 2, "answer")?;
    let [here, there] = stand.guard.topology().two_nodes();
    // What it made goes on forwarding; its place at the port is free.
    stand.guard.agent(2).kill()?;
    let to = SocketAddr::new(here.subnet.host(1).into(), PORT);
    let gateway = IpAddr::from(there.subnet.host(1));
    let peer = speaker(&there.namespace, gateway, PORT, to)?;

    for length in [LENGTH, 1_000, 1_422] {
        peer.send(&question(7, length))?;
        let answer = answer(&peer)?.ok_or_else(|| anyhow::anyhow!("{length}: no answer"))?;
        assert_eq!(
            answer.len(),
            length.min(ANSWER),
            "never more than was asked with"
        );
        let asked = question(7, length);
        assert_eq!((answer[5], &answer[8..24]), (2, &asked[8..24]));
        let arrived = u16::from_be_bytes([answer[6], answer[7]]);
        assert_eq!(usize::from(arrived), length + 28);
        assert!(answer[48..].starts_with(b"tprans-n1\0"));
    }
    until_count(&stand, "answers", 3)?;

    let mut foreign = question(1, LENGTH);
    foreign[11] = 2;
    let mut unprintable = question(1, LENGTH);
    unprintable[48] = 0x1b;
    let rubbish: [&[u8]; 6] = [
        b"",
        b"ovlp",
        &question(1, LENGTH)[..LENGTH - 1],
        &[0xff; 1_000],
        &foreign,
        &unprintable,
    ];
    for datagram in rubbish {
        peer.send(datagram)?;
        assert_eq!(answer(&peer)?, None, "{datagram:x?}");
    }
    until_count(&stand, "malformed", 6)?;

    let container = &there.containers[0];
    let strangers = [
        (&there.namespace, gateway, 0),
        (&container.namespace, container.address.into(), PORT),
    ];
    for (namespace, address, port) in strangers {
        let stranger = speaker(namespace, address, port, to)?;
        stranger.send(&question(1, LENGTH))?;
        assert_eq!(answer(&stranger)?, None, "{address}:{port}");
    }
    until_count(&stand, "strangers", 2)?;
    // Who does not come through the tunnel does not come at all.
    let local = &here.containers[0];
    let local = speaker(&local.namespace, local.address.into(), PORT, to)?;
    local.send(&question(1, LENGTH))?;
    assert_eq!(answer(&local)?, None);
    until_count(&stand, "strangers", 2)?;

    for sequence in 0..200 {
        peer.send(&question(sequence, LENGTH))?;
    }
    let mut answered = 0;
    while answer(&peer)?.is_some() {
        answered += 1;
    }
    assert!((1..150).contains(&answered), "{answered} of 200 at once");
    poll::until(
        || stand.status(1),
        |status| status["probe"]["messages"]["limited"].as_u64() >= Some(50),
    )?;
    drop(peer);
    Ok(stand.guard.down()?)
}

#[test]
fn off_is_off() -> Result<()> {
    let stand = Stand::raise("tproff", 2, "off")?;
    let listening = |node: u8| {
        let namespace = stand.guard.agent(node).instance;
        run::checked(inside(
            &namespace,
            format!("ss --no-header --listening --udp --numeric sport = :{PORT}"),
        ))
    };
    assert_eq!(listening(1)?, "");
    stand.configure(1, "200ms")?;
    stand.until_mode(1, "200ms")?;
    assert!(
        listening(1)?.contains(&format!("10.244.1.1%ovl1:{PORT}")),
        "{}",
        listening(1)?
    );
    // The other one has an agent, which does not answer.
    stand.until_state(1, 2, "no_agent")?;
    let never = "tproff-n2: it refuses probes";
    stand.until_problem(1, Some(never))?;
    let status = stand.guard.agent(1).ask(&["status"])?;
    assert_eq!(status.code, Some(1), "{status:?}");
    stand.until_logged(1, "peer tproff-n2 has not answered a single probe yet")?;
    stand.configure(2, "answer")?;
    stand.until_state(1, 2, "answers")?;
    stand.until_problem(1, None)?;
    stand.until_logged(1, "peer tproff-n2 answers probes now")?;
    stand.configure(1, "off")?;
    stand.until_mode(1, "off")?;
    assert_eq!(listening(1)?, "");
    Ok(stand.guard.down()?)
}
