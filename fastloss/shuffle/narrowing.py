"""Columns in as few bytes as their numbers allow, exact to the last bit.

Integers are kept as their distance from the smallest, in 0, 1, 2, 4 or 8 bytes. Floats that are all whole numbers are
kept in the same way, and float64 that float32 holds as float32. What counts are the bits: −0, infinities and NaNs are
not whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss_kernels.cpu.shuffling import DOUBLE, SINGLE, WHOLE, make_unpack_floats, make_unpack_integers

Column = NDArray[Any]
Bytes = NDArray[np.uint8]

# Rows that are looked at first: most columns that are not narrow show it there.
_TRIED_ROWS = 512
# Each integer up to here is a float32.
_WHOLE_SINGLES = 1 << 24


@dataclass(frozen=True)
class Frame:
    """How the numbers of a column are kept.

    Attributes
    ----------
    kind : int
        `WHOLE`, `SINGLE` or `DOUBLE`, of `fastloss_kernels.cpu.shuffling`; integers are `WHOLE`.
    width : int
        Bytes of a number.
    smallest, largest : int
        Of whole numbers, the smallest, which is taken off, and the largest; both are 0 where nothing is taken off.
    """

    kind: int
    width: int
    smallest: int = 0
    largest: int = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an array that holds the numbers; of no bytes, that of one."""
        return np.dtype(f"f{self.width}" if self.kind != WHOLE else f"u{self.width or 1}")


class Buffers:
    """Memory for the steps between a column and its narrow form, which is used anew for each column."""

    def __init__(self) -> None:
        self._memory: list[Bytes] = [np.empty(0, dtype=np.uint8)] * 3

    def array(self, which: int, n: int, dtype: Any) -> Column:
        """Return the first (0), second (1) or third (2) buffer as `n` numbers of a type."""
        size = n * np.dtype(dtype).itemsize
        if self._memory[which].size < size:
            self._memory[which] = np.empty(size, dtype=np.uint8)
        return self._memory[which][:size].view(dtype)


def _width_of(span: int) -> int:
    return 0 if span == 0 else 1 if span < 1 << 8 else 2 if span < 1 << 16 else 4 if span < 1 << 32 else 8


def _whole_frame(smallest: int, largest: int, itemsize: int) -> Frame:
    width = _width_of(largest - smallest)
    return Frame(WHOLE, width, smallest, largest) if width < itemsize else Frame(WHOLE, itemsize)


def _float_frame(smallest: int, largest: int, itemsize: int) -> Frame:
    frame = _whole_frame(smallest, largest, itemsize)
    return frame if frame.width < itemsize else Frame(SINGLE, 4)


def unsigned(values: Column) -> Column:
    """Return the bits of numbers."""
    return values.view(f"u{values.dtype.itemsize}")


def frame_of(values: Column, buffers: Buffers) -> Frame:
    """Return the narrowest frame of a column of at least one row."""
    itemsize = values.dtype.itemsize
    if values.dtype.kind != "f":
        if itemsize == 1:
            # Looking for a constant costs as much as keeping it.
            return Frame(WHOLE, 1)
        return _whole_frame(int(values.min()), int(values.max()), itemsize)
    if _survives(values, np.int32, buffers):
        whole = _cast(values, np.int32, buffers)
        return _float_frame(int(whole.min()), int(whole.max()), itemsize)
    if itemsize == 4 or _survives(values, np.float32, buffers):
        return Frame(SINGLE, 4)
    return Frame(DOUBLE, 8)


def _cast(values: Column, dtype: Any, buffers: Buffers) -> Column:
    narrow = buffers.array(0, len(values), dtype)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        np.copyto(narrow, values, casting="unsafe")
    return narrow


