# shellcheck shell=bash
# A run as a chain of lives of one Slurm job: what jobs/*.slurm share. To be sourced, after slurm/site.env.
#
#   chain_begin CONFIG [--set ...]...   finds the run directory, notes this life; ends where going on is no use
#   chain_preflight                     looks at every node; one that is unfit is left out of the next life
#   chain_run COMMAND...                the program on all ranks; signals of the job reach it; sets $status
#   ranks=N before chain_begin: fewer than the job has tasks
#   chain_end                           done, back into the queue, or stopped with a report
#
# What happens is kept in RUN/lives.jsonl (solar status RUN). Nothing here needs privileges.

run='' ranks='' status=0
# One task of an array has the id of the whole array: by that number Slurm would mean all of them.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-${SLURM_JOB_ID:-}}

say() { echo "== solar: $*"; }

refuse() { # TEXT: nothing has begun; the same job would be refused again
    say "refused: $*"
    exit 2
}

# {"event": ...} into the diary of the run. The words after the event are pairs of key and text.
note() {
    local line text
    [ -n "$run" ] || return 0
    line="{\"event\":\"$1\",\"time\":$(date +%s.%3N),\"job\":\"$SLURM_JOB_ID\""
    line+=",\"restart\":\"${SLURM_RESTART_COUNT:-0}\",\"nodes\":\"$SLURM_JOB_NODELIST\""
    shift
    while [ $# -ge 2 ]; do
        text=${2//[\"\\$'\n\r\t']/}
        case $text in *[!0-9]* | '') line+=",\"$1\":\"$text\"" ;; *) line+=",\"$1\":$text" ;; esac
        shift 2
    done
    echo "$line}" >>"$run/lives.jsonl" || say "the diary $run/lives.jsonl cannot be written; going on"
}

stop() { # CODE TEXT: the chain ends here
    say "stopped: $2"
    note exit code "$1" why "$2"
    [ -z "$run" ] || $SOLAR status "$run" || true
    exit "$1"
}

# ---- what Slurm knows

# patient COMMAND...: what Slurm says. A controller that is busy, or starting anew, is asked again for five minutes.
patient() {
    local said try
    for try in {1..31}; do
        said=$("$@" 2>&1) && { printf '%s\n' "$said"; return 0; }
        case $said in *'timed out'* | *'Unable to contact'* | *onnect* | *'try again'* | *'Zero Bytes'*) ;; *) break ;; esac
        [ "$try" -gt 30 ] || sleep 10
    done
    printf '%s\n' "$said" >&2
    return 1
}

# The first line holds the name of the job, which may be anything.
job_field() { patient scontrol show job "$job" 2>/dev/null | sed 1d | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1; }
node_field() { scontrol show node "$1" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1; }
nodes_of() { scontrol show hostnames "$1"; }

# The end of the job in seconds since 1970, for the program's own reckoning. Newer versions of Slurm set it.
read_deadline() {
    local end
    [ -z "${SLURM_JOB_END_TIME:-}" ] || return 0
    end=$(date -d "$(job_field EndTime)" +%s 2>/dev/null) && export SLURM_JOB_END_TIME=$end
}

# ---- the run

# run.dir of a config as the program understands it. Options other than --set are the training's.
run_directory() {
    local args=() text
    while [ $# -gt 0 ]; do
        case $1 in
        --set) args+=("$1" "${2:-}") && shift ;;
        --fresh | --overwrite) echo "$1 would begin anew at every restart of the job: leave it away and set another run.dir" >&2; return 2 ;;
        --set=* | [!-]*) args+=("$1") ;;
        esac
        shift
    done
    text=$($SOLAR config "${args[@]}") || return
    printf '%s\n' "$text" | sed -n '/^run:/,/^[^ ]/s/^ *dir: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' | head -n 1
}

ask() { $SOLAR status "$run" --print "$1" 2>/dev/null; }
checkpoint() { ask checkpoint || echo 0; }

