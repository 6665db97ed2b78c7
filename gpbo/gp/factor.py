"""The inverse factor of a covariance that grows row by row without being copied.

R (n, n) is the top left of a buffer with rows to spare. Rows that follow are written below it, where nobody
looks who knows only the first n; so each factor stays what it was, and appending one row costs O(n). Only one
continuation has room there: while it lives, a second one of the same rows begins a buffer of its own.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from torch import Tensor

_SPARE_ROWS, _SPARE_SHARE = 64, 8  # at least so many spare rows, and one for so many
_claiming = threading.Lock()


class InverseFactor:
    """R = inv(L), whose rows never change, and room below them.

    Attributes:
        R: (n, n) lower triangular.
    """

    __slots__ = ("R", "_after", "_before", "_buffer")

    def __init__(self, buffer: Tensor, n: int, before: InverseFactor | None = None) -> None:
        self.R = buffer[:n, :n]
        self._buffer = buffer
        self._before = before  # kept alive, so that it knows of its continuation for as long as this lives
        self._after: weakref.ref[Tensor] | None = None  # the R of a continuation in the same buffer

    @classmethod
    def of(cls, R: Tensor) -> InverseFactor:
        """The factor with a buffer of its own."""
        return cls(_with_room(R, len(R)), len(R))

    def append(self, rows: Tensor) -> InverseFactor:  # (p, n + p)
        """The factor with p more rows; differentiable in them, for a copy of all others."""
        n, end = len(self.R), rows.shape[-1]
        plain = not (rows.requires_grad or self.R.requires_grad)
        with _claiming:
            taken = self._after is not None and self._after() is not None
            if plain and not taken and end <= len(self._buffer):
                grown = InverseFactor(self._buffer, end, self)
                self._after = weakref.ref(grown.R)
            else:
                grown = InverseFactor(_with_room(self.R, end), end)
        grown._buffer[n:end, :end] = rows
        return grown

    def head(self, n: int) -> InverseFactor:
        """The factor of the first n rows, without a copy."""
        factor = self
        while factor._before is not None and len(factor._before.R) >= n:
            factor = factor._before
        if len(factor.R) == n:
            return factor
        head = InverseFactor(factor._buffer, n, factor)
        head._after = weakref.ref(factor.R)  # which head keeps alive: the rows below are taken for good
        return head

    def __reduce__(self) -> tuple[Callable[[Tensor], InverseFactor], tuple[Tensor]]:
        return InverseFactor.of, (self.R,)  # a copy shares nothing


def _with_room(R: Tensor, n: int) -> Tensor:
    """A buffer that begins with R, with room for n rows and some more."""
    size = n + max(_SPARE_ROWS, n // _SPARE_SHARE)
    buffer = R.new_zeros(size, size)
    buffer[: len(R), : len(R)] = R
    return buffer
