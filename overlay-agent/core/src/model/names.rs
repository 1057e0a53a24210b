//! Names of containers, and where other names come from.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::InvalidValue;

/// Where the names of containers are answered from, if at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The domain that each network has its part of.
    pub zone: Zone,
    /// Servers for all other names; the node's own name servers when empty.
    pub forward: Vec<NameServer>,
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(pub overlay_names::Zone);

impl FromStr for Zone {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|_| InvalidValue::Zone(text.to_owned()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name server, written as an address or an address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameServer(pub SocketAddr);

impl FromStr for NameServer {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let address = text.parse::<IpAddr>();
        let address = address.map(|it| SocketAddr::new(it, overlay_names::PORT));
        let address = address.or_else(|_| text.parse());
        address
            .map(Self)
            .map_err(|_| InvalidValue::NameServer(text.to_owned()))
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == overlay_names::PORT {
            return self.0.ip().fmt(f);
        }
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_is_an_address_with_or_without_a_port() {
        for text in [
            "192.0.2.53",
            "192.0.2.53:5353",
            "2001:db8::53",
            "[2001:db8::53]:5353",
        ] {
            let server: NameServer = text.parse().unwrap();
            assert_eq!(server.to_string(), text);
        }
        assert!("dns.example".parse::<NameServer>().is_err());
    }
}
