"""An ordinary torchvision training script. One line makes it train on a distilled dataset instead.

python examples/train_cifar10.py --epochs 60
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from dim_data import DistilledDataset
from dim_data.images import KNOWN_SPECS, bundled_test_sample, load_real
from dim_data.networks import ConvNet


def main(
    source: str = "cifar10", ipc: int = 100, epochs: int = 60, workers: int = 2, data_root: str | None = None
) -> float:
    """Train ConvNet-3 and return its accuracy on real test images, in [0, 1]."""
    spec = KNOWN_SPECS["cifar10"]
    transform = transforms.Compose(
        [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)]
    )
    # Before: train_set = torchvision.datasets.CIFAR10(data_root, train=True, transform=transform, download=True)
    train_set = DistilledDataset(source, ipc=ipc, transform=transform)
    loader = DataLoader(train_set, batch_size=50, shuffle=True, num_workers=workers)

    model = ConvNet(spec)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=epochs * len(loader), pct_start=0.2)
    for epoch in range(epochs):
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}  loss {loss.item():.3f}", flush=True)

    test = load_real("cifar10", split="test", root=data_root) if data_root else bundled_test_sample()
    with torch.no_grad():
        guesses = [model(spec.normalize(images)).argmax(1) for images in test.images.split(200)]
    accuracy = (torch.cat(guesses) == test.labels).float().mean().item()
    print(f"accuracy on {len(test)} real test images: {accuracy:.1%}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="cifar10", help="bundled name, folder or Hub id")
    parser.add_argument("--ipc", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data-root", default=None, help="where CIFAR-10's files are, for the full test set")
    main(**vars(parser.parse_args()))
