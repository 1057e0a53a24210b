#!/usr/bin/env bash
# nft says at which devices a chain of the family netdev is in its own language, and not in JSON.
#
# Expected: `nft --json list chains` names the devices of each base chain of the family netdev, as libnftables-json(5)
# says of "dev", and as `nft list chains` does: without them nobody knows whose packets the chain judges.
# Seen: with nftables 1.0.6 (Debian 12) there are hook and priority, and no device: neither for one device nor for
# several, and neither in `list chains` nor in `list ruleset` nor in `list table`.
# What follows: who reads rules as JSON asks the kernel for the devices (NFT_MSG_GETCHAIN: NFTA_HOOK_DEV and
# NFTA_HOOK_DEVS), or takes every such chain for one at every device.
#
# Needs root, Linux 5.10 or later, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq download nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 2>/dev/null
for package in ./*.deb; do dpkg -x "$package" tools; done
export PATH="$work/tools/usr/sbin:$work/tools/sbin:$PATH"
export LD_LIBRARY_PATH="$work/tools/usr/lib/x86_64-linux-gnu"

cat >show.sh <<'SH'
set -e
ip link add device-one type veth peer name device-two
nft -f - <<'NFT'
table netdev t {
    chain one { type filter hook ingress device "device-one" priority 0; }
    chain both { type filter hook ingress devices = { "device-one", "device-two" } priority 0; }
}
NFT
nft list chains netdev >text
for what in "chains" "ruleset" "table netdev t"; do nft --json list $what; done >json
SH
unshare --net sh show.sh

nft --version
times() { { grep -o "$1" "$2" || true; } | wc -l; }
seen="text: $(times device-one text), json: $(times '"hook": "ingress"' json) hooks, $(times device-one json) devices"
echo "$seen"
[ "$seen" = "text: 2, json: 6 hooks, 0 devices" ] || {
    echo "changed" >&2
    exit 1
}
