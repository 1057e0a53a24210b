#!/usr/bin/env bash
# dockerd writes a container's own IPv4 address as an IPv6 one into its /etc/hosts, where a plugin's network gave it.
#
# Expected: "10.244.1.9 NAME", as for a container of a bridge network, and as `docker inspect` and Docker's own name
# server have it.
# Seen: with Docker 28.5.2 (Debian forky) "::ffff:10.244.1.9 NAME", whether the driver gives the address in its answer to
# CreateEndpoint or an IPAM driver does. A container of a bridge beside it has "172.x.y.z NAME".
# What follows: getaddrinfo() for the container's own name, without a family, gives an address of AF_INET6 in a container
# that has none (glibc; asked for AF_INET it gives the IPv4 one). A name of another container comes from the name server,
# and is right.
#
# Needs root, python3, and Docker 28.5.2 as `cargo xtask setup` unpacks it.
set -euo pipefail

packages=${OVERLAY_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/overlay/clients}/docker
[ -d "$packages" ] || {
    echo "there is no $packages: run \"cargo xtask setup\"" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/memory" "$work/root"

cat >"$work/driver.py" <<'PY'
import http.server, json, socketserver, sys

ANSWERS = {
    "/Plugin.Activate": {"Implements": ["NetworkDriver"]},
    "/NetworkDriver.GetCapabilities": {"Scope": "local"},
    "/NetworkDriver.CreateEndpoint": {"Interface": {"Address": "10.244.1.9/24"}},
    "/NetworkDriver.Join": {"InterfaceName": {"SrcName": "", "DstPrefix": "eth"}, "DisableGatewayService": True},
}


class Driver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "docker"

    def log_message(self, *_):
        pass

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps(ANSWERS.get(self.path, {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Server(sys.argv[1] + "/root/run/docker/plugins/finding.sock", Driver).serve_forever()
PY

cat >"$work/inside.sh" <<'SH'
set -e
work=$1 packages=$2
mount -t tmpfs none "$work/memory"
mkdir "$work/memory/up" "$work/memory/work"
mount -t overlay -o "lowerdir=$packages,upperdir=$work/memory/up,workdir=$work/memory/work" none "$work/root"
cd "$work/root"
for link in bin lib lib64 sbin; do [ -e $link ] || ln -s usr/$link $link; done
ln -sf xtables-nft-multi usr/sbin/iptables
mkdir -p dev proc root run/docker/plugins sys tmp var/lib/docker
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
python3 "$work/driver.py" "$work" &
PATH=/usr/sbin:/usr/bin chroot . dockerd --host unix:///run/docker.sock --storage-driver vfs \
    --iptables=false --ip6tables=false --bridge none >"$work/log" 2>&1 &
docker() { PATH=/usr/sbin:/usr/bin chroot . docker --host unix:///run/docker.sock "$@"; }
for _ in $(seq 100); do
    docker version >/dev/null 2>&1 && break
    sleep 0.2
done
docker version --format '{{.Server.Version}}'
mkdir image
cp bin/busybox image/
tar -C image -cf image.tar .
docker import image.tar box >/dev/null
docker network create -d finding --ipam-driver null lab >/dev/null
docker network create bridged >/dev/null
for network in lab bridged; do
    id=$(docker run --detach --network $network --hostname finding --ulimit nofile=1024:1024 \
        --cgroup-parent /finding-docker box /busybox sleep 100)
    grep -w finding "var/lib/docker/containers/$id/hosts" >"$work/$network"
    docker rm --force "$id" >/dev/null
done
rmdir sys/fs/cgroup/*/finding-docker sys/fs/cgroup/finding-docker 2>/dev/null || true
SH
# All that is started in there ends with its first process.
unshare --net --mount --pid --fork --kill-child --propagation private sh "$work/inside.sh" "$work" "$packages" || tail -3 "$work/log"

echo "plugin: $(tr '\t' ' ' <"$work/lab"), bridge: $(tr '\t' ' ' <"$work/bridged")"
grep -q '^::ffff:10\.244\.1\.9' "$work/lab" && grep -q '^172\.' "$work/bridged" || {
    echo "changed" >&2
    exit 1
}
