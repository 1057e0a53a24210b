//! Settings of the kernel.

use super::{CONFIG, bare, build};

#[test]
fn reverse_path_filtering_is_loosened_only_where_it_is_strict() {
    let sysctls = |all: &str, eth1: &str| {
        let mut observed = bare();
        for (device, value) in [("all", all), ("default", "0"), ("eth1", eth1)] {
            observed.around.sysctls.insert(
                format!("net/ipv4/conf/{device}/rp_filter"),
                value.to_owned(),
            );
        }
        let sysctls = build(CONFIG, &observed).unwrap().objects.sysctls;
        sysctls
            .into_iter()
            .filter(|(key, _)| key.ends_with("rp_filter"))
            .collect::<Vec<_>>()
    };
    let loose = |device: &str| (format!("net/ipv4/conf/{device}/rp_filter"), "2".to_owned());
    assert_eq!(sysctls("0", "0"), []);
    assert_eq!(sysctls("0", "1"), [loose("eth1")]);
    assert_eq!(sysctls("1", "0"), [loose("eth1"), loose("ovl7")]);
    assert_eq!(sysctls("2", "1"), []);
}
