#!/bin/bash
# Bad inputs: each must end with a clear error and its exit code, none with a crash or a report of a sanitizer.
# usage: bad_input.sh [SOLAR]      the program; default $SOLAR, else build/solar
# Everything is written below a temporary directory. Ends with "N passed, N failed, N skipped".
set -u
cd "$(dirname "$0")/../.." || exit 2
SOLAR=$(realpath "${1:-${SOLAR:-build/solar}}")
[ -x "$SOLAR" ] || { echo "bad_input.sh: no program at $SOLAR: make build" >&2; exit 2; }
. jobs/local_mpi.sh
export LSAN_OPTIONS="suppressions=$PWD/tests/lsan.supp:print_suppressions=0"
# with complete stacks, without which leaks inside of MPI cannot be told from ours
export ASAN_OPTIONS="fast_unwind_on_malloc=0:${ASAN_OPTIONS:-}"
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work" "$work".[12]' EXIT
cd "$work" || exit 2
passed=0 failed=0 skipped=0

fail() { # NAME WHY
    failed=$((failed + 1))
    echo "FAIL $1: $2"
    sed 's/^/     /' out err | head -n 15
}

# run NAME EXIT REGEX COMMAND...: the exit code, and the message on standard error
run() {
    local name=$1 want=$2 pattern=$3 status
    shift 3
    timeout -k 5 60 "$@" >out 2>err </dev/null
    status=$?
    if [ $status -ge 124 ]; then fail "$name" "ended by a signal or the time limit (status $status)"
    elif grep -qE 'Sanitizer|runtime error:' err out; then fail "$name" "a sanitizer found something"
    elif [ $status -ne "$want" ]; then fail "$name" "exit code $status, expected $want"
    elif [ -n "$pattern" ] && ! grep -qE -- "$pattern" err; then fail "$name" "the message is not /$pattern/"
    else passed=$((passed + 1)); fi
}
bad() { run "$1" "$2" "$3" "$SOLAR" "${@:4}"; } # NAME EXIT REGEX ARGUMENT...
good() { run "$1" 0 '' "$SOLAR" "${@:2}"; }     # NAME ARGUMENT...: so that the bad ones fail for their own reason
skip() {
    skipped=$((skipped + 1))
    echo "skip $1: $2"
}

# ---- files to break

# st FILE HEADER [DATA_BYTES [HEADER_BYTES]]: a safetensors file; the data are zeros
st() {
    local n=${4:-$(printf %s "$2" | wc -c)} i
    for ((i = 0; i < 8; i++)); do printf "\\x$(printf %02x $(((n >> (8 * i)) & 255)))"; done >"$1"
    printf %s "$2" >>"$1"
    head -c "${3:-0}" /dev/zero >>"$1"
}

# The tensors of the model that config_json describes, as "name rows columns"; columns 0: a vector.
tensors() {
    local l
    echo "model.embed_tokens.weight 258 8"
    for l in 0 1; do
        echo "model.layers.$l.input_layernorm.weight 8 0"
        echo "model.layers.$l.self_attn.q_proj.weight 8 8"
        echo "model.layers.$l.self_attn.k_proj.weight 4 8"
        echo "model.layers.$l.self_attn.v_proj.weight 4 8"
        echo "model.layers.$l.self_attn.o_proj.weight 8 8"
        echo "model.layers.$l.post_attention_layernorm.weight 8 0"
        echo "model.layers.$l.mlp.gate_proj.weight 16 8"
        echo "model.layers.$l.mlp.up_proj.weight 16 8"
        echo "model.layers.$l.mlp.down_proj.weight 8 16"
    done
    echo "model.norm.weight 8 0"
}
# weights FILE: the tensors named on standard input, fp32 zeros
weights() {
    local name rows columns at=0 bytes shape header='' count
    while read -r name rows columns; do
        count=$((rows * (columns ? columns : 1)))
        bytes=$((4 * count))
        shape=$rows$([ "$columns" = 0 ] || echo ",$columns")
        header+="${header:+,}\"$name\":{\"dtype\":\"F32\",\"shape\":[$shape],\"data_offsets\":[$at,$((at + bytes))]}"
        at=$((at + bytes))
    done
    st "$1" "{$header}" $at
}
config_json() { # [SED]: a Llama of two layers whose vocabulary is bytes, edited
    sed "${1:-}" <<'EOF'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
 "hidden_size": 8,
 "intermediate_size": 16,
 "num_hidden_layers": 2,
 "num_attention_heads": 2, "num_key_value_heads": 1,
 "max_position_embeddings": 64,
 "rms_norm_eps": 1e-05,
 "rope_theta": 10000.0,
 "tie_word_embeddings": true, "torch_dtype": "float32",
 "vocab_size": 258, "bos_token_id": 256, "eos_token_id": 257}
