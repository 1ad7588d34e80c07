"""Rows of a log, gathered by the hash of their key: in memory up to a bound, beyond it on disk.

A batch becomes a run: its rows in the order of their partitions, column by column, each as narrow as its numbers allow
(`narrowing`). When the next run would pass the bound, all runs are written to one file: partition after partition,
the slices of all runs together and its columns side by side, so that a partition is read in few pieces. All threads
that come with rows meanwhile take partitions to write. Then the memory is used anew.

A partition that is larger than its reader allows is split by further bits of the hash, in a store of its own.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.errors import FastlossError
from fastloss.shuffle.memory import Regions
from fastloss.shuffle.narrowing import Buffers, Bytes, Column, Frame, Pieces, common_frame, frame_of, narrow
from fastloss.shuffle.temporary import TemporaryFile
from fastloss_kernels.cpu.shuffling import CHECKSUM_LANES, make_checksum, make_place_rows, make_scatter

Hashes = NDArray[np.uint64]
# The hashes of rows, from their columns.
Rehash = Callable[[Sequence[Column]], Hashes]

# A run's places are 32-bit numbers that stay in the cache, as do the columns that are scattered.
_LARGEST_RUN = 262_144
_SMALLEST_RUN = 1_024
# Parts of the memory that a run, and a piece that is written or read at once, may take.
_RUN_PART = 32
_PIECE_PART = 32
_LARGEST_PIECE = 4 << 20
_SMALLEST_PIECE = 64 << 10
# Small partitions are joined to about so many rows: enough to work on, and few enough to stay in the cache.
_JOINED_ROWS = 131_072
# Rows that are looked at for hashes that many rows share, and how many such hashes are taken apart at once.
_SAMPLED_ROWS = 4_096
_MOST_APART = 64
# Of the hash, what is kept where it cannot be computed anew.
_KEPT_BITS = 32
_MOST_LOG2_PARTITIONS = 12
# From 2,048 partitions on, a run has few rows of each.
_MOST_BITS_AT_ONCE = 11
_FEWEST_BITS = 4


class _Run(NamedTuple):
    """A batch in memory: columns begin at `begins` of `memory`, partition p of each with the row ``starts[p]``."""

    starts: NDArray[np.int32]
    frames: list[Frame]
    begins: list[int]
    memory: Bytes


class _Span(NamedTuple):
    """Rows of runs: of run i as many as ``counts[i]``, from the row ``starts[i]`` on."""

    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def n_rows(self) -> int:
        """How many they are."""
        return int(self.counts.sum())

    def part(self, begin: int, end: int) -> _Span:
        """Return the rows from `begin` to `end` of these."""
        if begin == 0 and end == self.n_rows:
            return self
        before = self.counts.cumsum() - self.counts
        skipped = np.clip(begin - before, 0, self.counts)
        return _Span(self.starts + skipped, np.clip(end - before, 0, self.counts) - skipped)

    def sample(self, n_rows: int) -> _Span:
        """Return some of these rows, about as many of each run."""
        return _Span(self.starts, np.minimum(self.counts, max(1, n_rows // max(1, len(self.counts)))))


class _Runs:
    """All runs in memory, as arrays."""

    def __init__(self, runs: list[_Run], n_partitions: int, n_columns: int) -> None:
        self._memory = [run.memory for run in runs]
        self.starts = np.zeros((len(runs), n_partitions + 1), dtype=np.int32)
        shape = n_columns, len(runs)
        self._addresses = np.zeros(shape, dtype=np.int64)
        self._kinds, self._widths = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self._smallest = np.zeros(shape, dtype=np.uint64)
        for i, run in enumerate(runs):
            self.starts[i] = run.starts
            self._addresses[:, i] = np.add(run.memory.ctypes.data, run.begins)
            self._kinds[:, i] = [frame.kind for frame in run.frames]
            self._widths[:, i] = [frame.width for frame in run.frames]
            self._smallest[:, i] = [frame.smallest % (1 << 64) for frame in run.frames]
        # Of each column, the frame that holds all runs.
        self.frames: list[list[Frame]] = [[run.frames[column] for run in runs] for column in range(n_columns)]

    def rows(self) -> NDArray[np.int64]:
        """Return how many rows each partition has."""
        rows: NDArray[np.int64] = np.diff(self.starts, axis=1).sum(axis=0, dtype=np.int64)
        return rows

    def span(self, first: int, stop: int) -> _Span:
        """Return where the rows of the partitions from `first` to `stop` lie."""
        starts = self.starts[:, first].astype(np.int64)
        return _Span(starts, self.starts[:, stop] - starts)

    def pieces(self, column: int, span: _Span) -> Pieces:
        """Return a column of rows."""
        widths = self._widths[column]
        return Pieces(
            self._addresses[column] + span.starts * widths,
            span.counts,
            self._kinds[column],
            widths,
            self._smallest[column],
        )


class _Piece(NamedTuple):
    """Rows of a partition on disk."""

    partition: int
    n_rows: int
    offset: int
    n_bytes: int


class _Written:
    """What has been written at once: pieces of each partition, in the order of partitions, and their checksums."""

    def __init__(self, rows: NDArray[np.int64], frames: list[Frame], piece_rows: int, offset: int) -> None:
        self.frames = frames
        self.pieces: list[_Piece] = []
        # The pieces of partition p begin with ``begins[p]``.
        self.begins = np.zeros(len(rows) + 1, dtype=np.int64)
        for partition, left in enumerate(rows.tolist()):
            while left:
                n_rows = min(left, piece_rows)
                n_bytes = self.layout(n_rows)[1]
                self.pieces.append(_Piece(partition, n_rows, offset, n_bytes))
                left, offset = left - n_rows, offset + n_bytes
            self.begins[partition + 1] = len(self.pieces)
        self.end = offset
        self.checksums: list[int] = [0] * len(self.pieces)

    def layout(self, n_rows: int) -> tuple[list[int], int]:
        """Return where the columns of a piece begin, and its size."""
        begins, end = [], 0
        for frame in self.frames:
            begins.append(end)
            end += -(-n_rows * frame.width // 8) * 8
        return begins, -(-end // (8 * CHECKSUM_LANES)) * 8 * CHECKSUM_LANES


class _Spill:
    """Runs that are being written; any number of threads take the next partition until none is left."""

    def __init__(self, runs: _Runs, written: _Written) -> None:
        self.runs = runs
        self.written = written
        self._left = iter(range(len(runs.starts[0]) - 1))
        self._at_work = 0

    def take(self) -> int | None:
        """Return the next partition; the caller holds the store's lock, as for `done`."""
        partition = next(self._left, None)
        self._at_work += partition is not None
        return partition

    def done(self) -> None:
        """Tell that a partition has been written, or has failed."""
        self._at_work -= 1

    def stop(self) -> None:
        """Give out no further partition."""
        self._left = iter(range(0))

    @property
    def at_work(self) -> bool:
        """Whether a partition is still being written."""
        return self._at_work > 0


