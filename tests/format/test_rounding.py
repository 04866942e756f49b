"""Weights in four bits: rounded together, packed, read back and refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import make_generator, make_spec
from dim_data import Generator, GeneratorConfig
from dim_data.format.latents import packed_width
from dim_data.format.rounding import round_layers
from dim_data.format.weights import FOUR_BIT_TOP
from dim_data.networks.classifiers import ConvNet

LAYER = "decoder.body.1.first.weight"
WIDE = {"width": 40, "top_width": 4, "blocks": 1}


def order(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(count) % 3, 1000 + torch.arange(count) // 3


@pytest.fixture(scope="module")
def wide() -> Generator:
    """Wide enough that two of its layers have 10,000 weights."""
    return make_generator(GeneratorConfig(make_spec(3, 32), "compact", "codes", WIDE, codes=120))


@pytest.fixture(scope="module")
def trained() -> Generator:
    return Generator.from_pretrained("mnist")


def to_the_nearest(weights: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    scales = scales.reshape(-1, *(1 for _ in weights.shape[1:]))
    return (weights / scales).round().clamp(-FOUR_BIT_TOP, FOUR_BIT_TOP) * scales


def rounded(generator: Generator) -> tuple[Generator, dict[str, torch.Tensor]]:
    other = copy.deepcopy(generator)
    labels, serials = torch.arange(256) % 3, torch.arange(256)
    batches = list(zip(other.latents(labels, serials).split(8), labels.split(8), strict=True))
    return other, round_layers(other.decoder, batches)


def test_rounding_each_weight_alone_spoils_several_times_as_much(trained: Generator) -> None:
    together, scales = rounded(trained)
    alone = copy.deepcopy(trained)
    for name, s in scales.items():
        alone.decoder.load_state_dict({name: to_the_nearest(trained.decoder.state_dict()[name], s)}, strict=False)
    labels, serials = torch.arange(100) % 10, 5000 + torch.arange(100)
    pictures = trained.synthesize(labels, serials).float()
    spoilt, spoilt_alone = ((g.synthesize(labels, serials).float() - pictures).abs().mean() for g in (together, alone))
    assert spoilt < 1.5
    assert spoilt_alone > 2 * spoilt


def test_layers_are_multiples_of_their_scales_and_all_else_stays(wide: Generator) -> None:
    network, scales = rounded(wide)
    assert set(scales) == {"body.1.first.weight", "body.1.second.weight"}
    for name, tensor in wide.decoder.state_dict().items():
        found = network.decoder.state_dict()[name]
        if name in scales:
            multiples = found / scales[name].reshape(-1, 1, 1, 1)
            assert torch.allclose(multiples, multiples.round(), atol=1e-3)
            assert multiples.abs().max() < FOUR_BIT_TOP + 0.5
            assert len(multiples.round().unique()) > 10
        else:
            assert torch.equal(found, tensor)


def test_a_file_in_four_bits_is_read_back_and_saved_again_the_same(wide: Generator, tmp_path: Path) -> None:
    eight, four = (
        wide.save_pretrained(tmp_path / str(kind), dtype=kind) / "model.safetensors" for kind in (torch.int8, "int4")
    )
    state = load_file(four)
    assert (state[LAYER].dtype, list(state[LAYER].shape)) == (torch.uint8, [40, 180])
    assert (state[f"{LAYER}.scale"].dtype, list(state[f"{LAYER}.scale"].shape)) == (torch.float32, [40])
    assert state["decoder.body.0.weight"].dtype == torch.int8
    assert eight.stat().st_size - four.stat().st_size >= 2 * 40 * 180 - 64
    loaded = Generator.from_pretrained(tmp_path / "int4")
    assert next(loaded.parameters()).dtype == torch.float32
    one, other = wide.synthesize(*order(60)).float(), loaded.synthesize(*order(60)).float()
    assert (one - other).abs().mean() < 0.1 * one.std()
    loaded.save_pretrained(tmp_path / "again", dtype="int4")
    assert torch.equal(load_file(tmp_path / "again" / "model.safetensors")[LAYER], state[LAYER])


def test_a_teacher_is_rounded_too(tmp_path: Path, tiny_codes: Generator) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        teacher = ConvNet(make_spec(3, 32))
    generator = tiny_codes.forget_codes(rank=8, teacher=teacher)
    state = load_file(generator.save_pretrained(tmp_path, dtype="int4") / "model.safetensors")
    packed = {name for name in state if f"{name}.scale" in state and state[name].dtype == torch.uint8}
    assert packed == {"teacher.blocks.1.0.weight", "teacher.blocks.2.0.weight"}
    loaded = Generator.from_pretrained(tmp_path)
    said, wanted = (g.soft_labels(*order(60)) for g in (loaded, generator))
    assert (said - wanted).abs().max() < 0.05


def test_what_a_prior_is_told_takes_four_bits(tmp_path: Path, tiny_prior: Generator) -> None:
    generator = copy.deepcopy(tiny_prior)
    anchors = generator.source.prior.anchors.normal_(generator=torch.Generator().manual_seed(0))
    first = generator.save_pretrained(tmp_path / "first", dtype="int4")
    state, (groups, count, features) = load_file(first / "model.safetensors"), anchors.shape
    assert state["prior.anchors"].dtype == torch.uint8
    assert state["prior.anchors"].shape == (groups, count, (features + 1) // 2)
    assert state["prior.anchors.scale"].shape == (groups, count)
    loaded = Generator.from_pretrained(first)
    off = (loaded.source.prior.anchors - anchors).norm() / anchors.norm()
    assert 0.01 < off < 0.15  # the noise around an anchor is 0.25
    again = load_file(loaded.save_pretrained(tmp_path / "again", dtype="int4") / "model.safetensors")
    assert torch.equal(again["prior.anchors"], state["prior.anchors"])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_generator_in_half_precision_is_rounded_too(wide: Generator, tmp_path: Path, kind: torch.dtype) -> None:
    half = copy.deepcopy(wide).to(kind)
    loaded = Generator.from_pretrained(half.save_pretrained(tmp_path, dtype="int4"))
    assert next(half.parameters()).dtype == kind
    one, other = wide.synthesize(*order(60)).float(), loaded.synthesize(*order(60)).float()
    assert (one - other).abs().mean() < 0.1 * one.std()


def test_transposed_convolutions_keep_eight_bits(tmp_path: Path) -> None:
    generator = make_generator(GeneratorConfig(make_spec(3, 32), "dim", "noise", {"width": 36}))
    state = load_file(generator.save_pretrained(tmp_path, dtype="int4") / "model.safetensors")
    kinds = {tensor.ndim: set() for tensor in state.values()}  # type: dict[int, set[torch.dtype]]
    for name in (name.removesuffix(".scale") for name in state if name.endswith(".scale")):
        kinds[state[name].ndim].add(state[name].dtype)
    assert kinds[4] == {torch.int8}  # the transposed ones, and the last, which is small
    assert kinds[2] == {torch.uint8}  # the convolutions and the linear layer
    assert Generator.from_pretrained(tmp_path).synthesize(*order(3)).shape == (3, 3, 32, 32)


def test_saving_changes_neither_the_generator_nor_torch_s_random_state(wide: Generator, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    weights = copy.deepcopy(wide.state_dict())
    wide.save_pretrained(tmp_path, dtype="int4")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[name], tensor) for name, tensor in wide.state_dict().items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop(f"{LAYER}.scale"), f"no tensor '{LAYER}.scale'"),
        (
            lambda s: s.update({LAYER: s[LAYER][:, :-1].clone()}),
            r"has shape \[40, 179\], the config asks for \[40, 180\]",
        ),
        (
            lambda s: s.update({f"{LAYER}.scale": s[f"{LAYER}.scale"].to(torch.uint8)}),
            r"scale' is torch.uint8, expected",
        ),
        (lambda s: s[f"{LAYER}.scale"].fill_(torch.nan), "holds NaN or infinite weights"),
        (lambda s: s[f"{LAYER}.scale"].fill_(3e38), "scales make weights that are not finite"),
        (lambda s: s.update({LAYER: s[LAYER].to(torch.int64)}), f"'{LAYER}' is torch.int64, expected|unexpected|shape"),
    ],
)
def test_bad_weights_of_four_bits_raise(
    wide: Generator, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], sentence: str
) -> None:
    path = wide.save_pretrained(tmp_path, dtype="int4") / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    with pytest.raises(ValueError, match=sentence):
        Generator.from_pretrained(tmp_path)


@pytest.mark.parametrize("levels", [257, 1, 0])
def test_a_number_of_a_code_has_2_to_256_values(levels: int) -> None:
    assert [packed_width(384, known) for known in (2, 4, 16, 17, 256)] == [48, 96, 192, 384, 384]
    with pytest.raises(ValueError, match=f"a number of a code takes 2 to 256 values, got levels={levels}"):
        packed_width(384, levels)
