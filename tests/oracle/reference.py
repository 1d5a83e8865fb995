"""A second opinion in fp64: the decoder written down once more from the papers and config.json alone.

It shares no code with Transformers. make_fixtures.py refuses to write a fixture on which the two differ,
so that a misread option (a window that is not applied, a bias that is not loaded) cannot become the truth.
Source of the llama3 frequencies: the formula published with Llama 3.1.
"""

import math

import torch


def frequencies(cfg, head_dim):
    # Transformers 5 keeps both in rope_parameters, 4 apart
    scaling = cfg.get("rope_parameters") or cfg.get("rope_scaling") or {}
    theta = scaling.get("rope_theta", cfg.get("rope_theta", 10000.0))
    freq = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return freq
    factor = scaling["factor"]
    if kind == "linear":
        return freq / factor
    assert kind == "llama3", kind
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * freq / (2 * math.pi)
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return freq / factor * (1 - smooth) + freq * smooth


def windows(cfg):
    """Keys that a query sees, itself included, for every layer; 0 is no window."""
    layers, window = cfg["num_hidden_layers"], cfg.get("sliding_window") or 0
    if cfg["model_type"] == "mistral":
        return [window] * layers
    if cfg["model_type"] == "qwen2" and cfg.get("use_sliding_window"):
        return [window if kind == "sliding_attention" else 0 for kind in cfg["layer_types"]]
    return [0] * layers


def norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def linear(w, name, x):
    y = x @ w[name + ".weight"].T
    return y + w[name + ".bias"] if name + ".bias" in w else y


def rotate(x, freq):
    angle = torch.outer(torch.arange(x.shape[1], dtype=torch.float64), freq)[None, :, None, :]
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def attend(cfg, w, prefix, x, freq, window):
    batch, rows, hidden = x.shape
    heads = cfg["num_attention_heads"]
    kv_heads = cfg.get("num_key_value_heads", heads)
    dim = cfg.get("head_dim") or hidden // heads
    q = rotate(linear(w, prefix + "q_proj", x).view(batch, rows, heads, dim), freq)
    k = rotate(linear(w, prefix + "k_proj", x).view(batch, rows, kv_heads, dim), freq)
    v = linear(w, prefix + "v_proj", x).view(batch, rows, kv_heads, dim)
    i = torch.arange(rows)
    seen = i[:, None] >= i[None, :]
    if window:
        seen = seen & (i[None, :] > i[:, None] - window)
    out = []
    for head in range(heads):
        kv = head // (heads // kv_heads)
        score = q[:, :, head] @ k[:, :, kv].transpose(1, 2) / math.sqrt(dim)
        out.append(score.masked_fill(~seen, -math.inf).softmax(-1) @ v[:, :, kv])
    return linear(w, prefix + "o_proj", torch.cat(out, -1))


def forward(cfg, w, ids):
    """cfg: config.json as a dict; w: name -> fp64 tensor; ids [B, S] -> logits [B, S, V]."""
    eps = cfg["rms_norm_eps"]
    dim = cfg.get("head_dim") or cfg["hidden_size"] // cfg["num_attention_heads"]
    freq = frequencies(cfg, dim)
    x = w["model.embed_tokens.weight"][ids]
    for layer, window in enumerate(windows(cfg)):
        p = f"model.layers.{layer}."
        h = norm(x, w[p + "input_layernorm.weight"], eps)
        x = x + attend(cfg, w, p + "self_attn.", h, freq, window)
        h = norm(x, w[p + "post_attention_layernorm.weight"], eps)
        gate = linear(w, p + "mlp.gate_proj", h)
        x = x + linear(w, p + "mlp.down_proj", gate * torch.sigmoid(gate) * linear(w, p + "mlp.up_proj", h))
    x = norm(x, w["model.norm.weight"], eps)
    head = "model.embed_tokens.weight" if cfg["tie_word_embeddings"] else "lm_head.weight"
    return x @ w[head].T


def loss(logits, ids):
    """Mean negative log-likelihood of tokens 1..S-1 of every row, in nats."""
    logp = logits[:, :-1].log_softmax(-1)
    return -logp.gather(-1, ids[:, 1:, None]).mean()
