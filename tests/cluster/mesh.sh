#!/bin/bash
# Each dimension of the mesh across hosts, chosen by config alone: data, tensor and pipeline parallel on two hosts, and all
# three on two hosts of four ranks, with the preflight in front. The weights are those of one rank.
# limit: 300
# shellcheck disable=SC2154 # lib_job.sh sets $log and $run
cd "$(dirname "$0")" && . ../layout/lib.sh && . ./lib_lab.sh && . ./lib_job.sh
lab_or_skip
[ "${FULL:-0}" = 1 ] || { echo "skipped: takes minutes (make check-cluster)"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
job_setup
site "SOLAR=$SOLAR" SOLAR_NET=eth0 'SOLAR_PREFLIGHT="--write 4 --share 0.05"'
lab_up 2 || { bad "the lab did not start"; result; exit 1; }

# mesh NAME RANKS-ON-A-HOST "PLAN" [--set ...]: trains on both hosts; the plan is in the log
mesh() {
    local name=$1 each=$2 plan=$3
    shift 3
    submit "$name" --nodes=2 --ntasks-per-node="$each" -- "$@"
    completes "$name: done" 60 || return
    says "$name: planned as $plan" "$plan"
    for h in h1 h2; do says "$name: $h in the preflight" "^$h "; done
    same_weights "$name" "$T/one" 1e-5
}
submit one --nodes=1 --
completes "one rank" 60
mesh data 1 'data 2 x pipeline 1 x tensor 1'
mesh tensor 1 'data 1 x pipeline 1 x tensor 2' --set mesh.tensor=2
mesh pipeline 1 'data 1 x pipeline 2 x tensor 1' --set mesh.pipeline=2
mesh all 4 'data 2 x pipeline 2 x tensor 2' --set mesh.pipeline=2 --set mesh.tensor=2
mesh tensor-across 2 'data 1 x pipeline 1 x tensor 4' --set mesh.tensor=4
result
