//! The kernel's own load balancer, which translates without rules, and without connection tracking.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, ErrorKind, Lines},
    net::{IpAddr, Ipv4Addr},
};

use nix::libc::{IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP};

use crate::{KernelError, Result, conntrack::Tuple};

const SERVICES: &str = "/proc/thread-self/net/ip_vs";
const CONNECTIONS: &str = "/proc/thread-self/net/ip_vs_conn";
/// The lines before the first service.
const HEAD: usize = 3;

/// Whether it has services in the calling thread's namespace. It may have some where its list cannot be read.
pub fn has_services() -> bool {
    lines(SERVICES).map_or(true, |services| {
        services.is_some_and(|mut lines| lines.nth(HEAD).is_some())
    })
}

/// Tells how packets of each of its connections leave the kernel, in both directions.
///
/// Its own list has them all. Connection tracking knows of them only where rules have turned it on and
/// `net.ipv4.vs.conntrack` is 1, and does not mark them as translated even then
/// (`ip_vs_update_conntrack()` of `net/netfilter/ipvs/ip_vs_nfct.c`).
pub(crate) fn connections(mut tell: impl FnMut(Tuple)) -> Result<()> {
    let mut read = || -> io::Result<()> {
        for line in lines(CONNECTIONS)?.into_iter().flatten() {
            for tuple in parse(&line?).into_iter().flatten() {
                tell(tuple);
            }
        }
        Ok(())
    };
    read().map_err(|error| KernelError::io(format!("read {CONNECTIONS}"), &error))
}

/// Most kernels have no such list, or load what has it when it is needed.
fn lines(list: &str) -> io::Result<Option<Lines<BufReader<File>>>> {
    match File::open(list) {
        Ok(file) => Ok(Some(BufReader::new(file).lines())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A client, whom it asks, and who is asked in the end (`ip_vs_conn_seq_show()`).
fn parse(line: &str) -> Option<[Tuple; 2]> {
    let mut words = line.split_whitespace();
    let protocol = match words.next()? {
        "TCP" => IPPROTO_TCP,
        "UDP" => IPPROTO_UDP,
        "SCTP" => IPPROTO_SCTP,
        _ => return None,
    };
    let protocol = u8::try_from(protocol).ok()?;
    let mut end = || Some((address(words.next()?)?, port(words.next()?)?));
    let (client, asked, server) = (end()?, end()?, end()?);
    let leaves = |from: (IpAddr, [u8; 2]), to: (IpAddr, [u8; 2])| Tuple {
        source: from.0,
        destination: to.0,
        ports_be: [from.1, to.1],
        protocol,
    };
    Some([leaves(client, server), leaves(asked, client)])
}

/// IPv4 as a number of eight digits, IPv6 as usual.
fn address(word: &str) -> Option<IpAddr> {
    if word.contains(':') {
        return word.parse().ok();
    }
    let number = u32::from_str_radix(word, 16).ok()?;
    Some(Ipv4Addr::from(number).into())
}

fn port(word: &str) -> Option<[u8; 2]> {
    let number = u16::from_str_radix(word, 16).ok()?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::parse;

    /// As Linux 6.12 writes them.
    #[test]
    fn a_connection_leaves_for_the_server_and_back_from_whom_was_asked() {
        for (line, expected) in [
            (
                "TCP 0AF40102 9C40 0A600001 1F90 0AF40202 1F91 ESTABLISHED     899",
                [
                    "10.244.1.2 40000 10.244.2.2 8081 6",
                    "10.96.0.1 8080 10.244.1.2 40000 6",
                ],
            ),
            (
                "UDP fd00:0244:0000:0001:0000:0000:0000:0002 9C40 \
                 fd96:0000:0000:0000:0000:0000:0000:0001 1F90 \
                 fd00:0244:0000:0002:0000:0000:0000:0002 1F90 UDP             299",
                [
                    "fd00:244:0:1::2 40000 fd00:244:0:2::2 8080 17",
                    "fd96::1 8080 fd00:244:0:1::2 40000 17",
                ],
            ),
        ] {
            let told = parse(line).unwrap().map(|tuple| {
                let [from, to] = tuple.ports_be.map(u16::from_be_bytes);
                let (source, destination) = (tuple.source, tuple.destination);
                format!("{source} {from} {destination} {to} {}", tuple.protocol)
            });
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_heading_is_no_connection() {
        let heading =
            "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData";
        assert_eq!(parse(heading), None);
        assert_eq!(parse("TCP 0AF40102 9C40"), None);
    }
}
