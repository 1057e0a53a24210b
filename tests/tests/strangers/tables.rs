//! Tables of packet filter rules.

use anyhow::Result;

use crate::in_the_way::{Case, survives};

#[test]
fn one_that_merely_has_the_name_stays() -> Result<()> {
    survives(
        "tstrf",
        &Case {
            what: "an nftables table",
            needs: |config| config.networks[0].masquerade = Some(true),
            clear: "nft delete table inet overlay-{i}",
            make: "nft -f - <<END
table inet overlay-{i} {
    comment \"overlay:{i}\"
    chain forward {
        type filter hook forward priority filter; policy accept;
        ip saddr 203.0.113.0/24 counter packets 7 bytes 700 drop comment \"mine\"
    }
    set isolated { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 } }
    map own { type inet_service : verdict; elements = { 7 : accept } }
}
END",
            look: "nft -a list table inet overlay-{i}",
            said: "one that this instance did not make",
            never_said: "nft delete",
            stops: true,
        },
    )
}

#[test]
fn one_of_another_instance_is_said_to_be_its() -> Result<()> {
    survives(
        "tstro",
        &Case {
            what: "an nftables table of another instance",
            needs: |config| config.networks[0].masquerade = Some(true),
            clear: "nft delete table inet overlay-{i}",
            make: "nft 'table inet overlay-{i} { chain made-by-overlay-other { }; chain more { ip saddr 203.0.113.1 counter accept; }; }'",
            look: "nft -a list table inet overlay-{i}",
            said: "instance other of this node has it",
            never_said: "nft delete",
            stops: true,
        },
    )
}

#[test]
fn one_that_merely_has_the_name_of_the_bridge_s_stays() -> Result<()> {
    survives(
        "tstrk",
        &Case {
            what: "a table of bridges with the guard's name",
            needs: |_| {},
            clear: "nft delete table bridge guard.overlay-{i}",
            make: "nft 'table bridge guard.overlay-{i} { chain speakers { type filter hook prerouting priority -5; ether saddr 02:00:00:00:00:07 counter packets 7 bytes 700 accept; }; set ports { type ipv4_addr; elements = { 198.51.100.1 }; }; }'",
            look: "nft -a list table bridge guard.overlay-{i}",
            said: "one that this instance did not make",
            never_said: "nft delete",
            stops: false,
        },
    )
}

#[test]
fn one_that_merely_has_the_name_of_the_guard_s_stays() -> Result<()> {
    survives(
        "tstrg",
        &Case {
            what: "an nftables table with the guard's name",
            needs: |_| {},
            clear: "nft delete table inet guard.overlay-{i}",
            make: "nft 'table inet guard.overlay-{i} { chain input { type filter hook input priority -5; udp dport 4789 counter packets 7 bytes 700 accept; }; set vteps4 { type ipv4_addr; elements = { 198.51.100.1 }; }; }'",
            look: "nft -a list table inet guard.overlay-{i}",
            said: "one that this instance did not make",
            never_said: "nft delete",
            stops: false,
        },
    )
}
