//! What matches of iptables ask for, as they stand in the kernel's memory.

use serde_json::{Value, json};

/// The matches that are understood: by what connection tracking says, by kinds of addresses, by marks.
pub(super) const KNOWN: [&str; 3] = ["conntrack", "addrtype", "mark"];
/// A match of those, and what it asks for: `struct xt_NAME_mtinfo` and the like of its revision.
pub(super) struct Asked {
    pub(super) name: &'static str,
    pub(super) revision: u32,
    pub(super) info: Vec<u8>,
}

impl Asked {
    /// What it asks for as nftables would say it, and whether that is all of it.
    pub(super) fn said(&self) -> (Vec<Value>, bool) {
        match self.name {
            "conntrack" => connections(self.revision, &self.info),
            "addrtype" => kinds(self.revision, &self.info).unwrap_or_default(),
            _ => marked(self.revision, &self.info).unwrap_or_default(),
        }
    }
}

fn word<const N: usize>(info: &[u8], place: usize) -> Option<[u8; N]> {
    info.get(place..)?.first_chunk().copied()
}

/// A match by kinds of addresses.
fn kinds(revision: u32, info: &[u8]) -> Option<(Vec<Value>, bool)> {
    /// By the number of the bit.
    const KINDS: [(u16, &str); 6] = [
        (1, "unicast"),
        (2, "local"),
        (3, "broadcast"),
        (4, "anycast"),
        (5, "multicast"),
        (6, "blackhole"),
    ];
    const ALL: u16 = 0b111_1110;
    let [source, destination] = [0, 2].map(|place| word(info, place).map(u16::from_ne_bytes));
    let (source, destination) = (source?, destination?);
    let number = |place| word(info, place).map(u32::from_ne_bytes);
    // `XT_ADDRTYPE_…`: whether it is inverted, and whether it is about a device's addresses alone.
    let (inverted, of_device) = match revision {
        0 => ([number(4)? != 0, number(8)? != 0], false),
        1 => {
            let flags = number(4)?;
            ([flags & 1 != 0, flags & 2 != 0], flags & 0b1100 != 0)
        }
        _ => return None,
    };
    let mut said = Vec::new();
    for (kinds, field, inverted) in [
        (source, "saddr", inverted[0]),
        (destination, "daddr", inverted[1]),
    ] {
        if kinds != 0 && !of_device {
            let named = KINDS.iter().filter(|(bit, _)| kinds & 1 << bit != 0);
            let right: Vec<&str> = named.map(|(_, name)| *name).collect();
            let op = if inverted { "!=" } else { "in" };
            let left = json!({ "fib": { "result": "type", "flags": [field] } });
            said.push(json!({ "match": { "op": op, "left": left, "right": right } }));
        }
    }
    let is_all = (source | destination) & !ALL == 0 && !of_device;
    Some((said, is_all))
}

/// A match by the mark of a packet.
fn marked(revision: u32, info: &[u8]) -> Option<(Vec<Value>, bool)> {
    let number = |place| word(info, place).map(u32::from_ne_bytes);
    let (mark, bits, inverted) = (number(0)?, number(4)?, *info.get(8)? != 0);
    let op = if inverted { "!=" } else { "==" };
    let left = json!({ "&": [{ "meta": { "key": "mark" } }, bits] });
    let said = json!({ "match": { "op": op, "left": left, "right": mark } });
    (revision == 1).then(|| (vec![said], true))
}

