#!/usr/bin/env bash
# connmand, when it starts, takes the addresses of bridges and VXLAN devices that others have made, sets them down, and
# leaves them so when it ends.
#
# Expected: a connection manager that is started on a running machine takes up what it finds, or leaves alone what it has
# no service for: connman.conf(5) says of NetworkInterfaceBlacklist no more than that such interfaces are "not handled".
# Seen: with ConnMan 1.41 (Debian 12), as installed, a bridge, a VXLAN device and a veth with an IPv4 address each are down
# and without it eight seconds later, and after connmand has ended. Routes by them are gone with the addresses.
# ConnMan 2.0 (Debian forky) does the same.
# What follows: NetworkInterfaceBlacklist has to name them before it is installed; its default has "ve-", "veth" and
# "virbr", and neither bridges in general nor tunnels. There is no folder for additions.
#
# Needs root, Linux with bridge, VXLAN and veth, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq download connman=1.41-3 dbus-daemon=1.14.10-1~deb12u1 libdbus-1-3=1.14.10-1~deb12u1 libxtables12 \
    libglib2.0-0 libgnutls30 libreadline8 libapparmor1 libaudit1 libcap-ng0 libexpat1 libsystemd0 iproute2=6.1.0-3 2>/dev/null
for package in ./*.deb; do dpkg -x "$package" tools; done
cat >bus.conf <<'XML'
<busconfig>
  <type>system</type><listen>unix:path=/run/bus</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
  </policy>
</busconfig>
XML
mkdir memory
cat >inside.sh <<'SH'
set -e
# It writes /etc/resolv.conf, whatever network namespace it is in: what it writes there goes with this one's end.
mount -t tmpfs none memory
mkdir memory/etc memory/work
mount -t overlay -o "lowerdir=/etc,upperdir=$PWD/memory/etc,workdir=$PWD/memory/work" none /etc
mount -t tmpfs none /var/lib
mount -t tmpfs none /run
export PATH=$PWD/tools/usr/sbin:$PWD/tools/sbin:$PWD/tools/bin:$PWD/tools/usr/bin:$PATH
export LD_LIBRARY_PATH=$PWD/tools/lib/x86_64-linux-gnu:$PWD/tools/usr/lib/x86_64-linux-gnu
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/bus
dbus-daemon --config-file="$PWD/bus.conf" --nofork 2>bus.log &
ip link set lo up
ip link add br0 type bridge
ip link add vx0 type vxlan id 7 local 192.0.2.1 dstport 4789
ip link add eth1 type veth peer name other
for device in br0:192.0.2.1 vx0:198.51.100.1 eth1:203.0.113.1; do
    ip addr add "${device#*:}/24" dev "${device%:*}"
    ip link set "${device%:*}" up
done
there() {
    echo "$1: $(ip -o -4 addr show scope global | wc -l) addresses, $(for device in br0 vx0 eth1; do
        ip -o link show dev $device | grep -o '[<,]UP[,>]'; done | wc -l) up"
}
until [ -S /run/bus ]; do sleep 0.1; done
there before
timeout 8 connmand --nodaemon --config="$PWD/tools/etc/connman/main.conf" >log 2>&1 || true
there after
SH
# All that is started in there ends with its first process.
seen=$(unshare --net --mount --uts --pid --fork --kill-child --propagation private sh inside.sh)
tools/usr/sbin/connmand --version | sed 's/^/ConnMan /'
echo "$seen"
[ "$seen" = "before: 3 addresses, 3 up
after: 0 addresses, 0 up" ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
