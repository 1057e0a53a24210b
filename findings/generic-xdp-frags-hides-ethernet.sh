#!/usr/bin/env bash
# A generic XDP program that is loaded for fragments (section "xdp.frags", BPF_F_XDP_HAS_FRAGS) and
# does nothing but pass has tc on that device see packets without their Ethernet header.
#
# Expected: what passes XDP continues unchanged; a mirrored ping of 84 bytes is a frame of 98.
# Seen: on Linux 6.18 with iproute2 6.1.0 (libbpf 1.1.2): 98 without XDP and behind a generic program
# without frags, 84 behind one with frags; the frame that the mirror sends begins with the IP header.
# The receiver's own stack is not disturbed: the ping is answered each time.
# Why (read): since 6.9 such packets are copied for XDP into a new buffer (netif_skb_check_for_xdp,
# skb_pp_cow_data), for which the length of the MAC header is not carried over; tc goes back by it.
# A veth needs that copy for each packet that another stack sent.
# What follows: load generic XDP without frags where tc programs work on the device.
#
# Needs root, Linux 6.9 or later with network namespaces, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
here=finding-a$$ there=finding-b$$
cleanup() {
    ip netns del "$here" 2>/dev/null || true
    ip netns del "$there" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

cd "$work"
apt-get -qq download gcc-bpf=12.2.0-14+deb12u1+ binutils-bpf=2.40-2+1 iproute2=6.1.0-3 \
    iputils-ping=3:20221126-1+deb12u1 tcpdump=4.99.3-1 2>/dev/null
for package in ./*.deb; do dpkg -x "$package" tools; done
export PATH="$work/tools/bin:$work/tools/sbin:$work/tools/usr/bin:$PATH"
export LD_LIBRARY_PATH="$work/tools/usr/lib/x86_64-linux-gnu"

cat >pass.c <<'C'
#define IN(name) __attribute__((section(name), used))
IN("xdp") int whole(void *ctx) { return 2; }      /* XDP_PASS */
IN("xdp.frags") int parts(void *ctx) { return 2; }
IN("license") char terms[] = "GPL";
C
bpf-gcc -O2 -c pass.c -o pass.o

ip netns add "$here"
ip netns add "$there"
ip link add eth0 netns "$here" type veth peer name eth0 netns "$there"
ip -n "$there" link add mirror type veth peer name end
ip -n "$here" addr add 192.0.2.1/24 dev eth0
ip -n "$there" addr add 192.0.2.2/24 dev eth0
ip -n "$here" link set eth0 up
for device in eth0 mirror end; do ip -n "$there" link set "$device" up; done
in_there() { nsenter --net="/run/netns/$there" "$@"; }
in_there tc qdisc add dev eth0 clsact
in_there tc filter add dev eth0 ingress protocol ip u32 match u32 0 0 \
    action mirred egress mirror dev mirror

length_of_a_ping() { # SECTION
    [ "$1" = none ] || in_there ip link set dev eth0 xdpgeneric obj pass.o sec "$1"
    # The one packet of its size: 84 bytes of IP, with or without 14 of Ethernet.
    in_there timeout 5 tcpdump -n -c 1 -i end -w seen.pcap 'len = 84 or len = 98' 2>/dev/null &
    sleep 1
    nsenter --net="/run/netns/$here" ping -q -c 1 -W 2 192.0.2.2 >/dev/null
    wait $! || true
    in_there ip link set dev eth0 xdpgeneric off 2>/dev/null || true
    # Length on the wire, in the header of the first record.
    od -A n -t u4 -j 36 -N 4 seen.pcap | tr -d ' '
}

none=$(length_of_a_ping none)
whole=$(length_of_a_ping xdp)
parts=$(length_of_a_ping xdp.frags)
echo "Linux $(uname -r): mirrored by tc: $none bytes without XDP, $whole behind xdp, $parts behind xdp.frags"
[ "$none" = 98 ] && [ "$whole" = 98 ] && [ "$parts" = 84 ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
