//! Peers as nearly every file has them: tables of plain lines.
//!
//! A TOML parser keeps a tree of everything that it has read, which for very many peers
//! takes seconds and a multiple of their memory. So the tables of peers are taken out of
//! the text beforehand, where all of them are so simple that there is only one way to read
//! them. If anything else is found, the whole text is left to the parser.
//!
//! A place in the rest is an offset, as the parser tells it; a place in what was taken out is
//! the number of the line, after all offsets.

use std::borrow::Cow;

use toml::Spanned;

use super::raw;

/// Where line numbers begin: no text is that long.
const LINES: usize = 1 << 40;

/// Bytes of a peer's lines, at least.
const SHORTEST: usize = 64;

/// A text in two parts.
pub(super) struct Plain<'a> {
    /// The text without its peers.
    pub(super) rest: Cow<'a, str>,
    /// Lines that were taken out, with the offset that they would begin at.
    taken: Vec<(usize, usize)>,
    /// The peers, in the order of the text.
    peers: Vec<Peer<'a>>,
}

/// A peer's values, each with its place in the rest.
#[derive(Default)]
pub(super) struct Peer<'a> {
    /// Which of the networks it is of, counted from 0.
    network: usize,
    name: Option<(usize, &'a str)>,
    vtep: Option<(usize, &'a str)>,
    /// A text or a list of them.
    subnet: Option<(usize, &'a str)>,
    mac: Option<(usize, &'a str)>,
    udp6_checksum: Option<(usize, bool)>,
    public_key: Option<(usize, &'a str)>,
    next_public_key: Option<(usize, &'a str)>,
}

/// Headers besides that of a peer after which lines may stand that nothing depends on here.
const OTHERS: [&str; 4] = [
    "[node]",
    "[cluster]",
    "[networks.security]",
    "[[endpoints]]",
];

impl<'a> Plain<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self::split(text).unwrap_or(Self {
            rest: Cow::Borrowed(text),
            taken: Vec::new(),
            peers: Vec::new(),
        })
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, place: usize) -> usize {
        if let Some(line) = place.checked_sub(LINES) {
            return line;
        }
        let before = self.rest.get(..place).unwrap_or(&self.rest);
        let taken = self.taken.iter().filter(|(at, _)| *at <= place);
        1 + before.matches('\n').count() + taken.map(|(_, lines)| lines).sum::<usize>()
    }

    /// The peers of one of the networks.
    pub(super) fn of_network(&self, network: usize) -> &[Peer<'a>] {
        let first = self.peers.partition_point(|peer| peer.network < network);
        let end = self.peers.partition_point(|peer| peer.network <= network);
        &self.peers[first..end]
    }

    fn split(text: &'a str) -> Option<Self> {
        let mut rest = String::new();
        let mut peers = Vec::with_capacity(text.len() / SHORTEST);
        let mut networks: usize = 0;
        let mut current: Option<Peer<'a>> = None;
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for (line, number) in text.split_inclusive('\n').zip(1..) {
            let content = line.trim();
            if content.starts_with('[') {
                peers.extend(complete(current.take()).ok()?);
                match without_comment(content)? {
                    "[[networks.peers]]" => {
                        current = Some(Peer {
                            network: networks.checked_sub(1)?,
                            ..Peer::default()
                        });
                    }
                    "[[networks]]" => networks += 1,
                    other if OTHERS.contains(&other) => {}
                    _ => return None,
                }
            } else if let Some(peer) = &mut current {
                peer.read(content, LINES + number)?;
            } else if is_special(content) {
                return None;
            }
            match taken.last_mut() {
                _ if current.is_none() => rest.push_str(line),
                Some((at, lines)) if *at == rest.len() => *lines += 1,
                _ => taken.push((rest.len(), 1)),
            }
        }
        peers.extend(complete(current).ok()?);
        Some(Self {
            rest: Cow::Owned(rest),
            taken,
            peers,
        })
    }
}

/// A peer that lacks something is the parser's to complain of.
struct Incomplete;

/// The peer that ends here, if there is one.
fn complete(peer: Option<Peer<'_>>) -> Result<Option<Peer<'_>>, Incomplete> {
    match peer {
        Some(peer) if peer.name.and(peer.vtep).and(peer.subnet).is_none() => Err(Incomplete),
        peer => Ok(peer),
    }
}

/// Whether a line outside of a peer may continue on others, or make peers in another way.
fn is_special(line: &str) -> bool {
    line.contains("\"\"\"")
        || line.contains("'''")
        || ["peers", "networks", "\"", "'"]
            .iter()
            .any(|start| line.starts_with(start))
}

impl<'a> Peer<'a> {
    fn read(&mut self, line: &'a str, place: usize) -> Option<()> {
        if line.is_empty() || line.starts_with('#') {
            return without_comment(line).map(|_| ());
        }
        let (key, value) = line.split_once('=')?;
        let value = value.trim_start();
        let field = match key.trim_end() {
            "name" => &mut self.name,
            "vtep" => &mut self.vtep,
            "mac" => &mut self.mac,
            "public_key" => &mut self.public_key,
            "next_public_key" => &mut self.next_public_key,
            "subnet" => {
                let end = if value.starts_with('[') {
                    after_list(value)?
                } else {
                    text(value)?.1
                };
                without_comment(end)?.is_empty().then_some(())?;
                let value = &value[..value.len() - end.len()];
                return self.subnet.replace((place, value)).is_none().then_some(());
            }
            "udp6_checksum" => {
                let value = without_comment(value)?.parse().ok()?;
                let before = self.udp6_checksum.replace((place, value));
                return before.is_none().then_some(());
            }
            _ => return None,
        };
        let (value, end) = text(value)?;
        without_comment(end)?.is_empty().then_some(())?;
        field.replace((place, value)).is_none().then_some(())
    }

    /// The peer, if nothing is missing that it must have.
    pub(super) fn written(&self) -> Option<raw::Written<'a>> {
        let text = |(place, value): (usize, &'a str)| Spanned::new(place..place, value);
        let (place, subnets) = self.subnet?;
        // Nothing else in a text or a list of them has quotes.
        let subnets = subnets.split('"').skip(1).step_by(2).collect();
        Some(raw::Written {
            name: text(self.name?),
            vtep: text(self.vtep?),
            subnet: Spanned::new(place..place, subnets),
            mac: self.mac.map(text),
            udp6_checksum: self
                .udp6_checksum
                .map(|(place, value)| Spanned::new(place..place, value)),
            public_key: self.public_key.map(text),
            next_public_key: self.next_public_key.map(text),
        })
    }
}

/// The part of a line before its comment, if that has nothing that TOML forbids.
fn without_comment(line: &str) -> Option<&str> {
    if line.is_empty() {
        return Some(line);
    }
    if line
        .bytes()
        .any(|byte| byte.is_ascii_control() && byte != b'\t')
    {
        return None;
    }
    Some(
        line.split_once('#')
            .map_or(line, |(before, _)| before)
            .trim(),
    )
}

/// A text between quotes without escapes, and what follows.
fn text(value: &str) -> Option<(&str, &str)> {
    let value = value.strip_prefix('"')?;
    let special = |byte: u8| byte == b'"' || byte == b'\\' || byte.is_ascii_control();
    let (text, end) = value.split_at(value.bytes().position(special)?);
    Some((text, end.strip_prefix('"')?))
}

/// The rest of a line behind a list of such texts.
fn after_list(value: &str) -> Option<&str> {
    let mut rest = value.strip_prefix('[')?.trim_start();
    loop {
        if let Some(end) = rest.strip_prefix(']') {
            return Some(end);
        }
        rest = text(rest)?.1.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.starts_with(']') => {}
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests;
