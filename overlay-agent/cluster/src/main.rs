//! The helper that the agent starts: it alone speaks with the cluster's store, without any
//! privilege, and hands over what the agent validates.

use std::{
    io::{self, BufRead as _, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use overlay_cluster::{
    book::Book,
    claim::Me,
    client::{self, Client},
    fragment,
    keys::Keys,
    lease::{Device, Lease, Mac},
    leave,
    network::{Network, NewNetwork},
    session::Session,
    subnet::Subnet,
    talk::{News, Start},
};

#[derive(Debug, Parser)]
#[command(
    name = "overlay-cluster",
    version,
    about = "The agent's helper for a cluster's store"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow the store until standard input ends, whose first line says how
    Follow,
    /// Give a node's subnet back
    Leave {
        /// A member of etcd
        #[arg(long, required = true)]
        etcd: Vec<String>,
        /// Where flannel's keys begin
        #[arg(long)]
        prefix: String,
        /// The node's name
        #[arg(long)]
        node: String,
    },
    /// Write the network's configuration into the store, if there is none
    Init {
        /// A member of etcd
        #[arg(long, required = true)]
        etcd: Vec<String>,
        /// Where flannel's keys begin
        #[arg(long)]
        prefix: String,
        /// IPv4 addresses of all nodes together
        #[arg(long)]
        cidr: Ipv4Net,
        /// The same of IPv6
        #[arg(long)]
        cidr6: Option<Ipv6Net>,
        /// VXLAN network identifier
        #[arg(long, default_value_t = 1)]
        vni: u32,
    },
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .context("start the runtime")
        .and_then(|runtime| runtime.block_on(run(Cli::parse().command)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlay-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Follow => follow(&start()?).await,
        Command::Leave { etcd, prefix, node } => leave(&etcd, &prefix, &node).await,
        Command::Init {
            etcd,
            prefix,
            cidr,
            cidr6,
            vni,
        } => init(&etcd, prefix, &NewNetwork::new(cidr, cidr6, vni)).await,
    }
}

fn start() -> Result<Start> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("read what to do")?;
    serde_json::from_str(&line).context("read what to do")
}

fn me(start: &Start) -> Result<Me> {
    let device = |mac: &str| {
        let mac = Mac::read(mac).with_context(|| format!("{mac:?} is no MAC"))?;
        // flannel writes the network's; it is filled in once that is known.
        anyhow::Ok(Device { vni: 1, mac })
    };
    let (v4, mac) = &start.v4;
    let v6 = match &start.v6 {
        Some((address, mac)) => Some((*address, device(mac)?)),
        None => None,
    };
    let subnet = |prefixes: &[String]| -> Result<Option<Subnet>> {
        let prefixes: Result<Vec<IpNet>, _> = prefixes.iter().map(|text| text.parse()).collect();
        Ok(Subnet::of(&prefixes.context("read a subnet")?))
    };
    Ok(Me {
        lease: Lease::new((*v4, device(mac)?), v6, start.node.clone()),
        last: subnet(&start.last)?,
        wanted: subnet(&start.wanted)?,
        bound: start.bound,
        fresh: true,
    })
}

async fn follow(start: &Start) -> Result<()> {
    let remembered = fragment::read(start.fragment.as_deref().unwrap_or_default());
    let book = Book::remembering(remembered);
    let (prefix, network) = (start.prefix.clone(), start.network.clone());
    let mut session = Session::new(prefix, network, me(start)?, book);
    let following = session.follow(&start.etcd, |news| {
        if let Err(error) = tell(&news) {
            // The agent reads no more: it has ended, or wants an end.
            eprintln!("overlay-cluster: tell the agent: {error}");
            std::process::exit(1);
        }
    });
    end_with_agent()?;
    following.await;
    bail!("no member of etcd is given")
}

fn tell(news: &News) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, news)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Ends the program when standard input does: its other end is open as long as the agent lives.
fn end_with_agent() -> Result<()> {
    let wait = || {
        let code = match io::copy(&mut io::stdin().lock(), &mut io::sink()) {
            Ok(_) => 0,
            Err(_) => 1,
        };
        std::process::exit(code);
    };
    let thread = std::thread::Builder::new().name("agent".to_owned());
    thread.spawn(wait).context("wait for the agent's end")?;
    Ok(())
}

async fn leave(etcd: &[String], prefix: &str, node: &str) -> Result<()> {
    let client = connect(etcd).await?;
    for subnet in leave::leave(&client, prefix, node).await? {
        println!("{subnet}");
    }
    Ok(())
}

async fn init(etcd: &[String], prefix: String, network: &NewNetwork) -> Result<()> {
    let text = network.write();
    Network::read(text.as_bytes()).context("these values make no network")?;
    let client = connect(etcd).await?;
    let key = Keys { prefix }.config();
    let compare = vec![client::version(&key, 0)];
    if client
        .transact(compare, vec![client::put(&key, &text, 0)])
        .await?
    {
        println!("{key}: {text}");
        return Ok(());
    }
    let (_, there) = client.get(&key).await?;
    let there = there.map(|there| String::from_utf8_lossy(&there.value).into_owned());
    let there = there.unwrap_or_default();
    if there == text {
        println!("{key}: {text}");
        return Ok(());
    }
    bail!(
        "write {key}: there is one already, which says {there}; remove it from etcd first if that network is gone"
    )
}

/// The first member that answers.
async fn connect(etcd: &[String]) -> Result<Client> {
    let mut failures = Vec::new();
    for url in etcd {
        match Client::connect(url).await {
            Ok(client) => return Ok(client),
            Err(error) => failures.push(error.to_string()),
        }
    }
    bail!("{}", failures.join("; "))
}
