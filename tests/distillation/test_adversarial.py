from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from conftest import TINY, make_data, make_spec
from dim_data.distillation.adversarial import (
    Discriminator,
    Extra,
    adversarial_parts,
    adversarial_step,
    gradient_penalty,
    train_adversarial,
)
from dim_data.distillation.choices import AdversarialConfig
from dim_data.format.config import GeneratorConfig
from dim_data.generator.model import Generator
from dim_data.protocol.states import LoopState

DATA = make_data()
CPU = torch.device("cpu")


def parts(width: int = 8, lr: float = 1e-3, device: torch.device = CPU) -> LoopState:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(GeneratorConfig(DATA.spec, "compact", "noise", {**TINY, "latent_dim": 8})).to(device)
    return adversarial_parts(generator, AdversarialConfig(lr=lr, discriminator_width=width), 0.9, 1, device)


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    return DATA.images[:count] / 255, DATA.labels[:count]


def test_the_papers_discriminator_has_its_size() -> None:
    with torch.device("meta"):
        discriminator = Discriminator(make_spec(3, 32, 10))
    assert round(sum(p.numel() for p in discriminator.parameters()) / 1e6, 2) == 3.14


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 64), (1, 44)])
def test_scores_and_class_logits_of_every_size(channels: int, size: int) -> None:
    discriminator = Discriminator(make_spec(channels, size, 5), width=4)
    scores, logits = discriminator(torch.rand(3, channels, size, size))
    assert (scores.shape, logits.shape) == ((3,), (3, 5))


class Slope(nn.Module):
    """A critic whose gradient with respect to images in [-1, 1] has the given norm everywhere."""

    def __init__(self, norm: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        direction = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(norm * direction / direction.norm())

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return ((images * 2 - 1) * self.weight).sum((1, 2, 3)), images.new_zeros(len(images), 3)


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
def test_the_penalty_is_zero_for_unit_slopes_in_the_papers_scale(norm: float) -> None:
    real, fake, mix = torch.rand(5, 3, 8, 8), torch.rand(5, 3, 8, 8), torch.rand(5, 1, 1, 1)
    critic = Slope(norm, (3, 8, 8))
    penalty = gradient_penalty(critic, real, fake, mix)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)
    if norm not in (0.0, 1.0):
        penalty.backward()
        slope = (critic.weight.grad * critic.weight).sum() / norm
        assert slope.item() == pytest.approx(2 * (norm - 1), rel=1e-3)


class Bowl(nn.Module):
    """A critic whose gradient with respect to images y in [-1, 1] is y."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return (images * 2 - 1).square().sum((1, 2, 3)) / 2, images


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_penalty_is_taken_between_real_and_fake(share: float) -> None:
    real, fake = torch.rand(5, 1, 4, 4), torch.rand(5, 1, 4, 4, requires_grad=True)
    penalty = gradient_penalty(Bowl(), real, fake, torch.full((5, 1, 1, 1), share))
    points = (share * real + (1 - share) * fake.detach()) * 2 - 1
    expected = (points.flatten(1).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(penalty, expected)
    assert fake.grad is None


def test_a_step_moves_both_players_and_the_average(device: torch.device) -> None:
    state = parts(device=device)
    before = {name: copy.deepcopy(state.parts[name].state_dict()) for name in ("generator", "discriminator")}
    images, labels = (x.to(device) for x in batch())
    terms = adversarial_step(state, images, labels, device)
    assert set(terms) == {"generator", "generator_class", "distance", "class", "penalty"}
    assert torch.tensor(list(terms.values())).isfinite().all()
    assert terms["penalty"] >= 0
    for name, old in before.items():
        new = state.parts[name].state_dict()
        assert all(not torch.equal(t, new[key]) for key, t in old.items() if key.endswith("weight") and t.ndim == 4)
    assert state.parts["average"].updates == 1
    assert all(p.requires_grad for p in state.parts["discriminator"].parameters())
    for name in ("generator", "discriminator"):
        assert state.parts[name].training


def test_extra_terms_reach_the_generator_alone() -> None:
    seen: list[Tensor] = []

    def brightness(weight: float) -> Extra:
        def extra(fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append(fake)
            return weight * fake.mean(), {"brightness": fake.mean()}

        return extra

    plain, idle, bright = parts(), parts(), parts()
    terms = adversarial_step(plain, *batch(), CPU)
    assert adversarial_step(idle, *batch(), CPU, brightness(0.0)) == terms | {"brightness": seen[0].mean().item()}
    adversarial_step(bright, *batch(), CPU, brightness(1e4))
    assert seen[0].shape == (6, 1, 28, 28)
    assert torch.equal(seen[0], seen[1])
    for state, same in ((idle, True), (bright, False)):
        pairs = zip(state.parts["generator"].parameters(), plain.parts["generator"].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == same
        assert torch.equal(state.rng.get_state(), plain.rng.get_state())


class Judge(nn.Module):
    """A discriminator whose class head says which images it was trained to name."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.scale = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.scale * images.mean((1, 2, 3)) + images.square().sum((1, 2, 3)), self.bias.expand(len(images), -1)


