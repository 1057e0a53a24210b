//! Connection tracking forgets all that it knew (`conntrack -F`), while connections that it
//! translates go on: who asks next is translated again, on either path.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use overlay_tests::{
    counters::passed,
    families::{Families, Family},
    guard::Guard,
    netns,
    shape::{Scenario, Shape},
};

use crate::{
    cases::{PORT, REMOTE, rules, service},
    nft,
};

mod one;

const PATIENCE: Duration = Duration::from_secs(10);

/// Has the kernel forget all connections of a namespace, or those of a family alone.
pub(crate) fn forget(namespace: &str, family: Option<Family>) -> Result<()> {
    // The kernel heeds a family where the version is not 0 (`ctnetlink_del_conntrack`).
    let header = match family {
        None => [0; 4],
        Some(Family::V4) => [2, 1, 0, 0],
        Some(Family::V6) => [10, 1, 0, 0],
    };
    delete(namespace, header, &[])
}

/// Has the kernel delete connections: `struct nfgenmsg`, and the attributes that tell which.
fn delete(namespace: &str, header: [u8; 4], attributes: &[u8]) -> Result<()> {
    /// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`
    const DELETE: u16 = 1 << 8 | 2;
    /// `NLM_F_REQUEST | NLM_F_ACK`
    const ASKED: u16 = 1 | 4;
    /// Bytes of `struct nlmsghdr`.
    const BEFORE: usize = 16;
    let length = u32::try_from(BEFORE + header.len() + attributes.len())?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(DELETE.to_ne_bytes());
    message.extend(ASKED.to_ne_bytes());
    // Sequence number and port.
    message.extend([0; 8]);
    message.extend(header);
    message.extend(attributes);
    let answer = netns::inside(namespace, || {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(netlink.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
        let mut answer = [0; 64];
        recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        Ok::<_, nix::Error>(answer)
    })??;
    // Behind the header `struct nlmsgerr`.
    let error = answer[BEFORE..].first_chunk().copied();
    let error = error.map(i32::from_ne_bytes);
    ensure!(error == Some(0), "forget connections: {error:?}");
    Ok(())
}

fn says(stream: &mut TcpStream) -> Result<()> {
    let mut word = [0; 4];
    stream.write_all(b"word")?;
    stream.read_exact(&mut word)?;
    assert_eq!(&word, b"word");
    Ok(())
}

#[test]
fn a_translated_connection_outlives_what_is_known_of_it() -> Result<()> {
    let shape = Shape::usual("tsvcf", Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let topology = guard.topology();
    let node = &topology.nodes[0].namespace;
    let client = &topology.nodes[0].containers[0].namespace;
    let far = &topology.nodes[1].containers[0];
    nft(node, &rules(topology))?;
    for on in [true, false] {
        guard.agent(1).fastpath(on)?;
        for family in [Family::V4, Family::V6] {
            let what = || format!("{family:?}, fast path {on}");
            let backend = SocketAddr::new(far.at(family), PORT);
            let listener = netns::inside(&far.namespace, || TcpListener::bind(backend))??;
            let server = thread::spawn(move || -> std::io::Result<()> {
                let (mut stream, _) = listener.accept()?;
                let mut word = [0; 4];
                while stream.read_exact(&mut word).is_ok() {
                    stream.write_all(&word)?;
                }
                Ok(())
            });
            let at = SocketAddr::new(service(REMOTE, family), PORT);
            let connect = || TcpStream::connect_timeout(&at, PATIENCE);
            let mut stream = netns::inside(client, connect)?.with_context(what)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            for _ in 0..3 {
                says(&mut stream).with_context(what)?;
                forget(node, None)?;
            }
            says(&mut stream).with_context(what)?;
            drop(stream);
            let ended = server.join();
            ended.map_err(|_| anyhow::anyhow!("the server has panicked"))??;
        }
    }
    assert_ne!(passed(node, "translated")?, 0, "the kernel has carried it");
    Ok(guard.down()?)
}
