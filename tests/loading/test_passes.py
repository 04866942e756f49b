from __future__ import annotations

import copy
import json
import pickle
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dim_data.loading import passes as module
from dim_data.loading.passes import MAX_EPOCH, Passes, check_int, check_state


def draw(passes: Passes, *indices: int) -> list[int]:
    return passes.advance(indices)


@pytest.fixture
def be(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Go on as the worker of that number, or as the main process."""

    def switch(worker: int | None, workers: int = 2) -> None:
        info = None if worker is None else SimpleNamespace(id=worker, num_workers=workers)
        monkeypatch.setattr(module, "get_worker_info", lambda: info)

    return switch


class Interrupted(Passes):
    """Lets something else happen in the middle of the next call, at one of its points."""

    then: Callable[[], object] | None = None
    at = 0

    def _point(self) -> None:
        self.at -= 1
        if self.then is not None and self.at < 0:
            then, self.then = self.then, None
            then()

    def _claim(self, indices: NDArray[np.int64]) -> None:
        self._point()
        super()._claim(indices)
        self._point()

    def _mine(self) -> NDArray[np.bool_]:
        self._point()
        mine = super()._mine()
        self._point()
        return mine


# Draws -----------------------------------------------------------------------------------------------


def test_drawing_again_moves_on() -> None:
    passes = Passes(4)
    assert passes.epoch == 0
    assert draw(passes, 0, 1) == [0, 0]
    assert draw(passes, 2, 3) == [0, 0]
    assert passes.epoch == 0
    assert draw(passes, 3, 1) == [1, 1]
    assert draw(passes, 0) == [1]
    assert draw(passes, 0) == [2]
    assert draw(passes, 2) == [2]
    assert passes.epoch == 2


def test_an_index_twice_in_a_batch_runs_ahead() -> None:
    passes = Passes(3)
    assert draw(passes, 0, 1, 0, 0) == [0, 0, 1, 2]
    assert draw(passes, 1, 2) == [2, 2]


def test_an_empty_batch_is_no_draw() -> None:
    passes = Passes(3)
    assert draw(passes, 0, 1, 2) == [0, 0, 0]
    assert draw(passes) == []
    assert passes.epoch == 0


def test_no_draw_ever_repeats_whatever_is_drawn() -> None:
    rng, passes, seen = random.Random(0), Passes(9), set()
    for _ in range(300):
        indices = rng.choices(range(9), k=rng.randint(1, 6))
        drawn = set(zip(indices, draw(passes, *indices), strict=True))
        assert len(drawn) == len(indices)
        assert not drawn & seen
        seen |= drawn


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_agree_in_any_order(workers: int, be: Callable[..., None]) -> None:
    rng, passes = random.Random(workers), Passes(23)
    for epoch in range(4):
        order = rng.sample(range(23), 23)
        batches = list(enumerate(order[i : i + 3] for i in range(0, 23, 3)))
        rng.shuffle(batches)
        for number, batch in batches:
            be(number % workers, workers)
            assert draw(passes, *batch) == [epoch] * len(batch)


@pytest.mark.parametrize("at", [0, 1])
def test_workers_agree_when_one_draws_in_the_middle_of_anothers_draw(at: int, be: Callable[..., None]) -> None:
    passes, inner = Interrupted(6), []

    def other() -> None:
        be(1)
        inner.append(draw(passes, 3, 4, 5))
        be(0)

    for epoch in range(3):
        be(0)
        passes.at, passes.then = at, other
        assert draw(passes, 0, 1, 2) == [epoch] * 3
        assert inner.pop() == [epoch] * 3


# Pins ------------------------------------------------------------------------------------------------


def test_a_pin_holds_and_lets_go() -> None:
    passes = Passes(2)
    assert passes.pinned is None
    passes.pin(5)
    assert (passes.pinned, passes.epoch) == (5, 5)
    assert draw(passes, 0, 1, 0) == [5, 5, 5]
    passes.pin(2)
    assert draw(passes, 0) == [2]
    passes.pin(None)
    assert passes.pinned is None
    assert draw(passes, 0, 1) == [6, 6]


def test_the_last_epoch_can_be_pinned_and_left() -> None:
    passes = Passes(2)
    passes.pin(np.int64(MAX_EPOCH))
    assert draw(passes, 0) == [MAX_EPOCH]
    passes.pin(None)
    assert draw(passes, 0) == [MAX_EPOCH + 1]


@pytest.mark.parametrize(
    ("epoch", "error", "sentence"),
    [
        (-1, ValueError, "epoch must be at least 0, got -1"),
        (MAX_EPOCH + 1, ValueError, f"epoch must be at most {MAX_EPOCH}, got {MAX_EPOCH + 1}"),
        (1.0, TypeError, r"epoch must be an int, got 1\.0"),
        (True, TypeError, "epoch must be an int, got True"),
        ("1", TypeError, "epoch must be an int, got '1'"),
    ],
)
def test_bad_pins_raise_and_change_nothing(epoch: Any, error: type[Exception], sentence: str) -> None:
    passes = Passes(2)
    passes.pin(3)
    with pytest.raises(error, match=sentence):
        passes.pin(epoch)
    assert passes.pinned == 3


# Copies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_goes_its_own_way(duplicate: Callable[[Passes], Passes]) -> None:
    passes = Passes(2)
    draw(passes, 0, 1)
    other = duplicate(passes)
    assert draw(other, 0, 1) == [1, 1]
    other.pin(9)
    assert (passes.epoch, passes.pinned) == (0, None)
    assert draw(passes, 0) == [1]


# States ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", [None, 3])
@pytest.mark.parametrize("drawn", range(10))
def test_a_state_goes_on_where_it_was_taken(drawn: int, pinned: int | None) -> None:
    passes = Passes(4)
    for index in range(drawn):
        draw(passes, index % 4)
    passes.pin(pinned)
    state = json.loads(json.dumps(passes.state_dict()))
    fresh, further, used = Passes(4), copy.deepcopy(passes), Passes(4)
    further.pin(None)
    draw(further, drawn % 4)
    for _ in range(7):
        draw(used, 0, 1, 2, 3)
    for other in (fresh, further, used):
        other.load_state_dict(state)
        assert (other.epoch, other.pinned) == (passes.epoch, pinned)
        twin = copy.deepcopy(passes)
        for index in range(drawn, drawn + 9):
            assert draw(other, index % 4) == draw(twin, index % 4)
        other.pin(None)
        twin.pin(None)
        assert draw(other, 0, 3) == draw(twin, 0, 3)


@pytest.mark.parametrize("earlier", [(), (0, 1), (1, 0), (3, 2)])
@pytest.mark.parametrize("handed_out", range(9))
def test_workers_join_their_states_to_what_was_handed_out(
    handed_out: int, earlier: tuple[int, ...], be: Callable[..., None]
) -> None:
    # Passes of four batches over two workers; worker 1 is a batch ahead of what the main process was given.
    batches = [[0, 1], [2, 3], [4, 5], [6, 7]]
    passes, other, states = Passes(8), Passes(8), {}
    be(None)
    draw(passes, *range(8))
    for worker in (0, 1):
        be(worker)
        states[worker] = passes.state_dict()
    for number in range(handed_out):
        be(number % 2)
        draw(passes, *batches[number % 4])
        states[number % 2] = passes.state_dict()
    be(1)
    draw(passes, *batches[(handed_out | 1) % 4])
    for number in range(40 * len(earlier)):  # what the other one did before, with other workers
        be(earlier[number % 2], 4)
        draw(other, *batches[number % 4])
    for worker in (1, 0):
        be(worker)
        other.load_state_dict(states[worker])
    for turn in range(3):
        for number in (3, 2, 1, 0):
            if 4 * turn + number >= handed_out:
                be(number % 2)
                assert draw(other, *batches[number]) == [1 + turn] * 2


def test_the_first_worker_answers_for_all_who_are_gone(be: Callable[..., None]) -> None:
    passes, drawn = Passes(8), []
    for worker, index in [(None, 0), (0, 1), (1, 2), (2, 3), (7, 4)]:
        be(worker, 8)
        draw(passes, index)
    for worker in (0, 1):
        be(worker, 2)
        drawn.append(passes.state_dict()["drawn"])
    assert drawn == [f"{0b1101_1000:02x}", f"{0b0010_0000:02x}"]


@pytest.mark.parametrize("at", [0, 1])
def test_a_state_never_holds_a_draw_of_another_worker(at: int, be: Callable[..., None]) -> None:
    passes, states = Interrupted(4), []
    be(0)
    draw(passes, 0, 1, 2, 3)
    draw(passes, 0)

    def ask() -> None:
        be(0)
        states.append(passes.state_dict())
        be(1)

    def draw_meanwhile() -> None:
        be(1)
        draw(passes, 2)
        be(0)

    be(1)
    passes.at, passes.then = at, ask
    draw(passes, 1)
    be(0)
    passes.at, passes.then = at, draw_meanwhile
    states.append(passes.state_dict())
    assert states == [{"epoch": 1, "pinned": None, "drawn": f"{0b1000_0000:02x}"}] * 2


@pytest.mark.parametrize("outer", [0, 1])
@pytest.mark.parametrize("at", range(4))
def test_loading_never_loses_what_another_worker_loads_meanwhile(at: int, outer: int, be: Callable[..., None]) -> None:
    old, states = Passes(4), []
    for worker in (0, 1):
        be(worker)
        draw(old, worker, worker + 2)
        states.append(old.state_dict())
    passes = Interrupted(4)

    def load(worker: int) -> None:
        be(worker)
        passes.load_state_dict(states[worker])
        be(outer)

    passes.at, passes.then = at, lambda: load(1 - outer)
    load(outer)
    assert passes.then is None
    for index in range(4):
        assert draw(copy.deepcopy(passes), index) == [1]


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"epoch": -1}, ValueError, "epoch must be at least 0, got -1"),
        ({"epoch": None}, TypeError, "epoch must be an int, got None"),
        ({"pinned": "5"}, TypeError, "epoch must be an int, got '5'"),
        ({"drawn": ""}, ValueError, "'drawn' holds a bit for each of 4 indices, got 0"),
        ({"drawn": "ff00"}, ValueError, "'drawn' holds a bit for each of 4 indices, got 16"),
    ],
)
def test_bad_states_raise(change: dict[str, Any], error: type[Exception], sentence: str) -> None:
    passes = Passes(4)
    with pytest.raises(error, match=sentence):
        passes.load_state_dict({**passes.state_dict(), **change})


# Checks ----------------------------------------------------------------------------------------------


def test_check_int_takes_any_int_in_range() -> None:
    assert check_int("n", 3) == 3
    assert check_int("n", -(10**30)) == -(10**30)
    found = check_int("n", np.uint8(7), 7, 7)
    assert (found, type(found)) == (7, int)


@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (0, ValueError, "n must be at least 1, got 0"),
        (9, ValueError, "n must be at most 8, got 9"),
        (np.bool_(True), TypeError, "n must be an int, got"),
        (None, TypeError, "n must be an int, got None"),
        (2.0, TypeError, r"n must be an int, got 2\.0"),
    ],
)
def test_check_int_says_what_is_wrong(value: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        check_int("n", value, 1, 8)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ([], r"a state has the keys \['epoch', 'settings'\], got list"),
        ({"epoch": 1}, r"a state has the keys \['epoch', 'settings'\], got \['epoch'\]"),
        ({"epoch": 1, "settings": {"ipc": 5}, 3: 4}, r"got \['3', 'epoch', 'settings'\]"),
        ({"epoch": 1, "settings": None}, r"a state's settings are \['ipc'\], got None"),
        ({"epoch": 1, "settings": {"ipc": 5, "x": 1}}, r"a state's settings are \['ipc'\], got \{'ipc': 5, 'x': 1\}"),
        ({"epoch": 1, "settings": {"ipc": 6}}, "saved with ipc=6, but here ipc=5: build it with ipc=6 to go on"),
    ],
)
def test_check_state_says_what_is_wrong(state: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_state(state, {"ipc": 5}, {"epoch"})
    check_state({"epoch": 1, "settings": {"ipc": 5}}, {"ipc": 5}, {"epoch"})
