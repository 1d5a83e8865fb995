#!/bin/bash
# A checkpoint with one flipped byte, anywhere in any of its files, or with a file cut short or gone, is found out:
# it is named, set aside, and the older one taken. `latest` then points to what is there. A disk that fails is no
# damage.
# limit: 300
cd "$(dirname "$0")" && . ../layout/lib.sh

tokens "$T/train.h5" ../../LICENSE
model m 2 2 true
config "$T/c.yaml" "$T/m"
sets=(--set model.init=random --set schedule='{kind: constant}' --set train.global_batch=1 --set eval.every=0 --set data.valid=[])
train 1 "$T/c.yaml" "$T/good" "${sets[@]}" --set train.steps=2 --set checkpoint.every=1 || { say "$T/good"; bad "no run to damage"; result; exit 1; }

flip() { # FILE POSITION: one bit of one byte
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\x$(printf %x $((byte ^ (1 << RANDOM % 7))))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

detected=0 missed=""
try() { # WHAT: resumes the damaged run, which has nothing to do but to find a whole checkpoint
    train 1 "$T/c.yaml" "$run" "${sets[@]}" --set train.steps=1
    if [ $? -eq 0 ] && grep -q 'moved aside as damaged-step-00000002' "$run.log" && grep -q 'resuming from .*step 1$' "$run.log" &&
        [ -d "$run/checkpoints/damaged-step-00000002" ] && [ "$(readlink "$run/latest")" = checkpoints/step-00000001 ]; then
        detected=$((detected + 1))
    else
        missed+=" [$1]"
        say "$run"
    fi
}
RANDOM=1
run="$T/run"
last=checkpoints/step-00000002
few=: # in make check half of the places
[ "${FULL:-}" = 1 ] && few=
for path in "$T/good/$last"/* "$T/good/$last"/solar/*; do
    [ -f "$path" ] || continue
    file=${path#"$T/good/"} size=$(stat -c %s "$path")
    for at in 8 $((RANDOM * RANDOM % size)) cut gone ${few:-0 $((size / 2)) $((size - 1)) $((RANDOM % (size < 2000 ? size : 2000)))}; do
        [ "$at" = : ] || { [ "$at" = 8 ] && [ "$size" -lt 9 ]; } && continue
        rm -rf "$run" && cp -a "$T/good" "$run"
        case $at in
            cut) truncate -s $((size - 1)) "$run/$file" ;;
            gone) rm "$run/$file" ;;
            *) flip "$run/$file" "$at" ;;
        esac
        try "$file: $at"
    done
done
[ -z "$missed" ] && ok "$detected damages of every file of a checkpoint found" || bad "$detected damages found, missed:$missed"

# A thousand random damages of a checkpoint of four ranks, all found.
train 4 "$T/c.yaml" "$T/four" "${sets[@]}" --set train.global_batch=2 --set mesh.tensor=2 --set optimizer.shard=true --set train.steps=2 --set checkpoint.every=1 --set checkpoint.file_size=1 ||
    say "$T/four"
said=$("$BUILD/tests/damages" "$T/four/checkpoints/step-00000002" "$T/four/checkpoints/step-00000001" "$T/work" 1000 1) && ok "$said" || bad "$said"

rm -rf "$run" && cp -a "$T/good" "$run" && ln -sfn checkpoints/nowhere "$run/latest"
train 1 "$T/c.yaml" "$run" "${sets[@]}" --set train.steps=2
[ "$(readlink "$run/latest")" = checkpoints/step-00000002 ] && ok "latest that points nowhere is put right" || bad "latest points to $(readlink "$run/latest")"
printf '{"step": 1, "loss"' >>"$run/metrics.jsonl"
train 1 "$T/c.yaml" "$run" "${sets[@]}" --set train.steps=3
[ "$(grep -c grad_norm "$run/metrics.jsonl")" -eq 3 ] && ! grep -qv '}$' "$run/metrics.jsonl" && ok "half a line of metrics is dropped" || bad "half a line of metrics: $(cat "$run/metrics.jsonl")"
result
