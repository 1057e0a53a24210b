//! Two nodes that are machines of their own: this one, and a second one on its underlay.
//!
//! The second obeys a shell that anybody on the wire can talk to, so this is for machines
//! that nobody else reaches, such as those of `cargo xtask vm`.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use crate::{
    config::Config,
    error::{Error, Result},
    poll, run,
    scenario::agents,
    script::Step,
    shape::Shape,
    topology::{Container, Node, Topology},
};

/// Environment variable with the address of the second machine's shell.
pub const SECOND: &str = "OVERLAY_SECOND";
/// The port on which a container sends everything back.
const ECHO: u16 = 7;
/// How long anything may take on an emulated machine that others keep waiting.
const PATIENCE: Duration = Duration::from_mins(2);
const CONFIG: &str = "/run/overlay-node.toml";
const LOG: &str = "/run/overlay-node.log";
/// Process ids of the servers of [`Machine::echo`].
const SERVERS: &str = "/run/overlay-echo.pids";

/// A machine that is a node.
#[derive(Debug)]
pub struct Machine {
    /// Its name and addresses, those of a node of a lab.
    pub node: Node,
    /// Where its shell is; `None` for this machine.
    shell: Option<SocketAddr>,
}

/// Packets that an agent has sent to and received from its only peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Traffic {
    pub sent: u64,
    pub sent_bytes: u64,
    pub received: u64,
    pub received_bytes: u64,
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            sent_bytes: self.sent_bytes - earlier.sent_bytes,
            received: self.received - earlier.received,
            received_bytes: self.received_bytes - earlier.received_bytes,
        }
    }
}

impl Machine {
    /// Runs a shell's command line that must succeed; all that it prints.
    pub fn run(&self, line: &str) -> Result<String> {
        let Some(shell) = self.shell else {
            return run::checked(&["sh".to_owned(), "-c".to_owned(), line.to_owned()]);
        };
        let fault = |why: String| Error::output(format!("on {shell}: {line}"), why);
        match ask(shell, line) {
            Ok((output, status)) if status == "0" => Ok(output),
            Ok((output, status)) => Err(fault(format!("status {status}: {output}"))),
            Err(error) => Err(fault(error.to_string())),
        }
    }

    /// Runs a command line in one of its containers.
    pub fn inside(&self, container: &Container, line: &str) -> Result<String> {
        self.run(&format!("ip netns exec {} {line}", container.namespace))
    }

    /// Its only container that a test needs.
    pub fn container(&self) -> &Container {
        &self.node.containers[0]
    }

    /// Runs a command of its agent.
    pub fn agent(&self, command: &str) -> Result<String> {
        self.run(&format!(
            "overlay-agent {command} --instance {}",
            self.node.namespace
        ))
    }

    /// Has its container send back what arrives on a port, and tells which.
    pub fn echo(&self) -> Result<u16> {
        let container = self.container();
        for server in [
            format!("socat -t 60 TCP6-LISTEN:{ECHO},ipv6only=0,reuseaddr,fork EXEC:cat"),
            format!("socat -T 60 -b 66000 UDP6-LISTEN:{ECHO},ipv6only=0,reuseaddr,fork PIPE"),
        ] {
            self.run(&format!(
                "ip netns exec {} setsid {server} </dev/null >/dev/null 2>&1 & echo $! >>{SERVERS}",
                container.namespace
            ))?;
        }
        for kind in ["tcp", "udp"] {
            let listening = format!("ss --no-header --listening --{kind} sport = :{ECHO}");
            self.until(|| match self.inside(container, &listening) {
                Ok(found) if !found.trim().is_empty() => None,
                other => Some(format!("nobody listens: {other:?}")),
            })?;
        }
        Ok(ECHO)
    }

    /// Its agent's counters.
    pub fn traffic(&self) -> Result<Traffic> {
        let status = self.status()?;
        let traffic = &status["networks"][0]["peers"][0]["traffic"];
        let count = |name: &str| {
            traffic[name]
                .as_u64()
                .ok_or_else(|| self.fault(format!("no {name} in {status}")))
        };
        Ok(Traffic {
            sent: count("tx_packets")?,
            sent_bytes: count("tx_bytes")?,
            received: count("rx_packets")?,
            received_bytes: count("rx_bytes")?,
        })
    }

