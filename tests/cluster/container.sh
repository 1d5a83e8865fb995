#!/bin/bash
# The container's definition: its files are here, its commands are a shell's, its targets exist. The Spack environment:
# YAML, and all that the build needs is in it. With FULL=1, root and debootstrap: the container's commands run in a bare
# Debian and the program they make runs its test.
# limit: 900
cd "$(dirname "$0")/../.." || exit 2
passed=0 failed=0 skipped=0
ok() { passed=$((passed + 1)); echo "ok   $*"; }
bad() { failed=$((failed + 1)); echo "FAIL $*"; }
section() { awk -v s="%$1" '/^%/ { on = $1 == s; next } on' slurm/solar.def; }

missing=$(section files | while read -r from _; do [ -z "$from" ] || [ -e "$from" ] || echo "$from"; done)
[ -z "$missing" ] && [ -n "$(section files)" ] && ok "its files are here" || bad "missing: $missing"
for part in post test runscript; do
    section $part | sh -n && [ -n "$(section $part)" ] && ok "%$part is a shell script" || bad "%$part"
done
for target in $(section post | sed -n 's/^ *make \([a-z]*\).*/\1/p'); do
    grep -q "^$target:" Makefile && ok "make $target" || bad "no target $target"
done

# The program's reader of YAML has no complaint but that this is no sweep.
SOLAR=${SOLAR:-build/solar}
said=$("$SOLAR" sweep slurm/spack/spack.yaml 2>&1)
[[ $said == *'spack.yaml:'*'unknown key "spack"'* ]] && ok "spack.yaml is YAML" || bad "spack.yaml: $said"
missing=$(awk '$1 == "build" { print $NF }' tests/setup/packages | sort -u | while read -r name; do
    grep -qE "^ *- \"?$name([@+\": ]|\$)" slurm/spack/spack.yaml || echo "$name"
done)
[ -z "$missing" ] && ok "what the build needs is in it" || bad "not in spack.yaml: $missing"

mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | awk '$1 == "deb" { sub(/\[[^]]*\] */, ""); print $2; exit } $1 == "URIs:" { print $2; exit }')
if [ "${FULL:-0}" = 1 ] && [ "$(id -u)" -eq 0 ] && command -v debootstrap >/dev/null && [ -n "$mirror" ]; then
    root=$(mktemp -d)
    trap 'umount -l "$root/proc" "$root/dev" 2>/dev/null; rm -rf --one-file-system "$root"' EXIT
    debootstrap --variant=minbase bookworm "$root" "$mirror" >"$root.log" 2>&1 || bad "debootstrap: $(tail -n 1 "$root.log")"
    rm -f "$root.log"
    cp /etc/resolv.conf "$root/etc/"
    [ ! -f /etc/apt/apt.conf ] || cp /etc/apt/apt.conf "$root/etc/apt/"
    mount -t proc proc "$root/proc" && mount --bind --make-private /dev "$root/dev"
    section files | while read -r from to; do
        [ -z "$from" ] || { mkdir -p "$root/$(dirname "$to")" && cp -r "$from" "$root/$to"; }
    done
    for part in post test; do
        section $part >"$root/$part"
        chroot "$root" env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/tmp OMPI_ALLOW_RUN_AS_ROOT=1 \
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 sh /$part >"$root/$part.log" 2>&1 && ok "%$part runs in a bare root" ||
            { tail -n 15 "$root/$part.log" | sed 's/^/    /'; bad "%$part in a bare root"; }
    done
else
    skipped=$((skipped + 1))
    echo "skipped: the commands in a bare root (FULL=1, root and debootstrap)"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
