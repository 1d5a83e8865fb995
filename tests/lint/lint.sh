#!/bin/bash
# Every check of the code that needs no run. Prints each finding and ends with one line:
# N passed, N failed, N skipped.
# usage: lint.sh BUILD     findings of clang-tidy are kept below BUILD/tidy
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
BUILD=${1:-build}
here=tests/lint
MAX_FUNCTION=70 MAX_FILE=800
passed=0 failed=0

mapfile -t ours < <(git ls-files -co --exclude-standard -- Makefile README.md '*.c' '*.h' '*.cpp' '*.cu' \
    '*.cuh' '*.inc' '*.sh' '*.slurm' '*.yaml' '*.md' '.ci/*' tests/setup/packages | while read -r f; do
    [ -f "$f" ] && echo "$f"
done | sort -u)
matching() { printf '%s\n' "${ours[@]}" | grep -E "$1"; }
mapfile -t code < <(matching '\.(c|h|cpp|cu|cuh)$')
mapfile -t scripts < <(matching '\.(sh|slurm)$|^\.ci/run$')

# check NAME FUNCTION: what the function prints are findings; none is a pass
check() {
    local found
    found=$($2)
    if [ -z "$found" ]; then
        passed=$((passed + 1))
        echo "ok   $1"
    else
        failed=$((failed + 1))
        printf '%s\n' "$found" | sed 's/^/     /'
        echo "FAIL $1"
    fi
}

# Entries of an allow-list: comments and blank lines dropped.
entries() { sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$1"; }

# The findings that are not in allow-list $1, and the entries of it that no longer happen: it only shrinks.
ratchet() {
    local list=$1 found
    found=$(sort -u)
    comm -13 <(entries "$list" | sort -u) <(printf '%s\n' "$found" | sed '/^$/d')
    comm -23 <(entries "$list" | sort -u) <(printf '%s\n' "$found") | sed "s|\$|   (no longer happens: remove it from $list)|"
}

check_format() {
    clang-format-14 --dry-run -Werror "${code[@]}" 2>&1 | grep -oE '^[^ :]+:[0-9]+:[0-9]+: (error|warning)' |
        cut -d: -f1 | uniq -c | awk '{print $2 ": " $1 " places not as clang-format-14 writes them"}'
}

# Findings as "FILE CHECK". Their full text follows for those that are not allowed.
check_tidy() {
    local log list news
    list=$(make --no-print-directory BUILD="$BUILD" tidy-list)
    # shellcheck disable=SC2086 # a list of files
    make -s --no-print-directory BUILD="$BUILD" $list || { echo "clang-tidy did not run"; return; }
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of files
    cat $list | grep -E '(error|warning): .*\[[a-z]' | sed "s|^$PWD/||" | sort -u >"$log"
    news=$(sed -E 's/^([^:]+):.*\[([A-Za-z0-9.-]+).*$/\1 \2/' "$log" | ratchet $here/tidy_allowed.txt)
    if [ -n "$news" ]; then
        echo "$news"
        while read -r file rule _; do grep -F "[$rule" "$log" | grep "^$file:"; done <<<"$news" | sed 's/^/  /'
    fi
    rm -f "$log"
}

# Functions longer than the limit, as "FILE FUNCTION LINES"; one in the list may get shorter, not longer.
long_functions() {
    ctags --quiet=yes --langmap=C++:+.cu.cuh --kinds-C=f --kinds-C++=f --fields=+ne --output-format=u-ctags \
        -f - "${code[@]}" | awk -F'\t' -v max=$MAX_FUNCTION '!/^!/ {
            for (i = 4; i <= NF; i++) { if ($i ~ /^line:/) b = substr($i, 6); if ($i ~ /^end:/) e = substr($i, 5) }
            if (e - b + 1 > max) print $2, $1, e - b + 1 }'
}
check_functions() {
    long_functions | sort | awk -v list=$here/long_functions.txt '
        BEGIN { while ((getline line < list) > 0) { sub(/#.*/, "", line)
                if (split(line, f, " ") == 3) allowed[f[1] " " f[2]] = f[3] } }
        { key = $1 " " $2; seen[key] = 1
          if (!(key in allowed)) print key ": " $3 " lines, at most '$MAX_FUNCTION'"
          else if ($3 > allowed[key]) print key ": " $3 " lines, the list says " allowed[key]
          else if ($3 < allowed[key]) print key ": " $3 " lines now: lower the " allowed[key] " in " list }
        END { for (key in allowed) if (!(key in seen)) print key ": short now: remove it from " list }'
}

check_files() { wc -l "${code[@]}" "${scripts[@]}" | awk -v max=$MAX_FILE '$2 != "total" && $1 > max {print $2 ": " $1 " lines, at most " max}'; }

# Options that let the compiler pretend NaN, infinities or the order of a sum away. The pattern is spelled
# so that it does not find itself.
check_flags() {
    grep -nE -e '-f(fast-mat[h]|finite-math-onl[y]|unsafe-math-optimization[s]|associative-mat[h])' \
        -e '-Ofas[t]' -e 'use_fast_mat[h]' -e 'no-signed-zero[s]' -e 'optimize *\( *"[^"]*(fast-mat[h]|Ofas[t])' \
        -e 'pragma.*float_contro[l]' "${ours[@]}" /dev/null
}

# Words that mean something is unfinished, calls that cannot be bounded (tests may), and paths of one machine.
check_words() {
    grep -nE '\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b' "${ours[@]}" /dev/null
    grep -nE '(^|[^A-Za-z0-9_.])(get[s]|strca[t]|strcp[y]|sprint[f]|vsprint[f]|strto[k]|ato[if]|ato[l]|tmpna[m]|mktem[p]) *\(' \
        "${code[@]}" /dev/null | grep -v '^tests/'
    grep -nE '(^|[^A-Za-z0-9_./$}])/(wor[k]|hom[e]|User[s]|roo[t])/' "${ours[@]}" /dev/null
}

# Headers guard themselves, sources end with a newline, no tabs, no trailing blanks.
check_shape() {
    local f tab=$'\t'
    for f in "${code[@]}"; do
        case $f in *.h) grep -qE '^#(ifndef|pragma once)' "$f" || echo "$f: no include guard" ;; esac
        [ -z "$(tail -c 1 "$f")" ] || echo "$f: no newline at the end"
    done
    grep -nE "[ $tab]+\$" "${code[@]}" "${scripts[@]}" /dev/null
    grep -n "$tab" "${code[@]}" /dev/null
}

# Folders not in the house's plan.
check_folders() {
    git ls-files -co --exclude-standard | grep / | cut -d/ -f1 | sort -u |
        grep -vxE 'orchestrator|worker|kernels|include|jobs|slurm|tests|\..*' | sed 's/$/: not a folder of this project/'
}

check_shell() { shellcheck -x -e SC2148 -S warning -f gcc "${scripts[@]}"; }

check "format (clang-format 14)" check_format
check "clang-tidy" check_tidy
check "functions of at most $MAX_FUNCTION lines" check_functions
check "files of at most $MAX_FILE lines" check_files
check "no compiler option that breaks NaN" check_flags
check "no unfinished work, unbounded calls or paths of one machine" check_words
check "guards, newlines, blanks" check_shape
check "folders" check_folders
check "shell scripts (shellcheck)" check_shell
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
