#!/usr/bin/env python3
"""Makes tests/oracle/fixtures: tiny random models and what Transformers computes from them.

    python3 make_fixtures.py [--out DIR] [--only NAME]

Needs torch and transformers (README.md says which versions made the committed files). Everything follows
from fixed seeds. Nothing else in the project needs Python: the fixtures are committed.
"""

import argparse
import contextlib
import os
import shutil
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config
from transformers import modeling_rope_utils
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2

import reference

BATCH, ROWS = 2, 25  # 25 tokens: 24 inputs with their 24 targets

SMALL = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=4, vocab_size=97, max_position_embeddings=64, rms_norm_eps=1e-5,
             bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, use_cache=True)

# What is odd about a model is written beside its name, and nowhere else.
MODELS = {
    "llama-mha": (LlamaConfig, dict(num_hidden_layers=3)),
    "llama-gqa": (LlamaConfig, dict(num_key_value_heads=2, num_hidden_layers=4)),
    "llama-mqa": (LlamaConfig, dict(num_key_value_heads=1, rms_norm_eps=1e-2)),
    "llama-rope3": (LlamaConfig, dict(
        num_key_value_heads=2, rope_theta=500.0,  # head_dim 8: one frequency kept, one blended, two divided
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=32))),
    "llama-linear": (LlamaConfig, dict(num_key_value_heads=2,
                                       rope_scaling=dict(type="linear", factor=4.0))),
    "llama-headdim": (LlamaConfig, dict(hidden_size=36, num_attention_heads=3, num_key_value_heads=1,
                                        head_dim=16)),
    "llama-bias": (LlamaConfig, dict(num_key_value_heads=2, rope_theta=100.0, attention_bias=True,
                                     mlp_bias=True)),
    "llama-tied": (LlamaConfig, dict(tie_word_embeddings=True, num_key_value_heads=2)),
    "mistral-window": (MistralConfig, dict(num_key_value_heads=2, num_hidden_layers=3, sliding_window=7)),
    "qwen2-gqa": (Qwen2Config, dict(num_key_value_heads=2, rope_theta=1000.0, rms_norm_eps=1e-6)),
    "qwen2-window": (Qwen2Config, dict(
        num_key_value_heads=2, tie_word_embeddings=True, num_hidden_layers=3, rope_theta=20.0,
        use_sliding_window=True, sliding_window=6, max_window_layers=1)),
    "llama-bf16": (LlamaConfig, dict(num_key_value_heads=2)),
}
STORED = {"llama-mqa": torch.float16, "llama-bf16": torch.bfloat16}  # element type of the file; else F32
SHARDED = {"llama-mha"}                                              # several files with an index
DEEP = {"llama-gqa": [0, 1, 2, 1, 2, 3], "qwen2-window": [0, 1, 1, 2]}  # donors after depth up-scaling


class Wide:
    """`torch` for a module of Transformers, with float64 wherever it says float32."""

    def __getattr__(self, name):
        return torch.float64 if name in ("float32", "float") else getattr(torch, name)


@contextlib.contextmanager
def all_in_fp64():
    """Transformers computes norms, softmax and rotary angles in float32 even for a double model. Its own
    code runs here unchanged, but for these casts, which become casts to float64."""
    modules = [modeling_rope_utils, modeling_llama, modeling_mistral, modeling_qwen2]
    to_float = torch.Tensor.float
    try:
        for m in modules:
            m.torch = Wide()
        torch.Tensor.float = torch.Tensor.double
        yield
    finally:
        torch.Tensor.float = to_float
        for m in modules:
            m.torch = torch


def randomise(model, seed):
    """Large enough that every gradient is; norms and biases away from ones and zeros."""
    gen = torch.Generator().manual_seed(seed)
    hidden = model.config.hidden_size
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=gen)
            if "norm" in name:
                p.copy_(1 + 0.3 * noise)
            elif "embed" in name:
                p.copy_(noise * (0.3 if model.config.tie_word_embeddings else 0.7))
            elif p.ndim == 1:
                p.copy_(0.3 * noise)
            else:
                p.copy_(noise * 1.1 / hidden**0.5)


def run(path, dtype, ids, config=None, state=None, attention="eager"):
    """Loads a directory (or a config and a state dict), returns logits, loss, {name: gradient}."""
    if state is None:
        model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=dtype, attn_implementation=attention)
    else:
        model = AutoModelForCausalLM.from_config(config, torch_dtype=dtype, attn_implementation=attention)
        model.load_state_dict(state)
    model.eval()
    if dtype == torch.float64:  # from_pretrained made the rotary frequencies before it knew of fp64
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    out = model(input_ids=ids, labels=ids, use_cache=False)
    out.loss.backward()
    grads = {name: p.grad.detach() for name, p in model.named_parameters()}
    return out.logits.detach(), out.loss.detach(), grads


def second_opinion(config, state, ids):
    # a donor may stand in two layers: each has a gradient of its own
    weights = {k: v.detach().double().clone().requires_grad_() for k, v in state.items()}
    if config.tie_word_embeddings:
        del weights["lm_head.weight"]
    logits = reference.forward(config.to_dict(), weights, ids)
    loss = reference.loss(logits, ids)
    loss.backward()
    return logits.detach(), loss.detach(), {k: v.grad for k, v in weights.items()}


