"""What ImageNet would take is counted and multiplied as said."""

from __future__ import annotations

import pytest

from timing.imagenet import IMAGES, LEAST, RATE, Work, hours_of, render_imagenet, work_of


@pytest.fixture(scope="module")
def work() -> Work:
    return work_of(64)


def test_arithmetic_and_bytes_are_counted(work: Work) -> None:
    # The first convolution of ConvNet-4: 128 channels of 3 x 3 x 3 inputs at 64 x 64, then three of 128 channels,
    # each after a halving; backwards twice that, but for the images' own gradient.
    first, deep = 2 * 128 * 27 * 64**2, sum(2 * 128 * 128 * 9 * size**2 for size in (32, 16, 8))
    last = 2 * 128 * 4**2 * 1000
    assert work.flops["pool"] == 2 * first + 3 * (deep + last)
    assert 0 < work.flops["encoding"] < work.flops["reconstruction"] / 3 < work.flops["matching"] / 3
    assert work.code_bytes == 16 * 16 * 6 * 2 / 8


def test_hours_are_those_of_the_assumptions(work: Work) -> None:
    one, eight, whole = hours_of(work, 1), hours_of(work, 8), hours_of(work, 1, passes=2)
    assert one["matching"] == pytest.approx(4000 * LEAST / 3600)
    assert eight["matching"] == pytest.approx(one["matching"] / 8)
    assert whole["matching"] == pytest.approx(2 * IMAGES / 32 * LEAST / 3600)
    assert one["pool"] / eight["pool"] == pytest.approx(4300 / 3000)
    slow = Work(work.config, {**work.flops, "matching": RATE}, work.code_bytes)
    assert hours_of(slow, 1)["matching"] == pytest.approx(4000 * 32 / 3600)
    assert "| 64 pixels, 8 GPUs | 0.13 M |" in render_imagenet()