# A life that wrote no exit was cut: by a dead node, by a preemption, by hand. A node that is down, or was started
# again since that life began, is why.
blame_for_cut_life() {
    local last began node state started
    last=$(grep '"event":"job"' "$run/lives.jsonl" 2>/dev/null | tail -n 1)
    [ -n "$last" ] && ! sed -n '/"event":"job"/h;/"event":"job"/!H;${x;p}' "$run/lives.jsonl" | grep -q '"event":"exit"' || return 0
    began=${last#*\"time\":} began=${began%%[!0-9]*}
    node=${last#*\"nodes\":\"} node=${node%%\"*}
    for node in $(nodes_of "$node"); do
        state=$(node_field "$node" State)
        started=$(date -d "$(node_field "$node" SlurmdStartTime)" +%s 2>/dev/null || echo 0)
        case $state in *DOWN* | *NOT_RESPONDING* | *FAIL* | *POWER*) ;; *) [ "$started" -gt "$began" ] || continue ;; esac
        say "node $node died under the former life (now $state)"
        note death node "$node" why "the node went down under a life"
    done
}

# What srun calls the process managers it can speak to.
mpi_kinds() { srun --mpi=list 2>&1 | tr -s ' ,\t\n' ' '; }

# What would go wrong in every life is said before the first.
check_job() {
    local kind
    [ -n "$job" ] || refuse "no Slurm job: submit with sbatch"
    [ -z "${SLURM_HET_SIZE:-}" ] || refuse "a heterogeneous job of $SLURM_HET_SIZE components: all ranks are to be in one, submit it without \":\""
    [ "${ranks:=${SLURM_NTASKS:-0}}" -gt 0 ] || refuse "Slurm does not say how many tasks the job has: submit with --ntasks-per-node=RANKS"
    [ "$ranks" -le "$SLURM_NTASKS" ] || refuse "$ranks ranks are asked for, and the job has $SLURM_NTASKS tasks: submit with --ntasks=$ranks"
    command -v "${SOLAR%% *}" >/dev/null || refuse "no program ${SOLAR%% *} on $(hostname): set SOLAR, or load its module, in slurm/site.env"
    case $SOLAR_LAUNCH in
    srun) ;;
    mpirun) command -v mpirun >/dev/null || refuse "SOLAR_LAUNCH=mpirun, and no mpirun on $(hostname): load its module in slurm/site.env" ;;
    *) refuse "SOLAR_LAUNCH=$SOLAR_LAUNCH: expected srun or mpirun" ;;
    esac
    case $SOLAR_LAUNCH-$SOLAR_SRUN in
    srun-*--mpi=*)
        kind=${SOLAR_SRUN##*--mpi=} kind=${kind%% *}
        case " $(mpi_kinds) " in
        *" $kind "*) ;;
        *) refuse "srun here has no --mpi=$kind ($(mpi_kinds)): set SOLAR_SRUN to the one that MPI was built with, or SOLAR_LAUNCH=mpirun, in slurm/site.env" ;;
        esac
        ;;
    esac
    [ "$(job_field Requeue)" != 0 ] || say "this job may not be put back into the queue (--no-requeue, or JobRequeue=0): when it ends early, submit it again"
}

chain_begin() {
    local code idle word
    for word in TERM INT HUP USR1; do trap 'pass_on USR1' $word; done
    trap 'pass_on USR2' USR2
    check_job
    run=$(run_directory "$@")
    code=$?
    [ $code -eq 0 ] && [ -n "$run" ] || { run=''; say "the config cannot be used (exit status $code)"; exit $((code ? code : 3)); }
    mkdir -p "$run" || exit 6
    say "job $job, life $((${SLURM_RESTART_COUNT:-0} + 1)), $SLURM_JOB_NUM_NODES node(s) $SLURM_JOB_NODELIST, $ranks ranks, $(date)"
    blame_for_cut_life
    note job checkpoint "$(checkpoint)"
    idle=$(ask idle)
    [ "${idle:-0}" -le "$SOLAR_IDLE_LIVES" ] || stop 1 "$((idle - 1)) lives without a new checkpoint: a crash loop, see RUN/lives.jsonl and the log above"
    avoid_left_out
}