def difference(a, b):
    """||a-b|| / ||b|| of logits, of the loss, and the worst of all gradients."""
    def rel(x, y):
        return float((x.double() - y.double()).norm() / y.double().norm())
    assert a[2].keys() == b[2].keys(), set(a[2]) ^ set(b[2])
    return rel(a[0], b[0]), rel(a[1], b[1]), max(rel(a[2][k], b[2][k]) for k in b[2])


def demand(what, diff, limit):
    if not max(diff) <= limit:
        sys.exit(f"{what}: logits, loss, gradients differ by {diff}, more than {limit}")


def pack(result, prefix="", dtype=torch.float32):
    logits, loss, grads = result
    named = {"logits": logits} | {"grad." + k: g for k, g in grads.items()}
    named = {k: v.to(dtype) for k, v in named.items()} | {"loss": loss.float().reshape(1)}
    return {prefix + k: v.contiguous() for k, v in named.items()}


def compute(name, path, ids, config=None, state=None):
    """Transformers in fp64, after it agrees with the second opinion and with itself in float32."""
    with all_in_fp64():
        exact = run(path, torch.float64, ids, config, state)
    if state is None:
        model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32)
        config, state = model.config, model.state_dict()
    other = second_opinion(config, state, ids)
    demand(f"{name}, the reference", difference(other, exact), 1e-12)
    for attention in ("eager", "sdpa"):
        plain = difference(run(path, torch.float32, ids, config, state, attention), exact)
        demand(f"{name}, Transformers in float32 ({attention})", plain, 3e-6)
    smallest = min(float(g.norm() / g.numel() ** 0.5) for g in exact[2].values())
    print(f"{name:16} loss {float(exact[1]):.6f}  its float32 differs by logits {plain[0]:.1e} "
          f"loss {plain[1]:.1e} gradients {plain[2]:.1e} at most; smallest gradient (rms) {smallest:.1e}")
    return exact


def option_matters(name, config, ids, state, exact):
    """A model made to show an option must compute something else without it."""
    unscaled = dict(rope_scaling=None)
    if hasattr(config, "rope_parameters"):  # Transformers 5
        unscaled = dict(rope_parameters=dict(rope_type="default", rope_theta=config.rope_parameters["rope_theta"]))
    plain = {"llama-rope3": unscaled, "llama-linear": unscaled,
             "mistral-window": dict(sliding_window=None),
             "qwen2-window": dict(layer_types=["full_attention"] * config.num_hidden_layers)}
    if name not in plain:
        return
    changed = type(config)(**(config.to_dict() | plain[name]))
    with all_in_fp64():
        without = run(None, torch.float64, ids, changed, state)
    change = difference(without, exact)
    print(f"{'':16} without {list(plain[name])[0]}: logits change by {change[0]:.2f}")
    assert min(change[0], change[2]) > 0.05, "the option does not show"


def write_deep(name, config, state, ids, directory):
    """The same weights after depth up-scaling: layer i is layer donors[i] of the model."""
    donors = DEEP[name]
    deep = {k: v for k, v in state.items() if not k.startswith("model.layers.")}
    for i, donor in enumerate(donors):
        old, new = f"model.layers.{donor}.", f"model.layers.{i}."
        deep |= {new + k[len(old):]: v for k, v in state.items() if k.startswith(old)}
    changed = config.to_dict() | dict(num_hidden_layers=len(donors))
    if changed.get("layer_types"):
        changed["layer_types"] = [changed["layer_types"][d] for d in donors]
    exact = compute(name + ", deep", None, ids, type(config)(**changed), deep)
    plan = ",".join(map(str, donors))
    save_file(pack(exact), os.path.join(directory, "deep.safetensors"), {"layers": plan})


def make(name, out):
    directory, path = os.path.join(out, name), os.path.join(out, name, "model")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(path)
    kind, odd = MODELS[name]
    config = kind(**(SMALL | odd))
    seed = 1000 + list(MODELS).index(name)
    model = AutoModelForCausalLM.from_config(config)
    randomise(model, seed)
    model.to(STORED.get(name, torch.float32)).save_pretrained(
        path, max_shard_size="60KB" if name in SHARDED else "5GB")
    ids = torch.randint(3, config.vocab_size, (BATCH, ROWS), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = config.bos_token_id

    exact = compute(name, path, ids)
    state = {k: v.detach().double() for k, v in model.state_dict().items()}
    option_matters(name, config, ids, state, exact)
    packed = pack(exact) | {"ids": ids.float()}  # small integers are exact, and one element type is enough
    if name == "llama-bf16":
        rough = run(path, torch.bfloat16, ids)
        print(f"{'':16} in bfloat16 it differs by", *(f"{x:.1e}" for x in difference(rough, exact)))
        packed |= pack(rough, "bf16.", torch.bfloat16)
    save_file(packed, os.path.join(directory, "expected.safetensors"))
    if name in DEEP:
        write_deep(name, config, state, ids, directory)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default=os.path.join(here, "fixtures"), help="folder to write (fixtures/)")
    p.add_argument("--only", choices=list(MODELS), help="make one model")
    args = p.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for name in [args.only] if args.only else MODELS:
        make(name, args.out)


if __name__ == "__main__":
    main()
