//! `explain`: asks each node that a packet comes to.

use std::{
    io::{self, Read as _, Write},
    net::IpAddr,
    path::PathBuf,
};

use anyhow::anyhow;
use clap_complete::ArgValueCompleter;
use overlay_control::{
    self as api, Reply, Request, Status,
    explain::{Action, Attached, End, Header, Hop, Packet, Protocol, Question, Received, Stage},
};
use overlay_core::{
    dirs::Dirs,
    model::{Endpoint, Name},
};

use super::{
    CommandResult, Failure, Format, client, completing, examples,
    machine::{Machine, Peer},
    output,
};

/// Nodes that a packet can come to before it is called lost in a loop.
const MOST_HOPS: usize = 4;

#[derive(Debug, clap::Args)]
#[command(after_help = examples::EXPLAIN)]
pub(super) struct Args {
    /// Source: an endpoint's name or address, or "node"
    #[arg(
        required_unless_present = "received",
        add = ArgValueCompleter::new(completing::endpoints)
    )]
    from: Option<String>,
    /// Destination: an endpoint's name, "node", or any address
    #[arg(
        required_unless_present = "received",
        add = ArgValueCompleter::new(completing::endpoints)
    )]
    to: Option<String>,
    /// Protocol
    #[arg(long = "proto", value_enum, default_value_t)]
    protocol: Protocol,
    /// Source port of UDP or TCP
    #[arg(long)]
    sport: Option<u16>,
    /// Destination port of UDP or TCP
    #[arg(long)]
    dport: Option<u16>,
    /// Bytes of the IP packet [default: the smallest valid packet]
    #[arg(long)]
    size: Option<u16>,
    /// Its TTL or hop limit [default: 64]
    #[arg(long)]
    ttl: Option<u8>,
    /// Set "don't fragment"
    #[arg(long)]
    df: bool,
    /// Another source address than the sender's own
    #[arg(long)]
    source: Option<IpAddr>,
    /// Instance, or socket, of the node that it is sent to [default: the one on this machine]
    #[arg(long, add = ArgValueCompleter::new(completing::instances))]
    peer: Option<String>,
    /// Instead of FROM and TO: a frame of a tunnel that arrives at this node, in hexadecimal, as explain prints
    /// it on the node that sends it; "-": from standard input
    #[arg(
        long,
        value_name = "FRAME",
        conflicts_with_all = ["from", "to", "protocol", "sport", "dport", "size", "ttl", "df", "source"]
    )]
    received: Option<String>,
}

/// Characters of a frame that are read from standard input.
const MOST_READ: u64 = 64 * 1024;

pub(super) fn explain(
    dirs: &Dirs,
    instance: Option<Name>,
    format: Format,
    args: &Args,
) -> CommandResult {
    let has_ports = matches!(args.protocol, Protocol::Udp | Protocol::Tcp);
    if !has_ports && (args.sport.is_some() || args.dport.is_some()) {
        return Err(Failure::BadInput(anyhow!(
            "explain a packet with ports: only UDP and TCP have any; add --proto udp or --proto tcp"
        )));
    }
    let mut machine = Machine::new(dirs)?;
    let (instance, request) = asked(dirs, &mut machine, instance, args)?;
    let mut hops = vec![hop(client::call(dirs, &instance, &request)?)?];
    let (mut unasked, mut refused) = (None, None);
    while let Some(Hop {
        end: End::Underlay { vtep, frame, .. },
        instance,
        ..
    }) = hops.last()
    {
        if hops.len() == MOST_HOPS {
            break;
        }
        let peer = match &args.peer {
            Some(named) => Peer::At(socket_of(dirs, named)?),
            None => machine.peer(instance, *vtep),
        };
        let socket = match peer {
            Peer::At(socket) => socket,
            Peer::Unknown(why) => {
                unasked = Some((*vtep, why, frame.clone()));
                break;
            }
        };
        let request = Request::ExplainReceived(Received {
            frame: frame.clone(),
        });
        match reply(&socket, &request).and_then(hop) {
            Ok(hop) => hops.push(hop),
            Err(failure) => {
                refused = Some(failure);
                break;
            }
        }
    }
    let unasked = unasked.map(|(vtep, why, frame)| not_asked(&machine, vtep, &why, &frame));
    output::print(|out| match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&hops)?),
        Format::Text => write_all(out, &hops),
    })
    .map_err(Failure::Problem)?;
    match (format, unasked) {
        (Format::Json, Some(unasked)) => eprintln!("overlay-agent: {unasked}"),
        (Format::Text, Some(unasked)) => {
            output::print_as_it_is(|out| writeln!(out, "\n{unasked}")).map_err(Failure::Problem)?;
        }
        (_, None) => {}
    }
    if let Some(failure) = refused {
        return Err(failure);
    }
    if hops.iter().all(|hop| hop.end.is_good()) {
        Ok(())
    } else {
        Err(Failure::Told)
    }
}

