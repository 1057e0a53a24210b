//! Captures on the underlay, by tcpdump and tshark.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, ChildStderr, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    frames::{self, ethertype},
    names::LabName,
    poll,
    raw::Socket,
    run,
    script::{inside, shell, words},
    state,
    topology::{Node, UNDERLAY},
};

/// As much of a packet as is kept. The buffer has slots of this size, so that with the whole
/// of a packet it would have a handful of them.
const SNAPLEN: usize = 2048;
/// Size of the buffer in KiB.
const BUFFER: usize = 8192;
/// The last frame of a capture, of a type that nobody listens to.
const END: &[u8] = b"end of the lab's capture";

/// A capture under way on a node's underlay; dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    stderr: BufReader<ChildStderr>,
    file: PathBuf,
    node: Node,
}

impl Capture {
    /// Starts to capture what a filter matches, and returns when it does.
    pub fn start(lab: &LabName, node: &Node, filter: &str) -> Result<Self> {
        let file = state::folder(lab).join(format!("{}.pcap", node.namespace));
        let tcpdump = format!(
            "tcpdump -Z root -n -U -s {SNAPLEN} -B {BUFFER} --immediate-mode -i {UNDERLAY} -w {} ({filter}) or ether proto {}",
            file.display(),
            ethertype::EXPERIMENT
        );
        let argv = words(inside(&node.namespace, tcpdump));
        let spawned = run::command(&argv)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|source| Error::Spawn {
            argv: argv.clone(),
            source,
        })?;
        let stderr = child.stderr.take();
        let stderr = stderr.ok_or_else(|| not_understood(&argv, "no standard error"))?;
        let mut capture = Self {
            child,
            stderr: BufReader::new(stderr),
            file,
            node: node.clone(),
        };
        let mut said = String::new();
        while !said.contains("listening on") {
            let read = capture
                .stderr
                .read_line(&mut said)
                .map_err(Error::file("read from", "tcpdump"))?;
            if read == 0 {
                return Err(not_understood(&argv, &said));
            }
        }
        Ok(capture)
    }

    /// Ends the capture when it has seen all that was sent so far; every packet with all its
    /// fields, as tshark decodes them.
    pub fn finish(mut self) -> Result<Vec<Packet>> {
        self.mark_the_end()?;
        self.stop()?;
        let mut said = String::new();
        self.stderr
            .read_to_string(&mut said)
            .map_err(Error::file("read from", "tcpdump"))?;
        if !said.contains("\n0 packets dropped by kernel") {
            return Err(not_understood(&words("tcpdump"), &said));
        }
        let file = self.file.to_string_lossy().into_owned();
        // Fields that occur twice, such as the two IP headers of a tunnel packet, become lists.
        let tshark = format!(
            "tshark -n -r {file} -T json --no-duplicate-keys -o ip.check_checksum:TRUE \
             -d udp.port==8472,vxlan -Y !(eth.type=={})",
            ethertype::EXPERIMENT
        );
        let argv = words(tshark);
        let text = run::checked(&argv)?;
        let packets: Vec<Value> = serde_json::from_str(&text)
            .map_err(|error| not_understood(&argv, &error.to_string()))?;
        Ok(packets
            .into_iter()
            .map(|packet| Packet(packet["_source"]["layers"].clone()))
            .collect())
    }

    /// Sends a last packet and waits until it is in the file: then the others are, too.
    fn mark_the_end(&self) -> Result<()> {
        Socket::open(&self.node.namespace, UNDERLAY)?.send(&frames::ethernet(
            [0xff; 6],
            [0x02; 6],
            ethertype::EXPERIMENT,
            END,
        ))?;
        let seen = poll::until_well(|| match fs::read(&self.file) {
            Ok(bytes) if bytes.windows(END.len()).any(|part| part == END) => None,
            Ok(bytes) => Some(format!("{} bytes without the last packet", bytes.len())),
            Err(error) => Some(error.to_string()),
        });
        seen.map_err(|why| Error::output(format!("tcpdump -w {}", self.file.display()), why))
    }

    fn stop(&mut self) -> Result<()> {
        let file = |operation| Error::file(operation, &self.file);
        if self
            .child
            .try_wait()
            .map_err(file("wait for the capture to"))?
            .is_none()
        {
            let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
            kill(pid, Signal::SIGINT).map_err(|errno| file("end the capture to")(errno.into()))?;
            self.child
                .wait()
                .map_err(Error::file("wait for the capture to", &self.file))?;
        }
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("tcpdump was not ended: {error}");
        }
    }
}

fn not_understood(argv: &[String], why: &str) -> Error {
    Error::output(shell(argv), why)
}

/// A decoded packet.
#[derive(Clone, Debug)]
pub struct Packet(Value);

impl Packet {
    /// A field of the outermost header of its protocol: `("ip", "ip.ttl")`.
    pub fn outer(&self, layer: &str, field: &str) -> Option<&str> {
        self.at(layer, field, 0)
    }

    /// A field of the header inside the tunnel.
    pub fn inner(&self, layer: &str, field: &str) -> Option<&str> {
        self.at(layer, field, 1)
    }

    fn at(&self, layer: &str, field: &str, index: usize) -> Option<&str> {
        let layer = match &self.0[layer] {
            Value::Array(layers) => layers.get(index)?,
            single if index == 0 => single,
            _ => return None,
        };
        find(layer, field)
    }

    /// Whether tshark found anything malformed in it.
    pub fn is_malformed(&self) -> bool {
        self.0.get("_ws.malformed").is_some()
    }

    /// The protocols in it, outermost first, such as `eth:ethertype:ip:udp:vxlan:eth:…`.
    pub fn protocols(&self) -> &str {
        self.0["frame"]["frame.protocols"]
            .as_str()
            .unwrap_or_default()
    }
}

/// A field of a layer, also when tshark puts it below another.
fn find<'a>(layer: &'a Value, field: &str) -> Option<&'a str> {
    let fields = layer.as_object()?;
    if let Some(value) = fields.get(field).and_then(Value::as_str) {
        return Some(value);
    }
    fields.values().find_map(|value| find(value, field))
}
