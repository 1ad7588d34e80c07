"""Arrays that a thread uses anew for every batch: fresh memory costs a page fault for every 512 numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Workspace:
    """A stack of float64 buffers that belongs to one thread."""

    def __init__(self) -> None:
        self._buffers: list[Floats] = []
        self._in_use = 0

    def floats(self, n: int) -> Floats:
        """Return an array of `n` numbers that stays in use until the enclosing `scope` ends."""
        if self._in_use == len(self._buffers):
            self._buffers.append(np.empty(n))
        elif len(self._buffers[self._in_use]) < n:
            self._buffers[self._in_use] = np.empty(n)
        buffer = self._buffers[self._in_use]
        self._in_use += 1
        return buffer[:n]

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Give back, at the end of a block, the arrays that were taken in it."""
        before = self._in_use
        try:
            yield
        finally:
            self._in_use = before


def read_only(values: Floats) -> Floats:
    """Return a view with the layout that columns have: kernels are compiled for read-only numbers."""
    view = values.view()
    view.flags.writeable = False
    return view
