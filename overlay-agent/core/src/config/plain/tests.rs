use super::Plain;

const TEXT: &str = r#"[node] # this one
name = "n"
underlay = "eth1"
[[networks]]
name = "a"
vni = 1
cidr = "10.0.0.0/8"
subnet = "10.1.0.0/24"

[[networks.peers]]
name = "p0"
vtep = "192.0.2.1" # its address

  subnet = [ "10.2.0.0/24" , "fd00::/64", ]
# the next one
[[networks.peers]]
	subnet = "10.3.0.0/24"
vtep="192.0.2.2"
name = "p1"
mac = "02:00:00:00:00:01"
udp6_checksum = true
[networks.security]
martians = "accept"
[[networks]]
name = "b"
vni = 2
cidr = "10.0.0.0/8"
subnet = "10.1.0.0/24"
[[networks.peers]]
name = "p2"
vtep = "192.0.2.3"
subnet = ["10.4.0.0/24"]"#;

/// As the TOML parser reads it: values by network, and the lines they are on.
fn parsed(text: &str) -> Vec<Vec<String>> {
    let raw: crate::config::raw::Config = toml::from_str(text).unwrap();
    let line = |place| text[..place].matches('\n').count() + 1;
    let mut networks = Vec::new();
    for network in &raw.networks {
        let peers = network.get_ref().peers.iter();
        networks.push(
            peers
                .map(|peer| show(line, &peer.get_ref().written()))
                .collect(),
        );
    }
    networks
}

fn plain(text: &str) -> Vec<Vec<String>> {
    let plain = Plain::of(text);
    let raw: crate::config::raw::Config = toml::from_str(&plain.rest).unwrap();
    let mut networks = Vec::new();
    for (index, network) in raw.networks.iter().enumerate() {
        assert!(network.get_ref().peers.is_empty());
        let peers = plain.of_network(index).iter();
        let line = |place| plain.line(place);
        networks.push(
            peers
                .map(|peer| show(line, &peer.written().unwrap()))
                .collect(),
        );
    }
    networks
}

fn show(line: impl Fn(usize) -> usize, peer: &crate::config::raw::Written<'_>) -> String {
    let line = |span: std::ops::Range<usize>| line(span.start);
    format!(
        "{} {} {:?} {:?} {:?} lines {} {} {} {:?}",
        peer.name.get_ref(),
        peer.vtep.get_ref(),
        peer.subnet.get_ref(),
        peer.mac.as_ref().map(toml::Spanned::get_ref),
        peer.udp6_checksum.as_ref().map(toml::Spanned::get_ref),
        line(peer.name.span()),
        line(peer.vtep.span()),
        line(peer.subnet.span()),
        peer.mac.as_ref().map(|mac| line(mac.span())),
    )
}

#[test]
fn plain_peers_are_read_as_the_parser_reads_them() {
    assert_eq!(plain(TEXT), parsed(TEXT));
    let windows = TEXT.replace('\n', "\r\n");
    assert_eq!(plain(&windows), parsed(&windows));
}

#[test]
fn whatever_is_not_plain_is_left_to_the_parser() {
    for (from, to) in [
        ("\"p0\"", "'p0'"),
        ("\"p0\"", "\"p\\u0030\""),
        ("name = \"p0\"\n", ""),
        ("name = \"p0\"\n", "name = \"p0\"\nname = \"p0\"\n"),
        ("name = \"p0\"\n", "name = \"p0\"\nnme = \"p0\"\n"),
        ("name = \"p0\"", "name = \"p0\" \"p\""),
        ("subnet = [ \"10.2.0.0/24\"", "subnet = [\n\"10.2.0.0/24\""),
        ("subnet = [ \"10.2.0.0/24\" ,", "subnet = [ \"10.2.0.0/24\""),
        ("mac = ", "peers.mac = "),
        ("[[networks.peers]]", "[[ networks.peers ]]"),
        (
            "[[networks.peers]]",
            "[networks.peers.x]\n[[networks.peers]]",
        ),
        ("vni = 1\n", "vni = 1\npeers = []\n"),
        ("vni = 1\n", "vni = 1\nname2 = \"\"\"\n\"\"\"\n"),
        ("[node] # this one", "[[networks.peers]]\n[node]"),
    ] {
        assert!(TEXT.contains(from), "{from}");
        let text = TEXT.replacen(from, to, 1);
        assert_eq!(Plain::of(&text).rest, text, "{from} → {to}");
    }
}

#[test]
fn the_lines_of_the_rest_are_those_of_the_text() {
    let plain = Plain::of(TEXT);
    assert_eq!(plain.of_network(0).len(), 2);
    for word in [
        "[node]",
        "name = \"a\"",
        "[networks.security]",
        "name = \"b\"",
    ] {
        let place = plain.rest.find(word).unwrap();
        let line = TEXT
            .lines()
            .position(|line| line.starts_with(word))
            .unwrap();
        assert_eq!(plain.line(place), line + 1, "{word}");
    }
}