EOF
}
# model NAME [SED]: a model directory with an edited config.json and good weights
model() {
    mkdir -p "$1"
    config_json "${2:-}" >"$1/config.json"
    tensors | weights "$1/model.safetensors"
}
# run_yaml FILE [SED]: a good config, edited
run_yaml() {
    sed "${2:-}" >"$1" <<'EOF'
run: {dir: run}
model: {base: M}
data: {seq_len: 8, train: [{files: good.h5}]}
mesh: {pipeline: 1, tensor: 1}
train: {global_batch: 2, steps: 1, threads: 1}
EOF
}

# ---- command line

no_command() {
    bad "no command" 2 'usage: solar COMMAND'
    bad "unknown command" 2 'unknown command "trian"; did you mean train\?' trian
    bad "unknown command, nothing near" 2 'unknown command "frobnicate"' frobnicate
    bad "option for a command" 2 'found option "--config"' --config x
    bad "help of an unknown command" 2 'did you mean upscale' help upscal
    bad "help of two" 2 'expected one command' help train eval
    good "help" --help
    good "version" --version
    good "help of all" help --all
}
options() {
    local c
    for c in plan upscale verify tokenize data train eval generate inspect config; do
        good "$c --help" $c --help
        bad "$c without arguments" 2 "solar $c: error: .*expected" $c
        bad "$c --frobnicate" 2 "solar $c: error: unknown option \"--frobnicate\"" $c M --frobnicate
    done
    bad "misspelt option" 2 'unknown option "--max-token"; did you mean --max-tokens\?' eval M --max-token 5
    bad "not an integer" 2 'docs: found "1e3", expected an integer' eval M --docs 1e3
    bad "too large an integer" 2 'beyond what can be stored' eval M --docs 99999999999999999999
    bad "out of range" 2 'max-tokens: found "0", expected an integer' eval M --max-tokens 0
    bad "negative" 2 'm: found "-1", expected an integer' upscale M out --m -1
    bad "not a number" 2 'temperature: found "nan", expected a number' generate M --temperature nan
    bad "option without value" 2 '--text needs a value' eval M --text
    bad "empty value" 2 '--text: found an empty value' eval M --text=
    bad "given twice" 2 'docs is given twice' eval M --docs 1 --docs 2
    bad "flag with value" 2 '--json takes no value' eval M --json=1
    bad "one argument too many" 2 'one argument too many, "x"' inspect M x
    bad "config: file and schema" 2 'one of the two' config c.yaml --schema
    bad "config: markdown alone" 2 'needs --schema' config c.yaml --markdown
    bad "eval: nothing to evaluate on" 2 '--text' eval M
    bad "upscale: no depth" 2 '--m' upscale M out
    bad "upscale: two depths" 2 '--layers' upscale M out --m 1 --layers 0-1
    bad "train: overwrite alone" 2 '--fresh' train c.yaml --overwrite
    bad "tokenize: no output" 2 '--out' tokenize text.jsonl --tokenizer bytes
    [ -e /dev/full ] || { skip "full disk" "no /dev/full here"; return; }
    run "full disk" 6 'standard output' bash -c '"$0" config --schema >/dev/full' "$SOLAR"
}

# ---- configs

