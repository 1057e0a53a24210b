#!/usr/bin/env bash
# dockerd repeats a request to a plugin whose connection ended before the answer, without the request's content.
#
# Expected: a repeated request is the same request, as the plugin API says of a plugin that is started again ("the
# daemon tries again for 30 seconds"); or, where its content is gone, the command fails.
# Seen: with Docker 28.5.2 (Debian forky) a network driver that closes the connection of its first
# /NetworkDriver.CreateNetwork gets it a second time with Content-Length 0, and answers a question that nobody asked:
# here with {}, so that `docker network create` succeeds for a network of which the driver knows no id.
# Why: the content is a buffer that the first try has emptied (pkg/plugins/client.go of moby: callWithRetry makes one
# http.Request for all tries, from a reader). A driver that nobody listens for is another matter: then nothing was read.
# What follows: a driver has to refuse a request without content, and must not rely on Leave or DeleteEndpoint.
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
import http.server, json, os, socketserver, sys

work, tries = sys.argv[1], []


class Driver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "docker"

    def log_message(self, *_):
        pass

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = {}
        if self.path == "/Plugin.Activate":
            answer = {"Implements": ["NetworkDriver"]}
        elif self.path.endswith("GetCapabilities"):
            answer = {"Scope": "local"}
        elif self.path.endswith("CreateNetwork"):
            tries.append("NetworkID" if b"NetworkID" in content else "%d bytes" % len(content))
            with open(work + "/seen", "w") as seen:
                seen.write("; ".join(tries))
            if len(tries) == 1:
                self.close_connection = True
                return
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Server(work + "/root/run/docker/plugins/finding.sock", Driver).serve_forever()
PY

cat >"$work/inside.sh" <<'SH'
set -e
work=$1 packages=$2
mount -t tmpfs none "$work/memory"
mkdir "$work/memory/up" "$work/memory/work"
mount -t overlay -o "lowerdir=$packages,upperdir=$work/memory/up,workdir=$work/memory/work" none "$work/root"
cd "$work/root"
for link in bin lib lib64 sbin; do [ -e $link ] || ln -s usr/$link $link; done
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
docker network create -d finding --ipam-driver null lab >/dev/null && echo created >"$work/done"
SH
# All that is started in there ends with its first process.
unshare --net --mount --pid --fork --kill-child --propagation private sh "$work/inside.sh" "$work" "$packages" || tail -3 "$work/log"

echo "tries: $(cat "$work/seen"); $(cat "$work/done")"
[ "$(cat "$work/seen")" = "NetworkID; 0 bytes" ] && [ -e "$work/done" ] || {
    echo "changed" >&2
    exit 1
}
