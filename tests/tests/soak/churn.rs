//! Containers that come and go at a pace.

use std::{
    fmt,
    net::IpAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
};
use serde_json::json;

/// Those that come in a second; as many go.
pub(crate) const A_SECOND: u32 = 10;
/// Containers that are there at a time.
const AT_A_TIME: u32 = 4;
/// Every how many-th says something.
const TALKS: u32 = 10;

/// What came and went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Churned {
    pub(crate) came: u32,
    pub(crate) went: u32,
    talked: u32,
    took: Duration,
}

impl fmt::Display for Churned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            came,
            went,
            talked,
            took,
        } = self;
        let rate = |number: &u32| f64::from(*number) / took.as_secs_f64();
        write!(
            f,
            "{came} containers came ({:.1} a second) and {went} went ({:.1} a second), {talked} were pinged",
            rate(came),
            rate(went)
        )
    }
}

struct Churn<'a> {
    agent: &'a Agent,
    lab: &'a str,
    gateway: IpAddr,
    churned: Churned,
}

impl Churn<'_> {
    fn name(&self, number: u32) -> String {
        format!("{}-x{number}", self.lab)
    }

    /// Whether the namespace is there that the agent makes for a container.
    fn is_there(name: &str) -> bool {
        Path::new("/run/netns").join(name).exists()
    }

    fn come(&mut self) -> Result<()> {
        let name = self.name(self.churned.came);
        let request =
            json!({ "op": "endpoint_add", "name": name, "network": "lab", "netns": name });
        let answer = self.agent.request(&request)?;
        ensure!(answer["endpoint"]["device"].is_string(), "{name}: {answer}");
        ensure!(Self::is_there(&name), "{name} was made of nothing");
        if self.churned.came.is_multiple_of(TALKS) {
            let answer = check::ping(&name, self.gateway)?;
            ensure!(
                answer == Answer::Ttl(64),
                "{name} → {}: {answer:?}",
                self.gateway
            );
            self.churned.talked += 1;
        }
        self.churned.came += 1;
        Ok(())
    }

    fn go(&mut self) -> Result<()> {
        let name = self.name(self.churned.went);
        let answer = self
            .agent
            .request(&json!({ "op": "endpoint_del", "name": name }))?;
        ensure!(answer == json!("done"), "{name}: {answer}");
        ensure!(!Self::is_there(&name), "{name} is still there");
        self.churned.went += 1;
        Ok(())
    }
}

/// Lets containers come and go until it has an end, and at least so many. Those that are late
/// because something else took the agent's time come without a pause.
fn churn(guard: &Guard, at_least: u32, end: &AtomicBool) -> Result<Churned> {
    let topology = guard.topology();
    let gateway = topology.nodes[0].gateway.context("no gateway")?;
    let mut churn = Churn {
        agent: &guard.agent(1),
        lab: &topology.shape.name.to_string(),
        gateway: gateway.into(),
        churned: Churned::default(),
    };
    let began = Instant::now();
    while churn.churned.came < at_least || !end.load(Ordering::Relaxed) {
        let due = began + Duration::from_secs(1) * churn.churned.came / A_SECOND;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        churn.come()?;
        if churn.churned.came - churn.churned.went > AT_A_TIME {
            churn.go()?;
        }
    }
    while churn.churned.went < churn.churned.came {
        churn.go()?;
    }
    churn.churned.took = began.elapsed();
    Ok(churn.churned)
}

/// Lets at least so many containers come and go while something is done.
pub(crate) fn while_doing(
    guard: &Guard,
    at_least: u32,
    work: impl FnOnce() -> Result<()>,
) -> Result<Churned> {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let churning = scope.spawn(|| churn(guard, at_least, &end));
        let done = work();
        end.store(true, Ordering::Relaxed);
        let churned = churning
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.and(churned)
    })
}
