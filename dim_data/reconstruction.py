"""The encoder and the paired loop: a decoder learns from (real image, its own reconstruction).

Matching needs something to hold on to: when both halves of a pair are the same picture, their logits can
agree exactly, which two images of one class cannot. The encoder is thrown away afterwards; what stays is a
decoder and, for a ``codes`` generator, the codes of the training images.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dim_data.architectures import ResidualBlock
from dim_data.augment import augment
from dim_data.compute import autocast, compiled
from dim_data.generator import Generator
from dim_data.loops import Ema, LoopState, StageStep, draw_batch
from dim_data.real import LabelledImages
from dim_data.specs import ImageSpec

__all__ = [
    "Encoder",
    "encode_all",
    "gaussian_kl",
    "quantise",
    "reconstruct",
    "reconstruction_parts",
    "reconstruction_terms",
]


class Encoder(nn.Module):
    """Images to latents: a map in [-1, 1] for codes, mean and log-variance of a vector for noise.

    Args:
        spec: The images.
        latent_shape: Of the generator; one dimension means a Gaussian bottleneck.
        base: Height and width of the last feature map.
        width: Channels at the base resolution.
    """

    def __init__(self, spec: ImageSpec, latent_shape: tuple[int, ...], base: int, width: int = 128) -> None:
        super().__init__()
        size, channels = spec.size // 2, width // 2
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(4 * spec.channels, channels, 3, padding=1)]
        layers += [ResidualBlock(channels)]
        while size > base:
            layers += [nn.LeakyReLU(0.2), nn.Conv2d(channels, width, 4, 2, 1), ResidualBlock(width)]
            channels, size = width, size // 2
        layers += [ResidualBlock(channels), nn.LeakyReLU(0.2)]
        if len(latent_shape) == 1:
            layers += [nn.Conv2d(channels, 32, 1), nn.Flatten()]
            layers += [nn.Linear(32 * base * base, 2 * latent_shape[0])]
        else:
            # Without the normalisation a dark image set drives every tanh to its end, where no gradient is; with it
            # all levels of a code are used about equally often.
            layers += [
                nn.Conv2d(channels, latent_shape[0], 1),
                nn.BatchNorm2d(latent_shape[0], affine=False),
                nn.Tanh(),
            ]
        self.body = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to latents (B, *latent_shape), or (B, 2 * latent_dim)."""
        return self.body(images * 2 - 1)


def quantise(latents: Tensor, levels: int) -> Tensor:
    """Round latents in [-1, 1] to ``levels`` values; the gradient passes straight through."""
    rounded = ((latents + 1) / 2 * (levels - 1)).round() / (levels - 1) * 2 - 1
    return latents + (rounded - latents).detach()


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean divergence of N(mean, exp(log_variance)), both (B, D), from N(0, 1): nats an image, a scalar."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()


def reconstruction_parts(generator: Generator, lr: float, ema: float, seed: int, device: torch.device) -> LoopState:
    """A fresh state of the paired loop: ``generator``, ``encoder``, ``optimiser``, averages of both nets."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = generator.decoder.latent_shape
        base: int = generator.decoder.map_shape[-1]  # type: ignore[index, assignment]
        encoder = Encoder(generator.spec, shape, base)
    encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator.train().requires_grad_(True)
    parameters = [*generator.parameters(), *encoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=0.0)
    return LoopState(
        {
            "generator": generator,
            "encoder": encoder,
            "optimiser": optimiser,
            "average": Ema(generator, ema),
            "average_encoder": Ema(encoder, ema),
        },
        seed,
    )


def reconstruction_terms(
    generator: Generator, encoder: nn.Module, images: Tensor, labels: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Reconstructions (B, C, H, W) in [0, 1] and the bottleneck's divergence (0 for codes).

    Args:
        generator: Decodes.
        encoder: Encodes.
        images: float (B, C, H, W) in [0, 1].
        labels: int64 (B,).
        noise: Standard normal, (B, latent_dim); unused for codes.
    """
    encoded = encoder(images).float()
    if generator.config.source == "codes":
        latents, divergence = quantise(encoded, generator.code_levels), encoded.new_zeros(())
    else:
        mean, log_variance = encoded.chunk(2, 1)
        log_variance = log_variance.clamp(-8, 4)
        latents, divergence = mean + noise * (log_variance / 2).exp(), gaussian_kl(mean, log_variance)
    return generator(latents, labels).float(), divergence


def reconstruct(
    state: LoopState,
    data: LabelledImages,
    steps: int,
    *,
    batch_size: int,
    lr: float,
    kl_weight: float,
    augmentation: tuple[str, ...],
    device: torch.device,
) -> Iterator[StageStep]:
    """Train encoder and decoder on pixels alone (mean absolute error), yielding after each step."""
    generator, encoder, optimiser = (state.parts[name] for name in ("generator", "encoder", "optimiser"))
    terms = compiled(lambda x, y, noise: reconstruction_terms(generator, encoder, x, y, noise))
    while state.step < steps:
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (state.step + 1) / 200)
        images, labels = draw_batch(data, batch_size, state.rng, device)
        images = augment(images, augmentation, state.rng)
        noise = torch.randn(batch_size, *generator.decoder.latent_shape[:1], generator=state.rng).to(device)
        with autocast(device):
            copies, divergence = terms(images, labels, noise)
        pixels = F.l1_loss(copies, images)
        loss = 5 * pixels + kl_weight * divergence
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        state.parts["average"].update(generator)
        state.parts["average_encoder"].update(encoder)
        state.step += 1
        losses = {"pixels": pixels.item()}
        if generator.config.source == "noise":
            losses["divergence"] = divergence.item()
        yield StageStep("reconstruction", state.step, steps, losses)


@torch.no_grad()
def encode_all(generator: Generator, encoder: nn.Module, data: LabelledImages, device: torch.device) -> Generator:
    """``generator`` with the codes of every image of ``data`` stored in it, on ``device``."""
    encoder.eval()
    latents = []
    for images in data.images.split(256):
        with autocast(device):
            batch = (images.to(device).float() / 255).contiguous(memory_format=torch.channels_last)
            latents.append(encoder(batch).float())
    return generator.store(torch.cat(latents), data.labels.to(device)).to(device)
