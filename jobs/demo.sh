#!/bin/bash
# The whole of solar in about five minutes on two cores: a vocabulary and a small base model made from real text,
# the base deepened from 8 to 12 layers, its pretraining continued on a mesh of 4 ranks, killed on the way, resumed,
# and measured against the base. Everything is written below runs/demo of the current directory.
# usage: demo.sh          SOLAR=path of the program (default: build/solar, else solar on PATH)
#                         DEMO_TEXT=path of your own text (.jsonl, .txt, or a directory of .txt)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
SOLAR=${SOLAR:-$(if [ -x "$here/../build/solar" ]; then echo "$here/../build/solar"; else command -v solar; fi)}
out=runs/demo
# shellcheck source=jobs/local_mpi.sh
. "$here/local_mpi.sh"

# ---- the clock: seconds each phase takes on two cores; what is left is scaled by how this machine does
phases=(text 1 vocabulary 2 base 70 deepen 1 continue 35 resume 40 measure 5 generate 3 plot 1)
began=$SECONDS
planned_before() { # PHASE: planned seconds before it and from it on
    local i before=0 after=0 seen=
    for ((i = 0; i < ${#phases[@]}; i += 2)); do
        if [ "${phases[i]}" = "$1" ]; then seen=1; fi
        if [ -n "$seen" ]; then after=$((after + phases[i + 1])); else before=$((before + phases[i + 1])); fi
    done
    echo $before $after
}
phase() { # NAME TEXT
    local before after gone=$((SECONDS - began)) left
    read -r before after <<<"$(planned_before "$1")"
    # early on the plan counts for most, later what was measured
    left=$((after * (gone + 20) / (before + 20)))
    printf '\n== %s  [%dm%02ds gone, about %dm%02ds left]\n' "$2" $((gone / 60)) $((gone % 60)) $((left / 60)) $((left % 60))
}
fail() {
    echo "demo: error: $*" >&2
    exit 1
}
# ---- pieces
write_config() { # a Llama of 8 layers; the weights will be random
    mkdir -p "$out/config"
    cat >"$out/config/config.json" <<EOF
{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_act": "silu",
  "hidden_size": 128,
  "intermediate_size": 352,
  "num_hidden_layers": 8,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 512,
  "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0,
  "initializer_range": 0.02,
  "tie_word_embeddings": true,
  "torch_dtype": "float32",
  "vocab_size": $vocab,
  "bos_token_id": 1,
  "eos_token_id": 2
}
EOF
}

# The ranks of a run started by mpirun PID, from /proc, since procps may be absent.
children_of() { awk -v parent="$1" '{ sub(/^[0-9]+ \(.*\) /, ""); if ($2 == parent) { split(FILENAME, p, "/"); print p[3] } }' /proc/[0-9]*/stat 2>/dev/null; }

# Starts the continued pretraining and kills one rank with SIGKILL when a checkpoint exists and work was done since.
train_and_kill() {
    local victim step=
    mpirun -np 4 "$SOLAR" train "$here/demo_cpt.yaml" &
    job=$!
    trap 'kill $job 2>/dev/null || true' EXIT
    while kill -0 $job 2>/dev/null; do
        step=$(sed -n 's/^{"step": *\([0-9]*\), *"loss".*/\1/p' "$out/scaled/metrics.jsonl" 2>/dev/null |
            tail -n 1) || true # not there yet
        if [ "${step:-0}" -ge "$kill_at" ] && [ -e "$out/scaled/latest" ]; then break; fi
        sleep 0.2
    done
    victim=$(children_of $job | sed -n 3p)
    if [ -z "$victim" ]; then
        wait $job || fail "continued pretraining failed before it was killed"
        fail "continued pretraining ended before it could be killed at step $kill_at"
    fi
    echo "demo: kill -9 $victim (one of the 4 ranks), after step $step"
    kill -9 "$victim"
    if wait $job; then fail "the run ended well although a rank was killed"; fi
    trap - EXIT
    echo "demo: the run is dead; its newest checkpoint: $(readlink "$out/scaled/latest" || cat "$out/scaled/latest")"
}

loss_of() { # MODEL [OPTION...]: mean loss on the chapters held out of training
    "$SOLAR" eval "$@" --text "$out/heldout.jsonl" --max-tokens 256 --threads 1 --json | sed 's/.*"loss": *\([0-9.]*\).*/\1/'
}

continue_text() { # TITLE MODEL
    printf '%s:\n    ' "$1"
    "$SOLAR" generate "$2" --prompt "$prompt" --tokens 48 --seed 3 --threads 1 | tr '\n' ' ' | fold -s -w 90 | sed '2,$s/^/    /'
    echo
}

vocab=2048
kill_at=130
prompt="And the king said unto the people,"
[ -z "${DEMO_TEXT:-}" ] || prompt="The people of this country"

# ---- the story
[ -x "$SOLAR" ] || fail "no program at '$SOLAR': make build"
[ ! -e "$out" ] || [ -e "$out/config/config.json" ] || fail "$out exists and is not the demo's: move it away"
rm -rf "$out"
mkdir -p "$out"

phase text "Real text, split into documents; every 20th is held out"
"$here/demo_text.sh" "$out/text.jsonl" "$out/heldout.jsonl"
echo "$(wc -l <"$out/text.jsonl") documents, $(($(wc -c <"$out/text.jsonl") / 1000)) kB; $(wc -l <"$out/heldout.jsonl") held out"

phase vocabulary "A SentencePiece vocabulary of $vocab, and the text as tokens"
write_config
"$SOLAR" tokenize "$out/text.jsonl" --train-vocab $vocab --out-model "$out/config/tokenizer.model"
"$SOLAR" tokenize "$out/text.jsonl" --tokenizer "$out/config" --out "$out/tokens.h5" --valid "$out/tokens-valid.h5" \
    --valid-fraction 0.03

phase base "The base: 8 layers from random weights, on 2 data-parallel ranks"
mpirun -np 2 "$SOLAR" train "$here/demo_base.yaml"

phase deepen "Depth up-scaling on paper: layers 0..5, then 2..7"
"$SOLAR" plan "$here/demo_cpt.yaml" --ranks 4

phase continue "Continued pretraining on 4 ranks (2 stages x 2 tensor-parallel), to be killed"
train_and_kill

phase resume "The same command again: it resumes"
mpirun -np 4 "$SOLAR" train "$here/demo_cpt.yaml"

phase measure "Loss on the $(wc -l <"$out/heldout.jsonl") documents that no model has seen"
base=$(loss_of "$out/base/latest")
raw=$(loss_of "$out/base/latest" --m 2)
after=$(loss_of "$out/scaled/latest")
printf '  %-46s %s\n' "base, 8 layers" "$base" "scaled to 12 layers, before any training" "$raw" \
    "scaled, after continued pretraining" "$after"

phase generate "What they write after \"$prompt\""
continue_text "base" "$out/base/latest"
continue_text "scaled" "$out/scaled/latest"

phase plot "The recovery"
"$here/plot.sh" "$out/scaled"

printf '\ndemo: done in %dm%02ds. ' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60))
if awk -v a="$after" -v b="$base" 'BEGIN { exit !(a < b) }'; then
    echo "The scaled model is better than its base: $after < $base."
else
    echo "The scaled model has not passed its base: $after, base $base."
    exit 1
fi
