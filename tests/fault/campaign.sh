#!/bin/bash
# Runs that are killed again and again with SIGKILL, most of them while they save: one rank at any one call of a save,
# one rank or the whole job at any time. Each is started again, on the same mesh or on another, until it is done. After
# every life each checkpoint that claims to exist is whole; in the end the weights and the optimizer are those of the
# run that nobody killed, bit for bit on the same mesh, and an audit of the samples finds none left out and none twice.
# In make check a few runs; FULL=1: 300. RUNS=N and SEED=N choose.
# limit: 3600
[ -w /dev/shm ] && export TMPDIR=/dev/shm # what a sync costs is not what is tested
cd "$(dirname "$0")" && . ../layout/lib.sh
runs=${RUNS:-6} seed=${SEED:-1} most=3
[ "${FULL:-}" = 1 ] && runs=${RUNS:-300} most=9
# shellcheck disable=SC2034 # it is lib.sh that counts
grep -q __asan "$SOLAR" && { skipped=1; echo "skip campaign: a sanitizer's library must be the first to be loaded"; result; exit; }

tokens "$T/train.h5" ../../LICENSE
model m 4 2 true
sed -i 's/"hidden_size": 48/"hidden_size": 16/; s/"intermediate_size": 90/"intermediate_size": 24/; s/"num_attention_heads": 8/"num_attention_heads": 2/' "$T/m/config.json"
printf '{"a": 1}' >"$T/m/tokenizer_config.json"
config "$T/c.yaml" "$T/m"
sets=(--set model.init=random --set schedule='{kind: constant}' --set data.seq_len=8 --set train.steps=24 --set eval.every=9 --set checkpoint.every=1
    --set checkpoint.keep=2)
