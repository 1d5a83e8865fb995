#!/bin/sh
# Installs the built program, the jobs and the documents. usage: copy.sh BUILD PREFIX (with DESTDIR in front)
set -eu
[ $# -eq 2 ] || { echo "usage: copy.sh BUILD PREFIX" >&2; exit 2; }
cd "$(dirname "$0")/../.."
build=$1 prefix=$2

install -d "$prefix/bin" "$prefix/share/solar/jobs" "$prefix/share/doc/solar"
install -m 755 "$build/solar" "$prefix/bin/solar"
find jobs slurm -type f | while read -r f; do
    mode=644
    [ ! -x "$f" ] || mode=755
    install -D -m $mode "$f" "$prefix/share/solar/$f"
done
install -m 644 README.md LICENSE "$prefix/share/doc/solar/"
"$build/solar" config --schema >"$prefix/share/doc/solar/config.txt"
"$build/solar" help --all >"$prefix/share/doc/solar/commands.txt"
echo "installed: $prefix/bin/solar, $prefix/share/solar, $prefix/share/doc/solar"
