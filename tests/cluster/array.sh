#!/bin/bash
# A sweep as a job array on a real Slurm, cancelled half-way and submitted again: every cell completes, each once.
# SWEEP_KEEP=DIR keeps the report there; SWEEP_TOKENS, SWEEP_SEEDS make it a larger one.
# limit: 900
# shellcheck disable=SC2154 # $job is set by lib_job.sh
cd "$(dirname "$0")" && . ../layout/lib.sh && . ./lib_lab.sh && . ./lib_job.sh
lab_or_skip
[ "${FULL:-0}" = 1 ] || { echo "skipped: takes minutes (make check-cluster)"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
job_setup
lab_up 4 || { bad "the lab did not start"; result; exit 1; }
site "SOLAR=$SOLAR" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off SOLAR_WAIT=2
sed -e 's/, dus: {m: 1}//' -e 's/steps: 40/steps: 100/' -e 's/every: 0}/every: 10}/' -e 's/seq_len: 64/seq_len: 128/' \
    -e 's/global_batch: 4, micro_batch: 1/global_batch: 8, micro_batch: 8/' -e 's/every: 5,/every: 50,/' -e 's/decay: 10/decay: 40/' \
    "$T/run.yaml" >"$T/cell.yaml"
sed -i 's/samples: 8/samples: 64/' "$T/cell.yaml"
cat >"$T/sweep.yaml" <<END
dir: $T/sweep
config: $T/cell.yaml
bases:
  - {name: n5, model: $T/base}
  - {name: n4, model: $T/base, layers: "0-1,3-4", tokens: ${SWEEP_TOKENS:-8192}}
m: [0, 1, 2]
baselines: [base, random, insert]
seeds: ${SWEEP_SEEDS:-[1]}
equal: ${SWEEP_EQUAL:-[tokens]}
tokens: ${SWEEP_TOKENS:-8192}
END
cells=$("$SOLAR" sweep "$T/sweep.yaml" | sed -n 's/^\([0-9]*\) cells,.*/\1/p')
done_cells() { "$SOLAR" sweep "$T/sweep.yaml" | sed -n 's/^[0-9]* cells, \([0-9]*\) done.*/\1/p'; }
array() {
    job=$(cd "$T/home" && on_head sbatch --parsable --array=0-$((cells - 1)) --ntasks-per-node=1 --time=20 \
        --output="$T/array-%a.log" jobs/sweep_mn.slurm "$T/sweep.yaml")
}
at_least() { [ "$(done_cells)" -ge "$1" ]; }
queue_empty() { [ -z "$(on_head squeue -h)" ]; }

array
until_true 200 at_least $((cells / 3)) && ok "a third of $cells cells" || bad "only $(done_cells) of $cells cells"
on_head scancel "$job"
until_true 120 queue_empty || bad "the cancelled array is still there"
before=$(done_cells)
[ "$before" -lt "$cells" ] && ok "cancelled with $before of $cells done" || bad "nothing was left to do"
array
until_true 700 at_least "$cells" && ok "submitted again: all $cells done" || bad "only $(done_cells) of $cells cells"
until_true 60 queue_empty && ok "the array has ended" || { on_head squeue | head -n 5; bad "the array has not ended"; }
again=$(grep -l '"life":3' "$T"/sweep/cells/*/lives.jsonl 2>/dev/null | wc -l)
[ "$again" -eq 0 ] && ok "no cell needed a third life" || bad "$again cells had three lives"
"$SOLAR" sweep "$T/sweep.yaml" --report >"$T/said" 2>&1 && ok "the report" || { tail -n 3 "$T/said"; bad "the report"; }
if [ -n "${SWEEP_KEEP:-}" ]; then mkdir -p "$SWEEP_KEEP" && cp "$T"/sweep/*.* "$SWEEP_KEEP/"; fi
result
