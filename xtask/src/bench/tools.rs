//! The measuring programs, each in its namespace and on its core.

use std::{
    fs,
    io::Read,
    net::Ipv4Addr,
    process::{Child, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_tests::{
    processes::MARK,
    run::command,
    script::{inside, words},
};

use super::{interrupt, labs::Way};

/// How long a server may take until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(5);
/// How often a process is asked.
const POLL: Duration = Duration::from_millis(10);

/// A running program, which ends with this value.
pub(crate) struct Tool {
    line: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// What a server waits on.
#[derive(Clone, Copy)]
pub(crate) enum Socket {
    Tcp(Ipv4Addr, u16),
    Udp(Ipv4Addr, u16),
}

impl Tool {
    /// Starts a program in a namespace of a lab and on a core.
    pub(crate) fn start(way: &Way, namespace: &str, core: usize, line: &str) -> Result<Self> {
        let argv = words(inside(namespace, format_args!("taskset -c {core} {line}")));
        let mut child = command(&argv)
            // Should this process be killed, `lab down` finds what it leaves.
            .env(MARK, way.lab.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run `{line}`"))?;
        Ok(Self {
            line: line.to_owned(),
            stdout: child.stdout.take().map(read_all),
            stderr: child.stderr.take().map(read_all),
            child,
        })
    }

    /// Waits until the program listens.
    pub(crate) fn listening(mut self, socket: Socket) -> Result<Self> {
        let deadline = Instant::now() + LISTENS_WITHIN;
        while !self.has(socket) {
            if let Some(status) = self.child.try_wait()? {
                let said = collected(self.stderr.take()) + &collected(self.stdout.take());
                bail!("`{}` ended ({status}): {said}", self.line);
            }
            ensure!(
                Instant::now() < deadline,
                "`{}` did not listen within {} s",
                self.line,
                LISTENS_WITHIN.as_secs()
            );
            ensure!(!interrupt::requested(), "interrupted");
            thread::sleep(POLL);
        }
        Ok(self)
    }

    /// The output of a program that ends by itself, and soon.
    pub(crate) fn finish(mut self, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(!interrupt::requested(), "interrupted");
            ensure!(
                Instant::now() < deadline,
                "`{}` did not end within {} s",
                self.line,
                within.as_secs()
            );
            thread::sleep(POLL);
        };
        let stdout = collected(self.stdout.take());
        ensure!(
            status.success(),
            "`{}` failed ({status}): {} {}",
            self.line,
            collected(self.stderr.take()).trim(),
            stdout.trim()
        );
        Ok(stdout)
    }

    /// Whether the program, in its namespace, has this socket open.
    fn has(&self, socket: Socket) -> bool {
        let (table, state, address, port) = match socket {
            Socket::Tcp(address, port) => ("tcp", "0A", address, port),
            Socket::Udp(address, port) => ("udp", "07", address, port),
        };
        let path = format!("/proc/{}/net/{table}", self.child.id());
        let Ok(text) = fs::read_to_string(&path) else {
            // It has ended; the caller will see how.
            return false;
        };
        is_open(&text, address, port, state)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // It has ended already, or it is a server that never would; either is in order.
        let _ended = self.child.kill();
        let _collected = self.child.wait();
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        match pipe.read_to_end(&mut bytes) {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(its output cannot be read: {error})"),
        }
    })
}

fn collected(reader: Option<JoinHandle<String>>) -> String {
    reader.map_or_else(String::new, |reader| {
        reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether `/proc/net/{tcp,udp}` has a socket with this local address in this state.
fn is_open(table: &str, address: Ipv4Addr, port: u16, state: &str) -> bool {
    // The address is a 32-bit number in the byte order of the machine, from network order.
    let local = format!("{:08X}:{port:04X}", u32::from_ne_bytes(address.octets()));
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(local.as_str()) && fields.nth(1) == Some(state)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0A02F40A:1451 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 58264 1 0000000000000000 100 0 0 10 0
   1: 0A02F40A:1451 0A01F40A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 58265 1 0000000000000000 100 0 0 10 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn a_listening_socket_is_found_by_address_port_and_state() {
        let address = Ipv4Addr::new(10, 244, 2, 10);
        assert!(is_open(TABLE, address, 5201, "0A"));
        assert!(!is_open(TABLE, address, 5202, "0A"));
        assert!(!is_open(TABLE, Ipv4Addr::new(10, 244, 2, 11), 5201, "0A"));
        assert!(!is_open(TABLE, address, 5201, "07"));
    }
}
