//! Which packets are wanted, in the words of tcpdump: `host 10.244.1.10 and not port 22`.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::flow::{Flow, Flows};

/// A choice among packets, by their flow or by that of the tunnel that they are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice(Term);

/// What cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "understand the filter {text:?}: {fault}; write it as \"host 10.244.1.10 and tcp port 80\": \
     [src|dst] host ADDRESS, net PREFIX or port NUMBER, and arp, ip, ip6, icmp, icmp6, tcp or udp, \
     joined by and, or, not and parentheses"
)]
pub struct NotUnderstood {
    text: String,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Word(String),
    Value(&'static str, String),
    End,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word:?} is not expected there"),
            Self::Value(kind, word) => write!(f, "{word:?} is not {kind}"),
            Self::End => f.write_str("something is missing at its end"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Any(Vec<Term>),
    All(Vec<Term>),
    Not(Box<Term>),
    Protocol(String),
    /// IPv4 or IPv6.
    Family(bool),
    Address(Side, IpNet),
    Port(Side, u16),
}

/// Whose address or port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
    Either,
}

impl Choice {
    /// Reads the words of a command line; none chooses everything.
    ///
    /// # Errors
    /// What is wrong with them, and what would be right.
    pub fn of(words: &[String]) -> Result<Self, NotUnderstood> {
        let text = words.join(" ");
        let apart = text.replace('(', " ( ").replace(')', " ) ");
        let mut words = Words {
            all: apart.split_whitespace().collect(),
            at: 0,
        };
        let read = if words.all.is_empty() {
            Ok(Term::All(Vec::new()))
        } else {
            words.any().and_then(|term| match words.peek() {
                None => Ok(term),
                Some(word) => Err(Fault::Word(word.to_owned())),
            })
        };
        read.map(Self)
            .map_err(|fault| NotUnderstood { text, fault })
    }

    /// Whether a packet is chosen.
    pub fn takes(&self, flows: &Flows) -> bool {
        self.0.takes(flows)
    }
}

impl Term {
    fn takes(&self, flows: &Flows) -> bool {
        let some = |is: &dyn Fn(&Flow) -> bool| {
            let mut both = flows.inner.iter().chain(&flows.outer);
            both.any(is)
        };
        match self {
            Self::Any(terms) => terms.iter().any(|term| term.takes(flows)),
            Self::All(terms) => terms.iter().all(|term| term.takes(flows)),
            Self::Not(term) => !term.takes(flows),
            Self::Protocol(protocol) => some(&|flow| flow.protocol == *protocol),
            Self::Family(is_v4) => some(&|flow| {
                flow.protocol != "arp" && flow.source.is_some_and(|ip| ip.is_ipv4() == *is_v4)
            }),
            Self::Address(side, net) => some(&|flow| {
                let is = |address: Option<IpAddr>| address.is_some_and(|ip| net.contains(&ip));
                side.is(is(flow.source), is(flow.destination))
            }),
            Self::Port(side, port) => some(&|flow| {
                let is = |of: Option<u16>| of == Some(*port);
                side.is(is(flow.source_port), is(flow.destination_port))
            }),
        }
    }
}

impl Side {
    const fn is(self, source: bool, destination: bool) -> bool {
        match self {
            Self::Source => source,
            Self::Destination => destination,
            Self::Either => source || destination,
        }
    }
}

struct Words<'t> {
    all: Vec<&'t str>,
    at: usize,
}

