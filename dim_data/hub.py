"""Files between a folder and the Hugging Face Hub: the only importer of huggingface_hub."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["CARD", "CONFIG", "WEIGHTS", "is_repo_id", "pull", "push", "write_atomically"]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def is_repo_id(name: str) -> bool:
    """Whether ``name`` has the form ``user/repo`` of a Hub id."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", name) is not None


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def pull(repo_id: str, *, revision: str | None = None, token: str | bool | None = None) -> tuple[Path, str]:
    """Fetch one commit's config, weights and card into the Hub cache: (folder, commit id).

    Raises:
        FileNotFoundError: The repository, revision or a file does not exist, or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(repo_id, revision=revision, token=token, allow_patterns=[CONFIG, WEIGHTS, CARD])
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        at = f" at revision {revision!r}" if revision else ""
        raise FileNotFoundError(
            f"could not get {repo_id!r}{at} from the Hub: {error}. Check the name and the network, "
            f"pass token= for a private repository, or give a local folder"
        ) from error
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"Hub repository {repo_id!r} has no {' and no '.join(missing)}: not a generator")
    return folder, folder.name


def push(
    save: Callable[[Path], object],
    repo_id: str,
    *,
    private: bool | None,
    revision: str | None,
    token: str | bool | None,
    commit_message: str,
) -> str:
    """Have ``save`` fill a folder, upload it to ``repo_id`` as one commit and return the commit's URL."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        return str(
            api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
            ).commit_url
        )
