//! Rules that matter beside very many that change all the time, as kube-proxy's do.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use overlay_tests::{poll, run};

use super::Stand;

/// With two backends each: some eleven thousand rules.
const SERVICES: usize = 1250;
/// So many chains change at a time,
const AT_A_TIME: usize = 20;
/// and so long after the last ones.
const REST: Duration = Duration::from_millis(200);

/// A backend: whichever container of the two nodes.
fn backend(number: usize) -> String {
    format!("10.244.{}.{}", 1 + number % 2, 2 + number / 2 % 250)
}

fn of_backend(number: usize) -> String {
    let backend = backend(number);
    format!("ip saddr {backend} jump MARK-MASQ; meta l4proto tcp dnat to {backend}:80;")
}

/// Chains as kube-proxy has them in its mode iptables.
fn rules() -> Result<String> {
    let mut text =
        "table ip nat { chain MARK-MASQ { meta mark set meta mark or 0x4000; };\n".to_owned();
    let mut services = String::new();
    for number in 0..SERVICES {
        let at = format!("10.96.{}.{}", number / 250, number % 250);
        for end in 0..2 {
            let rules = of_backend(number + end);
            writeln!(text, "chain SEP-{number}-{end} {{ {rules} }};")?;
        }
        writeln!(
            text,
            "chain SVC-{number} {{ ip saddr != 10.244.0.0/16 ip daddr {at} tcp dport 80 jump MARK-MASQ; \
             numgen random mod 2 == 0 jump SEP-{number}-0; jump SEP-{number}-1; }};"
        )?;
        writeln!(services, "ip daddr {at} tcp dport 80 jump SVC-{number};")?;
    }
    writeln!(text, "chain SERVICES {{ {services} }};")?;
    for (chain, hook) in [("PREROUTING", "prerouting"), ("OUTPUT", "output")] {
        let base = format!("type nat hook {hook} priority -100");
        writeln!(text, "chain {chain} {{ {base}; jump SERVICES; }};")?;
    }
    text.push_str("};\n");
    Ok(text)
}

fn load(node: &str, file: &Path) -> Result<()> {
    let file = file.to_string_lossy();
    let argv = ["ip", "netns", "exec", node, "nft", "-f", &file];
    run::checked(argv.map(str::to_owned))?;
    Ok(())
}

/// Backends come and go, until they are told not to; how many chains have changed.
fn changing(node: &str, folder: &Path, stop: &Arc<AtomicBool>) -> JoinHandle<Result<usize>> {
    let (node, file) = (node.to_owned(), folder.join("change.nft"));
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut changed = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut text = String::new();
            for _ in 0..AT_A_TIME {
                let number = changed % SERVICES;
                let rules = of_backend(changed);
                writeln!(text, "flush chain ip nat SEP-{number}-0")?;
                writeln!(
                    text,
                    "table ip nat {{ chain SEP-{number}-0 {{ {rules} }}; }}"
                )?;
                changed += 1;
            }
            fs::write(&file, text)?;
            load(&node, &file)?;
            thread::sleep(REST);
        }
        Ok(changed)
    })
}

impl Stand {
    /// How long pings go on until none arrives, and then none arrives again.
    fn until_stopped(&self, what: &str) -> Result<Duration> {
        let began = Instant::now();
        poll::until_well(|| match self.ping_arrives() {
            Ok(false) => None,
            other => Some(format!("{what}: {other:?}")),
        })
        .map_err(anyhow::Error::msg)?;
        let took = began.elapsed();
        for _ in 0..super::SEVERAL {
            ensure!(!self.ping_arrives()?, "{what} is passed by");
        }
        Ok(took)
    }
}

#[test]
fn what_matters_is_heeded_beside_many_rules_that_change_all_the_time() -> Result<()> {
    let stand = Stand::up("thooksm", false)?;
    let node = stand.node(1).to_owned();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.nft");
    fs::write(&file, rules()?)?;
    load(&node, &file)?;
    stand.becomes_fast([true; 2], "the rules");
    let stop = Arc::new(AtomicBool::new(false));
    let changer = changing(&node, folder.path(), &stop);
    let other = stand.guard.topology().nodes[1].containers[0].address;
    let drops = "type filter hook forward priority 0";
    let outcome = [
        // In a table of its own, and in the one that changes.
        (
            format!(
                "nft 'table ip strangers {{ chain c {{ {drops}; ip daddr {other} drop; }}; }}'"
            ),
            "nft delete table ip strangers",
        ),
        (
            format!("nft 'table ip nat {{ chain c {{ {drops}; ip daddr {other} drop; }}; }}'"),
            "nft 'delete chain ip nat c'",
        ),
        // In a chain that packets are led to.
        (
            format!(
                "nft 'table ip nat {{ chain d {{ ip daddr {other} drop; }}; \
                 chain c {{ {drops}; jump d; }}; }}'"
            ),
            "nft 'delete chain ip nat c; delete chain ip nat d'",
        ),
    ]
    .into_iter()
    .try_for_each(|(put, take)| -> Result<()> {
        super::shell(&node, &put)?;
        let took = stand.until_stopped(&put)?;
        println!("{} ms: {put}", took.as_millis());
        super::shell(&node, take)?;
        stand.becomes_fast([true; 2], take);
        Ok(())
    });
    stop.store(true, Ordering::Relaxed);
    let count = changer.join().ok().context("the changes panicked")??;
    println!("{count} chains have changed");
    outcome?;
    // What was late is known in the end.
    stand.becomes_fast([true; 2], "the last change");
    Ok(stand.guard.down()?)
}
