from __future__ import annotations

import copy
import json
import math
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from conftest import make_data, make_spec
from dim_data import Generator
from dim_data.images.real import LabelledImages, load_real
from dim_data.images.specs import KNOWN_SPECS, ImageSpec
from dim_data.loading.dataset import DistilledDataset
from dim_data.networks.classifiers import ConvNet
from dim_data.networks.muon import Muon
from dim_data.protocol import showing
from dim_data.protocol.evaluation import Evaluation, evaluate
from dim_data.protocol.recipes import RECIPES, Recipe, recipe_for
from dim_data.protocol.training import ClassifierStep, measure_accuracy, train_classifier

pytestmark = pytest.mark.usefixtures("small_classifiers")

TRAIN, TEST = make_data(), make_data(seed=1)
QUICK = {"ipc": 4, "epochs": 15, "seeds": (0,)}


class Recorder(nn.Module):
    """A linear classifier that keeps every batch it is given, in training and in test, where the first is a trial."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.head = nn.Linear(spec.channels * spec.size**2, spec.num_classes)
        self.seen: dict[bool, list[Tensor]] = {True: [], False: []}

    def forward(self, images: Tensor) -> Tensor:
        self.seen[self.training].append(images.detach().clone())
        return self.head(images.flatten(1))


def recorder(kept: list[Recorder]) -> Callable[[ImageSpec], Recorder]:
    def record(spec: ImageSpec) -> Recorder:
        kept.append(Recorder(spec))
        return kept[-1]

    return record


# Recipes -----------------------------------------------------------------------------------------------


def test_the_papers_recipe() -> None:
    paper = RECIPES["paper"]
    assert (paper.batch_size, paper.lr, paper.momentum, paper.weight_decay) == (128, 0.01, 0.9, 5e-4)
    assert (paper.schedule, paper.nesterov, paper.augmentation) == ("constant", False, ("color", "crop"))


def test_tuned_takes_small_steps_at_one_image_a_class() -> None:
    spec = KNOWN_SPECS["cifar10"]
    one, ten = recipe_for("tuned", spec, 1), recipe_for("tuned", spec, 10)
    assert (one.batch_size, one.lr) == (10, 0.01)
    assert (ten.batch_size, ten.lr) == (50, 0.05)
    assert ten == RECIPES["tuned"]
    assert recipe_for("paper", spec, 1) == RECIPES["paper"]


@pytest.mark.parametrize("name", sorted(KNOWN_SPECS))
@pytest.mark.parametrize("ipc", [1, 10])
def test_digits_are_never_mirrored(name: str, ipc: int) -> None:
    for recipe in RECIPES:
        mirrored = "flip" in recipe_for(recipe, KNOWN_SPECS[name], ipc).augmentation
        assert mirrored == (recipe != "paper" and name in ("cifar10", "fashion_mnist"))


def test_a_recipe_of_ones_own_is_kept() -> None:
    mine = replace(RECIPES["paper"], name="mine", batch_size=7)
    assert recipe_for(mine, KNOWN_SPECS["mnist"], 1) is mine
    with pytest.raises(
        ValueError,
        match=r"unknown recipe 'best': choose from \['muon', 'muon_crop', 'muon_crop_mixed', 'muon_crop_soft', ",
    ):
        recipe_for("best", KNOWN_SPECS["mnist"], 1)
    with pytest.raises(ValueError, match=r"Recipe.soft_labels must be a share in \[0, 1\], got 50"):
        replace(mine, soft_labels=50)


@pytest.mark.parametrize("name", sorted(RECIPES))
@pytest.mark.parametrize("ipc", [1, 10])
def test_a_recipe_is_the_same_as_its_name(name: str, ipc: int) -> None:
    for spec in KNOWN_SPECS.values():
        assert recipe_for(RECIPES[name], spec, ipc) == recipe_for(name, spec, ipc)


def test_digits_are_not_mirrored_by_a_recipe_of_ones_own() -> None:
    mine = replace(RECIPES["muon_crop"], name="mine", lr=0.1)
    assert recipe_for(mine, KNOWN_SPECS["mnist"], 1) == replace(mine, augmentation=("crop",))
    assert recipe_for(mine, KNOWN_SPECS["cifar10"], 1) is mine


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schedule": "one_cycle"}, "Recipe.schedule must be 'constant' or 'one-cycle', got 'one_cycle'"),
        ({"optimizer": "Muon"}, "Recipe.optimizer must be 'sgd' or 'muon', got 'Muon'"),
        ({"augmentation": ("flips",)}, "Recipe.augmentation has an unknown name 'flips': choose from "),
        ({"batch_size": 0}, "Recipe.batch_size must be a positive int, got 0"),
        ({"lr": 0}, r"Recipe.lr must be a number in \(0, inf\), got 0"),
        ({"momentum": 1}, r"Recipe.momentum must be a number in \[0, 1\), got 1"),
        ({"soft_labels": "half"}, r"Recipe.soft_labels must be a share in \[0, 1\], got 'half'"),
        ({"weight_decay": -1}, r"Recipe.weight_decay must be a number in \[0, inf\), got -1"),
    ],
)
def test_a_recipe_that_says_what_nobody_does_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(RECIPES["tuned"], **change)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_optimiser_follows_the_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, groups = [], []
    recipe = recipe_for(name, make_spec(1, 28), 10)
    kind = {"sgd": torch.optim.SGD, "muon": Muon}[recipe.optimizer]
    real_step = kind.step

    def step(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        groups.append(self.param_groups[0])
        return real_step(self, *args, **kwargs)

    monkeypatch.setattr(kind, "step", step)
    taught = replace(TRAIN, soft=torch.eye(3)[TRAIN.labels])
    list(train_classifier(Recorder(TRAIN.spec), taught, recipe, ipc=4, epochs=50))
    assert len(rates) == 50
    assert groups[0].get("nesterov", True) == recipe.nesterov
    assert groups[0]["weight_decay"] == recipe.weight_decay
    if recipe.schedule == "constant":
        assert set(rates) == {recipe.lr}
        assert groups[0]["momentum"] == recipe.momentum
    else:
        assert max(rates) == pytest.approx(recipe.lr)
        assert rates.index(max(rates)) in (9, 10)
        assert rates[0] == pytest.approx(recipe.lr / 25)
        assert rates[-1] < recipe.lr / 1000


# What evaluate() returns -------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", range(1, 8))
def test_any_number_of_steps_can_be_trained(epochs: int) -> None:
    assert evaluate(TRAIN, TEST, ipc=1, epochs=epochs, seeds=(0,)).images_shown == 3 * epochs


def test_mean_and_deviation() -> None:
    accuracies = (0.5, 0.6, 0.8)
    result = Evaluation("convnet3", "tuned", 10, 1000, (0, 1, 2), accuracies, 100_000, 60.0)
    mean = sum(accuracies) / 3
    assert result.mean == pytest.approx(mean)
    assert result.std == pytest.approx(math.sqrt(sum((a - mean) ** 2 for a in accuracies) / 2))
    assert str(result) == "convnet3, recipe tuned, ipc 10: 63.33% +- 15.28% (3 seeds, 100000 images shown)"
    single = replace(result, seeds=(0,), accuracies=(0.5,))
    assert (single.mean, single.std) == (0.5, 0.0)
    assert str(single).endswith("ipc 10: 50.00% (1 seed, 100000 images shown)")


@pytest.mark.parametrize("recipe", ["tuned", "muon", "paper"])
def test_it_learns_from_labels_and_from_nothing_else(recipe: str, device: torch.device) -> None:
    mine = replace(RECIPES[recipe], batch_size=12, lr=0.05, augmentation=())
    settings: dict[str, Any] = {"recipe": mine, "ipc": 4, "epochs": 15, "seeds": (0, 1), "device": device}
    result = evaluate(TRAIN, TEST, **settings)
    assert result.mean > 0.95
    assert (result.classifier, result.recipe, result.ipc, result.epochs) == ("convnet3", recipe, 4, 15)
    assert (result.seeds, result.images_shown) == ((0, 1), 4 * 15 * 3)
    assert len(result.accuracies) == 2
    assert result.seconds > 0
    shuffled = TRAIN.labels[torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(0))]
    assert evaluate(replace(TRAIN, labels=shuffled), TEST, **settings).mean < 0.7


def test_a_seed_decides_everything() -> None:
    def losses(seed: int) -> tuple[list[float], float]:
        kept: list[float] = []
        result = evaluate(TRAIN, TEST, ipc=2, epochs=4, seeds=(seed,), on_step=lambda s: kept.append(s.loss))
        return kept, result.mean

    state = torch.random.get_rng_state()
    first = losses(3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    assert losses(3) == first
    assert losses(4) != first


def test_steps_are_reported() -> None:
    steps: list[ClassifierStep] = []
    evaluate(TRAIN, TEST, ipc=7, epochs=2, seeds=(5, 6), on_step=steps.append)
    assert [(s.step, s.steps, s.seed) for s in steps] == [(i, 2, seed) for seed in (5, 6) for i in (1, 2)]
    assert all(math.isfinite(s.loss) and s.loss > 0 for s in steps)


# What a classifier is shown ----------------------------------------------------------------------------


def numbered(per_class: int) -> LabelledImages:
    """Images whose first two pixels hold their class and their number in it."""
    data = make_data(per_class=per_class)
    images = torch.zeros_like(data.images)
    images[:, 0, 0, 0] = data.labels.to(torch.uint8)
    images[:, 0, 0, 1] = (torch.arange(len(data)) // 3).to(torch.uint8)
    return replace(data, images=images)


def shown(train: LabelledImages, ipc: int, epochs: int, batch_size: int) -> list[list[tuple[int, int]]]:
    """(class, number) of every image of every batch."""
    model = Recorder(train.spec)
    recipe = Recipe("plain", batch_size, 1e-3, "constant", False, ())
    steps = list(train_classifier(model, train, recipe, ipc=ipc, epochs=epochs, device=torch.device("cpu")))
    assert [s.step for s in steps] == list(range(1, steps[0].steps + 1))
    assert len(model.seen[True]) == steps[0].steps
    pixels = [(train.spec.denormalize(x)[:, 0, 0, :2] * 255).round().int() for x in model.seen[True]]
    return [[(a, b) for a, b in x.tolist()] for x in pixels]


@pytest.mark.parametrize(
    ("ipc", "epochs", "batch_size", "sizes"),
    [
        (20, 3, 12, [12] * 5),
        (20, 3, 50, [50, 10]),
        (7, 5, 50, [21]),
        (7, 5, 5, [5, 5, 5, 6]),  # a single image left over joins the batch before: BatchNorm needs two
        (1, 6, 2, [3]),
        (1, 2000, 50, [3]),
        (1, 4, 1, [1, 1, 1]),  # asked for
        (3000, 2, 1000, [1000] * 9),
        (3000, 2, 4500, [4500] * 2),
        (3000, 1, 9000, [9000]),
    ],
)
def test_every_epoch_is_balanced_shuffled_and_whole(ipc: int, epochs: int, batch_size: int, sizes: list[int]) -> None:
    size = 3 * ipc
    batches = shown(numbered(20), ipc, epochs, batch_size)
    assert [len(batch) for batch in batches] == sizes * epochs
    images = [image for batch in batches for image in batch]
    orders = [images[at : at + size] for at in range(0, len(images), size)]
    for order in orders:
        assert Counter(label for label, _ in order) == dict.fromkeys(range(3), ipc)
    assert len({tuple(order) for order in orders}) > epochs // 2
    assert any([label for label, _ in order] != [i % 3 for i in range(size)] for order in orders)


def test_every_image_is_shown_once_before_any_is_shown_again() -> None:
    batches = shown(numbered(20), ipc=4, epochs=15, batch_size=50)
    for turn in range(3):
        images = [image for batch in batches[5 * turn : 5 * turn + 5] for image in batch]
        assert set(Counter(images).values()) == {1}
        assert len(images) == 60


def test_normalisation_in_test_is_that_of_training() -> None:
    kept: list[Recorder] = []
    foreign = replace(TEST, spec=replace(TEST.spec, mean=(0.9,), std=(0.1,)))
    evaluate(TRAIN, foreign, recorder(kept), ipc=2, epochs=2, seeds=(0,))
    tested = torch.cat(kept[0].seen[False][1:])[: len(TEST)]
    torch.testing.assert_close(TRAIN.spec.denormalize(tested), TEST.images / 255)


def test_augmentation_is_for_training_alone() -> None:
    kept: list[Recorder] = []
    recipe = replace(RECIPES["tuned"], augmentation=("cutout",))
    evaluate(TRAIN, TEST, recorder(kept), recipe, ipc=5, epochs=2, seeds=(0,))
    images = {name: TRAIN.spec.denormalize(torch.cat(x[not name :])) for name, x in kept[0].seen.items()}
    assert (images[True].abs() < 1e-6).float().mean() > 0.1
    torch.testing.assert_close(images[False][: len(TEST)], TEST.images / 255)


@pytest.mark.parametrize("shown", [120, 119])
def test_a_bank_is_cached_where_its_codes_come_again_and_shows_what_drawing_shows(
    tiny_codes: Generator, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[Generator] = []
    original = showing.PictureCache
    monkeypatch.setattr(showing, "PictureCache", lambda g: caches.append(g) or original(g))
    fetch = showing.image_source(tiny_codes, shown)
    assert len(caches) == (shown == 120)
    labels, serials = torch.arange(300) % 3, torch.arange(300) // 3
    images, targets = fetch(labels, serials, 5)
    assert torch.equal(images, tiny_codes.synthesize(labels, serials, 5))
    assert torch.equal(targets, labels)


@pytest.mark.parametrize("ipc", [4, 50])
def test_an_epoch_that_is_renewed_in_part_is_that_of_a_dataset(tiny_noise: Generator, ipc: int) -> None:
    fetch = showing.image_source(tiny_noise, 9, ipc=ipc, refresh=0.25)
    dataset = DistilledDataset(tiny_noise, ipc=ipc, seed=5, refresh=0.25)
    labels, slots = torch.arange(3 * ipc) % 3, torch.arange(3 * ipc) // 3
    for first in range(0, 6, 3):  # three epochs fetched at once
        serials = torch.cat([slots + epoch * ipc for epoch in range(first, first + 3)])
        images, _ = fetch(labels.repeat(3), serials, 5)
        for part, epoch in zip(images.split(3 * ipc), range(first, first + 3), strict=True):
            dataset.set_epoch(epoch)
            assert (part[:, 0].numpy() == dataset.data).all()


def test_what_is_not_drawn_is_not_renewed(tiny_codes: Generator) -> None:
    with pytest.raises(ValueError, match=r"refresh=0\.5 is of a generator driven by noise: real images stay"):
        evaluate(TRAIN, TEST, ipc=1, epochs=1, seeds=(0,), refresh=0.5)
    with pytest.raises(ValueError, match="this generator stores codes"):
        showing.image_source(tiny_codes, 9, refresh=0.5)


# Measuring ---------------------------------------------------------------------------------------------


class Moody(nn.Module):
    """Right about everything in train mode, always class 0 in eval mode."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.edges = [label * (spec.size // spec.num_classes) for label in range(spec.num_classes)]

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([images[:, 0, edge : edge + 4].mean((1, 2)) for edge in self.edges], 1)
        if not self.training:
            logits = logits * 0 + logits.new_tensor([1, 0, 0])
        return logits * self.scale


