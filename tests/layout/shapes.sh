#!/bin/bash
# Shapes that divide badly, on meshes, against one rank over four steps, fp32 5e-5: key/value heads held by several
# tensor ranks with biases, windows shorter and longer than the sequence, several seams, three tensor ranks, as many
# stages as layers, fewer micro-batches than stages, one micro-batch, explicit layouts, bf16 and sharded base files,
# random weights; and the losses and words of eval and generate.
# limit: 300
cd "$(dirname "$0")" && . ./lib.sh

# family NAME HEADS KV LAYERS TIED MORE
family() {
    mkdir -p "$T/$1"
    cat >"$T/$1/config.json" <<END
{"hidden_size": 48, "intermediate_size": 67, "num_hidden_layers": $4, "num_attention_heads": $2,
 "num_key_value_heads": $3, "vocab_size": 263, "max_position_embeddings": 128, "rms_norm_eps": 1e-05,
 "hidden_act": "silu", "tie_word_embeddings": $5, "initializer_range": 0.08, "torch_dtype": "float32", $6}
END
    config "$T/$1.random.yaml" "$T/$1"
    base "$1" "$T/$1.random.yaml"
    config "$T/$1.yaml" "$T/base-$1/latest"
}
tokens "$T/train.h5" ../../LICENSE
family llama 8 1 3 true '"model_type": "llama", "architectures": ["LlamaForCausalLM"], "head_dim": 6, "rope_theta": 500.0'
family qwen 8 2 4 false '"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rope_theta": 10000.0'
family short 4 4 3 true '"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 7, "rope_theta": 10000.0'
family long 4 2 3 false '"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 90, "rope_theta": 10000.0'
family odd 6 3 5 true '"model_type": "llama", "architectures": ["LlamaForCausalLM"], "head_dim": 10, "rope_theta": 10000.0'

common=(--set train.steps=4 --set schedule='{kind: constant}' --set checkpoint.every=0 --set eval.every=2)
# mesh BASE RANKS PP TP LABEL [--set ...]: against one rank with the same settings but mesh and micro-batch
mesh() {
    local base=$1 ranks=$2 pp=$3 tp=$4 label="$1, dp $(($2 / $3 / $4)) x pp $3 x tp $4, $5" one args=() said
    shift 5
    for a; do [[ $a = mesh.* || $a = train.micro_batch=* ]] && unset 'args[-1]' || args+=("$a"); done
    one="$T/one-$base-$(echo "${args[*]}" | md5sum | cut -c1-8)"
    [ -d "$one" ] || train 1 "$T/$base.yaml" "$one" "${common[@]}" "${args[@]}" || say "$one"
    if ! train "$ranks" "$T/$base.yaml" "$T/many" "${common[@]}" --set mesh.pipeline="$pp" --set mesh.tensor="$tp" "$@"; then
        say "$T/many"
        bad "$label: does not train"
    elif said=$("$BUILD/tests/compare" "$T/many" "$one" "$TOLERANCE"); then ok "$label: $said"
    else bad "$label: $said"; fi
    rm -rf "$T/many"
}
# Looser than 1e-5: in its first steps Adam divides every gradient by itself, also those that are nearly nothing (of
# a key bias, which shifts all scores of a query alike but for the rotation), and so their rounding shows.
TOLERANCE=5e-5
mesh qwen 4 1 4 "two copies of kv heads with biases" --set model.dus.m=1
mesh qwen 8 1 8 "four copies, fewest layers" --set model.dus.m=3
mesh llama 4 2 2 "one kv head, m=0" --set model.dus.m=0
mesh llama 4 4 1 "three seams, more than boundaries" --set model.dus.layers=0-1,0-2,1,1-2
mesh short 6 3 2 "window of 7, repeats" --set model.dus.layers=0-2,0-1,2
mesh long 4 4 1 "a layer a stage, one micro-batch" --set model.dus.m=1 --set train.global_batch=2 --set train.micro_batch=2
mesh llama 8 4 1 "global batch = dp" --set model.dus.m=1 --set train.global_batch=2
mesh short 4 2 2 "explicit layout" --set model.dus.m=1 --set mesh.layout='[3, 1]' --set mesh.seam_inside=true --set train.micro_batch=4
TOLERANCE=1e-5 mesh odd 6 2 3 "three tensor ranks" --set model.dus.m=1 --set data.seq_len=37
TOLERANCE=1e-5 mesh odd 9 3 3 "three by three, explicit uneven stages" --set model.dus.m=1 --set mesh.layout='[1, 3, 4]' --set data.seq_len=31
mesh qwen 3 3 1 "no dus, seq_len 1" --set data.seq_len=1 --set data.valid=[]
mesh qwen 4 2 2 "random weights" --set model.init=random --set model.dus.m=1
TOLERANCE=0.05 mesh long 4 2 2 "bf16" --set train.precision=bf16 --set model.dus.m=1
# a base of two files in bf16: the checkpoint of a bf16 run on two stages
train 2 "$T/long.yaml" "$T/halves" "${common[@]}" --set train.precision=bf16 --set mesh.pipeline=2 || say "$T/halves"
config "$T/halves.yaml" "$T/halves/latest"
mesh halves 4 2 2 "a base of two bf16 files" --set model.dus.m=1

"$BUILD/solar" tokenize ../../LICENSE --format text --tokenizer bytes --out "$T/valid.h5" >/dev/null 2>&1
score() { mpirun -np "$1" "$SOLAR" eval "$T/$2" --tokens "$T/valid.h5" --seq-len 40 --samples 9 --pipeline "$3" --tensor "$4" --device cpu --threads 1 --json "${@:5}" 2>"$T/eval.log" </dev/null | sed 's/.*"loss": \([0-9.]*\),.*/\1/'; }
words() { mpirun -np "$1" "$SOLAR" generate "$T/$2" --tokenizer bytes --prompt 'The ' --tokens 30 --count 2 --pipeline "$3" --tensor "$4" --device cpu --threads 1 "${@:5}" 2>"$T/generate.log" </dev/null; }
for which in base-qwen:4:2:2 base-short:6:3:2 base-llama:4:1:4; do
    IFS=: read -r base ranks pp tp <<<"$which"
    one=$(score 1 "$base/latest" 1 1 --m 1) many=$(score "$ranks" "$base/latest" "$pp" "$tp" --m 1)
    awk -v a="$one" -v b="$many" 'BEGIN {d = a - b; exit !(a > 0 && d < 1e-5 && d > -1e-5)}' && ok "eval of $base on $ranks ranks: $many" || { cat "$T/eval.log"; bad "eval of $base on $ranks ranks: $many, on one $one"; }
    one=$(words 1 "$base/latest" 1 1 --temperature 0) many=$(words $((pp * tp)) "$base/latest" "$pp" "$tp" --temperature 0)
    [ -n "$one" ] && [ "$one" = "$many" ] && ok "the same words of $base on $((pp * tp)) ranks" || { cat "$T/generate.log"; bad "words of $base: $one | $many"; }
done
result
