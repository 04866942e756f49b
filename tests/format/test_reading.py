"""What is read of a generator's files, and what is refused before it costs anything."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import TINY, make_spec
from dim_data import Generator, GeneratorConfig
from dim_data.format.reading import read_json

BIAS = "decoder.body.0.bias"


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], object], data: bytes | None = None) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + (content[8 + length :] if data is None else data))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_of_each_kind_load(tiny_codes: Generator, tmp_path: Path, dtype: torch.dtype) -> None:
    loaded = Generator.from_pretrained(tiny_codes.save_pretrained(tmp_path, dtype=dtype))
    for one, two in zip(loaded.parameters(), tiny_codes.parameters(), strict=True):
        assert torch.equal(one, two.to(dtype).float())


def test_order_and_padding_do_not_matter(codes_folder: Path, tiny_codes: Generator) -> None:
    path = codes_folder / "model.safetensors"
    state = {name: t.clone() for name, t in load_file(path).items()}  # older versions map the file
    save_file(dict(reversed(state.items())), path, {"format": "pt", "by": "somebody"})
    rewrite_header(path, lambda h: h.update(sorted(h.items(), reverse=True)))
    loaded = Generator.from_pretrained(codes_folder)
    assert all(torch.equal(t, state[name.removeprefix("source.")]) for name, t in loaded.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h[BIAS].update(dtype=["F32"]),
        lambda h: h[BIAS].update(shape=[7]),
        lambda h: h[BIAS].update(shape=[2**40, 2**40]),
        lambda h: h[BIAS].update(shape=[2**50]),
        lambda h: h[BIAS].update(shape=[8.0]),
        lambda h: h[BIAS].update(shape=[True] * 8),
        lambda h: h[BIAS].update(shape=[-8, -1]),
        lambda h: h[BIAS].update(data_offsets=[0]),
        lambda h: h[BIAS].update(data_offsets="ab"),
        lambda h: h[BIAS].pop("shape"),
        lambda h: h.update({BIAS: 3}),
        lambda h: h.update(copy=h[BIAS]),
        lambda h: h.pop(BIAS),
        lambda h: h.update(__metadata__=[1]),
    ],
)
def test_unsound_headers_raise(codes_folder: Path, change: Any) -> None:
    rewrite_header(codes_folder / "model.safetensors", change)
    with pytest.raises(ValueError, match=r"is not a readable safetensors file \(truncated\?\): "):
        Generator.from_pretrained(codes_folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda h: h[BIAS].update(dtype="I32"), f"tensor '{BIAS}' is I32, expected torch.float32"),
        (lambda h: h[BIAS].update(shape=[8] + [1] * 99), rf"tensor '{BIAS}' has shape \[8, 1, .*config asks for \[8\]"),
        (lambda h: h.update({"x" * 100_000: h.pop(BIAS)}), rf"no tensor '{BIAS}'; unexpected tensor 'xxx"),
    ],
)
def test_sound_headers_of_something_else_raise(codes_folder: Path, change: Any, sentence: str) -> None:
    rewrite_header(codes_folder / "model.safetensors", change)
    with pytest.raises(ValueError, match=f"does not fit its config: {sentence}") as caught:
        Generator.from_pretrained(codes_folder)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    "header", [b"[" * 200_000, b'{"a": NaN}', b"\xff\xff", b"[]", b"{", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_headers_that_are_not_json_raise(codes_folder: Path, header: bytes) -> None:
    (codes_folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match=r"is not a readable safetensors file \(truncated\?\): "):
        Generator.from_pretrained(codes_folder)


@pytest.mark.parametrize("length", [0, 1, 1_000_001, 2**31, 2**63, 2**64 - 1])
def test_a_header_fits_in_its_file(codes_folder: Path, length: int) -> None:
    path = codes_folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        Generator.from_pretrained(codes_folder)


@pytest.mark.parametrize("size", [0, 3, 8, 100, -1, 1])
def test_the_tensors_fill_the_file_to_its_end(codes_folder: Path, size: int) -> None:
    path = codes_folder / "model.safetensors"
    os.truncate(path, size if size not in (-1, 1) else path.stat().st_size + size)
    with pytest.raises(ValueError, match=r"is not a readable safetensors file \(truncated\?\): "):
        Generator.from_pretrained(codes_folder)


def test_a_file_larger_than_any_generator_is_not_opened(codes_folder: Path) -> None:
    os.truncate(codes_folder / "model.safetensors", (1 << 32) + 1)
    with pytest.raises(ValueError, match=r"model.safetensors has 4294967297 bytes; the limit is 4294967296"):
        Generator.from_pretrained(codes_folder)


def test_counts_cannot_overflow(codes_folder: Path) -> None:
    path = codes_folder / "model.safetensors"
    state = load_file(path)
    state["counts"] = torch.tensor([2**63 - 1, 2**63 - 1, 122])
    assert int(state["counts"].sum()) == 120
    save_file(state, path)
    with pytest.raises(ValueError, match="'counts' must be positive and sum to 120, the number of codes"):
        Generator.from_pretrained(codes_folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": 1, "a": 2}', "an object has the same key twice"),
        ('{"a": {"b": 1, "b": 1}}', "an object has the same key twice"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity is not a JSON number"),
        ('{"a": 1e999}', "1e999 is not a JSON number"),
        ('{"a":' * 100_000, "is not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is not valid JSON"),
        ("\ufeff{}", "is not valid JSON"),
    ],
)
def test_json_is_strict(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence):
        read_json(path)


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", "\ud800", "\u2028", "x" * 201])
def test_names_can_be_shown(name: str) -> None:
    specs = [replace(make_spec(), classes=("a", "b", name))]
    if len(name) <= 200:  # an ImageSpec bounds its own
        specs.append(replace(make_spec(), name=name))
    for spec in specs:
        with pytest.raises(ValueError, match="a name has up to 200 characters, none of them a control one"):
            GeneratorConfig(spec, "compact", "codes", TINY, codes=3)
    for good in ("caf\u00e9", "\u732b", "T-shirt/top", "a b"):
        GeneratorConfig(replace(make_spec(), name=good), "compact", "codes", TINY, codes=3)


def test_a_message_is_short_whatever_the_file_says(codes_folder: Path) -> None:
    path = codes_folder / "config.json"
    values = json.loads(path.read_text())
    for change in (
        {"architecture": "x" * 100_000},
        {f"key{i}": 0 for i in range(20_000)},
        {"options": {"x" * 10**6: 1}},
    ):
        path.write_text(json.dumps(values | change))
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            Generator.from_pretrained(codes_folder)
        assert len(str(caught.value)) < 1500


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_only_files_are_opened(codes_folder: Path) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
        path = codes_folder / "config.json"
        if path.is_file():
            path.unlink()
        make(path)
        with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
            Generator.from_pretrained(codes_folder)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_pointer_of_git_lfs_is_named(codes_folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    (codes_folder / "model.safetensors").write_text(pointer)
    with pytest.raises(ValueError, match=r"model.safetensors is a pointer of Git LFS, not the weights: `git lfs pull`"):
        Generator.from_pretrained(codes_folder)
