"""The choices of each stage, as a frozen dataclass: a field that one stage alone reads is in that stage's own."""

from __future__ import annotations

from dataclasses import dataclass

from dim_data.images import AUGMENTATIONS
from dim_data.networks import CLASSIFIERS, PriorConfig, check_int, check_names, check_number, is_int

__all__ = [
    "AdversarialConfig",
    "LabelsConfig",
    "MatchingConfig",
    "PoolConfig",
    "PriorTrainingConfig",
    "ReconstructionConfig",
    "RefiningConfig",
    "SelectionConfig",
]


@dataclass(frozen=True)
class PoolConfig:
    """The pool of classifiers, under which real and generated images are compared.

    Args:
        classifiers: Names in :data:`~dim_data.networks.CLASSIFIERS`, taken in turn; no more than there are ages.
        ages: Steps of 50 images that each member is trained before matching; one member each.
        augmentation: Of the real images that members are trained on, and of matched pairs.
        lifetime: After an adversarial stage: steps until a member starts afresh.
        aging_steps: After an adversarial stage: SGD steps of a member before each matching step.

    Raises:
        ValueError: A field is out of range or names something unknown.
    """

    classifiers: tuple[str, ...] = ("convnet3",)
    ages: tuple[int, ...] = (300, 1000, 3000)
    augmentation: tuple[str, ...] = ("flip",)
    lifetime: int = 1
    aging_steps: int = 0

    def __post_init__(self) -> None:
        check_names("pool.classifiers", self.classifiers, CLASSIFIERS)
        check_names("pool.augmentation", self.augmentation, AUGMENTATIONS)
        if not isinstance(self.ages, tuple) or not all(is_int(age, 0) for age in self.ages):
            raise ValueError(f"pool.ages must be a tuple of ints of at least 0, got {self.ages!r}")
        if not self.classifiers or not self.ages:
            raise ValueError("pool.classifiers and pool.ages must name at least one member")
        if len(self.classifiers) > len(self.ages):
            raise ValueError(
                f"pool.classifiers names {len(self.classifiers)} and pool.ages has {len(self.ages)}: there is one "
                f"member for each age, so that the rest would not be read. Give as many ages, or fewer classifiers"
            )
        check_int("pool.lifetime", self.lifetime, 1)
        check_int("pool.aging_steps", self.aging_steps, 0)


@dataclass(frozen=True)
class ReconstructionConfig:
    """The first stage of decoders of codes: encoder and decoder learn from pixels alone.

    Args:
        steps: Steps.
        batch_size: Images a step.
        lr: Rate of Muon, after a rise of 200 steps.

    Raises:
        ValueError: A field is out of range.
    """

    steps: int = 400
    batch_size: int = 64
    lr: float = 1e-2

    def __post_init__(self) -> None:
        check_int("reconstruction.steps", self.steps, 1)
        check_int("reconstruction.batch_size", self.batch_size, 1)
        check_number("reconstruction.lr", self.lr, "(0, 1)")


@dataclass(frozen=True)
class AdversarialConfig:
    """The paper's first stage: a critic with gradient penalty. The defaults are 150 epochs of 50,000 images.

    Args:
        steps: Steps.
        batch_size: Images a step.
        lr: Rate of both networks.
        discriminator_width: Channels of the discriminator, in this stage and in the matching after it.

    Raises:
        ValueError: A field is out of range.
    """

    steps: int = 58_600
    batch_size: int = 128
    lr: float = 1e-4
    discriminator_width: int = 196

    def __post_init__(self) -> None:
        check_int("adversarial.steps", self.steps, 1)
        check_int("adversarial.batch_size", self.batch_size, 1)
        check_number("adversarial.lr", self.lr, "(0, 1)")
        check_int("adversarial.discriminator_width", self.discriminator_width, 1)


@dataclass(frozen=True)
class MatchingConfig:
    """The stage in which generated images come to look like real ones to the pool.

    Args:
        steps: Steps; 0 leaves it out, and the pool with it.
        batch_size: Images a step.
        lr: Rate; after reconstruction Muon's and its peak, from which it falls to zero.
        logit_weight: Weight of the logit distance.

    Raises:
        ValueError: A field is out of range.
    """

    steps: int = 4000
    batch_size: int = 64
    lr: float = 1e-2
    logit_weight: float = 0.05

    def __post_init__(self) -> None:
        check_int("matching.steps", self.steps, 0)
        check_int("matching.batch_size", self.batch_size, 1)
        check_number("matching.lr", self.lr, "(0, 1)")
        check_number("matching.logit_weight", self.logit_weight, "[0, inf)")


