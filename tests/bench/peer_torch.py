"""Speed of the same training step by PyTorch and Transformers: the peer of bench_train.c.

usage: peer_torch.py stories|20m|110m fp32|bf16 THREADS eager|compile [SECONDS] [SEQ]
       peer_torch.py cuda solar bf16 eager|compile [SECONDS] [LAYERS|auto] [MICRO]
Same model, batch, precision (bf16 by autocast over fp32 weights, the usual way), AdamW and clipping. Prints one
line like bench_train's, or says what is missing and exits 0.

On a GPU it is bench_gpu_train's peer: SOLAR-shaped layers, as many as fit, weights, gradients and moments all bf16,
which is less memory and less exact than the fp32 master weights it is compared with; the best attention that is
installed (FlashAttention 2, else torch's own choice among its fused ones), AdamW fused, MICRO micro-batches a step.
"""
import resource
import statistics
import sys
import time

MODELS = {  # hidden, layers, heads, kv heads, feed-forward, vocabulary, sequence, batch: as in bench_train.c
    "stories": (64, 5, 8, 4, 172, 512, 512, 4),
    "20m": (384, 12, 6, 6, 1024, 4096, 512, 4),
    "110m": (768, 12, 12, 12, 2048, 32000, 1024, 2),
}

try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as missing:
    print(f"torch: skipped, {missing}")
    sys.exit(0)


def make(name, seq):
    hidden, layers, heads, kv, ffn, vocab, length, rows = MODELS[name]
    length, rows = (seq, 1) if seq else (length, rows)
    config = LlamaConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                         num_key_value_heads=kv, intermediate_size=ffn, vocab_size=vocab,
                         max_position_embeddings=length, tie_word_embeddings=True, use_cache=False,
                         attn_implementation="sdpa")
    torch.manual_seed(1)
    return LlamaForCausalLM(config), torch.randint(vocab, (rows, length))


def make_solar(layers):
    try:
        import flash_attn  # noqa: F401
        attention = "flash_attention_2"
    except ImportError:
        attention = "sdpa"
    config = LlamaConfig(hidden_size=4096, num_hidden_layers=layers, num_attention_heads=32, num_key_value_heads=8,
                         intermediate_size=14336, vocab_size=32000, max_position_embeddings=4096,
                         tie_word_embeddings=False, use_cache=False, attn_implementation=attention)
    torch.manual_seed(1)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    return model, torch.randint(32000, (1, 4096), device="cuda"), attention


def train_solar(layers, mode, budget, micro):
    model, ids, attention = make_solar(layers)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(model) if mode == "compile" else model

    def step():
        total = 0
        for _ in range(micro):
            loss = run(input_ids=ids, labels=ids).loss / micro
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total.item()

    for _ in range(3):
        step()
    speeds, end = [], time.monotonic() + budget
    while len(speeds) < 3 or time.monotonic() < end:
        start = time.monotonic()
        step()
        speeds.append(micro * ids.numel() / (time.monotonic() - start))
    memory = torch.cuda.max_memory_allocated() / 2**30
    n = sum(p.numel() for p in model.parameters())
    flop = 6 * n + 12 * layers * 4096 * 4096
    middle = statistics.median(speeds)
    print(f"torch {torch.__version__} {mode} {attention} solar {layers} layers bf16, {micro} x 1 x 4096 tokens a step: "
          f"{middle:.0f} tokens/s, {middle * flop / 1e12:.1f} TFLOP/s (all pairs), {memory:.1f} GiB "
          f"(median of {len(speeds)} steps)", flush=True)


def on_gpu():
    if not torch.cuda.is_available():
        print("torch: skipped, it sees no GPU")
        return
    mode, budget = sys.argv[4], float(sys.argv[5]) if len(sys.argv) > 5 else 20
    layers = sys.argv[6] if len(sys.argv) > 6 else "auto"
    micro = int(sys.argv[7]) if len(sys.argv) > 7 else 4
    for n in [48, 40, 32, 24, 16, 12, 8, 4, 2, 1] if layers == "auto" else [int(layers)]:
        try:
            return train_solar(n, mode, budget, micro)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    print("torch: not even one layer fits")


def main():
    if sys.argv[1] == "cuda":
        return on_gpu()
    name, precision, threads, mode = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    budget = float(sys.argv[5]) if len(sys.argv) > 5 else 10
    torch.set_num_threads(threads)
    model, ids = make(name, int(sys.argv[6]) if len(sys.argv) > 6 else 0)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(model) if mode == "compile" else model

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = run(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    step()
    step()
    speeds, end = [], time.monotonic() + budget
    while len(speeds) < 3 or time.monotonic() < end:
        start = time.monotonic()
        step()
        speeds.append(ids.numel() / (time.monotonic() - start))
    speeds.sort()
    middle = statistics.median(speeds)
    spread = (speeds[len(speeds) * 3 // 4] - speeds[len(speeds) // 4]) / 2 / middle
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / ids.numel()
    print(f"torch {torch.__version__} {mode} {name} {precision} {threads} threads: {middle:.1f} tokens/s "
          f"(+- {100 * spread:.1f} %, {len(speeds)} steps), {memory:.1f} kB/token", flush=True)


main()
