"""The examples run as printed, on tiny settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from dim_data import DistillConfig, Generator, GeneratorConfig
from dim_data.images.specs import KNOWN_SPECS
from ranks import run_ranks

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny_cifar(tmp_path: Path) -> str:
    options = {"width": 8, "top_width": 4, "blocks": 1}
    generator = Generator(GeneratorConfig(KNOWN_SPECS["cifar10"], "compact", "noise", options))
    return str(generator.save_pretrained(tmp_path / "tiny"))


@pytest.mark.parametrize("name", [path.stem for path in sorted(EXAMPLES.glob("*.py"))])
def test_example_is_short_and_has_a_main(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    module = load(name)
    assert callable(module.main)
    command = module.__doc__.splitlines()[2]
    assert command.startswith((f"python examples/{name}.py", f"torchrun --nproc_per_node 2 examples/{name}.py"))
    body = text[text.index("def main") : text.index('if __name__ == "__main__"')]
    assert len(body.splitlines()) < 60


def test_train_cifar10_has_the_one_line_swap(tiny_cifar: str) -> None:
    text = (EXAMPLES / "train_cifar10.py").read_text()
    assert "# Before: train_set = torchvision.datasets.CIFAR10(" in text
    accuracy = load("train_cifar10").main(tiny_cifar, ipc=10, epochs=1, workers=0)
    assert 0 <= accuracy <= 1


def test_cross_architecture(tiny_cifar: str) -> None:
    accuracies = load("cross_architecture").main(tiny_cifar, ("convnet3", "resnet10_half"), ipc=1, epochs=2)
    assert list(accuracies) == ["convnet3", "resnet10_half", "torchvision_resnet18"]
    assert all(0 <= value <= 1 for value in accuracies.values())


def test_distill_your_own(tmp_path: Path) -> None:
    difference = load("distill_your_own").main(str(tmp_path / "shapes"), count=120, steps=6, width=8)
    assert difference > 0
    assert (tmp_path / "shapes" / "generator" / "model.safetensors").is_file()
    assert (tmp_path / "shapes" / "samples.png").is_file()


def distill_with_torchrun(out: str) -> float:
    config = DistillConfig.from_dict(
        {
            "options": {"width": 8, "top_width": 4},
            "pool": {"ages": [1]},
            "reconstruction": {"steps": 1, "batch_size": 4},
            "matching": {"steps": 1, "batch_size": 4},
            "selection": {"checkpoints": 0},
        }
    )
    data = load("distill_your_own").draw_shapes(40)
    return load("distill_with_torchrun").main(data, out, epochs=1, ipc=8, config=config)


def test_distill_with_torchrun(tmp_path: Path) -> None:
    text = (EXAMPLES / "distill_with_torchrun.py").read_text()
    assert len(text.splitlines()) <= 40
    losses = run_ranks(distill_with_torchrun, 2, str(tmp_path / "run"))
    assert all(loss > 0 for loss in losses)
    assert (tmp_path / "run" / "generator" / "model.safetensors").is_file()
