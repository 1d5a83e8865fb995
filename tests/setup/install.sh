#!/bin/sh
# Finds which packages of the named groups are missing and installs just those with apt.
# usage: install.sh GROUP...      groups: build check cluster demo lint clang (see ./packages)
set -eu

table=$(dirname "$0")/packages

compiler() { command -v gcc || command -v cc || command -v clang; }

# Is what the probe names usable here? 2: cannot tell yet, because the tool that would tell is missing.
probe() {
    kind=${1%%:*} name=${1#*:}
    case $kind in
    command) command -v "$name" >/dev/null 2>&1 ;;
    pkg)
        command -v pkg-config >/dev/null 2>&1 || return 2
        pkg-config --exists "$name" || { [ "$name" = hdf5 ] && pkg-config --exists hdf5-serial; }
        ;;
    header)
        cc=$(compiler 2>/dev/null) || return 2
        echo "#include <$name>" | "$cc" -E -x c - >/dev/null 2>&1
        ;;
    sp) # in some releases its .pc asks for one of protobuf that is not installed along, and not needed
        command -v pkg-config >/dev/null 2>&1 && command -v g++ >/dev/null 2>&1 || return 2
        pkg-config --exists "$name" || echo "#include <${name}_processor.h>" | g++ -E -x c++ - >/dev/null 2>&1
        ;;
    text) [ -n "${DEMO_TEXT:-}" ] || command -v bible >/dev/null 2>&1 ;;
    ctags) ctags --version 2>/dev/null | grep -q Universal ;;
    omp)
        command -v "$name" >/dev/null 2>&1 || return 2
        echo '#include <omp.h>' | "$name" -fopenmp -E -x c - >/dev/null 2>&1
        ;;
    *) echo "set-up: $table: unknown probe '$1'" >&2; exit 2 ;;
    esac
}

installed_deb() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# Prints "package module" for everything that is missing.
missing() {
    while read -r group package how module; do
        case " $wanted " in *" $group "*) ;; *) continue ;; esac
        status=0
        probe "$how" || status=$?
        [ "$status" -eq 0 ] && continue
        [ "$status" -eq 2 ] && installed_deb "$package" && continue
        echo "$package $module"
    done <<EOF
$(grep -v '^#' "$table")
EOF
}

fail() {
    echo "set-up: error: $*" >&2
    exit 1
}

# Every command that changes the system goes through here, so that the user sees it.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        echo "set-up: $*" >&2
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        echo "set-up: sudo $*" >&2
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}

known_to_apt() {
    for p in "$@"; do
        case "$(apt-cache policy "$p" 2>/dev/null)" in
        '' | *'Candidate: (none)'*) return 1 ;;
        esac
    done
}

# Old package lists name files that the mirror no longer has: on failure, refresh the lists and try again.
apt_install() {
    if ! known_to_apt "$@"; then
        as_root apt-get -q update || fail "apt-get update failed (is there a network?). Still missing: $*"
        known_to_apt "$@" || fail "apt finds no candidate for all of: $*. Is there a network, and on Ubuntu, is 'universe' enabled?"
        fresh=1
    fi
    as_root apt-get -q -y -o Dpkg::Use-Pty=0 --no-install-recommends install "$@" && return
    if [ -z "${fresh:-}" ] && as_root apt-get -q update &&
        as_root apt-get -q -y -o Dpkg::Use-Pty=0 --no-install-recommends install "$@"; then
        return
    fi
    fail "apt-get could not install: $* (its own message is above; is there a network?)"
}

# No apt: say what to load or install, in the words of clusters, and stop.
explain() {
    {
        echo "set-up: error: missing, and there is no apt-get here to install it:"
        echo "$1" | awk '{printf "  %-22s module or Spack package: %s\n", $1, substr($0, length($1) + 2)}'
        names=$(echo "$1" | awk '$2 !~ /^[(]/{print $2}' | sort -u | tr '\n' ' ')
        if [ -n "$names" ]; then
            echo "set-up: with modules:  module load $names"
            echo "set-up: with Spack:    spack install $names"
            echo "set-up: (sites name modules in their own way: try 'module spider NAME')"
        fi
        echo "set-up: then run make again"
    } >&2
    exit 1
}

[ $# -gt 0 ] || fail "usage: install.sh GROUP..."
wanted=$*
list=$(missing)
[ -n "$list" ] || exit 0
command -v apt-get >/dev/null 2>&1 || explain "$list"
packages=$(echo "$list" | awk '{print $1}' | tr '\n' ' ')
echo "set-up: missing: $packages"
[ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null 2>&1 ||
    fail "not root and no sudo. As root: apt-get install --no-install-recommends $packages"
# shellcheck disable=SC2086 # a list of words
apt_install $packages
still=$(missing)
[ -z "$still" ] || fail "installed, but still not usable: $(echo "$still" | awk '{print $1}' | tr '\n' ' ')"
echo "set-up: done"
