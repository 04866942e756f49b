"""Files between a folder and the Hugging Face Hub: the only importer of huggingface_hub."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from dim_data.format import CARD, MAX_BYTES, check_size, write_atomically
from dim_data.hub.snapshots import check_snapshot, missing_files
from dim_data.hub.targets import Target
from dim_data.images import warn_caller

__all__ = [
    "is_repo_id",
    "open_target",
    "pull",
    "push",
    "read_license",
    "read_results",
    "write_metadata",
]

UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def is_repo_id(name: str) -> bool:
    """Whether ``name`` has the form ``user/repo`` of a Hub id."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", name) is not None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the client's progress bars, unless the environment asks for them."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled() or constants.HF_HUB_DISABLE_PROGRESS_BARS is False:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


# Pull ------------------------------------------------------------------------------------------------


@_quietly()
def pull(repo_id: str, *, revision: str | None = None, token: str | bool | None = None) -> tuple[Path, str]:
    """Fetch one commit of a generator into the Hub cache: (folder, commit id).

    What is cached needs no network: a commit is never asked for again, and a branch or tag stays where it was last
    seen whole while the Hub does not say where it is, which a warning tells (unless ``HF_HUB_OFFLINE`` is set). The
    Hub is given five seconds to say what it has, or as many as ``HF_HUB_ETAG_TIMEOUT`` says.

    Raises:
        FileNotFoundError: The repository, revision or a file does not exist, or cannot be reached or kept.
        ValueError: ``repo_id`` or ``revision`` is no name, or a file is larger than it may be, or damaged.
    """
    from huggingface_hub import HfApi, snapshot_download

    if not is_repo_id(repo_id):
        raise ValueError(f"a Hub id has the form user/repo, got {repo_id!r}")
    if revision is not None and re.search(r"\.\.|^[/-]|[\s\\\x00-\x1f]|^$", revision):
        raise ValueError(f"revision must be a branch, tag or commit, got {revision!r}")
    find = partial(snapshot_download, repo_id, allow_patterns=list(MAX_BYTES))
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        with suppress(FileNotFoundError):
            folder = Path(find(revision=revision, local_files_only=True))
            if not _missing(folder) and (folder / CARD).is_file():
                check_snapshot(folder)
                return folder, folder.name
    try:
        seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 5)
        info = HfApi(token=token).model_info(repo_id, revision=revision, timeout=seconds, files_metadata=True)
    except Exception as error:  # what a failing connection raises differs between versions of the client
        return _find_cached(find, repo_id, revision, error)
    commit = str(info.sha)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if lost := missing_files(sizes):
        raise FileNotFoundError(f"Hub repository {repo_id!r} has no {' and no '.join(lost)}: not a generator")
    for name in MAX_BYTES.keys() & sizes:
        check_size(f"{name} of {repo_id!r}", name, sizes[name])
    try:
        folder = Path(find(revision=commit, token=token))
        if _missing(folder):  # the client hands out what there is if the rest does not come
            raise ConnectionError("the download was cut short")
    except Exception as error:
        raise _not_got(repo_id, revision, error) from error
    check_snapshot(folder)
    if revision != commit:
        _note_branch(folder, revision or "main", commit)
    return folder, commit


def _note_branch(folder: Path, name: str, commit: str) -> None:
    """Let the cache find a branch or tag at a commit: not before that is whole, as the client itself would."""
    ref = folder.parents[1] / "refs" / name
    with suppress(OSError):  # of others, and not to be written
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(ref, lambda path: path.write_text(commit, encoding="utf-8"))


def _missing(folder: Path) -> list[str]:
    return missing_files([path.name for path in folder.iterdir() if path.is_file()])


