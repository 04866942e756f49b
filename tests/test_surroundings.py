"""What the caller has switched on changes nothing: the same pictures, the same trainings, as if nothing were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import SURROUNDINGS, inside, plain, switches
from torch import Tensor, nn

from conftest import make_data
from dim_data import DistilledDataset, DistilledLoader, Generator, evaluate
from dim_data.distillation.refining import refine_codes, relabel_codes
from dim_data.generator.grids import sample_png
from dim_data.images.real import LabelledImages, load_real
from dim_data.images.specs import ImageSpec
from dim_data.networks import compute
from dim_data.networks.classifiers import ConvNet
from dim_data.protocol.recipes import RECIPES
from dim_data.protocol.teaching import train_teacher
from dim_data.protocol.training import ClassifierStep, measure_accuracy, train_classifier

pytestmark = pytest.mark.usefixtures("small_classifiers")

TRAIN, TEST = make_data(3, 32), make_data(3, 32, seed=1)
ORDER = torch.arange(21) % 3, torch.arange(21) // 3
FEW = torch.arange(40)


# What is called ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def teacher() -> ConvNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return ConvNet(TRAIN.spec).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def sources(tiny_noise: Generator, tiny_codes: Generator, teacher: ConvNet) -> dict[str, Generator]:
    rng = torch.Generator().manual_seed(0)
    latents, labels = tiny_codes.latents(FEW[:30] % 3, FEW[:30] // 3), FEW[:30] % 3
    soft = torch.rand(30, 3, generator=rng).softmax(1)
    return {
        "noise": tiny_noise,
        "codes": tiny_codes.store(latents, labels, soft).requires_grad_(False).eval(),
        "taught": tiny_codes.forget_codes(rank=4, teacher=teacher),
    }


def items_of(dataset: DistilledDataset) -> list[Any]:
    return [(image.tobytes(), label) for image, label in dataset.read([0, 5, 1])]


def reloaded(generator: Generator, folder: Path, **options: Any) -> Any:
    saved = generator.save_pretrained(folder, **options)
    loaded = Generator.from_pretrained(saved)
    return (saved / "model.safetensors").read_bytes(), loaded, loaded.synthesize(*ORDER)


PAINTING: dict[str, Callable[[Generator, Path], Any]] = {
    "synthesize": lambda g, _: g.synthesize(*ORDER, seed=3),
    "latents": lambda g, _: g.latents(*ORDER, seed=3),
    "save": lambda g, folder: reloaded(g, folder, dtype=torch.float32),
    "save_int8": lambda g, folder: reloaded(g, folder, dtype=torch.int8),
    "dataset": lambda g, _: items_of(DistilledDataset(g, ipc=3)),
    "data": lambda g, _: DistilledDataset(g, ipc=3).data[:].tobytes(),
    "loader": lambda g, _: list(DistilledLoader(g, 4, ipc=3, device="cpu")),
    "loader_uint8": lambda g, _: list(DistilledLoader(g, 4, ipc=3, device="cpu", dtype=torch.uint8, shuffle=False)),
    "loader_items": lambda g, _: [DistilledLoader(g, 4, ipc=3, device="cpu").dataset[i] for i in (0, 4)],
    "grid": lambda g, _: sample_png(g),
}
LABELLING: dict[str, Callable[[Generator, Path], Any]] = {
    "soft_labels": lambda g, _: g.soft_labels(*ORDER, 3),
    "dataset_soft": lambda g, _: items_of(DistilledDataset(g, ipc=3, soft_labels=0.5)),
    "loader_soft": lambda g, _: list(DistilledLoader(g, 4, ipc=3, device="cpu", soft_labels=True)),
}
STORED: dict[str, Callable[[Generator, Path], Any]] = {
    "rows": lambda g, _: g.rows(*ORDER),
    "decode": lambda g, _: g.decode(FEW[:20]),
    "cached": lambda g, _: list(DistilledLoader(g, 4, ipc=3, device="cpu", cache=True)),
    "dataset_cached": lambda g, _: items_of(DistilledDataset(g, ipc=3, cache=True)),
    "forget_codes": lambda g, _: g.forget_codes(rank=4),
    "keep_codes": lambda g, _: g.keep_codes(12),
}


@pytest.mark.parametrize("source", ["noise", "codes", "taught"])
def test_a_picture_is_the_same_bit_for_bit(source: str, sources: dict[str, Generator], tmp_path: Path) -> None:
    generator = sources[source]
    calls = PAINTING | (LABELLING if generator.config.soft_labels else {}) | (STORED if source == "codes" else {})
    for name, call in calls.items():
        outside = plain(call(generator, tmp_path / name))
        for place, surroundings in enumerate(SURROUNDINGS + ["threads"] * (name == "synthesize")):
            with inside(surroundings):
                before = switches()
                found = call(generator, tmp_path / f"{name}_{place}")
                assert switches() == before, (name, surroundings)
            assert plain(found) == outside, (name, surroundings)


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_a_fresh_generator_is_an_ordinary_one(surroundings: str, tiny_noise: Generator) -> None:
    def build() -> Generator:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(5)
            return Generator(tiny_noise.config)

    outside = plain(build())
    with inside(surroundings):
        found = build()
    assert plain(found) == outside
    found(found.latents(*ORDER), ORDER[0]).sum().backward()
    assert all(p.grad is not None for p in found.decoder.parameters())


@pytest.mark.parametrize("surroundings", ["inference_mode meta", "float64"])
def test_what_was_made_inside_is_used_outside(surroundings: str, tiny_codes: Generator) -> None:
    with inside(surroundings):
        dataset, loader = (
            DistilledDataset(tiny_codes, ipc=2, cache=True),
            DistilledLoader(tiny_codes, 4, ipc=2, device="cpu"),
        )
        images, _ = next(iter(loader))
        dataset.read([0, 1])
    assert dataset.read([0, 1])[0][1] == 0
    assert dataset.epoch == 1
    layer = nn.Linear(32, 2)
    layer(images).sum().backward()
    assert layer.weight.grad is not None


def test_samples_are_the_callers_own(tiny_noise: Generator) -> None:
    """They are for training: autocast and gradients are as the caller wants them."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        found = tiny_noise.sample(ORDER[0], rng)
    assert (found.dtype, found.device.type) == (torch.bfloat16, "cpu")


