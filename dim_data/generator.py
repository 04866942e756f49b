"""The artifact in the middle: a source of latents and a decoder that turns them into labelled images.

A :class:`Generator` is what distillation makes and what training uses. Its latents come from ``noise``
(fresh normal numbers) or from stored ``codes`` (one quantised latent per training image it remembers).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dim_data import hub
from dim_data.architectures import ARCHITECTURES, parse_options
from dim_data.compute import autocast, resolve_device
from dim_data.draws import bank_index, hash_keys, normal
from dim_data.specs import ImageSpec

__all__ = ["CHUNK", "Generator", "GeneratorConfig", "bundled_names"]

FORMAT = 1
MAX_CODES = 20_000_000
MAX_PARAMETERS = 500_000_000
BUNDLED = Path(__file__).with_name("bundled")

CHUNK = {"cpu": 16, "cuda": 128}
"""Images in one forward pass of :meth:`Generator.synthesize`, by device. Kernels may round differently for
different batch shapes, so the shape is always this one: a sample cannot depend on the batch it came in."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Everything needed to rebuild a generator's network; JSON on disk.

    Args:
        spec: The images it makes.
        architecture: A name in :data:`dim_data.architectures.ARCHITECTURES`.
        source: Where latents come from: ``"noise"`` or ``"codes"``.
        options: The architecture's options that differ from its defaults.
        codes: How many codes are stored; 0 for noise.
        sigma: Standard deviation of the noise.

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

    def __post_init__(self) -> None:
        if not isinstance(self.spec, ImageSpec):
            raise TypeError(f"GeneratorConfig.spec must be an ImageSpec, got {type(self.spec).__name__}")
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
        if not isinstance(self.sigma, float | int) or isinstance(self.sigma, bool) or not 0 < self.sigma <= 10:
            raise ValueError(f"GeneratorConfig.sigma must be in (0, 10], got {self.sigma!r}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping that :meth:`from_dict` reads back."""
        return {
            "library": "dim_data",
            "format": FORMAT,
            **{k: v for k, v in asdict(self).items() if k not in ("spec", "options")},
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
        wanted = {"library", "format", *cls.__dataclass_fields__}
        if not isinstance(values, Mapping) or set(values) != wanted:
            found = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(f"a generator config has the keys {sorted(wanted)}, got {found}")
        if values["library"] != "dim_data" or values["format"] != FORMAT:
            raise ValueError(
                f"this is config format {values['format']!r} of {values['library']!r}; "
                f"this version of dim_data reads format {FORMAT}: pip install --upgrade dim-data"
            )
        rest = {k: v for k, v in values.items() if k not in ("library", "format", "spec")}
        return cls(spec=ImageSpec.from_dict(values["spec"]), **rest)


class Generator(nn.Module):
    """A distilled image set: draws latents and decodes them into images of given classes.

    Args:
        config: What to build; weights are freshly initialised.

    Attributes:
        config: The :class:`GeneratorConfig`.
        revision: The Hub commit it was loaded from, or ``None``.
        decoder: The network, ``(latents, labels)`` to images in [-1, 1].
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.revision: str | None = None
        architecture = ARCHITECTURES[config.architecture]
        options = parse_options(config.architecture, config.options)
        decoder = architecture.decoder(config.spec, options, config.source)  # type: ignore[arg-type]
        self.decoder = decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.source == "codes":
            self.code_levels: int = options.code_levels  # type: ignore[union-attr]
            self.register_buffer("codes", torch.zeros(config.codes, self._packed_width(), dtype=torch.uint8))
            self.register_buffer("counts", torch.zeros(config.spec.num_classes, dtype=torch.int64))

    @property
    def spec(self) -> ImageSpec:
        """The images it makes."""
        return self.config.spec

    @property
    def nbytes(self) -> int:
        """Bytes of weights and codes as held in memory."""
        return sum(t.numel() * t.element_size() for t in self.state_dict().values())

    def extra_repr(self) -> str:
        """Shown inside ``repr()``."""
        c = self.config
        where = f", revision={self.revision!r}" if self.revision else ""
        return f"{c.spec.name!r}, architecture={c.architecture!r}, source={c.source!r}, codes={c.codes}{where}"

    # Latents -----------------------------------------------------------------------------------------

    def latents(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """The latents of the ``serials``-th images of classes ``labels`` under ``seed``.

        A pure function of its arguments. With stored codes, ``counts[label]`` successive serials visit every
        code of a class once, in an order that is new in each round.

        Args:
            labels: int64 (B,), class of each image.
            serials: int64 (B,), non-negative; which image of that class.
            seed: Any int.

        Returns:
            float32 (B, *latent_shape).
        """
        if self.config.source == "noise":
            keys = hash_keys(seed, labels, serials)
            return normal(keys, math.prod(self.decoder.latent_shape)) * self.config.sigma
        return self.unpack(self.codes[bank_index(labels, serials, self.counts, seed)])

    def _packed_width(self) -> int:
        size = math.prod(self.decoder.latent_shape)
        return (size + 1) // 2 if self.code_levels <= 16 else size

    def pack(self, latents: Tensor) -> Tensor:
        """Quantise latents in [-1, 1], (B, *latent_shape), to stored codes, uint8 (B, packed); two a byte."""
        levels = ((latents.flatten(1) + 1) / 2 * (self.code_levels - 1)).round()
        levels = levels.clamp(0, self.code_levels - 1).to(torch.uint8)
        if self.code_levels > 16:
            return levels
        if levels.shape[1] % 2:
            levels = nn.functional.pad(levels, (0, 1))
        return levels[:, 0::2] | (levels[:, 1::2] << 4)

    def unpack(self, codes: Tensor) -> Tensor:
        """Invert :meth:`pack`: uint8 (B, packed) to float32 latents (B, *latent_shape)."""
        if self.code_levels <= 16:
            codes = torch.stack([codes & 15, codes >> 4], 2).flatten(1)
        latents = codes[:, : math.prod(self.decoder.latent_shape)].float()
        return (latents / (self.code_levels - 1) * 2 - 1).unflatten(1, self.decoder.latent_shape)

    @torch.no_grad()
    def store(self, latents: Tensor, labels: Tensor) -> Generator:
        """A new generator with the same decoder that remembers these latents, sorted by class.

        Args:
            latents: float (N, *latent_shape) in [-1, 1].
            labels: int64 (N,); every class must occur.
        """
        counts = torch.bincount(labels, minlength=self.spec.num_classes)
        if len(counts) != self.spec.num_classes or not bool((counts > 0).all()):
            raise ValueError(f"codes need at least one image of each of the {self.spec.num_classes} classes")
        config = GeneratorConfig(**{**self.config.__dict__, "codes": len(labels)})
        other = Generator(config)
        other.decoder.load_state_dict(self.decoder.state_dict())
        other.codes.copy_(self.pack(latents)[labels.argsort(stable=True)])
        other.counts.copy_(counts)
        return other

    # Images ------------------------------------------------------------------------------------------

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Decode latents (B, *latent_shape) and labels (B,) to images (B, C, H, W), near [0, 1]; trainable."""
        return self.decoder(latents, labels) / 2 + 0.5

    def sample(self, labels: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Images of classes ``labels`` (B,) from latents that ``rng`` chooses, float (B, C, H, W); trainable."""
        serials = torch.randint(1 << 40, labels.shape, generator=rng).to(labels.device)
        return self(self.latents(labels, serials, seed=0), labels)

    @torch.no_grad()
    def synthesize(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """The ``serials``-th images of classes ``labels`` under ``seed``, as uint8.

        Bit-equal on one device for equal arguments, however they are batched: the network always runs on
        :data:`CHUNK` images at once, the last chunk filled up. Runs in :func:`dim_data.compute.fast_dtype`.

        Args:
            labels: int64 (B,) on any device, each in [0, num_classes).
            serials: int64 (B,), non-negative; see :meth:`latents`.
            seed: Any int.

        Returns:
            uint8 (B, C, H, W) on the generator's device, un-normalised.

        Raises:
            IndexError: A label is outside [0, num_classes).
        """
        device = next(self.decoder.parameters()).device
        if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < self.spec.num_classes):
            raise IndexError(f"labels must lie in [0, {self.spec.num_classes}), got up to {int(labels.max())}")
        labels, serials = labels.to(device), serials.to(device)
        return self._render(self.latents(labels, serials, seed), labels)

    @torch.no_grad()
    def _render(self, latents: Tensor, labels: Tensor) -> Tensor:
        device, count = latents.device, len(labels)
        chunk = CHUNK.get(device.type, 128)
        spare = -count % chunk
        latents = torch.cat([latents, latents.new_zeros(spare, *latents.shape[1:])])
        labels = nn.functional.pad(labels, (0, spare))
        images = torch.empty(count, self.spec.channels, self.spec.size, self.spec.size, dtype=torch.uint8, device=device)
        training = self.training
        self.eval()
        try:
            with autocast(device):
                for start in range(0, count, chunk):
                    z = latents[start : start + chunk]
                    if z.ndim == 4:
                        z = z.contiguous(memory_format=torch.channels_last)
                    pictures = self(z, labels[start : start + chunk]).float().clamp(0, 1) * 255
                    images[start : start + chunk] = pictures.round().to(torch.uint8)[: count - start]
        finally:
            self.train(training)
        return images

    def decode_all(self, batch_size: int = 1024) -> Tensor:
        """Every stored code as a picture, uint8 (codes, C, H, W), sorted by class.

        Raises:
            ValueError: The generator is driven by noise, which has no end.
        """
        if self.config.source != "codes":
            raise ValueError("only a generator with stored codes can be decoded whole; this one draws noise")
        labels = torch.repeat_interleave(self.counts)
        return torch.cat(
            [
                self._render(self.unpack(codes), y)
                for codes, y in zip(self.codes.split(batch_size), labels.split(batch_size), strict=True)
            ]
        )

    # Files -------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
        """Write ``model.safetensors`` and ``config.json`` into ``folder``; returns it.

        Args:
            folder: Made if it does not exist.
            dtype: Number format of the weights on disk; float32 keeps every bit.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            name: (t.detach().cpu().to(dtype) if t.is_floating_point() else t.detach().cpu()).contiguous()
            for name, t in self.state_dict().items()
        }
        hub.write_atomically(folder / hub.WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
        text = json.dumps(self.config.to_dict(), indent=2) + "\n"
        hub.write_atomically(folder / hub.CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
        return folder

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str | torch.device | None = "cpu",
        token: str | bool | None = None,
    ) -> Generator:
        """Load a generator from a folder, a bundled name or a Hub repository.

        Names resolve in that order; what is bundled needs no network. Only safetensors are read; names,
        shapes and sizes are checked against the config before anything is allocated.

        Args:
            source: A folder, a bundled name such as ``"cifar10"``, or a Hub id such as ``"user/repo"``.
            revision: Branch, tag or commit of a Hub repository.
            device: Where to put it; ``None`` picks CUDA where there is one.
            token: Hub access token, for private repositories.

        Raises:
            FileNotFoundError: No such source, or the folder lacks weights or config.
            ValueError: The config or the weights are not those of a generator this library can build.
        """
        target = resolve_device(device)
        folder, commit = _resolve(source, revision, token)
        config = _read_config(folder / hub.CONFIG)
        generator = _load_weights(cls, config, folder / hub.WEIGHTS)
        generator.revision = commit
        generator.requires_grad_(False).eval()
        return generator.to(target)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload generator with dim_data",
    ) -> str:
        """Upload weights and config to a Hub repository, made if needed, as one commit; returns its URL."""
        return hub.push(
            lambda folder: self.save_pretrained(folder),
            repo_id,
            private=private,
            revision=revision,
            token=token,
            commit_message=commit_message,
        )


def bundled_names() -> list[str]:
    """Names of the generators that ship with the library."""
    return sorted(p.parent.name for p in BUNDLED.glob(f"*/{hub.CONFIG}"))


def _resolve(source: str | Path, revision: str | None, token: str | bool | None) -> tuple[Path, str | None]:
    forms = (
        f"a source is a folder with {hub.CONFIG} and {hub.WEIGHTS}, a bundled name "
        f"({', '.join(bundled_names()) or 'none'}) or a Hub id like 'user/repo'"
    )
    if not isinstance(source, str | Path):
        raise TypeError(f"{forms}; got {type(source).__name__}")
    folder = Path(source)
    if folder.is_dir():
        missing = [name for name in (hub.CONFIG, hub.WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"folder {str(folder)!r} has no {' and no '.join(missing)}: {forms}")
        return folder, None
    if str(source) in bundled_names():
        return BUNDLED / str(source), None
    if isinstance(source, str) and hub.is_repo_id(source):
        return hub.pull(source, revision=revision, token=token)
    raise FileNotFoundError(f"unknown source {str(source)!r}: {forms}")


def _read_config(path: Path) -> GeneratorConfig:
    try:
        if path.stat().st_size > 4_000_000:
            raise ValueError(f"{path} is over 4 MB: not a generator config")
        return GeneratorConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _load_weights(cls: type[Generator], config: GeneratorConfig, path: Path) -> Generator:
    # Built without memory first, so that a hostile config or file costs nothing before both agree.
    with torch.device("meta"):
        expected = cls(config).state_dict()
    total = sum(t.numel() for name, t in expected.items() if name != "codes")
    if total > MAX_PARAMETERS:
        raise ValueError(f"{path.with_name(hub.CONFIG)} asks for {total} parameters; the limit is {MAX_PARAMETERS}")
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            problems = [f"no tensor {n!r}" for n in expected if n not in names]
            problems += [f"unexpected tensor {n!r}" for n in names if n not in expected]
            for name in names & set(expected):
                shape, wanted = list(file.get_slice(name).get_shape()), list(expected[name].shape)
                if shape != wanted:
                    problems.append(f"tensor {name!r} has shape {shape}, the config asks for {wanted}")
            if problems:
                raise ValueError(f"{path} does not fit its config: {'; '.join(sorted(problems)[:5])}")
            state = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file (truncated?): {error}") from error
    for name, tensor in state.items():
        if tensor.is_floating_point() != expected[name].is_floating_point() or (
            not tensor.is_floating_point() and tensor.dtype != expected[name].dtype
        ):
            raise ValueError(f"{path}: tensor {name!r} is {tensor.dtype}, expected {expected[name].dtype}")
    if config.source == "codes":
        counts = state["counts"]
        if int(counts.min()) < 1 or int(counts.sum()) != config.codes:
            raise ValueError(f"{path}: 'counts' must be positive and sum to {config.codes}, the number of codes")
    generator = cls(config)
    generator.load_state_dict(state)
    if not all(bool(p.isfinite().all()) for p in generator.parameters()):
        raise ValueError(f"{path} holds NaN or infinite weights")
    return generator