/// The first agent to ask, and the question.
fn asked(
    dirs: &Dirs,
    machine: &mut Machine<'_>,
    instance: Option<Name>,
    args: &Args,
) -> Result<(Name, Request), Failure> {
    if let Some(frame) = &args.received {
        let instance = client::the_instance(dirs, instance, Dirs::may_listen)?;
        let frame = frame_of(frame)?;
        return Ok((instance, Request::ExplainReceived(Received { frame })));
    }
    let from = args.from.clone().unwrap_or_default();
    let to = args.to.clone().unwrap_or_default();
    let instance = the_node_of(dirs, machine, instance, &from)?;
    let question = Question {
        to: address_of(machine, &instance, &to),
        from,
        source: args.source,
        protocol: args.protocol,
        source_port: args.sport,
        destination_port: args.dport,
        size: args.size,
        ttl: args.ttl,
        dont_fragment: args.df,
    };
    Ok((instance, Request::Explain(question)))
}

/// A frame as it was pasted or is read: what a terminal has broken into lines is one again.
fn frame_of(given: &str) -> Result<String, Failure> {
    let mut read = String::new();
    let text: &str = if given == "-" {
        let stdin = io::stdin().lock();
        stdin
            .take(MOST_READ)
            .read_to_string(&mut read)
            .map_err(|error| {
                Failure::BadInput(anyhow!(
                    "read a frame from standard input: {error}; paste it as text"
                ))
            })?;
        &read
    } else {
        given
    };
    let frame: String = text.split_whitespace().collect();
    let is_hex = frame.bytes().all(|digit| digit.is_ascii_hexdigit());
    if frame.is_empty() || !is_hex || !frame.len().is_multiple_of(2) {
        return Err(Failure::BadInput(anyhow!(
            "read a frame: it is not bytes in hexadecimal; paste what \"overlay-agent explain\" has printed on \
             that node which sends the packet"
        )));
    }
    Ok(frame)
}

fn hop(reply: Reply) -> Result<Hop, Failure> {
    match reply {
        Reply::Hop(hop) => Ok(*hop),
        _ => Err(client::unexpected()),
    }
}

fn reply(socket: &std::path::Path, request: &Request) -> Result<Reply, Failure> {
    client::replied(api::call(socket, request))
}

/// The instance that was named; else the one that has the sender, where there are several.
fn the_node_of(
    dirs: &Dirs,
    machine: &mut Machine<'_>,
    named: Option<Name>,
    from: &str,
) -> Result<Name, Failure> {
    let the_one = |named| client::the_instance(dirs, named, Dirs::may_listen);
    if named.is_some() || machine.is_alone() {
        return the_one(named);
    }
    let mut having = machine
        .all()
        .filter(|(_, status)| has(status, from) || status.node.as_str() == from)
        .map(|(instance, _)| instance);
    let first = having.next();
    the_one(first.filter(|_| having.next().is_none()).cloned())
}

/// Other nodes' endpoints are known by their addresses alone, unless they are on this machine.
fn address_of(machine: &mut Machine<'_>, instance: &Name, to: &str) -> String {
    let is_known = |status: &Status| has(status, to) || status.node.as_str() == to;
    if to.parse::<IpAddr>().is_ok()
        || to == Endpoint::NODE
        || machine.status(instance).is_some_and(is_known)
    {
        return to.to_owned();
    }
    let address = machine.among_peers(instance, |status| {
        let mut endpoints = status.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.name.as_str() == to)?;
        endpoint.addresses.first().map(IpAddr::to_string)
    });
    let silent = machine.silent();
    if address.is_none() && !silent.is_empty() {
        eprintln!("overlay-agent: no peer that was asked has an endpoint {to}{silent}");
    }
    address.unwrap_or_else(|| to.to_owned())
}

