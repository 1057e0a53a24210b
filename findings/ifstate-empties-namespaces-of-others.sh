#!/usr/bin/env bash
# ifstate deletes the interfaces of containers: what its file does not have goes, in every named network namespace, also
# where the file has no word of namespaces.
#
# Expected: a file with interfaces alone is about the namespace that ifstatecli runs in; other namespaces are for
# "namespaces", with which the file declares some.
# Seen: with ifstate 2.5.1 on Linux 6.18, and a file that declares "eth1" and nothing else, `ifstatecli apply` deletes a veth
# with its address in another namespace below /run/netns, of which the file does not speak; "check" tells of it before.
# Interfaces called veth… and docker… are spared where they are, by a list of its own; inside of a container they have
# other names.
# What follows: name them in parameters.ignore.netns, such as ["."], before it is run where containers have named namespaces.
#
# Needs root, Linux with network namespaces and veth, python3 with pip, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq download iproute2=6.1.0-3 2>/dev/null
dpkg -x ./*.deb tools
python3 -m pip install --quiet --root-user-action=ignore --target=python ifstate==2.5.1

cat >inside.sh <<'SH'
set -e
# No namespace of this machine is to be seen in here.
mount -t tmpfs none /run
mkdir /run/netns
export PATH=$PWD/tools/sbin:$PWD/tools/bin:$PATH PYTHONPATH=$PWD/python
ip link add eth1 type veth peer name outside
ip netns add box
ip link add other type veth peer name eth0 netns box
ip -n box addr add 192.0.2.7/24 dev eth0
ip -n box link set eth0 up
there() { ip -n box -o -4 addr show dev eth0 2>/dev/null | grep -c 192.0.2.7 || true; }
cat >file.yml <<'YML'
parameters:
  ignore:
    ifname: ["^outside$", "^other$"]
interfaces:
  eth1:
    addresses: [198.51.100.1/24]
    link: {state: up, kind: veth, peer: outside}
YML
before=$(there)
told=$(python3 python/bin/ifstatecli -c file.yml check 2>&1 | grep -c 'eth0\[netns=box\] *del' || true)
between=$(there)
python3 python/bin/ifstatecli -c file.yml apply >log 2>&1 || true
echo "eth0 in the namespace box: $before before; told to go: $told; $between after check, $(there) after apply"
SH
seen=$(unshare --net --mount --propagation private sh inside.sh)
echo "ifstate 2.5.1: $seen"
[ "$seen" = "eth0 in the namespace box: 1 before; told to go: 1; 1 after check, 0 after apply" ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
