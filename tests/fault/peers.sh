#!/bin/bash
# A rank that stops answering ends the job with exit status 8 and one message that names it, whoever waits for whom;
# a signal to all ranks, twice, saves once; what is not finite ends with 7 and is never saved.
# limit: 400
cd "$(dirname "$0")" && . ../layout/lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 4 4 true
config "$T/random.yaml" "$T/m"
base m "$T/random.yaml"
config "$T/c.yaml" "$T/base-m/latest"
endless=(--set model.dus.m=1 --set mesh.pipeline=2 --set mesh.tensor=2 --set train.steps=200000 --set schedule='{kind: constant}' --set checkpoint.every=0 --set eval.every=0)
ranks_of() { pgrep -f "^$SOLAR train .*run.dir=$run "; }
begin() { # starts $run and waits until it steps
    train 4 "$T/c.yaml" "$run" "${endless[@]}" &
    pid=$!
    for _ in $(seq 600); do [ "$(grep -c grad_norm "$run/metrics.jsonl" 2>/dev/null)" -gt 5 ] 2>/dev/null && break; sleep 0.1; done
}

# trouble WHAT RANK: a run in whose step 7 (or at whose second save, evaluation or, resumed, reading) the rank is stopped
# or killed in that phase.
trouble() {
    local signal=${1%:*} phase=${1#*:} rank=$2 number sets=() s shim=()
    number=$([ "$signal" = stop ] && echo -1 || echo -2)
    run="$T/$signal-$phase-$rank"
    for s in "${endless[@]}" --set timeout.step=6 --set timeout.start=6; do [ "$s" = --set ] || sets+=("$s"); done
    case $phase in
        load)
            train 4 "$T/c.yaml" "$run" "${endless[@]}" --set train.steps=2 || say "$run"
            shim=(DISK_ROOT="$run/checkpoints" DISK_PATH=.safetensors DISK_FAIL="2:$number")
            ;;
        save) sets+=(checkpoint.every=3) shim=(DISK_ROOT="$run/.life" DISK_PATH=.safetensors DISK_FAIL="7:$number") ;;
        evaluate) sets+=(eval.every=7) ;;
        reduce) sets+=(mesh.tensor=1) ;;
    esac
    [ ${#shim[@]} -eq 0 ] || shim+=(DISK_RANK="$rank" LD_PRELOAD="$BUILD/tests/disk_shim.so")
    env "${shim[@]}" timeout -k 5 60 mpirun -np 4 "$BUILD/tests/trouble" "$T/c.yaml" "$run" "$rank" 7 "$1" "${sets[@]}" >"$run.log" 2>&1 </dev/null
}
# Which phases a report may name: a rank that is stopped in its own save keeps the others waiting in a step.
expected() { case $1 in load | evaluate) echo "$1" ;; save) echo '(save|train|evaluate)' ;; *) echo train ;; esac; }
phases=(save:3)
[ "${FULL:-}" = 1 ] && phases=(load:1 forward:0 backward:1 reduce:2 save:3 save:0 evaluate:2)
for one in "${phases[@]}"; do
    phase=${one%:*} rank=${one#*:} began=$SECONDS
    trouble "stop:$phase" "$rank"
    status=$?
    took=$((SECONDS - began)) said=$(grep -c '^solar trouble: error' "$run.log")
    pkill -KILL -f "trouble $T/c.yaml $run "
    [ $status -eq 8 ] && [ "$said" -eq 1 ] && grep -q "no answer from rank(s) $rank (host" "$run.log" && [ $took -lt 40 ] &&
        ok "SIGSTOP of rank $rank, $phase: exit status 8 and its name after $took s" || { grep '^solar' "$run.log"; bad "SIGSTOP of rank $rank, $phase: exit status $status, $said messages, $took s"; }
    reports=$(cat "$run"/reports/*/rank-*.txt 2>/dev/null)
    [ "$(grep -c "^no answer from rank(s) $rank (host" <<<"$reports")" -eq 3 ] && [ "$(grep -cE "^phase $(expected "$phase"), step [0-9]+: has waited [0-9.]+ s in " <<<"$reports")" -ge 3 ] &&
        ok "SIGSTOP of rank $rank, $phase: every living rank wrote what it waited for" || bad "SIGSTOP of rank $rank, $phase: reports: $reports"
done

# A rank that dies: the launcher ends the others, which still say what they waited for.
run="$T/died"
begin
for p in $(ranks_of); do grep -qz "^OMPI_COMM_WORLD_RANK=1$" "/proc/$p/environ" && kill -KILL "$p" && break; done
wait $pid
status=$?
reports=$(cat "$run"/reports/*/rank-*.txt 2>/dev/null)
[ $status -eq 137 ] && [ "$(grep -c 'reports because: this process is being ended' <<<"$reports")" -ge 1 ] && ! grep -q 'rank 1 of' <<<"$reports" &&
    ok "SIGKILL of rank 1: exit status 137, $(grep -c '^reports because' <<<"$reports") of 3 living ranks wrote what they waited for" || { say "$run"; bad "SIGKILL of rank 1: exit status $status: $reports"; }

[ "${FULL:-}" = 1 ] || phases=(save:0)
for one in "${phases[@]}"; do
    phase=${one%:*} rank=${one#*:} began=$SECONDS
    trouble "kill:$phase" "$rank"
    status=$?
    [ $status -eq 137 ] && [ $((SECONDS - began)) -lt 25 ] && ! pgrep -f "trouble $T/c.yaml $run " >/dev/null && ok "SIGKILL of rank $rank, $phase: all end, exit status 137" ||
        { say "$run"; bad "SIGKILL of rank $rank, $phase: exit status $status after $((SECONDS - began)) s"; }
done

run="$T/signals"
begin
# shellcheck disable=SC2046 # several ranks
for _ in 1 2; do kill -TERM $(ranks_of); sleep 0.02; done
wait $pid
status=$?
[ $status -eq 75 ] && [ "$(ls "$run/checkpoints" | wc -l)" -eq 1 ] && [ -z "$(find "$run" -name 'rank-*.txt')" ] && ok "SIGTERM to all ranks, twice: exit status 75" || { say "$run"; bad "SIGTERM to all ranks: exit status $status"; }

# Not a number in the base: bytes of the last tensor.
mkdir "$T/nan" && cp "$T/base-m/latest/config.json" "$T/base-m/latest/model.safetensors" "$T/nan/"
printf '\xff\xff\xff\x7f' | dd of="$T/nan/model.safetensors" bs=1 seek=$(($(stat -c %s "$T/nan/model.safetensors") - 4)) conv=notrunc 2>/dev/null
for extra in '' '--set data.valid=[] --set eval.every=0'; do
    # shellcheck disable=SC2086
    "$SOLAR" train "$T/c.yaml" --set run.dir="$T/nan-run" --set model.base="$T/nan" --set model.dus.m=1 $extra >"$T/nan.log" 2>&1
    status=$?
    [ $status -eq 7 ] && [ -z "$(ls -A "$T/nan-run/checkpoints" 2>/dev/null)" ] && ok "NaN in the base: exit status 7, nothing saved ($extra)" || { say "$T/nan"; bad "NaN in the base: exit status $status"; }
done
# A rate at which the weights run away: whatever is saved on the way is finite.
run="$T/away"
train 1 "$T/c.yaml" "$run" --set optimizer.lr=10 --set optimizer.weight_decay=100 --set optimizer.clip_norm=0 --set schedule='{kind: constant}' --set checkpoint.every=1 --set data.valid=[] --set eval.every=0
status=$?
[ $status -eq 7 ] && ok "weights that run away: exit status 7 at $(ls "$run/checkpoints" | tail -n 1)" || { say "$run"; bad "weights that run away: exit status $status"; }
train 1 "$T/c.yaml" "$run" --set optimizer.lr=1e-30 --set schedule='{kind: constant}' --set data.valid=[] --set eval.every=0 --set train.steps=1
grep -q 'damaged' "$run.log" && bad "a damaged checkpoint was published" || ok "what was saved before is whole"
result
