#!/bin/bash
# `sbatch jobs/solar_cpt.slurm` on 1, 2 and 4 hosts of a real Slurm: done, the same loss; told to stop, put back, killed:
# resumed, the same bits as the run that nothing happened to.
# limit: 200
# shellcheck disable=SC2034,SC2154 # $event is read by lib_job.sh, which sets $job
cd "$(dirname "$0")" && . ../layout/lib.sh && . ./lib_lab.sh && . ./lib_job.sh
lab_or_skip
job_setup
lab_up 4 || { bad "the lab did not start"; result; exit 1; }

steps=(--set train.steps=120) # so that there is time to kill it twice
for hosts in 1 2 4; do
    submit "hosts-$hosts" --nodes=$hosts -- "${steps[@]}"
    completes "$hosts host(s): done" 60
done
run=$T/hosts-2
same_weights "2 hosts as 1" "$T/hosts-1" 1e-5
run=$T/hosts-4
same_weights "4 hosts as 1" "$T/hosts-1" 1e-5

# one run through three lives: told to stop, then a rank killed
submit chain --nodes=2 -- "${steps[@]}" --set checkpoint.every=10
until_true 30 trained 1
event=$(date +%s.%N)
on_head scancel -s USR1 "$job"
until_true 40 trained 2
after=$(back_after)
event=$(date +%s.%N)
pkill -KILL -n -f "^$SOLAR train .*run.dir=$run"
completes "told to stop, then a rank killed: done" 60
echo "training again after a signal: $after s; after a killed rank: $(back_after) s"
[ "$(lives)" -eq 3 ] && ok "three lives" || bad "expected 3 lives, there were $(lives)"
same_weights "as if nothing had happened" "$T/hosts-2" 0
result