    /// The content of a map of counters, for messages.
    pub fn count(&self, map: &str) -> Result<String> {
        self.run(&format!(
            "bpftool map dump pinned /sys/fs/bpf/overlay/{}/v*/{map}",
            self.node.namespace
        ))
    }

    /// Its agent's status.
    pub fn status(&self) -> Result<Value> {
        let text = self.agent("status --output json")?;
        serde_json::from_str(&text).map_err(|error| self.fault(format!("{error} in {text}")))
    }

    fn start(&self, config: &Config) -> Result<()> {
        let write = Step::Write {
            path: CONFIG.into(),
            text: config.to_toml(),
        };
        self.run(&write.to_string())?;
        self.run(&format!(
            "setsid overlay-agent run --config {CONFIG} </dev/null >{LOG} 2>&1 &"
        ))
        .map(drop)
    }

    fn await_health(&self) -> Result<()> {
        self.until(|| {
            let error = self.agent("status").err()?;
            let log = self.run(&format!("tail -n 20 {LOG}"));
            Some(format!("{error}; it logged {log:?}"))
        })
    }

    fn until(&self, ask: impl FnMut() -> Option<String>) -> Result<()> {
        poll::until_well_within(PATIENCE, ask).map_err(|complaint| self.fault(complaint))
    }

    fn fault(&self, why: String) -> Error {
        Error::output(self.node.namespace.clone(), why)
    }
}

/// The output of a command there, and its exit status.
///
/// The connection's end would tell nothing: it waits for what goes on in the background.
fn ask(shell: SocketAddr, line: &str) -> io::Result<(String, String)> {
    const STATUS: &str = "overlay-status: ";
    let mut stream = TcpStream::connect_timeout(&shell, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let script = format!("{{ {line}\n}} </dev/null 2>&1\necho \"\n{STATUS}$?\"\n");
    stream.write_all(script.as_bytes())?;
    let mut output = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if let Some(status) = line.strip_prefix(STATUS) {
            return Ok((output, status.to_owned()));
        }
        output.push_str(&line);
        output.push('\n');
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Both machines, with an agent on each until the value goes.
#[derive(Debug)]
pub struct Machines {
    /// This one, and the other.
    pub both: [Machine; 2],
    ended: bool,
}

impl Machines {
    /// Starts both agents with a lab's configuration, changed as the test wants it.
    pub fn up(shape: Shape, change: impl Fn(&mut Config)) -> Result<Self> {
        let shell = env::var(SECOND).map_err(|error| {
            Error::output(
                SECOND,
                format!("{error}: it tells where the second machine's shell is"),
            )
        })?;
        let shell: SocketAddr = shell
            .parse()
            .map_err(|error| Error::output(format!("{SECOND}={shell}"), error))?;
        let topology = Topology::new(shape);
        let machine = |number: usize, shell| Machine {
            node: topology.nodes[number].clone(),
            shell,
        };
        let machines = Self {
            both: [machine(0, None), machine(1, Some(shell))],
            ended: false,
        };
        for machine in &machines.both {
            let mut config = agents::config(&topology, &machine.node);
            change(&mut config);
            machine.start(&config)?;
        }
        machines.both.iter().try_for_each(Machine::await_health)?;
        Ok(machines)
    }

    /// Ends what was started, and says whether that worked.
    pub fn down(mut self) -> Result<()> {
        self.ended = true;
        self.end()
    }

    fn end(&self) -> Result<()> {
        self.both.iter().try_for_each(|machine| {
            machine.run(&format!(
                "if [ -e {SERVERS} ]; then kill $(cat {SERVERS}); rm {SERVERS}; fi"
            ))?;
            machine.agent("down").map(drop)
        })
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Err(error) = self.end() {
            eprintln!("the agents were not ended: {error}");
        }
    }
}
