"""Push a generator to the Hugging Face Hub, pull it back as anybody would, and train on it.

python examples/publish_generator.py me/my-cifar10 --private
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import transforms

from dim_data import DistilledDataset, Generator, evaluate
from dim_data.images import load_real
from dim_data.networks import ConvNet


def main(
    repo_id: str, source: str = "cifar10", private: bool = False, data_root: str | None = None, steps: int = 20
) -> str:
    """Return the commit that was pushed and trained on; with real test images, its card states an accuracy."""
    generator = Generator.from_pretrained(source)  # or what distill() returned
    evaluations = []
    if data_root:
        test = load_real(generator.spec.name, split="test", root=data_root)
        evaluations = [evaluate(generator, test, ipc=10, epochs=100, seeds=(0,))]
    print(generator.push_to_hub(repo_id, private=private, evaluations=evaluations), flush=True)

    spec = generator.spec
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)])
    train_set = DistilledDataset(repo_id, ipc=50, transform=transform)
    model = ConvNet(spec, width=32)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for step, (images, labels) in zip(range(steps), DataLoader(train_set, batch_size=50, shuffle=True), strict=False):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}  loss {loss.item():.3f}", flush=True)
    return train_set.generator.revision or ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repo_id", help="where to push, such as me/my-cifar10")
    parser.add_argument("--source", default="cifar10", help="bundled name, folder or Hub id")
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--data-root", default=None, help="where the real test images are, to state an accuracy")
    main(**vars(parser.parse_args()))
