# Helpers of the layout tests: a small model, tokens, and runs on meshes. Sourced by the scripts beside it.
# Uses $SOLAR and $BUILD; everything lies in a temporary directory $T that is removed at the end.
set -u
. ../../jobs/local_mpi.sh
BUILD=$(realpath "${BUILD:-../../build}")
SOLAR=${SOLAR:-$BUILD/solar}
passed=0 failed=0 skipped=0
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

ok() { passed=$((passed + 1)); echo "ok   $*"; }
bad() { failed=$((failed + 1)); echo "FAIL $*"; }
result() { echo "$passed passed, $failed failed, $skipped skipped"; [ "$failed" -eq 0 ]; }

# model NAME LAYERS KV_HEADS TIED: a directory with a config.json only
model() {
    mkdir -p "$T/$1"
    cat >"$T/$1/config.json" <<EOF
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 48, "intermediate_size": 90,
 "num_hidden_layers": $2, "num_attention_heads": 8, "num_key_value_heads": $3, "vocab_size": 261,
 "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
 "tie_word_embeddings": $4, "initializer_range": 0.08, "torch_dtype": "float32"}
EOF
}

# tokens OUT FILE...: byte tokens of text files
tokens() {
    local out=$1
    shift
    "$SOLAR" tokenize "$@" --format text --tokenizer bytes --out "$out" >/dev/null 2>"$T/tokenize.log" || { cat "$T/tokenize.log"; exit 1; }
}

# config FILE BASE: a run of 20 steps of 8 samples of 33 tokens on one or many ranks
config() {
    cat >"$1" <<EOF
run: {dir: $T/none, seed: 7}
model: {base: $2}
data: {seq_len: 33, train: [{files: $T/train.h5}], valid: [{name: v, files: $T/train.h5, samples: 6}]}
train: {global_batch: 8, micro_batch: 1, steps: 20, precision: fp32, device: cpu, threads: 1}
optimizer: {lr: 1.0e-3, weight_decay: 0.1, clip_norm: 1.0}
schedule: {kind: wsd, warmup: 3, decay: 5, min_lr: 1.0e-4}
checkpoint: {every: 10, keep: 0}
eval: {every: 10}
timeout: {start: 120, step: 120}
EOF
}

# train RANKS CONFIG RUN [--set ...]: its log in RUN.log; the exit status is the program's
train() {
    local ranks=$1 config=$2 run=$3
    shift 3
    mpirun -np "$ranks" "$SOLAR" train "$config" --set run.dir="$run" "$@" >"$run.log" 2>&1 </dev/null
}

# A base model of random weights, two steps old: $T/base-NAME/latest
base() { # NAME CONFIG
    train 1 "$2" "$T/base-$1" --set model.init=random --set train.steps=2 --set schedule='{kind: constant}' ||
        { say "$T/base-$1"; bad "no base model $1"; result; exit 1; }
}

# What the program said at the end of a run that should not have failed.
say() { grep '^solar' "$1.log" | tail -n 5; }

# moved RUN: tensors whose bytes differ between the checkpoints of step 10 and step 20
moved() {
    for s in 10 20; do
        awk -F'"' '/"name"/ {n = $4} /"sums"/ && n {print n, $4; n = ""}' "$1/checkpoints/step-000000$s/solar/manifest.json" |
            grep -v '\.exp_avg' | sort >"$T/sums-$s"
    done
    diff "$T/sums-10" "$T/sums-20" | sed -n 's/^> \([^ ]*\) .*/\1/p' | sort
}
