//! Counters of `/proc/net` in the calling thread's namespace.

use std::{collections::BTreeMap, fs, io};

use overlay_core::model::IfName;

use super::{KernelError, Result};

/// Packets that each device has received.
pub fn received() -> Result<BTreeMap<IfName, u64>> {
    let devices = traffic()?.into_iter();
    Ok(devices
        .map(|(name, traffic)| (name, traffic.rx.0))
        .collect())
}

/// Traffic of a device, in packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceTraffic {
    /// Packets and bytes sent.
    pub tx: (u64, u64),
    /// Packets and bytes received.
    pub rx: (u64, u64),
}

/// Traffic of each device.
pub fn traffic() -> Result<BTreeMap<IfName, DeviceTraffic>> {
    let lines = lines_of("dev")?;
    Ok(lines.iter().filter_map(|line| parse(line)).collect())
}

/// The lines of a list; none where the kernel does not have it.
pub fn lines_of(list: &str) -> Result<Vec<String>> {
    let path = format!("/proc/thread-self/net/{list}");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(KernelError::io(format!("read {path}"), &error)),
    }
}

/// Packets of UDP and TCP that have arrived with a wrong checksum.
pub fn wrong_checksums() -> Result<u64> {
    let both = lines_of("snmp")?;
    let udp6 = lines_of("snmp6")?;
    Ok(wrong_of(&both, "Udp:") + wrong_of(&both, "Tcp:") + wrong_of_ipv6(&udp6))
}

/// One line has a protocol's names, the next one its numbers in the same order.
fn wrong_of(lines: &[String], protocol: &str) -> u64 {
    let mut found = lines
        .iter()
        .filter_map(|line| line.strip_prefix(protocol))
        .map(str::split_whitespace);
    let (Some(mut names), Some(mut numbers)) = (found.next(), found.next()) else {
        return 0;
    };
    let place = names.position(|name| name == "InCsumErrors");
    let number = place.and_then(|place| numbers.nth(place));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// One line a number; TCP is counted for both families together.
fn wrong_of_ipv6(lines: &[String]) -> u64 {
    let number = lines
        .iter()
        .find_map(|line| line.strip_prefix("Udp6InCsumErrors"));
    number
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// `eth1: bytes packets …`: eight numbers of what was received, then eight of what was sent.
fn parse(line: &str) -> Option<(IfName, DeviceTraffic)> {
    let (name, numbers) = line.rsplit_once(": ").or_else(|| line.rsplit_once(':'))?;
    let numbers: Vec<u64> = numbers
        .split_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let pair = |at: usize| Some((*numbers.get(at + 1)?, *numbers.get(at)?));
    let traffic = DeviceTraffic {
        rx: pair(0)?,
        tx: pair(8)?,
    };
    Some((name.trim().parse().ok()?, traffic))
}

#[cfg(test)]
mod tests {
    use super::{DeviceTraffic, parse, received, wrong_checksums, wrong_of, wrong_of_ipv6};

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn wrong_checksums_are_found_by_their_name() {
        let text = "Tcp: InSegs InCsumErrors OutRsts\nTcp: 7 2 1\nUdp: InDatagrams InCsumErrors\n\
                    Udp: 9 4\nUdpLite: InDatagrams InCsumErrors\nUdpLite: 1 1\n";
        let text = lines(text);
        assert_eq!((wrong_of(&text, "Udp:"), wrong_of(&text, "Tcp:")), (4, 2));
        assert_eq!(wrong_of(&text, "Icmp:"), 0);
        assert_eq!(
            wrong_of_ipv6(&lines("Udp6InErrors 3\nUdp6InCsumErrors    \t5\n")),
            5
        );
        wrong_checksums().unwrap();
    }

    #[test]
    fn packets_are_the_second_number() {
        let ovl1 = "  ovl1: 840 10 0 0 0 0 0 0 336 4 0 0 0 0 0 0";
        let traffic = DeviceTraffic {
            tx: (4, 336),
            rx: (10, 840),
        };
        assert_eq!(parse(ovl1), Some(("ovl1".parse().unwrap(), traffic)));
        assert_eq!(parse(" face |bytes    packets errs drop"), None);
        assert!(received().unwrap().contains_key(&"lo".parse().unwrap()));
        assert!(super::lines_of("no_such_list").unwrap().is_empty());
    }
}
