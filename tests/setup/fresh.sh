#!/bin/bash
# Proof of "two commands do all the set-up": a minimal Debian 12 root made by debootstrap, a clone of this
# repository's HEAD in it, and make run there with nothing else prepared but make itself.
# usage (as root): tests/setup/fresh.sh [TARGET...]     default: check demo
#   FRESH_ROOT=DIR      where the root is made (default: a temporary directory, removed afterwards)
#   FRESH_SUITE=NAME    default: bookworm
#   FRESH_MIRROR=URL    default: the mirror this machine's apt uses for that suite
#   DEMO_TEXT is not passed on: the demo installs its own text
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=${FRESH_SUITE:-bookworm}
[ $# -gt 0 ] || set -- check demo

fail() {
    echo "fresh: error: $*" >&2
    exit 1
}
[ "$(id -u)" -eq 0 ] || fail "debootstrap and chroot need root"
command -v debootstrap >/dev/null || fail "debootstrap is not installed (apt-get install debootstrap)"

# The mirror that apt is set up with here, from either form of its source lists.
configured_mirror() {
    local files=()
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -f "$f" ] && files+=("$f")
    done
    [ ${#files[@]} -gt 0 ] || return 0
    awk -v suite="$suite" '
        $1 == "deb" { sub(/\[[^]]*\] */, ""); if ($3 == suite) { print $2; exit } }
        $1 == "URIs:" { uri = $2 }
        $1 == "Suites:" { for (i = 2; i <= NF; i++) if ($i == suite) { print uri; exit } }' "${files[@]}"
}
mirror=${FRESH_MIRROR:-$(configured_mirror)}
[ -n "$mirror" ] || fail "apt here knows no mirror for $suite: set FRESH_MIRROR=URL"

if [ -n "${FRESH_ROOT:-}" ]; then
    root=$FRESH_ROOT keep=1
    mkdir -p "$root"
else
    root=$(mktemp -d) keep=
fi
undo() {
    umount -l "$root/dev/shm" "$root/dev" "$root/sys" "$root/proc" 2>/dev/null || true
    if [ -z "$keep" ]; then rm -rf --one-file-system "$root"; fi
}
trap undo EXIT

chmod 755 "$root" # it will be /: packages' scripts run as other users too
echo "fresh: a bare $suite in $root"
[ -e "$root/etc/debian_version" ] ||
    debootstrap --variant=minbase --include=make,git,ca-certificates "$suite" "$root" "$mirror" >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log"; fail "debootstrap failed"; }
rm -f "$root.log"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# as every installed system has it: without, looking up its own name costs mpirun five seconds a start
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$(hostname)" >"$root/etc/hosts"
[ ! -f /etc/apt/apt.conf ] || cp /etc/apt/apt.conf "$root/etc/apt/apt.conf"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --bind --make-private /dev "$root/dev" # private: nothing done here reaches the machine's own /dev
mount -t tmpfs tmpfs "$root/dev/shm"

rm -rf "$root/solar"
git clone -q --no-hardlinks "file://$PWD" "$root/solar"
for target in "$@"; do
    echo "fresh: make $target"
    began=$SECONDS
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8 \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        chroot "$root" make -C /solar --no-print-directory "$target"
    echo "fresh: make $target took $((SECONDS - began)) s"
done
echo "$# passed, 0 failed, 0 skipped"
