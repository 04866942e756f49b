"""The matching stage: real and generated images should get the same logits from a pool of classifiers.

:func:`match_labels` is the paper's: a generated image is paired with a real one of its class, and the
adversarial game goes on. :func:`match_images` pairs a real image with its own reconstruction, so logits and
features can agree exactly; a noise generator is also held to the class statistics of real features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.adversarial import adversarial_step
from dim_data.augment import augment, augment_pair
from dim_data.compute import autocast, compiled
from dim_data.loops import LoopState, StageStep, draw_batch
from dim_data.pool import age_member, renew_member
from dim_data.real import LabelledImages
from dim_data.reconstruction import reconstruction_terms

__all__ = ["class_distance", "feature_distance", "logit_distance", "match_images", "match_labels"]


def logit_distance(real: Tensor, fake: Tensor) -> Tensor:
    """``mean((log_softmax(real) - log_softmax(fake))^2)`` of logits (B, K): the loss of DiM (2303.04707)."""
    return (F.log_softmax(real, 1) - F.log_softmax(fake, 1)).square().mean()


def feature_distance(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Squared error of each pair of feature maps (B, ...) over the real ones' mean square, summed."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([(a - b).square().mean() / a.square().mean().clamp(min=1e-6) for a, b in pairs]).sum()


def class_distance(real: Sequence[Tensor], fake: Sequence[Tensor], labels: Tensor, num_classes: int) -> Tensor:
    """:func:`feature_distance` between the class means of the features of two batches with equal labels."""
    members = F.one_hot(labels, num_classes).to(real[0].dtype)
    weights = members / members.sum(0).clamp(min=1)
    return feature_distance(*([weights.T @ x.flatten(1) for x in features] for features in (real, fake)))


def match_images(
    state: LoopState,
    pool: LoopState,
    data: LabelledImages,
    steps: int,
    *,
    batch_size: int,
    lr: float,
    logit_weight: float,
    kl_weight: float,
    prior_weight: float,
    augmentation: tuple[str, ...],
    device: torch.device,
) -> Iterator[StageStep]:
    """Train encoder and decoder so that each image and its reconstruction look alike to the pool.

    The loss is 5 x mean absolute error + features + ``logit_weight`` x logits; for noise also ``kl_weight`` x
    divergence and ``prior_weight`` x (class statistics of features + cross-entropy) of images sampled from the
    prior. Each step asks one member of the pool, in turn; members do not change.

    Args:
        state: Made by :func:`~dim_data.reconstruction.reconstruction_parts`.
        pool: Made by :func:`~dim_data.pool.start_pool` and warmed.
        data: Real images.
        steps: Steps of the whole stage.
        batch_size: Images a step.
        lr: Peak rate; falls to zero at the end.
        logit_weight: Weight of :func:`logit_distance`.
        kl_weight: Weight of the divergence of the bottleneck, in nats per image.
        prior_weight: Weight of the terms on images sampled from the prior; noise only.
        augmentation: Applied to the real images before they are encoded.
        device: Where to compute.
    """
    generator, encoder, optimiser = (state.parts[name] for name in ("generator", "encoder", "optimiser"))
    spec, codes = data.spec, generator.config.source == "codes"
    members = [member.eval().requires_grad_(False) for member in pool.parts["pool"]]

    def loss_terms(
        member: nn.Module, images: Tensor, labels: Tensor, noise: Tensor, prior: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        copies, divergence = reconstruction_terms(generator, encoder, images, labels, noise)
        with torch.no_grad():
            *real, real_logits = member.features(spec.normalize(images))  # type: ignore[operator]
        *fake, fake_logits = member.features(spec.normalize(copies))  # type: ignore[operator]
        features = feature_distance([x.float() for x in real], [x.float() for x in fake])
        logits = logit_distance(real_logits.float(), fake_logits.float())
        sampled = divergence.new_zeros(())
        if not codes:
            *drawn, drawn_logits = member.features(spec.normalize(generator(prior, labels).float()))  # type: ignore[operator]
            statistics = class_distance([x.float() for x in real], [x.float() for x in drawn], labels, spec.num_classes)
            sampled = statistics + 0.1 * F.cross_entropy(drawn_logits.float(), labels)
        return F.l1_loss(copies, images), features, logits, divergence, sampled

    asks = [compiled(lambda *args, member=member: loss_terms(member, *args)) for member in members]
    while state.step < steps:
        for group in optimiser.param_groups:
            group["lr"] = lr * max(0.0, 1 - state.step / steps)
        images, labels = draw_batch(data, batch_size, state.rng, device)
        images = augment(images, augmentation, state.rng)
        size = generator.decoder.latent_shape[:1]
        noise, prior = (torch.randn(batch_size, *size, generator=state.rng).to(device) for _ in range(2))
        with autocast(device):
            pixels, features, logits, divergence, sampled = asks[state.step % len(asks)](images, labels, noise, prior)
        loss = 5 * pixels + features + logit_weight * logits + kl_weight * divergence + prior_weight * sampled
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        state.parts["average"].update(generator)
        state.parts["average_encoder"].update(encoder)
        state.step += 1
        terms = {"pixels": pixels, "features": features, "logits": logits}
        if not codes:
            terms |= {"divergence": divergence, "sampled": sampled}
        yield StageStep("matching", state.step, steps, {name: value.item() for name, value in terms.items()})


def match_labels(
    state: LoopState,
    pool: LoopState,
    data: LabelledImages,
    steps: int,
    *,
    batch_size: int,
    match_weight: float,
    lifetime: int,
    aging_steps: int,
    augmentation: tuple[str, ...],
    device: torch.device,
) -> Iterator[StageStep]:
    """The paper's second stage: the adversarial game plus ``match_weight`` x :func:`logit_distance`.

    Args:
        state: Made by :func:`~dim_data.adversarial.adversarial_parts`, rate already that of this stage.
        pool: Made by :func:`~dim_data.pool.start_pool`.
        data: Real images.
        steps: Steps of the whole stage.
        batch_size: Images a step.
        match_weight: 0.01 in the paper.
        lifetime: Steps of a member's turn; before its next turn it gets fresh weights. The paper's is an epoch.
        aging_steps: SGD steps on real images that the member takes before each step; 16 in the paper.
        augmentation: One draw shared by each pair.
        device: Where to compute.
    """
    members, spec = pool.parts["pool"], data.spec
    while state.step < steps:
        turn, age = divmod(state.step, lifetime)
        index = turn % len(members)
        if age == 0 and turn >= len(members):  # in its first turn a member is as old as the pool was made
            renew_member(pool, index)
        member = members[index]
        member.requires_grad_(True)
        age_member(pool, index, data, augmentation, aging_steps, batch_size, device)
        member.eval().requires_grad_(False)
        images, labels = draw_batch(data, batch_size, state.rng, device)

        def match(fake: Tensor, images: Tensor = images, member: nn.Module = member) -> tuple[Tensor, dict[str, float]]:
            real, fake = augment_pair(images, fake, augmentation, state.rng)
            with autocast(device):
                with torch.no_grad():
                    real_logits = member(spec.normalize(real))
                distance = logit_distance(real_logits.float(), member(spec.normalize(fake)).float())
            return match_weight * distance, {"logits": distance.item()}

        losses = adversarial_step(state, images, labels, device, extra=match)
        state.step += 1
        yield StageStep("matching", state.step, steps, losses)
