"""The artifact in the middle: a source of latents and a decoder that turns them into labelled images.

A :class:`Generator` is what distillation makes and what training uses. Its latents come from ``noise``
(fresh normal numbers, as they are or shaped into codes by a Gaussian for each class) or from stored ``codes``
(one quantised latent per training image it remembers). Soft labels are stored beside codes; beside noise, which
paints no picture twice, stands the teacher itself.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dim_data.format import (
    CONFIG,
    WEIGHTS,
    GeneratorConfig,
    fit_gaussian,
    pack,
    packed_weights,
    packed_width,
    read_config,
    read_weights,
    round_layers,
    shape_noise,
    unpack,
    write_atomically,
)
from dim_data.generator.draws import bank_index, hash_keys, normal
from dim_data.generator.grids import sample_png
from dim_data.generator.labelling import opinion
from dim_data.generator.names import resolve
from dim_data.hub import Measurement, publish
from dim_data.images import ImageSpec
from dim_data.networks import ARCHITECTURES, ConvNet, autocast, parse_options, resolve_device

__all__ = ["CHUNK", "Generator"]

CHUNK = {"cpu": 16, "cuda": 512}
"""Images in one forward pass of :meth:`Generator.synthesize`, by device. Kernels may round differently for
different batch shapes, so the shape is always this one: a sample cannot depend on the batch it came in."""


class Generator(nn.Module):
    """A distilled image set: draws latents and decodes them into images of given classes.

    Args:
        config: What to build; weights are freshly initialised.

    Attributes:
        config: The :class:`GeneratorConfig`.
        revision: The Hub commit it was loaded from, or ``None``.
        folder: The folder it was loaded from, or ``None``.
        decoder: The network, ``(latents, labels)`` to images in [-1, 1].
        teacher: With noise and soft labels: the classifier that gives them.
    """

    codes: Tensor
    counts: Tensor
    soft: Tensor
    means: Tensor
    factors: Tensor
    scales: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.revision: str | None = None
        self.folder: Path | None = None
        architecture = ARCHITECTURES[config.architecture]
        options = parse_options(config.architecture, config.options)
        source = "codes" if config.rank else config.source
        decoder = architecture.decoder(config.spec, options, source)  # type: ignore[arg-type]
        self.decoder = decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.source == "codes":
            self.code_levels: int = options.code_levels  # type: ignore[union-attr]
            width = packed_width(self._latent_size, self.code_levels)
            self.register_buffer("codes", torch.zeros(config.codes, width, dtype=torch.uint8))
            self.register_buffer("counts", torch.zeros(config.spec.num_classes, dtype=torch.int64))
            if config.soft_labels:
                self.register_buffer("soft", torch.zeros(config.codes, config.spec.num_classes, dtype=torch.uint8))
        if config.rank:
            classes, size = config.spec.num_classes, self._latent_size
            self.register_buffer("means", torch.zeros(classes, size))
            self.register_buffer("factors", torch.zeros(classes, size, config.rank))
            self.register_buffer("scales", torch.zeros(classes, size))
        if config.soft_labels and config.source == "noise":
            self.teacher = ConvNet(config.spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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
        latents = f"source={c.source!r}, codes={c.codes}, rank={c.rank}"
        return f"{c.spec.name!r}, architecture={c.architecture!r}, {latents}{where}"

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
            keys, rank = hash_keys(seed, labels, serials), self.config.rank
            noise = normal(keys, rank + self._latent_size) * self.config.sigma
            if rank:
                noise = shape_noise(noise, self.means, self.factors, self.scales, labels)
            return noise.unflatten(1, self.decoder.latent_shape)
        return self.unpack(self.codes[self.rows(labels, serials, seed)])

    def rows(self, labels: Tensor, serials: Tensor, seed: int = 0) -> Tensor:
        """Places in the bank of codes, which is sorted by class: int64 (B,), on the generator's device.

        Worked out where ``labels`` are. For many at once that is best the CPU: a GPU would have to be waited for.

        Args:
            labels: int64 (B,), each in [0, num_classes).
            serials: int64 (B,), non-negative; see :meth:`latents`.
            seed: Any int.

        Raises:
            ValueError: The generator is driven by noise and stores nothing.
        """
        self._check_codes()
        found = bank_index(labels, serials.to(labels.device), self.counts.to(labels.device), seed)
        return found.to(self.codes.device)

    def _check_codes(self) -> None:
        if self.config.source != "codes":
            raise ValueError("only a generator with stored codes has a bank of them; this one draws noise")

    def soft_labels(self, labels: Tensor, serials: Tensor, seed: int = 0, pictures: Tensor | None = None) -> Tensor:
        """What the teacher says of the pictures that :meth:`synthesize` paints for these arguments.

        With noise the teacher looks at each picture, and at its mirror image where ``spec.mirror`` allows: the
        mean of both. Like the pictures, its answers are bit-equal on one device however they are batched.

        Args:
            labels: int64 (B,), each in [0, num_classes).
            serials: int64 (B,), non-negative; see :meth:`latents`.
            seed: Any int.
            pictures: uint8 (B, C, H, W): those pictures, where they are at hand; else a teacher has them painted.

        Returns:
            float32 (B, num_classes): probabilities, each row summing to 1; those stored, in steps of 1/255.

        Raises:
            IndexError: A label is outside [0, num_classes).
            ValueError: The generator stores no soft labels.
        """
        if not self.config.soft_labels:
            raise ValueError("this generator stores no soft labels")
        self.check_labels(labels)
        if self.config.source == "noise":
            pictures = self.synthesize(labels, serials, seed) if pictures is None else pictures
            return self._in_chunks(lambda batch: opinion([self.teacher], batch, self.spec), pictures)
        opinions = self.soft[self.rows(labels, serials, seed)].float()
        return opinions / opinions.sum(1, keepdim=True)

    @property
    def _latent_size(self) -> int:
        return math.prod(self.decoder.latent_shape)

    def pack(self, latents: Tensor) -> Tensor:
        """Quantise latents in [-1, 1], (B, *latent_shape), to stored codes, uint8 (B, packed)."""
        return pack(latents, self.code_levels)

    def unpack(self, codes: Tensor) -> Tensor:
        """Invert :meth:`pack`: uint8 (B, packed) to float32 latents (B, *latent_shape)."""
        return unpack(codes, self.code_levels, self._latent_size).unflatten(1, self.decoder.latent_shape)

    @torch.no_grad()
    def store(self, latents: Tensor, labels: Tensor, soft: Tensor | None = None) -> Generator:
        """A new generator with the same decoder that remembers these latents, sorted by class.

        Args:
            latents: float (N, *latent_shape) in [-1, 1].
            labels: int64 (N,); every class must occur.
            soft: Probabilities (N, num_classes) to store beside them, if any.
        """
        counts = torch.bincount(labels, minlength=self.spec.num_classes)
        if len(counts) != self.spec.num_classes or not bool((counts > 0).all()):
            raise ValueError(f"codes need at least one image of each of the {self.spec.num_classes} classes")
        config = replace(self.config, codes=len(labels), soft_labels=soft is not None)
        other = _unseeded(config)
        other.decoder.load_state_dict(self.decoder.state_dict())
        order = labels.argsort(stable=True)
        other.codes.copy_(self.pack(latents)[order])
        if soft is not None:
            other.soft.copy_((soft[order] * 255).round())
        other.counts.copy_(counts)
        return other

    @torch.no_grad()
    def forget_codes(self, rank: int = 128, teacher: nn.Module | None = None) -> Generator:
        """A new generator with the same decoder, driven by noise: the codes of each class become a Gaussian.

        No stored picture remains, only what :func:`~dim_data.format.fit_gaussian` keeps.

        Args:
            rank: Directions along which correlations are kept, at most; a latent of D numbers has D.
            teacher: A ``ConvNet(spec)`` to keep beside it, such as :func:`~dim_data.protocol.train_teacher` makes:
                its opinions are then the soft labels.

        Raises:
            ValueError: There are no codes to forget, ``rank`` is below 1, or the teacher is another network.
        """
        if self.config.source != "codes":
            raise ValueError("there are no codes to forget: this generator is driven by noise already")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        rank = min(rank, self._latent_size)
        other = _unseeded(replace(self.config, source="noise", codes=0, rank=rank, soft_labels=teacher is not None))
        other.decoder.load_state_dict(self.decoder.state_dict())
        if teacher is not None:
            try:
                other.teacher.load_state_dict(teacher.state_dict())
            except RuntimeError as error:
                raise ValueError(f"the teacher must be a ConvNet(spec) of the generator's spec: {error}") from error
        for label, codes in enumerate(self.codes.cpu().split(self.counts.tolist())):
            fitted = fit_gaussian(self.unpack(codes).flatten(1), rank)
            other.means[label], other.factors[label], other.scales[label] = fitted
        return other.requires_grad_(False).eval().to(self.codes.device)

    @torch.no_grad()
    def keep_codes(self, count: int, seed: int = 0, soft_labels: bool = True) -> Generator:
        """A new generator with the same decoder and some of the codes: fewer bytes, fewer different pictures.

        Args:
            count: Codes to keep, drawn by chance: every class its share, rounded down, but at least one.
            seed: Of the choice; any int.
            soft_labels: Keep their soft labels too, if there are any: a byte for each class of each code.

        Raises:
            ValueError: There are no codes, or ``count`` is not in [num_classes, number of codes].
        """
        return self.keep_rows(self.kept_rows(count, seed), soft_labels)

    @torch.no_grad()
    def keep_rows(self, rows: Tensor, soft_labels: bool = True) -> Generator:
        """A new generator with the same decoder and the codes at these places in the bank, for the same pictures.

        Args:
            rows: int64 (N,); every class must occur.
            soft_labels: Keep their soft labels too, if there are any.

        Raises:
            ValueError: There are no codes, or a class has none of those kept.
        """
        self._check_codes()
        labels = torch.repeat_interleave(self.counts, output_size=len(self.codes))[rows]
        soft = self.soft[rows].float() / 255 if soft_labels and self.config.soft_labels else None
        kept = self.store(self.unpack(self.codes[rows]), labels, soft)
        return kept.requires_grad_(False).eval().to(self.codes.device)

    def kept_rows(self, count: int, seed: int = 0) -> Tensor:
        """Places in the bank of the codes that :meth:`keep_codes` keeps, int64, sorted by class as they are there."""
        self._check_codes()
        if not self.spec.num_classes <= count <= len(self.codes):
            raise ValueError(f"count must be in [{self.spec.num_classes}, {len(self.codes)}], got {count}")
        shares = (self.counts * count // len(self.codes)).clamp(min=1)
        labels = torch.repeat_interleave(shares)
        return self.rows(labels, torch.cat([torch.arange(n) for n in shares.tolist()]).to(labels), seed)

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
        :data:`CHUNK` images at once, the last chunk filled up. Runs in :func:`dim_data.networks.fast_dtype`.

        Args:
            labels: int64 (B,) on any device, each in [0, num_classes).
            serials: int64 (B,), non-negative; see :meth:`latents`.
            seed: Any int.

        Returns:
            uint8 (B, C, H, W) on the generator's device, un-normalised.

        Raises:
            IndexError: A label is outside [0, num_classes).
        """
        labels = self.check_labels(labels)
        return self._render(self.latents(labels, serials.to(labels.device), seed), labels)

    def check_labels(self, labels: Tensor) -> Tensor:
        """``labels`` on the generator's device; ``IndexError`` if one is outside [0, num_classes)."""
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < self.spec.num_classes):
            raise IndexError(f"labels must lie in [0, {self.spec.num_classes}), got up to {int(labels.max())}")
        return labels.to(next(self.decoder.parameters()).device)

    def _render(self, latents: Tensor, labels: Tensor) -> Tensor:
        def paint(latents: Tensor, labels: Tensor) -> Tensor:
            if latents.ndim == 4:
                latents = latents.contiguous(memory_format=torch.channels_last)
            return (self(latents, labels).float().clamp(0, 1) * 255).round().to(torch.uint8)

        return self._in_chunks(paint, latents, labels)

    @torch.no_grad()
    def _in_chunks(self, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``function`` of ``inputs`` (B, ...), always :data:`CHUNK` rows at once, zeros at the end, in eval mode."""
        device, count = inputs[0].device, len(inputs[0])
        chunk = CHUNK.get(device.type, 128)
        inputs = tuple(torch.cat([x, x.new_zeros(-count % chunk or chunk * (not count), *x.shape[1:])]) for x in inputs)
        training = self.training
        self.eval()
        try:
            with autocast(device):
                parts = zip(*(x.split(chunk) for x in inputs), strict=True)
                return torch.cat([function(*part) for part in parts])[:count]
        finally:
            self.train(training)

    def decode(self, rows: Tensor, batch_size: int = 1024) -> Tensor:
        """The pictures of stored codes, uint8 (B, C, H, W), on the generator's device.

        Args:
            rows: int64 (B,), places in the bank of codes, which is sorted by class.
            batch_size: Codes unpacked at once.

        Raises:
            ValueError: The generator is driven by noise and stores nothing.
        """
        self._check_codes()
        rows = rows.to(self.codes.device)
        labels = torch.repeat_interleave(self.counts, output_size=len(self.codes))[rows]
        parts = zip(self.codes[rows].split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([self._render(self.unpack(codes), y) for codes, y in parts])

    # Files -------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | Literal["int4"] = torch.float16) -> Path:
        """Write ``model.safetensors`` and ``config.json`` into ``folder``; returns it.

        Args:
            folder: Made if it does not exist.
            dtype: Number format of the weights on disk: ``torch.float16``, ``bfloat16``, ``int8`` (half the bytes
                again; one scale for each output of a layer), ``float32``, which keeps every bit, or ``"int4"``: layers
                in 4 bits, rounded together (:mod:`dim_data.format.rounding`), all else as with ``int8``.

        Raises:
            ValueError: Another ``dtype``.
        """
        if dtype not in ("int4", torch.float32, torch.float16, torch.bfloat16, torch.int8):
            raise ValueError(f"dtype must be torch.float16, bfloat16, int8, float32 or 'int4', got {dtype!r}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = packed_weights(self.state_dict(), dtype) if isinstance(dtype, torch.dtype) else self._in_four_bits()
        write_atomically(folder / WEIGHTS, lambda path: save_file(tensors, path, {"format": "pt"}))
        text = json.dumps(self.config.to_dict(), indent=2) + "\n"
        write_atomically(folder / CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
        return folder

    @torch.no_grad()
    def _in_four_bits(self) -> dict[str, Tensor]:
        """The tensors to write, layers rounded to do well on the first 256 pictures."""
        other, classes = copy.deepcopy(self).cpu().eval(), self.spec.num_classes
        labels, serials = torch.arange(256) % classes, torch.arange(256) // classes
        batches = list(zip(other.latents(labels, serials).split(8), labels.split(8), strict=True))
        scales = {f"decoder.{name}": s for name, s in round_layers(other.decoder, batches).items()}
        if self.config.soft_labels and self.config.source == "noise":
            seen = [(self.spec.normalize(other(*batch).clamp(0, 1)),) for batch in batches]
            scales |= {f"teacher.{name}": s for name, s in round_layers(other.teacher, seen).items()}
        return packed_weights(other.state_dict(), torch.int8, scales)

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
        folder, commit = resolve(source, revision, token)
        config = read_config(folder / CONFIG)
        with torch.device("meta"):
            expected = cls(config).state_dict()
        state = read_weights(folder / WEIGHTS, config, expected)
        generator = _unseeded(config)
        generator.load_state_dict(state)
        generator.revision, generator.folder = commit, folder
        generator.requires_grad_(False).eval()
        return generator.to(target)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        token: str | bool | None = None,
        commit_message: str = "Upload generator with dim_data",
        evaluations: Iterable[Measurement] = (),
        license: str | None = None,
        overwrite_card: bool = False,
        training_config: Mapping[str, Any] | str | Path | None = None,
        dtype: torch.dtype | Literal["int4"] = torch.float16,
    ) -> str:
        """Upload weights, config, a sample grid and a model card to a Hub repository as one commit.

        The arguments are those of :func:`dim_data.hub.publish`, and ``dtype`` is that of
        :meth:`save_pretrained`. How the generator was made is taken from the folder it was loaded from, if that says
        so and ``training_config`` does not.

        Returns:
            The commit's address, or the pull request's.
        """
        if training_config is None and self.folder is not None and self.folder.is_dir():
            training_config = self.folder
        with tempfile.TemporaryDirectory() as folder:
            return publish(
                self.save_pretrained(folder, dtype=dtype),
                repo_id,
                picture=sample_png(self),
                private=private,
                revision=revision,
                create_pr=create_pr,
                token=token,
                commit_message=commit_message,
                evaluations=evaluations,
                license=license,
                overwrite_card=overwrite_card,
                training_config=training_config,
            ).url


def _unseeded(config: GeneratorConfig) -> Generator:
    """A generator whose fresh weights will be overwritten: torch's random state stays where its user left it."""
    with torch.random.fork_rng(devices=[]):
        return Generator(config)