/// A match by connections.
fn connections(revision: u32, info: &[u8]) -> (Vec<Value>, bool) {
    // `XT_CONNTRACK_…`
    const STATE: u16 = 1 << 0;
    const STATUS: u16 = 1 << 6;
    /// The other name of the match, which changes nothing.
    const ALIAS: u16 = 1 << 13;
    /// Behind four addresses with their masks, times and ports.
    const FLAGS: usize = 146;
    /// By the number of the bit; those that no packet has that was not translated are there, too.
    const STATES: [(u16, &str); 7] = [
        (0, "invalid"),
        (1, "established"),
        (2, "related"),
        (3, "new"),
        (6, "snat"),
        (7, "dnat"),
        (8, "untracked"),
    ];
    const STATUSES: [(u16, &str); 7] = [
        (0, "expected"),
        (1, "seen-reply"),
        (2, "assured"),
        (3, "confirmed"),
        (4, "snat"),
        (5, "dnat"),
        (9, "dying"),
    ];
    let number = |place: usize| -> Option<u16> {
        let bytes = info.get(FLAGS + place..)?.first_chunk()?;
        Some(u16::from_ne_bytes(*bytes))
    };
    let narrow = |place: usize| info.get(FLAGS + place).copied().map(u16::from);
    let masks = match revision {
        1 => (narrow(4), narrow(5)),
        2 | 3 => (number(4), number(6)),
        _ => (None, None),
    };
    let (Some(flags), Some(inverted), (Some(states), Some(statuses))) =
        (number(0), number(2), masks)
    else {
        return (Vec::new(), false);
    };
    let one = |flag: u16, key: &str, mask: u16, names: &[(u16, &str)]| -> Option<Value> {
        let is_in = |(bit, name): &(u16, &str)| (mask & 1 << bit != 0).then(|| (*name).to_owned());
        let right: Vec<String> = names.iter().filter_map(is_in).collect();
        let op = if inverted & flag == 0 { "in" } else { "!=" };
        let left = json!({ "ct": { "key": key } });
        (flags & flag != 0).then(|| json!({ "match": { "op": op, "left": left, "right": right } }))
    };
    let known = [
        one(STATE, "state", states, &STATES),
        one(STATUS, "status", statuses, &STATUSES),
    ];
    let is_all = flags & !(STATE | STATUS | ALIAS) == 0;
    (known.into_iter().flatten().collect(), is_all)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::{connections, kinds, marked};

    /// As `iptables` has it for `--ctstate` and `--ctstatus`.
    pub(in super::super) fn info(flags: u16, inverted: u16, states: u16, statuses: u16) -> Vec<u8> {
        let mut info = vec![0; 146];
        for number in [flags, inverted, states, statuses, 0, 0, 0, 0] {
            info.extend(number.to_ne_bytes());
        }
        info
    }

    pub(in super::super) fn state(op: &str, names: &[&str]) -> Value {
        json!({ "match": { "op": op, "left": { "ct": { "key": "state" } }, "right": names } })
    }

    #[test]
    fn what_a_match_by_connections_asks_for_is_said() {
        let invalid = info(1, 0, 1, 0);
        assert_eq!(
            connections(3, &invalid),
            (vec![state("in", &["invalid"])], true)
        );
        let neither = info(1 | 1 << 13, 1, 0x86, 0);
        let names = ["established", "related", "dnat"];
        assert_eq!(connections(3, &neither), (vec![state("!=", &names)], true));
        let more = info(1 | 1 << 2, 0, 8, 0);
        assert_eq!(connections(2, &more), (vec![state("in", &["new"])], false));
        for cut in 0..153 {
            let short = &invalid[..cut];
            assert_eq!(connections(3, short), (vec![], false), "{cut}");
        }
        assert_eq!(connections(9, &invalid), (vec![], false));
    }

    #[test]
    fn what_a_match_by_kinds_of_addresses_asks_for_is_said() {
        let info = |source: u16, destination: u16, flags: u32| -> Vec<u8> {
            let kinds = [source, destination].map(u16::to_ne_bytes).concat();
            [&kinds[..], &flags.to_ne_bytes(), &[0; 4]].concat()
        };
        let kind = |op: &str, field: &str, names: &[&str]| {
            let left = json!({ "fib": { "result": "type", "flags": [field] } });
            json!({ "match": { "op": op, "left": left, "right": names } })
        };
        let local = vec![kind("in", "daddr", &["local"])];
        assert_eq!(kinds(1, &info(0, 1 << 2, 0)), Some((local, true)));
        let both = vec![
            kind("in", "saddr", &["unicast"]),
            kind("!=", "daddr", &["local", "broadcast"]),
        ];
        assert_eq!(kinds(1, &info(1 << 1, 0b1100, 2)), Some((both, true)));
        // Of one device's addresses, and kinds that have no name here.
        assert_eq!(kinds(1, &info(0, 1 << 2, 4)), Some((vec![], false)));
        let known = kinds(1, &info(0, 1 << 2 | 1 << 9, 0));
        assert_eq!(known.map(|(_, is_all)| is_all), Some(false));
        assert_eq!(kinds(2, &info(0, 1 << 2, 0)), None);
        assert_eq!(kinds(1, &info(0, 1 << 2, 0)[..7]), None);
    }

    #[test]
    fn what_a_match_by_a_mark_asks_for_is_said() {
        let info = |inverted: u8| {
            let words = [0x4000_u32, 0xc000].map(u32::to_ne_bytes).concat();
            [&words[..], &[inverted]].concat()
        };
        let mark = |op: &str| {
            let left = json!({ "&": [{ "meta": { "key": "mark" } }, 0xc000] });
            vec![json!({ "match": { "op": op, "left": left, "right": 0x4000 } })]
        };
        assert_eq!(marked(1, &info(0)), Some((mark("=="), true)));
        assert_eq!(marked(1, &info(1)), Some((mark("!="), true)));
        assert_eq!(marked(0, &info(0)), None);
        assert_eq!(marked(1, &info(0)[..8]), None);
    }
}
