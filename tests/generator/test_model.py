from __future__ import annotations

import copy
import io
import json
import math
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import TINY, make_generator, make_spec
from dim_data.format import reading
from dim_data.format.config import GeneratorConfig
from dim_data.generator import names
from dim_data.generator.model import Generator
from dim_data.generator.names import bundled_names
from dim_data.generator.painting import CHUNK
from dim_data.generator.sources import fit_gaussian
from dim_data.networks import compute
from dim_data.networks.decoders import ARCHITECTURES, DoublingConv, parse_options

SMALL: dict[str, dict[str, int]] = {"compact": TINY, "dim": {"width": 4}}


@pytest.fixture(params=["noise", "codes", "shaped"])
def tiny(request: pytest.FixtureRequest) -> Generator:
    return request.getfixturevalue(f"tiny_{request.param}")


def order(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(count) % 3, torch.arange(count) // 3


def test_float32_round_trip_is_bit_equal(tiny: Generator, tmp_path: Path, device: torch.device) -> None:
    folder = tiny.save_pretrained(tmp_path / "new" / "deep", dtype=torch.float32)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    loaded = Generator.from_pretrained(folder)
    assert loaded.config == tiny.config
    assert loaded.state_dict().keys() == tiny.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), tiny.state_dict().values(), strict=True))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.revision is None
    here, there = tiny.synthesize(*order(20)), loaded.synthesize(*order(20))
    assert torch.equal(here, there)
    on_device = Generator.from_pretrained(str(folder), device=device)
    assert on_device.synthesize(*order(5)).device.type == device.type


def test_saved_weights_are_float16_by_default(tiny: Generator, tmp_path: Path) -> None:
    state = load_file(tiny.save_pretrained(tmp_path) / "model.safetensors")
    kinds = {name: t.dtype for name, t in state.items()}
    codes, counts = kinds.pop("codes", torch.uint8), kinds.pop("counts", torch.int64)
    assert (codes, counts) == (torch.uint8, torch.int64)
    assert set(kinds.values()) == {torch.float16}
    once = Generator.from_pretrained(tmp_path)
    assert next(once.parameters()).dtype == torch.float32
    again = Generator.from_pretrained(once.save_pretrained(tmp_path / "again"))
    assert torch.equal(once.synthesize(*order(9)), again.synthesize(*order(9)))


def test_weights_of_eight_bits_are_half_the_size_and_paint_nearly_the_same(tiny: Generator, tmp_path: Path) -> None:
    folders = {kind: tiny.save_pretrained(tmp_path / str(kind), dtype=kind) for kind in (torch.float16, torch.int8)}
    states = {kind: load_file(folder / "model.safetensors") for kind, folder in folders.items()}
    for name, whole in states[torch.float16].items():
        small = states[torch.int8][name]
        assert small.shape == whole.shape
        assert small.dtype == (torch.int8 if whole.is_floating_point() and whole.ndim > 1 else whole.dtype)
    assert set(states[torch.int8]) - set(states[torch.float16]) == {
        f"{name}.scale" for name, t in states[torch.int8].items() if t.dtype == torch.int8
    }
    one, other = (Generator.from_pretrained(folder).synthesize(*order(60)).float() for folder in folders.values())
    assert (one - other).abs().mean() < 0.02 * one.std()
    loaded = Generator.from_pretrained(folders[torch.int8])
    assert next(loaded.parameters()).dtype == torch.float32
    again = Generator.from_pretrained(loaded.save_pretrained(tmp_path / "again", dtype=torch.int8))
    assert torch.equal(again.synthesize(*order(60)), loaded.synthesize(*order(60)))


@pytest.mark.parametrize("dtype", [torch.int32, "int32"])
def test_an_unknown_number_format_raises_and_writes_nothing(tiny: Generator, tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(
        ValueError, match=r"dtype must be torch.float16, bfloat16, int8, float32, 'int4' or None, got .*int32"
    ):
        tiny.save_pretrained(tmp_path / "new", dtype=dtype)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s, n: s.pop(f"{n}.scale"), r"no tensor 'decoder.body.0.weight.scale'"),
        (
            lambda s, n: s.update({f"{n}.scale": s[f"{n}.scale"][:-1].clone()}),
            r"scale' has shape \[7\].* asks for \[8\]",
        ),
        (lambda s, n: s.update({f"{n}.scale": s[f"{n}.scale"].to(torch.int8)}), r"scale' is torch.int8, expected"),
        (lambda s, n: s[f"{n}.scale"].fill_(math.inf), "holds NaN or infinite weights"),
        (lambda s, n: s.update({n: s[n].float()}), r"unexpected tensor 'decoder.body.0.weight.scale'"),
    ],
)
def test_bad_weights_of_eight_bits_raise(tiny_codes: Generator, tmp_path: Path, change: Any, sentence: str) -> None:
    path = tiny_codes.save_pretrained(tmp_path, dtype=torch.int8) / "model.safetensors"
    state = load_file(path)
    change(state, "decoder.body.0.weight")
    save_file(state, path)
    with pytest.raises(ValueError, match=sentence):
        Generator.from_pretrained(tmp_path)