@dataclass(frozen=True)
class SelectionConfig:
    """How the checkpoint that is kept is chosen: by what a classifier learns of it, on held-out images.

    The classifier is the ConvNet of the images' size, :func:`~dim_data.networks.usual_convnet`.

    Args:
        checkpoints: How many of the matching stage compete, the last one included; 0 takes the last.
        images: Images shown to the classifier that scores one.

    Raises:
        ValueError: A field is out of range.
    """

    checkpoints: int = 2
    images: int = 20_000

    def __post_init__(self) -> None:
        check_int("selection.checkpoints", self.checkpoints, 0)
        check_int("selection.images", self.images, 1)


@dataclass(frozen=True)
class LabelsConfig:
    """What is stored of the classes beside each code.

    Args:
        soft: Store what the pool's longest-trained members say of its image.
        temperature: Divides their logits for that: above 1 they are less sure, and teach more.

    Raises:
        ValueError: A field is out of range.
    """

    soft: bool = False
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.soft, bool):
            raise ValueError(f"labels.soft must be True or False, got {self.soft!r}")
        check_number("labels.temperature", self.temperature, "(0, inf)")


@dataclass(frozen=True)
class RefiningConfig:
    """The last stage, which improves the stored codes: see :func:`~dim_data.distillation.refine_codes`.

    Args:
        looks: Looks at each picture; 0 leaves it out.
        batch_size: Codes a step.

    Raises:
        ValueError: A field is out of range.
    """

    looks: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_int("refining.looks", self.looks, 0)
        check_int("refining.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class PriorTrainingConfig:
    """The stage that learns to draw codes: see :mod:`dim_data.networks.priors`.

    Args:
        epochs: Passes over the codes, at most; 0 leaves it out, and a Gaussian takes its place.
        batch_size: Codes a step.
        lr: Peak rate.
        width: See :class:`~dim_data.networks.PriorConfig`, as those below; 0 chooses by the number of codes.
        layers: Likewise.
        hidden: Likewise.
        clusters: Likewise; they are parts of a class that look alike to the pool.
        features: Likewise, but that ``None`` chooses and 0 tells none: what the pool sees in an image.
        anchors: Likewise.
        accept: Pictures are drawn like those real images to which the pool gives their class at least this
            probability, and like the better half of each class; 0 takes all. The prior learns from all, but what is
            told of an image that the pool takes for another class comes out as such a picture again.
        blur: Standard deviation of the noise that is added to features, whose own is 1: the less, the better a code
            is told, and the easier are codes learned by heart.
        dropout: Share of the channels of each branch left out; ``None`` chooses by the number of codes.
        corruption: Share of the tokens that the transformer is told wrongly.
        turned: Whether it learns from each image turned by quarters, and mirrored too where images may be, in place of
            mirrored and shifted by chance: for images that have no upright, such as of satellites. A pass is eight
            times as long then, or four.
        looks: How often held-out codes are looked at, if training goes on to its end.
        patience: Looks without improvement after which it ends.

    Raises:
        ValueError: A field is out of range.
    """

    epochs: float = 20.0
    batch_size: int = 128
    lr: float = 1.5e-3
    width: int = 0
    layers: int = 0
    hidden: int = 0
    clusters: int = 0
    features: int | None = None
    anchors: int = 0
    accept: float = 0.5
    blur: float = 0.25
    dropout: float | None = None
    corruption: float = 0.1
    turned: bool = False
    looks: int = 40
    patience: int = 6

    def __post_init__(self) -> None:
        check_number("prior.epochs", self.epochs, "[0, inf)")
        check_number("prior.lr", self.lr, "(0, 1)")
        check_number("prior.corruption", self.corruption, "[0, 1)")
        if self.dropout is not None:
            check_number("prior.dropout", self.dropout, "[0, 1)")
        if not isinstance(self.turned, bool):
            raise ValueError(f"prior.turned must be true or false, got {self.turned!r}")
        for name in ("batch_size", "looks", "patience"):
            check_int(f"prior.{name}", getattr(self, name), 1)
        check_number("prior.accept", self.accept, "[0, 1)")
        check_number("prior.blur", self.blur, "(0, inf)")
        if self.features is not None:
            check_int("prior.features", self.features, 0)
        sizes = {name: getattr(self, name) for name in ("width", "layers", "hidden", "clusters", "anchors")}
        for name, value in sizes.items():
            check_int(f"prior.{name}", value, 0)
        PriorConfig(features=self.features or 0, **{name: value for name, value in sizes.items() if value})
