"""The values of group keys that are hashes: kept once for a key, as far as memory tells, and found by its hash.

A key's values are kept when the key comes, unless a table of the keys seen lately says that they are known. So a key
may be kept more than once. Values are gathered by the leading bits of the hash, and written to disk when they pass a
bound; they are read piece by piece.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastloss.columns.base import Batch, GroupKeys, IntegerArray
from fastloss.columns.group_keys import KeyTypes, bytes_of, is_integer_key, restore_keys, restore_values
from fastloss.shuffle.temporary import TemporaryFile
from fastloss_kernels.cpu.hashing import make_find_fresh

_LOG2_PARTITIONS = 8
_N_PARTITIONS = 1 << _LOG2_PARTITIONS
# Parts of the memory: for the table of what was seen, and for what waits to be gathered.
_SEEN_PART = 4
_WAITING_PART = 8
_LARGEST_SEEN = 1 << 24


class _Kept(NamedTuple):
    """Keys and their values: the words of the hashes, and an array of int64 or of large_binary for each column."""

    high: IntegerArray
    low: IntegerArray
    values: list[pa.Array]

    @property
    def nbytes(self) -> int:
        return int(self.high.nbytes + self.low.nbytes + sum(column.nbytes for column in self.values))

    def part(self, first: int, stop: int) -> _Kept:
        values = [column.slice(first, stop - first) for column in self.values]
        return _Kept(self.high[first:stop], self.low[first:stop], values)

    def take(self, rows: IntegerArray) -> _Kept:
        return _Kept(self.high[rows], self.low[rows], [column.take(pa.array(rows)) for column in self.values])


def _joined(parts: Sequence[_Kept]) -> _Kept:
    return _Kept(
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.low for part in parts]),
        [pa.concat_arrays(columns) for columns in zip(*(part.values for part in parts), strict=True)],
    )


class _Run(NamedTuple):
    """Keys in the order of their partitions: those of partition p begin with ``starts[p]``."""

    starts: IntegerArray
    kept: _Kept

    def partition(self, number: int) -> _Kept:
        return self.kept.part(int(self.starts[number]), int(self.starts[number + 1]))


class _Piece(NamedTuple):
    """Keys of a partition on disk."""

    offset: int
    n_bytes: int
    n_rows: int
    checksum: int


class KeyStore:
    """The values of group keys; several threads may add and look up.

    Parameters
    ----------
    types : mapping of str to pyarrow.DataType
        The columns of the key, in their order, and their types in the log.
    memory_bytes : int
        What is kept in memory, about; beyond it, values go to disk. A key that is an integer is its own value, and
        takes none.
    folder : str, optional
        Where a temporary file may lie; by default as `TemporaryFile` has it.
    """

    def __init__(self, types: KeyTypes, *, memory_bytes: int, folder: str | None = None) -> None:
        self._types, self._folder = dict(types), folder
        self._is_integer = is_integer_key(list(types.values()))
        self._memory_bytes = memory_bytes
        n_seen = min(_LARGEST_SEEN, max(1 << 10, memory_bytes // _SEEN_PART // 8))
        # What is not written of it takes no memory.
        self._seen = np.zeros(0 if self._is_integer else 1 << (n_seen.bit_length() - 1), dtype=np.uint64)
        self._lock, self._finishing = threading.Lock(), threading.Lock()
        self._n_kept = 0
        self._kept_bytes = 0
        self._waiting: list[_Kept] = []
        self._waiting_bytes = 0
        self._runs: list[_Run] = []
        self._run_bytes = 0
        self._pieces: list[list[_Piece]] = [[] for _ in range(_N_PARTITIONS)]
        self._file: TemporaryFile | None = None
        self._end = 0

    @property
    def spilled_bytes(self) -> int:
        """Bytes that have been written to disk."""
        return self._end

    @property
    def nbytes(self) -> int:
        """Bytes of memory that values take."""
        with self._lock:
            return int(self._seen.nbytes + self._waiting_bytes + self._run_bytes)

    @property
    def value_bytes(self) -> int:
        """Bytes of the values of a key, on average; 0 where keys are integers."""
        with self._lock:
            return -(-self._kept_bytes // max(1, self._n_kept))

    def __enter__(self) -> KeyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and disk back."""
        with self._lock:
            self._waiting, self._runs, self._pieces = [], [], [[] for _ in range(_N_PARTITIONS)]
            self._seen = np.zeros(0, dtype=np.uint64)
            file, self._file = self._file, None
        if file is not None:
            file.close()

    # -----------------------------------------------------------------------------------------------------------
    # Adding

    def add(self, batch: Batch, keys: GroupKeys) -> None:
        """Keep the values of the keys of a batch.

        Raises
        ------
        TemporaryFileError
            If there is no room on the disk.
        """
        if self._is_integer:
            return
        seen = self._seen
        if not len(seen):
            raise ValueError("keys cannot be added once they are looked up")
        high, low = keys.columns
        rows = None if keys.valid is None else np.flatnonzero(keys.valid)
        if rows is not None:
            high, low = high[rows], low[rows]
        fresh = np.empty(len(high), dtype=np.int64)
        fresh = fresh[: make_find_fresh()(high, low, seen, fresh)]
        if not len(fresh):
            return
        values = batch.group_values(tuple(self._types), fresh if rows is None else rows[fresh], self._types)
        kept = _Kept(high[fresh], low[fresh], values)
        with self._lock:
            self._n_kept += len(kept.high)
            self._kept_bytes += kept.nbytes
            self._waiting.append(kept)
            self._waiting_bytes += kept.nbytes
            if self._waiting_bytes <= self._memory_bytes // _WAITING_PART:
                return
            waiting = self._taken()
        self._gather(waiting)

    def _taken(self) -> list[_Kept]:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return waiting

    def _gather(self, waiting: Sequence[_Kept]) -> None:
        """Bring what has waited into the order of its partitions."""
        kept = _joined(waiting)
        partitions = _partitions_of(kept.high)
        # A sort of single bytes counts them.
        kept = kept.take(np.argsort(partitions, kind="stable"))
        starts = np.zeros(_N_PARTITIONS + 1, dtype=np.int64)
        np.cumsum(np.bincount(partitions, minlength=_N_PARTITIONS), out=starts[1:])
        with self._lock:
            self._runs.append(_Run(starts, kept))
            self._run_bytes += kept.nbytes
            if self._run_bytes > self._memory_bytes // 2:
                self._spill()

    def _spill(self) -> None:
        """Write all runs to disk; the caller holds the lock."""
        if self._file is None:
            self._file = TemporaryFile(self._folder)
        self._file.need(self._run_bytes)
        for partition, pieces in enumerate(self._pieces):
            parts = [run.partition(partition) for run in self._runs]
            content = b"".join(buffer for part in zip(*map(_encoded, parts), strict=True) for buffer in part)
            n_rows = sum(len(part.high) for part in parts)
            if n_rows:
                self._file.write(np.frombuffer(content, dtype=np.uint8), self._end)
                pieces.append(_Piece(self._end, len(content), n_rows, zlib.crc32(content)))
                self._end += len(content)
        self._runs, self._run_bytes = [], 0

    # -----------------------------------------------------------------------------------------------------------
    # Looking up

    def lookup(self, keys: Sequence[IntegerArray]) -> list[pa.Array]:
        """End adding, and return the values of keys that have been added, a column each, in the types of the log.

        Parameters
        ----------
        keys : sequence of numpy.ndarray of int64, shape (n_keys,)
            Keys as `GroupKeys.columns` has them, none twice.

        Raises
        ------
        ReadError
            If the temporary file is damaged.
        DataError
            If a text is not UTF-8.
        """
        kinds = list(self._types.values())
        if self._is_integer:
            return [restore_keys(keys[0], kinds[0])]
        self._finish()
        high, low = keys
        # Keys that are neighbours in this order are in one partition, or in the next.
        order = np.lexsort((low, high.view(np.uint64)))
        high, low = high[order], low[order]
        ends = np.searchsorted(_partitions_of(high), np.arange(_N_PARTITIONS), side="right")
        found: list[pa.Array] = []
        first = 0
        for partition, stop in enumerate(ends.tolist()):
            if stop > first:
                found.append(self._values_in(partition, high[first:stop], low[first:stop]))
            first = stop
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        columns = zip(*found, strict=True) if found else [[_nothing(kind)] for kind in kinds]
        return [
            restore_values(pa.concat_arrays(parts).take(pa.array(place)), kind)
            for parts, kind in zip(columns, kinds, strict=True)
        ]

    def _finish(self) -> None:
        """End adding; whoever comes next waits until all keys are in their partitions."""
        with self._finishing:
            with self._lock:
                waiting = self._taken()
                self._seen = np.zeros(0, dtype=np.uint64)
            if waiting:
                self._gather(waiting)

    def _values_in(self, partition: int, high: IntegerArray, low: IntegerArray) -> list[pa.Array]:
        """Return the values of sorted keys of a partition."""
        missing = np.ones(len(high), dtype=np.bool_)
        found: list[_Kept] = []
        places: list[IntegerArray] = []
        for kept in self._parts(partition):
            place = _places(kept, high, low)
            rows = np.flatnonzero(place >= 0)
            rows = rows[missing[place[rows]]]
            # A key may be in a part several times.
            new, first = np.unique(place[rows], return_index=True)
            if len(new):
                missing[new] = False
                found.append(kept.take(rows[first]))
                places.append(new)
            if not missing.any():
                break
        if missing.any():
            raise ValueError(f"{int(missing.sum())} keys have not been added")
        return [column.take(pa.array(np.argsort(np.concatenate(places)))) for column in _joined(found).values]

    def _parts(self, partition: int) -> Iterator[_Kept]:
        with self._lock:
            runs, pieces, file = list(self._runs), list(self._pieces[partition]), self._file
        for run in runs:
            yield run.partition(partition)
        for piece in pieces:
            assert file is not None
            content = np.empty(piece.n_bytes, dtype=np.uint8)
            file.read(content, piece.offset)
            if zlib.crc32(content.data) != piece.checksum:
                raise file.damaged()
            yield self._decoded(content, piece.n_rows)

    def _decoded(self, content: NDArray[np.uint8], n_rows: int) -> _Kept:
        begin = 0

        def taken(n_bytes: int) -> NDArray[np.uint8]:
            nonlocal begin
            begin += n_bytes
            return content[begin - n_bytes : begin]

        high, low = (taken(8 * n_rows).view(np.int64) for _ in range(2))
        values: list[pa.Array] = []
        for kind in self._types.values():
            numbers = taken(8 * n_rows).view(np.int64)
            if is_integer_key([kind]):
                # (What follows a text may stand at any byte.)
                values.append(pa.array(numbers.copy()))
                continue
            offsets = np.zeros(n_rows + 1, dtype=np.int64)
            np.cumsum(numbers, out=offsets[1:])
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(taken(int(offsets[-1])))]
            values.append(pa.Array.from_buffers(pa.large_binary(), n_rows, buffers))
        return _Kept(high, low, values)


