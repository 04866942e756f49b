"""Pictures of every size: refused by name, or resized and cropped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from conftest import make_data, make_spec
from dim_data.images import load_real
from dim_data.images.framing import say_sizes


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours and some noise."""
    rng, rows, columns = np.random.default_rng(width), *np.mgrid[0:height, 0:width]
    pixels = np.stack([columns * 255 / width, rows * 255 / height, (rows + columns) % 256], -1)
    return Image.fromarray((pixels + rng.normal(0, 5, pixels.shape)).clip(0, 255).astype(np.uint8)).convert(mode)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    sizes = {"ant": [(90, 60), (61, 200)], "bee": [(33, 33), (64, 64), (20, 50)]}
    for name, members in sizes.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index, (width, height) in enumerate(members):
            photo(width, height).save(tmp_path / "photos" / name / f"{index}.png")
    return tmp_path / "photos"


def test_photos_are_cut_as_torchvision_cuts_them(photos: Path) -> None:
    read = load_real(photos, size=32)
    cut = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32), transforms.PILToTensor()])
    files = sorted(photos.glob("*/*.png"))
    assert torch.equal(read.images, torch.stack([cut(Image.open(file)) for file in files]))
    assert read.labels.tolist() == [0, 0, 1, 1, 1]
    assert read.spec.size == 32
    items = [(Image.open(file), file.parent.name) for file in files]
    assert torch.equal(load_real(items, size=32).images, read.images)
    assert load_real(items, size=32).spec.classes == ("ant", "bee")


def test_a_picture_of_the_size_is_left_alone() -> None:
    data = make_data(3, 32)
    assert torch.equal(load_real((data.images, data.labels), size=32).images, data.images)
    small = load_real((data.images, data.labels), size=28).images
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in data.images]
    wanted = torch.stack([transforms.PILToTensor()(transforms.Resize(28)(picture)) for picture in pictures])
    assert torch.equal(small, wanted)
    grey = load_real((data.images[:, :1], data.labels), size=28).images
    assert grey.shape == (60, 1, 28, 28)


def test_a_jpeg_is_decoded_small_and_looks_the_same(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        photo(640, 480).save(tmp_path / name / "0.jpg", quality=95)
    read = load_real(tmp_path, size=64)
    cut = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(64), transforms.PILToTensor()])
    exact = cut(Image.open(tmp_path / "ant" / "0.jpg"))
    assert (read.images[0].float() - exact.float()).abs().mean() < 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {},
            r"ant/0.png: 90x60 pixels, but images must be square; size=60 \(--size 60\) resizes and crops every image",
        ),
        ({"sizes": (28, 32, 36, 40, 44)}, r"ant/0.png: 90x60 pixels, but images must be square; size=44 "),
        ({"size": 50, "sizes": (28, 32, 48)}, "size=50 cannot be used: it must be one of 28, 32, 48 pixels"),
        ({"size": 20}, "size=20 cannot be used: it must be one of 28 to 128 pixels"),
        ({"size": 64, "spec": make_spec(3, 32)}, "size=64 cannot be used: tiny images have 32 pixels"),
        ({"spec": make_spec(3, 32)}, r"ant/0.png: 90x60 pixels, but tiny images are 32x32; size=32 "),
        ({"spec": make_spec(3, 32), "sizes": (48, 64)}, "tiny: 32x32 pixels, but images must have 48, 64 pixels"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict, sentence: str, photos: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_real(photos, **options)


def test_a_size_that_no_decoder_reaches_is_named(photos: Path) -> None:
    for file in photos.glob("*/*.png"):
        photo(50, 50).save(file)
    assert load_real(photos).spec.size == 50
    with pytest.raises(
        ValueError, match=r"0.png: 50x50 pixels, but images must have 28, 32, 36 ... 128 pixels; size=48"
    ):
        load_real(photos, sizes=range(28, 129, 4))
    data = load_real(photos)
    with pytest.raises(ValueError, match=r"photos: 50x50 pixels, but images must have 28, 32"):
        load_real(data, sizes=range(28, 129, 4))
    with pytest.raises(ValueError, match=r"these images were read at 50 pixels: give size=64 to load_real\(\)"):
        load_real(data, size=64)


def test_sizes_are_said_briefly() -> None:
    assert say_sizes(range(28, 129)) == "28 to 128"
    assert say_sizes(range(28, 129, 4)) == "28, 32, 36 ... 128"
    assert say_sizes([64, 28, 29, 30]) == "28 to 30, 64"
    assert say_sizes([32]) == "32"


def test_the_first_wrong_header_ends_it_before_anything_is_decoded(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, file in enumerate(sorted(photos.glob("*/*.png"))):
        photo(32 + index // 4, 32).save(file)
    decoded: list[object] = []
    monkeypatch.setattr(Image.Image, "load", lambda image: decoded.append(image))
    with pytest.raises(ValueError, match=r"bee/2.png: 33x32 pixels, but those before are 32x32; size=32 "):
        load_real(photos)
    assert not decoded


def test_memory_is_that_of_the_result_and_one_photo(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(6):
            Image.new("RGB", (1500, 1000), "white").save(tmp_path / name / f"{index}.bmp")
    code = """
import resource, sys
from dim_data.images import load_real
load_real((__import__("torch").ones(4, 1, 28, 28), [0, 1, 0, 1]), size=32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_real(sys.argv[1], size=64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 25_000  # KB; a photo has 4.5 MB, all of them 54
