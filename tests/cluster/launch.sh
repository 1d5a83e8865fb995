#!/bin/bash
# How a job is launched: what cannot work is refused at once, with what to do. With FULL=1 also: mpirun where srun and MPI
# do not speak to each other, and ranks that each believe to be alone.
# limit: 400
# shellcheck disable=SC2154 # lib_job.sh sets $job, $run and $log
cd "$(dirname "$0")" && . ../layout/lib.sh && . ./lib_lab.sh && . ./lib_job.sh
lab_or_skip
job_setup
lab_up 3 || { bad "the lab did not start"; result; exit 1; }
refused() { # LABEL TEXT
    until_true 30 ended
    [ "$(state)" = FAILED ] && says "$1" "$2" || bad "$1: $(state)"
}
here="SOLAR=$SOLAR"

site "$here" SOLAR_SRUN=--mpi=pmix_v99
submit no-pmix --
refused "a srun without this PMIx" 'refused: srun here has no --mpi=pmix_v99 (.*pmi2.*).*SOLAR_LAUNCH=mpirun'
site SOLAR=/nowhere/solar
submit no-program --
refused "no program" 'refused: no program /nowhere/solar on h'
site "$here" SOLAR_LAUNCH=prun
submit no-launcher --
refused "an unknown launcher" 'refused: SOLAR_LAUNCH=prun: expected srun or mpirun'
site "$here" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
sed -i 's/$/\r/' "$T/home/slurm/site.env"
submit windows --
refused "line ends of Windows" "site.env has the line ends of Windows: sed -i"
rm "$T/home/slurm/site.env"
submit no-site --
refused "no site.env" 'slurm/site.env is missing: submit from the folder'
site "$here" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
submit array --array=0-1 --
log=$T/array.log
until_true 30 grep -qs array "$log" && says "an array of one run" 'every task of an array would take the same run' || bad "an array of one run"
run=$T/hetero log=$T/hetero.log
job=$(cd "$T/home" && on_head sbatch --parsable --output="$log" --ntasks-per-node=1 -N 1 : -n 1 -N 1 jobs/solar_cpt.slurm "$T/run.yaml")
until_true 30 grep -qs hetero "$log" && says "a heterogeneous job" 'refused: a heterogeneous job of 2 components' || bad "a heterogeneous job"
[ "${FULL:-0}" = 1 ] || { result; exit; }

# ---- mpirun
site "$here" SOLAR_LAUNCH=mpirun SOLAR_NET=eth0 'SOLAR_PREFLIGHT="--write 4 --share 0.05"'
submit whole --nodes=2 -- --set checkpoint.every=10
completes "mpirun: done" 60
says "its preflight on every host" '^h2 '
[ "$(grep -c '"ranks":2' "$run/lives.jsonl")" -eq 1 ] && ok "two ranks" || bad "not two ranks"
# A launcher that hangs in its own end, as has been seen of Open MPI's.
mkdir "$T/bin"
cat >"$T/bin/mpirun" <<EOF
#!/bin/bash
exec perl -e 'system("$(command -v mpirun)", @ARGV); sleep 1000' -- "\$@"
EOF
chmod +x "$T/bin/mpirun"
site "$here" SOLAR_LAUNCH=mpirun SOLAR_NET=eth0 SOLAR_PREFLIGHT=off PATH="$T/bin:$PATH"
submit hanging --nodes=2 -- --set checkpoint.every=10
completes "a mpirun that does not end" 150
says "it is killed" 'mpirun does not end although all its processes have'
long=(--set train.steps=2000 --set checkpoint.every=10)
for event in shell step both; do
    site "$here" SOLAR_LAUNCH=mpirun SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
    submit "mpirun-$event" --nodes=2 -- "${long[@]}"
    until_true 30 trained 1
    sleep 0.5
    case $event in
    shell) on_head scancel -b -s USR1 "$job" ;;
    step) on_head scancel -s USR1 "$job" ;;
    both) on_head scancel -f -s USR1 "$job" ;;
    esac
    until_true 60 trained 2 && ok "mpirun: a signal to the job: $event" || { tail -n 15 "$log"; bad "mpirun: a signal to the job: $event: $(state)"; }
    on_head scancel "$job"
done
submit mpirun-kill --nodes=2 -- --set checkpoint.every=10 --set train.steps=400
until_true 30 trained 1
until_true 30 saved 10
pkill -KILL -n -f "^$SOLAR train .*run.dir=$run"
completes "mpirun: a rank killed: done" 90
[ "$(lives)" -eq 2 ] && ok "in two lives" || bad "$(lives) lives"

# ---- ranks that each believe to be alone
cat >"$T/each-alone" <<END
#!/bin/bash
exec env -i PATH="\$PATH" HOME="\$HOME" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=/bin/false \\
    SOLAR_RANKS="\$SOLAR_RANKS" "$SOLAR" "\$@"
END
chmod 755 "$T/each-alone"
site "SOLAR=$T/each-alone" SOLAR_NET=eth0 SOLAR_PREFLIGHT=off
submit alone --nodes=2 --
refused "ranks that believe to be alone stop at once" 'MPI sees 1 rank(s), the job started 2'
[ ! -e "$run/checkpoints" ] && ok "and have written no checkpoint" || bad "there are checkpoints of one rank"
result