class _Scratch:
    """What one thread needs to add a batch, with the rows that wait for others."""

    def __init__(self, dtypes: Sequence[np.dtype[Any]]) -> None:
        self.buffers = Buffers()
        self.places = np.empty(0, dtype=np.int32)
        self.piece = np.empty(0, dtype=np.uint8)
        self.waiting = 0
        self._dtypes = dtypes
        self.hashes: Hashes = np.empty(0, dtype=np.uint64)
        self.columns: list[Column] = []

    def place(self, n_rows: int) -> NDArray[np.int32]:
        """Return room for the places of so many rows."""
        if len(self.places) < n_rows:
            self.places = np.empty(n_rows, dtype=np.int32)
        return self.places[:n_rows]

    def piece_of(self, n_bytes: int) -> Bytes:
        """Return room for a piece of so many bytes, a multiple of 8."""
        if len(self.piece) < n_bytes:
            self.piece = np.empty(n_bytes // 8, dtype=np.uint64).view(np.uint8)
        return self.piece[:n_bytes]

    def wait(self, hashes: Hashes, columns: Sequence[Column], most_rows: int) -> None:
        """Keep the rows of a small batch, for which there must be room."""
        if len(self.hashes) < most_rows:
            self.hashes = np.empty(most_rows, dtype=np.uint64)
            self.columns = [np.empty(most_rows, dtype=dtype) for dtype in self._dtypes]
        begin, end = self.waiting, self.waiting + len(hashes)
        self.hashes[begin:end] = hashes
        for kept, column in zip(self.columns, columns, strict=True):
            kept[begin:end] = column
        self.waiting = end


class Partition:
    """The rows of some hashes; no other partition has rows of these.

    Attributes
    ----------
    n_rows : int
        Its rows.
    nbytes : int
        What they take when they are loaded.
    """

    def __init__(self, store: RowStore, first: int, stop: int, n_rows: int) -> None:
        self._store, self._first, self._stop = store, first, stop
        self.n_rows = n_rows
        self.nbytes = n_rows * store.row_bytes

    def load(self, columns: Sequence[int] | None = None) -> list[Column]:
        """Return the columns, all or those of these numbers, in their own types.

        The rows are in no certain order, which is the same each time; so a large partition can be loaded column by
        column.

        Raises
        ------
        ReadError
            If the temporary file is damaged.
        """
        return self._store.load(self._first, self._stop, self.n_rows, columns)

    def parts(self, n_rows: int) -> Iterator[list[Column]]:
        """Yield the columns of about so many rows at a time, for a partition that is too large to load."""
        return self._store.load_parts(self._first, self._stop, n_rows)

    def sample(self, column: int) -> Column:
        """Return some of a column, of rows from everywhere in a partition that is not joined of small ones."""
        return self._store.sample(self._first, column)


def log2_partitions_for(n_rows: int) -> int:
    """Return by how many bits a log of so many rows is gathered, so that most partitions stay in the cache."""
    return min(_MOST_BITS_AT_ONCE, max(_FEWEST_BITS, (n_rows // _JOINED_ROWS).bit_length()))


class RowStore:
    """Rows of a log, gathered by the hash of their key: in memory up to a bound, beyond it on disk.

    Parameters
    ----------
    dtypes : sequence of dtype
        The types of the columns: integers, float32, float64.
    memory_bytes : int
        What rows may take in memory. Each thread takes up to `thread_bytes` beside it.
    folder : str, optional
        Where a temporary file may lie; by default as `TemporaryFile` has it.
    log2_partitions : int
        The leading bits of the hash by which rows are gathered first, up to 12.
    rehash : callable, optional
        From columns to hashes, the same that rows are added with; used where a partition is split. Without it 32 more
        bits of each hash are kept, 4 bytes a row.
    skipped_bits : int
        Leading bits of the hashes that say nothing, as they are the same in all rows.
    apart : array of uint64
        Hashes whose rows get a partition each.
    """

    def __init__(
        self,
        dtypes: Sequence[Any],
        *,
        memory_bytes: int,
        folder: str | None = None,
        log2_partitions: int = 8,
        rehash: Rehash | None = None,
        skipped_bits: int = 0,
        apart: Hashes | None = None,
    ) -> None:
        self._given = [np.dtype(dtype) for dtype in dtypes]
        for dtype in self._given:
            if dtype.kind not in "iuf" or dtype.itemsize < (4 if dtype.kind == "f" else 1):
                raise ValueError(f"columns of {dtype} cannot be kept; allowed: integers, float32, float64")
        if not 0 <= log2_partitions <= _MOST_LOG2_PARTITIONS:
            raise ValueError(f"log2_partitions is {log2_partitions}; allowed: 0 to {_MOST_LOG2_PARTITIONS}")
        self._dtypes = [*self._given, np.dtype(np.uint32)] if rehash is None else self._given
        # The leading columns, which are those of the caller.
        self._n_shown = len(self._given)
        self._rehash = rehash
        self._skipped_bits, self._n_bits = skipped_bits, log2_partitions
        self._apart = np.empty(0, dtype=np.uint64) if apart is None else apart
        self._n_partitions = (1 << log2_partitions) + len(self._apart)
        self._memory_bytes, self._folder = memory_bytes, folder
        # A row as it comes, beside its hash.
        kept = sum(dtype.itemsize for dtype in self._dtypes)
        most_rows = memory_bytes // (_RUN_PART * max(1, kept))
        self._run_rows = min(_LARGEST_RUN, max(_SMALLEST_RUN, 4 * self._n_partitions, most_rows))
        self._waiting_rows = min(self._run_rows // 4, memory_bytes // (_RUN_PART * (kept + 8)))
        self._piece_bytes = min(_LARGEST_PIECE, max(_SMALLEST_PIECE, memory_bytes // _PIECE_PART))

        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._regions = Regions(memory_bytes)
        self._runs: list[_Run] = []
        self._table: _Runs | None = None
        self._written: list[_Written] = []
        self._file: TemporaryFile | None = None
        self._spill: _Spill | None = None
        self._failure: BaseException | None = None
        self._scratches: list[_Scratch] = []
        self._n_scratches = 0
        self._filling = 0
        self._n_rows = 0
        self._state = "open"
        self._children: weakref.WeakSet[RowStore] = weakref.WeakSet()

    # -----------------------------------------------------------------------------------------------------------
    # What it holds

    @property
    def n_rows(self) -> int:
        """Rows that have been added."""
        return self._n_rows

    @property
    def row_bytes(self) -> int:
        """Bytes of a loaded row."""
        return sum(dtype.itemsize for dtype in self._dtypes[: self._n_shown])

    @property
    def thread_bytes(self) -> int:
        """The most that a thread takes beside the rows, in bytes: rows that wait, steps of a run, a piece."""
        row_bytes = sum(dtype.itemsize for dtype in self._dtypes)
        steps = self._run_rows * (4 + 8 + 8 + 1)
        return int(steps + self._waiting_rows * (8 + row_bytes) + self._piece_bytes)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that rows take."""
        return self._regions.nbytes

    @property
    def spilled_bytes(self) -> int:
        """Bytes that have been written to disk."""
        return self._written[-1].end if self._written else 0

    def __enter__(self) -> RowStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give memory and disk back; partitions cannot be loaded any more."""
        with self._lock:
            self._state = "closed"
            self._runs, self._table, self._spill, self._scratches = [], None, None, []
            self._regions.release()
            children, file, self._file = list(self._children), self._file, None
            self._changed.notify_all()
        for child in children:
            child.close()
        if file is not None:
            file.close()

    # -----------------------------------------------------------------------------------------------------------
    # Adding

    def add(self, hashes: Hashes, columns: Sequence[Column]) -> None:
        """Add rows; several threads may do so at once, and the arrays may be changed afterwards.

        Parameters
        ----------
        hashes : uint64 array, shape (n_rows,)
            Well mixed; rows with the same hash come into the same partition.
        columns : sequence of arrays, shape (n_rows,)
            In the types of the store.

        Raises
        ------
        TemporaryFileError
            If there is no room on the disk.
        """
        n_rows = len(hashes)
        if hashes.dtype != np.uint64 or [column.dtype for column in columns] != self._given:
            raise ValueError(f"hashes must be of uint64 and columns of {[str(dtype) for dtype in self._given]}")
        if any(len(column) != n_rows for column in columns):
            raise ValueError(f"columns must be as long as hashes, {n_rows}")
        if n_rows == 0:
            return
        if self._rehash is None:
            kept = (hashes << np.uint64(self._skipped_bits + self._n_bits)) >> np.uint64(64 - _KEPT_BITS)
            columns = [*columns, kept.astype(np.uint32)]
        with self._lock:
            self._check_open()
            self._n_rows += n_rows
            scratch = self._borrow()
        try:
            if 2 * n_rows <= self._waiting_rows:
                if scratch.waiting + n_rows > self._waiting_rows:
                    self._flush(scratch)
                scratch.wait(hashes, columns, self._waiting_rows)
                return
            hashes = np.ascontiguousarray(hashes)
            columns = [np.ascontiguousarray(column) for column in columns]
            for begin in range(0, n_rows, self._run_rows):
                part = slice(begin, begin + self._run_rows)
                self._add_run(hashes[part], [column[part] for column in columns], scratch)
        finally:
            self._give_back(scratch)

    def _check_open(self) -> None:
        self._check_failure()
        if self._state != "open":
            raise ValueError(f"the store is {self._state}")

    def _borrow(self) -> _Scratch:
        if self._scratches:
            return self._scratches.pop()
        self._n_scratches += 1
        return _Scratch(self._dtypes)

    def _give_back(self, scratch: _Scratch) -> None:
        with self._lock:
            self._scratches.append(scratch)
            self._changed.notify_all()

    def _flush(self, scratch: _Scratch) -> None:
        n_rows, scratch.waiting = scratch.waiting, 0
        if n_rows:
            self._add_run(scratch.hashes[:n_rows], [column[:n_rows] for column in scratch.columns], scratch)

    def _add_run(self, hashes: Hashes, columns: Sequence[Column], scratch: _Scratch) -> None:
        n_rows = len(hashes)
        frames = [frame_of(column, scratch.buffers) for column in columns]
        begins, end = [], 0
        for frame in frames:
            begins.append(end)
            end += -(-n_rows * frame.width // 8) * 8
        starts = np.empty(self._n_partitions + 1, dtype=np.int32)
        places = scratch.place(n_rows)
        make_place_rows()(hashes.ctypes.data, self._skipped_bits, self._n_bits, self._apart, starts, places)
        memory = self._reserve(end + starts.nbytes, scratch)
        run = None
        try:
            kept_starts = memory[end : end + starts.nbytes].view(np.int32)
            kept_starts[:] = starts
            for column, frame, begin in zip(columns, frames, begins, strict=True):
                if frame.width:
                    kept = narrow(column, frame, scratch.buffers)
                    make_scatter()(kept.ctypes.data, frame.width, places, memory.ctypes.data + begin)
            run = _Run(kept_starts, frames, begins, memory)
        finally:
            with self._lock:
                if run is not None:
                    self._runs.append(run)
                self._filling -= 1
                self._changed.notify_all()

    def _reserve(self, n_bytes: int, scratch: _Scratch) -> Bytes:
        """Return memory for a run, after all others have been written to disk if it takes that."""
        while True:
            with self._lock:
                self._check_failure()
                if self._spill is None:
                    memory = self._regions.take(n_bytes)
                    if memory is not None:
                        self._filling += 1
                        return memory
                    self._begin_spill()
                spill = self._spill
            if spill is not None:
                self._help(spill, scratch)

    def _check_failure(self) -> None:
        if self._state == "closed":
            raise ValueError("the store is closed")
        if isinstance(self._failure, FastlossError):
            raise type(self._failure)(*self._failure.args) from self._failure
        if self._failure is not None:
            raise RuntimeError("rows could not be written by another thread") from self._failure

    # -----------------------------------------------------------------------------------------------------------
    # Writing to disk

    def _begin_spill(self) -> None:
        """Plan the writing of all runs, when no thread is filling one; the caller holds the lock."""
        while self._filling and self._spill is None:
            self._changed.wait()
        if self._spill is not None or self._failure is not None:
            return
        if not self._runs:
            # Of a run that was never finished.
            self._regions.reset()
            return
        runs = _Runs(self._runs, self._n_partitions, len(self._dtypes))
        frames = [common_frame(kinds, dtype) for kinds, dtype in zip(runs.frames, self._dtypes, strict=True)]
        row_bytes = max(1, sum(frame.width for frame in frames))
        begin = self.spilled_bytes
        written = _Written(runs.rows(), frames, max(1, self._piece_bytes // row_bytes), begin)
        try:
            if self._file is None:
                self._file = TemporaryFile(self._folder)
            self._file.need(written.end - begin)
        except BaseException as error:
            self._fail(error)
            raise
        self._spill = _Spill(runs, written)
        self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._spill = None
        self._changed.notify_all()

    def _help(self, spill: _Spill, scratch: _Scratch) -> None:
        """Write partitions until none is left, and wait for those of other threads."""
        while True:
            with self._lock:
                self._check_failure()
                partition = spill.take()
                if partition is None:
                    while self._spill is spill and spill.at_work:
                        self._changed.wait()
                    if self._spill is spill:
                        self._end_spill(spill)
                    self._check_failure()
                    return
            error = None
            try:
                self._write(spill, partition, scratch)
            except BaseException as caught:
                error = caught
                raise
            finally:
                with self._lock:
                    spill.done()
                    if error is not None:
                        spill.stop()
                        self._fail(error)
                    self._changed.notify_all()

    def _end_spill(self, spill: _Spill) -> None:
        self._written.append(spill.written)
        self._runs = []
        self._regions.reset()
        self._spill = None
        self._changed.notify_all()

    def _write(self, spill: _Spill, partition: int, scratch: _Scratch) -> None:
        written, file = spill.written, self._file
        if file is None:
            raise ValueError("the store is closed")
        span, row = spill.runs.span(partition, partition + 1), 0
        for i in range(written.begins[partition], written.begins[partition + 1]):
            piece = written.pieces[i]
            content = scratch.piece_of(piece.n_bytes)
            rows = span.part(row, row + piece.n_rows)
            begins, _ = written.layout(piece.n_rows)
            ends = [*begins[1:], piece.n_bytes]
            for column, (frame, begin, end) in enumerate(zip(written.frames, begins, ends, strict=True)):
                used = begin + piece.n_rows * frame.width
                kept = content[begin:used].view(frame.dtype)
                spill.runs.pieces(column, rows).repack(frame, kept)
                content[used:end] = 0
            row += piece.n_rows
            written.checksums[i] = _checksum_of(content, piece)
            file.write(content, piece.offset)

    # -----------------------------------------------------------------------------------------------------------
    # Reading

    def partitions(
        self, most_rows: int | None = None, most_bytes: int | None = None, *, joined_rows: int = _JOINED_ROWS
    ) -> Iterator[Partition]:
        """End adding, and return all partitions, those of many rows first; they may be loaded in any thread.

        Parameters
        ----------
        most_rows, most_bytes : int, optional
            What a partition should not pass when it is loaded. A larger one is split, as it is reached, unless a
            single hash has half of its rows.
        joined_rows : int
            Small partitions come together, up to so many rows.

        Raises
        ------
        TemporaryFileError
            If there is no room on the disk.
        """
        self._finish()
        most = self._n_rows if most_rows is None else most_rows
        if most_bytes is not None:
            most = min(most, most_bytes // max(1, self.row_bytes))
        most = max(1, most)
        rows = self._partition_rows()
        large = [partition for partition, n_rows in enumerate(rows) if n_rows > most]
        shared = {partition: self._shared_hashes(partition, rows[partition], most) for partition in large}
        split = {partition: apart for partition, apart in shared.items() if apart is not None}
        if large:
            # The memory is that of the stores which partitions are split in, or of the rows of one group.
            self._spill_all()
        whole = [partition for partition in large if partition not in split]
        return self._each(rows, whole, split, most, min(joined_rows, most))

    def _each(
        self, rows: list[int], whole: list[int], split: dict[int, Hashes], most: int, joined: int
    ) -> Iterator[Partition]:
        for partition in whole:
            yield Partition(self, partition, partition + 1, rows[partition])
        apart = {*whole, *split}
        first, n_rows = 0, 0
        for partition, more in enumerate(rows):
            if partition in apart or n_rows + more > joined:
                if n_rows:
                    yield Partition(self, first, partition, n_rows)
                first, n_rows = partition, 0
            if partition in apart:
                first = partition + 1
            else:
                n_rows += more
        if n_rows:
            yield Partition(self, first, len(rows), n_rows)
        for partition, hashes in split.items():
            yield from self._split(partition, rows[partition], hashes, most).partitions(most, joined_rows=joined)

    def _finish(self) -> None:
        with self._lock:
            if self._state == "read":
                return
            self._check_open()
            self._state = "read"
            while len(self._scratches) < self._n_scratches:
                self._changed.wait()
            scratches = list(self._scratches)
        for scratch in scratches:
            self._flush(scratch)
        with self._lock:
            self._check_failure()
            # What threads needed to add is given back; one is kept for reading.
            self._scratches, self._n_scratches = [], 0
            self._table = _Runs(self._runs, self._n_partitions, len(self._dtypes))

    def _spill_all(self) -> None:
        scratch = self._borrowed()
        try:
            with self._lock:
                self._begin_spill()
                spill = self._spill
            if spill is not None:
                self._help(spill, scratch)
        finally:
            self._give_back(scratch)
        with self._lock:
            self._regions.release()
            self._table = _Runs([], self._n_partitions, len(self._dtypes))

    def _borrowed(self) -> _Scratch:
        with self._lock:
            return self._borrow()

    def _partition_rows(self) -> list[int]:
        rows = self._readable().rows()
        for written in self._written:
            for piece in written.pieces:
                rows[piece.partition] += piece.n_rows
        return [int(n_rows) for n_rows in rows]

    def _readable(self) -> _Runs:
        if self._table is None:
            raise ValueError("the store is closed")
        return self._table

    def _pieces_of(self, first: int, stop: int) -> Iterator[tuple[_Written, int]]:
        for written in self._written:
            for i in range(written.begins[first], written.begins[stop]):
                yield written, i

    def _read(self, written: _Written, i: int, scratch: _Scratch) -> Bytes:
        piece, file = written.pieces[i], self._file
        if file is None:
            raise ValueError("the store is closed")
        content = scratch.piece_of(piece.n_bytes)
        file.read(content, piece.offset)
        if _checksum_of(content, piece) != written.checksums[i]:
            raise file.damaged()
        return content

    def _unpack(self, written: _Written, i: int, content: Bytes, columns: Iterable[tuple[int, Column]]) -> None:
        """Write columns of a piece that has been read to arrays of their types."""
        n_rows = written.pieces[i].n_rows
        begins, _ = written.layout(n_rows)
        for column, out in columns:
            Pieces.one(content.ctypes.data + begins[column], n_rows, written.frames[column]).unpack(out)

    def load(self, first: int, stop: int, n_rows: int, columns: Sequence[int] | None = None) -> list[Column]:
        """Return columns of the rows of the partitions from `first` to `stop`, of which there are `n_rows`."""
        numbers = range(self._n_shown) if columns is None else columns
        table = self._readable()
        loaded = [np.empty(n_rows, dtype=self._dtypes[column]) for column in numbers]
        span = table.span(first, stop)
        begin = span.n_rows
        for column, out in zip(numbers, loaded, strict=True):
            table.pieces(column, span).unpack(out[:begin])
        scratch = self._borrowed()
        try:
            for written, i in self._pieces_of(first, stop):
                content = self._read(written, i, scratch)
                end = begin + written.pieces[i].n_rows
                self._unpack(written, i, content, zip(numbers, [out[begin:end] for out in loaded], strict=True))
                begin = end
        finally:
            self._give_back(scratch)
        return loaded

    def load_parts(self, first: int, stop: int, n_rows: int) -> Iterator[list[Column]]:
        """Yield all columns of some rows of the partitions from `first` to `stop` at a time."""
        table = self._readable()
        span = table.span(first, stop)
        numbers = range(self._n_shown)
        for begin in range(0, span.n_rows, n_rows):
            some = span.part(begin, min(begin + n_rows, span.n_rows))
            loaded = [np.empty(some.n_rows, dtype=self._dtypes[column]) for column in numbers]
            for column, out in zip(numbers, loaded, strict=True):
                table.pieces(column, some).unpack(out)
            yield loaded
        for written, i in self._pieces_of(first, stop):
            loaded = [np.empty(written.pieces[i].n_rows, dtype=self._dtypes[column]) for column in numbers]
            scratch = self._borrowed()
            try:
                self._unpack(written, i, self._read(written, i, scratch), zip(numbers, loaded, strict=True))
            finally:
                self._give_back(scratch)
            yield loaded

    # -----------------------------------------------------------------------------------------------------------
    # Splitting

    def _hashes_of(self, columns: Sequence[Column]) -> tuple[Hashes, int]:
        """Return hashes of rows from all columns that are kept, and how many of their leading bits say nothing."""
        if self._rehash is not None:
            return self._rehash(columns), self._skipped_bits + self._n_bits
        return columns[-1].astype(np.uint64) << np.uint64(64 - _KEPT_BITS), 0

    def _shared_hashes(self, partition: int, n_rows: int, most: int) -> Hashes | None:
        """Return the hashes to be taken apart in a partition; None if it is to stay whole."""
        sampled = [self.sample(partition, column) for column in range(len(self._dtypes))]
        hashes, skipped_bits = self._hashes_of(sampled)
        known, counts = np.unique(hashes, return_counts=True)
        if skipped_bits + 1 >= 64 or 2 * counts.max() >= len(hashes):
            return None
        # With as many rows as half of a partition may have, if the sample is right.
        often = counts * (n_rows / len(hashes)) > most / 2
        often &= counts > 1
        shared: Hashes = known[often][np.argsort(-counts[often], kind="stable")][:_MOST_APART]
        return shared

    def sample(self, partition: int, column: int) -> Column:
        """Return some of a column of one partition."""
        pieces = list(self._pieces_of(partition, partition + 1))
        table = self._readable()
        in_memory = table.span(partition, partition + 1).sample(_SAMPLED_ROWS)
        parts = [np.empty(in_memory.n_rows, dtype=self._dtypes[column])]
        table.pieces(column, in_memory).unpack(parts[0])
        scratch = self._borrowed()
        try:
            for written, i in pieces[:: max(1, len(pieces) // 16)]:
                out = np.empty(written.pieces[i].n_rows, dtype=self._dtypes[column])
                self._unpack(written, i, self._read(written, i, scratch), [(column, out)])
                parts.append(out[:: max(1, len(out) * 16 // _SAMPLED_ROWS)])
        finally:
            self._give_back(scratch)
        return np.concatenate(parts)

    def _split(self, partition: int, n_rows: int, apart: Hashes, most: int) -> RowStore:
        """Return a store with the rows of a partition alone, all on disk."""
        # Partitions of half of what is allowed, on average.
        n_bits = min(8, max(1, (2 * n_rows // most).bit_length()))
        hashes_of = self._hashes_of
        skipped_bits = self._skipped_bits + self._n_bits if self._rehash is not None else 0
        child = RowStore(
            self._dtypes,
            memory_bytes=self._memory_bytes,
            folder=self._folder,
            log2_partitions=n_bits,
            rehash=lambda columns: hashes_of(columns)[0],
            skipped_bits=skipped_bits,
            apart=apart,
        )
        child._n_shown = self._n_shown
        self._children.add(child)
        scratch = self._borrowed()
        try:
            for written, i in self._pieces_of(partition, partition + 1):
                columns = [np.empty(written.pieces[i].n_rows, dtype=dtype) for dtype in self._dtypes]
                self._unpack(written, i, self._read(written, i, scratch), enumerate(columns))
                child.add(self._hashes_of(columns)[0], columns)
        finally:
            self._give_back(scratch)
        child._finish()
        child._spill_all()
        return child


def _checksum_of(content: Bytes, piece: _Piece) -> int:
    return int(make_checksum()(content.view(np.uint64), np.uint64(piece.offset)))
