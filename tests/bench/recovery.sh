#!/bin/bash
# Does depth up-scaling recover, and does it pay? Three experiments on real text, each beside the base model continued
# on the same tokens, scored on documents kept out of training (each alone: BOS and its first 256 tokens).
#   stories   stories260k, m=1 (5 -> 8 layers), continued on TinyStories
#   shift     the same, continued on State of the Union addresses
#   own       a base of 8 layers trained here on half of the addresses, m=2 (12 layers), continued on the other half
# usage: tests/bench/recovery.sh DATA [stories] [shift] [own]     DATA holds stories260k/, tinystories.jsonl, sotu.jsonl
# Prints the curves as numbers. The two arms of an experiment run side by side, one thread each.
set -eu
cd "$(dirname "$0")/../.."
SOLAR=${SOLAR:-$PWD/build/solar}
DATA=$(realpath "${1:?usage: recovery.sh DATA [stories] [shift] [own]}")
shift
[ $# -gt 0 ] || set -- stories shift own
W=${WORK:-$(mktemp -d)}
export OMP_NUM_THREADS=1
echo "solar $("$SOLAR" --version), $(uname -m), $(nproc --all) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), work in $W"

tokenize() { "$SOLAR" tokenize "$1" --tokenizer "$2" --out "$3" --force 2>/dev/null; }

# config FILE BASE TRAIN.h5 VALID.h5 SEQ STEPS EVERY LR
config() {
    cat >"$1" <<EOF
run: {dir: $W/unused, seed: 1}
model: {base: $2}
data: {seq_len: $5, train: [{files: $3}], valid: [{name: held-out, files: $4, samples: 128}]}
train: {global_batch: 16, micro_batch: 8, steps: $6, precision: fp32, threads: 1}
optimizer: {lr: $8, weight_decay: 0.1}
schedule: {kind: cosine, warmup: 20, min_lr: 1.0e-5}
checkpoint: {every: $7, keep: 0}
eval: {every: $7}
EOF
}

loss() { "$SOLAR" eval "$1" --text "$2" --max-tokens 256 --threads 1 --json | sed 's/.*"loss": \([0-9.]*\).*/\1/'; }

# curve RUN HELD FIRST_LOSS: "step loss" of every checkpoint
curve() {
    echo "0 $3"
    for c in "$1"/checkpoints/step-*; do
        step=$(basename "$c" | sed 's/step-0*//')
        echo "$step $(loss "$c" "$2")"
    done
}

# experiment NAME BASE M HELD.jsonl CONFIG TOKENS_PER_STEP
experiment() {
    local name=$1 base=$2 m=$3 held=$4 cfg=$5 per=$6 own start
    "$SOLAR" train "$cfg" --set run.dir="$W/$name-scaled" --set model.dus.m="$m" >"$W/$name-scaled.log" 2>&1 &
    local first=$!
    "$SOLAR" train "$cfg" --set run.dir="$W/$name-base" >"$W/$name-base.log" 2>&1 || { tail -n 3 "$W/$name-base.log"; exit 1; }
    wait $first || { tail -n 3 "$W/$name-scaled.log"; exit 1; }
    own=$(loss "$base" "$held")
    start=$("$SOLAR" eval "$base" --m "$m" --text "$held" --max-tokens 256 --threads 1 --json | sed 's/.*"loss": \([0-9.]*\).*/\1/')
    curve "$W/$name-scaled" "$held" "$start" >"$W/$name-scaled.curve"
    curve "$W/$name-base" "$held" "$own" >"$W/$name-base.curve"
    echo
    echo "== $name: base $own; right after deepening (m=$m) $start; held-out documents: $(wc -l <"$held")"
    echo "      tokens    scaled  base continued"
    join "$W/$name-scaled.curve" "$W/$name-base.curve" 2>/dev/null | awk -v per="$per" -v own="$own" '
        {printf "%12d  %8.4f  %8.4f\n", $1 * per, $2, $3}
        !done && $2 <= own {done = 1; at = $1 * per}
        {scaled = $2; cont = $3}
        END {if (done) printf "recovered (at or below the base model) by %d tokens\n", at
             else printf "not recovered: %.4f above the base model\n", scaled - own
             printf "at equal tokens the scaled model is %.4f %s the continued base\n", scaled < cont ? cont - scaled : scaled - cont, scaled < cont ? "below" : "above"}'
    grep -h 'recovered at' "$W/$name-scaled.log" | sed 's/^solar: /validation samples in training: /' || true
}

for what; do
    case $what in
    stories)
        head -n 687 "$DATA/tinystories.jsonl" >"$W/ts.jsonl"
        tail -n 100 "$DATA/tinystories.jsonl" >"$W/ts-held.jsonl"
        tokenize "$W/ts.jsonl" "$DATA/stories260k" "$W/ts.h5"
        tokenize "$W/ts-held.jsonl" "$DATA/stories260k" "$W/ts-held.h5"
        config "$W/ts.yaml" "$DATA/stories260k" "$W/ts.h5" "$W/ts-held.h5" 256 490 70 1.0e-4
        experiment stories "$DATA/stories260k" 1 "$W/ts-held.jsonl" "$W/ts.yaml" 4096
        ;;
    shift)
        head -n 180 "$DATA/sotu.jsonl" >"$W/so.jsonl"
        tail -n 20 "$DATA/sotu.jsonl" >"$W/so-held.jsonl"
        tokenize "$W/so.jsonl" "$DATA/stories260k" "$W/so.h5"
        tokenize "$W/so-held.jsonl" "$DATA/stories260k" "$W/so-held.h5"
        config "$W/so.yaml" "$DATA/stories260k" "$W/so.h5" "$W/so-held.h5" 256 600 100 1.0e-3
        experiment shift "$DATA/stories260k" 1 "$W/so-held.jsonl" "$W/so.yaml" 4096
        ;;
    own)
        awk 'NR % 10 == 0' "$DATA/sotu.jsonl" >"$W/own-held.jsonl"
        awk 'NR % 10 != 0 && NR % 2 == 1' "$DATA/sotu.jsonl" >"$W/own-a.jsonl"
        awk 'NR % 10 != 0 && NR % 2 == 0' "$DATA/sotu.jsonl" >"$W/own-b.jsonl"
        mkdir -p "$W/model"
        "$SOLAR" tokenize "$W/own-a.jsonl" --train-vocab 2048 --out-model "$W/model/tokenizer.model" --force 2>/dev/null
        cat >"$W/model/config.json" <<EOF
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 96, "intermediate_size": 256,
 "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2, "vocab_size": 2048,
 "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
 "tie_word_embeddings": true, "initializer_range": 0.04, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}
EOF
        for part in a b held; do tokenize "$W/own-$part.jsonl" "$W/model" "$W/own-$part.h5"; done
        config "$W/own-a.yaml" "$W/model" "$W/own-a.h5" "$W/own-held.h5" 256 900 300 3.0e-3
        "$SOLAR" train "$W/own-a.yaml" --set run.dir="$W/own-from" --set model.init=random --set train.threads=0 >"$W/own-from.log" 2>&1
        config "$W/own-b.yaml" "$W/own-from/latest" "$W/own-b.h5" "$W/own-held.h5" 256 420 60 1.5e-3
        experiment own "$W/own-from/latest" 2 "$W/own-held.jsonl" "$W/own-b.yaml" 4096
        ;;
    *) echo "unknown experiment $what" >&2; exit 2 ;;
    esac
done
