#!/usr/bin/env bash
# pyroute2 says of every VXLAN device that it inherits its TTL, and a device that is made of what it has read does.
#
# Expected: IFLA_VXLAN_TTL_INHERIT is false of a device made with "ttl 64", and true of one with "ttl inherit".
# Seen: with pyroute2 0.9.7 on Linux 6.18 and iproute2 6.1.0 (Debian 12) it is True of both. A copy of the first one's
# attributes is a device that `ip` shows with "ttl inherit", where the original has "ttl 64".
# Why: the kernel takes the attribute as a flag, whatever it holds, and tells it as a
# byte, 0 or 1 (vxlan_policy, and vxlan_fill_info in drivers/net/vxlan/vxlan_core.c). Read as a flag it is true whenever
# it is there, and it always is.
# What follows: read the byte, and send the attribute only where it is 1.
#
# Needs root, Linux 4.18 or later with VXLAN, python3 with pip, and apt with Debian 12's packages.
set -euo pipefail

work=$(mktemp -d)
chmod 755 "$work" # apt downloads as a user of its own
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get -qq download iproute2=6.1.0-3 2>/dev/null
dpkg -x ./*.deb tools
export PATH="$work/tools/sbin:$work/tools/bin:$PATH"
python3 -m pip install --quiet --root-user-action=ignore --target=python pyroute2==0.9.7

cat >read.py <<'PY'
import subprocess
from pyroute2 import IPRoute


def shown(name):
    words = subprocess.run(["ip", "-d", "link", "show", name], capture_output=True, text=True).stdout.split()
    return "ttl " + words[words.index("ttl") + 1]


with IPRoute() as kernel:
    for name, vni, ttl in [("one", "1", "64"), ("other", "2", "inherit")]:
        made = f"ip link add {name} type vxlan id {vni} local 192.0.2.1 dstport 4789 ttl {ttl}"
        subprocess.run(made.split(), check=True)
        found = kernel.link("get", index=kernel.link_lookup(ifname=name)[0])[0]
        data = found.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
        told = {part: data.get_attr("IFLA_VXLAN_" + part) for part in ["TTL", "TTL_INHERIT"]}
        again = {f"vxlan_{part.lower()}": value for part, value in told.items()}
        kernel.link("add", ifname="copy", kind="vxlan", vxlan_id=9, vxlan_local="192.0.2.1", vxlan_port=4789, **again)
        print(f"{shown(name)}: TTL {told['TTL']}, inherits {told['TTL_INHERIT']}; a copy: {shown('copy')}")
        kernel.link("del", ifname="copy")
PY
seen=$(PYTHONPATH=python unshare --net python3 read.py)
echo "$seen"
[ "$seen" = "ttl 64: TTL 64, inherits True; a copy: ttl inherit
ttl inherit: TTL 0, inherits True; a copy: ttl inherit" ] || {
    echo "the behaviour has changed" >&2
    exit 1
}
