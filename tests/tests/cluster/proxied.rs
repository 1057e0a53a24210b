//! A way to the store that is slow, or swallows what is sent, or is closed in one direction.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use overlay_tests::{agent::Agent, netns};

use crate::{
    asked::connections,
    flannel::{lease, until_there},
    lab::{Cluster, SUBNETS, until_said},
};

pub(crate) const PORT: u16 = 2390;
/// In each direction.
const DELAY: Duration = Duration::from_millis(100);

/// What becomes of what is sent.
pub(crate) const PASSES: u8 = 0;
pub(crate) const IS_SWALLOWED: u8 = 1;
pub(crate) const IS_CLOSED: u8 = 2;

/// Something between a node and the store.
pub(crate) struct Proxy(Arc<AtomicU8>);

impl Proxy {
    /// In the namespace of a node, which knows the store by that.
    pub(crate) fn open(cluster: &Cluster, node: &str) -> Result<Self> {
        let upstream = cluster.url(1).trim_start_matches("http://").to_owned();
        let upstream: SocketAddr = upstream.parse()?;
        let mode = Arc::new(AtomicU8::new(PASSES));
        let listener = netns::inside(node, || TcpListener::bind(("127.0.0.1", PORT)))??;
        let (shared, node) = (Arc::clone(&mode), node.to_owned());
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let server = netns::inside(&node, || TcpStream::connect(upstream));
                if let (Ok(client), Ok(Ok(server))) = (client, server) {
                    // Who cannot be served is closed, which is what a client has to live with.
                    drop(serve(client, server, &shared));
                }
            }
        });
        Ok(Self(mode))
    }

    pub(crate) fn set(&self, mode: u8) {
        self.0.store(mode, Ordering::Relaxed);
    }
}

fn serve(client: TcpStream, server: TcpStream, mode: &Arc<AtomicU8>) -> io::Result<()> {
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    for (from, to, to_client) in [(from_client, to_server, false), (server, client, true)] {
        let mode = Arc::clone(mode);
        thread::spawn(move || drop(carry(from, to, to_client, &mode)));
    }
    Ok(())
}

fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    to_client: bool,
    mode: &AtomicU8,
) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return to.shutdown(Shutdown::Write);
        }
        thread::sleep(DELAY);
        match mode.load(Ordering::Relaxed) {
            IS_SWALLOWED => {}
            IS_CLOSED if to_client => return to.shutdown(Shutdown::Write),
            _ => to.write_all(&buffer[..length])?,
        }
    }
}

/// Makes a peer, and waits until a node has heard of it.
fn hears_of(cluster: &Cluster, agent: &Agent, number: u8) -> Result<()> {
    cluster.put(&format!("{SUBNETS}10.244.{number}.0-24"), &lease(number, 0))?;
    until_there(agent, number, number, 0).with_context(|| agent.log().unwrap_or_default())
}

#[test]
fn a_way_to_the_store_that_is_slow_swallowed_or_half_closed_is_lived_with() -> Result<()> {
    let cluster = Cluster::up("teprox", 2)?;
    let agents = [1, 2].map(|node| cluster.guard.agent(node));
    let proxy = Proxy::open(&cluster, &agents[0].instance)?;
    cluster.configure_at(1, &[format!("http://127.0.0.1:{PORT}")], "")?;
    cluster.configure(2, "")?;
    cluster.init()?;
    for agent in &agents {
        agent.start_anyhow()?;
        agent.is_well()?;
    }
    cluster.reaches(1, 2)?;
    hears_of(&cluster, &agents[0], 240)?;

    for (mode, number) in [(IS_CLOSED, 241), (IS_SWALLOWED, 242)] {
        let before = connections(&agents[0])?;
        proxy.set(mode);
        // So that something is sent, and comes to nothing.
        let key = format!("{SUBNETS}10.244.{number}.0-24");
        cluster.put(&key, "nothing yet")?;
        until_said(
            &agents[0],
            "etcd cannot be followed, the last known peers stay",
        )?;
        for (from, to) in [(1, 2), (2, 1)] {
            cluster.reaches(from, to)?;
        }
        proxy.set(PASSES);
        hears_of(&cluster, &agents[0], number)?;
        assert!(connections(&agents[0])? > before, "{mode}");
    }
    agents[0].is_well()?;
    Ok(cluster.guard.down()?)
}
