"""One generator, any classifier: train several architectures on the same distilled dataset.

python examples/cross_architecture.py --epochs 200
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from torch import nn
from torchvision.models import resnet18

from dim_data import ImageSpec, evaluate
from dim_data.images import bundled_test_sample, load_real


def torchvision_resnet18(spec: ImageSpec) -> nn.Module:
    """Any callable that builds a module will do."""
    return resnet18(num_classes=spec.num_classes)


def main(
    source: str = "cifar10",
    classifiers: Sequence[str] = ("convnet3", "resnet10_half"),
    ipc: int = 10,
    epochs: int = 200,
    data_root: str | None = None,
) -> dict[str, float]:
    """Return each classifier's accuracy on real test images, in [0, 1]."""
    test = load_real("cifar10", split="test", root=data_root) if data_root else bundled_test_sample()
    accuracies = {}
    for classifier in (*classifiers, torchvision_resnet18):
        result = evaluate(source, test, classifier, ipc=ipc, epochs=epochs, seeds=(0,))
        print(result, flush=True)
        accuracies[result.classifier] = result.mean
    return accuracies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default="cifar10", help="bundled name, folder or Hub id")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--data-root", default=None, help="where CIFAR-10's files are, for the full test set")
    main(**vars(parser.parse_args()))
