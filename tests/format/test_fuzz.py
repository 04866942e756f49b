"""Thousands of damaged and hostile generators: each loads and paints, or is refused in a sentence, within bounds.

``python tests/test_fuzz.py FOLDER COUNT SEED`` runs the cases in a process of bounded memory, which the test starts.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY, make_generator, make_spec
from dim_data import Generator, GeneratorConfig
from dim_data.networks import PriorConfig

MEMORY = 400 << 20
"""Bytes of address space beyond what is taken when the cases begin."""
SECONDS = 2.0
"""Processor time of one case at most."""

NASTY: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 8, 28, 255, 256, 1024, 1025, 10**6, 20_000_000, 2**31, 2**63, 2**64, 10**40),
    *(0.0, -0.0, 0.5, 1.0, 1e-300, 1e308, -1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "codes", "noise", "dim", "compact", "cifar10", "../../etc/passwd", "\x1b[31m", "\ud800", "e\u0301" * 99),
    *("x" * 100_000, [], {}, [[]], [0], [0.5, 0.5, 0.5], [1e9], ["a", "b"], ["a"] * 10_000, {"a": 1}, {"width": 1024}),
    *({"width": 1024, "blocks": 16, "code_channels": 64}, {"latent_dim": 1024}, {"width": -5}, {"blocks": 10**12}),
    {"width": 1024, "layers": 32, "hidden": 1024, "clusters": 1024, "patch": 4, "features": 128},
    {"width": 64, "layers": 1, "hidden": 8, "clusters": 1, "patch": 2, "features": 4},
]
NAMES = [
    "a",
    "spec",
    "size",
    "classes",
    "width",
    "blocks",
    "options",
    "codes",
    "prior",
    "__class__",
    "__metadata__",
    "dtype",
]
KINDS = ["F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I32", "U64", "U8", "BOOL", "C64", "F4", "X", "", None, 3]
BIG = [0, 1, 2, 7, 2**16, 2**31, 2**32, 2**47, 2**48, 2**53, 2**62, 2**63, 2**64 - 1, 10**30, -1, -(2**63), 1.5, "1"]


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in [(tree, key), *places(value)]]


def mutate_tree(tree: Any, rng: random.Random) -> None:
    """Replace, remove, add or swap something in a JSON value."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        spots = places(tree)
        if not spots:
            return
        box, key = rng.choice(spots)
        action = rng.randrange(6)
        if action <= 2:
            box[key] = json.loads(json.dumps(rng.choice(NASTY)))
        elif action == 3:
            del box[key]
        elif action == 4 and isinstance(box, dict):
            box[rng.choice(NAMES)] = rng.choice(NASTY)
        else:
            other, where = rng.choice(spots)
            box[key], other[where] = json.loads(
                json.dumps((other.get(where) if isinstance(other, dict) else 0, box[key]))
            )


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, insert or blank some bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 4, 8, 100))
        action = rng.randrange(6)
        if action == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            del data[at:]
        elif action == 2:
            del data[at : at + length]
        elif action == 3:
            data[at:at] = data[at : at + length] * rng.choice((1, 3))
        elif action == 4:
            data[at:at] = rng.choice(
                (b"[" * 2000, b'{"a":' * 2000, b"\0" * length, b"\xff" * length, b"1" * 5000, b"NaN")
            )
        else:
            data[at : at + length] = bytes(rng.randrange(256) for _ in range(length))
    return bytes(data)


def mutate_config(content: bytes, rng: random.Random) -> bytes:
    """A config with a mutated value, a key twice, or mutated bytes."""
    action = rng.randrange(8)
    if action == 0:
        return mutate_bytes(content, rng)
    if action == 1:
        return content.replace(b'"codes":', b'"codes": 99, "codes":')
    tree = json.loads(content)
    if action == 2:  # another config as good as this one
        tree["sigma"], tree["spec"]["name"] = rng.uniform(0.1, 9), "\u00e9" * rng.randrange(1, 200)
        tree = dict(rng.sample(list(tree.items()), len(tree)))
    else:
        mutate_tree(tree, rng)
    return json.dumps(tree, indent=rng.choice((None, 2))).encode()


