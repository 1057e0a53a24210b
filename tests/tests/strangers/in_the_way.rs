//! An object of somebody else that has the name and the kind of one of ours: put in the way
//! before there is an agent, in the place of ours while one runs and while one is dead, and there
//! still when the instance goes.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use overlay_core::desired::last_resort_metric;
use overlay_tests::{
    agent::Agent,
    config::Config,
    guard::Guard,
    run, scenario,
    shape::{Scenario, Shape},
    state,
};

/// A stranger's object. In all commands `{i}` stands for the instance, and `$METRIC` for the metric
/// of its routes of last resort.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    /// What makes the node need an object of this name.
    pub(crate) needs: fn(&mut Config),
    /// Takes away what is there of ours or of a stranger; may fail.
    pub(crate) clear: &'static str,
    /// Makes the stranger's.
    pub(crate) make: &'static str,
    /// Shows it to the last byte.
    pub(crate) look: &'static str,
    /// What `plan` and `status` say of it.
    pub(crate) said: &'static str,
    /// What nobody is told to do.
    pub(crate) never_said: &'static str,
    /// Whether the agent does not start at all while it is there.
    pub(crate) stops: bool,
}

/// A lab with the case's configuration, and no agent yet.
struct Stand<'a> {
    case: &'a Case,
    guard: Guard,
    agent: Agent,
}

impl Stand<'_> {
    fn command(&self, command: &str) -> Vec<String> {
        let metric = self
            .agent
            .instance
            .parse()
            .map(|name| last_resort_metric(&name));
        let metric = metric.map_or_else(|_| String::new(), |metric| metric.to_string());
        let command = command.replace("{i}", &self.agent.instance);
        let command = command.replace("$METRIC", &metric);
        let namespace = format!("--net=/run/netns/{}", self.agent.instance);
        let words = ["nsenter", &namespace, "sh", "-ec", &command];
        words.map(str::to_owned).to_vec()
    }

    /// Puts the stranger's object in the place of whatever is there, unseen by the agent.
    fn put(&self) -> Result<String> {
        let process = self.agent.process()?;
        let tell = |signal| {
            process
                .as_ref()
                .map_or(Ok(()), |agent| agent.signal(signal))
        };
        tell(Signal::SIGSTOP)?;
        let made = run::output(self.command(self.case.clear))
            .and_then(|_| run::checked(self.command(self.case.make)));
        let seen = made.and_then(|_| run::checked(self.command(self.case.look)));
        tell(Signal::SIGCONT)?;
        Ok(seen?)
    }

    fn is_as(&self, before: &str, when: &str) -> Result<()> {
        let now = run::checked(self.command(self.case.look))?;
        assert_eq!(now, before, "{}: {when}\n{}", self.case.what, self.log());
        Ok(())
    }

    fn log(&self) -> String {
        self.agent.log().unwrap_or_default()
    }

    fn take_away(&self) -> Result<()> {
        run::checked(self.command(self.case.clear))?;
        Ok(())
    }

    /// Waits until `status` says what is in the way.
    fn says_so(&self, when: &str) -> Result<()> {
        let what = self.case.what;
        let told = self.agent.tells(self.case.said);
        told.with_context(|| format!("{what}: {when}"))?;
        let status = self.agent.ask(&["status"])?.stdout;
        assert!(!status.contains(self.case.never_said), "{what}: {status}");
        Ok(())
    }

    /// Waits until it is well again.
    fn recovers(&self, when: &str) -> Result<()> {
        let well = self.agent.is_well();
        well.with_context(|| format!("{}: {when}", self.case.what))
    }

    fn plan_says_so(&self) -> Result<()> {
        let config = self.agent.config_file().to_string_lossy().into_owned();
        let plan = ["plan", "--config", &config, "--netns", &self.agent.instance];
        let out = self.agent.call(&plan)?;
        let said = out.stdout + &out.stderr;
        let what = self.case.what;
        assert_eq!(out.success, !self.case.stops, "{what}: {said}");
        assert!(said.contains(self.case.said), "{what}: {said}");
        assert!(!said.contains(self.case.never_said), "{what}: {said}");
        Ok(())
    }

    /// Starts the agent, which cannot be well.
    fn start(&self) -> Result<()> {
        if self.case.stops {
            assert!(!self.agent.try_start()?, "{} is in the way", self.case.what);
            assert!(self.log().contains(self.case.said), "{}", self.log());
            return Ok(());
        }
        assert!(!self.agent.start_anyhow()?, "{}", self.case.what);
        self.says_so("at the start")
    }
}

/// One case from before the first agent to after `down`.
pub(crate) fn survives(lab: &str, case: &Case) -> Result<()> {
    let guard = Guard::underlay(Shape::usual(lab, Scenario::Overlay)?)?;
    let node = &guard.topology().nodes[0];
    let mut config = scenario::agents::config(guard.topology(), node);
    config.endpoints.clear();
    (case.needs)(&mut config);
    let file = state::config_file(&guard.topology().shape.name, &node.namespace);
    fs::write(file, config.to_toml())?;
    let agent = guard.agent(1);
    let stand = Stand { case, guard, agent };

    // Before.
    let before = stand.put()?;
    stand.plan_says_so()?;
    stand.is_as(&before, "after plan")?;
    stand.start()?;
    stand.is_as(&before, "when the agent was there first in its life")?;
    stand.agent.stop()?;
    stand.agent.ask(&["down"])?;
    stand.is_as(&before, "after a down of nothing")?;
    stand.take_away()?;

    // During: ours is gone, and the stranger's there.
    stand.agent.start()?;
    let during = stand.put()?;
    stand.says_so("while the agent runs")?;
    stand.is_as(&during, "while the agent runs")?;
    stand.take_away()?;
    stand.recovers("when the stranger's has gone")?;

    // While the agent is dead, with all that it remembers.
    stand.agent.kill()?;
    let after = stand.put()?;
    stand.start()?;
    stand.is_as(&after, "after another start")?;
    stand.agent.kill()?;
    stand.agent.tell(&["down"])?;
    stand.is_as(&after, "after down")?;
    Ok(stand.guard.down()?)
}
