"""Every choice of a distillation run, as a frozen dataclass, and the named sets of choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from dim_data.distillation.choices import (
    AdversarialConfig,
    LabelsConfig,
    MatchingConfig,
    PoolConfig,
    PriorTrainingConfig,
    ReconstructionConfig,
    RefiningConfig,
    SelectionConfig,
)
from dim_data.format import MAX_RANK
from dim_data.images import AUGMENTATIONS
from dim_data.networks import check_choice, check_int, check_names, check_number, parse_options

__all__ = ["PRESETS", "DistillConfig"]


@dataclass(frozen=True)
class DistillConfig:
    """Every choice of a distillation run: what is made, what all stages share, and what each has for itself.

    Args:
        architecture: A name in :data:`~dim_data.networks.ARCHITECTURES`.
        options: The architecture's options.
        source: ``"noise"`` or ``"codes"``.
        max_codes: Codes to store at most: of every class its share, but at least one; 0 stores one for every image.
            With noise, those that the Gaussians are fitted to.
        rank: 1 to 1024. Reconstruction with noise, where no prior is trained (and before it is): see
            :meth:`~dim_data.generator.Generator.forget_codes`.
        first: The stage before matching: ``"adversarial"`` or ``"reconstruction"``.
        augmentation: Of the real images that encoder and decoder see; flips only where ``spec.mirror`` allows.
        ema: Decay of the averaged weights, which are what is kept.
        holdout: Share of the training set held out to choose the checkpoint.
        seed: Of everything random.
        pool: How the pool of classifiers is trained.
        reconstruction: The first stage, if it is that one.
        adversarial: The first stage, if it is that one.
        matching: The second stage.
        selection: How the checkpoint that is kept is chosen.
        labels: What is stored beside the codes.
        refining: The last stage, if codes are stored.
        prior: The stage after matching, if noise drives a decoder of codes.

    Raises:
        ValueError: A field is out of range, names something unknown, or is set and would not be read.
        TypeError: ``options`` is no mapping, or one of them is not an int.
    """

    architecture: str = "compact"
    options: Mapping[str, int] = field(default_factory=dict)
    source: Literal["noise", "codes"] = "codes"
    max_codes: int = 0
    rank: int = 128
    first: Literal["adversarial", "reconstruction"] = "reconstruction"
    augmentation: tuple[str, ...] = ("flip",)
    ema: float = 0.999
    holdout: float = 0.05
    seed: int = 0
    pool: PoolConfig = field(default_factory=PoolConfig)
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    refining: RefiningConfig = field(default_factory=RefiningConfig)
    prior: PriorTrainingConfig = field(default_factory=PriorTrainingConfig)

    def __post_init__(self) -> None:
        for stage, kind in STAGES.items():
            if not isinstance(getattr(self, stage), kind):
                raise ValueError(f"{stage} must be a {kind.__name__}, got {getattr(self, stage)!r}")
        if not isinstance(self.options, Mapping):
            raise TypeError(f"options must be a mapping, got {self.options!r}")
        parse_options(self.architecture, self.options)
        check_choice("first", self.first, ("adversarial", "reconstruction"))
        check_choice("source", self.source, ("noise", "codes"))
        if self.first == "reconstruction" and self.architecture == "dim":
            raise ValueError("architecture 'dim' is trained by first='adversarial'; reconstruction needs 'compact'")
        if self.first == "adversarial" and self.source == "codes":
            raise ValueError("stored codes come from first='reconstruction'; an adversarial generator draws noise")
        check_int("max_codes", self.max_codes, 0)
        check_int("rank", self.rank, 1)
        if self.rank > MAX_RANK:
            raise ValueError(f"rank must be at most {MAX_RANK}, got {self.rank}")
        check_names("augmentation", self.augmentation, AUGMENTATIONS)
        check_number("ema", self.ema, "[0, 1)")
        check_number("holdout", self.holdout, "[0, 1)")
        check_int("seed", self.seed, -(1 << 63))
        if self.seed >= 1 << 63:
            raise ValueError(f"seed must be an int of 64 bits, got {self.seed}")
        taught = self.source == "codes" and self.matching.steps and any(self.pool.ages)
        for name, value in (("labels.soft", self.labels.soft), ("refining.looks", self.refining.looks)):
            if value and not taught:
                raise ValueError(
                    f"{name} needs source='codes' and a pool that is trained: matching.steps and pool.ages"
                )
        for stage in self.unread:
            if getattr(self, stage) != STAGES[stage]():
                needs = "it needs source='noise', first='reconstruction'"
                why = needs if stage == "prior" else f"first is {self.first!r}"
                raise ValueError(f"{stage}.* is set, and would not be read: {why}")
        for name, why in (
            ("rank", f"it needs source='noise', first='reconstruction', got {self.source!r} and {self.first!r}"),
            ("max_codes", f"it needs first='reconstruction', got {self.first!r}"),
        ):
            taken = self.first == "reconstruction" and (name != "rank" or self.source == "noise")
            if not taken and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} is set, and would not be read: {why}")
        if self.first == "reconstruction" and (self.pool.lifetime, self.pool.aging_steps) != (1, 0):
            raise ValueError(
                "pool.lifetime and pool.aging_steps are set, and would not be read: first is 'reconstruction'"
            )

    @property
    def unread(self) -> tuple[str, ...]:
        """Stages that a run of this has not; their settings are the defaults."""
        other = "adversarial" if self.first == "reconstruction" else "reconstruction"
        return (other,) if (self.source, self.first) == ("noise", "reconstruction") else (other, "prior")

    @property
    def learns_prior(self) -> bool:
        """Whether a prior is trained on the codes, in place of which it is then shipped."""
        return self.source == "noise" and self.first == "reconstruction" and self.prior.epochs > 0

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping that :meth:`from_dict` reads back: one within it for each stage."""
        return {name: _plain(value) for name, value in self.__dict__.items()}

    def to_record(self) -> dict[str, Any]:
        """:meth:`to_dict` without the stages that are :attr:`unread`, whose defaults may be others one day."""
        return {name: value for name, value in self.to_dict().items() if name not in self.unread}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DistillConfig:
        """Read a mapping made by :meth:`to_dict`; what it leaves out is as in the preset ``default``.

        Raises:
            ValueError: A key is unknown, or a value cannot be used.
        """
        return cls(
            **{
                name: STAGES[name](**_known(STAGES[name], value, f"{name}.")) if name in STAGES else value
                for name, value in _known(cls, values).items()
            }
        )


