//! Where the ends run, so that the scheduler's choice is not what is measured.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use overlay_tests::cores;

/// The core of each end.
///
/// A veth hands a packet to its other side on the sender's core: that one carries nearly
/// the whole path, the receiver's core only what the receiving program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// Clients and senders.
    pub(crate) client: usize,
    /// Servers and receivers.
    pub(crate) server: usize,
}

impl Cores {
    /// The first core that this process may use, and the first that is not its sibling.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = cores::allowed().context("ask which cores are allowed")?;
        let mut cores = allowed.into_iter();
        let client = cores.next().context("no core is allowed")?;
        let siblings = siblings(client);
        let others: Vec<usize> = cores.collect();
        let server = others
            .iter()
            .find(|core| !siblings.contains(core))
            .or(others.first());
        ensure!(
            server.is_some(),
            "sender and receiver need a core each, and this process may use only core {client}"
        );
        Ok(Self {
            client,
            server: *server.unwrap_or(&client),
        })
    }
}

/// Cores that share their execution units with this one; nobody's, where the kernel does not say.
fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    fs::read_to_string(path).map_or_else(|_| Vec::new(), |list| cpu_list(&list))
}

/// The numbers of a list such as `0,4-6`.
fn cpu_list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::cpu_list;

    #[test]
    fn lists_of_cpus_have_ranges() {
        assert_eq!(cpu_list("0,4-6\n"), [0, 4, 5, 6]);
        assert_eq!(cpu_list("3\n"), [3]);
        assert!(cpu_list("").is_empty());
    }
}