def test_transforms_are_called_as_things_stand_with_the_caller(tiny_codes: Generator) -> None:
    seen: list[Any] = []

    def look(image: Any) -> Any:
        seen.append(switches()[:-1])
        return image

    dataset = DistilledDataset(tiny_codes, ipc=2, transform=look, target_transform=look)
    loader = DistilledLoader(tiny_codes, 4, ipc=2, device="cpu", transform=look)
    for name in ("autocast", "no_grad float64", "inference_mode meta"):
        with inside(name):
            wanted = switches()[:-1]
            dataset.read([0, 1])
            assert len(list(loader)) == 2
        assert seen == [wanted] * 6, name
        seen.clear()


def test_painting_leaves_switches_of_other_threads_alone(
    tiny_codes: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dtype: torch.dtype) -> None:
        raise AssertionError(f"another thread would make {dtype} for a while")

    with inside("float64"):
        loader, dataset = DistilledLoader(tiny_codes, 4, ipc=2, device="cpu"), DistilledDataset(tiny_codes, ipc=2)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "set_default_dtype", refuse)
            assert len(list(loader)) == 2
            assert len(dataset.read([0, 1])) == 2


def test_pictures_are_painted_at_full_precision_and_not_by_the_clock(tiny_noise: Generator) -> None:
    seen: set[Any] = set()
    matmul = getattr(torch.backends.mkldnn, "matmul", None)

    def look(module: nn.Module, inputs: Any) -> None:
        precision = matmul.fp32_precision if matmul else torch.get_float32_matmul_precision()
        seen.add((torch.backends.cudnn.benchmark, precision))

    hook = tiny_noise.decoder.register_forward_pre_hook(look)
    try:
        with inside("precision benchmark"):
            tiny_noise.synthesize(*ORDER)
    finally:
        hook.remove()
    assert seen == {(False, "ieee" if matmul else "highest")}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_real_images_are_read_alike(surroundings: str) -> None:
    rng = torch.Generator().manual_seed(0)
    floats = torch.rand(6, 28, 28, generator=rng)
    pairs = [(image, index % 3) for index, image in enumerate(floats.numpy())]

    def read() -> Any:
        lists = load_real((floats.numpy(), [0, 1, 2, 0, 1, 2]))
        return [lists, load_real(pairs), *lists.split(0.5, seed=1)]

    outside = plain(read())
    with inside(surroundings):
        before, found = switches(), read()
        assert switches() == before
    assert plain(found) == outside


# Trainings ---------------------------------------------------------------------------------------------