def test_synthesize_makes_distinct_uint8_pictures(tiny: Generator, device: torch.device) -> None:
    images = copy.deepcopy(tiny).to(device).synthesize(*order(60))
    spec = tiny.spec
    assert images.shape == (60, spec.channels, spec.size, spec.size)
    assert images.dtype == torch.uint8
    assert len(images.flatten(1).unique(dim=0)) == 60
    assert not images.is_inference()


def test_a_picture_does_not_depend_on_its_batch(tiny: Generator, device: torch.device) -> None:
    generator = copy.deepcopy(tiny).to(device)
    labels, serials = order(3 * CHUNK["cpu"] + 5)
    whole = generator.synthesize(labels, serials, seed=4)
    for size in (1, 7, CHUNK["cpu"], CHUNK["cpu"] + 1):
        parts = [generator.synthesize(y, s, 4) for y, s in zip(labels.split(size), serials.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), whole)
    shuffled = torch.randperm(len(labels))
    assert torch.equal(generator.synthesize(labels[shuffled], serials[shuffled], 4), whole[shuffled])
    assert generator.synthesize(labels[:0], serials[:0]).shape == (0, *whole.shape[1:])


def test_a_picture_does_not_depend_on_the_number_of_threads(tiny: Generator) -> None:
    before = torch.get_num_threads()
    try:
        pictures = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            pictures.append(tiny.synthesize(*order(20)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])


@pytest.mark.parametrize("name", ["cifar10", "cifar10_noise"])
def test_a_picture_of_a_wide_decoder_does_not_depend_on_the_number_of_threads(name: str) -> None:
    """Kernels sum in another order for some numbers of threads, such as three."""
    generator, labels = Generator.from_pretrained(name), torch.arange(64) % 10
    latents, before = generator.latents(labels, torch.arange(64)), torch.get_num_threads()
    try:
        found = [torch.set_num_threads(threads) or generator.paint(latents, labels) for threads in (1, 3, 5)]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("native", [True, False])
def test_other_number_formats_paint_what_their_weights_say(
    tiny: Generator, tiny_prior: Generator, kind: torch.dtype, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "_cpu_has_bfloat16", lambda: native)
    for generator in (tiny, tiny_prior):
        other = copy.deepcopy(generator).to(kind)
        assert torch.equal(other.synthesize(*order(6)), copy.deepcopy(other).float().synthesize(*order(6)))


def test_a_copy_in_float32_is_in_eval_mode_too() -> None:
    generator = make_generator(GeneratorConfig(make_spec(), "dim", "noise", {"width": 4, "latent_dim": 8})).half()
    wanted = generator.synthesize(*order(6))
    assert torch.equal(generator.train().synthesize(*order(6)), wanted)


def test_synthesize_ignores_and_keeps_the_training_flag() -> None:
    generator = make_generator(GeneratorConfig(make_spec(), "dim", "noise", {"width": 4, "latent_dim": 8}))
    wanted = generator.synthesize(*order(6))
    state = copy.deepcopy(generator.state_dict())
    generator.train().requires_grad_()
    assert torch.equal(generator.synthesize(*order(6)), wanted)
    assert all(module.training for module in generator.modules())
    generator.decoder.eval()
    generator.synthesize(*order(6))
    assert generator.training
    assert not any(module.training for module in generator.decoder.modules())
    assert all(torch.equal(a, b) for a, b in zip(generator.state_dict().values(), state.values(), strict=True))


def test_seeds_give_other_pictures(tiny_noise: Generator) -> None:
    assert not torch.equal(tiny_noise.synthesize(*order(3)), tiny_noise.synthesize(*order(3), seed=1))


