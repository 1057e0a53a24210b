//! A steady trickle between two nodes, while all about it changes at once and the agent is killed
//! again and again: `cargo xtask soak`.

use std::{
    fmt, fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use overlay_tests::{
    agent::Agent,
    config::{Config, Peer},
    guard::Guard,
    load::{Load, Rates, drops::Drops},
    poll,
};
use serde_json::json;

use crate::{
    accounted_for,
    belongings::{Belongings, memory},
    grown, minutes, pair, same_as_before,
};

/// Minutes, when nobody says how many.
const USUAL: u64 = 3;
/// More than five hundred a second, in each direction.
const RATES: Rates = Rates {
    pings: 500,
    datagrams: 1000,
    bytes: 0,
};
/// That are others each second.
const PEERS: u8 = 120;
const RELOADS: Duration = Duration::from_secs(1);
const SWITCHES: Duration = Duration::from_secs(4);
const KILLS: Duration = Duration::from_secs(25);
const CONTAINERS: Duration = Duration::from_millis(75);

/// What was done meanwhile.
#[derive(Debug, Default)]
struct Done {
    reloads: AtomicU32,
    switches: AtomicU32,
    kills: AtomicU32,
    came: AtomicU32,
    went: AtomicU32,
    /// Calls that a killed agent left without an answer.
    unanswered: AtomicU32,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [reloads, switches, kills, came, went, unanswered] = [
            &self.reloads,
            &self.switches,
            &self.kills,
            &self.came,
            &self.went,
            &self.unanswered,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        write!(
            f,
            "{reloads} reloads of {PEERS} other peers each, {switches} switches of the fast path, \
             {kills} kills, {came} containers came and {went} went, \
             {unanswered} calls without an answer"
        )
    }
}

fn count(counter: &AtomicU32) -> u32 {
    counter.fetch_add(1, Ordering::Relaxed)
}

struct Steady<'a> {
    guard: &'a Guard,
    agent: &'a Agent,
    config: Config,
    done: &'a Done,
    end: &'a AtomicBool,
}

