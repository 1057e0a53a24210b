//! An agent that is killed at any step: of its start, of a change, and of its removal. Half of a node is no
//! hole, and neither is what is left of one.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_tests::{netns::Temporary, poll};
use serde_json::Value;

use crate::{End, PACE, Stand, Trickle};

/// Ends the agent after so many steps.
const ABORT: &str = "OVERLAY_ABORT_AFTER_STEP";
/// More than a start has.
const MOST_STEPS: u32 = 300;

impl Stand {
    pub(crate) fn while_killed(&self, ends: &AtomicBool) -> Result<()> {
        let agent = self.agent();
        agent.kill()?;
        agent.tell(&["down"])?;
        // The agent's own went with it; this one is somebody's, and stays.
        let _container = Temporary::make(self.container())?;
        let sent = AtomicU64::new(0);
        let trickle = Trickle::from(self.container(), &self.targets()?, ends, &sent)?;
        thread::scope(|scope| {
            let _end = End(ends);
            scope.spawn(|| trickle.flow());
            self.starting().context("a start")?;
            self.changing().context("a change")?;
            self.removing().context("the removal")
        })?;
        let sent = sent.load(Ordering::Relaxed);
        ensure!(sent > 100, "only {sent} packets were sent by half a node");
        Ok(())
    }

    /// Every third step, as the whole would take minutes.
    fn starting(&self) -> Result<()> {
        let agent = self.agent();
        for step in (1..MOST_STEPS).step_by(3) {
            let is_up = agent.with(ABORT, step).try_start()?;
            thread::sleep(PACE * 50);
            let whole = is_up && agent.process()?.is_some();
            agent.kill()?;
            agent.tell(&["down"])?;
            if whole {
                return Ok(());
            }
        }
        bail!("it does not come up in {MOST_STEPS} steps")
    }

    /// The only peer goes while packets are sent to it, and comes back: every fourth step, likewise.
    fn changing(&self) -> Result<()> {
        let agent = self.agent();
        agent.start()?;
        for step in (1..MOST_STEPS).step_by(4) {
            agent.kill()?;
            let dying = agent.with(ABORT, step);
            let is_up = dying.try_start()?;
            self.write(&self.alone())?;
            if is_up {
                self.has_changed_or_ended()?;
            }
            thread::sleep(PACE * 50);
            let whole = is_up && agent.process()?.is_some();
            // One that lives on would end at a later step.
            agent.kill()?;
            agent.start()?;
            self.has_changed_or_ended()?;
            self.write(&self.config)?;
            self.is_whole("a change that was made twice")?;
            if whole {
                return Ok(());
            }
        }
        bail!("a change is not made in {MOST_STEPS} steps")
    }

    fn has_changed_or_ended(&self) -> Result<()> {
        let agent = self.agent();
        let done = poll::until_well(|| match agent.json(&["status"]) {
            Ok(status) if status["networks"][0]["peers"] != Value::Array(Vec::new()) => {
                Some(status.to_string())
            }
            Ok(_) => match agent.plan() {
                Ok(plan) if !plan.is_empty() => Some(format!("{plan:?}")),
                _ => None,
            },
            // Nobody answers any more.
            Err(error) => match agent.process() {
                Ok(None) => None,
                _ => Some(error.to_string()),
            },
        });
        done.map_err(anyhow::Error::msg)
    }

    /// By a process of its own, which is killed, too; and begun again where the one before has ended.
    fn removing(&self) -> Result<()> {
        let agent = self.agent();
        for step in 1..MOST_STEPS {
            agent.kill()?;
            let removed = agent.with(ABORT, step).ask(&["down"])?.success;
            thread::sleep(PACE * 50);
            agent.tell(&["down"])?;
            if removed {
                return Ok(());
            }
            agent.start()?;
        }
        bail!("it is not removed in {MOST_STEPS} steps")
    }
}
