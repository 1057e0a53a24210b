//! What nobody of a network has is sent to nobody: never in the clear, by the node's other routes.

mod killed;
mod leaving;

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_tests::{
    agent::Agent,
    config::Config,
    families::{Families, Family},
    guard::Guard,
    netns::{self, Temporary},
    run,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
};
use serde_json::Value;

/// A steady trickle in which no gap of a repair can hide.
const PACE: Duration = Duration::from_millis(2);
/// Of the network, and of no peer.
const NOBODY: [&str; 2] = ["10.244.77.7", "fd00:244:0:77::7"];
/// Of the world, behind the router: by the default route,
const FAR: [&str; 2] = ["198.51.100.9", "2001:db8:51::9"];
/// and by others, where there are some.
const ROUTED: [&str; 2] = ["198.18.0.9", "2001:db8:18::9"];

/// The router that the node's default routes lead to, and what it gets.
struct Router {
    name: String,
    _namespace: Temporary,
}

impl Router {
    const ADDRESSES: [&str; 2] = ["203.0.113.2", "2001:db8:113::2"];

    fn beside(name: String, node: &str, neighbour: &str) -> Result<Self> {
        let namespace = Temporary::make(&name)?;
        for line in [
            format!("ip link add ext0 netns {node} type veth peer name eth0 netns {name}"),
            format!("ip -n {node} addr add 203.0.113.1/24 dev ext0"),
            format!("ip -n {node} addr add 2001:db8:113::1/64 dev ext0 nodad"),
            format!("ip -n {name} addr add 203.0.113.2/24 dev eth0"),
            format!("ip -n {name} addr add 2001:db8:113::2/64 dev eth0 nodad"),
            format!("ip -n {node} link set ext0 up"),
            format!("ip -n {name} link set eth0 up"),
            format!("ip -n {node} route add default via 203.0.113.2"),
            format!("ip -n {node} route add default via 2001:db8:113::2"),
        ] {
            run::checked(line)?;
        }
        run::checked(format!("ip -n {name} link set lo up"))?;
        for address in FAR.iter().chain(&ROUTED) {
            run::checked(format!("ip -n {name} addr add {address} dev lo"))?;
        }
        // Both places where something would arrive that has left the node in the clear.
        for (namespace, device) in [(name.as_str(), "eth0"), (neighbour, "eth1")] {
            let rules = format!(
                "table netdev clear {{ chain seen {{
                   type filter hook ingress device {device} priority 0;
                   ip daddr 10.244.0.0/16 counter
                   ip saddr 10.244.0.0/16 counter
                   ip6 daddr fd00:244::/48 counter
                   ip6 saddr fd00:244::/48 counter
                   ip daddr 203.0.113.2 counter
                 }}
                 }}"
            );
            let nft = [
                "nsenter",
                &format!("--net=/run/netns/{namespace}"),
                "nft",
                &rules,
            ];
            run::checked(nft.map(str::to_owned))?;
        }
        Ok(Self {
            name,
            _namespace: namespace,
        })
    }

    /// Packets with inner addresses that have arrived at a place, and those for the router.
    fn seen(place: &str) -> Result<(u64, u64)> {
        let list = format!("nsenter --net=/run/netns/{place} nft --json list table netdev clear");
        let listed: Value = run::json(list)?;
        let objects = listed["nftables"]
            .as_array()
            .context("no list of objects")?;
        let rules = objects
            .iter()
            .filter_map(|object| object["rule"]["expr"].as_array());
        let counts: Vec<u64> = rules
            .filter_map(|rule| {
                rule.iter()
                    .find_map(|part| part["counter"]["packets"].as_u64())
            })
            .collect();
        let [inner @ .., router] = counts.as_slice() else {
            bail!("no counters in {listed}");
        };
        ensure!(inner.len() == 4, "{listed}");
        Ok((inner.iter().sum(), *router))
    }
}

