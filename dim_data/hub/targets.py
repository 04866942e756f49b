"""A repository on the Hub that is pushed to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """A repository to push to, as it was when it was opened.

    Attributes:
        repo_id: Its full name, ``user/repo``.
        revision: The branch, or ``None`` for the main one.
        create_pr: Whether to open a pull request instead of changing the branch.
        token: Hub access token.
        parent: The commit that the next one must follow.
        files: Names of the files at ``parent``.
        card: The text of the card at ``parent``, if there is one; empty if it is larger than a card may be.
    """

    repo_id: str
    revision: str | None
    create_pr: bool
    token: str | bool | None
    parent: str
    files: frozenset[str]
    card: str | None

    def __repr__(self) -> str:
        return f"Target({self.repo_id!r}, revision={self.revision!r}, parent={self.parent!r})"
