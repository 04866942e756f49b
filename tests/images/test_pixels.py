"""Every kind of pixel: converted where it has one right meaning, refused by name where it has not."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_data, make_spec
from dim_data.images import LabelledImages, load_real

RAMP = np.linspace(0, 65535, 28 * 28).reshape(28, 28).astype(np.uint16)
RAMP8 = np.rint(RAMP / 257).astype(np.uint8)
GREY = Image.fromarray(RAMP8)
COLOURS = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
COLOUR = Image.fromarray(COLOURS)


def folder(path: Path, *files: tuple[str, Image.Image], **options: Any) -> Path:
    """Class folders ``ant`` and ``bee``, each with these pictures."""
    for name in ("ant", "bee"):
        (path / name).mkdir(parents=True, exist_ok=True)
        for file, picture in files:
            picture.save(path / name / file, **options)
    return path


def read_one(picture: Image.Image, suffix: str, path: Path, **options: Any) -> np.ndarray:
    """What a file with that picture is read as, (H, W) or (H, W, 3), twice the same."""
    images = load_real(folder(path, (f"0{suffix}", picture), **options)).images
    assert torch.equal(images[0], images[1])
    return images[0].permute(1, 2, 0).squeeze(2).numpy()


@pytest.fixture
def silent() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jp2"])
def test_sixteen_bits_become_eight(suffix: str, tmp_path: Path) -> None:
    options = {"irreversible": False} if suffix == ".jp2" else {}
    assert np.array_equal(read_one(Image.fromarray(RAMP), suffix, tmp_path, **options), RAMP8)


def test_portable_maps_of_sixteen_bits(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.pgm").write_bytes(b"P5 28 28 65535\n" + RAMP.astype(">u2").tobytes())
    assert np.array_equal(load_real(tmp_path).images[1, 0], RAMP8)


def test_big_endian_tiffs_too(tmp_path: Path) -> None:
    picture = Image.frombytes("I;16B", (28, 28), RAMP.astype(">u2").tobytes())
    assert np.array_equal(read_one(picture, ".tif", tmp_path), RAMP8)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "CMYK", "HSV", "RGBA", "LA", "RGBX"])
def test_modes_of_pillow(mode: str) -> None:
    picture = (GREY if mode in ("1", "L", "LA") else COLOUR).convert(mode)
    read = load_real([(picture, 0), (picture, 1)]).images[0]
    wanted = np.asarray(picture.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    assert np.array_equal(read.permute(1, 2, 0).squeeze(2).numpy(), wanted)


@pytest.mark.parametrize(
    ("picture", "suffix", "sentence"),
    [
        (
            Image.fromarray(np.ones((28, 28), np.float32)),
            ".tif",
            r"ant/0.tif: pixels of Pillow's mode 'F' in TIFF have",
        ),
        (Image.fromarray(np.ones((28, 28), np.int32)), ".tif", r"ant/0.tif: pixels of Pillow's mode 'I' in TIFF have"),
        (Image.new("LAB", (28, 28)), ".tif", r"ant/0.tif: pixels of Pillow's mode 'LAB' in TIFF have no one meaning"),
    ],
)
def test_files_without_one_meaning_are_refused_by_name(
    picture: Image.Image, suffix: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"{sentence}.*: convert it to eight bits a channel"):
        load_real(folder(tmp_path, (f"0{suffix}", picture)))
    with pytest.raises(ValueError, match=f"item 1: pixels of Pillow's mode '{picture.mode}' have no one meaning"):
        load_real([(GREY, 0), (picture, 1)])


@pytest.mark.parametrize("reach", [1, 255, 4095])
def test_sixteen_bits_that_are_fewer_are_not_black_in_silence(reach: int, tmp_path: Path) -> None:
    picture = Image.fromarray((RAMP.astype(np.uint32) * reach // 65535).astype(np.uint16))
    sentence = rf"16-bit images are scaled from \[0, 65535\], and these reach {reach}, almost black"
    with pytest.raises(ValueError, match=sentence):
        load_real(folder(tmp_path, ("0.png", picture)))
    with pytest.raises(ValueError, match=sentence):
        load_real((np.stack([np.asarray(picture)] * 2), [0, 1]))
    bright = (Image.fromarray(RAMP), 0)
    assert load_real([bright, (picture, 1)]).images[1].max() == round(reach / 257)


def test_grey_among_colours_becomes_rgb(tmp_path: Path) -> None:
    path = folder(tmp_path, ("0.png", GREY), ("1.jpg", COLOUR), ("2.png", Image.fromarray(RAMP)))
    read = load_real(path)
    assert read.images.shape == (6, 3, 28, 28)
    assert torch.equal(read.images[0], torch.from_numpy(RAMP8).expand(3, 28, 28))
    assert torch.equal(read.images[2], read.images[0])
    items = [(np.asarray(Image.open(file).convert("RGB")), 0) for file in sorted(path.glob("ant/*.jpg"))]
    mixed = load_real([(GREY, 0), (RAMP8, 1), *items])
    assert torch.equal(mixed.images, read.images[[0, 0, 1]])


def test_channels_follow_the_spec() -> None:
    grey = make_data(1, 28)
    read = load_real((grey.images, grey.labels), make_spec(3, 28))
    assert torch.equal(read.images, grey.images.expand(-1, 3, -1, -1))
    assert torch.equal(load_real((read.images, grey.labels), make_spec(1, 28)).images, grey.images)
    colour = make_data(3, 28)
    with pytest.raises(ValueError, match="tiny images are grey, and these are in colour: convert them first"):
        load_real((colour.images, colour.labels), make_spec(1, 28))


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 5])
def test_photos_are_turned_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:8, :, 0], stripes[:, :8, 2] = 255, 255
    turned = {1: stripes, 3: stripes[::-1, ::-1], 6: np.rot90(stripes), 8: np.rot90(stripes, -1)}
    turned[5] = stripes.transpose(1, 0, 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turned[orientation]))
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    read = read_one(stored, suffix, tmp_path, exif=exif, **options)
    assert np.abs(read.astype(int) - stripes).mean() < 3
    opened = Image.open(tmp_path / "ant" / f"0{suffix}")
    assert np.array_equal(load_real([(opened, 0), (opened, 1)]).images[0].permute(1, 2, 0).numpy(), read)
    by_hand = opened.convert("RGB")  # what a dataset turned into something else is taken as it is
    assert np.array_equal(load_real([(by_hand, 0), (by_hand, 1)]).images[0].permute(1, 2, 0).numpy(), by_hand)


def test_transparency_is_laid_on_white_and_said(tmp_path: Path) -> None:
    alpha = Image.fromarray((np.arange(28 * 28).reshape(28, 28) % 256).astype(np.uint8))
    picture = COLOUR.copy()
    picture.putalpha(alpha)
    share = np.asarray(alpha)[..., None] / 255
    wanted = COLOURS * share + 255 * (1 - share)
    with pytest.warns(UserWarning, match=r"laid 2 images with transparent parts on white: .*ant/0.png, .*bee/0.png"):
        read = read_one(picture, ".png", tmp_path)
    assert np.abs(read - wanted).max() <= 1
    grey = Image.merge("LA", (GREY, alpha))
    with pytest.warns(UserWarning, match=r"laid 1 image with transparent parts on white: item 1$"):
        images = load_real([(GREY, 0), (grey, 1)]).images
    assert images.shape == (2, 1, 28, 28)
    assert np.abs(images[1, 0].numpy() - (RAMP8 * share + 255 * (1 - share))[..., 0].diagonal()).max() > 1
    assert np.abs(images[1, 0].numpy() - (RAMP8 * share[..., 0] + 255 * (1 - share[..., 0]))).max() <= 1


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_a_transparent_colour_is_transparency(mode: str, tmp_path: Path) -> None:
    pixels = np.zeros((28, 28), np.uint8)
    pixels[:, 14:] = 255
    picture = Image.fromarray(pixels).convert(mode)
    black = {"P": picture.getpixel((0, 0)), "RGB": (0, 0, 0)}.get(mode, 0)
    with pytest.warns(UserWarning, match="laid 2 images with transparent parts on white"):
        assert (read_one(picture, ".png", tmp_path, transparency=black) == 255).all()


@pytest.mark.usefixtures("silent")
def test_opaque_pictures_are_nothing_to_speak_of(tmp_path: Path) -> None:
    assert np.array_equal(read_one(COLOUR.convert("RGBA"), ".png", tmp_path), COLOURS)


def test_of_several_frames_the_first_is_read_and_said(tmp_path: Path) -> None:
    second = Image.new("RGB", (28, 28))
    with pytest.warns(UserWarning, match=r"read the first frame alone of 2 images: .*ant/0.tif"):
        read = read_one(COLOUR, ".tif", tmp_path, save_all=True, append_images=[second])
    assert np.array_equal(read, COLOURS)


# Arrays ------------------------------------------------------------------------------------------------

DATA = make_data(3, 32)
LABELS = DATA.labels.numpy()
BYTES = DATA.images.numpy()
MASKS = BYTES > 100


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (BYTES.astype(np.uint16) * 257, BYTES),
        ((BYTES.astype(np.uint16) * 257).astype(">u2"), BYTES),
        (BYTES.astype(np.int64), BYTES),
        (BYTES.astype(np.int16), BYTES),
        (BYTES.astype(np.uint32), BYTES),
        (BYTES.astype(np.float32), BYTES),
        (BYTES / 255, BYTES),
        (
            torch.from_numpy(BYTES / 255).bfloat16(),
            np.rint(torch.from_numpy(BYTES / 255).bfloat16().double().numpy() * 255),
        ),
        (MASKS, MASKS * 255),
        (MASKS.astype(np.float32), MASKS * 255),
        (torch.from_numpy(BYTES.astype(np.uint16) * 257), BYTES),
        (torch.from_numpy(BYTES).float().requires_grad_(), BYTES),
    ],
)
def test_arrays_with_one_meaning(values: Any, wanted: np.ndarray, tmp_path: Path) -> None:
    images = load_real((values, LABELS)).images.numpy()
    assert np.array_equal(images, wanted)
    assert np.array_equal(load_real(list(zip(values, LABELS, strict=True))).images, wanted)
    if isinstance(values, np.ndarray):
        np.savez(tmp_path / "set.npz", train_images=values.transpose(0, 2, 3, 1), train_labels=LABELS)
        assert np.array_equal(load_real(tmp_path / "set.npz").images, wanted)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (BYTES.astype(np.int32) * 257, "pixels of int32 from 0 to .* have no one meaning: give uint8, uint16 over its"),
        (BYTES.astype(np.int16) - 128, "pixels of int16 from -128 to .* have no one meaning"),
        (BYTES.astype(np.uint16), "16-bit images are scaled from .*, and these reach 2.., almost black"),
        (MASKS.astype(np.uint8), "the brightest pixel of all images is 1 of 255, almost black: give 0 and 255"),
        (MASKS.astype(np.int64), "the brightest pixel of all images is 1 of 255, almost black"),
        (BYTES * 0, "the brightest pixel of all images is 0 of 255, black: give 0 and 255"),
        (BYTES / 255 / 255 / 3, "the brightest pixel of all images is 0 of 255, black: .*, floats for "),
        (BYTES / 255 / 255, "the brightest pixel of all images is 1 of 255, almost black: .*, floats for "),
        (MASKS & False, "the brightest pixel of all images is 0 of 255, black"),
        (BYTES * 1.5, r"float images must lie in \[0, 1\], got .*: undo the normalisation, or give whole numbers"),
        (BYTES / 240, r"float images must lie in \[0, 1\], got"),
        (BYTES / 127.5 - 1, r"float images must lie in \[0, 1\], got \[-1, "),
        (np.where(MASKS, np.nan, 0), "the images hold NaN or infinite pixels"),
        (np.where(MASKS, -np.inf, 0), "the images hold NaN or infinite pixels"),
        (BYTES.astype(np.complex64), "the images are not numbers: got complex64"),
        (np.concatenate([BYTES, BYTES[:, :1]], 1), "images must have 1 or 3 channels, got 4"),
        (np.concatenate([BYTES, BYTES[:, :1]], 1).transpose(0, 2, 3, 1), "images must have 1 or 3 channels, got 4"),
    ],
)
def test_arrays_without_one_meaning_are_refused(values: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_real((values, LABELS))


def test_black_sets_are_refused_and_black_pictures_are_not(tmp_path: Path) -> None:
    black = Image.new("RGB", (28, 28))
    with pytest.raises(ValueError, match="the brightest pixel of all images is 0 of 255, black"):
        load_real(folder(tmp_path / "black", ("0.png", black), ("1.png", black)))
    dim = Image.new("RGB", (28, 28), (0, 2, 0))
    read = load_real(folder(tmp_path / "dim", ("0.png", black), ("1.png", dim)))
    assert read.images.amax((1, 2, 3)).tolist() == [0, 2, 0, 2]


def test_floats_of_a_dataset_have_one_range() -> None:
    unit, whole = BYTES[0] / 255, BYTES[1].astype(np.float32)
    with pytest.raises(
        ValueError, match=r"item 1: float images must all have one range, got up to .* here and .* in item 0"
    ):
        load_real([(unit, 0), (whole, 1)])
    with pytest.raises(ValueError, match="item 1: float images must all have one range"):
        load_real([(whole, 0), (unit, 1)])
    assert np.array_equal(load_real([(unit * 0, 0), (whole, 1)]).images[1], BYTES[1])


def test_ready_arrays_are_not_copied() -> None:
    assert load_real((DATA.images, DATA.labels)).images.data_ptr() == DATA.images.data_ptr()


def test_files_inside_items(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    COLOUR.save(buffer, "PNG")
    COLOUR.save(tmp_path / "0.png")
    forms = [
        buffer.getvalue(),
        {"bytes": buffer.getvalue(), "path": None},
        {"bytes": None, "path": str(tmp_path / "0.png")},
    ]
    for form in [*forms, tmp_path / "0.png", COLOURS.tolist()]:
        assert np.array_equal(load_real([(form, 0), (form, 1)]).images[1].permute(1, 2, 0), COLOURS)
    with pytest.raises(ValueError, match="item 1 is not a readable image: "):
        load_real([(COLOUR, 0), (b"no picture", 1)])


def test_statistics_by_levels_are_the_exact_ones() -> None:
    images = torch.randint(0, 256, (700, 3, 28, 28), dtype=torch.uint8)
    spec = load_real((images, torch.arange(700) % 7)).spec
    pixels = images.double() / 255
    assert spec.mean == tuple(round(float(m), 4) for m in pixels.mean((0, 2, 3)))
    assert spec.std == tuple(round(float(s), 4) for s in pixels.std((0, 2, 3)))


def test_what_is_read_is_labelled_images() -> None:
    assert isinstance(load_real([(GREY, 0), (COLOUR, 1)]), LabelledImages)


def save_deep(path: Path, values: np.ndarray) -> None:
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2}[channels], 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("channels", [2, 3])
def test_colours_of_sixteen_bits_that_are_fewer_are_not_black_in_silence(channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 3000, (28, 28, channels))
    values[..., channels - 1 :] = 65535 if channels == 2 else values[..., 2:]  # opaque
    for name in ("ant", "bee"):
        save_deep(tmp_path / name / "0.png", values)
    with pytest.raises(
        ValueError, match=r"16-bit images are scaled from \[0, 65535\], and these reach 28\d\d, almost bl"
    ):
        load_real(tmp_path)
    for name in ("ant", "bee"):
        save_deep(tmp_path / name / "0.png", np.random.default_rng(0).integers(0, 65536, (28, 28, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_real(tmp_path).images.max() == 255


def test_levels_that_are_lost_are_said() -> None:
    thermal = np.random.default_rng(0).integers(7000, 8500, (4, 1, 28, 28)).astype(np.uint16)
    with pytest.warns(
        UserWarning, match=r"scaled from \[0, 65535\], and these have 7 of 256 levels then: scale what they"
    ):
        load_real((thermal, np.array([0, 1, 0, 1])))
    dim = np.random.default_rng(0).integers(0, 20, (4, 1, 28, 28)).astype(np.uint8)
    with pytest.warns(
        UserWarning, match=r"the brightest pixel of all images is 19 of 255, so that they are all but black"
    ):
        load_real((dim, np.array([0, 1, 0, 1])))