def _find_cached(find: Callable[..., str], repo_id: str, revision: str | None, error: Exception) -> tuple[Path, str]:
    """What the cache has for a revision that the Hub could not give, or why there is nothing."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    folder = None
    with suppress(FileNotFoundError, ValueError):
        folder = Path(find(revision=revision, local_files_only=True))
    if folder is None or _missing(folder):
        raise _not_got(repo_id, revision, error) from error
    check_snapshot(folder)
    if not isinstance(error, OfflineModeIsEnabled):
        warn_caller(
            f"took {repo_id!r} from the cache, at commit {folder.name}, as the Hub did not say where "
            f"{revision or 'main'} is now: {_explain(error, revision)}"
        )
    return folder, folder.name


def _not_got(repo_id: str, revision: str | None, error: Exception) -> FileNotFoundError:
    at = f" at revision {revision!r}" if revision else ""
    return FileNotFoundError(
        f"could not get {repo_id!r}{at} from the Hub, and it is not in the cache: {_explain(error, revision)}"
    )


def _explain(error: BaseException, revision: str | None) -> str:
    """What went wrong between here and the Hub, and what to do."""
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    text = (str(error).strip() or "no reason given").splitlines()[0]
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set. Unset it once"
    if isinstance(error, errors.GatedRepoError):
        return "access to it is granted on its page. Ask there, then pass token= or run `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no branch, tag or commit {revision or 'main'!r}"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return (
            f"the Hub answers {status}: no such repository, or none that your token may use. "
            f"Check the name; pass token= or run `hf auth login` for a private one, or where the token has expired"
        )
    if status == 412:
        return "it changed in the meantime. Try again"
    if status is not None:
        return f"the Hub answers {status}: {text}. Try again later"
    if isinstance(error, OSError) and error.errno in UNWRITTEN:
        return f"{text}. Make room in the Hub's cache, or let HF_HOME name another folder"
    return (
        f"{type(error).__name__}: {text}. Check the name and the network (HF_ENDPOINT, HF_HUB_ETAG_TIMEOUT), "
        f"or give a local folder"
    )


# Push ------------------------------------------------------------------------------------------------


def open_target(
    repo_id: str, *, private: bool | None, revision: str | None, create_pr: bool, token: str | bool | None
) -> Target:
    """Look at the repository to push to; make it, and the branch, if need be (never for a pull request).

    Raises:
        OSError: The Hub cannot be reached or refuses; ``PermissionError``, ``FileNotFoundError`` or
            ``ConnectionError`` where one fits.
        ValueError: The name is none, or the repository is public and ``private`` is asked for.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RevisionNotFoundError

    if create_pr and revision not in (None, "main"):
        raise ValueError(f"a pull request is made against main: leave out create_pr or revision={revision!r}")
    api = HfApi(token=token)
    with _quietly(), _pushing(repo_id, revision):
        if not create_pr:
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        try:
            info = api.model_info(repo_id, revision=revision, files_metadata=True)
        except RevisionNotFoundError:
            if create_pr or revision is None or revision.startswith("refs/"):
                raise
            api.create_branch(repo_id, branch=revision)
            info = api.model_info(repo_id, revision=revision, files_metadata=True)
        if private and not info.private and not create_pr:
            raise ValueError(
                f"{repo_id!r} exists and is public: make it private on its page, or leave out private=True"
            )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        card, parent = "" if CARD in sizes else None, str(info.sha)
        if 0 < sizes.get(CARD, 0) <= MAX_BYTES[CARD]:
            # In a cache of its own: a lone README at a newer commit would hide the weights that a user has.
            with tempfile.TemporaryDirectory() as folder:
                path = hf_hub_download(repo_id, CARD, revision=parent, token=token, cache_dir=folder)
                card = Path(path).read_bytes().decode("utf-8", "replace")
    return Target(repo_id, revision, create_pr, token, parent, frozenset(sizes), card)


def push(target: Target, files: Mapping[str, Path | bytes], *, message: str, delete: Iterable[str] = ()) -> str:
    """Add ``files`` (by name in the repository) and remove ``delete`` in one commit; its address, or the request's.

    Raises:
        OSError: As :func:`open_target`; nothing has changed in the repository then.
        ValueError: The Hub rejects the card's metadata.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    changes: list[Any] = [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in files.items()
    ]
    changes += [CommitOperationDelete(name) for name in delete if name in target.files]
    with _quietly(), _pushing(target.repo_id, target.revision):
        done = HfApi(token=target.token).create_commit(
            target.repo_id,
            changes,
            commit_message=message,
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=target.parent,
        )
    return str(done.pr_url or done.commit_url)


@contextmanager
def _pushing(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turn whatever the client raises into an ``OSError`` with advice; a ``ValueError`` says enough itself."""
    from huggingface_hub import errors

    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        kind: type[OSError] = OSError if status else ConnectionError
        if isinstance(error, errors.RevisionNotFoundError):
            kind = FileNotFoundError
        elif isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
            kind = PermissionError
        raise kind(f"could not push to {repo_id!r}: {_explain(error, revision)}") from error


# Metadata --------------------------------------------------------------------------------------------


def write_metadata(fields: Mapping[str, Any], name: str, results: Iterable[Mapping[str, Any]]) -> str:
    """A card's metadata as YAML: ``fields``, and ``results`` (fields of an ``EvalResult``) as its model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    found = [EvalResult(**result) for result in results]
    more: dict[str, Any] = {"model_name": name, "eval_results": found} if found else {}
    return ModelCardData(**fields, **more).to_yaml()


def read_license(card: str | None) -> str | None:
    """The licence in a card's metadata, if it names one that can be read."""
    from huggingface_hub import ModelCard

    with suppress(Exception):  # YAML's own kinds among them
        found = vars(ModelCard(card or "").data).get("license")
        return found if isinstance(found, str) else None
    return None


def read_results(card: str) -> list[dict[str, Any]]:
    """The model-index of a card, each entry as the fields of an ``EvalResult``.

    Raises:
        ValueError: The metadata cannot be read.
    """
    from huggingface_hub import ModelCard

    try:
        results = vars(ModelCard(card).data).get("eval_results")
    except Exception as error:  # YAML's own kinds among them
        raise ValueError(f"the card's metadata cannot be read: {type(error).__name__}: {error}") from error
    return [vars(result) for result in results or ()]
