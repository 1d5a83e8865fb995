#!/bin/bash
# Jobs as users have them: names with spaces, a job that may not be put back into the queue, a task of an array that shares
# its id with the array, a user without privileges.
# limit: 400
# shellcheck disable=SC2034,SC2154 # lib_job.sh reads $as, and sets $job, $run and $log
cd "$(dirname "$0")" && . ../layout/lib.sh && . ./lib_lab.sh && . ./lib_job.sh
lab_or_skip
[ "${FULL:-0}" = 1 ] || { echo "skipped: takes minutes (make check-cluster)"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
job_setup
lab_up 3 || { bad "the lab did not start"; result; exit 1; }
here="SOLAR=$SOLAR"
long=(--set train.steps=100000 --set schedule='{kind: constant}' --set checkpoint.every=10)

# ---- names that need quotes
cp "$T/run.yaml" "$T/home/my run.yaml"
log="$T/spaces.log" run="$T/a run, its name"
job=$(cd "$T/home" && on_head sbatch --parsable --output="$log" --nodes=2 --ntasks-per-node=1 --time=10 --job-name="my job Restarts=7 Requeue=0" \
    jobs/solar_cpt.slurm "my run.yaml" --set "run.dir=$run" --set train.steps=100000 --set schedule='{kind: constant}')
until_true 30 trained 1
on_head scancel -s USR1 "$job"
until_true 60 trained 2 && ok "names with spaces" || { tail -n 10 "$log"; bad "names with spaces: $(state)"; }
on_head scancel "$job"

# ---- jobs that may not be put back: a second one of the same name waits for the first
site "$here" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
submit forbidden --nodes=2 --no-requeue --job-name=once --dependency=singleton -- "${long[@]}"
first=$job
submit forbidden --nodes=2 --no-requeue --job-name=once --dependency=singleton -- "${long[@]}"
second=$job job=$first
until_true 30 trained 1
sleep 0.5
on_head scancel -b -s USR1 "$job"
until_true 30 ended
says "a job that may not be put back says so" 'may not be put back into the queue'
on_head scontrol show job "$job" | grep -q 'ExitCode=75:0' && ok "it ends with 75" || bad "exit status: $(on_head scontrol show job "$job" | grep ExitCode)"
job=$second
until_true 30 trained 2 && ok "the next of the same name goes on" || bad "the next of the same name: $(state)"
on_head scancel "$job"

# ---- the task of an array that has the id of the array
sed 's/, dus: {m: 1}//' "$T/run.yaml" >"$T/cell.yaml"
cat >"$T/sweep.yaml" <<END
dir: $T/sweep
config: $T/cell.yaml
bases: [{name: b, model: $T/base}]
m: [0, 1]
tokens: 25600000
END
log=$T/sweep.log
array=$(cd "$T/home" && on_head sbatch --parsable --array=0-1 --ntasks-per-node=1 --time=20 --output="$log" jobs/sweep_mn.slurm "$T/sweep.yaml")
for k in 0 1; do
    run=$T/sweep/cells/b-m$k-seed1
    until_true 60 trained 1 || bad "cell $k does not train"
done
owner=$(on_head squeue -h -j "$array" -o '%K %A' | awk -v a="$array" '$2 == a { print $1 }')
run=$T/sweep/cells/b-m$owner-seed1
on_head scancel -b -s USR1 "${array}_$owner"
until_true 60 trained 2 && ok "task $owner, whose id is that of the array, goes on by itself" || { tail -n 15 "$log"; bad "task $owner did not go on"; }
run=$T/sweep/cells/b-m$((1 - owner))-seed1
[ "$(lives)" -eq 1 ] && ok "and leaves the other alone" || bad "the other task has $(lives) lives"
on_head scancel "$array"

# ---- without privileges: a node is unfit, a signal, a rank killed
chmod 1777 "$T"
install -D -m 755 "$SOLAR" "$T/bin/solar"
cat >"$T/bin/nvidia-smi" <<'END'
#!/bin/bash
errors=0
[ "$(hostname)" != h2 ] || errors=3
echo "Some GPU 80GB, 81559, $errors"
END
chmod 755 "$T/bin/nvidia-smi"
site "SOLAR=$T/bin/solar" SOLAR_NET=eth0 'SOLAR_PREFLIGHT="--write 4 --share 0.05"' "PATH=$T/bin:\$PATH"
chown -R nobody "$T/home"
chmod -R a+rX "$T/home" "$T/base" "$T"/*.h5 "$T/run.yaml"
as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
submit user --nodes=2 -- --set checkpoint.every=10 --set train.steps=600
until_true 60 trained 1 || bad "a user without privileges does not train"
[ "$("$SOLAR" status "$run" --print left-out)" = h2 ] && ok "a user without privileges: h2 is left out" || bad "left out: $("$SOLAR" status "$run" --print left-out)"
sleep 0.5
on_head "${as[@]}" scancel -s USR1 "$job"
until_true 60 trained 2 && until_true 30 saved 20
pkill -KILL -n -f "^$T/bin/solar train .*run.dir=$run"
completes "told to stop, a rank killed: done" 90
[ "$(lives)" -eq 3 ] && ok "in three lives" || bad "$(lives) lives"
[ "$(stat -c %U "$run/latest/config.json")" = nobody ] && ok "what is written is the user's" || bad "owner: $(stat -c %U "$run/latest/config.json")"
result
