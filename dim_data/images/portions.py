"""Which rows of a batch are at hand, where several processes share it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["WHOLE", "Portion"]


@dataclass(frozen=True)
class Portion:
    """One of ``count`` equal parts of a batch, those that follow one another.

    What is drawn for a batch is drawn for the whole of it, by everybody, and each takes what its own rows get: so a
    row's draw is the same however many share the batch.
    """

    place: int = 0
    count: int = 1

    def whole(self, rows: int) -> int:
        """Rows of the batch, where ``rows`` of it are at hand."""
        return rows * self.count

    def of(self, drawn: Tensor, dim: int = 0) -> Tensor:
        """What the rows at hand get of what was drawn for all, which has a multiple of ``count`` rows along ``dim``."""
        if self.count == 1:
            return drawn
        rows = drawn.shape[dim] // self.count
        return drawn.narrow(dim, self.place * rows, rows)


WHOLE = Portion()
