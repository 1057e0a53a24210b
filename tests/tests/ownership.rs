//! What is not ours is never touched: flannel's, Docker's and the user's own objects stand
//! beside ours, and are the same before, while and after.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::PerCpuArray,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLinkId, TcAttachOptions},
    },
};
use overlay_common::{
    maps::PASSES,
    programs::{FROM_UNDERLAY, Program},
    reasons::Passes,
};
use overlay_tests::{
    agent::Agent,
    check::{self, Answer},
    guard::Guard,
    kernel, netns, run,
    script::inside,
    shape::{Scenario, Shape},
    snapshot::Snapshot,
};

/// Everything that others may have on a node, as a script.
const OTHERS: &str = "
sysctl -qw net.ipv4.ip_forward=1
# flannel
ip link add flannel.1 mtu 1450 type vxlan id 77 dstport 8472 local 192.168.56.11 nolearning
ip link set flannel.1 address 6e:00:00:00:00:01 up
ip addr add 10.42.0.0/32 dev flannel.1
ip neigh add 10.42.1.0 lladdr 6e:00:00:00:00:02 dev flannel.1 nud permanent
bridge fdb add 6e:00:00:00:00:02 dev flannel.1 dst 192.168.56.12
ip route add 10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink
ip link add cni0 type bridge
ip addr add 10.42.0.1/24 dev cni0
ip link set cni0 up
ip link add veth42 type veth peer name veth43
ip link set veth42 master cni0 up
bridge link set dev veth42 hairpin on
# Docker
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip link set docker0 up
nft add table ip nat
nft add chain ip nat POSTROUTING '{ type nat hook postrouting priority srcnat; }'
nft add rule ip nat POSTROUTING ip saddr 172.17.0.0/16 oifname != docker0 masquerade
nft add table ip filter
nft add chain ip filter DOCKER-USER
nft add rule ip filter DOCKER-USER return
# the user
ip link add user0 type bridge
ip link set user0 alias 'overlay of mine'
ip addr add 10.99.1.1/24 dev user0
ip link set user0 up
ip link add user.9 link eth1 type vlan id 9 || ip link add user.9 type bridge
ip route add 10.99.2.0/24 via 192.168.56.12
ip route add 10.99.3.0/24 via 10.99.1.7 dev user0 proto 111
ip route add 10.99.4.0/24 via 10.99.1.7 dev user0 table 77
ip rule add from 10.99.0.0/16 table 77 pref 1000
ip neigh add 192.168.56.99 lladdr 02:00:00:00:00:99 dev eth1 nud permanent
sysctl -qw net.ipv4.conf.user0.rp_filter=1
sysctl -qw net.ipv4.conf.user0.log_martians=1
nft add table inet user
nft add set inet user seen '{ type ipv4_addr; }'
nft add element inet user seen '{ 10.99.1.9 }'
nft add chain inet user forward '{ type filter hook forward priority 10; }'
nft add rule inet user forward ip saddr @seen drop
tc qdisc add dev eth1 clsact
tc filter add dev eth1 ingress pref 7 protocol all u32 match u32 0 0 action mirred egress mirror dev user0 continue
tc filter add dev eth1 ingress pref 99 protocol all u32 match u32 0 0 action mirred egress mirror dev user0 continue
tc filter add dev eth1 egress pref 98 protocol all u32 match u32 0 0 action mirred egress mirror dev user0 continue
";

fn on_node(agent: &Agent, script: &str) -> Result<String> {
    let mut argv = overlay_tests::script::words(inside(&agent.instance, "sh -ec"));
    argv.push(script.to_owned());
    Ok(run::checked(&argv)?)
}

/// Two nodes, others' objects on the first, and no agent yet.
fn lab(name: &str) -> Result<(Guard, Agent)> {
    let shape = Shape::of(name, Scenario::Overlay, 2, 2)?;
    let guard = Guard::underlay(shape)?;
    let agent = guard.agent(1);
    on_node(&agent, OTHERS)?;
    Ok((guard, agent))
}

/// Whether all that was there before is there still.
fn still_has(agent: &Agent, before: &Snapshot, when: &str) -> Result<()> {
    let changes = Snapshot::of(&agent.instance)?.changes_since(before);
    let lines = changes.lines.iter();
    let gone: Vec<&String> = lines.filter(|line| line.contains(": - ")).collect();
    assert!(gone.is_empty(), "{when}: {gone:#?}\n{changes}");
    Ok(())
}

#[test]
fn what_others_have_stays_as_it_is() -> Result<()> {
    let (guard, agent) = lab("town")?;
    let before = Snapshot::of(&agent.instance)?;
    guard.finish()?;
    still_has(&agent, &before, "after the start")?;
    let pins = Path::new("/sys/fs/bpf/overlay").join(&agent.instance);
    for damage in [
        "ip link del ovlbr1".to_owned(),
        "ip link del ovl1".to_owned(),
        "ip route del 10.244.2.0/24".to_owned(),
        "ip neigh flush nud permanent dev ovl1".to_owned(),
        "bridge fdb del 02:4f:c0:a8:38:0c dev ovl1".to_owned(),
        "ip link set ovl1 alias mine".to_owned(),
        format!("rm -r {}", pins.display()),
    ] {
        on_node(&agent, &damage)?;
        guard.is_whole(&agent, &damage)?;
        still_has(&agent, &before, &damage)?;
    }
    agent.fastpath(false)?;
    still_has(&agent, &before, "with the fast path off")?;
    agent.fastpath(true)?;
    agent.kill()?;
    agent.start()?;
    guard.is_whole(&agent, "another start")?;
    still_has(&agent, &before, "after another start")?;
    agent.tell(&["down"])?;
    let changes = Snapshot::of(&agent.instance)?.changes_since(&before);
    assert!(changes.lines.is_empty(), "after down:\n{changes}");
    Ok(guard.down()?)
}

