from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conftest import make_spec
from dim_data.images.augmentation import AUGMENTATIONS, augment, augment_pair, permitted

EVERY = tuple(AUGMENTATIONS)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, channels: int = 3, size: int = 32) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=rng(9)) * 0.9 + 0.1


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64)])
def test_shape_device_and_number_format_stay(name: str, channels: int, size: int, device: torch.device) -> None:
    images = pictures(8, channels, size).to(device)
    for dtype in (torch.float32, torch.bfloat16):
        out = augment(images.to(dtype), (name,), rng())
        assert (out.shape, out.dtype, out.device.type) == (images.shape, dtype, device.type)


@pytest.mark.parametrize("name", EVERY)
def test_a_draw_follows_its_rng_alone_and_differs_between_images(name: str) -> None:
    same = pictures(1).expand(64, -1, -1, -1)
    state = torch.random.get_rng_state()
    first, again, other = augment(same, (name,), rng()), augment(same, (name,), rng()), augment(same, (name,), rng(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) > 1
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", EVERY)
def test_the_input_is_not_changed(name: str) -> None:
    images = pictures()
    before = images.clone()
    augment(images, (name,), rng())
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", EVERY)
def test_the_rng_advances(name: str) -> None:
    images, stream = pictures(), rng()
    assert not torch.equal(augment(images, (name,), stream), augment(images, (name,), stream))


def test_pairs_share_their_draw() -> None:
    images, stream = pictures(), rng()
    first, second = augment_pair(images, images.clone(), EVERY, stream)
    assert torch.equal(first, second)
    advanced = rng()
    augment(images, EVERY, advanced)
    assert torch.equal(stream.get_state(), advanced.get_state())


@pytest.mark.parametrize("name", ["flip", "crop", "cutout"])
def test_pairs_of_different_pictures_move_alike(name: str) -> None:
    where = torch.arange(32 * 32.0).view(1, 1, 32, 32).expand(64, -1, -1, -1) + 1
    first, second = augment_pair(where, where + 5000, (name,), rng())
    assert torch.equal(first == 0, second == 0)
    assert torch.equal(first[first > 0] + 5000, second[second > 0])


@pytest.mark.parametrize("names", [(name,) for name in EVERY] + [EVERY])
def test_gradients_pass(names: tuple[str, ...]) -> None:
    images = pictures(6, 1, 28).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, names, rng()).mean((2, 3)), images[:2, :, ::4, ::4])
    augment(images, names, rng()).sum().backward()
    assert images.grad.abs().sum() > 0


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = pictures(1000, 1, 8)
    out = augment(images, ("flip",), rng())
    mirrored = (out == images.flip(-1)).flatten(1).all(1)
    kept = (out == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~kept)
    assert 450 < mirrored.sum() < 550


@pytest.mark.parametrize("size", [28, 32, 64])
def test_crop_shifts_by_at_most_an_eighth_and_fills_with_zeros(size: int) -> None:
    images, most = pictures(300, 1, size), size // 8
    seen = set()
    for before, after in zip(images[:, 0], augment(images, ("crop",), rng())[:, 0], strict=True):
        filled = after > 0
        rows, columns = filled.any(1).nonzero()[:, 0], filled.any(0).nonzero()[:, 0]
        (top, bottom), (left, right) = (
            (r.min().item() for r in (rows, -rows)),
            (c.min().item() for c in (columns, -columns)),
        )
        height, width = 1 - bottom - top, 1 - right - left
        down, across = top or height - size, left or width - size
        seen |= {("down", down), ("across", across)}
        source = before[max(0, -down) : size - max(0, down), max(0, -across) : size - max(0, across)]
        assert torch.equal(after[top : top + height, left : left + width], source)
    assert seen == {(axis, shift) for axis in ("down", "across") for shift in range(-most, most + 1)}


def test_cutout_sets_one_square_of_half_the_side_to_zero() -> None:
    for size in (28, 32):
        out = augment(pictures(400, 3, size), ("cutout",), rng())
        holes = (out == 0).all(1)
        assert torch.equal(holes, (out == 0).any(1))
        areas = holes.sum((1, 2))
        assert areas.max() == (size // 2) ** 2
        assert areas.min() >= (size // 4 - 1) ** 2
        assert holes.any(0).all()
        for hole in holes:
            assert hole.sum() == hole.any(0).sum() * hole.any(1).sum()


def test_color_jitters_brightness_saturation_and_contrast_in_their_ranges() -> None:
    images = pictures(2000, 3, 8)
    out = augment(images, ("color",), rng())
    shift = (out.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs()
    assert shift.max() <= 0.5 + 1e-5
    assert shift.max() > 0.45
    grey, grey_out = images.mean(1), out.mean(1)
    contrast = (grey_out - grey_out.mean((1, 2), keepdim=True)).std((1, 2)) / grey.std((1, 2))
    assert 0.5 - 1e-3 <= contrast.min() < 0.55
    assert 1.45 < contrast.max() <= 1.5 + 1e-3
    color = (out - grey_out[:, None]).std((1, 2, 3)) / (images - grey[:, None]).std((1, 2, 3)) / contrast
    assert color.min() < 0.05
    assert 1.9 < color.max() <= 2 + 1e-3


def test_names_are_applied_in_order_and_none_does_nothing() -> None:
    images, stream = pictures(), rng()
    assert augment(images, (), stream) is images
    by_hand = AUGMENTATIONS["cutout"](AUGMENTATIONS["color"](images, stream), stream)
    assert torch.equal(augment(images, ("color", "cutout"), rng()), by_hand)


def test_an_unknown_name_raises() -> None:
    with pytest.raises(ValueError, match=r"unknown augmentation 'rotate': choose from \['color', 'crop', 'cutout'"):
        augment(pictures(), ("flip", "rotate"), rng())


def test_flips_are_permitted_where_a_mirrored_image_keeps_its_class() -> None:
    spec = make_spec()
    assert permitted(("flip", "crop"), replace(spec, mirror=True)) == ("flip", "crop")
    assert permitted(("flip", "crop"), replace(spec, mirror=False)) == ("crop",)
