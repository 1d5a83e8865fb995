#!/bin/bash
# Up-scaled models and trained checkpoints open in Hugging Face Transformers and give the loss that `solar eval`
# gives: three families, fp32 and bf16, one rank and four. Needs torch, transformers and sentencepiece for
# $ORACLE_PYTHON (default: python3), and skips without them; tests/unit/test_oracle.c needs none of that.
# limit: 600
set -u
cd "$(dirname "$0")/../.." || exit 2
SOLAR=$(realpath "${SOLAR:-build/solar}")
here=$PWD/tests/oracle
PYTHON=${ORACLE_PYTHON:-python3}
. jobs/local_mpi.sh
passed=0 failed=0
if ! "$PYTHON" -c 'import torch, transformers, sentencepiece' 2>/dev/null; then
    echo "skipped: $PYTHON has no torch, transformers and sentencepiece (set ORACLE_PYTHON)"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

ok() { passed=$((passed + 1)); echo "ok   $*"; }
bad() { failed=$((failed + 1)); echo "FAIL $*"; }
# must NAME COMMAND...: a step that the next ones need
must() {
    local name=$1
    shift
    "$@" >"$T/log" 2>&1 && return
    cat "$T/log"
    bad "$name"
    echo "$passed passed, $failed failed, 0 skipped"
    exit 1
}

# agree NAME DIR: both read DIR from disk, in fp32, and score the same documents
agree() {
    local ours
    must "$1: solar eval" "$SOLAR" eval "$2" --text "$T/text.jsonl" --max-tokens 60 --json
    ours=$(sed -n 's/.*"loss": \([0-9.]*\).*/\1/p' "$T/log")
    if "$PYTHON" "$here/open_in_transformers.py" "$2" --text "$T/text.jsonl" --max-tokens 60 \
        --expect "${ours:-nan}" >"$T/log" 2>&1; then
        ok "$1: loss $ours in both"
    else
        cat "$T/log"
        bad "$1: loss $ours of ours is not that of Transformers"
    fi
}

# config FILE BASE RUN MORE: a short run; MORE is added to the model
config() {
    cat >"$1" <<END
run: {dir: $3}
model: {base: $2$4}
data: {seq_len: 48, train: [{files: $T/train.h5}]}
train: {global_batch: 4, micro_batch: 1, steps: 8, device: cpu, threads: 1}
optimizer: {lr: 2.0e-3}
schedule: {kind: constant}
checkpoint: {every: 0}
END
}

# family NAME: random weights in the shape of a fixture, trained, deepened on disk and in memory, trained on
family() {
    local base=$T/$1
    mkdir "$base"
    cp "$T/tokenizer.model" "$base/"
    sed 's/"vocab_size": [0-9]*/"vocab_size": 500/; s/"initializer_range": [0-9.]*/"initializer_range": 0.2/' \
        "$here/fixtures/$1/model/config.json" >"$base/config.json"
    config "$T/train.yaml" "$base" "$T/$1-run" ", init: random"
    must "$1: train" "$SOLAR" train "$T/train.yaml"
    agree "$1, a checkpoint" "$T/$1-run/latest"
    must "$1: upscale" "$SOLAR" upscale "$T/$1-run/latest" "$T/$1-deep" --m 0
    agree "$1, up-scaled on disk" "$T/$1-deep"
    config "$T/deep.yaml" "$T/$1-run/latest" "$T/$1-deep-run" ", dus: {layers: [0-1, 0-1]}"
    must "$1: train on 4 ranks" mpirun -np 4 "$SOLAR" train "$T/deep.yaml" --set mesh.pipeline=2 \
        --set mesh.tensor=2 --set train.precision=bf16
    agree "$1, deepened in memory, trained in bf16 on 4 ranks" "$T/$1-deep-run/latest"
}

must vocabulary "$SOLAR" tokenize README.md --format text --blank-lines --train-vocab 500 \
    --out-model "$T/tokenizer.model"
must tokens "$SOLAR" tokenize README.md LICENSE --format text --blank-lines --tokenizer "$T/tokenizer.model" \
    --out "$T/train.h5"
"$PYTHON" -c 'import json, sys
for part in open("README.md", encoding="utf-8").read().split("\n\n")[:8]: print(json.dumps({"text": part}))' >"$T/text.jsonl"
for f in llama-rope3 mistral-window qwen2-window; do family "$f"; done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
