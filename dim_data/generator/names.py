"""Where a source is: a folder, a bundled name or a Hub id, in that order."""

from __future__ import annotations

from pathlib import Path

from dim_data.format import BEFORE, CONFIG, RESULT, RUN, WEIGHTS
from dim_data.hub import is_repo_id, pull

__all__ = ["BUNDLED", "bundled_names", "resolve"]

BUNDLED = Path(__file__).parents[1] / "bundled"


def bundled_names() -> list[str]:
    """Names of the generators that ship with the library."""
    return sorted(p.parent.name for p in BUNDLED.glob(f"*/{CONFIG}"))


def resolve(source: str | Path, revision: str | None, token: str | bool | None) -> tuple[Path, str | None]:
    """The folder that holds a source's files, and its commit if it came from the Hub.

    A folder counts only if it holds a generator. One that does not, such as ``./cifar10`` with somebody's images,
    hides neither the bundled name nor the Hub id that it is called like.

    Raises:
        FileNotFoundError: It is no folder with both files, no bundled name and no Hub repository; or a run
            is to make it and has not: the Hub, where somebody's repository may be called so, is not asked.
        TypeError: ``source`` is neither a string nor a path.
        ValueError: ``revision`` is given for what is no Hub id, or the Hub's files are damaged.
    """
    forms = (
        f"a source is a folder with {CONFIG} and {WEIGHTS}, a bundled name "
        f"({', '.join(bundled_names()) or 'none'}) or a Hub id like 'user/repo'"
    )
    if not isinstance(source, str | Path):
        raise TypeError(f"{forms}; got {type(source).__name__}")
    folder, bundled = Path(source).expanduser(), str(source) in bundled_names()
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if revision is not None and (not missing or bundled):
        raise ValueError(
            f"revision={revision!r} selects a commit of a Hub repository, but {str(source)!r} is a folder or a bundled "
            f"name here: leave out revision, or call it from a folder that has nothing of that name"
        )
    if not missing:
        return folder, None
    if bundled and (isinstance(source, str) or not folder.is_dir()):
        return BUNDLED / str(source), None
    if revision is None and folder.name in (RESULT, BEFORE) and (folder.parent / RUN).is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} is not made yet: the run in {str(folder.parent)!r} is not done, and the same call of "
            "distill() goes on with it"
        )
    if isinstance(source, str) and is_repo_id(source):
        try:
            return pull(source, revision=revision, token=token)
        except FileNotFoundError as error:
            if folder.is_dir():
                raise FileNotFoundError(
                    f"{error}. The folder of that name has no {' and no '.join(missing)}"
                ) from error
            raise
    if folder.is_dir():
        if (folder / RUN).is_file():
            made = "is" if (folder / RESULT).is_dir() else "will be, once it is done,"
            forms = f"it is that of a run, whose generator {made} {str(folder / RESULT)!r}"
        raise FileNotFoundError(f"folder {str(folder)!r} has no {' and no '.join(missing)}: {forms}")
    raise FileNotFoundError(f"unknown source {str(source)!r}: {forms}")
