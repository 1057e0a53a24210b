#!/usr/bin/env bash
# nft lists a chain as empty that drops packets: a rule with an expression that its library does not know is left out,
# without an error, a warning or a gap.
#
# Expected: that there is a rule, as `nft list` has "# Unknown" or "xt target" for others that it cannot print; or an error.
# Seen: nftables 1.1.3 (Debian 13) adds "udp dport 4789 vxlan ip saddr 192.0.2.1 drop", which looks inside of tunnels, and
# lists it. In the same namespace nftables 1.0.6 (Debian 12) exits with 0 and lists the chain without any rule, as text and
# as JSON, by `list ruleset`, `list table` and `list chain`.
# What follows: `nft list ruleset >FILE` and `nft -f FILE` lose the rule, and whoever reads what nft lists takes the chain
# for open. The kernel tells by netlink (NFT_MSG_GETRULE: an expression called "inner"). Two nfts meet on one machine where
# a container brings its own.
#
# Needs root, Linux 6.2 or later with nftables' inner headers, x86-64, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
trap 'rm -rf "$work"' EXIT
cd "$work"
# Where this machine has Debian from.
archive=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^bookworm //p' | head -1)
fetch() { # SUITE PACKAGE…
    local suite=$1 key=/usr/share/keyrings/debian-archive-keyring.gpg
    shift
    mkdir -p "$suite/lists/partial" "$suite/debs"
    echo "deb [signed-by=$key] $archive $suite main" >"$suite/list"
    touch "$suite/status"
    local apt="apt-get -qq -o Dir::Etc::sourcelist=$PWD/$suite/list -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists=$PWD/$suite/lists -o Dir::State::status=$PWD/$suite/status
        -o Dir::Cache=$PWD/$suite"
    $apt update
    (cd "$suite/debs" && $apt download "$@")
    for package in "$suite"/debs/*.deb; do dpkg -x "$package" "$suite/root"; done
}
fetch bookworm nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2 libmnl0 libjansson4 libxtables12 \
    libgmp10 libedit2 libbsd0 libmd0 libtinfo6 libc6 2>/dev/null
fetch trixie nftables=1.1.3-1 libnftables1=1.1.3-1 libnftnl11=1.2.9-1 libmnl0 libjansson4 libxtables12 libgmp10 libedit2 \
    libbsd0 libmd0 libtinfo6 libc6 2>/dev/null

cat >show.sh <<'SH'
nft() { # SUITE ARGUMENT…
    root=$1/root
    shift
    libraries=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu
    "$(ls "$root"/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$root"/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 \
        2>/dev/null | head -1)" --library-path "$libraries" "$root/usr/sbin/nft" "$@"
}
set -e
nft trixie 'add table inet t; add chain inet t c { type filter hook input priority 0; };
    add rule inet t c udp dport 4789 vxlan ip saddr 192.0.2.1 drop'
for suite in bookworm trixie; do
    for form in "" --json; do
        for what in "ruleset" "table inet t" "chain inet t c"; do
            nft $suite $form list $what >listed
            grep -o "drop" listed | wc -l
        done
    done | tr '\n' ' '
    nft $suite --version
done
SH
seen=$(unshare --net sh show.sh)
echo "$seen"
[ "$seen" = "0 0 0 0 0 0 nftables v1.0.6 (Lester Gooch #5)
1 1 1 1 1 1 nftables v1.1.3 (Commodore Bullmoose #4)" ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