def test_accuracy_is_measured_in_eval_mode() -> None:
    lopsided = TEST.subset(torch.cat([torch.arange(30), (TEST.labels == 0).nonzero()[:, 0]]))
    share = (lopsided.labels == 0).float().mean().item()
    assert evaluate(TRAIN, lopsided, Moody, **QUICK).accuracies == (pytest.approx(share),)
    model = Moody(TRAIN.spec).train()
    right = model(lopsided.spec.normalize(lopsided.images / 255)).argmax(1) == lopsided.labels
    assert right.all()


@pytest.mark.parametrize("training", [True, False])
def test_measuring_keeps_the_training_flag_and_the_model(training: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(ConvNet(TEST.spec, width=8), nn.BatchNorm1d(3)).train(training)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    measure_accuracy(model, TEST)
    assert all(m.training == training for m in model.modules())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("count", [1, 7, 59, 60])
@pytest.mark.parametrize("batch_size", [1, 20, 200])
def test_accuracy_counts_every_image_once(count: int, batch_size: int, device: torch.device) -> None:
    some = TEST.subset(torch.arange(count))
    model = Moody(TEST.spec).to(device).eval()
    assert measure_accuracy(model, some, batch_size) * count == pytest.approx(int((some.labels == 0).sum()))


def test_a_model_of_half_precision_is_measured_and_stays_as_it_is() -> None:
    torch.manual_seed(0)
    model = ConvNet(TEST.spec, width=8).half()
    assert measure_accuracy(model, TEST) == measure_accuracy(copy.deepcopy(model).float(), TEST)
    assert all(p.dtype == torch.float16 for p in model.parameters())


# Sources and classifiers -------------------------------------------------------------------------------


def test_a_generator_and_its_folder_score_alike(codes_folder: Path) -> None:
    generator = Generator.from_pretrained(codes_folder)
    test = make_data(3, 32)
    settings: dict[str, Any] = {"ipc": 2, "epochs": 3, "seeds": (0, 1)}
    scores = [evaluate(source, test, **settings).accuracies for source in (generator, codes_folder, str(codes_folder))]
    assert scores[0] == scores[1] == scores[2]


def test_numbers_of_numpys_are_numbers(tiny_noise: Generator) -> None:
    options: dict[str, Any] = {
        "ipc": np.int64(2),
        "epochs": np.int32(1),
        "seeds": np.arange(2),
        "refresh": np.float32(0.5),
    }
    found = evaluate(tiny_noise, TEST, **options)
    assert found == replace(found, ipc=2, epochs=1, seeds=(0, 1))
    assert json.loads(json.dumps(asdict(found)))["seeds"] == [0, 1]


def test_who_tests_on_the_images_of_the_generator_is_told(codes_folder: Path) -> None:
    own, settings = make_data(3, 32), {"ipc": 1, "epochs": 1, "seeds": (0,)}
    (codes_folder / "training_config.json").write_text(json.dumps({"data": own.fingerprint()}))
    with pytest.warns(UserWarning, match="these test images are those that the generator was made from"):
        evaluate(codes_folder, own, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(codes_folder, make_data(3, 32, seed=1), **settings)


def test_a_noise_generator_is_drawn_from(tiny_noise: Generator) -> None:
    result = evaluate(tiny_noise, TEST, ipc=2, epochs=3, seeds=(0,))
    assert 0 <= result.mean <= 1


def test_real_images_come_in_any_form() -> None:
    pair, items = (TRAIN.images, TRAIN.labels), list(zip(TEST.images, TEST.labels.tolist(), strict=True))
    assert evaluate(pair, items, ipc=4, epochs=10, seeds=(0,)).mean > 0.9


def test_torchvisions_models_work() -> None:
    models = pytest.importorskip("torchvision.models")

    def resnet18(spec: ImageSpec) -> nn.Module:
        return models.resnet18(num_classes=spec.num_classes)

    data = make_data(3, 32)
    result = evaluate(data, data, resnet18, ipc=2, epochs=2, seeds=(0,))
    assert result.classifier == "resnet18"


def test_a_leftover_image_does_not_break_batch_norm() -> None:
    def normed(spec: ImageSpec) -> nn.Module:
        pixels = spec.channels * spec.size**2
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.BatchNorm1d(8), nn.Linear(8, spec.num_classes))

    data = make_data(classes=11)  # ten and one at one image a class
    assert evaluate(data, data, normed, ipc=1, epochs=2, seeds=(0,)).images_shown == 22


def test_a_callable_without_a_name_is_called_by_its_class() -> None:
    class Builder:
        def __call__(self, spec: ImageSpec) -> nn.Module:
            return Recorder(spec)

    assert evaluate(TRAIN, TEST, Builder(), **QUICK).classifier == "Recorder"


# Real images in every form ---------------------------------------------------------------------------


def save_images(path: Path, data: LabelledImages, names: Sequence[str]) -> Path:
    for index, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
        (path / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(path / names[label] / f"{index}.png")
    return path


def test_of_a_file_the_test_split_is_read(tmp_path: Path) -> None:
    arrays = {"train_images": TRAIN.images[:, 0], "train_labels": TRAIN.labels * 0}
    arrays |= {"test_images": TEST.images[:, 0], "test_labels": TEST.labels}
    np.savez(tmp_path / "set.npz", **arrays)
    wanted = evaluate(TRAIN, TEST, **QUICK)
    assert evaluate(TRAIN, tmp_path / "set.npz", **QUICK).accuracies == wanted.accuracies
    save_images(tmp_path / "set" / "test", TEST, TEST.spec.classes)
    save_images(tmp_path / "set" / "train", make_data(3, 28), TEST.spec.classes)
    assert evaluate(TRAIN, tmp_path / "set", **QUICK).accuracies == pytest.approx(wanted.accuracies)
    np.savez(tmp_path / "train.npz", train_images=TRAIN.images, train_labels=TRAIN.labels)
    with pytest.raises(ValueError, match="lacks test_images and test_labels; it holds train_images"):
        evaluate(TRAIN, tmp_path / "train.npz", **QUICK)


def test_classes_of_the_test_images_are_matched_by_name(tmp_path: Path) -> None:
    wanted = evaluate(TRAIN, TEST.subset((TEST.labels > 0).nonzero()[:, 0]), **QUICK)
    assert wanted.mean > 0.9
    some = save_images(tmp_path / "some", TEST, ("gone", "class1", "class2"))
    shutil.rmtree(some / "gone")
    assert evaluate(TRAIN, some, **QUICK).mean == pytest.approx(wanted.mean)
    assert evaluate(TRAIN, load_real(some), **QUICK).mean == pytest.approx(wanted.mean)
    assert evaluate(TRAIN, ImageFolder(str(some)), **QUICK).mean == pytest.approx(wanted.mean)
    assert evaluate(TRAIN, load_real(some), **QUICK, size=28).mean == pytest.approx(wanted.mean)
    save_images(tmp_path / "some", TEST, ("class9", "class1", "class2"))
    for test in (some, load_real(some), ImageFolder(str(some))):
        with pytest.raises(ValueError, match="tiny has no class 'class9'; its 3 classes are"):
            evaluate(TRAIN, test, **QUICK)


def test_a_table_is_read_where_its_test_split_is() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=TEST.spec.classes[::-1])})
    tables = {}
    for split, data in (("train", TRAIN), ("test", TEST)):
        pictures = [Image.fromarray(image[0].numpy()) for image in data.images]
        rows = {"img": pictures, "kind": (2 - data.labels).tolist()}
        tables[split] = datasets.Dataset.from_dict(rows, features)
    wanted = evaluate(TRAIN, TEST, **QUICK)
    assert evaluate(TRAIN, datasets.DatasetDict(tables), **QUICK).accuracies == wanted.accuracies
    assert evaluate(TRAIN, tables["test"], **QUICK, columns=("img", "kind")).accuracies == wanted.accuracies
    assert evaluate(datasets.DatasetDict(tables), TEST, **QUICK).mean > 0.9


# Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ipc": 0}, "ipc must be a positive int, got 0"),
        ({"ipc": -1}, "ipc must be a positive int, got -1"),
        ({"ipc": 1.5}, r"ipc must be a positive int, got 1\.5"),
        ({"ipc": True}, "ipc must be a positive int, got True"),
        ({"epochs": 0}, "epochs must be a positive int, got 0"),
        ({"epochs": "10"}, "epochs must be a positive int, got '10'"),
        ({"seeds": ()}, r"seeds is empty: give at least one, such as seeds=\(0,\)"),
        ({"classifier": "vgg"}, "unknown classifier 'vgg': choose from"),
        ({"recipe": "best"}, "unknown recipe 'best': choose from"),
        ({"train": TRAIN.subset((TRAIN.labels > 0).nonzero()[:, 0])}, "the training images lack a class"),
        ({"test": make_data(3, 32)}, "tiny: 32x32 pixels, but tiny images are 28x28; size=28"),
        ({"test": make_data(classes=4)}, "tiny has no class 'class3'; its 3 classes are 'class0', 'class1', 'class2'"),
        ({"test": make_data(3, 28)}, "tiny images are grey, and these are in colour: convert them first"),
        (
            {"test": (TEST.images, TEST.labels), "size": 32},
            r"these images were read at 28 pixels: give size=32 to load_real\(\)",
        ),
    ],
)
def test_bad_arguments_raise(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        evaluate(**{"train": TRAIN, "test": TEST, **QUICK, **change})


def test_bad_sources_and_devices_raise(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"unknown source .*: a source is a folder with config\.json"):
        evaluate(tmp_path / "nowhere", TEST)
    with pytest.raises(TypeError, match=r"a classifier must be an nn.Module, the builder returned NoneType"):
        evaluate(TRAIN, TEST, lambda spec: None, **QUICK)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="torch finds no GPU here; pass device='cpu'"):
            evaluate(TRAIN, TEST, device="cuda")


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ((0, 1, 0), r"seeds \(0, 1, 0\) has one twice: the same training again says nothing of the spread"),
        ((1 << 63,), "a seed must be an int of 64 bits, got 9223372036854775808"),
        ((0.5,), "a seed must be an int of 64 bits, got 0.5"),
    ],
)
def test_seeds_that_mean_nothing_are_refused(seeds: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        evaluate(TRAIN, TRAIN, "convnet3", "tuned", ipc=1, epochs=1, seeds=seeds)
