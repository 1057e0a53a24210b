#!/usr/bin/env bash
# etcd's grpc-proxy does not renew a lease for a client that has said all that it has to say.
#
# Expected: a client of LeaseKeepAlive that sends one request and closes its direction of the stream gets one answer, as
# from the store itself: in gRPC that is how a client says that nothing follows.
# Seen: with etcd 3.4.23 (Debian 12) the store answers each of ten such calls with the lease's time. Through the proxy each
# fails with UNKNOWN, "context canceled". A client that leaves its direction open until it is answered has its answer
# from both.
# What follows: a lease that is renewed so ends although the proxy is there, and the keys that it holds go.
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

cat >renew.py <<'PY'
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


for name, address in [("store", "127.0.0.1:2379"), ("proxy", "127.0.0.1:23790")]:
    channel = grpc.insecure_channel(address)
    grant = channel.unary_unary("/etcdserverpb.Lease/LeaseGrant", as_it_is, as_it_is)
    lease = fields(grant(field(1, 60), wait_for_ready=True, timeout=20))[2]
    renew = channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive", as_it_is, as_it_is)
    for how in ["closed", "open"]:
        outcomes = set()
        for _ in range(10):
            answered = threading.Event()

            def requests(lease=lease, how=how, answered=answered):
                yield field(1, lease)
                if how == "open":
                    answered.wait()

            try:
                outcomes.add(f"{fields(next(renew(requests(), timeout=20)))[3]} s")
            except grpc.RpcError as error:
                outcomes.add(f"{error.code().name} {error.details()}")
            answered.set()
        print(f"{name}, {how}: {', '.join(sorted(outcomes))}")
    channel.close()
PY

cat >inside.sh <<'SH'
ip link set lo up
tools/usr/bin/etcd --name a --data-dir data --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 \
    --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster a=http://127.0.0.1:2380 >etcd.log 2>&1 &
tools/usr/bin/etcd grpc-proxy start --endpoints=127.0.0.1:2379 --listen-addr=127.0.0.1:23790 >proxy.log 2>&1 &
PYTHONPATH=python python3 renew.py
SH
tools/usr/bin/etcd --version | head -1
# All that is started in there ends with its first process.
seen=$(unshare --net --pid --fork --kill-child sh inside.sh)
echo "$seen"
[ "$seen" = "store, closed: 60 s
store, open: 60 s
proxy, closed: UNKNOWN context canceled
proxy, open: 60 s" ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
