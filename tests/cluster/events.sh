#!/bin/bash
# One run through everything that can end a life of its job on a cluster: each signal to the step, to the shell and to
# both, preemption, requeue by hand, a node set down, a power cut of either host, a cut link. It resumes and completes each
# time, and its weights are those of the run that nothing happened to. Prints the time from event to training again.
# EVENTS=PATTERN in the environment: only the events whose names match.
# limit: 900
# shellcheck disable=SC2034,SC2154 # $event is read by lib_job.sh, which sets $job and $log
cd "$(dirname "$0")" && . ../layout/lib.sh && . ./lib_lab.sh && . ./lib_job.sh
lab_or_skip
[ "${FULL:-0}" = 1 ] || { echo "skipped: every event takes minutes (make check-cluster)"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
job_setup
lab_up 4 PreemptType=preempt/partition_prio PreemptMode=REQUEUE \
    "PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP" || { bad "the lab did not start"; result; exit 1; }

# nothing may look like a crash loop or a bad node here: these are not the nodes' fault, one is hit more than twice
long=(--set train.steps=100000 --set schedule='{kind: constant}' --set checkpoint.every=20)
submit events --nodes=2 -- "${long[@]}"
batch_host() { on_head scontrol -o show job "$job" | sed 's/.*BatchHost=\([^ ]*\).*/\1/'; }
hosts_of() { on_head scontrol show hostnames "$(on_head squeue -h -j "$job" -o %N)"; }
other_host() { hosts_of | grep -vx "$(batch_host)" | head -n 1; }
number() { echo "${1#h}"; }
forgive() { [ ! -e "$run/lives.jsonl" ] || for h in h1 h2 h3 h4; do echo "{\"event\":\"fit\",\"node\":\"$h\"}" >>"$run/lives.jsonl"; done; }

n=1 # lives that have trained
happens() { # LABEL SECONDS COMMAND...: the next life trains within the time
    local label=$1 limit=$2
    shift 2
    [[ $label =~ ${EVENTS:-.} ]] || return
    forgive
    [ $failed -eq 0 ] || return # the job may be gone
    until_true 60 trained $n || { bad "$label: not training before it"; return 1; }
    sleep 0.5
    event=$(date +%s.%N)
    "$@"
    if until_true "$limit" trained $((n + 1)); then
        n=$(grep -c '"event":"step"' "$run/lives.jsonl")
        ok "$label: training again after $(back_after) s"
    else
        grep -v '^  ' "$log" | tail -n 12 | sed 's/^/    /'
        bad "$label: $(state)"
    fi
}

to_step() { on_head scancel -s "$1" "$job"; }
to_shell() { on_head scancel -b -s "$1" "$job"; }
to_both() { on_head scancel -f -s "$1" "$job"; }
for signal in USR1 TERM INT HUP; do
    for whom in step shell both; do
        happens "SIG$signal to $whom" 60 to_$whom $signal
    done
done
# without a step, or with the shell, KILL means scancel
kill_step() { on_head scancel -s KILL "$(on_head squeue -h -s -j "$job" -o %i | grep -v batch | head -n 1)"; }
happens "SIGKILL to step" 60 kill_step

preempt() { on_head sbatch --parsable --partition=urgent --nodes=4 --exclusive --output=/dev/null --wrap "sleep 3" >/dev/null; }
happens "preempted" 90 preempt
happens "requeued by hand" 60 on_head scontrol requeue "$job"
down='' # the host that something happened to
set_down() { down=$(other_host) && on_head scontrol update nodename="$down" state=down reason=test; }
happens "node set down" 90 set_down
[ -z "$down" ] || on_head scontrol update nodename="$down" state=resume 2>/dev/null # or it has come back by itself
for which in other batch; do
    down=''
    cut_power() { down=$(${which}_host) && host_off "$(number "$down")"; }
    happens "power cut of the $which host" 120 cut_power
    [ -z "$down" ] || host_on "$(number "$down")"
done
for which in other batch; do
    down=''
    cut_link() { down=$(${which}_host) && link "$(number "$down")" down; }
    happens "link cut of the $which host" 150 cut_link
    [ -z "$down" ] || link "$(number "$down")" up
done

# an end in sight: a tenth more than now, on the same order of samples
happens "told to stop once more" 60 to_step USR1
on_head scancel "$job"
until_true 30 ended && [ "$(state)" = CANCELLED ] && ok "scancel without a signal ends the job for good" || bad "scancel: $(state)"
steps=$(($("$SOLAR" status "$run" --print checkpoint) + 20))
long[1]=train.steps=$steps
submit events --nodes=2 -- "${long[@]}"
completes "the run is done, after $n lives" 120
chain=$run
submit whole --nodes=2 -- "${long[@]}"
completes "the same run, undisturbed ($steps steps)" 300
run=$chain
same_weights "as if nothing had happened" "$T/whole" 0
# With a limit shorter than the time in which Slurm gives a host up, the report says who is silent.
submit named --nodes=2 -- "${long[@]}" --set timeout.step=1
until_true 60 trained 1
down=$(other_host)
link "$(number "$down")" down
named() { grep -rqsE "^no answer from rank\(s\) [01] \(host $down\)" "$run/reports"; }
until_true 30 named && ok "link cut: the report names $down" || bad "link cut: no report names $down: $(cat "$run"/reports/*/* 2>/dev/null)"
link "$(number "$down")" up
on_head scancel "$job"
result