/// A program of somebody else, attached by TCX: ours without a network, which lets all pass.
struct Other {
    ebpf: Ebpf,
    id: u32,
    _link: SchedClassifierLinkId,
}

impl Other {
    fn attach(agent: &Agent, order: LinkOrder) -> Result<Self> {
        let attach = || -> Result<Self> {
            let mut ebpf = Ebpf::load(overlay_kernel::PROGRAMS)?;
            let program: &mut SchedClassifier = ebpf
                .program_mut(FROM_UNDERLAY)
                .context("no such program")?
                .try_into()?;
            program.load()?;
            let options = TcAttachOptions::TcxOrder(order);
            let link = program.attach_with_options("eth1", TcAttachType::Ingress, options)?;
            let id = program.info()?.id();
            Ok(Self {
                ebpf,
                id,
                _link: link,
            })
        };
        netns::inside(&agent.instance, attach)?
    }

    /// How many packets it has let pass.
    fn packets(&self) -> Result<u64> {
        let map = self.ebpf.map(PASSES).context("no such map")?;
        let map: PerCpuArray<_, Passes> = map.try_into()?;
        let cpus = map.get(&(Program::FromUnderlay as u32), 0)?;
        let counts = cpus.iter().map(|cpu| {
            let mut cpu = *cpu;
            cpu.counts_mut()
                .iter()
                .map(|count| count.packets)
                .sum::<u64>()
        });
        Ok(counts.sum())
    }
}

/// Ids of the programs at TCX ingress of the underlay, in their order.
fn order(agent: &Agent) -> Result<Vec<u32>> {
    netns::inside(&agent.instance, || {
        let (_, programs) = SchedClassifier::query_tcx("eth1", TcAttachType::Ingress)?;
        Ok(programs
            .iter()
            .map(aya::programs::ProgramInfo::id)
            .collect())
    })?
}

/// Packets that the user's filters have seen, by preference.
fn filtered(agent: &Agent) -> Result<Vec<u64>> {
    let text = on_node(agent, "tc -s filter show dev eth1 ingress")?;
    let sent = text.lines().filter_map(|line| {
        let (_, rest) = line.trim().strip_prefix("Sent ")?.split_once(" bytes ")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    Ok(sent.collect())
}

#[test]
fn other_programs_keep_their_places() -> Result<()> {
    if !kernel::has_tcx() {
        println!("not tried: this kernel has no TCX, only filters");
        return Ok(());
    }
    let (guard, agent) = lab("torder")?;
    guard.finish()?;
    guard.is_whole(&agent, "the start")?;
    let ours = order(&agent)?;
    let first = Other::attach(&agent, LinkOrder::first())?;
    let last = Other::attach(&agent, LinkOrder::last())?;
    let tcx = !ours.is_empty();
    let expected = [vec![first.id], ours, vec![last.id]].concat();
    assert_eq!(order(&agent)?, expected);

    let runs = |when: &str| -> Result<()> {
        let (before, behind) = (first.packets()?, last.packets()?);
        let filters = filtered(&agent)?;
        let nodes = &guard.topology().nodes;
        let (from, to) = (&nodes[0].containers[0], &nodes[1].containers[0]);
        assert_eq!(
            check::ping(&from.namespace, to.address)?,
            Answer::Ttl(62),
            "{when}"
        );
        assert!(
            first.packets()? > before,
            "the first does not see packets {when}"
        );
        // What ours delivers ends there; what is not ours goes on.
        check::ping(&agent.instance, nodes[1].underlay)?;
        assert!(
            last.packets()? > behind,
            "the last does not see packets {when}"
        );
        let now = filtered(&agent)?;
        assert_eq!((filters.len(), now.len()), (2, 2), "{when}");
        if tcx {
            let more = now.iter().zip(&filters).all(|(now, before)| now > before);
            assert!(more, "{filters:?}, then {now:?}, {when}");
        }
        Ok(())
    };
    runs("at first")?;

    for damage in [
        "ip link del ovlbr1",
        "ip link del ovl1",
        "ip route del 10.244.2.0/24",
    ] {
        on_node(&agent, damage)?;
        guard.is_whole(&agent, damage)?;
        assert_eq!(order(&agent)?, expected, "after {damage}");
    }
    runs("after repairs")?;
    let places = |order: &[u32]| {
        let place = |id| order.iter().position(|other| *other == id);
        (place(first.id), place(last.id), order.len())
    };
    let before = places(&expected);
    agent.kill()?;
    agent.start()?;
    assert_eq!(
        places(&order(&agent)?),
        before,
        "another agent takes the place of ours"
    );
    runs("after another start")?;

    // Once taken off, ours comes back; then nothing moves any more.
    if tcx {
        let pins = Path::new("/sys/fs/bpf/overlay")
            .join(&agent.instance)
            .join("links");
        fs::remove_file(pins.join("from_underlay-eth1"))?;
        guard.is_whole(&agent, "ours was taken off")?;
        let order = order(&agent)?;
        let of_others: Vec<u32> = order
            .iter()
            .copied()
            .filter(|id| [first.id, last.id].contains(id))
            .collect();
        assert_eq!(of_others, [first.id, last.id]);
        for _ in 0..3 {
            on_node(&agent, "ip route del 10.244.2.0/24")?;
            guard.is_whole(&agent, "a route was deleted")?;
            assert_eq!(self::order(&agent)?, order);
        }
        runs("after ours was attached again")?;
    }
    agent.tell(&["down"])?;
    assert_eq!(order(&agent)?, [first.id, last.id]);
    Ok(guard.down()?)
}
