"""What a generator is, as data: everything needed to rebuild its network, checked before one is built."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dim_data.images import ImageSpec
from dim_data.networks import ARCHITECTURES, PriorConfig, parse_options

__all__ = ["MAX_RANK", "GeneratorConfig"]

FORMAT = 1
MAX_CODES = 20_000_000
MAX_NAME = 200
MAX_RANK = 1024


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything needed to rebuild a generator's network; JSON on disk.

    Args:
        spec: The images it makes.
        architecture: A name in :data:`dim_data.networks.ARCHITECTURES`.
        source: Where latents come from: ``"noise"`` or ``"codes"``.
        options: The architecture's options that differ from its defaults.
        codes: How many codes are stored; 0 for noise.
        sigma: Standard deviation of the noise.
        rank: With noise: shape it into codes by a Gaussian for each class, with so many main directions; 0 hands
            it to the decoder as it is.
        soft_labels: With codes: whether each has a teacher's opinion of its picture stored beside it. With noise:
            whether the teacher itself is stored, a ConvNet-3 that is asked about each picture.
        prior: With noise: the size of the learned prior that turns it into codes, if there is one.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field is unknown or out of range.
    """

    spec: ImageSpec
    architecture: str = "compact"
    source: str = "noise"
    options: Mapping[str, int] = field(default_factory=dict)
    codes: int = 0
    sigma: float = 1.0
    rank: int = 0
    soft_labels: bool = False
    prior: PriorConfig | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.spec, ImageSpec):
            raise TypeError(f"GeneratorConfig.spec must be an ImageSpec, got {type(self.spec).__name__}")
        for name in (self.spec.name, *self.spec.classes):
            if len(name) > MAX_NAME or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
                raise ValueError(f"a name has up to {MAX_NAME} characters, none of them a control one: {name[:99]!r}")
        if not isinstance(self.options, Mapping):
            raise TypeError(f"GeneratorConfig.options must be a mapping, got {self.options!r}")
        parse_options(self.architecture, self.options)
        sources = ARCHITECTURES[self.architecture].decoder.sources
        if self.source not in sources:
            raise ValueError(
                f"architecture {self.architecture!r} takes its latents from {' or '.join(sources)}, not {self.source!r}"
            )
        if not isinstance(self.codes, int) or isinstance(self.codes, bool):
            raise TypeError(f"GeneratorConfig.codes must be an int, got {self.codes!r}")
        low, high = (self.spec.num_classes, MAX_CODES) if self.source == "codes" else (0, 0)
        if not low <= self.codes <= high:
            raise ValueError(f"a {self.source} generator stores {low} to {high} codes, got codes={self.codes}")
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or not 0 <= self.rank <= MAX_RANK:
            raise ValueError(f"GeneratorConfig.rank must be an int of 0 to {MAX_RANK}, got {self.rank!r}")
        if self.rank and (self.source != "noise" or "codes" not in sources):
            raise ValueError(
                f"rank={self.rank} shapes noise into codes; {self.architecture!r} driven by {self.source} takes rank=0"
            )
        if not isinstance(self.soft_labels, bool):
            raise TypeError(f"GeneratorConfig.soft_labels must be a bool, got {self.soft_labels!r}")
        if self.prior is not None:
            if not isinstance(self.prior, PriorConfig):
                raise TypeError(f"GeneratorConfig.prior must be a PriorConfig or None, got {self.prior!r}")
            if self.source != "noise" or "codes" not in sources or self.rank or self.sigma != 1:
                raise ValueError(
                    f"a prior turns plain noise into codes: it takes an architecture of codes, source='noise', rank=0 "
                    f"and sigma=1, got {self.architecture!r}, {self.source!r}, {self.rank} and {self.sigma!r}"
                )
        if not isinstance(self.sigma, float | int) or isinstance(self.sigma, bool) or not 0 < self.sigma <= 10:
            raise ValueError(f"GeneratorConfig.sigma must be in (0, 10], got {self.sigma!r}")

    @property
    def kind(self) -> str:
        """The kind of source that its latents come from: ``"noise"``, ``"gaussian"``, ``"prior"`` or ``"codes"``."""
        if self.prior is not None:
            return "prior"
        return "gaussian" if self.rank else self.source

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping that :meth:`from_dict` reads back."""
        return {
            "library": "dim_data",
            "format": FORMAT,
            **{k: v for k, v in asdict(self).items() if k not in ("spec", "options", "prior")},
            **({} if self.prior is None else {"prior": self.prior.to_dict()}),
            "options": dict(self.options),
            "spec": self.spec.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GeneratorConfig:
        """Read a mapping made by :meth:`to_dict`.

        Raises:
            ValueError: A key is missing or unknown, the format is newer, or a value is out of range.
            TypeError: A value has the wrong type.
        """
        wanted = {"library", "format", *cls.__dataclass_fields__} - {"prior"}
        if isinstance(values, Mapping) and "prior" in values:  # where there is none, it is not named
            wanted.add("prior")
        if not isinstance(values, Mapping) or set(values) != wanted:
            found = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(f"a generator config has the keys {sorted(wanted)}, got {found}")
        if values["library"] != "dim_data" or values["format"] != FORMAT:
            raise ValueError(
                f"this is config format {values['format']!r} of {values['library']!r}; "
                f"this version of dim_data reads format {FORMAT}: pip install --upgrade dim-data"
            )
        rest = {k: v for k, v in values.items() if k not in ("library", "format", "spec")}
        if "prior" in rest:
            rest["prior"] = PriorConfig.from_dict(rest["prior"])
        return cls(spec=ImageSpec.from_dict(values["spec"]), **rest)
