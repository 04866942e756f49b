"""How far a loader has come: which pass it is in, and how much of it was handed out."""

from __future__ import annotations

from dataclasses import dataclass

from dim_data.loading.passes import MAX_EPOCH, check_int

__all__ = ["Cursor", "Progress"]


@dataclass
class Cursor:
    """A place in a pass: ``place`` pictures of ``epoch`` were handed out, by all ranks together."""

    epoch: int
    place: int = 0
    started: bool = False


class Progress:
    """Where the latest pass stands, or the next one will begin, and who has a say in that.

    Attributes:
        cursor: Of the latest pass that began, or of the next one where that was chosen since.
    """

    def __init__(self) -> None:
        self.cursor = Cursor(0)
        self._chosen = False
        self._offset = 0

    def choose(self, epoch: int, place: int = 0) -> None:
        """Let the next pass be that of ``epoch``, from ``place`` on."""
        self.cursor, self._chosen, self._offset = Cursor(epoch, place), True, 0

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be that of ``epoch``; one that was chosen and has not begun keeps its place."""
        epoch = check_int("epoch", epoch, 0, MAX_EPOCH)
        waiting = not self.cursor.started and self.cursor.epoch == epoch
        self.choose(epoch, self.cursor.place if waiting else 0)

    def follow(self, epoch: int) -> None:
        """What a sampler is told: a pass begins that the caller counts as ``epoch``.

        Callers count the passes that they made, Fabric from 0 in each process. So what was chosen since the last
        pass, or loaded, stays, and they count on from there.
        """
        epoch = check_int("epoch", epoch, 0, MAX_EPOCH)
        if self._chosen:
            self._offset = self.cursor.epoch - epoch
        elif self.cursor.started or self.cursor.epoch != max(0, epoch + self._offset):
            self.cursor = Cursor(max(0, epoch + self._offset))

    def begin(self, over: bool) -> Cursor:
        """Begin the pass that waits, or else the next one; ``over`` says that nothing is left of the one that waits."""
        if self.cursor.started or over:
            self.cursor = Cursor(self.cursor.epoch + 1)
        self.cursor.started, self._chosen = True, False
        return self.cursor