# Before chain_begin: gives the nodes back for a while. Where that is forbidden, it waits on them.
chain_wait() { # SECONDS
    say "waiting, $1 s"
    status=75
    [ "$(job_field Requeue)" = 1 ] || { sleep "$1"; return; }
    requeue "$1"
}

# ---- nodes

# Options that keep a requeued job off the nodes left out; fails when too few would remain.
left_out_fits() {
    local all
    all=$(sinfo -h -N -p "$SLURM_JOB_PARTITION" -o %N | sort -u | grep -cvxF "${1//,/$'\n'}")
    [ "$all" -ge "$SLURM_JOB_NUM_NODES" ]
}

# When Slurm restarted the job by itself it knew nothing of them.
avoid_left_out() {
    local out mine
    out=$(ask "left-out")
    [ -n "$out" ] || return 0
    mine=$(nodes_of "$SLURM_JOB_NODELIST" | grep -xF "${out//,/$'\n'}") || return 0
    say "node(s) left out of this run are in the job again:" $mine
    status=75
    note exit code 75 why "on a node that is left out"
    requeue
}

chain_preflight() {
    local found code
    [ "$SOLAR_PREFLIGHT" != off ] || return 0
    found=$(slurm/preflight "$run" $SOLAR_PREFLIGHT 2>&1)
    code=$?
    echo "$found"
    [ $code -ne 0 ] || return 0
    case $code in 2 | 3) stop $code "the preflight's options or launch are wrong: see above" ;; esac
    status=$code
    printf '%s\n' "$found" | grep '^unfit ' | while read -r _ node why; do note unfit node "$node" why "$why"; done
    note exit code $code why "the preflight failed"
    [ "$(ask idle || echo 1)" -lt "$SOLAR_IDLE_LIVES" ] || stop 1 "the preflight of $SOLAR_IDLE_LIVES lives failed"
    requeue
}

# ---- the program

set_network() {
    # a peer that is silent for 11 s is gone; by default mpirun would wait for many minutes
    export OMPI_MCA_oob_tcp_keepalive_time=5 OMPI_MCA_oob_tcp_keepalive_intvl=2 OMPI_MCA_oob_tcp_keepalive_probes=3
    export PRTE_MCA_oob_tcp_keepalive_time=5 PRTE_MCA_oob_tcp_keepalive_intvl=2 PRTE_MCA_oob_tcp_keepalive_probes=3
    if [ -n "$SOLAR_NET" ]; then
        export OMPI_MCA_btl_tcp_if_include=$SOLAR_NET OMPI_MCA_oob_tcp_if_include=$SOLAR_NET PRTE_MCA_oob_tcp_if_include=$SOLAR_NET
        export NCCL_SOCKET_IFNAME=$SOLAR_NET
    fi
    if [ -n "$SOLAR_HCA" ]; then export UCX_NET_DEVICES=$SOLAR_HCA NCCL_IB_HCA=$SOLAR_HCA; fi
}

# Fewer ranks than the job has tasks are packed on its first nodes.
nodes_for_ranks() {
    local each=$(((SLURM_NTASKS + SLURM_JOB_NUM_NODES - 1) / SLURM_JOB_NUM_NODES)) n=$SLURM_JOB_NUM_NODES
    [ "$ranks" -eq "$SLURM_NTASKS" ] || n=$(((ranks + each - 1) / each))
    echo "$n"
}

# launch EACH COMMAND...: on all ranks ("all") or once on every node ("node")
launch() {
    local each=$1
    shift
    # srun has not taken this over from the job since Slurm 22.05
    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    case $SOLAR_LAUNCH-$each in
    # a rank that failed takes the others along at once, one that only ended after a minute
    srun-all) exec srun $SOLAR_SRUN --kill-on-bad-exit=1 --wait=60 --nodes="$(nodes_for_ranks)" --ntasks="$ranks" "$@" ;;
    srun-node) exec srun $SOLAR_SRUN --kill-on-bad-exit=1 --wait=60 --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "$@" ;;
    mpirun-all) exec mpirun -np "$ranks" "$@" ;;
    mpirun-node) exec mpirun -np "$SLURM_JOB_NUM_NODES" --map-by ppr:1:node "$@" ;;
    esac
}

