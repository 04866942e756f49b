"""Distil, then train on what came of it, with as many processes as torchrun starts.

torchrun --nproc_per_node 2 examples/distill_with_torchrun.py my_images/ --out runs/mine
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from dim_data import DistilledLoader, distill
from dim_data.networks import build_classifier, own_device


def main(data: Any, out: str = "runs/mine", epochs: int = 20, ipc: int = 48, config: Any = None) -> float:
    dist.init_process_group()
    device = own_device(None)
    generator = distill(data, config=config, out=out, device=device)  # every rank calls it, and has the result
    loader = DistilledLoader(generator, batch_size=16, ipc=ipc, device=device)  # each rank gets its own pictures
    model = DistributedDataParallel(build_classifier("convnet3", generator.spec).to(device))
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    for epoch in range(epochs):
        for images, labels in loader:
            loss = F.cross_entropy(model(generator.spec.normalize(images)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"rank {dist.get_rank()}, epoch {epoch + 1}: loss {loss.item():.3f}")
    return loss.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data"), parser.add_argument("--out", default="runs/mine")
    main(**vars(parser.parse_args()))
