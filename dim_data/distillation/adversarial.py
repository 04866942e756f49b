"""The adversarial stage: a discriminator, its losses and the loop; all of it is thrown away afterwards.

The game is the DiM paper's (arXiv 2303.04707): a Wasserstein critic with gradient penalty (Gulrajani et al.,
1704.00028) that also names the class of an image (Odena et al., 1610.09585).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.distillation.choices import AdversarialConfig
from dim_data.distillation.loops import Ema, StageStep, draw_batch
from dim_data.generator import Generator
from dim_data.images import ImageSpec, LabelledImages, Portion, augment, in_steps, torch_defaults
from dim_data.networks import ALONE, GlobalRng, Ranks, autocast, share_norms
from dim_data.protocol import LoopState

__all__ = ["Discriminator", "adversarial_parts", "adversarial_step", "gradient_penalty", "train_adversarial"]

PENALTY_WEIGHT = 10.0

Extra = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]


class Discriminator(nn.Module):
    """Eight 3x3 convolutions with LayerNorm over (C, H, W), a global maximum, a critic head and a class head.

    3.14 M parameters at 196 channels and 32 pixels, as in the paper.
    """

    STRIDES = (1, 2, 1, 2, 1, 1, 1, 2)

    def __init__(self, spec: ImageSpec, width: int = 196) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs, size = spec.channels, spec.size
        for stride in self.STRIDES:
            size = -(-size // stride)
            layers += [nn.Conv2d(inputs, width, 3, stride, 1), nn.LayerNorm((width, size, size)), nn.LeakyReLU(0.01)]
            inputs = width
        self.body = nn.Sequential(*layers)
        self.critic = nn.Linear(width, 1)
        self.classes = nn.Linear(width, spec.num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] to scores (B,) and class logits (B, num_classes)."""
        features = self.body(images * 2 - 1).amax((2, 3))
        return self.critic(features)[:, 0], self.classes(features)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """``mean((|grad of the score| - 1)^2)`` at points between real and fake images.

    The gradient is with respect to images in [-1, 1], the scale that the paper's weight of 10 is meant for.

    Args:
        discriminator: Images (B, C, H, W) to (scores, class logits).
        real: float (B, C, H, W) in [0, 1].
        fake: The same shape.
        mix: Share of the real image in each point, (B, 1, 1, 1) in [0, 1].
    """
    points = (mix * real + (1 - mix) * fake).detach().requires_grad_(True)
    scores, _ = discriminator(points)
    (gradient,) = torch.autograd.grad(scores.float().sum(), points, create_graph=True)
    return ((gradient / 2).flatten(1).norm(dim=1) - 1).square().mean()


@torch_defaults()
def adversarial_parts(
    generator: Generator, config: AdversarialConfig, ema: float, seed: int, device: torch.device
) -> LoopState:
    """A fresh state of the game: ``generator``, ``discriminator``, an optimizer each, and ``average``."""
    with GlobalRng(seed):
        discriminator = Discriminator(generator.spec, config.discriminator_width)
    discriminator.to(device)  # not channels last: LayerNorm would have to turn it back at each layer
    generator.train().requires_grad_(True)
    return LoopState(
        {
            "generator": generator,
            "discriminator": discriminator,
            "optimizer_g": torch.optim.Adam(generator.parameters(), config.lr, betas=(0.0, 0.9)),
            "optimizer_d": torch.optim.Adam(discriminator.parameters(), config.lr, betas=(0.0, 0.9)),
            "average": Ema(generator, ema),
        },
        seed,
    )


def adversarial_step(
    state: LoopState,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    extra: Extra | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """One step of the generator, then one of the discriminator, on the same fake images' labels.

    The class head learns from real images alone, and teaches the generator.

    Args:
        state: Made by :func:`adversarial_parts`; changed in place.
        images: Real images, float (B, C, H, W) in [0, 1].
        labels: int64 (B,): of the real images, and of the fakes.
        device: Where to compute.
        extra: Maps fake images in [0, 1] to a loss to add to the generator's, and terms to report.
        ranks: Who shares the batch; ``images`` and ``labels`` are this rank's part of it.

    Returns:
        The loss terms by name.
    """
    generator, discriminator = state.parts["generator"], state.parts["discriminator"]
    portion = ranks.portion
    discriminator.requires_grad_(False)
    with autocast(device):
        fake = _sample(generator, labels, state.rng, portion)
        scores, logits = discriminator(fake.contiguous())
    score, class_loss = -scores.float().mean(), F.cross_entropy(logits.float(), labels)
    loss, terms = score + class_loss, {"generator": score, "generator_class": class_loss}
    if extra is not None:
        added, more = extra(fake.float())
        loss, terms = loss + added, terms | more
    means = _apply(state.parts["optimizer_g"], loss, terms, ranks)
    state.parts["average"].update(generator)

    discriminator.requires_grad_(True)
    with torch.no_grad(), autocast(device):
        fake = _sample(generator, labels, state.rng, portion)
    # The critic keeps its own memory format, whatever the images come in.
    images, fake = images.contiguous(), fake.float().contiguous()
    mix = portion.of(torch.rand(portion.whole(len(images)), 1, 1, 1, generator=state.rng)).to(device)
    with autocast(device):
        (real_scores, real_logits), (fake_scores, _) = discriminator(images), discriminator(fake)
        penalty = gradient_penalty(discriminator, images, fake, mix)
    distance = real_scores.float().mean() - fake_scores.float().mean()
    class_loss = F.cross_entropy(real_logits.float(), labels)
    loss = class_loss - distance + PENALTY_WEIGHT * penalty
    terms = {"distance": distance, "class": class_loss, "penalty": penalty}
    return means | _apply(state.parts["optimizer_d"], loss, terms, ranks)


def _sample(generator: Generator, labels: Tensor, rng: torch.Generator, portion: Portion) -> Tensor:
    """Images of classes ``labels`` (B,), a portion of a batch, from latents that ``rng`` chooses; trainable."""
    serials = portion.of(torch.randint(1 << 40, (portion.whole(len(labels)),), generator=rng)).to(labels.device)
    return generator(generator.latents(labels, serials), labels)


def _apply(optimizer: Any, loss: Tensor, terms: dict[str, Tensor], ranks: Ranks) -> dict[str, float]:
    """A step on the mean of the ranks' losses; the means of their terms."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    means = ranks.average(optimizer, *terms.values())
    optimizer.step()
    return dict(zip(terms, means, strict=True))


@in_steps()
def train_adversarial(
    state: LoopState,
    data: LabelledImages,
    config: AdversarialConfig,
    *,
    augmentation: tuple[str, ...],
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[StageStep]:
    """Play the game for ``config.steps`` steps in all, yielding after each."""
    share_norms(state.parts["generator"], ranks)
    while state.step < config.steps:
        images, labels = draw_batch(data, config.batch_size, state.rng, device, ranks.portion)
        images = augment(images, augmentation, state.rng, ranks.portion)
        losses = adversarial_step(state, images, labels, device, ranks=ranks)
        state.step += 1
        yield StageStep("adversarial", state.step, config.steps, losses)
