#!/usr/bin/env python3
"""Opens a model directory (up-scaled, or a trained checkpoint) in Transformers and says what it computes.

    open_in_transformers.py DIR --ids 1,5,7,9                      loss, and logits of the last token
    open_in_transformers.py DIR --text FILE.jsonl [--docs 60] [--max-tokens 256]
                                                                   what `solar eval DIR --text ...` prints
    ... --expect LOSS [--tolerance 1e-5]                           exit status 1 when it is not that

Nothing may be missing from the directory, left over in it, or of the wrong shape. One JSON object on
standard output. Exit status 77 and a line that says why when torch, transformers or, for --text,
sentencepiece are not installed.
"""

import argparse
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"


def skip(error):
    print(f"skipped: {error.name} is not installed for {sys.executable}", file=sys.stderr)
    sys.exit(77)


try:
    import torch
    import transformers
except ImportError as error:
    skip(error)


def open_model(path):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        path, torch_dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    wrong = {k: sorted(map(str, v)) for k, v in info.items() if v}
    if wrong:
        sys.exit(f"{path} does not open cleanly: {wrong}")
    return model.eval()


def score(model, ids):
    """(sum of -log p of ids[1:], logits of the last token), in fp64 from the logits on."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    logp = logits[:-1].log_softmax(-1)
    return -float(logp.gather(-1, torch.tensor(ids[1:])[:, None]).sum()), logits[-1]


def documents(path, count):
    with open(path, encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines if line.strip()]
    return texts[:count]


def score_text(model, directory, args):
    """BOS and the first max-tokens tokens of every document; the mean is over all predicted tokens."""
    try:
        import sentencepiece
    except ImportError as error:
        skip(error)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=os.path.join(directory, "tokenizer.model"))
    total = tokens = 0
    texts = documents(args.text, args.docs)
    for text in texts:
        ids = [tokenizer.bos_id()] + tokenizer.encode(text)[: args.max_tokens]
        total += score(model, ids)[0]
        tokens += len(ids) - 1
    return {"documents": len(texts), "tokens": tokens, "loss": total / tokens}


def score_ids(model, ids):
    total, last = score(model, ids)
    return {"tokens": len(ids) - 1, "loss": total / (len(ids) - 1), "last_logits": last.tolist()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dir", help="model directory")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--ids", help="token ids, comma-separated")
    what.add_argument("--text", help="JSON lines with a text field")
    p.add_argument("--docs", type=int, default=60)
    p.add_argument("--max-tokens", type=int, default=256)
    p.add_argument("--expect", type=float, help="loss in nats per token")
    p.add_argument("--tolerance", type=float, default=1e-5, help="nats; default 1e-5")
    args = p.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = open_model(args.dir)
    if args.text:
        result = score_text(model, args.dir, args)
    else:
        result = score_ids(model, [int(x) for x in args.ids.split(",")])
    print(json.dumps({"model": args.dir, "layers": model.config.num_hidden_layers} | result))
    if args.expect is not None and not abs(result["loss"] - args.expect) <= args.tolerance:
        sys.exit(f"loss {result['loss']:.7f}, expected {args.expect:.7f} within {args.tolerance}")


if __name__ == "__main__":
    main()
