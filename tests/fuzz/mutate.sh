#!/bin/bash
# Thousands of mutations of every kind of file that a user can hand in. A case that crashes, hangs, is caught by a
# sanitizer (SAN=1) or gives no proper error is kept below $BUILD/fuzz, with the command that shows it again.
# A second a kind of file; FULL=1: two minutes each, from a seed of the day. FUZZ_SEED=N, FUZZ_SECONDS=N choose.
# limit: 3000
set -u
cd "$(dirname "$0")/../.." || exit 2
BUILD=$(realpath "${BUILD:-build}")
SOLAR=${SOLAR:-$BUILD/solar}
. jobs/local_mpi.sh
seconds=1 seed=1
[ "${FULL:-}" != 1 ] || seconds=120 seed=$(date +%j)
seconds=${FUZZ_SECONDS:-$seconds} seed=${FUZZ_SEED:-$seed}
export LSAN_OPTIONS="suppressions=$PWD/tests/lsan.supp:print_suppressions=0"
# Huge requests must fail as they do elsewhere, not end the program
export ASAN_OPTIONS="allocator_may_return_null=1:fast_unwind_on_malloc=0:${ASAN_OPTIONS:-}"
passed=0 failed=0
T=$(mktemp -d) || exit 2
trap 'rm -rf "$T"' EXIT

must() { "$@" >"$T/log" 2>&1 || { cat "$T/log"; echo "mutate.sh: cannot make the samples: $*"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }; }

# fuzz TARGET PREPARE SAMPLE...: PREPARE is a function that lays the files beside the one that is mutated
fuzz() {
    local target=$1 prepare=$2 dir="$T/$1" status keep
    shift 2
    mkdir -p "$dir"
    $prepare "$dir"
    "$BUILD/tests/mutate" "$target" "$seconds" "$seed" "$dir" "$@" >"$T/out" 2>"$T/log"
    status=$?
    if [ $status -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok   $(cat "$T/out")"
        return
    fi
    failed=$((failed + 1))
    keep="$BUILD/fuzz/$target-$seed"
    rm -rf "$keep" && mkdir -p "$BUILD/fuzz" && cp -r "$dir" "$keep"
    tail -n 40 "$T/log"
    echo "FAIL $target: exit status $status; see it again: $BUILD/tests/mutate $target --one $keep FILE"
}

nothing() { :; }
model() { cp "$fixtures/llama-tied/model/"* "$1"; }
sharded() { cp "$fixtures/llama-mha/model/"* "$1"; }
checkpoint() { cp -r "$T/run/latest/." "$1"; }

fixtures=tests/oracle/fixtures
printf '{"text": "%s"}\n' "Four score and seven years ago" "our fathers brought forth, \\u00e9t\\u00e9" "on this \xe2\x82\xac continent" >"$T/a.jsonl"
gzip -c "$T/a.jsonl" >"$T/a.jsonl.gz"
printf '\x28\xb5\x2f\xfd\x04\x58\xd5\x00\x00\xa0{"text": "a"}\nbcd"}\n\x01\x00\xb1M%%N\xa0\xd2\x95' >"$T/a.jsonl.zst"
must "$SOLAR" tokenize README.md --format text --blank-lines --train-vocab 400 --out-model "$T/a.model"
must "$SOLAR" tokenize README.md --format text --blank-lines --tokenizer "$T/a.model" --out "$T/a.h5"
must "$SOLAR" tokenize README.md --format text --blank-lines --tokenizer "$T/a.model" --deflate 4 --out "$T/b.h5"
must "$SOLAR" config jobs/solar_cpt.yaml --no-files
cp "$T/log" "$T/all.yaml"
mkdir "$T/base"
sed 's/"vocab_size": [0-9]*/"vocab_size": 400/' "$fixtures/llama-tied/model/config.json" >"$T/base/config.json"
cat >"$T/run.yaml" <<END
run: {dir: $T/run}
model: {base: $T/base, init: random}
data: {seq_len: 8, train: [{files: $T/a.h5}], allow_tokenizer_mismatch: true}
train: {global_batch: 1, steps: 1, threads: 1, device: cpu}
END
must "$SOLAR" train "$T/run.yaml"
printf '0-23,8-31' >"$T/layers.txt"

fuzz safetensors nothing "$fixtures"/llama-{mqa,tied,bf16}/model/model.safetensors
fuzz model model "$fixtures/llama-tied/model/model.safetensors"
fuzz index sharded "$fixtures/llama-mha/model/model.safetensors.index.json"
for f in llama-tied llama-rope3 mistral-window qwen2-window; do
    as_it_is() { cp "$fixtures/$f/model/"* "$1"; }
    fuzz config.json as_it_is "$fixtures/$f/model/config.json"
done
fuzz yaml nothing jobs/*.yaml "$T/all.yaml" "$T/run.yaml"
fuzz tokens nothing "$T/a.h5" "$T/b.h5"
fuzz tokenizer nothing "$T/a.model"
fuzz jsonl nothing "$T/a.jsonl"
fuzz gz nothing "$T/a.jsonl.gz"
fuzz zst nothing "$T/a.jsonl.zst"
fuzz manifest checkpoint "$T/run/latest/solar/manifest.json"
fuzz state checkpoint "$T/run/latest/solar/state.json"
fuzz layers nothing "$T/layers.txt"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
