//! Connection tracking forgets all that it knew (`conntrack -F`), while connections that it
//! translates go on: who asks next is translated again, on either path.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
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
    /// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`
    const DELETE: u16 = 1 << 8 | 2;
    /// `NLM_F_REQUEST`
    const REQUEST: u16 = 1;
    /// Of the header, and of `struct nfgenmsg`.
    const LENGTH: u32 = 20;
    let mut message = LENGTH.to_ne_bytes().to_vec();
    message.extend(DELETE.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port.
    message.extend([0; 8]);
    // The kernel heeds a family where the version is not 0 (`ctnetlink_del_conntrack`).
    message.extend(match family {
        None => [0; 4],
        Some(Family::V4) => [2, 1, 0, 0],
        Some(Family::V6) => [10, 1, 0, 0],
    });
    netns::inside(namespace, || {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(netlink.as_raw_fd(), &message, &kernel, MsgFlags::empty()).map(drop)
    })?
    .context("forget connections")
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
