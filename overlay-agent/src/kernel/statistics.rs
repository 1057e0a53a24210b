//! What `/proc/net` tells of the calling thread's namespace.

use std::{collections::BTreeMap, fs, io};

use super::{KernelError, Result};
use crate::model::IfName;

/// Packets that each device has received.
pub fn received() -> Result<BTreeMap<IfName, u64>> {
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

/// `eth1: bytes packets …`
fn parse(line: &str) -> Option<(IfName, u64)> {
    let (name, numbers) = line.rsplit_once(": ").or_else(|| line.rsplit_once(':'))?;
    let packets = numbers.split_whitespace().nth(1)?;
    Some((name.trim().parse().ok()?, packets.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{parse, received};

    #[test]
    fn packets_are_the_second_number() {
        let lo = "    lo: 1294  16    0    0    0     0          0         0     1294      16";
        assert_eq!(parse(lo), Some(("lo".parse().unwrap(), 16)));
        assert_eq!(parse(" face |bytes    packets errs drop"), None);
        assert!(received().unwrap().contains_key(&"lo".parse().unwrap()));
        assert!(super::lines_of("no_such_list").unwrap().is_empty());
    }
}
