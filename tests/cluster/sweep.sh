#!/bin/bash
# A small sweep: planned, run here several at once, cut and gone on with, reported; cells that wait for their base.
# limit: 200
cd "$(dirname "$0")" && . ../layout/lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 3 4 true
config "$T/c.yaml" "$T/m"
base m "$T/c.yaml"
config "$T/cell.yaml" "$T/base-m/latest"
cat >"$T/sweep.yaml" <<END
dir: $T/sweep
config: cell.yaml
bases:
  - {name: n3, model: $T/base-m/latest}
  - {name: n2, model: $T/base-m/latest, layers: "0,2", tokens: 1320}
m: [0, 1]
layers: ["0-1,1-2"]
baselines: [base, random, insert]
seeds: [1, 2]
equal: [tokens, flop]
tokens: 2640
END
sed -i 's/"0-1,1-2"/"0-1,0-1"/' "$T/sweep.yaml" # a plan that both bases have layers for
sweep() { "$SOLAR" sweep "$T/sweep.yaml" "$@" >"$T/said" 2>"$T/err"; }
check() { # LABEL PATTERN FILE
    if grep -q -- "$2" "$3"; then ok "$1"; else sed 's/^/    /' "$3" | tail -n 20; bad "$1: expected $2"; fi
}

sweep
check "planned: 2 bases x (base, m=0, m=1, a list, 2 random, 2 insert) x 2 seeds x 2 budgets, and a base to train" '^65 cells, 0 done' "$T/said"
check "fewer FLOP a token, more steps" 'n2-random1-seed1-flop .* 3.53e+05  *26 ' "$T/said"
check "a base that is cut waits" 'n2-m1-seed2 .*waits for its base' "$T/said"
sweep --cell 1
check "the arguments of a cell" '^model.dus.layers=\[0,1,2\]$' "$T/said"
sweep --cell 64
[ $? -eq 75 ] && ok "a cell that waits: exit status 75" || bad "a cell that waits"

# what is run here is the smaller part
sed -i -e 's/seeds: .*/seeds: [1]/' -e 's/equal: .*/equal: [tokens]/' "$T/sweep.yaml"
"$SOLAR" sweep "$T/sweep.yaml" --local --jobs 2 >/dev/null 2>"$T/err" &
pid=$!
for _ in $(seq 300); do [ "$(ls "$T/sweep/cells" 2>/dev/null | wc -l)" -ge 4 ] && break; sleep 0.1; done
pkill -KILL -P $pid
wait $pid
check "cells that are killed are told" 'ended with exit status 137' "$T/err"
sweep --local --jobs 2
status=$?
[ $status -eq 0 ] && ok "the same command goes on" || { tail -n 5 "$T/err"; bad "local: exit status $status"; }
check "with what was done before" 'cells, [1-9][0-9]* done before' "$T/err"
sweep
check "all done" '^17 cells, 17 done' "$T/said"
PATH=/usr/bin:/bin sweep --report
check "a row for each plan" '^| n2 .*| insert m=0 .*| 1/1 |' "$T/said"
[ -s "$T/sweep/report.tsv" ] && [ "$(wc -l <"$T/sweep/report.tsv")" -eq 17 ] && ok "report.tsv" || bad "report.tsv"
[ "$(grep -c '^"' "$T/sweep/curves.txt")" -eq 16 ] && ok "a curve for each plan" || bad "curves: $(grep -c '^"' "$T/sweep/curves.txt")"
# inserted layers begin as zeros: the loss at the start is the base's
start() { awk -F'\t' -v k="$1" -v m="$2" '$1 == "n3" && $3 == k && $4 == m { print $13 }' "$T/sweep/report.tsv"; }
[ -n "$(start base -1)" ] && [ "$(start base -1)" = "$(start insert 0)" ] && ok "inserted layers change nothing at first: $(start insert 0)" ||
    bad "loss at the start: base $(start base -1), insert $(start insert 0)"
if command -v gnuplot >/dev/null; then
    for plot in start end curves; do [ -s "$T/sweep/$plot.svg" ] && ok "$plot.svg" || bad "$plot.svg"; done
else
    skipped=$((skipped + 1))
    echo "skipped: gnuplot is not installed, plots were not drawn"
fi

# ranks
cat >"$T/weak.yaml" <<END
dir: $T/weak
config: cell.yaml
bases: [{name: n3, model: $T/base-m/latest}]
m: [1]
ranks: [1, 2]
scaling: weak
tokens: 1320
END
scaling() { "$SOLAR" sweep "$T/weak.yaml" "$@" >"$T/said" 2>"$T/err"; }
scaling
check "a scaling experiment is planned" 'sbatch --array=0-1 --ntasks=2 ' "$T/said"
scaling --cell 1 --ranks
check "the ranks of a cell" '^2$' "$T/said"
sweep --cell 1 --ranks
[ ! -s "$T/said" ] && ok "none where the file has none" || bad "ranks: $(cat "$T/said")"
scaling --local && scaling --report || bad "weak scaling: $(tail -n 3 "$T/err")"
check "twice the batch on two ranks" '^| n3 .*| m=1 .*| tokens |  *2 |  *16 |.* %' "$T/said"
check "recovery is judged without a cell of the base" '^| n3 .*|  *2 | 1/1 .*| \(not yet\|[0-9.e+]*\)  *|' "$T/said"
[ "$(grep -c '"base_valid_loss":[0-9]' "$T"/weak/cells/n3-m1-seed1-r2/metrics.jsonl)" -ge 1 ] && ok "whose loss each cell measures" || bad "no cell measured the base"

expect() { # LABEL SED-SCRIPT PATTERN
    sed "$2" "$T/sweep.yaml" >"$T/bad.yaml"
    "$SOLAR" sweep "$T/bad.yaml" >/dev/null 2>"$T/err"
    [ $? -eq 3 ] || bad "$1: exit status"
    check "$1" "$3" "$T/err"
}
expect "an unknown key" 's/^seeds/sedes/' 'bad.yaml:.*unknown key "sedes"; did you mean seeds'
expect "m that leaves nothing to insert" 's/^m: .*/m: [2]/' 'base n3: insert for m = 2: 2 layers are fewer than'
expect "m that is too large" 's/^m: .*/m: [3]/' 'base n3: m = 3, but the base has 3 layers'
expect "a wrong baseline" 's/random/randon/' 'expected base, random or insert'
expect "layers that the base has not" 's/"0-1,0-1"/"0-9"/' 'base n3'
expect "ranks that the batch cannot be split over" '$a ranks: [1, 3]' 'ranks 3: a global batch of 8 is not a multiple of 3 data ranks'
result
