//! Somebody whose traffic has nothing to do with what is broken.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use overlay_tests::check;

use crate::stand::Stand;

/// How long it takes until `ping` pings.
const STARTED: Duration = Duration::from_millis(100);

/// Pings as fast as it goes from the second container of the first node to that of the second.
pub(crate) struct Bystander(Option<Ping>);

struct Ping {
    child: Child,
    /// Reads along, for a pipe does not take all that is said.
    said: JoinHandle<io::Result<String>>,
}

impl Bystander {
    pub(crate) fn watch(stand: &Stand) -> Result<Self> {
        let (from, to) = (stand.container(1, 2), stand.container(2, 2));
        // They know each other: asking for a neighbour is not what is watched.
        check::ping(&from.namespace, to.address)?;
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", from.namespace))
            .args(["ping", "-n", "-i", "0.002", "-W", "2"])
            .arg(to.address.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = child.stdout.take().context("ping has no output")?;
        let said = thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).map(|_| text)
        });
        thread::sleep(STARTED);
        Ok(Self(Some(Ping { child, said })))
    }

    /// How many packets were lost, of how many. Those after the last one that came back may be on
    /// their way.
    pub(crate) fn lost(mut self) -> Result<(usize, usize)> {
        let Ping { mut child, said } = self.0.take().context("it has been asked before")?;
        end(&child)?;
        child.wait()?;
        let said = said.join().ok().context("the reader panicked")??;
        let answered: BTreeSet<usize> = said.lines().filter_map(answer).collect();
        let sent = answered.last().copied().unwrap_or_default();
        Ok((sent - answered.len(), sent))
    }
}

/// The number of a packet that was answered, of a line that `ping` prints.
fn answer(line: &str) -> Option<usize> {
    let (_, answer) = line.split_once(" icmp_seq=")?;
    let (number, _) = answer.split_once(" ttl=")?;
    number.parse().ok()
}

fn end(child: &Child) -> Result<()> {
    Ok(kill(
        Pid::from_raw(i32::try_from(child.id())?),
        Signal::SIGINT,
    )?)
}

impl Drop for Bystander {
    fn drop(&mut self) {
        if let Some(Ping { mut child, .. }) = self.0.take()
            && let Err(error) = child.kill().and_then(|()| child.wait())
        {
            eprintln!("ping was not ended: {error}");
        }
    }
}
