"""Publishing a generator: its files, its card and a picture of it, in one commit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dim_data.format import CARD, CONFIG, SAMPLES, TRAINING_CONFIG, WEIGHTS, check_size, read_config, read_json
from dim_data.hub import client
from dim_data.hub.accuracies import Accuracy, Measurement, read_accuracies
from dim_data.hub.card import is_bare, is_untouched, render_card

__all__ = ["Publication", "forget_description", "publish", "stated_accuracies"]


@dataclass(frozen=True)
class Publication:
    """What :func:`publish` did.

    Attributes:
        url: Address of the commit, or of the pull request.
        repo_id: The repository's full name.
        kept_card: Whether the repository's README.md, edited by hand, was left as it was.
    """

    url: str
    repo_id: str
    kept_card: bool


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    picture: bytes,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_message: str = "Upload generator with dim_data",
    evaluations: Iterable[Measurement] = (),
    license: str | None = None,
    overwrite_card: bool = False,
    training_config: Mapping[str, Any] | str | Path | None = None,
) -> Publication:
    """Upload the generator in ``folder`` with a sample grid and a card, as one commit.

    Nothing in the repository changes unless all of it does. A README.md that was edited by hand stays, unless it says
    no more than a licence, and so do files this does not write; a training configuration that the new generator does
    not have goes.

    Args:
        folder: Where ``config.json`` and ``model.safetensors`` are; uploaded as they are.
        repo_id: A Hub id like ``"user/repo"``, made if there is none.
        picture: A PNG of samples, shown by the card.
        private: Whether a new repository is private; the default is the Hub's.
        revision: The branch to commit to, made if there is none; default: the main one.
        create_pr: Open a pull request against the main branch instead.
        token: Hub access token; default: the one saved on this machine.
        commit_message: The commit's first line.
        evaluations: What :func:`~dim_data.protocol.evaluate` measured: all that the card will state.
        license: A licence of the Hub's list, such as ``"mit"``.
        overwrite_card: Replace a README.md although it was edited by hand.
        training_config: How the generator was made: a mapping, a JSON file, or a folder that may have one;
            default: ``folder``.

    Raises:
        FileNotFoundError: ``folder`` lacks a file, or the repository or revision does not exist.
        OSError: The Hub refuses or cannot be reached.
        ValueError: ``folder`` holds no generator, or an argument is not what it should be.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"folder {str(folder)!r} has no {name}: give one that save_pretrained wrote")
    config = read_config(folder / CONFIG)
    training = _training(folder if training_config is None else training_config)
    accuracies = [Accuracy.of(one) for one in evaluations]
    target = client.open_target(repo_id, private=private, revision=revision, create_pr=create_pr, token=token)
    files: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG, WEIGHTS)}
    files[SAMPLES] = picture
    if training is not None:
        files[TRAINING_CONFIG] = (json.dumps(training, indent=2) + "\n").encode()
    kept = target.card is not None and not (is_untouched(target.card) or is_bare(target.card)) and not overwrite_card
    if not kept:
        license = client.read_license(target.card) if license is None and is_bare(target.card) else license
        size = (folder / WEIGHTS).stat().st_size
        card = render_card(target.repo_id, config, size=size, accuracies=accuracies, license=license, training=training)
        files[CARD] = card.encode()
    url = client.push(target, files, message=commit_message, delete={TRAINING_CONFIG} - files.keys())
    return Publication(url, target.repo_id, kept)


def stated_accuracies(folder: str | Path) -> tuple[Accuracy, ...]:
    """The accuracies that the card in a generator's folder states; none if it has no card.

    Raises:
        ValueError: The card is too large, or its metadata cannot be read.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        return ()
    check_size(str(path), CARD, path.stat().st_size)
    return read_accuracies(path.read_bytes().decode("utf-8", "replace"))


def forget_description(folder: Path) -> None:
    """Remove from a folder what describes weights that lay there before; a card that was edited by hand stays."""
    card = folder / CARD
    if card.is_file() and is_untouched(card.read_bytes().decode("utf-8", "replace")):
        card.unlink()
    (folder / TRAINING_CONFIG).unlink(missing_ok=True)


def _training(source: Mapping[str, Any] | str | Path) -> Mapping[str, Any] | None:
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    if path.is_dir():
        path = path / TRAINING_CONFIG
        if not path.is_file():
            return None
    training = read_json(path)
    if not isinstance(training, Mapping):
        raise ValueError(f"{path} must hold a JSON object, got {type(training).__name__}")
    return training
