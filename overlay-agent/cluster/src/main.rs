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
    access::Access,
    book::Book,
    claim::Me,
    client::{self, Client},
    fragment,
    keys::Keys,
    lease::{self, Device, Lease, Mac, PublicKey},
    leave,
    network::{Network, NewNetwork},
    session::{self, Session},
    subnet::Subnet,
    talk::{News, Start},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

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
        Command::Follow => follow(read()?.context("nobody says what to do")?).await,
        Command::Leave { etcd, prefix, node } => {
            let client = connect(&etcd).await?;
            leave(&client, &prefix, &node).await
        }
        Command::Init {
            etcd,
            prefix,
            cidr,
            cidr6,
            vni,
        } => {
            let client = connect(&etcd).await?;
            init(&client, prefix, &NewNetwork::new(cidr, cidr6, vni)).await
        }
    }
}

fn me(start: &Start) -> Result<Me> {
    let device = |mac: &str| {
        let mac = Mac::read(mac).with_context(|| format!("{mac:?} is not a MAC"))?;
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
    let [public_key, next_public_key] = &start.keys;
    let key = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => PublicKey::read(text)
            .map(Some)
            .with_context(|| format!("{text:?} is not a public key")),
    };
    let keys = lease::Keys {
        public_key: key(public_key)?,
        next_public_key: key(next_public_key)?,
    };
    Ok(Me {
        lease: Lease::new((*v4, device(mac)?), v6, start.node.clone()).with_keys(keys),
        last: subnet(&start.last)?,
        wanted: subnet(&start.wanted)?,
        bound: start.bound,
        fresh: true,
    })
}

async fn follow(start: Start) -> Result<()> {
    let remembered = start.fragment.as_deref().unwrap_or_default();
    let book = Book::remembering(fragment::read(remembered), session::now());
    let known = (book, fragment::store(remembered));
    let names = (start.prefix.clone(), start.network.clone());
    let (sender, access) = watch::channel(start.access.clone());
    let mut session = Session::new(names, (me(&start)?, start.encrypted), known, access);
    let following = session.follow(&start.etcd, |news| {
        if let Err(error) = tell(&news) {
            // The agent reads no more: it has ended, or wants an end.
            eprintln!("overlay-cluster: tell the agent: {error}");
            std::process::exit(1);
        }
    });
    listen(sender)?;
    following.await;
    bail!("no member of etcd is given")
}

fn tell(news: &News) -> io::Result<()> {
    // All at once: standard output would look for the end of a line in each piece.
    let mut line = serde_json::to_vec(news)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Listens to what the agent says of certificates and passwords, and ends the program when
/// standard input does: its other end is open as long as the agent lives.
fn listen(access: watch::Sender<Access>) -> Result<()> {
    let thread = std::thread::Builder::new().name("agent".to_owned());
    let wait = move || {
        let code = loop {
            match read() {
                Ok(Some(new)) => drop(access.send_replace(new)),
                Ok(None) => break 0,
                Err(error) => {
                    eprintln!("overlay-cluster: {error:#}");
                    break 1;
                }
            }
        };
        std::process::exit(code);
    };
    thread.spawn(wait).context("listen to the agent")?;
    Ok(())
}

/// The next line of standard input; `None` at its end.
fn read<T: DeserializeOwned>() -> Result<Option<T>> {
    const WHAT: &str = "read what to do";
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line).context(WHAT)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).context(WHAT)
}

async fn leave(client: &Client, prefix: &str, node: &str) -> Result<()> {
    for subnet in leave::leave(client, prefix, node).await? {
        println!("{subnet}");
    }
    Ok(())
}

async fn init(client: &Client, prefix: String, network: &NewNetwork) -> Result<()> {
    let text = network.write();
    if let Err(error) = Network::read(text.as_bytes()) {
        bail!("these values make no network: {error}; {}", error.cure());
    }
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

/// The first member that answers. What it asks for stands on standard input.
async fn connect(etcd: &[String]) -> Result<Client> {
    let access: Access = read()?.unwrap_or_default();
    let mut failures = Vec::new();
    for url in etcd {
        match Client::connect(url, &access).await {
            Ok(client) => return Ok(client),
            Err(error) => failures.push(error.to_string()),
        }
    }
    bail!("{}", failures.join("; "))
}