def _encoded(kept: _Kept) -> list[bytes]:
    """Return keys and values as buffers, those of several parts to be joined one by one."""
    found = [kept.high.tobytes(), kept.low.tobytes()]
    for column in kept.values:
        if pa.types.is_int64(column.type):
            found.append(column.to_numpy().tobytes())
        else:
            data, offsets = bytes_of(column)
            found += [np.diff(offsets).tobytes(), data[offsets[0] : offsets[-1]].tobytes()]
    return found


def _partitions_of(high: IntegerArray) -> NDArray[np.uint8]:
    return (high.view(np.uint64) >> np.uint64(64 - _LOG2_PARTITIONS)).astype(np.uint8)


def _places(kept: _Kept, high: IntegerArray, low: IntegerArray) -> IntegerArray:
    """Return where keys are among sorted ones, -1 for those that are not."""
    theirs = kept.high.view(np.uint64)
    place = np.searchsorted(high.view(np.uint64), theirs)
    left = np.arange(len(theirs))
    found = np.full(len(theirs), -1, dtype=np.int64)
    # (Two keys with one first word are as rare as hashes of 64 bits that are equal.)
    while len(left):
        left = left[place[left] < len(high)]
        left = left[high[place[left]] == kept.high[left]]
        same = low[place[left]] == kept.low[left]
        found[left[same]] = place[left[same]]
        left = left[~same]
        place[left] += 1
    return found


def _nothing(kind: pa.DataType) -> pa.Array:
    return pa.array([], pa.int64() if is_integer_key([kind]) else pa.large_binary())
