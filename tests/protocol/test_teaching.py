"""A teacher beside noise: trained, stored, asked about each picture, learnt from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from conftest import make_spec
from dim_data import DistilledDataset, DistilledLoader, Generator, StoppedError, evaluate
from dim_data.cli.commands import main
from dim_data.images.real import LabelledImages
from dim_data.networks.classifiers import ConvNet
from dim_data.protocol import seconds_kept
from dim_data.protocol.teaching import train_teacher
from dim_data.protocol.training import ClassifierStep, measure_accuracy

CPU = torch.device("cpu")


def order(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(count) % 3, torch.arange(count) // 3


@pytest.fixture(scope="module")
def teacher() -> ConvNet:
    """Untrained, but with opinions: its last layer is scaled up."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = ConvNet(make_spec(3, 32))
    with torch.no_grad():
        network.head.weight.mul_(20)
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def taught(tiny_codes: Generator, teacher: ConvNet) -> Generator:
    return tiny_codes.forget_codes(rank=8, teacher=teacher)


@pytest.mark.usefixtures("float32")
@torch.no_grad()
def test_the_teacher_is_asked_about_each_picture(taught: Generator, tiny_shaped: Generator, teacher: ConvNet) -> None:
    labels, serials = order(50)
    pictures = taught.synthesize(labels, serials, 5)
    assert torch.equal(pictures, tiny_shaped.synthesize(labels, serials, 5))
    found = taught.soft_labels(labels, serials, 5)
    wanted = teacher(taught.spec.normalize(pictures.float() / 255)).softmax(1)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert len(found.argmax(1).unique()) > 1
    assert torch.equal(taught.soft_labels(labels, serials, 5, pictures), found)
    assert torch.equal(taught.soft_labels(labels, serials, 5, pictures.flip(0)), found.flip(0))
    assert taught.soft_labels(labels[:0], serials[:0]).shape == (0, 3)


def test_answers_do_not_depend_on_the_batch(taught: Generator) -> None:
    labels, serials = order(21)
    together = taught.soft_labels(labels, serials)
    apart = [taught.soft_labels(y, n) for y, n in zip(labels.split(4), serials.split(4), strict=True)]
    assert torch.equal(torch.cat(apart), together)


def test_it_looks_at_both_sides_where_they_are_alike(taught: Generator, tmp_path: Path) -> None:
    folder = taught.save_pretrained(tmp_path, dtype=torch.float32)
    config = json.loads((folder / "config.json").read_text())
    config["spec"]["mirror"] = True
    (folder / "config.json").write_text(json.dumps(config))
    mirrored = Generator.from_pretrained(folder)
    labels, serials = order(20)
    pictures = taught.synthesize(labels, serials)
    sides = [taught.soft_labels(labels, serials, 0, side) for side in (pictures, pictures.flip(-1))]
    assert (sides[0] - sides[1]).abs().max() > 0.01
    torch.testing.assert_close(mirrored.soft_labels(labels, serials), torch.stack(sides).mean(0))


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(
    ("dtype", "bytes_each", "off"), [(torch.float32, 4, 1e-6), (torch.float16, 2, 0.01), (torch.int8, 1, 0.1)]
)
def test_its_bytes_are_part_of_the_file(
    taught: Generator, tiny_shaped: Generator, dtype: torch.dtype, bytes_each: int, off: float, tmp_path: Path
) -> None:
    files = [g.save_pretrained(tmp_path / n, dtype=dtype) for n, g in (("with", taught), ("without", tiny_shaped))]
    more, less = ((folder / "model.safetensors").stat().st_size for folder in files)
    weights = sum(p.numel() for p in taught.teacher.parameters())
    assert bytes_each * weights <= more - less < 1.1 * bytes_each * weights
    loaded = Generator.from_pretrained(files[0])
    assert loaded.config == taught.config
    labels, serials = order(30)
    pictures = taught.synthesize(labels, serials)
    answers = [g.soft_labels(labels, serials, 0, pictures) for g in (loaded, taught)]
    torch.testing.assert_close(*answers, atol=off, rtol=0)
    assert not Generator.from_pretrained(files[1]).config.soft_labels


@pytest.mark.parametrize("workers", [0, 2])
def test_datasets_and_loaders_hand_its_answers_out(taught: Generator, workers: int) -> None:
    dataset = DistilledDataset(taught, ipc=7, soft_labels=True, transform=lambda image: 0)
    dataset.set_epoch(1)
    ours = torch.cat([targets for _, targets in DataLoader(dataset, batch_size=4, num_workers=workers)])
    labels, serials = order(21)
    assert torch.equal(ours, taught.soft_labels(labels, serials + 7))
    loader = DistilledLoader(taught, 4, ipc=7, shuffle=False, device="cpu", soft_labels=True, dtype=torch.uint8)
    loader.set_epoch(1)
    images, theirs = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(theirs, ours)
    assert torch.equal(images, taught.synthesize(labels, serials + 7))


