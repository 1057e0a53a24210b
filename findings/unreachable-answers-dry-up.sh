#!/usr/bin/env bash
# A Linux router whose route says "unreachable" answers a host that pings once a second four
# times, and then no more; the same host is answered every time when it asks every 2.2 seconds.
#
# Expected: with net.ipv4.icmp_ratelimit = 1000 (ms, the default) one answer a second, as the
# setting is documented (Documentation/networking/ip-sysctl.rst).
# Seen: on Linux 6.18 with iproute2 6.1.0 and iputils 20221126 (Debian 12), "+4 errors" of 14, and
# IcmpOutRateLimitHost counts the ten that were withheld; "+6 errors" of 6 at 2.2 seconds.
# Why: ip_error() takes a second's worth of tokens from the sender's inet_peer before it calls
# icmp_send(), and icmpv4_xrlim_allow() then wants another second's worth from the same bucket
# (net/ipv4/route.c, net/ipv4/icmp.c). A second's worth is all that a second brings.
# What follows: silence behind an unreachable route does not mean that it is gone; ask slowly.
#
# Needs root, Linux with network namespaces, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
router=finding-r$$ host=finding-h$$
cleanup() {
    ip netns del "$router" 2>/dev/null || true
    ip netns del "$host" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

cd "$work"
apt-get -qq download iproute2=6.1.0-3 iputils-ping=3:20221126-1+deb12u1
for package in ./*.deb; do dpkg -x "$package" tools; done
export PATH="$work/tools/bin:$work/tools/sbin:$PATH"

ip netns add "$router"
ip netns add "$host"
ip link add eth0 netns "$host" type veth peer name eth0 netns "$router"
ip -n "$host" addr add 192.0.2.2/24 dev eth0
ip -n "$router" addr add 192.0.2.1/24 dev eth0
ip -n "$host" link set eth0 up
ip -n "$router" link set eth0 up
ip -n "$host" route add default via 192.0.2.1
ip -n "$router" route add unreachable 198.51.100.0/24
nsenter --net="/run/netns/$router" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'

errors() { # COUNT INTERVAL
    # ping exits with 1 when nobody has answered it, which is what is expected here.
    { nsenter --net="/run/netns/$host" ping -n -c "$1" -i "$2" -W 1 198.51.100.7 || true; } |
        sed -n 's/.*+\([0-9]*\) errors.*/\1/p'
}

fast=$(errors 14 1)
sleep 8 # until the bucket is full again
slow=$(errors 6 2.2)
echo "Linux $(uname -r): answered ${fast:-0} of 14 at 1 s, ${slow:-0} of 6 at 2.2 s"
[ "${fast:-0}" -le 5 ] && [ "${slow:-0}" -eq 6 ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
