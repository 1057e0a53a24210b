#!/usr/bin/env bash
# nft 1.0.6: what it prints on one machine another one cannot read: ICMPv6 is called "ipv6-icmp" by
# /etc/protocols, and only that file knows this name, which small images and initial RAM disks lack
# (Debian has it in netbase).
#
# Expected: `nft list ruleset` prints names that any nft reads, as it has "icmpv6" built in.
# Seen: "meta l4proto icmpv6" is printed as "meta l4proto ipv6-icmp", and without /etc/protocols
# that is "Error: Could not resolve protocol name"; the whole file is refused.
# A way round: write the number, 58.
#
# Needs root, nft, unshare, and a machine that has /etc/protocols.
set -euo pipefail

if [ "${1-}" != inside ]; then
    exec unshare --net --mount "$0" inside
fi

nft 'add table inet t; add chain inet t c; add rule inet t c meta l4proto icmpv6 accept'
printed=$(nft list ruleset)
nft flush ruleset
mount --bind /dev/null /etc/protocols
if nft -f - <<<"$printed"; then
    echo "as expected: nft reads what it has printed"
else
    echo "reproduced: nft does not read what it has printed:"
    grep l4proto <<<"$printed"
fi
