"""Where a source is: a folder, a bundled name or a Hub id, in that order."""

from __future__ import annotations

from pathlib import Path

from dim_data.format import CONFIG, WEIGHTS
from dim_data.hub import is_repo_id, pull

__all__ = ["BUNDLED", "bundled_names", "resolve"]

BUNDLED = Path(__file__).parents[1] / "bundled"


def bundled_names() -> list[str]:
    """Names of the generators that ship with the library."""
    return sorted(p.parent.name for p in BUNDLED.glob(f"*/{CONFIG}"))


def resolve(source: str | Path, revision: str | None, token: str | bool | None) -> tuple[Path, str | None]:
    """The folder that holds a source's files, and its commit if it came from the Hub.

    Raises:
        FileNotFoundError: It is no folder with both files, no bundled name and no Hub repository.
        TypeError: ``source`` is neither a string nor a path.
        ValueError: ``revision`` is given for what is no Hub id, or the Hub's files are damaged.
    """
    forms = (
        f"a source is a folder with {CONFIG} and {WEIGHTS}, a bundled name "
        f"({', '.join(bundled_names()) or 'none'}) or a Hub id like 'user/repo'"
    )
    if not isinstance(source, str | Path):
        raise TypeError(f"{forms}; got {type(source).__name__}")
    folder = Path(source)
    if revision is not None and (folder.is_dir() or str(source) in bundled_names()):
        raise ValueError(
            f"revision={revision!r} selects a commit of a Hub repository, but {str(source)!r} is a folder or a bundled "
            f"name here: leave out revision, or call it from a folder that has nothing of that name"
        )
    if folder.is_dir():
        missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"folder {str(folder)!r} has no {' and no '.join(missing)}: {forms}")
        return folder, None
    if str(source) in bundled_names():
        return BUNDLED / str(source), None
    if isinstance(source, str) and is_repo_id(source):
        return pull(source, revision=revision, token=token)
    raise FileNotFoundError(f"unknown source {str(source)!r}: {forms}")
