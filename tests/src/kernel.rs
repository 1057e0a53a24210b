//! The kernel that a lab runs on.

use nix::sys::utsname::uname;

/// From here on a program can strip headers around a packet of the other family.
const STRIPS_OTHER_FAMILY: (u32, u32) = (6, 3);

/// From here on programs of TC are attached by links, in an order.
const TCX: (u32, u32) = (6, 6);

/// Whether this machine's kernel lets TC programs take an IPv4 packet out of an IPv6 tunnel, and
/// the reverse.
pub fn strips_other_family() -> bool {
    is_at_least(STRIPS_OTHER_FAMILY)
}

/// Whether this machine's kernel has TCX.
pub fn has_tcx() -> bool {
    is_at_least(TCX)
}

fn is_at_least(needed: (u32, u32)) -> bool {
    let release = uname().ok();
    let version = release.and_then(|name| parse_release(name.release().to_str()?));
    version.is_some_and(|version| version >= needed)
}

/// Major and minor number of a release such as `6.1.0-42-amd64`.
pub fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse_release;

    #[test]
    fn releases_compare_by_number() {
        assert_eq!(parse_release("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(parse_release("5.10-rc1"), Some((5, 10)));
        assert!(parse_release("6.12.1") > parse_release("6.2"));
        assert_eq!(parse_release("unknown"), None);
    }
}
