//! Open vSwitch in user space, as a node whose tunnels are not the kernel's.
//!
//! ```text
//!   br0 ── routes ── br-int (tap) ── vx1, vx2 … ── br-phy (tap, underlay addresses) ── eth1
//! ```
//!
//! The rest of the node is as in [`super::vxlan`]: a bridge for the containers, and for each
//! peer a neighbour and a route, through `br-int` in the place of the VXLAN device.

use super::{bridge, forward, vxlan};
use crate::{
    families::Family,
    script::{Section, Step, inside, words},
    state,
    topology::{Node, Topology, UNDERLAY, UNDERLAY6_LENGTH, VNI},
};

/// The switch's program.
pub const PROGRAM: &str = "ovs-vswitchd";
/// Debian's place for the schema of its database.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A node with Open vSwitch, on a machine that has it.
pub fn sections(topology: &Topology, node: &Node) -> Vec<Section> {
    let mut sections = vec![
        bridge::section(node, topology.shape.inside, Some(topology.vxlan_mtu(node))),
        forward(topology, node),
        state::section(&topology.shape.name),
        daemons(topology, node),
        underlay(topology, node),
    ];
    sections.push(tunnels(topology, node));
    sections
}

/// A command with the database and the sockets of this node's switch.
fn control(topology: &Topology, node: &Node, line: &str) -> Vec<String> {
    let folder = folder(topology, node);
    let host = &node.namespace;
    words(inside(
        host,
        format_args!("env OVS_RUNDIR={folder} ovs-vsctl --db=unix:{folder}/db.sock {line}"),
    ))
}

fn folder(topology: &Topology, node: &Node) -> String {
    let folder = state::folder(&topology.shape.name);
    folder
        .join(format!("{}-ovs", node.namespace))
        .to_string_lossy()
        .into_owned()
}

fn daemons(topology: &Topology, node: &Node) -> Section {
    let (folder, host) = (folder(topology, node), &node.namespace);
    let start = |task: &str, line: String| {
        let task = format!("{host}-{task}");
        Step::Start {
            argv: words(inside(host, format_args!("env OVS_RUNDIR={folder} {line}"))),
            log: state::log_file(&topology.shape.name, &task),
            task,
        }
    };
    let tunnel = topology.tunnels(node).first().copied();
    let mac = tunnel.map_or_else(String::new, |tunnel| {
        format!(" other-config:hwaddr={}", node.vtep_mac(tunnel))
    });
    let add_bridge = |name: &str, settings: &str| {
        format!(
            "--timeout=5 -- --may-exist add-br {name} \
             -- set bridge {name} datapath_type=netdev{settings}"
        )
    };
    let ready = |task: &str, line: &str| Step::Await {
        argv: control(topology, node, line),
        task: format!("{host}-{task}"),
    };
    Section::new(
        format!("Open vSwitch on {host}, in user space: a database and a switch"),
        [
            Step::run(format!("mkdir -p {folder}")),
            Step::run(format!("ovsdb-tool create {folder}/conf.db {SCHEMA}")),
            start(
                "ovsdb",
                format!(
                    "ovsdb-server {folder}/conf.db --remote=punix:{folder}/db.sock --unixctl={folder}/db.ctl"
                ),
            ),
            ready("ovsdb", "--no-wait init"),
            start(
                "ovs",
                format!(
                    "{PROGRAM} unix:{folder}/db.sock --unixctl={folder}/switch.ctl --disable-system"
                ),
            ),
            // Unlike the first, this waits until the switch has done it.
            ready("ovs", &add_bridge("br-phy", "")),
            ready("ovs", &add_bridge("br-int", &mac)),
        ],
    )
}

/// The underlay's addresses move to the bridge that has its interface.
fn underlay(topology: &Topology, node: &Node) -> Section {
    let host = &node.namespace;
    let mut steps = vec![Step::run(format!("ip -n {host} addr flush dev {UNDERLAY}"))];
    for &family in topology.shape.underlay.all() {
        let address = node.underlay_at(family);
        let address = match family {
            Family::V4 => format!("{address}/{}", topology.underlay_length),
            Family::V6 => format!("{address}/{UNDERLAY6_LENGTH} nodad"),
        };
        steps.push(Step::run(format!(
            "ip -n {host} addr add {address} dev br-phy"
        )));
    }
    steps.push(Step::run(format!("ip -n {host} link set br-phy up")));
    steps.push(Step::Run(control(
        topology,
        node,
        &format!("add-port br-phy {UNDERLAY}"),
    )));
    // It reads packets as they are in memory, where a veth leaves checksums to be computed.
    steps.extend(topology.nodes.iter().map(|node| {
        Step::run(inside(
            &node.namespace,
            format_args!("ethtool -K {UNDERLAY} tx off"),
        ))
    }));
    Section::new(format!("{host}'s underlay is a port of the switch"), steps)
}

fn tunnels(topology: &Topology, node: &Node) -> Section {
    let (host, inside) = (&node.namespace, topology.shape.inside.all());
    let Some(&tunnel) = topology.tunnels(node).first() else {
        return Section::new("Without peers there are no tunnels", []);
    };
    let mut steps = vec![Step::run(format!(
        "ip -n {host} link set br-int mtu {mtu} up",
        mtu = topology.vxlan_mtu(node),
    ))];
    steps.extend(vxlan::bases(topology, node, "br-int").map(Step::run));
    for peer in topology.peers_of(node) {
        let port = format!("vx{}", peer.number);
        let options = format!(
            "add-port br-int {port} -- set interface {port} type=vxlan options:remote_ip={remote} \
             options:key={VNI} options:dst_port={udp}",
            remote = peer.underlay_at(tunnel),
            udp = topology.port(),
        );
        steps.push(Step::Run(control(topology, node, &options)));
        steps.extend(vxlan::ways(node, peer, tunnel, inside, "br-int").map(Step::run));
    }
    Section::new(
        format!("A tunnel of {host}'s switch to each peer, a neighbour and a route"),
        steps,
    )
}
