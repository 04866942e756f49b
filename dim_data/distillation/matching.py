"""The matching stage: real and generated images should get the same logits from a pool of classifiers.

:func:`match_labels` is the paper's: a generated image is paired with a real one of its class, and the
adversarial game goes on. :func:`match_images` pairs a real image with its own reconstruction, so logits and
features can agree exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.distillation.adversarial import adversarial_step
from dim_data.distillation.choices import MatchingConfig, PoolConfig
from dim_data.distillation.loops import StageStep, draw_batch
from dim_data.distillation.pool import age_member, reset_member
from dim_data.distillation.reconstruction import reconstruction
from dim_data.images import ImageSpec, LabelledImages, augment, augment_pair, in_steps
from dim_data.networks import ALONE, Ranks, autocast, compiled, share_norms
from dim_data.protocol import LoopState

__all__ = ["feature_distance", "feature_errors", "logit_distance", "match_images", "match_labels", "seen_errors"]


def logit_distance(real: Tensor, fake: Tensor) -> Tensor:
    """``mean((log_softmax(real) - log_softmax(fake))^2)`` of logits (B, K): the loss of DiM (2303.04707)."""
    return (F.log_softmax(real, 1) - F.log_softmax(fake, 1)).square().mean()


def feature_errors(real: Sequence[Tensor], fake: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Squared error of each of K pairs of feature maps (B, ...), and the real ones' mean square: (K,) and (K,)."""
    pairs = list(zip(real, fake, strict=True))
    errors = torch.stack([(a - b).square().mean() for a, b in pairs])
    return errors, torch.stack([a.square().mean() for a, _ in pairs])


def feature_distance(errors: Tensor, squares: Tensor) -> Tensor:
    """The sum of :func:`feature_errors` relative to the real maps' mean squares, those of the whole batch."""
    return (errors / squares.clamp(min=1e-6)).sum()


def seen_errors(member: nn.Module, spec: ImageSpec, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a classifier sees in images (B, C, H, W) in [0, 1] against what it sees in their copies.

    Returns:
        :func:`feature_errors`, which are two, and :func:`logit_distance`. Gradients reach ``fake`` alone.
    """
    with torch.no_grad():
        *maps, logits = member.features(spec.normalize(real))  # type: ignore[operator]
    *fake_maps, fake_logits = member.features(spec.normalize(fake))  # type: ignore[operator]
    errors, squares = feature_errors([x.float() for x in maps], [x.float() for x in fake_maps])
    return errors, squares, logit_distance(logits.float(), fake_logits.float())


@in_steps()
def match_images(
    state: LoopState,
    pool: LoopState,
    data: LabelledImages,
    config: MatchingConfig,
    *,
    augmentation: tuple[str, ...],
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[StageStep]:
    """Train encoder and decoder so that each image and its reconstruction look alike to the pool.

    The loss is 5 x mean absolute error + features + ``config.logit_weight`` x logits. Each step asks one member of the
    pool, in turn; members do not change.

    Args:
        state: Made by :func:`~dim_data.distillation.reconstruction.reconstruction_parts`.
        pool: Made by :func:`~dim_data.distillation.pool.start_pool` and warmed.
        data: Real images.
        config: Of the whole stage.
        augmentation: Applied to the real images before they are encoded.
        device: Where to compute.
        ranks: Who shares each batch.
    """
    generator, encoder, optimizer = (state.parts[name] for name in ("generator", "encoder", "optimizer"))
    spec = data.spec
    members = [member.eval().requires_grad_(False) for member in pool.parts["pool"]]

    for network in (generator, encoder):
        share_norms(network, ranks)

    def loss_terms(member: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        copies = reconstruction(generator, encoder, images, labels)
        return F.l1_loss(copies, images), *seen_errors(member, spec, images, copies)

    alone = ranks.size == 1
    asks = [compiled(lambda *args, member=member: loss_terms(member, *args), alone) for member in members]
    while state.step < config.steps:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * max(0.0, 1 - state.step / config.steps)
        images, labels = draw_batch(data, config.batch_size, state.rng, device, ranks.portion)
        images = augment(images, augmentation, state.rng, ranks.portion)
        with autocast(device):
            pixels, errors, squares, logits = asks[state.step % len(asks)](images, labels)
        features = feature_distance(errors, ranks.mean(squares))
        loss = 5 * pixels + features + config.logit_weight * logits
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        means = ranks.average(optimizer, pixels, features, logits)
        optimizer.step()
        state.parts["average"].update(generator)
        state.parts["average_encoder"].update(encoder)
        state.step += 1
        losses = dict(zip(("pixels", "features", "logits"), means, strict=True))
        yield StageStep("matching", state.step, config.steps, losses)


@in_steps()
def match_labels(
    state: LoopState,
    pool: LoopState,
    data: LabelledImages,
    config: MatchingConfig,
    pool_config: PoolConfig,
    *,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Iterator[StageStep]:
    """The paper's second stage: the adversarial game plus ``config.logit_weight`` x :func:`logit_distance`.

    Args:
        state: Made by :func:`~dim_data.distillation.adversarial.adversarial_parts`.
        pool: Made by :func:`~dim_data.distillation.pool.start_pool`.
        data: Real images.
        config: Of the whole stage; the paper's ``logit_weight`` is 0.01.
        pool_config: A member's turn has ``lifetime`` steps, the paper's an epoch; before its next turn it gets fresh
            weights. Before each step it takes ``aging_steps`` of SGD on real images, the paper's 16. One draw of
            ``augmentation`` is shared by each pair.
        device: Where to compute.
        ranks: Who shares each batch.
    """
    members, spec, portion = pool.parts["pool"], data.spec, ranks.portion
    for network in (state.parts["generator"], members):
        share_norms(network, ranks)
    for optimizer in (state.parts["optimizer_g"], state.parts["optimizer_d"]):
        for group in optimizer.param_groups:
            group["lr"] = config.lr
    while state.step < config.steps:
        turn, age = divmod(state.step, pool_config.lifetime)
        index = turn % len(members)
        if age == 0 and turn >= len(members):  # in its first turn a member is as old as the pool was made
            reset_member(pool, index)
        member = members[index]
        member.requires_grad_(True)
        aging = (pool_config.augmentation, pool_config.aging_steps, config.batch_size)
        age_member(pool, index, data, *aging, device, ranks)
        member.eval().requires_grad_(False)
        images, labels = draw_batch(data, config.batch_size, state.rng, device, portion)

        def match(
            fake: Tensor, images: Tensor = images, member: nn.Module = member
        ) -> tuple[Tensor, dict[str, Tensor]]:
            real, fake = augment_pair(images, fake, pool_config.augmentation, state.rng, portion)
            with autocast(device):
                with torch.no_grad():
                    real_logits = member(spec.normalize(real))
                distance = logit_distance(real_logits.float(), member(spec.normalize(fake)).float())
            return config.logit_weight * distance, {"logits": distance}

        losses = adversarial_step(state, images, labels, device, extra=match, ranks=ranks)
        state.step += 1
        yield StageStep("matching", state.step, config.steps, losses)
