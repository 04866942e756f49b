"""Every choice of a distillation run, as a frozen dataclass, and the named sets of choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from dim_data.images import AUGMENTATIONS
from dim_data.networks import CLASSIFIERS

__all__ = ["PRESETS", "DistillConfig"]

_POSITIVE = (
    "rank",
    "first_steps",
    "first_batch",
    "matching_batch",
    "pool_lifetime",
    "discriminator_width",
    "selection_images",
)


def _is_int(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class DistillConfig:
    """Every choice of a distillation run.

    Args:
        architecture: A name in :data:`~dim_data.networks.ARCHITECTURES`.
        source: ``"noise"`` or ``"codes"``.
        options: The architecture's options.
        first: The stage before matching: ``"adversarial"`` or ``"reconstruction"``.
        first_steps: Its steps.
        first_batch: Images a step.
        first_lr: Its rate.
        matching_steps: Steps of the matching stage; 0 leaves it out.
        matching_batch: Images a step.
        matching_lr: Its (peak) rate.
        pool: Names in :data:`~dim_data.networks.CLASSIFIERS`, taken in turn.
        pool_ages: Steps of 50 images that each member is trained before matching; one member each.
        pool_lifetime: After an adversarial stage: steps until a member starts afresh.
        pool_aging: After an adversarial stage: SGD steps of a member before each matching step.
        logit_weight: Weight of the logit distance in matching.
        rank: Reconstruction with noise: see :meth:`~dim_data.generator.Generator.forget_codes`.
        augmentation: Of the real images that encoder and decoder see; flips only where ``spec.mirror`` allows.
        pool_augmentation: Of the real images that the pool is trained on, and of matched pairs.
        discriminator_width: Adversarial: channels of the discriminator.
        soft_labels: Store with each code what the pool's longest-trained members say of its image.
        label_temperature: Divides their logits for that: above 1 they are less sure, and teach more.
        refining_looks: Looks at each picture in the last stage, which improves the stored codes under the same members:
            see :func:`~dim_data.distillation.refine_codes`. 0 leaves it out.
        max_codes: Codes to store at most, balanced over the classes; 0 stores one for every image.
        ema: Decay of the averaged weights, which are what is kept.
        holdout: Share of the training set held out to choose the checkpoint.
        selections: How many checkpoints of the matching stage compete, the last one included.
        selection_images: Images shown to the ConvNet-3 that scores a checkpoint.
        seed: Of everything random.

    Raises:
        ValueError: A field is out of range or names something unknown.
    """

    architecture: str = "compact"
    source: Literal["noise", "codes"] = "codes"
    options: Mapping[str, int] = field(default_factory=dict)
    first: Literal["adversarial", "reconstruction"] = "reconstruction"
    first_steps: int = 400
    first_batch: int = 64
    first_lr: float = 2e-3
    matching_steps: int = 6000
    matching_batch: int = 64
    matching_lr: float = 2e-3
    pool: tuple[str, ...] = ("convnet3",)
    pool_ages: tuple[int, ...] = (300, 1000, 3000)
    pool_lifetime: int = 1
    pool_aging: int = 0
    logit_weight: float = 0.05
    rank: int = 128
    augmentation: tuple[str, ...] = ("flip",)
    pool_augmentation: tuple[str, ...] = ("flip",)
    discriminator_width: int = 196
    soft_labels: bool = False
    label_temperature: float = 2.0
    refining_looks: int = 0
    max_codes: int = 0
    ema: float = 0.999
    holdout: float = 0.05
    selections: int = 2
    selection_images: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.first not in ("adversarial", "reconstruction"):
            raise ValueError(f"first must be 'adversarial' or 'reconstruction', got {self.first!r}")
        if self.source not in ("noise", "codes"):
            raise ValueError(f"source must be 'noise' or 'codes', got {self.source!r}")
        if self.first == "reconstruction" and self.architecture == "dim":
            raise ValueError("architecture 'dim' is trained by first='adversarial'; reconstruction needs 'compact'")
        if self.first == "adversarial" and self.source == "codes":
            raise ValueError("stored codes come from first='reconstruction'; an adversarial generator draws noise")
        if not isinstance(self.soft_labels, bool):
            raise ValueError(f"soft_labels must be True or False, got {self.soft_labels!r}")
        for name in _POSITIVE:
            if not _is_int(getattr(self, name), 1):
                raise ValueError(f"{name} must be a positive int, got {getattr(self, name)!r}")
        for name in ("matching_steps", "pool_aging", "selections", "refining_looks", "max_codes"):
            if not _is_int(getattr(self, name), 0):
                raise ValueError(f"{name} must be an int of at least 0, got {getattr(self, name)!r}")
        if not _is_int(self.seed, -(1 << 63)):
            raise ValueError(f"seed must be an int, got {self.seed!r}")
        for name in ("first_lr", "matching_lr"):
            if not _is_number(getattr(self, name)) or not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be in (0, 1), got {getattr(self, name)!r}")
        for name in ("ema", "holdout"):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")
        if not _is_number(self.label_temperature) or not 0 < self.label_temperature < math.inf:
            raise ValueError(f"label_temperature must be a positive number, got {self.label_temperature!r}")
        for name in ("logit_weight",):
            if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {getattr(self, name)!r}")
        for name in ("pool", "pool_ages", "augmentation", "pool_augmentation"):
            if not isinstance(getattr(self, name), tuple):
                raise ValueError(f"{name} must be a tuple, got {getattr(self, name)!r}")
        for name in ("soft_labels", "refining_looks"):
            if getattr(self, name) and (self.source != "codes" or not self.matching_steps or not any(self.pool_ages)):
                raise ValueError(f"{name} need source='codes' and a pool that is trained: matching_steps and pool_ages")
        if not self.pool or not self.pool_ages or not all(_is_int(age, 0) for age in self.pool_ages):
            raise ValueError("pool and pool_ages must name at least one member, of age 0 or more")
        for known, names in (
            (CLASSIFIERS, self.pool),
            (AUGMENTATIONS, self.augmentation + self.pool_augmentation),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(f"unknown name {name!r}: choose from {sorted(known)}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping that :meth:`from_dict` reads back."""
        values = {**self.__dict__, "options": dict(self.options)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DistillConfig:
        """Read a mapping made by :meth:`to_dict`; unknown keys raise ``ValueError``."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"unknown distillation settings {sorted(unknown)}")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**settings)


PRESETS: dict[str, DistillConfig] = {
    "default": DistillConfig(),
    "noise": DistillConfig(source="noise"),
    # 150 epochs of 50,000 images in batches of 128, then 100 epochs in batches of 64, members renewed each epoch.
    "paper": DistillConfig(
        architecture="dim",
        source="noise",
        first="adversarial",
        first_steps=58_600,
        first_batch=128,
        first_lr=1e-4,
        matching_steps=78_200,
        matching_batch=64,
        matching_lr=5e-6,
        pool=("convnet3", "resnet10_half", "resnet18_half", "resnet10_ap_half", "resnet18_ap_half"),
        pool_ages=(0, 0, 0, 0, 0),
        pool_lifetime=782,
        pool_aging=16,
        logit_weight=0.01,
        augmentation=(),
        pool_augmentation=("color", "crop", "cutout"),
    ),
}
"""``paper`` is the published recipe with its defects mended; ``default`` keeps codes; ``noise`` keeps none."""
