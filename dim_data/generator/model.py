"""The artifact in the middle, between those who make a generator and those who train on its pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dim_data.format import GeneratorConfig
from dim_data.generator.deriving import kept_rows, with_codes, with_decoder, with_gaussian, with_prior, with_rows
from dim_data.generator.grids import sample_png
from dim_data.generator.names import resolve
from dim_data.generator.painting import Painter
from dim_data.generator.storing import WeightFormat, load, save
from dim_data.hub import Measurement, publish
from dim_data.images import torch_defaults, warn_caller
from dim_data.networks import TokenPrior, resolve_device

__all__ = ["Generator"]


class Generator(Painter):
    """A distilled image set: draws latents and decodes them into images of given classes.

    Its latents come from a source (:mod:`dim_data.generator.sources`): noise, noise through a learned prior of codes,
    or stored codes, one quantized latent for each training image that it remembers. Soft labels are stored beside
    codes; beside noise, which paints no picture twice, stands the teacher itself.

    Args:
        config: What to build; weights are freshly initialised.

    Attributes:
        config: The :class:`~dim_data.format.GeneratorConfig`.
        revision: The Hub commit it was loaded from, or ``None``.
        folder: The folder it was loaded from, or ``None``.
        source: Where latents come from.
        decoder: The network, ``(latents, labels)`` to images in [-1, 1].
        teacher: With noise and soft labels: the classifier that gives them.
        stored: The weights as they lay in the file it was loaded from, by the file's names; empty if there was none.
    """

    @torch_defaults()
    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.revision: str | None = None
        self.folder: Path | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of weights and codes as held in memory."""
        return sum(t.numel() * t.element_size() for t in self.state_dict().values())

    def extra_repr(self) -> str:
        """Shown inside ``repr()``."""
        where = f", revision={self.revision!r}" if self.revision else ""
        name, architecture = self.spec.name, self.config.architecture
        return f"{name!r}, architecture={architecture!r}, latents={self.source.summary!r}{where}"

    # Others made of it -------------------------------------------------------------------------------

    @torch_defaults()
    def store(self, latents: Tensor | Iterable[Tensor], labels: Tensor, soft: Tensor | None = None) -> Generator:
        """A new generator with the same decoder that remembers these latents, sorted by class.

        Args:
            latents: float (N, *latent_shape) in [-1, 1], or parts of them, taken one by one.
            labels: int64 (N,); every class must occur.
            soft: Probabilities (N, num_classes) to store beside them, if any, in a byte each.
        """
        return with_codes(self, latents, labels, soft)

    @torch_defaults()
    def forget_codes(self, rank: int = 128, teacher: nn.Module | None = None) -> Generator:
        """A new generator with the same decoder, driven by noise: the codes of each class become a Gaussian.

        No stored picture remains, only what :func:`~dim_data.generator.sources.fit_gaussian` keeps.

        Args:
            rank: Directions along which correlations are kept, at most; a latent of D numbers has D.
            teacher: A ``ConvNet(spec)`` to keep beside it, such as :func:`~dim_data.protocol.train_teacher` makes:
                its opinions are then the soft labels.

        Raises:
            ValueError: There are no codes to forget, ``rank`` is below 1, or the teacher is another network.
        """
        return with_gaussian(self, rank, teacher)

    @torch_defaults()
    def with_prior(self, prior: TokenPrior, teacher: nn.Module | None = None) -> Generator:
        """A new generator with the same decoder, driven by noise through a learned prior; no code remains.

        Args:
            prior: Of this decoder's codes, such as :func:`~dim_data.distillation.learn_prior` trains.
            teacher: See :meth:`forget_codes`.

        Raises:
            ValueError: The decoder takes no codes, the prior is one of other codes, or the teacher is another network.
        """
        return with_prior(self, prior, teacher)

    @torch_defaults()
    def with_decoder(self, options: Mapping[str, int]) -> Generator:
        """A new generator with the same latents and soft labels, and a fresh decoder: one that is yet to be trained.

        :func:`~dim_data.distillation.slim_decoder` trains one to paint the same pictures with less work.

        Args:
            options: Of the architecture; what is left out stays as it is.

        Raises:
            ValueError: An option is unknown or out of bounds, or changes the latents.
            TypeError: An option is not an int.
        """
        return with_decoder(self, options)

    @torch_defaults()
    def keep_codes(self, count: int, seed: int = 0, soft_labels: bool = True) -> Generator:
        """A new generator with the same decoder and some of the codes: fewer bytes, fewer different pictures.

        Args:
            count: Codes to keep at most, drawn by chance: every class its share, rounded down, but at least one, for
                which the largest classes give some of theirs.
            seed: Of the choice; any int.
            soft_labels: Keep their soft labels too, if there are any: a byte for each class of each code.

        Raises:
            ValueError: There are no codes, or ``count`` is not in [num_classes, number of codes].
        """
        return with_rows(self, kept_rows(self, count, seed), soft_labels)

    @torch_defaults()
    def keep_rows(self, rows: Tensor, soft_labels: bool = True) -> Generator:
        """A new generator with the same decoder and the codes at these places in the bank, for the same pictures.

        Args:
            rows: int64 (N,); every class must occur.
            soft_labels: Keep their soft labels too, if there are any.

        Raises:
            IndexError: A place is outside the bank.
            ValueError: There are no codes, or none of a class is kept.
        """
        return with_rows(self, rows, soft_labels)

    @torch_defaults(painting=True)
    def kept_rows(self, count: int, seed: int = 0) -> Tensor:
        """Places in the bank of the codes that :meth:`keep_codes` keeps, int64, sorted by class as they are there."""
        return kept_rows(self, count, seed)

    # Files -------------------------------------------------------------------------------------------

    @torch_defaults()
    def save_pretrained(self, folder: str | Path, *, dtype: WeightFormat | None = None) -> Path:
        """Write ``model.safetensors`` and ``config.json`` into ``folder``; returns it.

        Where another generator lay there, its ``training_config.json`` and its card are removed: they are not of this
        one. A README.md that was edited by hand stays, and so do all other files.

        Args:
            folder: Made if it does not exist.
            dtype: Number format of the weights on disk. ``None`` keeps that of the file it was loaded from: a tensor
                that has not changed since is written with the bits that were read, so that the same pictures come
                back; others in the file's format, or in 8 bits where it has 4. What was loaded from no file is written
                in float16.
                ``torch.float16`` and ``bfloat16`` take two bytes a weight; ``float32`` keeps every bit;
                ``int8`` halves float16, with one scale for each output of a layer; ``"int4"`` has layers in 4 bits,
                rounded together (:mod:`dim_data.format.rounding`), and the features that a prior draws around, all
                else as with ``int8``. Under these two, what was read in as few bits and has not changed stays as it
                was.

        Raises:
            ValueError: Another ``dtype``.
        """
        folder = Path(folder).expanduser()
        save(self, folder, dtype)
        return folder

    @classmethod
    @torch_defaults()
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
        generator = load(cls, folder)
        generator.revision, generator.folder = commit, folder
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
        dtype: WeightFormat | None = None,
    ) -> str:
        """Upload weights, config, a sample grid and a model card to a Hub repository as one commit.

        The arguments are those of :func:`dim_data.hub.publish`, and ``dtype`` is that of
        :meth:`save_pretrained`. How the generator was made is taken from the folder it was loaded from, if that says
        so and ``training_config`` does not.

        Returns:
            The commit's address, or the pull request's. A README.md there that was edited by hand stays, and a warning
            says so.

        Raises:
            OSError: The Hub refuses or cannot be reached.
            ValueError: An argument is not what it should be.
        """
        if training_config is None and self.folder is not None and self.folder.is_dir():
            training_config = self.folder
        with tempfile.TemporaryDirectory() as folder:
            done = publish(
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
            )
        if done.kept_card:
            warn_caller(
                f"the README.md of {done.repo_id} was edited by hand and stays, without what is given here for a card: "
                f"overwrite_card=True replaces it"
            )
        return done.url