def test_labels_out_of_range_raise(tiny: Generator) -> None:
    for label in (3, -1):
        with pytest.raises(IndexError, match=r"labels must lie in \[0, 3\)"):
            tiny.synthesize(torch.tensor([0, label]), torch.tensor([0, 0]))


def test_sample_is_trainable_and_follows_its_rng(tiny: Generator) -> None:
    generator = copy.deepcopy(tiny).requires_grad_()
    labels = torch.arange(6) % 3
    first, again = (generator.sample(labels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    first.sum().backward()
    assert all(p.grad is not None for p in generator.parameters())


def test_pickle_and_deepcopy_keep_every_picture(tiny: Generator) -> None:
    wanted = tiny.synthesize(*order(4))
    for other in (pickle.loads(pickle.dumps(tiny)), copy.deepcopy(tiny)):
        assert torch.equal(other.synthesize(*order(4)), wanted)
    buffer = io.BytesIO()
    torch.save(tiny, buffer)
    assert buffer.tell() > 0


# Codes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 3, 4, 5, 16, 17, 256])
@pytest.mark.parametrize("size", [28, 32])
def test_packed_codes_come_back_within_half_a_level(levels: int, size: int) -> None:
    options = {**TINY, "code_levels": levels, "code_channels": 3}
    generator = Generator(GeneratorConfig(make_spec(1, size), "compact", "codes", options, codes=3))
    latents = torch.rand(5, *generator.decoder.latent_shape) * 2 - 1
    packed = generator.bank.pack(latents)
    assert packed.dtype == torch.uint8
    assert packed.shape[1] == generator.bank.codes.shape[1]
    back = generator.bank.unpack(packed)
    assert back.shape == latents.shape
    assert (back - latents).abs().max() <= 1 / (levels - 1) + 1e-6
    assert torch.equal(generator.bank.pack(back), packed)


def test_one_round_shows_every_stored_picture_once(tiny_codes: Generator) -> None:
    every = tiny_codes.decode(torch.arange(120), batch_size=50)
    assert every.shape == (120, 3, 32, 32)
    for label in range(3):
        labels = torch.full((40,), label)
        for turn in range(2):
            drawn = tiny_codes.synthesize(labels, torch.arange(40) + 40 * turn)
            expected = every[40 * label : 40 * label + 40].flatten(1).unique(dim=0)
            assert torch.equal(drawn.flatten(1).unique(dim=0), expected)


def test_store_sorts_by_class_and_wants_every_class(tiny_codes: Generator) -> None:
    latents = torch.rand(4, *tiny_codes.decoder.latent_shape) * 2 - 1
    stored = tiny_codes.store(latents, torch.tensor([2, 0, 1, 0]))
    assert stored.bank.counts.tolist() == [2, 1, 1]
    assert torch.equal(stored.bank.codes, tiny_codes.bank.pack(latents)[[1, 3, 2, 0]])
    for labels in ([0, 0, 1, 1], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match="codes need at least one image of each of the 3 classes"):
            tiny_codes.store(latents, torch.tensor(labels))


def test_some_codes_are_kept_of_every_class_its_share(tiny_codes: Generator) -> None:
    uneven = tiny_codes.store(torch.rand(100, *tiny_codes.decoder.latent_shape) * 2 - 1, torch.arange(100) // 49)
    assert uneven.bank.counts.tolist() == [49, 49, 2]
    kept = uneven.keep_codes(30)
    assert kept.bank.counts.tolist() == [14, 14, 1]
    assert kept.config == replace(uneven.config, codes=29)
    assert not kept.training
    assert not any(p.requires_grad for p in kept.parameters())
    banks = zip(kept.bank.codes.split([14, 14, 1]), uneven.bank.codes.split([49, 49, 2]), strict=True)
    for some, every in banks:
        found = (some[:, None] == every).all(2)
        assert (found.sum(1) == 1).all()
        assert found.sum() == len(some)
    for label in range(3):  # the pictures are those that the whole bank would show first under that seed
        labels, serials = torch.full((kept.bank.counts[label],), label), torch.arange(int(kept.bank.counts[label]))
        assert torch.equal(kept.decode(torch.arange(29))[kept_rows(kept, label)], uneven.synthesize(labels, serials))
    assert not torch.equal(uneven.keep_codes(30, seed=1).bank.codes, kept.bank.codes)
    assert torch.equal(uneven.keep_codes(30).bank.codes, kept.bank.codes)
    assert uneven.keep_codes(100).bank.codes.shape == uneven.bank.codes.shape
    assert uneven.keep_codes(3).bank.counts.tolist() == [1, 1, 1]


def test_no_more_codes_are_kept_than_asked_for(tiny_codes: Generator) -> None:
    labels = torch.cat([torch.zeros(96, dtype=torch.int64), torch.tensor([1, 1, 2, 2])])
    uneven = tiny_codes.store(torch.rand(100, *tiny_codes.decoder.latent_shape) * 2 - 1, labels)
    for count, kept in ((3, [1, 1, 1]), (10, [8, 1, 1]), (30, [28, 1, 1]), (99, [95, 1, 1]), (100, [96, 2, 2])):
        assert uneven.keep_codes(count).bank.counts.tolist() == kept


def kept_rows(generator: Generator, label: int) -> torch.Tensor:
    """Places of a class in the bank."""
    ends = generator.bank.counts.cumsum(0)
    return torch.arange(int(ends[label] - generator.bank.counts[label]), int(ends[label]))


def test_codes_that_are_not_there_cannot_be_kept(tiny_codes: Generator, tiny_noise: Generator) -> None:
    for count in (2, 121, 0, -1):
        with pytest.raises(ValueError, match=rf"count must be in \[3, 120\], got {count}"):
            tiny_codes.keep_codes(count)
    with pytest.raises(ValueError, match="only a generator with stored codes has a bank of them"):
        tiny_noise.keep_codes(10)


def test_fewer_codes_are_fewer_bytes(tiny_codes: Generator, tmp_path: Path) -> None:
    whole, part = (
        tiny_codes.save_pretrained(tmp_path / "whole"),
        tiny_codes.keep_codes(60).save_pretrained(tmp_path / "part"),
    )
    saved = (whole / "model.safetensors").stat().st_size - (part / "model.safetensors").stat().st_size
    assert abs(saved - 60 * tiny_codes.bank.codes.shape[1]) < 64
    assert Generator.from_pretrained(part).config.codes == 60


def test_forgotten_codes_leave_their_mean_and_covariance(tiny_codes: Generator) -> None:
    generator = tiny_codes.forget_codes(rank=10_000)
    size = math.prod(tiny_codes.decoder.latent_shape)
    assert generator.config == replace(tiny_codes.config, source="noise", codes=0, rank=size)
    codes = tiny_codes.bank.unpack(tiny_codes.bank.codes).flatten(1).split(tiny_codes.bank.counts.tolist())
    for label, latents in enumerate(codes):
        torch.testing.assert_close(generator.source.means[label], latents.mean(0))
        covariance = (
            generator.source.factors[label] @ generator.source.factors[label].T
            + generator.source.scales[label].square().diag()
        )
        torch.testing.assert_close(covariance, torch.cov(latents.T, correction=0), atol=1e-4, rtol=1e-3)


def test_a_low_rank_keeps_every_variance_and_the_largest_directions(tiny_codes: Generator) -> None:
    generator = tiny_codes.forget_codes(rank=4)
    assert generator.source.factors.shape[2] == 4
    for label, codes in enumerate(tiny_codes.bank.codes.split(tiny_codes.bank.counts.tolist())):
        covariance = torch.cov(tiny_codes.bank.unpack(codes).flatten(1).T, correction=0)
        kept = generator.source.factors[label].square().sum(1) + generator.source.scales[label].square()
        torch.testing.assert_close(kept, covariance.diagonal(), atol=1e-4, rtol=1e-3)
        largest = torch.linalg.eigvalsh(covariance)[-4:]
        torch.testing.assert_close(generator.source.factors[label].square().sum(0), largest, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize(("count", "rank"), [(1, 3), (5, 3), (5, 12), (11, 12), (12, 5), (30, 12)])
def test_a_gaussian_of_few_codes_is_that_of_their_covariance(
    count: int, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, found = torch.rand(count, 12, generator=torch.Generator().manual_seed(0)), []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: found.append(1) or eigh(matrix))
    mean, factor, scale = fit_gaussian(latents, rank)
    assert bool(found) == (count >= 12)  # of few codes it would take longer than all else
    assert torch.equal(mean, latents.double().mean(0))
    centred = latents.double() - mean
    covariance = centred.T @ centred / count
    variances, directions = eigh(covariance)
    wanted = directions[:, -rank:] * variances[-rank:].clamp(min=0).sqrt()
    if count >= 12:
        assert torch.equal(factor, wanted)
    # Each direction may point either way.
    assert factor.shape == wanted.shape
    torch.testing.assert_close(factor @ factor.T, wanted @ wanted.T, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(factor.square().sum(0), wanted.square().sum(0), atol=1e-12, rtol=1e-9)
    total = factor.square().sum(1) + scale.square()
    torch.testing.assert_close(total, covariance.diagonal(), atol=1e-12, rtol=1e-9)


def test_shaped_noise_has_the_distribution_it_was_given(tiny_shaped: Generator) -> None:
    narrow = copy.deepcopy(tiny_shaped)
    for part in (narrow.source.means, narrow.source.factors, narrow.source.scales):
        part.mul_(0.1)  # far from the ends at -1 and 1
    labels = torch.full((20_000,), 1)
    latents = narrow.latents(labels, torch.arange(20_000)).flatten(1)
    assert (latents.mean(0) - narrow.source.means[1]).abs().max() < 0.005
    covariance = narrow.source.factors[1] @ narrow.source.factors[1].T + narrow.source.scales[1].square().diag()
    assert (torch.cov(latents.T) - covariance).abs().max() < 0.001
    assert tiny_shaped.latents(labels[:500], torch.arange(500)).abs().max() <= 1


def test_there_must_be_codes_to_forget(tiny_shaped: Generator, tiny_codes: Generator) -> None:
    with pytest.raises(ValueError, match="there are no codes to forget: this generator is driven by noise already"):
        tiny_shaped.forget_codes()
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        tiny_codes.forget_codes(0)


def test_a_single_code_is_remembered_by_its_mean(tiny_codes: Generator) -> None:
    latents = torch.rand(3, *tiny_codes.decoder.latent_shape) * 2 - 1
    stored = tiny_codes.store(latents, torch.arange(3))
    drawn = stored.forget_codes().latents(torch.arange(3), torch.arange(3))
    torch.testing.assert_close(drawn, stored.bank.unpack(stored.bank.codes), atol=1e-5, rtol=0)


def test_noise_cannot_be_decoded_whole(tiny_noise: Generator) -> None:
    with pytest.raises(ValueError, match="only a generator with stored codes has a bank of them"):
        tiny_noise.decode(torch.arange(2))


# Architectures ---------------------------------------------------------------------------------------


def test_a_doubling_convolution_convolves_the_doubled_image(device: torch.device) -> None:
    layer = DoublingConv(5, 7, 3, padding=1, device=device, dtype=torch.float64)
    x = torch.randn(2, 5, 6, 9, device=device, dtype=torch.float64, requires_grad=True)
    doubled = torch.nn.functional.interpolate(x, scale_factor=2)
    wanted = torch.nn.functional.conv2d(doubled, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), wanted)
    inputs = (x, layer.weight, layer.bias)
    found = torch.autograd.grad(layer(x).square().sum(), inputs)
    for one, other in zip(found, torch.autograd.grad(wanted.square().sum(), inputs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 10), (3, 99)])
@pytest.mark.parametrize("size", [28, 32, 64, 96, 128])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_reaches_every_size(
    name: str, size: int, channels: int, classes: int, tmp_path: Path
) -> None:
    spec = make_spec(channels, size, classes)
    for source in ARCHITECTURES[name].decoder.sources:
        codes = classes if source == "codes" else 0
        config = GeneratorConfig(spec, name, source, SMALL[name], codes=codes)
        if (name, size) == ("dim", 96):
            with pytest.raises(ValueError, match="architecture 'dim' cannot reach 96 pixels from 4 by doubling"):
                Generator(config)
            continue
        generator = make_generator(config)
        images = generator.synthesize(torch.tensor([0, classes - 1]), torch.tensor([0, 5]))
        assert images.shape == (2, channels, size, size)
        loaded = Generator.from_pretrained(generator.save_pretrained(tmp_path / source, dtype=torch.float32))
        assert loaded.config == config
        assert torch.equal(loaded.synthesize(torch.tensor([0, classes - 1]), torch.tensor([0, 5])), images)


def test_the_papers_generator_has_its_size() -> None:
    with torch.device("meta"):
        generator = Generator(GeneratorConfig(make_spec(3, 32, 10), "dim"))
    assert round(sum(p.numel() for p in generator.parameters()) / 1e6, 2) == 3.56


@pytest.mark.parametrize("size", [30, 33, 127])
def test_odd_sizes_raise(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} pixels cannot be reached by doubling: choose a multiple of 4"):
        Generator(GeneratorConfig(make_spec(3, size), "compact"))


@pytest.mark.parametrize("classes", [100, 101])
def test_dim_needs_more_latents_than_its_label_takes(classes: int) -> None:
    config = GeneratorConfig(make_spec(3, 32, classes), "dim")
    sentence = f"latent_dim must be more than {classes}, the number of classes, or each has but one picture; got 100"
    with pytest.raises(ValueError, match=sentence):
        Generator(config)


@pytest.mark.parametrize(
    ("architecture", "options", "error", "sentence"),
    [
        ("gan", {}, ValueError, r"unknown architecture 'gan': choose from \['compact', 'dim'\]"),
        (3, {}, ValueError, "unknown architecture 3"),
        ("dim", {"depth": 3}, ValueError, r"architecture 'dim' has no option 'depth': choose from \['latent_dim'"),
        ("compact", {"width": "9"}, TypeError, "option 'width' of architecture 'compact' must be an int, got '9'"),
        ("compact", {"width": True}, TypeError, "option 'width' .* must be an int, got True"),
        ("compact", {"width": 10**9}, ValueError, "option 'width' .* must be 8 to 1024, got 1000000000"),
        ("compact", {"blocks": 0}, ValueError, "option 'blocks' .* must be 1 to 16, got 0"),
    ],
)
def test_bad_options_raise(architecture: Any, options: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        parse_options(architecture, options)


# Configs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"spec": "cifar10"}, TypeError, "GeneratorConfig.spec must be an ImageSpec, got str"),
        ({"options": [1]}, TypeError, "GeneratorConfig.options must be a mapping"),
        ({"source": "dream"}, ValueError, "takes its latents from noise or codes, not 'dream'"),
        ({"architecture": "dim", "source": "codes"}, ValueError, "'dim' takes its latents from noise, not 'codes'"),
        ({"codes": 1.5}, TypeError, "GeneratorConfig.codes must be an int, got 1.5"),
        ({"codes": 5}, ValueError, "a noise generator stores 0 to 0 codes, got codes=5"),
        ({"source": "codes"}, ValueError, "a codes generator stores 3 to 20000000 codes, got codes=0"),
        ({"source": "codes", "codes": 10**12}, ValueError, "stores 3 to 20000000 codes, got codes=1000000000000"),
        ({"sigma": 0}, ValueError, r"GeneratorConfig.sigma must be in \(0, 10\], got 0"),
        ({"sigma": float("nan")}, ValueError, "GeneratorConfig.sigma must be in"),
        ({"sigma": "1"}, ValueError, "GeneratorConfig.sigma must be in"),
        ({"rank": -1}, ValueError, "GeneratorConfig.rank must be an int of 0 to 1024, got -1"),
        ({"rank": 2.0}, ValueError, "GeneratorConfig.rank must be an int of 0 to 1024, got 2.0"),
        ({"rank": 10**9}, ValueError, "GeneratorConfig.rank must be an int of 0 to 1024, got 1000000000"),
        ({"rank": 4, "architecture": "dim"}, ValueError, "rank=4 shapes noise into codes; 'dim' driven by noise takes"),
        ({"rank": 4, "source": "codes", "codes": 3}, ValueError, "'compact' driven by codes takes rank=0"),
    ],
)
def test_bad_configs_raise(change: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        GeneratorConfig(**{"spec": make_spec(), **change})


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.update(extra=1), "a generator config has the keys .* got .*'extra'"),
        (lambda c: c.pop("sigma"), "a generator config has the keys .*'sigma'"),
        (lambda c: c.update(format=2), "config format 2 of 'dim_data'; .* pip install --upgrade dim-data"),
        (lambda c: c.update(library="other"), "config format 1 of 'other'"),
        (lambda c: c.update(architecture="gan"), "unknown architecture 'gan'"),
        (lambda c: c["options"].update(depth=2), "has no option 'depth'"),
        (lambda c: c["options"].update(width=10**9), "must be 8 to 1024, got 1000000000"),
        (lambda c: c["options"].update(width="wide"), "option 'width' .* must be an int, got 'wide'"),
        (lambda c: c.update(options=[]), "GeneratorConfig.options must be a mapping"),
        (lambda c: c.update(spec=None), "an image spec has the keys"),
        (lambda c: c["spec"].update(extra=1), "an image spec has the keys"),
        (lambda c: c["spec"].update(size=10**6), "ImageSpec.size must be 28 to 128 pixels, got 1000000"),
        (lambda c: c["spec"].update(size=30), "30 pixels cannot be reached by doubling"),
        (lambda c: c["spec"].update(size="32"), "ImageSpec.size must be an int, got '32'"),
        (lambda c: c["spec"].update(channels=2), r"ImageSpec.channels must be 1 \(grey\) or 3 \(RGB\), got 2"),
        (lambda c: c["spec"].update(classes=["a"]), "ImageSpec.classes must name 2 to 10000 classes, got 1"),
        (lambda c: c["spec"].update(classes=[1, 2, 3]), "ImageSpec.classes must be a tuple of strings"),
        (lambda c: c["spec"].update(std=[0.1]), "ImageSpec.std must hold 3 numbers"),
        (lambda c: c["spec"].update(std=[0, 0, 0]), "ImageSpec.std must be positive"),
        (lambda c: c["spec"].update(mean=[2, 0, 0]), r"ImageSpec.mean must lie in \[0, 1\]"),
        (lambda c: c["spec"].update(name=""), "ImageSpec.name must be a string"),
    ],
)
def test_bad_config_files_raise(codes_folder: Path, change: Any, sentence: str) -> None:
    edit(codes_folder / "config.json", change)
    with pytest.raises(ValueError, match=sentence):
        Generator.from_pretrained(codes_folder)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_config_that_is_not_json_raises(codes_folder: Path, text: bytes) -> None:
    (codes_folder / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        Generator.from_pretrained(codes_folder)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "{}"])
