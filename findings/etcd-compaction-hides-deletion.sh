#!/usr/bin/env bash
# etcd 3.4.23 (Debian 12): a watch from the revision that was compacted does not tell of a key that was
# deleted at that very revision, and is not refused either: it goes on with what comes later.
#
# Expected: compaction to revision R removes "all superseded keys with a revision less than the compaction
# revision" (CompactionRequest, etcd's API reference), and a watch from a revision that is gone is cancelled
# with compact_revision. So a watch from R tells of R, as it does of a put.
# Seen: of a deletion at R nothing, neither an event nor an error; of a put at R the event. A client that
# lists at R-1 and watches from R, as clients do, has a key for ever that is gone.
# Why: the tombstone itself is removed (etcd issue 18089); it is kept from 3.4.34 and 3.5.15 on, so that
# etcd 3.5.16 of Debian 13 does what is expected.
# What follows: with such an etcd list again once in a while, although the watch is alive.
#
# Needs apt with Debian 12's packages; no root.
set -euo pipefail

work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap cleanup EXIT

cd "$work"
apt-get -qq download etcd-server=3.4.23-4+b4 etcd-client=3.4.23-4+b4
for package in ./*.deb; do dpkg -x "$package" tools; done
export PATH="$work/tools/usr/bin:$PATH" ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://127.0.0.1:22379

etcd --data-dir "$work/data" --logger zap --log-level error \
    --listen-client-urls http://127.0.0.1:22379 --advertise-client-urls http://127.0.0.1:22379 \
    --listen-peer-urls http://127.0.0.1:22380 --initial-advertise-peer-urls http://127.0.0.1:22380 \
    --initial-cluster default=http://127.0.0.1:22380 >etcd.log 2>&1 &
server=$!
for _ in $(seq 100); do
    etcdctl get ready >/dev/null 2>&1 && break
    sleep 0.1
done
etcd --version | head -n 1

# Does something, has the store forget all before that, and prints what a watch from there tells in two seconds,
# in which something else happens.
told() { # NAME COMMAND...
    local name=$1 revision watch
    shift
    etcdctl put "$name/key" before >/dev/null
    revision=$(etcdctl "$@" --write-out=json | sed 's/.*"revision":\([0-9]*\).*/\1/')
    etcdctl compact --physical "$revision" >/dev/null
    etcdctl watch --prefix "$name/" --rev="$revision" >"$work/told" 2>&1 &
    watch=$!
    sleep 1
    etcdctl put "$name/later" x >/dev/null
    sleep 1
    kill "$watch"
    wait "$watch" || true
    # A line each: what happened to which key.
    awk '/^(PUT|DELETE)$/ { what = $0; getline; print what, $0; next } /rror|compacted/ { print }' "$work/told"
}

put=$(told a put a/key after)
deleted=$(told b del b/key)
echo "put at the compacted revision:"
echo "$put"
echo "deleted there:"
echo "$deleted"

[ "$put" = $'PUT a/key\nPUT a/later' ]
[ "$deleted" = "PUT b/later" ]
echo "as described"