impl Steady<'_> {
    /// Does something at a pace until the end, and once at least.
    fn paced(&self, pace: Duration, mut work: impl FnMut() -> Result<()>) -> Result<()> {
        loop {
            let began = Instant::now();
            if let Err(error) = work() {
                self.end.store(true, Ordering::Relaxed);
                return Err(error);
            }
            while began.elapsed() < pace {
                if self.end.load(Ordering::Relaxed) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(25).min(pace));
            }
            if self.end.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// Peers that are nowhere, all of them others than those of the generation before.
    fn reload(&self, generation: u32) -> Result<()> {
        let mut config = self.config.clone();
        let [.., high, low] = generation.to_be_bytes();
        config.networks[0]
            .peers
            .extend((0..PEERS).map(|number| Peer {
                name: format!("peer{number}"),
                vtep: format!("10.{}.{low}.{number}", high % 16 + 100),
                subnet: vec![format!("10.244.{}.0/24", 100 + number)],
                ..Peer::default()
            }));
        self.write(&config)?;
        count(&self.done.reloads);
        Ok(())
    }

    /// In one step: half a file is refused.
    fn write(&self, config: &Config) -> Result<()> {
        let file = self.agent.config_file();
        let new = file.with_extension("new");
        fs::write(&new, config.to_toml())?;
        Ok(fs::rename(new, file)?)
    }

    fn switch(&self, on: bool) {
        for agent in self.guard.agents() {
            // One that is dead cannot be told.
            if agent.fastpath(on).is_ok() {
                count(&self.done.switches);
            }
        }
    }

    fn kill(&self) -> Result<()> {
        self.agent.kill()?;
        self.agent.start_anyhow()?;
        count(&self.done.kills);
        Ok(())
    }

    fn is_there(name: &str) -> bool {
        Path::new("/run/netns").join(name).exists()
    }

    /// A container comes and goes. What a killed agent did not answer is asked again: it was not
    /// promised, and must not be in the way.
    fn container(&self) -> Result<()> {
        let number = self.done.came.load(Ordering::Relaxed);
        let name = format!("{}-s{number}", self.guard.topology().shape.name);
        let add = json!({ "op": "endpoint_add", "name": name, "network": "lab", "netns": name });
        let answer = self.insist(&add, |answer| answer["endpoint"]["device"].is_string())?;
        ensure!(
            Self::is_there(&name),
            "{name} was made of nothing: {answer}"
        );
        count(&self.done.came);
        let delete = json!({ "op": "endpoint_del", "name": name });
        self.insist(&delete, |answer| *answer == json!("done"))?;
        let gone = poll::until_well(|| Self::is_there(&name).then_some("it is still there"));
        ensure!(gone == Ok(()), "{name}: {gone:?}");
        count(&self.done.went);
        Ok(())
    }

    fn insist(
        &self,
        request: &serde_json::Value,
        is_well: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<serde_json::Value> {
        let mut answered = Err("nobody was asked".to_owned());
        let mut repeated = false;
        let reached = poll::until_well(|| match self.agent.request(request) {
            Ok(answer) if is_well(&answer) => {
                answered = Ok(answer);
                None
            }
            // It was done, and nobody lived to say so.
            Ok(answer) if repeated && request["op"] == "endpoint_del" => {
                answered = Ok(answer);
                None
            }
            Ok(answer) => Some(answer.to_string()),
            Err(error) => {
                if !repeated {
                    count(&self.done.unanswered);
                }
                repeated = true;
                Some(error.to_string())
            }
        });
        ensure!(reached == Ok(()), "{request}: {reached:?}");
        answered.map_err(anyhow::Error::msg)
    }

    /// All of it at once, for so long.
    fn all(&self, time: Duration) -> Result<()> {
        let began = Instant::now();
        let (mut generation, mut on) = (0, true);
        thread::scope(|scope| {
            let work = [
                scope.spawn(|| {
                    self.paced(RELOADS, || {
                        generation += 1;
                        self.reload(generation)
                    })
                }),
                scope.spawn(|| {
                    self.paced(SWITCHES, || {
                        on = !on;
                        self.switch(on);
                        Ok(())
                    })
                }),
                scope.spawn(|| self.paced(KILLS, || self.kill())),
                scope.spawn(|| self.paced(CONTAINERS, || self.container())),
            ];
            while began.elapsed() < time && !self.end.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
            }
            self.end.store(true, Ordering::Relaxed);
            work.into_iter().try_for_each(|work| {
                work.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })?;
        self.rest()
    }

    /// As it was before.
    fn rest(&self) -> Result<()> {
        self.write(&self.config)?;
        for agent in self.guard.agents() {
            agent.fastpath(true)?;
            agent.is_well()?;
        }
        Ok(())
    }
}

#[test]
fn a_trickle_loses_nothing_while_all_changes() -> Result<()> {
    let time = Duration::from_mins(minutes(USUAL)?);
    let guard = Guard::overlay("tsoaks")?;
    let agents = guard.agents();
    let all = |done: &Done, time| {
        let steady = Steady {
            guard: &guard,
            agent: &agents[0],
            config: guard.first_config(),
            done,
            end: &AtomicBool::new(false),
        };
        steady.all(time)
    };
    // What is made once is there afterwards.
    all(&Done::default(), Duration::from_secs(1))?;
    let before = agents
        .iter()
        .map(|agent| Ok(Belongings::of(agent)?.counted()))
        .collect::<Result<Vec<_>>>()?;
    let memory_before = agents.iter().map(memory).collect::<Result<Vec<_>>>()?;
    let namespaces = guard.topology().namespaces();
    let drops = Drops::of(&namespaces)?;
    let loads = [
        Load::start(&pair(&guard, (0, 1), 0), RATES)?,
        Load::start(&pair(&guard, (1, 0), 1), RATES)?,
    ];
    let began = Instant::now();
    let done = Done::default();
    let ended = all(&done, time);
    let outcomes = loads.map(Load::finish);
    println!("{done} in {} s", began.elapsed().as_secs());
    ended?;
    let full = Drops::of(&namespaces)?.since(&drops);
    for outcome in outcomes {
        accounted_for(&outcome?, &full)?;
    }
    same_as_before(&agents, &before, Belongings::counted)?;
    grown(&agents, &memory_before)?;
    Ok(guard.down()?)
}