@pytest.mark.parametrize("wrong", [nn.Linear(2, 2), ConvNet(make_spec(1, 28)), ConvNet(make_spec(3, 32), width=64)])
def test_another_network_is_no_teacher(tiny_codes: Generator, wrong: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"the teacher must be a ConvNet\(spec\) of the generator's spec"):
        tiny_codes.forget_codes(teacher=wrong)


def test_it_learns_from_pictures_alone_and_its_pupils_from_it(tiny_codes: Generator) -> None:
    steps: list[ClassifierStep] = []
    state = torch.get_rng_state()
    teacher = train_teacher(tiny_codes, ipc=10, epochs=30, seed=1, device="cpu", on_step=steps.append)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(steps) == steps[0].steps == 30
    assert not teacher.training
    labels, serials = order(60)
    own = LabelledImages(tiny_codes.synthesize(labels, serials, 9), labels, tiny_codes.spec)
    assert measure_accuracy(teacher, own) > 0.9
    again = train_teacher(tiny_codes, ipc=10, epochs=30, seed=1, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), again.parameters(), strict=True))

    # One that swaps two classes makes pupils that swap them.
    with torch.no_grad():
        teacher.head.weight.copy_(teacher.head.weight[[1, 0, 2]])
        teacher.head.bias.copy_(teacher.head.bias[[1, 0, 2]])
    swapping = tiny_codes.forget_codes(rank=8, teacher=teacher)
    swapped = LabelledImages(own.images, torch.tensor([1, 0, 2])[labels], own.spec)
    quick: dict[str, Any] = {"recipe": "muon_soft", "ipc": 10, "epochs": 30, "seeds": (0,), "device": CPU}
    assert evaluate(swapping, swapped, **quick).mean > 0.6  # a third, had they learnt the classes


def test_one_is_trained_in_several_sittings_and_kept(tiny_codes: Generator, tmp_path: Path) -> None:
    path, seen = tmp_path / "teacher.pt", list[ClassifierStep]()
    options: dict[str, Any] = {"ipc": 10, "epochs": 6, "seed": 1, "device": "cpu", "on_step": seen.append}
    whole = train_teacher(tiny_codes, **options)
    assert not list(tmp_path.iterdir())
    seen.clear()
    for step in (2, 4):
        with pytest.raises(StoppedError, match=f"stopped in the training of a teacher, step {step} of 6; saved in"):
            train_teacher(tiny_codes, **options, checkpoint=path, should_stop=lambda last=step: seen[-1].step == last)
    parts = train_teacher(tiny_codes, **options, checkpoint=path)
    assert [step.step for step in seen] == [1, 2, 3, 4, 5, 6]
    again = train_teacher(tiny_codes, **options, checkpoint=path)
    assert len(seen) == 6
    for other in (parts, again):
        assert not other.training
        assert not any(p.requires_grad for p in other.parameters())
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))
    assert seconds_kept(path) > 0
    with pytest.raises(ValueError, match=r"is of other work: it differs in seed \(1 there, 2 here\)"):
        train_teacher(tiny_codes, **{**options, "seed": 2}, checkpoint=path)
    with pytest.raises(StoppedError, match="nothing of it is kept, since no checkpoint was named"):
        train_teacher(tiny_codes, **options, should_stop=lambda: True)


def test_the_command_trains_one(codes_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "noise"
    words = ["shrink", codes_folder, "--noise", "--soft-labels", "--epochs", 2, "--rank", 3, "--seed", 5, "--out", out]
    assert main([*map(str, words), "--dtype", "float32", "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["source"], facts["soft_labels"]) == ("noise", True)
    derived = "forget_codes(rank=3, teacher=train_teacher(epochs=2, seed=5))"
    assert facts["training"].keys() == {"derived", "teacher_minutes"}
    assert facts["training"]["derived"] == derived
    wanted = train_teacher(Generator.from_pretrained(codes_folder), epochs=2, seed=5, device="cpu")
    found = Generator.from_pretrained(out).teacher
    for ours, theirs in zip(found.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert main(["info", str(out)]) == 0
    assert "soft_labels=True" in capsys.readouterr().out


def test_it_wants_noise(codes_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shrink", str(codes_folder), "--soft-labels", "--out", str(tmp_path / "new")]) == 1
    assert "--soft-labels trains a teacher for --noise" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
