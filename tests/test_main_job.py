"""The main job on real images: a classifier trained on a distilled dataset recognises real pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from dim_data import DistillConfig, DistilledDataset, Generator, bundled_names, distill, evaluate
from dim_data.distillation import MatchingConfig, PoolConfig, ReconstructionConfig, SelectionConfig
from dim_data.images.real import load_real
from dim_data.images.sample import bundled_test_sample
from dim_data.images.specs import KNOWN_SPECS
from dim_data.networks.classifiers import ConvNet
from dim_data.protocol.training import measure_accuracy

ROOT = os.environ.get("DIM_DATA_ROOT", "")
needs_data = pytest.mark.skipif(not ROOT, reason="set DIM_DATA_ROOT to a folder with the real data")


@pytest.mark.parametrize("name", bundled_names())
def test_bundled_generators_load_and_paint(name: str) -> None:
    generator = Generator.from_pretrained(name)
    images = generator.synthesize(torch.arange(20) % 10, torch.arange(20))
    assert images.float().std() > 20
    assert len({bytes(image.numpy().tobytes()) for image in images}) == 20
    if name == "eurosat":  # the only set that the library does not know by name
        spec = generator.spec
        assert (spec.name, spec.channels, spec.size, spec.mirror) == ("eurosat", 3, 64, True)
        assert (spec.num_classes, spec.classes[0], spec.classes[-1]) == (10, "AnnualCrop", "SeaLake")
    else:
        assert generator.spec == KNOWN_SPECS[generator.spec.name]


def test_the_small_generator_is_a_part_of_the_other() -> None:
    small, part = Generator.from_pretrained("cifar10_small"), Generator.from_pretrained("cifar10").keep_codes(19_700)
    assert torch.equal(small.bank.codes, part.bank.codes)
    assert torch.equal(small.bank.soft, part.bank.soft)
    for mine, theirs in zip(small.decoder.parameters(), part.decoder.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=0)


def test_the_bundled_teacher_knows_real_images() -> None:
    teacher = Generator.from_pretrained("cifar10_noise").teacher
    assert measure_accuracy(teacher, bundled_test_sample()) > 0.74


@pytest.mark.slow
def test_a_stock_loader_with_workers_teaches_real_images() -> None:
    spec = KNOWN_SPECS["cifar10"]
    transform = transforms.Compose(
        [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(spec.mean, spec.std)]
    )
    train_set = DistilledDataset("cifar10", ipc=50, transform=transform)
    loader = DataLoader(train_set, batch_size=50, shuffle=True, num_workers=2)
    torch.manual_seed(0)
    model = ConvNet(spec, width=32)
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, nesterov=True)
    for _ in range(10):
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    test = bundled_test_sample()
    with torch.no_grad():
        right = model(spec.normalize(test.images.float() / 255)).argmax(1) == test.labels
    assert right.float().mean() > 0.35  # chance is 0.10; the same number of real images gives about 0.47


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist", "mnist"])
def test_real_files_are_read(name: str) -> None:
    train, test = (load_real(name, split=split, root=ROOT) for split in ("train", "test"))
    assert len(train) in (50_000, 60_000)
    assert len(test) == 10_000
    spec = KNOWN_SPECS[name]
    pixels = train.images.float() / 255
    assert torch.allclose(pixels.mean((0, 2, 3)), torch.tensor(spec.mean), atol=2e-3)
    if (Path(ROOT) / "MNIST").is_dir() and name == "mnist":
        again = load_real(datasets.MNIST(ROOT, train=False))
        assert torch.equal(again.images, test.images)
        assert torch.equal(again.labels, test.labels)
        assert again.spec.name == "mnist"


@needs_data
@pytest.mark.data
def test_bundled_sample_is_a_part_of_the_real_test_set() -> None:
    test, sample = load_real("cifar10", split="test", root=ROOT), bundled_test_sample()
    known = {(image.numpy().tobytes(), int(label)) for image, label in zip(test.images, test.labels, strict=True)}
    assert all(
        (image.numpy().tobytes(), int(label)) in known
        for image, label in zip(sample.images, sample.labels, strict=True)
    )


@needs_data
@pytest.mark.data
@pytest.mark.slow
def test_what_distill_makes_of_real_images_teaches_real_images(tmp_path: Path) -> None:
    train, test = (load_real("mnist", split=split, root=ROOT) for split in ("train", "test"))
    config = DistillConfig(
        options={"width": 24, "top_width": 8, "blocks": 1, "code_channels": 2},
        reconstruction=ReconstructionConfig(steps=60),
        matching=MatchingConfig(steps=60),
        pool=PoolConfig(ages=(40,), augmentation=()),
        augmentation=(),
        selection=SelectionConfig(checkpoints=0),
        ema=0.95,
        max_codes=1000,
    )
    generator = distill(train.subset(torch.arange(4000)), config=config, out=tmp_path / "run")
    result = evaluate(generator, test.subset(torch.arange(1000)), ipc=10, epochs=20, seeds=(0,))
    assert result.mean > 0.6  # chance is 0.1