impl<'t> Words<'t> {
    fn peek(&self) -> Option<&'t str> {
        self.all.get(self.at).copied()
    }

    fn next(&mut self) -> Result<&'t str, Fault> {
        let word = self.peek().ok_or(Fault::End)?;
        self.at += 1;
        Ok(word)
    }

    /// Takes the next word if it is one of these.
    fn takes(&mut self, words: &[&str]) -> bool {
        let is = self.peek().is_some_and(|word| words.contains(&word));
        self.at += usize::from(is);
        is
    }

    fn any(&mut self) -> Result<Term, Fault> {
        let mut terms = vec![self.all()?];
        while self.takes(&["or", "||"]) {
            terms.push(self.all()?);
        }
        Ok(Term::Any(terms))
    }

    fn all(&mut self) -> Result<Term, Fault> {
        let mut terms = vec![self.one()?];
        while self.takes(&["and", "&&"]) {
            terms.push(self.one()?);
        }
        Ok(Term::All(terms))
    }

    fn one(&mut self) -> Result<Term, Fault> {
        if self.takes(&["not", "!"]) {
            return Ok(Term::Not(Box::new(self.one()?)));
        }
        if self.takes(&["("]) {
            let term = self.any()?;
            return if self.takes(&[")"]) {
                Ok(term)
            } else {
                Err(self
                    .peek()
                    .map_or(Fault::End, |word| Fault::Word(word.to_owned())))
            };
        }
        let protocol = match self.peek().ok_or(Fault::End)? {
            "ip" => Term::Family(true),
            "ip6" => Term::Family(false),
            "icmp6" => Term::Protocol("icmpv6".to_owned()),
            word @ ("arp" | "icmp" | "tcp" | "udp") => Term::Protocol(word.to_owned()),
            _ => return self.end(),
        };
        self.at += 1;
        // `tcp port 80` is both.
        if matches!(self.peek(), Some("src" | "dst" | "host" | "net" | "port")) {
            return Ok(Term::All(vec![protocol, self.end()?]));
        }
        Ok(protocol)
    }

    /// `[src|dst] [host|net|port] VALUE`.
    fn end(&mut self) -> Result<Term, Fault> {
        let side = if self.takes(&["src"]) {
            Side::Source
        } else if self.takes(&["dst"]) {
            Side::Destination
        } else {
            Side::Either
        };
        if self.takes(&["port"]) {
            let word = self.next()?;
            let port = word.parse();
            return port
                .map(|port| Term::Port(side, port))
                .map_err(|_| Fault::Value("a port", word.to_owned()));
        }
        if self.takes(&["net"]) {
            let word = self.next()?;
            let net = word.parse();
            return net
                .map(|net| Term::Address(side, net))
                .map_err(|_| Fault::Value("a prefix", word.to_owned()));
        }
        let is_named = self.takes(&["host"]);
        let word = self.next()?;
        match word.parse::<IpAddr>() {
            Ok(address) => Ok(Term::Address(side, address.into())),
            Err(_) if is_named => Err(Fault::Value("an IP address", word.to_owned())),
            Err(_) => Err(Fault::Word(word.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, Flow, Flows};

    fn flow(protocol: &str, source: &str, destination: &str, ports: Option<[u16; 2]>) -> Flow {
        Flow {
            source: source.parse().ok(),
            destination: destination.parse().ok(),
            protocol: protocol.to_owned(),
            source_port: ports.map(|[source, _]| source),
            destination_port: ports.map(|[_, destination]| destination),
        }
    }

    fn choice(text: &str) -> Choice {
        Choice::of(&[text.to_owned()]).unwrap()
    }

    #[test]
    fn packets_are_chosen_as_tcpdump_does() {
        let inner = flow("tcp", "10.244.1.10", "10.244.2.10", Some([50_000, 80]));
        let outer = flow("udp", "192.0.2.1", "192.0.2.2", Some([51_820, 4789]));
        let flows = Flows {
            inner: Some(inner),
            outer: Some(outer),
            vni: Some(1),
            quoted: None,
        };
        for (text, takes) in [
            ("", true),
            ("host 10.244.1.10", true),
            ("10.244.2.10", true),
            ("host 10.244.1.11", false),
            ("src host 10.244.1.10 and dst 10.244.2.10", true),
            ("dst host 10.244.1.10", false),
            ("net 10.244.2.0/24", true),
            ("src net 10.244.2.0/24", false),
            ("port 80", true),
            ("src port 80", false),
            ("tcp port 80", true),
            ("tcp dst port 81 or udp", true),
            ("icmp or arp", false),
            ("not host 10.244.1.10", false),
            ("not (icmp or port 22) and ip", true),
            ("ip6", false),
            // The tunnel's is asked, too.
            ("host 192.0.2.2 && udp port 4789", true),
            ("! host 192.0.2.2", false),
        ] {
            assert_eq!(choice(text).takes(&flows), takes, "{text:?}");
        }
        let words = ["host", "10.244.1.10"].map(str::to_owned);
        assert!(Choice::of(&words).unwrap().takes(&flows));
        let arp = Flows {
            inner: Some(flow("arp", "10.244.1.10", "10.244.1.1", None)),
            outer: None,
            vni: None,
            quoted: None,
        };
        assert!(choice("arp and host 10.244.1.1").takes(&arp));
        assert!(!choice("ip").takes(&arp));
        let unreadable = Flows {
            inner: None,
            outer: None,
            vni: None,
            quoted: None,
        };
        assert!(!choice("ip or ip6 or arp").takes(&unreadable));
        assert!(choice("not port 22").takes(&unreadable));
    }

    #[test]
    fn what_is_not_understood_is_told_with_what_would_be() {
        for (text, fault) in [
            ("host", "something is missing at its end"),
            ("host web", "\"web\" is not an IP address"),
            ("web", "\"web\" is not expected there"),
            ("port http", "\"http\" is not a port"),
            ("port 65536", "\"65536\" is not a port"),
            ("net 10.244.0.0/33", "\"10.244.0.0/33\" is not a prefix"),
            ("host 10.0.0.1 port 80", "\"port\" is not expected there"),
            ("(tcp", "something is missing at its end"),
            ("tcp)", "\")\" is not expected there"),
            ("tcp and", "something is missing at its end"),
            ("not", "something is missing at its end"),
        ] {
            let refused = Choice::of(&[text.to_owned()]).unwrap_err().to_string();
            assert!(refused.contains(fault), "{text:?}: {refused}");
            assert!(refused.contains("host 10.244.1.10"), "{refused}");
        }
    }
}
