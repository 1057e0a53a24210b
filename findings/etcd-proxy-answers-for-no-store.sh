#!/usr/bin/env bash
# etcd's grpc-proxy tells the second client that watches the same keys that they are in cluster 0, at a revision that
# the store has not reached.
#
# Expected: each answer's header has the number of the cluster and a revision that was, as the store's own answers do
# (rpc.proto: "cluster_id is the ID of the cluster which sent the response").
# Seen: with etcd 3.4.23 (Debian 12) two clients list and watch from the revision behind that list on, as it is done.
# Directly both hear the list's cluster and revision. Through the proxy, which watches once for both, the second one
# hears cluster 0 and the revision that it has asked for, one more than there is. Answers with events have both right.
# What follows: a client that knows a store again by these (and lists anew when it is another one, or has gone back in
# time) does so for ever, and only where there are two of it. Take 0 for "not told", and the revision with it.
# Fixed on etcd's main branch in May 2026 (pull request 21780); 3.5.30 (Debian testing) has it still.
#
# Needs root, python3 with pip for the machine's architecture, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq download etcd-server=3.4.23-4+b4 2>/dev/null
dpkg -x ./*.deb tools
python3 -m pip install --quiet --root-user-action=ignore --target=python grpcio==1.66.2

cat >watch.py <<'PY'
import sys, threading
import grpc


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    def read():
        nonlocal message
        number = shift = 0
        while True:
            byte, message = message[0], message[1:]
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    found = {}
    while message:
        tag = read()
        length = read()
        if tag & 7 == 2:
            length, message = message[:length], message[length:]
        found[tag >> 3] = length
    return found


def as_it_is(message):
    return message


def header(message):
    told = fields(fields(message)[1])
    return told.get(1, 0), told.get(3, 0)


for name, address in [("store", "127.0.0.1:2379"), ("proxy", "127.0.0.1:23790")]:
    streams = []
    for client in ["first", "second"]:
        channel = grpc.insecure_channel(address)
        ask = channel.unary_unary("/etcdserverpb.KV/Range", as_it_is, as_it_is)
        cluster, revision = header(ask(field(1, b"/k/") + field(2, b"/k0"), wait_for_ready=True, timeout=20))
        create = field(1, field(1, b"/k/") + field(2, b"/k0") + field(3, revision + 1))
        end = threading.Event()

        def requests(create=create, end=end):
            yield create
            end.wait()

        watch = channel.stream_stream("/etcdserverpb.Watch/Watch", as_it_is, as_it_is)
        answers = watch(requests(), timeout=20)
        told, at = header(next(answers))
        print(f"{name} {client}: cluster {'as listed' if told == cluster else told}, revision {at - revision:+d}")
        streams.append((channel, answers, end))
    for channel, answers, end in streams:
        answers.cancel()
        end.set()
        channel.close()
PY

cat >inside.sh <<'SH'
ip link set lo up
tools/usr/bin/etcd --name a --data-dir data --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
    --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster a=http://127.0.0.1:2380 >etcd.log 2>&1 &
tools/usr/bin/etcd grpc-proxy start --endpoints=127.0.0.1:2379 --listen-addr=127.0.0.1:23790 >proxy.log 2>&1 &
PYTHONPATH=python python3 watch.py
SH
tools/usr/bin/etcd --version | head -1
# All that is started in there ends with its first process.
seen=$(unshare --net --pid --fork --kill-child sh inside.sh)
echo "$seen"
[ "$seen" = "store first: cluster as listed, revision +0
store second: cluster as listed, revision +0
proxy first: cluster as listed, revision +0
proxy second: cluster 0, revision +1" ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