def test_json_that_is_no_config_raises(codes_folder: Path, text: str) -> None:
    (codes_folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="a generator config has the keys"):
        Generator.from_pretrained(codes_folder)


def test_a_huge_config_is_not_read(codes_folder: Path) -> None:
    (codes_folder / "config.json").write_text(" " * 4_000_001)
    with pytest.raises(ValueError, match="is over 4 MB: not a generator config"):
        Generator.from_pretrained(codes_folder)


# Weights ---------------------------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


BIAS = "decoder.body.0.bias"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop(BIAS), f"does not fit its config: no tensor '{BIAS}'"),
        (lambda s: s.update(extra=torch.zeros(1)), "does not fit its config: unexpected tensor 'extra'"),
        (lambda s: s.update({BIAS: torch.zeros(9)}), rf"tensor '{BIAS}' has shape \[9\], the config asks for \[8\]"),
        (lambda s: s.update({BIAS: torch.zeros(8, dtype=torch.int64)}), f"tensor '{BIAS}' is torch.int64, expected"),
        (lambda s: s.update(codes=s["codes"].float()), "tensor 'codes' is torch.float32, expected torch.uint8"),
        (lambda s: s.update({BIAS: torch.full((8,), float("nan"))}), "holds NaN or infinite weights"),
        (lambda s: s.update({BIAS: torch.full((8,), float("inf"))}), "holds NaN or infinite weights"),
        (lambda s: s["counts"].add_(1), "'counts' must be positive and sum to 120, the number of codes"),
        (lambda s: s["counts"].copy_(torch.tensor([0, 60, 60])), "'counts' must be positive and sum to 120"),
    ],
)
def test_bad_weights_raise(codes_folder: Path, change: Any, sentence: str) -> None:
    rewrite(codes_folder, change)
    with pytest.raises(ValueError, match=sentence):
        Generator.from_pretrained(codes_folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -100])