STAGES: dict[str, Any] = {f.name: f.default_factory for f in fields(DistillConfig) if is_dataclass(f.default_factory)}
"""The fields that are configurations themselves, with the class of each."""


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(one) for name, one in asdict(value).items()}
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _known(kind: type[Any], values: Any, prefix: str = "") -> dict[str, Any]:
    """What ``values`` says of the fields of ``kind``; lists are JSON's tuples."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix[:-1] or 'a configuration'} must be a mapping of settings, got {values!r}")
    known = [f"{prefix}{f.name}" for f in fields(kind)]
    unknown = [f"{prefix}{name}" for name in values if f"{prefix}{name}" not in known]
    if unknown:
        raise ValueError(f"unknown distillation settings {sorted(unknown)}: choose from {known}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


PRESETS: dict[str, DistillConfig] = {
    "default": DistillConfig(),
    "noise": DistillConfig(source="noise"),
    # Its first stage's defaults; then 100 epochs of 50,000 images in batches of 64, members renewed each epoch.
    "paper": DistillConfig(
        architecture="dim",
        source="noise",
        first="adversarial",
        augmentation=(),
        pool=PoolConfig(
            classifiers=("convnet3", "resnet10_half", "resnet18_half", "resnet10_ap_half", "resnet18_ap_half"),
            ages=(0, 0, 0, 0, 0),
            augmentation=("color", "crop", "cutout"),
            lifetime=782,
            aging_steps=16,
        ),
        matching=MatchingConfig(steps=78_200, batch_size=64, lr=5e-6, logit_weight=0.01),
    ),
}
"""``paper`` is the published recipe with its defects mended; ``default`` keeps codes; ``noise`` learns to draw codes
and keeps none."""