/// What a container sends all the time.
struct Trickle<'a> {
    sockets: Vec<(UdpSocket, Vec<SocketAddr>)>,
    ends: &'a AtomicBool,
    sent: &'a AtomicU64,
}

impl<'a> Trickle<'a> {
    fn from(
        container: &str,
        to: &[IpAddr],
        ends: &'a AtomicBool,
        sent: &'a AtomicU64,
    ) -> Result<Self> {
        let mut sockets = Vec::new();
        for any in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
            let socket = netns::inside(container, || UdpSocket::bind((any, 0)))??;
            socket.set_nonblocking(true)?;
            let mine = to
                .iter()
                .filter(|address| address.is_ipv4() == any.is_ipv4());
            let mine = mine.map(|address| SocketAddr::new(*address, 9)).collect();
            sockets.push((socket, mine));
        }
        Ok(Self {
            sockets,
            ends,
            sent,
        })
    }

    fn flow(&self) {
        while !self.ends.load(Ordering::Relaxed) {
            for (socket, addresses) in &self.sockets {
                for address in addresses {
                    // While there is no way an error is right.
                    if socket.send_to(b"secret", address).is_ok() {
                        self.sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            thread::sleep(PACE);
        }
    }
}

/// Ends a trickle, also when the test panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Stand {
    guard: Guard,
    router: Router,
    config: Config,
}

impl Stand {
    fn raise(name: &str) -> Result<Self> {
        let shape = Shape::usual(name, Scenario::Overlay)?;
        let guard = Guard::up(shape.speaking(Families::V4, Families::Both)?)?;
        let nodes = &guard.topology().nodes;
        let router = Router::beside(
            format!("{name}-router"),
            &nodes[0].namespace,
            &nodes[1].namespace,
        )?;
        let config = guard.first_config();
        Ok(Self {
            guard,
            router,
            config,
        })
    }

    fn agent(&self) -> Agent {
        self.guard.agent(1)
    }

    fn node(&self) -> &str {
        &self.guard.topology().nodes[0].namespace
    }

    fn container(&self) -> &str {
        &self.guard.topology().nodes[0].containers[0].namespace
    }

    /// A container that sends nothing by itself.
    fn quiet(&self) -> &str {
        &self.guard.topology().nodes[0].containers[1].namespace
    }

    fn ip(&self, command: &str) -> Result<()> {
        run::checked(format!("ip -n {} {command}", self.node())).map(drop)?;
        Ok(())
    }

    /// The configuration without the peer.
    fn alone(&self) -> Config {
        let mut alone = self.config.clone();
        alone.networks[0].peers.clear();
        alone
    }

    fn write(&self, config: &Config) -> Result<()> {
        Ok(fs::write(self.agent().config_file(), config.to_toml())?)
    }

    fn is_whole(&self, after: &str) -> Result<()> {
        Ok(self.guard.is_whole(&self.agent(), after)?)
    }

    /// Addresses of the peer's container, of nobody, and of the world.
    fn targets(&self) -> Result<Vec<IpAddr>> {
        let there = &self.guard.topology().nodes[1].containers[0];
        let mut targets = vec![there.at(Family::V4), there.at(Family::V6)];
        for other in NOBODY.into_iter().chain(FAR) {
            targets.push(other.parse()?);
        }
        Ok(targets)
    }

    /// Without its peer the node has an answer for whoever asks after it.
    fn without_the_peer(&self) -> Result<()> {
        self.write(&self.alone())?;
        self.agent()
            .status_until(|status| status["networks"][0]["peers"] == Value::Array(Vec::new()))?;
        // Of the one that never stops the kernel tires: it answers a sender every two seconds.
        let quiet = self.quiet();
        for target in self.targets()? {
            thread::sleep(Duration::from_millis(2_500));
            let ping = format!("ip netns exec {quiet} ping -n -c1 -W1 {target}");
            let out = run::output(ping)?;
            // Its summary counts errors.
            assert!(
                !out.success && out.stdout.contains(" errors"),
                "{}",
                out.stdout
            );
        }
        assert_eq!(self.agent().plan()?, Vec::<Value>::new());
        self.write(&self.config)?;
        self.is_whole("the peer's return")
    }

    fn disturb(&self) -> Result<()> {
        let agent = self.agent();
        self.is_whole("the start")?;
        self.without_the_peer()?;
        for damage in [
            "link set ovl1 down",
            "link del ovl1",
            "link set ovlbr1 down",
            "route flush dev ovl1",
            "-6 route flush dev ovl1 proto 111",
            "neigh flush dev ovl1 nud permanent",
        ] {
            self.ip(damage)?;
            self.is_whole(damage)?;
        }
        agent.kill()?;
        agent.start()?;
        self.is_whole("kill")
    }
}

#[test]
fn no_inner_address_leaves_in_the_clear() -> Result<()> {
    let stand = Stand::raise("tclear")?;
    let (ends, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let trickle = Trickle::from(stand.container(), &stand.targets()?, &ends, &sent)?;
    let done = thread::scope(|scope| {
        let flow = scope.spawn(|| trickle.flow());
        let run = || -> Result<()> {
            let _end = End(&ends);
            for on in [true, false] {
                stand.agent().fastpath(on)?;
                stand.disturb()?;
            }
            stand.while_killed(&ends)
        };
        let done = run();
        flow.join()
            .map_err(|_| anyhow::anyhow!("the sender has panicked"))?;
        done
    });
    done?;
    assert!(sent.load(Ordering::Relaxed) > 1_000, "something was sent");
    // That the counters count.
    let ping = format!("ip netns exec {} ping -n -c1 -W2 203.0.113.2", stand.node());
    run::checked(ping)?;
    let (inner, own) = Router::seen(&stand.router.name)?;
    assert!(own > 0, "the router sees what is for it");
    assert_eq!(inner, 0, "at the router");
    let (inner, _) = Router::seen(&stand.guard.topology().nodes[1].namespace)?;
    assert_eq!(inner, 0, "on the underlay");
    stand.agent().kill()?;
    Ok(stand.guard.down()?)
}

#[test]
fn an_operators_route_is_preferred_and_another_ones_stays() -> Result<()> {
    let guard = Guard::underlay(Shape::usual("tlast", Scenario::Overlay)?)?;
    let agent = guard.agent(1);
    let node = &guard.topology().nodes[0].namespace;
    let routes = || run::checked(format!("ip -n {node} route show proto static"));
    for route in [
        "route add unreachable 10.244.0.0/16 metric 4294967295 proto static",
        "route add 10.244.9.0/24 via 192.168.56.12 proto static",
        "route add blackhole 10.244.0.0/16 metric 4000000000 proto static",
    ] {
        run::checked(format!("ip -n {node} {route}"))?;
    }
    let (before, snapshot) = (routes()?, Snapshot::of(node)?);
    let mut config = guard.first_config();
    config.endpoints.clear();
    fs::write(agent.config_file(), config.to_toml())?;
    agent.start()?;
    let shown = run::checked(format!(
        "ip -n {node} route show proto 111 type unreachable"
    ))?;
    assert!(shown.contains("unreachable 10.244.0.0/16"), "{shown}");
    let way = run::checked(format!("ip -n {node} route get 10.244.9.1"))?;
    assert!(way.contains("via 192.168.56.12"), "{way}");
    assert_eq!(routes()?, before, "beside ours");
    assert_eq!(agent.plan()?, Vec::<Value>::new());
    agent.stop()?;
    agent.tell(&["down"])?;
    assert_eq!(routes()?, before, "after ours");
    let changes = Snapshot::of(node)?.changes_since(&snapshot);
    assert!(changes.lines.is_empty(), "after ours: {changes}");
    Ok(guard.down()?)
}
