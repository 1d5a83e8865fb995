"""The same tensors through torch.distributed.checkpoint: dcp.py TENSORS DIR ROUNDS, under torchrun or alone.

TENSORS has a line "name rows columns" each (columns 0: a vector); each is saved three times, as a weight and its two
moments, in fp32. Prints "name value unit" a measurement, medians of ROUNDS. Every rank saves its share of the rows, as a
sharded optimizer would.
"""
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp


def state(path, rank, world):
    out = {}
    for i, line in enumerate(open(path)):
        if i % world != rank:
            continue
        name, rows, columns = line.split()
        shape = (int(rows), int(columns)) if int(columns) else (int(rows),)
        w = torch.randn(shape)
        out[name] = w
        out[name + ".exp_avg"] = w * 0.125
        out[name + ".exp_avg_sq"] = w * w
    return out


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo") if "RANK" in os.environ else dist.init_process_group(
        "gloo", init_method="tcp://127.0.0.1:29511", rank=0, world_size=1)
    rank, world = dist.get_rank(), dist.get_world_size()
    tensors = state(sys.argv[1], rank, world)
    where, rounds = sys.argv[2], int(sys.argv[3])
    size = torch.tensor(float(sum(t.numel() * 4 for t in tensors.values())))
    dist.all_reduce(size)
    figures = {"dcp_sync": [], "dcp_async_stall": [], "dcp_async": [], "dcp_load": []}
    for i in range(rounds):
        start = time.monotonic()
        dcp.save(tensors, checkpoint_id=f"{where}/sync", storage_writer=dcp.FileSystemWriter(f"{where}/sync", sync_files=True))
        figures["dcp_sync"].append(time.monotonic() - start)
        start = time.monotonic()
        done = dcp.async_save(tensors, storage_writer=dcp.FileSystemWriter(f"{where}/async", sync_files=True))
        figures["dcp_async_stall"].append(time.monotonic() - start)
        done.result()
        figures["dcp_async"].append(time.monotonic() - start)
        start = time.monotonic()
        dcp.load(tensors, storage_reader=dcp.FileSystemReader(f"{where}/sync"))
        figures["dcp_load"].append(time.monotonic() - start)
    if rank == 0:
        gb = size.item() / 1e9
        m = {k: statistics.median(v) for k, v in figures.items()}
        print(f"dcp_state {gb:.4g} GB")
        print(f"dcp_sync_write {gb / m['dcp_sync']:.4g} GB/s")
        print(f"dcp_async_write {gb / m['dcp_async']:.4g} GB/s")
        print(f"dcp_async_stall {m['dcp_async_stall']:.4g} s")
        print(f"dcp_load {m['dcp_load']:.4g} s")
        print(f"torch {torch.__version__} version")
    dist.destroy_process_group()


main()
