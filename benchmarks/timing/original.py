"""The DiM paper's generator and training steps as its public code runs them, to be timed beside ours.

Written anew from what that code does (float32, eager, contiguous tensors; both networks' weights collect gradients
in the generator's step; logits of real images keep a graph that nobody uses; the data loader is started again
before each generator step). The networks are this library's, of the same shapes. :func:`load_generator` takes the
original network instead, from a checkout that the user supplies; this library contains none of that code.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from dim_data.distillation.adversarial import Discriminator, gradient_penalty
from dim_data.images import ImageSpec, LabelledImages, augment, augment_pair
from dim_data.networks import ARCHITECTURES, build_classifier, parse_options

LATENT = 100
AUGMENTATION = ("color", "crop", "cutout")


class OriginalGenerator(nn.Module):
    """The paper's decoder in float32 with batch statistics, from noise and one-hot labels, images in [-1, 1]."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.spec = spec
        self.decoder = ARCHITECTURES["dim"].decoder(spec, parse_options("dim", {}), "noise")

    def forward(self, noise: Tensor) -> Tensor:
        """(B, 100), the first ``num_classes`` of them one-hot, to (B, C, H, W)."""
        return self.decoder(noise, noise[:, : self.spec.num_classes].argmax(1))


def load_generator(checkout: Path, spec: ImageSpec) -> nn.Module:
    """The generator of ``checkout/gan_model.py``, a checkout of the paper's code; runs that file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = checkout / "gan_model.py"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: --original wants a checkout of the DiM paper's code")
    module_spec = importlib.util.spec_from_file_location("gan_model", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    names = {"fashion_mnist": "fashion"}
    return module.Generator(SimpleNamespace(data=names.get(spec.name, spec.name)))


def draw_noise(labels: Tensor, classes: int) -> Tensor:
    """Noise (B, 100) whose first entries are the one-hot labels."""
    noise = torch.randn(len(labels), LATENT)
    noise[:, :classes] = F.one_hot(labels, classes)
    return noise.to(labels.device)


class OriginalSteps:
    """One adversarial and one matching step in the manner of the paper's code, batch by batch.

    Args:
        data: Real images.
        batch_size: Images a step.
        member: The classifier that is trained and asked in a matching step.
        device: Where to compute.
    """

    def __init__(self, data: LabelledImages, batch_size: int, member: str, device: torch.device) -> None:
        spec = self.spec = data.spec
        self.device, self.batch_size = device, batch_size
        self.generator = OriginalGenerator(spec).to(device).train()
        self.discriminator = Discriminator(spec).to(device)
        self.member = build_classifier(member, spec).to(device).train()
        self.optimizers = [
            torch.optim.Adam(net.parameters(), 1e-4, betas=(0.0, 0.9)) for net in (self.generator, self.discriminator)
        ]
        self.sgd = torch.optim.SGD(self.member.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
        self.rng = torch.Generator().manual_seed(0)
        images = data.images.float() / 255
        self.loader = DataLoader(
            TensorDataset(images, data.labels), batch_size, shuffle=True, num_workers=2, drop_last=True
        )
        self.images, self.labels = (t.to(device) for t in next(iter(self.loader)))

    def adversarial(self, extra: Callable[[Tensor], Tensor] | None = None) -> int:
        """The generator's step, then the discriminator's; returns the images of a batch."""
        images, labels, (generator_adam, discriminator_adam) = self.images, self.labels, self.optimizers
        fake = self.generator(draw_noise(labels, self.spec.num_classes)) / 2 + 0.5
        scores, logits = self.discriminator(fake)
        loss = F.cross_entropy(logits, labels) - scores.mean()
        if extra is not None:
            loss = loss + extra(fake)
        generator_adam.zero_grad()
        loss.backward()
        generator_adam.step()
        with torch.no_grad():
            fake = self.generator(draw_noise(labels, self.spec.num_classes)) / 2 + 0.5
        fake_scores, fake_logits = self.discriminator(fake)
        real_scores, real_logits = self.discriminator(images)
        mix = torch.rand(len(images), 1, 1, 1, device=self.device)
        penalty = gradient_penalty(self.discriminator, images, fake, mix)
        classes = F.cross_entropy(real_logits, labels) + F.cross_entropy(fake_logits, labels)
        discriminator_adam.zero_grad()
        (fake_scores.mean() - real_scores.mean() + classes + 10 * penalty).backward()
        discriminator_adam.step()
        return len(images)

    def matching(self) -> int:
        """16 steps of the member on batches of a freshly started loader, then a step of the game with matching."""

        def match(fake: Tensor) -> Tensor:
            for index, (images, labels) in enumerate(self.loader):
                if index == 16:
                    break
                inputs = self.spec.normalize(augment(images.to(self.device), AUGMENTATION[:2], self.rng))
                self.sgd.zero_grad()
                F.cross_entropy(self.member(inputs), labels.to(self.device)).backward()
                self.sgd.step()
            real, fake = augment_pair(self.images, fake, AUGMENTATION, self.rng)
            logits = [F.log_softmax(self.member(self.spec.normalize(x)), 1) for x in (real, fake)]
            return 0.01 * (logits[0] - logits[1]).square().mean()

        return self.adversarial(match)
