//! etcd, asked by its JSON gateway over one connection.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::peers;

/// etcd takes no more operations in a transaction.
const MOST_OPERATIONS: usize = 128;

pub(super) struct Store {
    connection: BufReader<TcpStream>,
    address: SocketAddr,
}

impl Store {
    /// Connects from the namespace of this thread.
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connect to etcd")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            connection: BufReader::new(stream),
            address,
        })
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> Result<()> {
        let body = json!({ "key": base64(key), "value": base64(value) });
        self.ask("POST /v3/kv/put", &body.to_string()).map(drop)
    }

    pub(super) fn delete(&mut self, key: &str) -> Result<()> {
        let body = json!({ "key": base64(key) });
        self.ask("POST /v3/kv/deleterange", &body.to_string())
            .map(drop)
    }

    /// Puts all of them, many at once.
    pub(super) fn fill(&mut self, entries: &[(String, String)]) -> Result<()> {
        for entries in entries.chunks(MOST_OPERATIONS) {
            let puts = entries.iter().map(|(key, value)| {
                json!({ "requestPut": { "key": base64(key), "value": base64(value) } })
            });
            let body = json!({ "success": puts.collect::<Vec<Value>>() });
            self.ask("POST /v3/kv/txn", &body.to_string())?;
        }
        Ok(())
    }

    /// etcd's counters so far.
    pub(super) fn counters(&mut self) -> Result<Counters> {
        let text = self.ask("GET /metrics", "")?;
        let sum = |name: &str, with: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            let values = lines.filter(|line| line.contains(with)).filter_map(|line| {
                let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
                Some(whole(value))
            });
            values.sum()
        };
        Ok(Counters {
            lists: sum("grpc_server_msg_received_total{", "grpc_method=\"Range\""),
            renewals: sum(
                "grpc_server_msg_received_total{",
                "grpc_method=\"LeaseKeepAlive\"",
            ),
            watches: sum("grpc_server_msg_received_total{", "grpc_method=\"Watch\""),
            watch_answers: sum("grpc_server_msg_sent_total{", "grpc_method=\"Watch\""),
            sent_bytes: sum("etcd_network_client_grpc_sent_bytes_total ", ""),
        })
    }

    fn ask(&mut self, what: &str, body: &str) -> Result<String> {
        let request = format!(
            "{what} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.connection.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let mut length = None;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = Some(value.parse()?);
            }
        }
        let text = match length {
            Some(length) => self.bytes(length)?,
            None => self.chunks()?,
        };
        ensure!(status.contains(" 200 "), "{what}: {status}: {text}");
        Ok(text)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.connection.read_line(&mut line)? == 0 {
            bail!("etcd has ended the connection");
        }
        Ok(line.trim_end().to_owned())
    }

    fn bytes(&mut self, length: usize) -> Result<String> {
        let mut bytes = vec![0; length];
        self.connection.read_exact(&mut bytes)?;
        Ok(String::from_utf8(bytes)?)
    }

    /// A body of unknown length (RFC 9112 §7.1).
    fn chunks(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            let length = usize::from_str_radix(&self.line()?, 16).context("the size of a chunk")?;
            text.push_str(&self.bytes(length)?);
            self.line()?;
            if length == 0 {
                return Ok(text);
            }
        }
    }
}

/// Requests of clients, and the messages sent to them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) lists: u64,
    pub(super) renewals: u64,
    pub(super) watches: u64,
    pub(super) watch_answers: u64,
    pub(super) sent_bytes: u64,
}

impl Counters {
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            lists: self.lists - before.lists,
            renewals: self.renewals - before.renewals,
            watches: self.watches - before.watches,
            watch_answers: self.watch_answers - before.watch_answers,
            sent_bytes: self.sent_bytes - before.sent_bytes,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters: whole, and far below 2⁵³"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

/// RFC 4648 §4.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for bytes in text.as_bytes().chunks(3) {
        let at = |index: usize| u32::from(bytes.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = (bits >> (18 - 6 * place) & 63) as usize;
            out.push(if place <= bytes.len() {
                char::from(LETTERS[letter])
            } else {
                '='
            });
        }
    }
    out
}

/// The leases of so many nodes, with their keys.
pub(super) fn leases(peers: impl Iterator<Item = peers::Peer>) -> Vec<(String, String)> {
    peers.map(|peer| (peer.key(), peer.lease())).collect()
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text), expected);
        }
    }
}