# Every signal that asks a job to end is passed to the ranks as USR1: they save and end with 75. USR2 asks them to
# save and go on. One that comes before there are ranks keeps them from being started.
child='' asked=''
pass_on() {
    say "signal for the ranks: $1, $(date)"
    [ "$1" = USR2 ] || asked=1
    [ -z "$child" ] || kill -"$1" "$child" 2>/dev/null
}

# A node that lost its power keeps the socket of the step it was running, and refuses a step of the same number when the
# job comes back to it (Slurm's PMIx plugin: "Address already in use"). Every life numbers its steps differently.
skip_step_numbers() {
    local i
    [ "$SOLAR_LAUNCH" = srun ] || return 0
    for ((i = 0; i < ${SLURM_RESTART_COUNT:-0} % 8; i++)); do srun --mpi=none -N 1 -n 1 true >/dev/null 2>&1; done
}

# mpirun of Open MPI 4.1 has been seen to deadlock in its own end after a rank was killed, once in hundreds of deaths: when
# all that it started has ended for half a minute and it has not, it is killed.
watch_launcher() { # PID
    local seen='' idle=0
    command -v ps >/dev/null || return 0
    while [ $idle -lt 30 ] && kill -0 "$1" 2>/dev/null; do
        sleep 1
        if ps -o stat= --ppid "$1" 2>/dev/null | grep -qv '^Z'; then seen=1 idle=0
        elif [ -n "$seen" ]; then idle=$((idle + 1)); fi
    done
    kill -0 "$1" 2>/dev/null || return 0
    say "mpirun does not end although all its processes have: it is killed"
    kill -KILL "$1"
}

chain_run() {
    local word watcher=''
    skip_step_numbers
    set_network
    read_deadline
    export SOLAR_RANKS=$ranks # compared with what MPI sees
    lives=$(ask lives)
    log_from=$(stat -L -c %s /proc/$$/fd/2 2>/dev/null || echo 0)
    [ -z "$asked" ] || { status=75; return; }
    launch all "$@" &
    child=$!
    [ "$SOLAR_LAUNCH" = srun ] || { watch_launcher $child & watcher=$!; }
    while :; do # a signal ends the wait, not the child
        wait $child
        status=$?
        kill -0 $child 2>/dev/null || break
    done
    wait $child 2>/dev/null # it may have ended between the two; 127: its status was taken already
    word=$?
    [ $word -eq 127 ] || status=$word
    [ -z "$watcher" ] || kill $watcher 2>/dev/null
    settle_status
}

# What the launcher says is not the last word: it kills ranks that are ending well when others ended with 75 before
# them, and has been seen to return 0 from a step that never started. The diary knows, if the program came to write in it.
settle_status() {
    local said=cut
    [ "$(ask lives)" = "$lives" ] || said=$(ask state)
    case $status-$said in
    0-done) ;;
    0-*) say "the launcher returned 0, but the run is not done"; status=1 ;;
    137-done) status=0 ;;
    *-stopped*) status=75 ;;
    esac
}

# ---- what comes after it

# What the launcher of this life has said, in the log of the job or in that of its errors (sbatch --error).
life_log() { tail -c "+$((log_from + 1))" "/proc/$$/fd/2" 2>/dev/null; }

# The node on which ranks could not be started: "srun: error: tasks 8-15 launch failed", and ranks fill one node after
# the other.
node_of_failed_launch() {
    local task each
    task=$(life_log | sed -n 's/^srun: error: tasks\{0,1\} \([0-9]*\).* launch failed: .*/\1/p' | head -n 1)
    each=$((SLURM_NTASKS / SLURM_JOB_NUM_NODES))
    [ -z "$task" ] || echo "$(nodes_of "$SLURM_JOB_NODELIST" | sed -n "$((task / each + 1))p") launch failed"
}