meshes=(1: 2:pipeline=2 2:tensor=2 2: '4:pipeline=2,tensor=2' '4:pipeline=2,interleave=2' 3:pipeline=3)
meshes=("${meshes[@]:0:most}")
start() { # MESH RUN [VARIABLE=VALUE]...: one life
    local ranks=${1%%:*} run=$2 more=() s
    for s in ${1#*:}; do more=(--set "mesh={${s//=/: }}"); done
    shift 2
    # the launcher of Open MPI 4.1 can deadlock in its own end after a rank was killed
    env "$@" timeout -k 5 90 mpirun -np "$ranks" "$SOLAR" train "$T/c.yaml" --set run.dir="$run" "${sets[@]}" "${more[@]}" \
        --set checkpoint.when_busy="${busy:-wait}" >>"$run.log" 2>&1 </dev/null
}
sane() { # RUN: whatever claims to be a checkpoint is one
    local c
    for c in "$1"/checkpoints/step-*; do
        [ -e "$c" ] || continue
        echo >>"$1.verified"
        "$SOLAR" inspect "$c" --verify >"$1.inspect" 2>&1 || { echo "$c is not whole: $(tail -n 1 "$1.inspect")"; return 1; }
    done
    [ ! -L "$1/latest" ] || [ -e "$1/latest/solar/manifest.json" ] || { echo "latest points to nothing"; return 1; }
}

whole() { # RUN LIKE TOLERANCE: a run that is done
    sane "$1" && "$BUILD/tests/compare" "$1" "$2" "$3" 2>&1 && "$SOLAR" data --audit "$1" 2>&1 && ! find "$1" -name '*tmp*' | grep .
}

# ---- what the runs would be without the kills, and how many calls a rank makes
mkdir "$T/whole"
for i in "${!meshes[@]}"; do
    start "${meshes[i]}" "$T/whole/$i" || { say "$T/whole/$i"; bad "no run on ${meshes[i]}"; result; exit 1; }
done
for rank in 0 1; do
    start "${meshes[1]}" "$T/seen$rank" LD_PRELOAD="$BUILD/tests/disk_shim.so" DISK_ROOT="$T/seen" DISK_RANK=$rank DISK_LOG="$T/log$rank"
    "$BUILD/tests/power_cut" --list "$T/log$rank" >"$T/calls$rank"
done
calls=("$(wc -l <"$T/calls0")" "$(wc -l <"$T/calls1")")
[ "${calls[0]}" -gt 500 ] && [ "${calls[1]}" -gt 50 ] && ok "a whole run: ${calls[0]} calls of rank 0, ${calls[1]} of another" || bad "calls: ${calls[*]}"

# ---- lives and deaths
killed() { # RUN HOW PATIENCE: waits for the time of death, then kills; in the background of a life
    local run=$1 how=$2 i pids
    if [ "$how" = saving ]; then
        for ((i = 0; i < 400; i++)); do compgen -G "$run/.life/*/step-*" >/dev/null && break; sleep 0.01; done
        sleep "0.0$((RANDOM % 10))"
    else
        sleep "$((RANDOM % 2)).$((RANDOM % 10))$((RANDOM % 10))"
    fi
    mapfile -t pids < <(pgrep -f "^$SOLAR train .*run.dir=$run ")
    [ ${#pids[@]} -gt 0 ] || return
    if [ $((RANDOM % 2)) = 0 ]; then kill -KILL "${pids[RANDOM % ${#pids[@]}]}"
    else pkill -KILL -f "(^|/)(mpirun|solar) .*run.dir=$run "; fi 2>/dev/null
}
life() { # MESH RUN: one life that is to be killed; what ended it is added to RUN.deaths
    local ranks=${1%%:*} run=$2 rank status how
    case $((RANDOM % 4)) in
        0) how=saving ;;
        1) how=moment ;;
        *) how=call ;;
    esac
    if [ $how = call ]; then
        rank=$((RANDOM % ranks))
        start "$1" "$run" LD_PRELOAD="$BUILD/tests/disk_shim.so" DISK_ROOT="$run" DISK_RANK=$rank \
            DISK_FAIL=$((1 + (RANDOM * 32768 + RANDOM) % (rank ? calls[1] : calls[0]))):-2
        status=$?
    else
        killed "$run" $how &
        start "$1" "$run"
        status=$?
        wait $!
    fi
    [ $status -eq 0 ] || echo $how >>"$run.deaths"
    return $status
}
# one NUMBER: a run with its kills, its end, and what is found in it. Runs of an odd number change their mesh.
one() {
    local run=$T/run$1 mesh=$(($1 / 2 % ${#meshes[@]})) of=0 tolerance=1e-5 lives status said
    RANDOM=$((seed * 1000 + $1))
    busy="wait"
    [ $(($1 % 3)) = 0 ] && busy=later
    [ $(($1 % 2)) = 0 ] && of=$mesh tolerance=0
    for ((lives = 1; lives <= 4; lives++)); do
        status=0
        life "${meshes[mesh]}" "$run" || status=$?
        said=$(sane "$run") || { echo "FAIL run $1, life $lives, ${meshes[mesh]}: $said"; return; }
        [ $status -eq 0 ] && break
        [ $(($1 % 2)) = 0 ] || mesh=$((RANDOM % ${#meshes[@]}))
    done
    [ $status -eq 0 ] || start "${meshes[mesh]}" "$run" || { echo "FAIL run $1: $(say "$run")"; return; }
    said=$(whole "$run" "$T/whole/$of" $tolerance) || { echo "FAIL run $1, ${meshes[mesh]}: $said"; return; }
    echo "ok run $1: killed $(wc -l 2>/dev/null <"$run.deaths" || echo 0) times"
    cat "$run.deaths" >>"$T/deaths" 2>/dev/null
    cat "$run.verified" >>"$T/verified"
    rm -rf "$run" "$run".*
}
lane() { for ((i = $1; i < runs; i += 2)); do one "$i"; done >"$T/said$1"; }
lane 1 &
lane 0
wait
grep -h '^FAIL' "$T"/said? && bad "a run did not survive (SEED=$seed)"
good=$(cat "$T"/said? | grep -c '^ok') deaths=$(wc -l <"$T/deaths")
if [ "$good" -eq "$runs" ] && [ "$deaths" -ge "$runs" ]; then
    ok "$runs runs killed $deaths times ($(sort "$T/deaths" | uniq -c | awk '{printf "%s%s by %s", s, $1, $2; s = ", "}')): $(wc -l <"$T/verified") checkpoints verified, weights as without the kills, no sample lost or twice"
else bad "$good of $runs runs went well, $deaths kills"; fi
result