fn has(status: &Status, endpoint: &str) -> bool {
    let address: Option<IpAddr> = endpoint.parse().ok();
    status.endpoints.iter().any(|known| {
        known.name.as_str() == endpoint
            || address.is_some_and(|address| known.addresses.contains(&address))
    })
}

/// Where the node is asked that `--peer` names.
fn socket_of(dirs: &Dirs, named: &str) -> Result<PathBuf, Failure> {
    if named.contains('/') {
        return Ok(PathBuf::from(named));
    }
    let name: Name = named.parse().map_err(Failure::bad_input)?;
    Ok(dirs.socket(&name))
}

/// Why the journey ends before the packet's, and how it goes on there.
fn not_asked(machine: &Machine<'_>, vtep: IpAddr, why: &str, frame: &str) -> String {
    let silent = machine.silent();
    format!(
        "The node at {vtep} was not asked: {why}{silent}. If it is on this machine, name it with --peer INSTANCE or \
         --peer SOCKET.\nWhat becomes of the packet there, that node says:\n  \
         # overlay-agent explain --received {frame}"
    )
}

fn write_all(out: &mut dyn Write, hops: &[Hop]) -> io::Result<()> {
    for (number, hop) in hops.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        write_hop(out, hop)?;
    }
    Ok(())
}

fn write_hop(out: &mut dyn Write, hop: &Hop) -> io::Result<()> {
    writeln!(out, "node {}  instance {}", hop.node, hop.instance)?;
    for stage in &hop.stages {
        write_stage(out, stage)?;
    }
    for sentence in &hop.kernel {
        writeln!(out, "  kernel: {sentence}")?;
    }
    match &hop.end {
        End::Delivered { endpoint, ttl } => {
            let ttl = ttl
                .map(|ttl| format!(" with TTL {ttl}"))
                .unwrap_or_default();
            writeln!(out, "  → delivered to {endpoint}{ttl}")
        }
        End::Underlay { device, vtep, .. } => {
            let device = device
                .map(|device| format!(" by {device}"))
                .unwrap_or_default();
            writeln!(out, "  → to {vtep}{device}")
        }
        End::Kernel { delivers: true } => writeln!(out, "  → delivered by the kernel"),
        End::Kernel { delivers: false } => writeln!(out, "  → it does not arrive"),
        End::Dropped => writeln!(out, "  → dropped"),
    }
}

fn write_stage(out: &mut dyn Write, stage: &Stage) -> io::Result<()> {
    let Stage {
        program,
        device,
        tag,
        instructions,
        ns,
        ..
    } = stage;
    write!(out, "\n  {program} on {device}  ")?;
    match &stage.attached {
        Attached::Same => write!(out, "the attached program, tag {tag}")?,
        Attached::Watched => write!(out, "tag {tag}; same program attached, tracing build")?,
        Attached::Other(other) => write!(
            out,
            "tag {tag}; WARNING: attached is another one, tag {other}: what follows is not what it does"
        )?,
        Attached::Nothing => write!(
            out,
            "tag {tag}; WARNING: not attached: this is what it would do; see below what the kernel does"
        )?,
    }
    writeln!(out, ", {instructions} instructions")?;
    write_packet(out, "in", &stage.before)?;
    for decision in &stage.decisions {
        let by = decision.by.as_ref().map(|by| format!(": {by}"));
        writeln!(out, "    ✓ {}{}", decision.text, by.unwrap_or_default())?;
    }
    let verdict = &stage.verdict;
    let (mark, action) = match verdict.action {
        Action::Forwarded => ("✓", "forwarded"),
        Action::Passed => ("↷", "left to the kernel"),
        Action::Dropped => ("✗", "dropped"),
    };
    let reason = verdict.reason.as_ref().map(|reason| format!(" ({reason})"));
    writeln!(
        out,
        "    {mark} {action}{}: {}  [{ns} ns, caches warm]",
        reason.unwrap_or_default(),
        verdict.text
    )?;
    if let Some(cure) = &verdict.cure {
        writeln!(out, "      cure: {cure}")?;
    }
    match &stage.after {
        Some(after) => write_packet(out, "out", after),
        None => Ok(()),
    }
}

fn write_packet(out: &mut dyn Write, what: &str, packet: &Packet) -> io::Result<()> {
    writeln!(out, "    {what}: {} bytes", packet.length)?;
    for Header { name, fields } in &packet.headers {
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        writeln!(out, "      {name:8} {}", fields.join("  "))?;
    }
    Ok(())
}