def test_the_class_head_learns_from_real_images_alone() -> None:
    state, judge = parts(), Judge()
    state.parts |= {"discriminator": judge, "optimizer_d": torch.optim.SGD(judge.parameters(), 1.0)}
    images, labels = batch()[0], torch.zeros(6, dtype=torch.int64)
    adversarial_step(state, images, labels, CPU)
    expected = torch.tensor([1.0, 0, 0]) - 1 / 3
    torch.testing.assert_close(judge.bias.detach(), expected)


class Brightness(nn.Module):
    """A critic that multiplies an image's brightness by its only weight, and names no class."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.scale * images.mean((1, 2, 3)), images.new_zeros(len(images), 3, requires_grad=True)


def test_a_step_follows_the_losses_of_a_critic_with_penalty() -> None:
    state, critic = parts(), Brightness()
    state.parts |= {"discriminator": critic, "optimizer_d": torch.optim.SGD(critic.parameters(), 0.1)}
    terms = adversarial_step(state, *batch(), CPU)
    norm = 10 / (2 * 28)  # of the gradient: 28 x 28 pixels, each counting 10 / 28^2 / 2
    assert terms["penalty"] == pytest.approx((norm - 1) ** 2, rel=1e-3)
    slope = terms["distance"] / 10 - 10 * 2 * (norm - 1) / 56
    assert critic.scale.item() == pytest.approx(10 + 0.1 * slope, rel=1e-4)


def test_the_generator_pleases_the_critic() -> None:
    state, critic = parts(lr=1e-2), Brightness()
    state.parts |= {"discriminator": critic, "optimizer_d": torch.optim.SGD(critic.parameters(), 0.0)}
    labels, brightness = DATA.labels, []
    for _ in range(2):
        brightness.append(state.parts["generator"].sample(labels, torch.Generator().manual_seed(0)).mean().item())
        scores = [adversarial_step(state, *batch(), CPU)["generator"] for _ in range(20)]
    assert brightness[1] > brightness[0] + 0.1
    assert scores[0] == pytest.approx(-10 * brightness[1], rel=0.2)


def test_the_generator_learns_classes_from_the_class_head() -> None:
    class Bars(nn.Module):
        """Names the class by the brightest third, as the data are drawn."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(20.0))

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            logits = torch.stack([images[:, 0, 9 * k : 9 * k + 4].mean((1, 2)) for k in range(3)], 1)
            return 0 * images.mean((1, 2, 3)), self.scale * logits

    state, judge = parts(lr=1e-2), Bars()
    state.parts |= {"discriminator": judge, "optimizer_d": torch.optim.SGD(judge.parameters(), 0.0)}
    losses = [adversarial_step(state, *batch(12), CPU)["generator_class"] for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_game_teaches_the_discriminator_classes() -> None:
    state = parts(16, 2e-3)
    records = list(train_adversarial(state, DATA, AdversarialConfig(40, 12), augmentation=(), device=CPU))
    losses = [record.losses["class"] for record in records]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert {record.stage for record in records} == {"adversarial"}
    assert state.step == 40
