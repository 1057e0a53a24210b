//! The mode ipvs of kube-proxy: the kernel's own load balancer translates, without a rule, by addresses
//! of a device of its own.

use std::{net::IpAddr, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use overlay_tests::{
    families::{Families, Family},
    guard::Guard,
    netns, run,
    script::words,
    shape::{Scenario, Shape},
};

use crate::{
    asking::{arrives, asks},
    cases::{LOCAL, PORT, REMOTE, service},
    kube,
    returning::{Stream, all_go_on},
};

/// Where kube-proxy has the addresses of services.
const DEVICE: &str = "kube-ipvs0";
/// How often the path changes, there and back.
const TIMES: usize = 4;

/// `CTRL_CMD_GETFAMILY` of `linux/genetlink.h`, asked of `GENL_ID_CTRL`.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `IPVS_CMD_…` of `linux/ip_vs.h`.
const NEW_SERVICE: u8 = 1;
const NEW_DESTINATION: u8 = 5;
/// `NLM_F_REQUEST`, `NLM_F_ACK`
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// Bytes of `struct nlmsghdr`, and of `struct genlmsghdr` behind it.
const HEADER: usize = 16;
const GENERIC: usize = 4;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What the kernel answers, behind `struct nlmsghdr`.
fn ask(to: u16, command: u8, flags: u16, attributes: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(HEADER + GENERIC + attributes.len())?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(to.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    // Sequence number and port; the command's version is 1.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(netlink.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
    let mut answer = vec![0; 4096];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(answer.split_off(HEADER.min(length)))
}

/// The number of the load balancer's messages; `None` where the kernel has none.
fn ipvs() -> Result<Option<u16>> {
    let answer = ask(CONTROL, GET_FAMILY, 0, &attribute(FAMILY_NAME, b"IPVS\0"))?;
    let mut rest = answer.get(GENERIC..).unwrap_or_default();
    while let [a, b, c, d, behind @ ..] = rest {
        let length = usize::from(u16::from_ne_bytes([*a, *b])).saturating_sub(4);
        if u16::from_ne_bytes([*c, *d]) == FAMILY_ID
            && let [low, high, ..] = behind
        {
            return Ok(Some(u16::from_ne_bytes([*low, *high])));
        }
        rest = behind.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Has a service of TCP and of UDP lead to a container, as `ipvsadm -A … -s rr` and `-a … -m`.
fn add(to: u16, at: IpAddr, backend: IpAddr) -> Result<()> {
    let (family, netmask): (u16, u32) = match at {
        IpAddr::V4(_) => (2, u32::MAX),
        IpAddr::V6(_) => (10, 128),
    };
    for protocol in [6_u16, 17] {
        // `IPVS_SVC_ATTR_…`, and `IPVS_DEST_ATTR_…`; flags are a value and a mask.
        let service = [
            attribute(1, &family.to_ne_bytes()),
            attribute(2, &protocol.to_ne_bytes()),
            attribute(3, &octets(at)),
            attribute(4, &PORT.to_be_bytes()),
            attribute(6, b"rr\0"),
            attribute(7, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
            attribute(8, &[0; 4]),
            attribute(9, &netmask.to_ne_bytes()),
        ]
        .concat();
        // Forwarded by masquerade, with the weight 1, and no limits.
        let destination = [
            attribute(1, &octets(backend)),
            attribute(2, &PORT.to_be_bytes()),
            attribute(3, &0_u32.to_ne_bytes()),
            attribute(4, &1_u32.to_ne_bytes()),
            attribute(5, &[0; 4]),
            attribute(6, &[0; 4]),
            attribute(11, &family.to_ne_bytes()),
        ]
        .concat();
        let service = attribute(1, &service);
        let both = [service.clone(), attribute(2, &destination)].concat();
        for (command, attributes) in [(NEW_SERVICE, &service), (NEW_DESTINATION, &both)] {
            let answer = ask(to, command, ACK, attributes)?;
            let error = answer.first_chunk().copied().map(i32::from_ne_bytes);
            ensure!(error == Some(0), "{command} for {at}: {error:?}");
        }
    }
    Ok(())
}

#[test]
fn services_of_ipvs_answer() -> Result<()> {
    let shape = Shape::usual("tsvci", Scenario::Overlay)?;
    let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
    let [node, other] = &guard.topology().nodes[..] else {
        panic!("two nodes")
    };
    let Some(to) = netns::inside(&node.namespace, ipvs)?? else {
        println!("skipped: this kernel has no IPVS");
        return Ok(());
    };
    let (client, near, far) = (
        &node.containers[0],
        &node.containers[1],
        &other.containers[0],
    );
    let name = &node.namespace;
    run::checked(words(format!("ip -n {name} link add {DEVICE} type dummy")))?;
    let set = [
        "ip",
        "netns",
        "exec",
        name,
        "sysctl",
        "net.ipv4.vs.conntrack=1",
    ];
    run::checked(set.map(str::to_owned))?;
    for family in [Family::V4, Family::V6] {
        for (number, backend) in [(REMOTE, far), (LOCAL, near)] {
            let at = service(number, family);
            netns::inside(name, || add(to, at, backend.at(family)))??;
            run::checked(words(format!("ip -n {name} addr add {at} dev {DEVICE}")))?;
        }
    }
    let agent = guard.agent(1);
    let mut outcomes = Vec::new();
    for on in [false, true] {
        agent.fastpath(on)?;
        for family in [Family::V4, Family::V6] {
            let what = || format!("{family:?}, fast path {on}");
            let at = (service(REMOTE, family), PORT);
            asks(&client.namespace, at, &far.namespace, far.at(family)).with_context(what)?;
            kube::is_plain(&guard, family, on).with_context(what)?;
            // Whether it works between neighbours is the kernel's concern, and the same with it alone.
            let at = (service(LOCAL, family), PORT);
            let here = arrives(&client.namespace, at, &near.namespace, near.at(family));
            outcomes.push((on, here.with_context(what)?));
        }
    }
    let of = |on: bool| outcomes.iter().filter(move |(then, _)| *then == on);
    let of = |on| of(on).map(|(_, arrived)| *arrived).collect::<Vec<_>>();
    assert_eq!(of(false), of(true), "{outcomes:?}");
    println!("between neighbours: {:?}", of(false));

    // What has begun while no program has seen it, and is spoken in by the server alone.
    agent.fastpath(false)?;
    let mut streams = Vec::new();
    for (family, gets) in [(Family::V4, true), (Family::V6, true), (Family::V4, false)] {
        let at = (service(REMOTE, family), PORT);
        streams.push(Stream::by(client, at, far, family, gets)?);
    }
    for _ in 0..TIMES {
        for on in [true, false] {
            agent.fastpath(on)?;
            all_go_on(&streams, &format!("fast path {on}"))?;
        }
    }
    for stream in streams {
        stream.end()?;
    }
    Ok(guard.down()?)
}
