from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from conftest import make_data, make_spec
from dim_data.distillation.choices import PoolConfig
from dim_data.distillation.pool import AGING_LR, PEAK_LR, age_member, reset_member, start_pool, warm_pool
from dim_data.networks.classifiers import ConvNet, ResNet
from dim_data.protocol.states import LoopState
from dim_data.protocol.training import measure_accuracy

pytestmark = pytest.mark.usefixtures("small_classifiers")

DATA, TEST = make_data(), make_data(seed=1)
CPU = torch.device("cpu")


def ages(*steps: int, augmentation: tuple[str, ...] = ()) -> PoolConfig:
    return PoolConfig(("convnet3", "resnet10"), steps, augmentation)


def pool(seed: int = 0) -> LoopState:
    return start_pool(ages(1, 1, 1), DATA.spec, seed, CPU)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(module.state_dict())


def same(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(t, before[name]) for name, t in module.state_dict().items())


def test_names_are_taken_in_turn_and_the_seed_decides() -> None:
    first, again, other = pool(), pool(), pool(seed=1)
    assert [type(m) for m in first.parts["pool"]] == [ConvNet, ResNet, ConvNet]
    assert same(first.parts["pool"], weights(again.parts["pool"]))
    assert not same(first.parts["pool"], weights(other.parts["pool"]))
    heads = [m.head.weight for m in first.parts["pool"]]
    assert not torch.equal(heads[0], heads[2])
    assert len(first.parts["optimizer"].param_groups) == 3


def test_members_are_trained_one_after_the_other_to_their_ages() -> None:
    state, config = pool(), ages(3, 0, 5, augmentation=("flip",))
    members = state.parts["pool"]
    fresh = [weights(m) for m in members]
    history = []
    for record in warm_pool(state, DATA, config, CPU, batch_size=6):
        history.append([not same(m, before) for m, before in zip(members, fresh, strict=True)])
        assert (record.stage, record.step, record.steps) == ("pool", len(history), 8)
        if record.step == 3:
            finished = weights(members[0])
    assert history == [[True, False, False]] * 3 + [[True, False, True]] * 5
    assert same(members[0], finished)
    assert list(warm_pool(state, DATA, config, CPU)) == []


def test_each_member_has_a_one_cycle_rate_of_its_own() -> None:
    state = pool()
    rates: list[list[float]] = [[], [], []]
    for record in warm_pool(state, DATA, ages(50, 0, 20), CPU, batch_size=2):
        member = 0 if record.step <= 50 else 2
        rates[member].append(state.parts["optimizer"].param_groups[member]["lr"])
    for age, cycle in ((50, rates[0]), (20, rates[2])):
        assert len(cycle) == age
        assert cycle[0] == pytest.approx(0.04 * PEAK_LR)
        assert max(cycle) == pytest.approx(PEAK_LR)
        assert cycle.index(max(cycle)) == age // 5
        assert cycle[-1] < 0.02 * PEAK_LR


def test_age_tells_in_accuracy(device: torch.device) -> None:
    state = start_pool(ages(40, 40), DATA.spec, 0, device)
    list(warm_pool(state, DATA.to(device), ages(40, 40), device, batch_size=12))
    for member in state.parts["pool"]:
        assert measure_accuracy(member, TEST) > 0.9


def test_aging_trains_one_member_at_the_papers_rate() -> None:
    state = pool()
    members = state.parts["pool"]
    fresh = [weights(m) for m in members]
    members[1].eval()
    age_member(state, 1, DATA, ("crop",), 2, 6, CPU)
    assert [same(m, before) for m, before in zip(members, fresh, strict=True)] == [True, False, True]
    assert members[1].stem[1].num_batches_tracked == 2
    assert state.parts["optimizer"].param_groups[1]["lr"] == AGING_LR
    assert state.step == 0
    age_member(state, 1, DATA, (), 0, 6, CPU)
    assert members[1].stem[1].num_batches_tracked == 2


@pytest.mark.parametrize("member", [0, 1])
def test_a_renewed_member_is_fresh_and_has_no_momentum(member: int) -> None:
    state = pool()
    module, optimizer = state.parts["pool"][member], state.parts["optimizer"]
    age_member(state, 0, DATA, (), 2, 6, CPU)
    age_member(state, 1, DATA, (), 2, 6, CPU)
    others = [weights(m) for i, m in enumerate(state.parts["pool"]) if i != member]
    twin = copy.deepcopy(state)
    before, momenta = weights(module), len(optimizer.state)
    reset_member(state, member)
    assert all(not torch.equal(t, before[name]) for name, t in module.state_dict().items() if t.ndim == 4)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.num_batches_tracked == 0
            assert torch.equal(layer.running_mean, torch.zeros_like(layer.running_mean))
        if isinstance(layer, nn.GroupNorm | nn.BatchNorm2d):
            assert torch.equal(layer.weight, torch.ones_like(layer.weight))
    assert len(optimizer.state) == momenta - len(list(module.parameters()))
    rest = [m for i, m in enumerate(state.parts["pool"]) if i != member]
    assert all(same(m, old) for m, old in zip(rest, others, strict=True))
    reset_member(twin, member)
    assert same(module, weights(twin.parts["pool"][member]))
    reset_member(twin, member)
    assert not same(module, weights(twin.parts["pool"][member]))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_member_that_cannot_look_at_such_images_is_refused_before_any_is_trained() -> None:
    with pytest.raises(
        ValueError, match=r"pool\.classifiers names 'convnet5', which cannot look at these images: the cla"
    ):
        start_pool(PoolConfig(("convnet3", "convnet5"), (2, 2)), make_spec(3, 28), 0, CPU)
