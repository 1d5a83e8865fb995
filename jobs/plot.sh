#!/bin/sh
# Draws the recovery of a run from its metrics.jsonl: RUN/recovery.svg, and as text on the terminal.
# usage: plot.sh RUN
set -eu
[ $# -eq 1 ] || { echo "usage: plot.sh RUN" >&2; exit 2; }
run=$1
[ -r "$run/metrics.jsonl" ] || { echo "plot: error: $run/metrics.jsonl cannot be read" >&2; exit 4; }
command -v gnuplot >/dev/null || { echo "plot: error: gnuplot is not installed" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Every "key":number of a flat line into columns. A run that was resumed has each step once.
columns() {
    awk -v first="$1" -v second="$2" '
        function number(key) {
            return match($0, "\"" key "\": *-?[0-9.][0-9.eE+-]*") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : ""
        }
        { a = number(first); b = number(second); if (a != "" && b != "") print a + 0, b + 0 }' "$run/metrics.jsonl"
}
columns tokens loss >"$work/train"
columns tokens valid_loss >"$work/valid"
columns step base_valid_loss | tail -n 1 | cut -d' ' -f2 >"$work/base"
base=$(cat "$work/base")
[ -s "$work/valid" ] || { echo "plot: error: $run/metrics.jsonl holds no validation" >&2; exit 4; }

draw() { # TERMINAL OUTPUT POINT
    {
        echo "set terminal $1"
        [ -z "$2" ] || echo "set output '$2'"
        echo "set title 'Validation loss after depth up-scaling'"
        echo "set xlabel 'tokens of continued pretraining'; set ylabel 'loss (nats per token)'"
        echo "set key top right; set xrange [0:*]; set format x '%.0s%c'"
        [ -z "$2" ] || echo "set grid lc rgb '#e0e0e0'"
        echo "plot \\"
        [ -z "$2" ] || echo "  '$work/train' with lines lc rgb '#c8d4e0' title 'scaled, training', \\"
        echo "  '$work/valid' with linespoints lw 2 pt ${3} ps 0.6 lc rgb '#1f5fa8' title 'scaled, validation'${base:+, \\}"
        [ -z "$base" ] || echo "  $base with lines lw 2 dt 2 lc rgb '#c04a20' title 'base, validation'"
    } >"$work/script"
    gnuplot "$work/script"
}
draw "svg size 720,420 dynamic background rgb 'white'" "$run/recovery.svg" 7
draw "dumb 79,22" "" "'o'" | tr -d '\014'
echo "$run/recovery.svg"
