"""Which sizes decoders reach."""

from __future__ import annotations

import pytest
import torch

from conftest import make_spec
from dim_data import Generator, GeneratorConfig
from dim_data.networks import ARCHITECTURES, reached_sizes


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_sizes_reached_are_those_that_can_be_built(name: str) -> None:
    built = []
    for size in range(28, 129):
        try:
            with torch.device("meta"):
                Generator(GeneratorConfig(make_spec(1, size), name, options={"width": 8}))
        except ValueError:
            continue
        built.append(size)
    assert tuple(built) == reached_sizes(name)


def test_the_sizes_that_the_readme_states() -> None:
    assert reached_sizes("compact") == tuple(range(28, 129, 4))
    assert reached_sizes("dim") == (*range(28, 33), *range(49, 65), *range(97, 129))