def pack(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def mutate_weights(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with mutated bytes, length, header entries, names or numbers."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    start, end = entry["data_offsets"]
    action = rng.randrange(14)
    if action <= 1:
        return mutate_bytes(content, rng)
    if action == 2:
        size = rng.choice([size for size in BIG if isinstance(size, int) and 0 <= size < 2**64])
        return struct.pack("<Q", size) + content[8:]
    if action == 3:
        return pack(mutate_bytes(content[8 : 8 + length], rng), bytes(data))
    if action == 4:
        entry["dtype"] = rng.choice(KINDS)
    elif action == 5:
        entry["shape"] = [rng.choice(BIG) for _ in range(rng.randrange(5))]
    elif action == 6:
        entry["data_offsets"] = [rng.choice([*BIG, start, end, len(data)]) for _ in range(rng.choice((1, 2, 2, 2, 3)))]
    elif action == 7:
        header[rng.choice(NAMES)] = header.pop(name)
    elif action == 8:
        mutate_tree(header, rng)
    elif action == 9:
        data[start:end] = bytes(rng.randrange(256) for _ in range(end - start))
    elif action == 10:  # another file as good as this one
        header = dict(rng.sample(list(header.items()), len(header))) | {"__metadata__": {"by": "me"}}
        text = json.dumps(header).encode() + b" " * rng.randrange(9)
        return pack(text, bytes(data))
    elif action == 11:  # finite numbers all the same
        for at in range(start, end, 4):
            data[at] ^= rng.randrange(256) if entry["dtype"] == "F32" else 0
    elif action == 12 and "counts" in header:
        first, last = header["counts"]["data_offsets"]
        numbers = [rng.choice((-1, 0, 1, 2, 4, 2**31, 2**62, 2**63 - 1, -(2**63))) for _ in range((last - first) // 8)]
        data[first:last] = struct.pack(f"<{len(numbers)}q", *numbers)
    else:
        data += bytes(rng.choice((1, 8, 100_000)))
    return pack(header, bytes(data))


def bases() -> dict[str, GeneratorConfig]:
    small, tiny = make_spec(1, 28, 2), PriorConfig(width=8, layers=1, hidden=4, clusters=2)
    return {
        "codes": GeneratorConfig(small, "compact", "codes", {**TINY, "code_levels": 10, "code_channels": 1}, codes=4),
        "noise": GeneratorConfig(small, "compact", "noise", {**TINY, "latent_dim": 4}),
        "prior": GeneratorConfig(small, "compact", "noise", {**TINY, "code_channels": 1}, prior=tiny),
        "dim": GeneratorConfig(make_spec(3, 32, 2), "dim", "noise", {"width": 4, "latent_dim": 4}),
    }


def attempt(folder: Path, outcomes: Counter[str]) -> None:
    """Load what is in ``folder`` and paint with it; anything but a refusal in a sentence is a bug."""
    start = time.process_time()
    try:
        generator = Generator.from_pretrained(folder)
    except (ValueError, TypeError, FileNotFoundError) as error:
        message = str(error)
        assert 0 < len(message.encode("utf-8")) < 8000, f"a message of {len(message)} characters"
        outcomes[type(error).__name__] += 1
    else:
        outcomes["loaded"] += 1
        if outcomes["loaded"] % 5 == 0:
            images = generator.synthesize(torch.tensor([0, generator.spec.num_classes - 1]), torch.tensor([0, 10**6]))
            assert images.shape == (2, generator.spec.channels, generator.spec.size, generator.spec.size)
            repr(generator)
    assert time.process_time() - start < SECONDS


def run(folder: Path, count: int, seed: int) -> Counter[str]:
    """``count`` cases: mutated configs, mutated weights, and sometimes both."""
    torch.set_num_threads(1)
    rng, outcomes = random.Random(seed), Counter[str]()
    sources = []
    for name, config in bases().items():
        saved = make_generator(config).save_pretrained(folder / name, dtype=torch.float32)
        sources.append([(saved / file).read_bytes() for file in ("config.json", "model.safetensors")])
        # What a process loads and plans when it first paints is no part of a case.
        Generator.from_pretrained(saved).synthesize(torch.tensor([0]), torch.tensor([0]))
        for _ in range(5):
            attempt(saved, outcomes)
    assert outcomes == {"loaded": 5 * len(sources)}
    case = folder / "case"
    case.mkdir()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    mutations: list[Callable[[bytes, random.Random], bytes]] = [mutate_config, mutate_weights]
    outcomes.clear()
    for index in range(count):
        files = list(rng.choice(sources))
        chosen = (0, 1) if index % 10 == 9 else (index % 2,)
        for which in chosen:
            files[which] = mutations[which](files[which], rng)
        for file, content in zip(("config.json", "model.safetensors"), files, strict=True):
            (case / file).write_bytes(content)
        try:
            attempt(case, outcomes)
        except BaseException:
            print(f"case {index} of seed {seed}; its files are in {case}", file=sys.stderr)
            raise
    return outcomes


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to bound memory")
@pytest.mark.parametrize(("count", "seed"), [(400, 1), pytest.param(10_000, 0, marks=pytest.mark.slow)])
def test_damaged_generators_are_refused_or_work(count: int, seed: int, tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path), str(count), str(seed)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # conftest lies a folder up
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stderr[-4000:]
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) == count
    assert outcomes["ValueError"] > count / 2
    assert outcomes["loaded"] > count / 50


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