# yaml NAME REGEX TEXT: of a whole config file
yaml() {
    printf '%b' "$3" >c.yaml
    bad "config: $1" 3 "$2" config c.yaml --no-files
}
# key NAME REGEX SED: of a good config, edited
key() {
    run_yaml c.yaml "$3"
    bad "config: $1" 3 "$2" config c.yaml --no-files
}
broken_yaml() {
    yaml "empty" 'c.yaml:1:1: found an empty file' ''
    yaml "text" 'c.yaml:1:1: found text "hello"' 'hello'
    yaml "list" 'c.yaml:1:1: found a list' '- run\n'
    yaml "unclosed map" 'c.yaml:2:1: found broken YAML' 'run: {dir: r\n'
    yaml "tab" 'c.yaml:2:1: .*indent with spaces' 'run:\n\tdir: r\n'
    yaml "unclosed quote" 'found broken YAML' 'run: {dir: "r\n'
    yaml "not UTF-8" 'c.yaml:1:12: found bytes that are not UTF-8' 'run: {dir: \xff}\n'
    yaml "NUL" 'c.yaml:1:12: found bytes' 'run: {dir: \x00}\n'
    yaml "UTF-16" 'c.yaml:1:1: found bytes' '\xff\xfer\x00'
    yaml "key twice" 'c.yaml:2:1: found key "run" again' 'run: {dir: r}\nrun: {dir: s}\n'
    yaml "anchor" 'c.yaml:1:6: found an anchor' 'run: &a {dir: r}\n'
    yaml "alias" 'c.yaml:1:6: found an alias' 'run: *a\n'
    yaml "merge key" 'c.yaml:1:7: found a merge key' 'run: {<<: {dir: r}}\n'
    yaml "tag" 'c.yaml:1:12: found a tag' 'run: {dir: !!str r}\n'
    yaml "two documents" 'c.yaml:3:1: found a second' 'run: {dir: r}\n\n---\nrun: {dir: r}\n'
    yaml "key that is a list" 'c.yaml:1:3: found a key that is not text' '? [a]\n: 1\n'
    head -c 500000 /dev/zero | tr '\0' '[' >c.yaml
    bad "config: deep nesting" 3 'more than 16 levels' config c.yaml
    { echo -n '['; yes 1, | head -n 100000; } >c.yaml
    bad "config: many values" 3 'more than 20000 values' config c.yaml
    yes '# a comment' | head -c 10000000 >c.yaml
    bad "config: 10 MB" 3 'at most 1 MiB' config c.yaml
    bad "config: absent" 3 'none.yaml: .*No such file' config none.yaml
    bad "config: a directory" 3 'expected a config file' config .
    bad "config: endless" 3 'expected a config file' config /dev/zero
    head -c 2000 /dev/urandom >c.yaml
    bad "config: random bytes" 3 'c.yaml:' config c.yaml
}
wrong_keys() {
    good "config" config good.yaml --no-files
    key "unknown section" 'c.yaml:5:1: found unknown key "trian".*did you mean train\?' '5s/train/trian/'
    key "unknown key" 'c.yaml:5:26: found unknown key "step" in train.*did you mean train.steps\?' '5s/steps/step/'
    key "key of another section" 'did you mean optimizer.lr\?' '5s/steps: 1/lr: 1/'
    key "section that is text" 'c.yaml:1:6: run: found text "r", expected a map' '1s/{.*/r/'
    key "list for text" 'c.yaml:1:12: run.dir: found a list' '1s/dir: run/dir: [run]/'
    key "number for text" 'c.yaml:1:12: run.dir: found integer 5.*in quotes' '1s/dir: run/dir: 5/'
    key "text for integer" 'c.yaml:5:33: train.steps: found text "abc", expected integer' '5s/steps: 1/steps: abc/'
    key "quoted integer" 'train.steps: found text "1".*without quotes' '5s/steps: 1/steps: "1"/'
    key "real for integer" 'train.steps: found real 1e3.*write 1000' '5s/steps: 1/steps: 1e3/'
    key "underscores" 'train.steps: found text "1_000"' '5s/steps: 1/steps: 1_000/'
    key "64 bits" 'train.steps: .*beyond' '5s/steps: 1/steps: 18446744073709551616/'
    key "zero steps" 'train.steps: found integer 0, expected integer from 1' '5s/steps: 1/steps: 0/'
    key "no value" 'train.steps: found no value' '5s/steps: 1/steps: /'
    key "yes for true" 'found text "yes".*write true' '3s/seq_len: 8/seq_len: 8, shuffle: yes/'
    key "unknown word" 'found text "fp16", expected one of fp32, bf16' '5s/steps: 1/steps: 1, precision: fp16/'
    key "required section" 'c.yaml:1:1: run.dir: found no such key' '1d'
    key "required key" 'c.yaml:5:8: train.steps: found no such key' '5s/, steps: 1//'
    key "one source, no list" 'data.train: found a map.*list of maps' '3s/\[\(.*\)\]/\1/'
    key "source without files" 'data.train\[\].files: found no such key' '3s/files: good.h5/weight: 1/'
    key "path for a shell" 'c.yaml:1:12: run.dir: found ~/r.*not replaced' '1s/dir: run/dir: ~\/r/'
    key "weights of zero" 'found weights with a sum of 0' '3s/good.h5/good.h5, weight: 0/'
    key "negative weight" 'weight: found integer -1, expected number >= 0' '3s/good.h5/good.h5, weight: -1/'
    key "blend without a sample" 'data.blend\[\].at: found no such key' '3s/train:/blend: [{weights: [1]}], train:/'
    key "m and layers" 'both m and layers' '2s/base: M/base: M, dus: {m: 1, layers: [0-1]}/'
    key "layers backwards" 'first <= last' '2s/base: M/base: M, dus: {layers: [1-0]}/'
    key "micro-batch" 'c.yaml:5:49: train.micro_batch: found 3, expected a divisor' '5s/steps: 1/steps: 1, micro_batch: 3/'
    key "schedule too long" 'schedule: found warmup 2 ' '5s/$/\nschedule: {warmup: 2}/'
    key "decay without wsd" 'only wsd uses it' '5s/$/\nschedule: {kind: cosine, decay: 1}/'
    key "infinite rate" 'optimizer.lr: found text ".inf"' '5s/$/\noptimizer: {lr: .inf}/'
    key "beta of one" 'optimizer.betas: found real 1.0' '5s/$/\noptimizer: {betas: [0.9, 1.0]}/'
    key "layout" 'mesh.layout: found 2 numbers' '4s/tensor: 1/layout: [1, 1]/'
}
wrong_sets() {
    bad "set without =" 2 'found no "="' config good.yaml --set train.steps
    bad "set of nothing" 2 'found a name of 0 bytes' config good.yaml --set =1
    bad "set of an unknown key" 3 '--set "train.step=1": found unknown key' config good.yaml --set train.step=1
    bad "set to the wrong type" 3 '--set "train.steps=x": train.steps: found text' config good.yaml --set train.steps=x
    bad "set to broken YAML" 3 '--set "data.train=\[": found broken YAML' config good.yaml --set data.train=[
    bad "set of an item too far" 3 'a list of 1' config good.yaml --set data.train.3.weight=1
    good "set of an item" config good.yaml --set 'data.train[0].weight=1'
    bad "set of an item without its bracket" 2 'found "0" and then "=1"' config good.yaml --set 'data.train[0=1'
    bad "set with a bracket too many" 2 'found "train" and then "=1"' config good.yaml --set 'data.train]=1'
    bad "set of an item in text" 3 'the number of an item' config good.yaml --set 'data.train[x]=1'
    bad "set below text" 3 'in front of "x"' config good.yaml --set run.dir.x=1
}
missing_files() {
    good "config and its files" config good.yaml
    bad "no such model" 3 '--set "model.base=N": model.base: found nothing at "N"' config good.yaml --set model.base=N
    bad "model that is a file" 3 'model.base: found a file' config good.yaml --set model.base=good.yaml
    bad "model without config.json" 3 'found no config.json' config good.yaml --set model.base=/
    bad "no such tokens" 3 'data.train\[0\].files: found nothing at "x/\*.h5"' config good.yaml --set 'data.train=[{files: x/*.h5}]'
    run_yaml c.yaml '3s/good/none/'
    bad "train: no such tokens" 3 'c.yaml:3:36: data.train\[0\].files: found nothing at "none.h5"' train c.yaml
    run_yaml c.yaml '2s/M/none/'
    bad "train: no such model" 3 'c.yaml:2:15: model.base: found nothing' train c.yaml
    bad "run directory that is a file" 3 'run.dir: found a file' train good.yaml --set run.dir=good.yaml
}

# ---- models

# weight_file NAME REGEX HEADER [DATA_BYTES [HEADER_BYTES]]
weight_file() {
    st B/model.safetensors "${@:3}"
    bad "safetensors: $1" 4 "$2" inspect B
}
one() { printf '{"a":{"dtype":"%s","shape":%s,"data_offsets":%s}}' "$1" "$2" "$3"; }
two() { printf '{"a":{"dtype":"F32","shape":[2],"data_offsets":%s},"b":{"dtype":"F32","shape":[2],"data_offsets":%s}}' "$1" "$2"; }
safetensors() {
    model B
    good "model" inspect B
    : >B/model.safetensors
    bad "safetensors: empty" 4 'model.safetensors.*0 bytes' inspect B
    printf '1234567' >B/model.safetensors
    bad "safetensors: 7 bytes" 4 'model.safetensors.*7 bytes' inspect B
    weight_file "header longer than the file" 'header has 1000 bytes' '{}' 0 1000
    weight_file "header of 2^62 bytes" 'header has 4611686018427387904 bytes' '{}' 0 4611686018427387904
    weight_file "header of 2^64-1 bytes" 'header has 18446744073709551615 bytes' '{}' 0 -1
    weight_file "header of 0 bytes" 'header' ''
    weight_file "not JSON" 'header' '{"a": '
    weight_file "a list" 'header' '[1, 2]'
    weight_file "depth bomb" 'header' "$(head -c 100000 /dev/zero | tr '\0' '[')"
    weight_file "depth bomb of maps" 'header' "$(yes '{"a":' | head -n 20000 | tr -d '\n')"
    weight_file "not UTF-8" 'header' "$(printf '{"\xff": 1}')"
    weight_file "bytes behind the header's JSON" 'header' '{} {}'
    weight_file "duplicate names" 'duplicate|twice|again' \
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}' 8
    weight_file "unknown dtype" 'dtype' "$(one F8_E4M3 '[4]' '[0,4]')" 4
    weight_file "dtype that is a number" 'dtype' '{"a":{"dtype":5,"shape":[4],"data_offsets":[0,4]}}' 4
    weight_file "no dtype" 'dtype|expected' '{"a":{"shape":[4],"data_offsets":[0,4]}}' 4
    weight_file "tensor that is a number" 'tensor a' '{"a": 5}'
    weight_file "shape and length disagree" 'tensor a' "$(one F32 '[3]' '[0,8]')" 8
    weight_file "negative size" 'shape' "$(one F32 '[-2]' '[0,8]')" 8
    weight_file "real size" 'shape' "$(one F32 '[2.0]' '[0,8]')" 8
    weight_file "shape that overflows" 'shape' "$(one F32 '[4294967296,4294967296,2]' '[0,8]')" 8
    weight_file "bytes that overflow" 'tensor a' "$(one F32 '[4611686018427387904]' '[0,0]')" 0
    weight_file "nine dimensions" 'shape' "$(one F32 '[1,1,1,1,1,1,1,1,1]' '[0,4]')" 4
    weight_file "offsets behind the end" 'data_offsets' "$(one F32 '[2]' '[4,12]')" 8
    weight_file "offsets of 2^63" 'header|data_offsets' "$(one F32 '[2]' '[9223372036854775808,9223372036854775816]')" 8
    weight_file "negative offset" 'data_offsets' "$(one F32 '[2]' '[-8,0]')" 8
    weight_file "offsets backwards" 'data_offsets' "$(one F32 '[2]' '[8,0]')" 8
    weight_file "three offsets" 'data_offsets' "$(one F32 '[2]' '[0,8,8]')" 8
    weight_file "overlap" 'overlap' "$(two '[0,8]' '[4,12]')" 12
    weight_file "hole" 'belong to no tensor' "$(two '[0,8]' '[12,20]')" 20
    weight_file "bytes behind the last tensor" 'belong to no tensor' "$(one F32 '[2]' '[0,8]')" 100
    weight_file "metadata that is no map" '__metadata__' '{"__metadata__": 5}'
    rm B/model.safetensors
    bad "safetensors: none" 4 'safetensors' inspect B
    mkdir B/model.safetensors
    bad "safetensors: a directory" 4 'safetensors' inspect B
}
# index NAME REGEX JSON
index() {
    printf '%s' "$3" >I/model.safetensors.index.json
    bad "index: $1" 4 "$2" inspect I
}
indexes() {
    model I
    mv I/model.safetensors I/part.safetensors
    index "not JSON" 'index.json' '{'
    index "no weight_map" 'weight_map' '{}'
    index "a file that is not there" 'none.safetensors' '{"weight_map": {"model.norm.weight": "none.safetensors"}}'
    index "a file outside of the model" 'index.json' '{"weight_map": {"model.norm.weight": "../B/model.safetensors"}}'
    index "a tensor that is not there" 'index' '{"weight_map": {"nothing": "part.safetensors"}}'
    index "tensors left out" 'index' '{"weight_map": {"model.norm.weight": "part.safetensors"}}'
    index "a number for a file" 'index' '{"weight_map": {"model.norm.weight": 5}}'
}
# spec NAME REGEX SED: config.json, edited
spec() {
    config_json "$3" >B/config.json
    bad "config.json: $1" 4 "$2" inspect B
}
specs() {
    rm -rf B
    model B
    spec "another model_type" 'model_type.*mamba' 's/"llama"/"mamba"/'
    spec "unknown activation" 'hidden_act.*relu' 's/silu/relu6/'
    spec "no hidden_size" 'hidden_size' '/hidden_size/d'
    spec "text for a size" 'hidden_size' 's/"hidden_size": 8/"hidden_size": "8"/'
    spec "negative layers" 'num_hidden_layers' 's/hidden_layers": 2/hidden_layers": -2/'
    spec "no layers" 'num_hidden_layers' 's/hidden_layers": 2/hidden_layers": 0/'
    spec "enormous layers" 'num_hidden_layers' 's/hidden_layers": 2/hidden_layers": 9007199254740993/'
    spec "heads that do not divide" 'num_attention_heads|num_key_value_heads|hidden_size' 's/attention_heads": 2/attention_heads": 3/'
    spec "no heads" 'num_attention_heads' 's/attention_heads": 2/attention_heads": 0/'
    spec "rope of another kind" 'rope' 's/"rope_theta"/"rope_scaling": {"rope_type": "magic", "factor": 2.0}, "rope_theta"/'
    spec "negative epsilon" 'rms_norm_eps' 's/1e-05/-1e-05/'
    spec "another dtype" 'torch_dtype|dtype' 's/float32/int4/'
    spec "vocabulary of nothing" 'vocab_size' 's/"vocab_size": 258/"vocab_size": 0/'
    spec "not JSON" 'config.json' 's/"hidden_size"/hidden_size/'
    spec "quantized" 'quantization_config' 's/"rope_theta"/"quantization_config": {"bits": 4}, "rope_theta"/'
    echo '[1]' >B/config.json
    bad "config.json: a list" 4 'config.json' inspect B
    rm B/config.json
    bad "config.json: none" 4 'config.json' inspect B
    bad "no such model directory" 4 'none' inspect none
}
# tensor_list NAME REGEX SED: the list of tensors, edited
tensor_list() {
    tensors | sed "$3" | weights B/model.safetensors
    bad "tensors: $1" 4 "$2" eval B --text text.jsonl --tokenizer bytes
    bad "upscale: $1" 4 "$2" upscale B up --m 1
    [ ! -e up ] || { fail "upscale: $1" "left its output behind"; rm -rf up; }
}
model_use() {
    rm -rf B
    model B
    good "eval" eval M --text text.jsonl --tokenizer bytes
    good "upscale" upscale M scaled --m 1
    good "verify" verify M scaled
    tensor_list "one missing" 'layers.1.self_attn.q_proj.weight' '/1.self_attn.q_proj/d'
    tensor_list "one too many" 'extra.weight' '$s/$/\nextra.weight 4 0/'
    tensor_list "wrong shape" 'layers.0.mlp.up_proj.weight' '/0.mlp.up_proj/s/16 8/8 16/'
    tensor_list "a vector for a matrix" 'model.embed_tokens.weight' '/embed/s/258 8/2064 0/'
    bad "upscale: m too large" 3 'm ' upscale M up --m 2
    bad "upscale: no such layer" 3 '' upscale M up --layers 0-1,1-2
    bad "upscale: not a list" 3 '' upscale M up --layers a-b
    bad "upscale: output is there" 2 'scaled' upscale M scaled --m 1
    bad "verify: another depth" 5 'layers' verify M scaled --m 0
    bad "verify: another width" 5 '' verify M wide
    bad "verify: nothing there" 4 'none' verify M none
    cp -r scaled flipped
    printf '\x01' | dd of=flipped/model.safetensors bs=1 seek=$(($(stat -c %s flipped/model.safetensors) - 1)) conv=notrunc status=none
    bad "verify: a byte changed" 5 'model.norm.weight' verify M flipped
    bad "eval: m too large" 3 'm' eval M --text text.jsonl --tokenizer bytes --m 2
    bad "eval: no such layer" 3 '' eval M --text text.jsonl --tokenizer bytes --layers 0-5
    bad "eval: tokenizer that the model lacks" 4 'tokenizer.model' eval M --text text.jsonl
    bad "eval: no such text" 4 'none.jsonl' eval M --text none.jsonl --tokenizer bytes
    bad "eval: token file that is none" 4 'text.jsonl' eval M --tokens text.jsonl
    mkdir -p T && cp M/* T/ && echo x >T/tokenizer.model
    bad "eval: tokens of another tokenizer" 4 'made with the tokenizer bytes' eval T --tokens good.h5 --seq-len 8
    good "eval: such tokens, allowed" eval T --tokens good.h5 --seq-len 8 --allow-tokenizer-mismatch
    bad "eval: unknown precision" 2 'precision' eval M --text text.jsonl --tokenizer bytes --precision fp8
    bad "eval: mesh without its ranks" 3 '' eval M --text text.jsonl --tokenizer bytes --pipeline 2
    model V 's/258/100/; s/, "bos_token_id.*257//'
    tensors | sed '1s/258/100/' | weights V/model.safetensors
    bad "eval: ids beyond the vocabulary" 4 'vocabulary' eval V --text text.jsonl --tokenizer bytes
    bad "train: ids beyond the vocabulary" 4 'vocabulary' train good.yaml --set model.base=V
}

# ---- text and tokens

# text NAME REGEX BYTES: a JSON-lines file
text() {
    printf '%b' "$3" >bad.jsonl
    bad "tokenize: $1" 4 "$2" tokenize bad.jsonl --strict --tokenizer bytes --out t.h5
    [ ! -e t.h5 ] || { fail "tokenize: $1" "left its output behind"; rm -f t.h5; }
}
texts() {
    text "not JSON" 'bad.jsonl:2' '{"text": "a"}\n{"text": \n'
    text "no text" 'bad.jsonl:1.*text' '{"body": "a"}\n'
    text "text that is a number" 'bad.jsonl:1' '{"text": 5}\n'
    text "a list" 'bad.jsonl:1' '["text"]\n'
    text "not UTF-8" 'bad.jsonl:1' '{"text": "\xff"}\n'
    text "half a surrogate" 'bad.jsonl:1' '{"text": "\\ud800"}\n'
    { printf '{"a":'; head -c 200000 /dev/zero | tr '\0' '['; echo; } >bad.jsonl
    bad "tokenize: depth bomb" 4 'bad.jsonl:1' tokenize bad.jsonl --strict --tokenizer bytes --out t.h5
    : >bad.jsonl
    bad "tokenize: nothing in it" 4 '' tokenize bad.jsonl --tokenizer bytes --out t.h5
    bad "tokenize: absent" 4 'none.jsonl' tokenize none.jsonl --tokenizer bytes --out t.h5
    mkdir -p empty
    bad "tokenize: empty directory" 4 'empty' tokenize empty --tokenizer bytes --out t.h5
    gzip -c text.jsonl | head -c 30 >cut.jsonl.gz
    bad "tokenize: gzip cut short" 4 'cut.jsonl.gz' tokenize cut.jsonl.gz --tokenizer bytes --out t.h5
    cp text.jsonl false.jsonl.gz
    bad "tokenize: gzip that is none" 4 'false.jsonl.gz' tokenize false.jsonl.gz --tokenizer bytes --out t.h5
    cp text.jsonl false.jsonl.zst
    bad "tokenize: zstd that is none" 4 'false.jsonl.zst' tokenize false.jsonl.zst --tokenizer bytes --out t.h5
    bad "tokenize: no such tokenizer" 4 'none.model' tokenize text.jsonl --tokenizer none.model --out t.h5
    head -c 3000 /dev/urandom >random.model
    bad "tokenize: tokenizer that is none" 4 'random.model' tokenize text.jsonl --tokenizer random.model --out t.h5
    bad "tokenize: output is there" 2 'good.h5' tokenize text.jsonl --tokenizer bytes --out good.h5
    bad "tokenize: output directory is not" 6 'none' tokenize text.jsonl --tokenizer bytes --out none/t.h5
}
# token_file NAME REGEX: bad.h5
token_file() { bad "data: $1" 4 "bad.h5.*$2" data bad.h5; }
tokens() {
    local size at
    good "data" data good.h5 --check --sample 0
    : >bad.h5
    token_file "empty" ''
    cp text.jsonl bad.h5
    token_file "not HDF5" 'HDF5'
    size=$(stat -c %s good.h5)
    for at in 8 100 600 $((size / 2)) $((size - 1)); do
        head -c "$at" good.h5 >bad.h5
        token_file "cut at byte $at" ''
    done
    head -c 4096 good.h5 >bad.h5
    head -c 100000 /dev/urandom >>bad.h5
    token_file "random bytes behind the start" ''
    bad "data: absent" 4 'none.h5' data none.h5
    bad "data: no such document" 2 'document|sample' data good.h5 --sample 1000000
    bad "train: tokens that are text" 4 'text.jsonl' train good.yaml --set 'data.train=[{files: text.jsonl}]'
    bad "train: sequence longer than the file" 4 'good.h5|data.train' train good.yaml --set data.seq_len=60000
}

# ---- plans that cannot be met

plans() {
    good "plan" plan good.yaml
    bad "plan: broken config" 3 'found unknown key "x"' plan good.yaml --set x=1
    bad "plan: m too large" 3 'm = 2' plan good.yaml --set model.dus.m=2
    bad "plan: no such layer" 3 '' plan good.yaml --set 'model.dus.layers=[0-7]'
    bad "plan: more stages than layers" 3 'stage|layers' plan good.yaml --set mesh.pipeline=3
    bad "plan: layout that does not add up" 3 'layer' plan good.yaml --set mesh.pipeline=2 --set 'mesh.layout=[1, 2]'
    bad "plan: heads that cannot be split" 3 'head' plan good.yaml --set mesh.tensor=3
    bad "plan: ranks that do not fit" 3 'rank|multiple' plan good.yaml --set mesh.pipeline=2 --ranks 3
    bad "plan: batch that cannot be dealt" 3 'global_batch' plan good.yaml --ranks 4
    bad "train: mesh without its ranks" 3 'rank|multiple' train good.yaml --set mesh.pipeline=2
    bad "train: fresh run on a file" 3 'run.dir' train good.yaml --fresh --set run.dir=text.jsonl
    mkdir -p other/checkpoints
    bad "train: fresh on a run" 2 'other holds the checkpoints' train good.yaml --fresh --set run.dir=other
}

# ---- all of it

printf '{"text": "%s"}\n' "Four score and seven years ago" "our fathers brought forth" "on this continent" >text.jsonl
run_yaml good.yaml
model M
model wide 's/"intermediate_size": 16/"intermediate_size": 24/'
tensors | sed 's/ 16/ 24/' | weights wide/model.safetensors
good "tokenize" tokenize text.jsonl --tokenizer bytes --out good.h5
# Two at a time, each in a copy of what has been made so far.
lane() { # NUMBER GROUP...
    local number=$1 group
    shift
    cp -a "$work" "$work.$number" && cd "$work.$number" || exit 2
    passed=0 failed=0 skipped=0
    for group in "$@"; do $group; done
    echo "$passed $failed $skipped" >"$work/counts.$number"
}
lane 1 no_command options broken_yaml wrong_keys wrong_sets missing_files tokens >"$work/said.1" 2>&1 &
lane 2 safetensors indexes specs model_use texts plans >"$work/said.2" 2>&1 &
wait
cd "$work" || exit 2
cat said.1 said.2
for number in 1 2; do
    read -r p f s <"counts.$number" || { echo "FAIL half of the cases did not come to their end"; p=0 f=1 s=0; }
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
