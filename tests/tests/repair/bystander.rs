//! Somebody whose traffic has nothing to do with what is broken.

use std::{
    process::{Child, Command, Stdio},
    thread,
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
pub(crate) struct Bystander(Option<Child>);

impl Bystander {
    pub(crate) fn watch(stand: &Stand) -> Result<Self> {
        let (from, to) = (stand.container(1, 2), stand.container(2, 2));
        // They know each other: asking for a neighbour is not what is watched.
        check::ping(&from.namespace, to.address)?;
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", from.namespace))
            .args(["ping", "-n", "-q", "-i", "0.002", "-W", "2"])
            .arg(to.address.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        thread::sleep(STARTED);
        Ok(Self(Some(child)))
    }

    /// How many packets were lost, of how many.
    pub(crate) fn lost(mut self) -> Result<(u64, u64)> {
        let child = self.0.take().context("it has been asked before")?;
        end(&child)?;
        let out = child.wait_with_output()?;
        let text = String::from_utf8(out.stdout)?;
        let number = |what: &str| {
            let before = text.split(what).next()?;
            before
                .split([' ', '\n'])
                .rfind(|word| !word.is_empty())?
                .parse::<u64>()
                .ok()
        };
        let (sent, received) = number("packets transmitted")
            .zip(number("received"))
            .with_context(|| format!("not what ping prints: {text}"))?;
        // The last one may be on its way.
        Ok(((sent - received).saturating_sub(1), sent))
    }
}

fn end(child: &Child) -> Result<()> {
    Ok(kill(
        Pid::from_raw(i32::try_from(child.id())?),
        Signal::SIGINT,
    )?)
}

impl Drop for Bystander {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take()
            && let Err(error) = child.kill().and_then(|()| child.wait())
        {
            eprintln!("ping was not ended: {error}");
        }
    }
}
