#!/usr/bin/env bash
# nftables: "ct helper" is never true of the connection that a helper was given to with "ct helper set",
# only of those that this one announces (FTP's data connections).
#
# Expected: nft(8) has "helper: Helper associated with the connection", and "ct helper set" associates
# one; so a rule that counts `ct helper "ftp"` counts the control connection's packets.
# Seen: on Linux 6.18 with nft 1.0.6 (Debian 12) it counts none of them, though /proc/net/nf_conntrack or
# the expectation that the helper makes show that it is there; it counts the data connection's.
# Why: nft_ct_get_eval() looks at the helper of ct->master alone (net/netfilter/nft_ct.c), which is the
# connection that has announced this one. xt_helper does the same, and its manual says "related".
# What follows: what a helper is to be kept from is told by ports, not by the helper.
#
# Needs root, Linux with network namespaces and nf_conntrack_ftp, python3, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
one=finding-a$$ node=finding-n$$ other=finding-b$$
cleanup() {
    for namespace in "$one" "$node" "$other"; do ip netns del "$namespace" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

cd "$work"
apt-get -qq download nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2
for package in ./*.deb; do dpkg -x "$package" tools; done
LD_LIBRARY_PATH="$work/tools/usr/lib/$(uname -m)-linux-gnu"
export LD_LIBRARY_PATH
nft="$work/tools/usr/sbin/nft"

number=1
ip netns add "$node"
for end in "$one" "$other"; do
    ip netns add "$end"
    ip link add eth0 netns "$end" type veth peer name "eth$number" netns "$node"
    ip -n "$end" addr add "192.0.2.$((number * 64 + 2))/26" dev eth0
    ip -n "$node" addr add "192.0.2.$((number * 64 + 1))/26" dev "eth$number"
    ip -n "$end" link set eth0 up
    ip -n "$node" link set "eth$number" up
    ip -n "$end" route add default via "192.0.2.$((number * 64 + 1))"
    number=$((number + 1))
done
nsenter --net="/run/netns/$node" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
nsenter --net="/run/netns/$node" "$nft" 'table inet finding {
    ct helper of { type "ftp" protocol tcp; }
    chain gives { type filter hook prerouting priority 0; tcp dport 21 ct helper set "of"; }
    chain counts {
        type filter hook forward priority 0
        ct helper "ftp" tcp dport 21 counter comment "control"
        ct helper "ftp" tcp dport 5001 counter comment "data"
    }
}'

cat >talk.py <<'PY'
import socket, sys
def listen(port):
    listener = socket.create_server(("192.0.2.130", port))
    listener.settimeout(10)
    return listener
if sys.argv[1] == "server":
    control, data = listen(21), listen(5001)
    print("ready", flush=True)
    stream, _ = control.accept()
    stream.sendall(b"220 ready\r\n") # an answer counts behind the end of another line
    stream.recv(64)
    stream.sendall(b"227 Entering Passive Mode (192,0,2,130,19,137).\r\n")
    data.accept()[0].sendall(b"data")
else:
    control = socket.create_connection(("192.0.2.130", 21), 10)
    control.recv(64)
    control.sendall(b"PASV\r\n")
    control.recv(64)
    assert socket.create_connection(("192.0.2.130", 5001), 10).recv(4) == b"data"
PY
mkfifo ready
nsenter --net="/run/netns/$other" python3 talk.py server >ready &
server=$!
read -r _ <ready
nsenter --net="/run/netns/$one" python3 talk.py client
wait "$server"

packets() {
    nsenter --net="/run/netns/$node" "$nft" list chain inet finding counts |
        sed -n "s/.*counter packets \([0-9]*\) .*\"$1\".*/\1/p"
}
control=$(packets control) data=$(packets data)
echo "Linux $(uname -r): $control packets of the control connection, $data of the data connection"
[ "$control" -eq 0 ] && [ "$data" -gt 0 ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
