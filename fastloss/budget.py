"""The budget of a scan: threads, memory and batches. None of it can change a digit of a result."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from fastloss.errors import UsageError
from fastloss.request import one_of
from fastloss.words import DeviceName, ExecutorName, MissingColumns, OnBadFile, Reader

DEFAULT_MEMORY = 512 << 20
DEFAULT_RETRY_SECONDS = 60.0
# Long enough that the interpreter's share of a batch is small, short enough that its columns stay in the cache.
_LARGEST_BATCH_ROWS = 262_144
_SMALLEST_BATCH_ROWS = 4_096
_SMALLEST_TASK_BYTES = 4 << 20
_LARGEST_JOINED_BYTES = 16 << 20
# So many tasks for each thread keep all of them at work until the end.
_TASKS_A_THREAD = 4
# What the process takes beside columns, buffers and states: the compiler, compiled kernels, the allocators' slack.
_FIXED_BYTES = 160 << 20
# Numbers that a thread holds for each row of a batch beside its columns: terms, slice numbers, their order, copies.
_SCRATCH_COLUMNS = 8
# What a candidate takes as it is decoded, as float64 of label and score, and as what a loss derives from it.
_CANDIDATE_BYTES = 80


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions:
    """How the caller wants a log to be read; what is None is chosen.

    Attributes
    ----------
    reader : str
        What decodes Parquet.
    verify_checksums : bool
        Verify the checksum of each Parquet page that carries one.
    on_bad_file : {"raise", "skip"}
        What to do at a file that cannot be read.
    missing_columns : {"error", "null"}
        What to do at a file that lacks a column which another has.
    memory : int or str
        Bound of the memory that the scan may take beyond the imported libraries.
    threads : int or None
        Reader threads, or worker processes.
    batch_rows : int or None
        Rows evaluated at a time.
    executor : str
        What the tasks run on.
    device : str
        Where the kernels run.
    storage_options : mapping of str to object, optional
        Options of the stores that URLs name; they may hold secrets, and are never shown or kept.
    retry_seconds : float
        How long a failure of a store that may pass is waited for.
    """

    reader: Reader = "pyarrow"
    verify_checksums: bool = False
    on_bad_file: OnBadFile = "raise"
    missing_columns: MissingColumns = "error"
    memory: int | str = DEFAULT_MEMORY
    threads: int | None = None
    batch_rows: int | None = None
    executor: ExecutorName = "threads"
    device: DeviceName = "cpu"
    storage_options: Mapping[str, object] | None = field(default=None, repr=False, hash=False)
    retry_seconds: float = DEFAULT_RETRY_SECONDS

    @classmethod
    def of(cls, words: Mapping[str, Sequence[str]], **options: Any) -> ExecutionOptions:
        """Check what a caller wrote; `words` has the allowed words of options that a registry elsewhere lists."""
        allowed = {**words, "on_bad_file": get_args(OnBadFile), "missing_columns": get_args(MissingColumns)}
        for name, given in options.items():
            if name in allowed:
                one_of(name, given, allowed[name])
        made = cls(**options)
        seconds = made.retry_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise UsageError(f"retry_seconds is {seconds!r}; allowed: seconds from 0.")
        return made


@dataclass(frozen=True)
class Execution:
    """How the log is read.

    Attributes
    ----------
    reader, verify_checksums, on_bad_file, missing_columns, executor, device, storage_options, retry_seconds
        As in `ExecutionOptions`.
    threads : int
        Reader threads, or worker processes.
    memory_bytes : int
        The memory that the scan may take.
    batch_rows : int
        Rows evaluated at a time.
    n_columns : int
        Columns that are read.
    sliced : bool
        Whether there are slices, which take a part of the memory.
    bounded_bytes : int
        What the merged state takes at most in columns whose size does not grow with slices.
    bounded_task_bytes : int
        What the state of a task takes at most in them.
    n_groups : int
        How many group keys rows are gathered by.
    """

    reader: Reader
    verify_checksums: bool
    on_bad_file: OnBadFile
    missing_columns: MissingColumns
    executor: ExecutorName
    device: DeviceName
    threads: int
    memory_bytes: int
    batch_rows: int
    n_columns: int
    sliced: bool
    bounded_bytes: int = 0
    bounded_task_bytes: int = 0
    n_groups: int = 0
    storage_options: Mapping[str, object] | None = field(default=None, repr=False, hash=False)
    retry_seconds: float = DEFAULT_RETRY_SECONDS

    @property
    def states_bytes(self) -> int:
        """The part of the memory for columns of bounded size: those of each thread's state and of the merged one."""
        return self.bounded_bytes + self.threads * self.bounded_task_bytes + self.n_groups * self.group_bytes

    @property
    def group_bytes(self) -> int:
        """The part of the memory for the rows that are gathered by one group key, before they are written to disk."""
        if not self.n_groups:
            return 0
        others = self.bounded_bytes + self.threads * self.bounded_task_bytes
        return max(_SMALLEST_TASK_BYTES, (self.room_bytes - others) // (2 * self.n_groups))

    def room_beside(self, held_bytes: int) -> int:
        """Return what is left for groups when the log has been read, beside the rows that are held."""
        return max(_SMALLEST_TASK_BYTES, self.room_bytes - self.bounded_bytes - held_bytes)

    @property
    def buffer_bytes(self) -> int:
        """Memory of all threads' buffers for the batch in work."""
        return self.threads * self.batch_rows * 8 * (self.n_columns + _SCRATCH_COLUMNS)

    @property
    def slices_bytes(self) -> int:
        """The part of the memory that slices may take, when there are slices."""
        return _slices_bytes(self.memory_bytes, self.sliced)

    @property
    def room_bytes(self) -> int:
        """The memory beside what the process takes and the part for slices; free when the log has been read."""
        return self.memory_bytes - _FIXED_BYTES - self.slices_bytes

    @property
    def task_bytes(self) -> int:
        """Decoded bytes that a task may hold at once."""
        return max(_SMALLEST_TASK_BYTES, self._thread_room)

    @property
    def joined_bytes(self) -> int:
        """Decoded bytes that a task may hold at once which is joined of small ones."""
        return max(0, min(_LARGEST_JOINED_BYTES, self._thread_room))

    @property
    def _thread_room(self) -> int:
        return (self.room_bytes - self.buffer_bytes - self.states_bytes) // self.threads

    def joined_rows(self, n_rows: int | None) -> int:
        """Return how many rows small tasks are joined to, in a log of so many; 0 where that is not known."""
        return 0 if n_rows is None else min(self.batch_rows, n_rows // (_TASKS_A_THREAD * self.threads))

    @property
    def longest_list(self) -> int:
        """How many candidates a list may have: as many as a thread's part of the memory has room for."""
        return max(self.batch_rows, self.task_bytes // _CANDIDATE_BYTES)

    def memory_bound(self, largest_task_bytes: int | None) -> int:
        """Return the most memory that the scan takes beyond the imported libraries, bytes.

        Parameters
        ----------
        largest_task_bytes : int or None
            The decoded bytes of the largest task; None where that is not known, as of a stream.
        """
        task = self.task_bytes if largest_task_bytes is None else largest_task_bytes
        return _FIXED_BYTES + self.threads * task + self.buffer_bytes + self.slices_bytes + self.states_bytes

    def with_fewer_threads(self) -> Execution:
        """Return the same with one thread less."""
        return replace(self, threads=self.threads - 1)


def _slices_bytes(memory_bytes: int, sliced: bool) -> int:
    # A quarter of what is there by default, and of more than that three quarters.
    more = max(0, memory_bytes - DEFAULT_MEMORY)
    return (memory_bytes - more) // 4 + 3 * more // 4 if sliced else 0


def memory_for_slices(slices_bytes: int) -> int:
    """Return a memory of which slices may take so much."""
    return DEFAULT_MEMORY + max(0, slices_bytes - DEFAULT_MEMORY // 4) * 4 // 3


def memory_for_room(room: int, sliced: bool) -> int:
    """Return a memory that leaves so much for reading, a whole number of MiB."""
    wanted = room + _FIXED_BYTES
    if sliced:
        beyond = wanted - (DEFAULT_MEMORY - DEFAULT_MEMORY // 4)
        wanted = wanted * 4 // 3 + 4 if beyond <= 0 else DEFAULT_MEMORY + 4 * beyond + 4
    return -(-wanted // (1 << 20)) * (1 << 20)


def choose_execution(options: ExecutionOptions, *, n_columns: int, sliced: bool) -> Execution:
    """Choose what the caller left open so that the smallest pieces of a log fit in the memory.

    Raises
    ------
    UsageError
        If they cannot fit, or a number is out of range.
    """
    memory_bytes = parse_bytes(options.memory)
    room = memory_bytes - _slices_bytes(memory_bytes, sliced) - _FIXED_BYTES
    row_bytes = 8 * (n_columns + _SCRATCH_COLUMNS)
    rows = _SMALLEST_BATCH_ROWS if options.batch_rows is None else positive("batch_rows", options.batch_rows)
    thread_bytes = _SMALLEST_TASK_BYTES + rows * row_bytes
    if options.threads is None:
        threads = max(1, min(available_cpus(), room // thread_bytes))
    else:
        threads = positive("threads", options.threads)
    if room < threads * thread_bytes:
        raise UsageError(
            f"memory is {format_bytes(memory_bytes)}; {threads} thread{'s' if threads > 1 else ''} with batches of "
            f"{rows} rows need {format_bytes(memory_for_room(threads * thread_bytes, sliced))}. Raise memory"
            f"{' or lower threads' if threads > 1 else ''}."
        )
    if options.batch_rows is None:
        # A quarter for the batches in work leaves the rest to what is read.
        rows = min(_LARGEST_BATCH_ROWS, max(rows, room // (4 * threads * row_bytes)))
    return Execution(
        reader=options.reader,
        verify_checksums=options.verify_checksums,
        on_bad_file=options.on_bad_file,
        missing_columns=options.missing_columns,
        executor=options.executor,
        device=options.device,
        threads=threads,
        memory_bytes=memory_bytes,
        batch_rows=rows,
        n_columns=n_columns,
        sliced=sliced,
        storage_options=options.storage_options,
        retry_seconds=options.retry_seconds,
    )


def positive(name: str, given: int) -> int:
    """Return an option's number, or raise a UsageError if it is no whole number from 1."""
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UsageError(f"{name} is {given!r}; allowed: a whole number from 1.")
    return given


def available_cpus() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_UNITS |= {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_bytes(given: int | str) -> int:
    """Read a number of bytes such as 536870912, '512MiB' or '1GB'."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(given))
    if isinstance(given, bool) or match is None or match[2].lower() not in _UNITS:
        raise UsageError(f"memory is {given!r}; allowed: bytes, or a number with KB, MB, GB, KiB, MiB or GiB.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def format_bytes(count: int) -> str:
    """Write a number of bytes for a person."""
    return f"{count / (1 << 20):,.0f} MiB" if count >= 1 << 20 else f"{count:,} bytes"
