from __future__ import annotations

import torch

from dim_data.networks.rng import GlobalRng


def draw() -> list[float]:
    return torch.rand(3).tolist()


def test_it_begins_where_manual_seed_does_and_goes_on() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        wanted = [draw(), draw()]
    before = torch.get_rng_state()
    rng = GlobalRng(7)
    with rng:
        found = [draw()]
    draw()
    with rng:
        found.append(draw())
    assert found == wanted
    torch.set_rng_state(before)


def test_the_callers_numbers_run_on() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        wanted = [draw(), draw()]
        torch.manual_seed(1)
        found = [draw()]
        rng = GlobalRng(5)
        with rng:
            draw()
        found.append(draw())
    assert found == wanted


def test_its_state_is_its_own_inside_and_outside() -> None:
    one, two, three = (GlobalRng(seed) for seed in range(3))
    with one:
        draw()
        state = one.state_dict()
        wanted = draw()
    two.load_state_dict(state)
    with two:
        assert draw() == wanted
    with three:
        three.load_state_dict(state)
        assert draw() == wanted
    with one:
        draw()
    outside = one.state_dict()
    two.load_state_dict(outside)
    with one:
        wanted = draw()
    with two:
        assert draw() == wanted