def test_truncated_weights_raise(codes_folder: Path, keep: int) -> None:
    path = codes_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"is not a readable safetensors file \(truncated\?\)"):
        Generator.from_pretrained(codes_folder)


def test_a_config_larger_than_its_weights_is_never_built(codes_folder: Path) -> None:
    edit(codes_folder / "config.json", lambda c: c.update(codes=20_000_000))
    with pytest.raises(ValueError, match=r"tensor 'codes' has shape \[120, 96\], the config asks for \[20000000"):
        Generator.from_pretrained(codes_folder)


def test_too_many_parameters_raise(codes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PARAMETERS", 100)
    with pytest.raises(ValueError, match=r"config.json asks for \d+ parameters; the limit is 100"):
        Generator.from_pretrained(codes_folder)


# Sources ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "sentence"), [("config.json", "config.json"), ("model.safetensors", "model")])
def test_a_folder_without_its_files_raises(codes_folder: Path, lost: str, sentence: str) -> None:
    (codes_folder / lost).unlink()
    with pytest.raises(FileNotFoundError, match=f"folder .* has no {sentence}.*a source is a folder with config.json"):
        Generator.from_pretrained(codes_folder)


def test_an_unknown_source_raises(tmp_path: Path) -> None:
    for source in ("nonsense", tmp_path / "nowhere", "", "a/b/c"):
        if str(source) in ("", "."):
            continue
        sentence = f"unknown source {str(source)!r}: a source is a folder .*, a bundled name .* or a Hub id like"
        with pytest.raises(FileNotFoundError, match=sentence):
            Generator.from_pretrained(source)
    with pytest.raises(TypeError, match=r"a source is a folder .*; got int"):
        Generator.from_pretrained(3)  # type: ignore[arg-type]


def test_a_folder_comes_before_a_bundled_name(
    codes_folder: Path, noise_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, work = tmp_path / "bundle", tmp_path / "work"
    shutil.copytree(noise_folder, bundle / "pets")
    work.mkdir()
    monkeypatch.setattr(names, "BUNDLED", bundle)
    monkeypatch.chdir(work)
    assert bundled_names() == ["pets"]
    assert Generator.from_pretrained("pets").config.source == "noise"
    shutil.copytree(codes_folder, work / "pets")
    assert Generator.from_pretrained("pets").config.source == "codes"


def test_a_missing_gpu_raises(codes_folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="torch finds no GPU here; pass device='cpu'"):
        Generator.from_pretrained(codes_folder, device="cuda")


def test_repr_names_what_it_holds(tiny_codes: Generator) -> None:
    assert re.search(r"'tiny', architecture='compact', latents='codes, 120 stored'", repr(tiny_codes))
    assert tiny_codes.nbytes > 120 * 96


def test_tensors_keep_their_order(tiny_codes: Generator, tiny_shaped: Generator) -> None:
    """Evaluations under way know a generator by it."""
    assert list(tiny_codes.state_dict())[:3] == ["source.codes", "source.counts", "decoder.body.0.weight"]
    assert list(tiny_shaped.state_dict())[:3] == ["source.means", "source.factors", "source.scales"]


def test_loading_leaves_torchs_random_state_alone(codes_folder: Path) -> None:
    before = torch.random.get_rng_state()
    Generator.from_pretrained(codes_folder)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_narrow_numbers_give_the_same_pictures(
    dtype: torch.dtype, tiny_codes: Generator, tiny_noise: Generator
) -> None:
    labels, serials = order(6)
    for generator in (tiny_codes, tiny_noise):
        wanted = generator.synthesize(labels, serials)
        assert torch.equal(generator.synthesize(labels.to(dtype), serials.to(dtype)), wanted)
        assert torch.equal(generator.latents(labels.to(dtype), serials.to(dtype)), generator.latents(labels, serials))
    assert torch.equal(tiny_codes.rows(labels.to(dtype), serials.to(dtype)), tiny_codes.rows(labels, serials))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_labels_that_are_no_whole_numbers_are_refused(dtype: torch.dtype, tiny_codes: Generator) -> None:
    labels, serials = order(6)
    with pytest.raises(TypeError, match=rf"labels must be whole numbers, as int64, got {dtype}"):
        tiny_codes.synthesize(labels.to(dtype), serials)
    with pytest.raises(TypeError, match=rf"serials must be whole numbers, as int64, got {dtype}"):
        tiny_codes.latents(labels, serials.to(dtype))


def test_rows_past_the_bank_are_refused(tiny_codes: Generator) -> None:
    count = len(tiny_codes.bank)
    with pytest.raises(IndexError, match=rf"rows must lie in \[0, {count}\), got -1 to {count - 1}"):
        tiny_codes.keep_rows(torch.tensor([*range(count), -1]))


def test_labels_past_the_classes_are_named(tiny_codes: Generator) -> None:
    with pytest.raises(IndexError, match=r"labels must lie in \[0, 3\), got -1 to 2"):
        tiny_codes.synthesize(torch.tensor([-1, 2]), torch.zeros(2, dtype=torch.int64))
