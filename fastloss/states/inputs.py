"""The inputs that a state was computed from, so that no row counts twice."""

from __future__ import annotations

from typing import NamedTuple


class Input(NamedTuple):
    """The facts that tell whether an input has changed; a stream or a frame has neither, and counts once.

    Attributes
    ----------
    size : int or None
        Bytes.
    mtime_ns : int or None
        Time of change; None where a store does not tell it.
    """

    size: int | None
    mtime_ns: int | None


STREAM = Input(None, None)
