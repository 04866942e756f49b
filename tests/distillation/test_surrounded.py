"""A run is the same whatever the caller has switched on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from surroundings import SURROUNDINGS, inside, plain, switches
from test_stages import DATA, no_curves, settings, small_nets

from dim_data.distillation.stages import distill

__all__ = ["no_curves", "small_nets"]

pytestmark = pytest.mark.usefixtures("small_nets", "no_curves")


@pytest.fixture(scope="module")
def outside() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("name", ["refined", "game"])
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_a_run_is_the_same(name: str, surroundings: str, outside: dict[str, Any], tmp_path: Path) -> None:
    config, seen = settings(name, labels={"soft": name == "refined"}), []
    if name not in outside:
        outside[name] = plain(distill(DATA, config=config, out=tmp_path / "outside", device="cpu"))

    def watch(step: Any) -> None:
        seen.append(switches()[:-1])
        torch.rand((), device="cpu")

    with torch.random.fork_rng(devices=[]), inside(surroundings):
        before = switches()
        found = distill(DATA, config=config, out=tmp_path / "inside", device="cpu", on_step=watch)
        assert set(seen) == {before[:-1]}
    assert plain(found) == outside[name]


@pytest.mark.parametrize("surroundings", ["inference_mode meta", "float64 no_grad"])
def test_a_run_resumes_inside(surroundings: str, tmp_path: Path) -> None:
    config = settings("codes")
    whole = plain(distill(DATA, config=config, out=tmp_path / "whole", device="cpu"))
    for asked in (3, 11, 12):  # one in each stage

        class Stop:
            left = asked

            def __call__(self) -> bool:
                Stop.left -= 1
                return Stop.left == 0

        with inside(surroundings), pytest.raises(Exception, match="saved in"):
            distill(DATA, config=config, out=tmp_path / "parts", device="cpu", should_stop=Stop())
    assert plain(distill(DATA, config=config, out=tmp_path / "parts", device="cpu")) == whole