# The node whose rank was the first to be killed, before anybody ended the step: somebody who cancelled it, or the launcher
# because a rank had failed.
node_of_first_death() {
    life_log | sed -n -e '/Terminating StepId\|Force Terminated\|Job step aborted\|CANCELLED AT/q' \
        -e 's/^srun: error: \([^:]*\): task [0-9]*: \(Killed\|Segmentation fault\|Bus error\|Aborted\).*/\1 was the first where a rank died: \2/p' \
        -e 's/^mpirun noticed that process rank .* on node \([^ ]*\) exited on signal \([0-9]*\).*/\1 was the first where a rank died: signal \2/p' | head -n 1
}

# Nodes that take no task, all asked at once, and what was said of each.
silent_nodes() {
    local silent
    patient scontrol show job "$job" >/dev/null || return 0
    silent=$(ask_nodes)
    # all of them, also the one that this runs on: that is not the nodes
    [ "$SLURM_JOB_NUM_NODES" -eq 1 ] || [ "$(printf '%s\n' "$silent" | grep -c .)" -lt "$SLURM_JOB_NUM_NODES" ] || { say "no node takes a task: $silent" >&2; return 0; }
    [ -z "$silent" ] || printf '%s\n' "$silent"
}

ask_nodes() {
    local node said
    for node in $(nodes_of "$SLURM_JOB_NODELIST"); do
        case $(node_field "$node" State) in
        *DOWN* | *NOT_RESPONDING* | *FAIL*) echo "$node is down" ;;
        *)
            said=$(timeout 15 srun --overlap --mpi=none -N 1 -n 1 -w "$node" true 2>&1) ||
                echo "$node takes no task: $(printf '%s\n' "$said" | tail -n 1)"
            ;;
        esac &
    done
    wait
}

blame_for_crash() {
    local node why silent
    silent=$(silent_nodes)
    [ -n "$silent" ] || silent=$(node_of_failed_launch)
    [ -n "$silent" ] || silent=$(node_of_first_death)
    while read -r node why; do
        [ -n "$node" ] || continue
        say "the trouble is with node $node: $why"
        note death node "$node" why "$why"
    done < <(printf '%s\n' "$silent")
}

# A shell that was cut off from Slurm may find that the job has gone on without it.
still_ours() {
    [ "$(job_field Restarts)" = "${SLURM_RESTART_COUNT:-0}" ] && return
    say "the job has another life by now, or Slurm cannot be asked: this one ends"
    exit 75
}

# Back into the queue, for SECONDS at least if given, off the nodes that are left out. A job that was cancelled or preempted
# is not RUNNING any more: then Slurm has decided already.
requeue() {
    local state out given
    still_ours
    state=$(job_field JobState)
    case $state in
    RUNNING | SUSPENDED) ;;
    *) say "not put back by this script: the job is ${state:-gone}"; exit 75 ;;
    esac
    [ "$(job_field Requeue)" != 0 ] || { say "it may not be put back into the queue: submit the same job again to go on"; exit "$status"; }
    out=$(ask "left-out")
    if [ -n "$out" ] && ! left_out_fits "$out"; then stop 1 "too few nodes are left beside those left out ($out)"; fi
    trap '' TERM # requeueing ends this script; what is set below can only be set after it
    given=$(job_field ExcNodeList)
    say "back into the queue${out:+, without $out}"
    patient scontrol requeue "$job" || stop "$status" "scontrol requeue failed: submit the same job again"
    if [ -n "$out" ]; then
        case $given in '' | '(null)') ;; *) out=$given,$out ;; esac
        scontrol update JobId="$job" ExcNodeList="$out" || say "the nodes $out could not be excluded"
    fi
    [ -z "${1:-}" ] || scontrol update JobId="$job" StartTime="now+$1" || say "it may start again at once"
    exit 0
}

chain_end() {
    say "exit status $status, $(date)"
    [ $status -eq 0 ] || still_ours
    case $status in
    0) note exit code 0; say "done"; exit 0 ;;
    2 | 3 | 4 | 7) stop "$status" "it would end the same way again: see the error above, then submit the same job again" ;;
    75) note exit code 75; requeue ;;
    esac
    blame_for_crash
    note exit code "$status"
    [ "$(ask idle || echo 1)" -lt "$SOLAR_IDLE_LIVES" ] ||
        stop "$status" "$(ask idle) lives without a new checkpoint: a crash loop, see the log above"
    requeue
}