def _survives(values: Column, dtype: Any, buffers: Buffers) -> bool:
    """Say whether the numbers of a column come back from another type with the same bits."""
    for part in (values[:_TRIED_ROWS], values):
        back = buffers.array(1, len(part), values.dtype)
        np.copyto(back, _cast(part, dtype, buffers), casting="unsafe")
        same = buffers.array(2, len(part), np.bool_)
        if not np.equal(unsigned(back), unsigned(part), out=same).all():
            return False
    return True


def narrow(values: Column, frame: Frame, buffers: Buffers) -> Column:
    """Return a column's numbers as its frame keeps them; the array is a buffer's, or the column itself."""
    if frame.kind != WHOLE:
        return values if values.dtype.itemsize == frame.width else _cast(values, np.float32, buffers)
    if values.dtype.kind == "f":
        values = _cast(values, np.int32, buffers)
    if frame.width == values.dtype.itemsize and frame.smallest == 0:
        return values
    bits = unsigned(values)
    kept = buffers.array(1, len(values), frame.dtype)
    np.subtract(bits, _wrapped(frame.smallest, bits.dtype.itemsize), out=kept, casting="unsafe")
    return kept


def _wrapped(number: int, itemsize: int) -> Any:
    """Return an integer as an unsigned one of so many bytes, in two's complement."""
    return np.dtype(f"u{itemsize}").type(number % (1 << 8 * itemsize))


def common_frame(frames: Sequence[Frame], dtype: np.dtype[Any]) -> Frame:
    """Return the narrowest frame that holds columns of several frames, of the type `dtype`."""
    itemsize = dtype.itemsize
    kinds = {frame.kind for frame in frames}
    smallest = min(frame.smallest for frame in frames)
    largest = max(frame.largest for frame in frames)
    if kinds == {WHOLE} and dtype.kind == "f":
        return _float_frame(smallest, largest, itemsize)
    if kinds == {WHOLE}:
        if any(frame.width == itemsize for frame in frames):
            return Frame(WHOLE, itemsize)
        return _whole_frame(smallest, largest, itemsize)
    if itemsize == 4 or (DOUBLE not in kinds and max(-smallest, largest) <= _WHOLE_SINGLES):
        return Frame(SINGLE, 4)
    return Frame(DOUBLE, 8)


@dataclass(frozen=True)
class Pieces:
    """Pieces of a column that lie at several addresses, each with a frame of its own.

    Attributes
    ----------
    addresses, counts, kinds, widths : int64 arrays, shape (n_pieces,)
        Where a piece lies, its rows, and its frame.
    smallest : uint64 array, shape (n_pieces,)
        What has been taken off, in two's complement.
    """

    addresses: NDArray[np.int64]
    counts: NDArray[np.int64]
    kinds: NDArray[np.int64]
    widths: NDArray[np.int64]
    smallest: NDArray[np.uint64]

    @classmethod
    def one(cls, address: int, n_rows: int, frame: Frame) -> Pieces:
        """Return a piece alone."""
        return cls(
            addresses=np.array([address]),
            counts=np.array([n_rows]),
            kinds=np.array([frame.kind]),
            widths=np.array([frame.width]),
            smallest=np.array([_wrapped(frame.smallest, 8)]),
        )

    def unpack(self, out: Column) -> None:
        """Write the numbers of all pieces to an array of the column's type, one piece after the other."""
        if out.dtype.kind == "f" and not (self.kinds == (SINGLE if out.dtype.itemsize == 4 else DOUBLE)).all():
            make_unpack_floats()(self.addresses, self.counts, self.kinds, self.widths, self.smallest, out)
        else:
            make_unpack_integers()(self.addresses, self.counts, self.widths, self.smallest, unsigned(out))

    def repack(self, frame: Frame, out: Column) -> None:
        """Write the numbers of all pieces to an array of the frame's type, as the frame keeps them."""
        if frame.kind != WHOLE:
            self.unpack(out)
        elif frame.width > 0:
            less = self.smallest - _wrapped(frame.smallest, 8)
            make_unpack_integers()(self.addresses, self.counts, self.widths, less, out)
