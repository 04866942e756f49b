"""Batches made ahead in a thread: the same, in order, bounded, with no thread left over."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from dim_data.generator.model import Generator
from dim_data.loading.ahead import made_ahead
from dim_data.loading.loader import DistilledLoader


def always() -> bool:
    return True


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("dim_data-ahead")]


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    yield
    gc.collect()
    wait_until(lambda: not helpers())


def noted(count: int, made: list[tuple[int, str]]) -> Iterator[int]:
    for number in range(count):
        made.append((number, threading.current_thread().name))
        yield number


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_items_come_in_order(depth: int, count: int) -> None:
    made: list[tuple[int, str]] = []
    assert list(made_ahead(noted(count, made), depth, always)) == list(range(count))
    names = [name for _, name in made]
    assert "dim_data-ahead_0" not in names[:1]
    assert all(name == "dim_data-ahead_0" for name in names[1:])


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_so_many_are_made_ahead(depth: int) -> None:
    made: list[tuple[int, str]] = []
    items = made_ahead(noted(20, made), depth, always)
    assert next(items) == 0
    assert (len(made), helpers()) == (1, []), "who takes one item is done with it"
    for taken in range(2, 6):
        next(items)
        wait_until(lambda taken=taken: len(made) == taken + depth)
        time.sleep(0.02)
        assert len(made) == taken + depth


def test_an_exception_is_raised_where_its_item_would_have_been() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no fourth")

    found = made_ahead(items(), 2, always)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LookupError, match="no fourth"):
        next(found)
    assert list(found) == []


def test_whether_a_thread_may_is_asked_each_time() -> None:
    made: list[tuple[int, str]] = []
    answers = [True]
    found = made_ahead(noted(30, made), 2, lambda: answers[0])
    taken = []
    for number, answer in zip(range(30), itertools.cycle([True, True, False, False, False]), strict=False):
        answers[0] = answer
        taken.append(next(found))
        assert taken[-1] == number
    assert len({name for _, name in made}) == 2
    assert list(found) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_goes_on_alone_with_the_same() -> None:
    busy = threading.Event()

    def items() -> Iterator[int]:
        for number in range(40):
            busy.set()
            time.sleep(0.002)  # so that forks find it at work
            yield number

    found = made_ahead(items(), 3, always)
    for number in range(12):
        assert next(found) == number
        busy.clear()
        busy.wait(1)
        child = os.fork()
        if not child:
            os._exit(int(list(found) != list(range(number + 1, 40))))
        assert os.waitpid(child, 0)[1] == 0
    assert list(found) == list(range(12, 40))


# The loader's ----------------------------------------------------------------------------------------


@pytest.fixture
def painters(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The thread that each batch was painted in."""
    names: list[str] = []
    original = Generator._in_chunks

    def paint(self: Generator, *args: Any) -> torch.Tensor:
        names.append(threading.current_thread().name)
        return original(self, *args)

    monkeypatch.setattr(Generator, "_in_chunks", paint)
    return names


@pytest.mark.parametrize("kind", ["tiny_noise", "tiny_codes", "tiny_prior"])
def test_batches_are_the_same(kind: str, request: pytest.FixtureRequest, painters: list[str]) -> None:
    generator = request.getfixturevalue(kind)
    ahead, plain = (DistilledLoader(generator, 7, ipc=8, device="cpu", ahead=ahead) for ahead in (2, 0))
    for _ in range(3):
        wanted = list(plain)
        assert "dim_data-ahead_0" not in painters
        for found, expected in zip(ahead, wanted, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))
            state = ahead.state_dict()
            resumed = DistilledLoader(generator, 7, ipc=8, device="cpu", ahead=2)
            resumed.load_state_dict(state)
            assert resumed.state_dict()["batch"] in (state["batch"], 0)
        assert "dim_data-ahead_0" in painters
        painters.clear()


def test_a_state_knows_nothing_of_what_was_made_ahead(tiny_noise: Generator) -> None:
    loader, plain = (DistilledLoader(tiny_noise, 5, ipc=10, device="cpu", ahead=ahead) for ahead in (4, 0))
    wanted = list(plain)
    batches = iter(loader)
    for count in range(1, 4):
        next(batches)
        resumed = DistilledLoader(tiny_noise, 5, ipc=10, device="cpu", ahead=2)
        resumed.load_state_dict(loader.state_dict())
        rest = list(resumed)
        assert len(rest) == len(wanted) - count
        assert torch.equal(rest[0][0], wanted[count][0])


def test_what_fails_in_the_thread_is_heard(tiny_noise: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = DistilledLoader(tiny_noise, 5, ipc=10, device="cpu", ahead=2)
    original, calls = Generator.synthesize, []

    def synthesize(self: Generator, *args: Any) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 3:
            raise MemoryError("no room for a picture")
        return original(self, *args)

    monkeypatch.setattr(Generator, "synthesize", synthesize)
    batches = iter(loader)
    next(batches)
    next(batches)
    with pytest.raises(MemoryError, match="no room for a picture"):
        next(batches)
    assert len(list(loader)) == 6


def test_nothing_is_made_ahead_of_pictures_that_are_kept(tiny_codes: Generator, painters: list[str]) -> None:
    loader = DistilledLoader(tiny_codes, 24, ipc=40, device="cpu", ahead=2)
    list(loader)
    list(loader)
    deadline = time.monotonic() + 30
    while helpers() and time.monotonic() < deadline:  # a pass that is over leaves a thread that ends by itself
        time.sleep(0.01)
    painters.clear()
    for _ in loader:
        assert helpers() == []
    assert painters == []


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="this torch has one precision for all")
def test_a_callers_precision_is_not_switched_under_its_hands(tiny_noise: Generator, painters: list[str]) -> None:
    wanted = list(DistilledLoader(tiny_noise, 5, ipc=8, device="cpu", ahead=0))
    matmul: Any = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        for found, expected in zip(DistilledLoader(tiny_noise, 5, ipc=8, device="cpu", ahead=2), wanted, strict=True):
            assert torch.equal(found[0], expected[0])
            assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    assert "dim_data-ahead_0" not in painters


def test_bad_numbers_are_refused(tiny_noise: Generator) -> None:
    with pytest.raises(ValueError, match="ahead must be at least 0, got -1"):
        DistilledLoader(tiny_noise, device="cpu", ahead=-1)
    with pytest.raises(TypeError, match="ahead must be an int, got True"):
        DistilledLoader(tiny_noise, device="cpu", ahead=True)