class Dropping(nn.Module):
    """A classifier that draws random numbers while it learns, and makes some tensors itself."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.body = ConvNet(spec, width=8, depth=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(nn.functional.dropout(images, 0.3, self.training) + torch.zeros(1))


def evaluated(**changes: Any) -> Any:
    losses: list[float] = []
    how = {"recipe": "muon_crop", "ipc": 4, "epochs": 5, "seeds": (0, 1), "device": "cpu", **changes}
    found = evaluate(TRAIN, TEST, Dropping, on_step=lambda step: losses.append(step.loss), **how)
    return found.accuracies, losses


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_an_evaluation_is_the_same(bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_cpu_has_bfloat16", lambda: bfloat16)
    outside = evaluated()
    assert outside[1][-1] < 0.5 * outside[1][0]
    for surroundings in SURROUNDINGS:
        with inside(surroundings):
            before, found = switches(), evaluated()
            assert switches() == before, surroundings
        assert found == outside, surroundings


def test_images_made_in_inference_mode_are_trained_on() -> None:
    outside = evaluated(epochs=2)
    with torch.inference_mode():
        train = LabelledImages(TRAIN.images.clone(), TRAIN.labels.clone(), TRAIN.spec)
        test = TEST.images.clone(), TEST.labels.clone()
    losses: list[float] = []
    how: dict[str, Any] = {"recipe": "muon_crop", "ipc": 4, "epochs": 2, "seeds": (0, 1), "device": "cpu"}
    found = evaluate(train, test, Dropping, on_step=lambda step: losses.append(step.loss), **how)
    assert (found.accuracies, losses) == outside


def test_teachers_refined_codes_and_labels_are_the_same(sources: dict[str, Generator], teacher: ConvNet) -> None:
    generator = sources["codes"]
    labels = generator.bank.labels
    data = LabelledImages(generator.decode(torch.arange(30)).flip(-1), labels, generator.spec)

    def make() -> list[Any]:
        taught = train_teacher(generator, ipc=2, epochs=2, device="cpu")
        refined = refine_codes(generator, data, [teacher], looks=1, device="cpu")
        return [taught, refined, relabel_codes(refined, [teacher], device="cpu")]

    outside = plain(make())
    for surroundings in SURROUNDINGS:
        with inside(surroundings):
            before, found = switches(), make()
            assert switches() == before, surroundings
        assert plain(found) == outside, surroundings


STEPPING = ("autocast", "no_grad float64", "inference_mode meta")


def stepped(surroundings: str = "") -> tuple[list[float], Any]:
    """A loop whose caller enters a context after the first step, and leaves it after the third."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = Dropping(TRAIN.spec)
    loop = train_classifier(model, TRAIN, RECIPES["muon"], ipc=4, epochs=4, device=torch.device("cpu"))
    losses = [next(loop).loss]
    if surroundings:
        with inside(surroundings):
            before = switches()
            for _ in range(2):
                losses.append(next(loop).loss)
                assert switches() == before
    before = switches()
    for step in loop:
        losses.append(step.loss)
        assert switches() == before
    return losses, plain(model)


@pytest.mark.parametrize("surroundings", STEPPING)
def test_a_loop_neither_leaks_nor_lets_in(surroundings: str) -> None:
    outside = stepped()
    assert len(outside[0]) == 4
    assert stepped(surroundings) == outside


def test_a_loop_does_not_read_the_callers_random_numbers() -> None:
    outside = stepped()
    torch.rand(7)
    assert stepped() == outside


@pytest.mark.parametrize("surroundings", STEPPING)
def test_those_who_watch_an_evaluation_do_so_in_their_own_surroundings(surroundings: str) -> None:
    seen: list[Any] = []

    def watch(step: ClassifierStep) -> None:
        seen.append(switches()[:-1])
        drawn.append(torch.rand((), dtype=torch.float32, device="cpu").item())

    drawn: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(9)
        with inside(surroundings):
            wanted = switches()[:-1]
            how: dict[str, Any] = {"ipc": 4, "epochs": 2, "seeds": (0,), "device": "cpu", "on_step": watch}
            evaluate(TRAIN, TEST, Dropping, "muon", **how)
        assert seen == [wanted] * 2
        torch.default_generator.manual_seed(9)
        assert drawn == pytest.approx([torch.rand(()).item() for _ in drawn])


def test_accuracy_is_measured_as_it_was_trained() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = Dropping(TRAIN.spec)
    outside = measure_accuracy(model, TEST)
    for name in STEPPING:
        with inside(name):
            assert measure_accuracy(model, TEST) == outside
