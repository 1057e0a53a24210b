#!/usr/bin/env bash
# nft 1.1.7 has a word more, "tunnel", and cannot read rulesets any more in which a chain is called so; its own lists
# neither.
#
# Expected: a ruleset that nft prints, nft reads; and an older ruleset is read by a newer nft, as a word that is new is
# one where the grammar asks for it ("last" is taken for a name, too).
# Seen: "add chain inet t tunnel" with nftables 1.0.6 (Debian 12) is done; with 1.1.7 (Debian forky) it is "syntax error,
# unexpected tunnel", for a chain, a table and where a rule leads ("goto tunnel"). What 1.0.6 has made, 1.1.7
# lists as "chain tunnel {" and then refuses that list as a whole.
# No way round in nft's language: quotes are refused, too. JSON is taken: {"add": {"chain": {"name": "tunnel", ...}}}.
# What follows: after an upgrade such a file is not loaded at boot. Give chains names that nobody makes a word of, such as
# with a hyphen.
#
# Needs root, nft 1.0.6 from apt with Debian 12's packages, and nft 1.1.7 as `cargo xtask setup` unpacks it.
set -euo pipefail

packages=${OVERLAY_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/overlay/clients}/forky
[ -e "$packages/usr/sbin/nft" ] || {
    echo "there is no $packages/usr/sbin/nft: run \"cargo xtask setup\"" >&2
    exit 1
}
work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq download nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 2>/dev/null
for package in ./*.deb; do dpkg -x "$package" tools; done

cat >show.sh <<'SH'
older() {
    LD_LIBRARY_PATH=tools/usr/lib/x86_64-linux-gnu tools/usr/sbin/nft "$@"
}
newer() {
    "$1"/usr/lib64/ld-linux-x86-64.so.2 --library-path "$1/usr/lib/x86_64-linux-gnu" "$1/usr/sbin/nft" "${@:2}"
}
tells() { # COMMAND…
    "$@" >/dev/null 2>error && echo -n "done; " || echo -n "$(sed -n '1s/.*Error: //p' error); "
}
older --version
tells older 'table inet t { chain tunnel { }; chain c { goto tunnel; }; }'
echo
newer "$1" --version
newer "$1" list ruleset >list
grep -q 'chain tunnel {' list && echo -n "listed; "
tells newer "$1" --check --file list
for command in 'add chain inet t tunnel' 'add chain inet t "tunnel"' 'add table inet tunnel' 'add rule inet t c goto tunnel' \
    'add chain inet t last' 'add chain inet t to-tunnel'; do
    tells newer "$1" "$command"
done
echo '{"nftables": [{"add": {"chain": {"family": "inet", "table": "t", "name": "tunnel"}}}]}' >json
tells newer "$1" --json --file json
SH
seen=$(unshare --net bash show.sh "$packages")
echo "$seen"
refused='syntax error, unexpected tunnel'
[ "$seen" = "nftables v1.0.6 (Lester Gooch #5)
done; 
nftables v1.1.7 (Commodore Bullmoose #8)
listed; $refused; $refused; syntax error, unexpected quoted string; $refused; $refused; done; done; done; " ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
