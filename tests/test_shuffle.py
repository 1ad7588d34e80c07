"""Rows gathered by the hash of their key: nothing lost or changed, within bounds, and nothing left on disk."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastloss.errors import FastlossError, ReadError, TemporaryFileError
from fastloss.shuffle.grouping import gather, group_rows, hash_integers
from fastloss.shuffle.memory import Regions
from fastloss.shuffle.narrowing import Buffers, Pieces, common_frame, frame_of, narrow
from fastloss.shuffle.store import Partition, RowStore, log2_partitions_for
from fastloss.shuffle.temporary import TemporaryFile

ROOT = Path(__file__).parents[1]
Columns = list[np.ndarray[Any, Any]]
INTEGERS = ["int8", "int16", "int32", "int64", "uint64"]
FLOATS = ["float32", "float64"]


def bits(column: np.ndarray[Any, Any]) -> list[int]:
    return [int(number) for number in column.view(f"u{column.dtype.itemsize}")]


def by_hash(hashes: np.ndarray[Any, Any], columns: Sequence[np.ndarray[Any, Any]]) -> dict[int, list[Any]]:
    """The rows of each hash, as bits, in one certain order."""
    found = defaultdict(list)
    for row in zip(hashes.tolist(), *map(bits, columns), strict=True):
        found[row[0]].append(row[1:])
    return {key: sorted(rows) for key, rows in found.items()}


def loaded(partitions: Sequence[Partition]) -> dict[int, list[Any]]:
    """The same from partitions whose first column is the hash; no hash is in two of them."""
    found: dict[int, list[Any]] = {}
    for partition in partitions:
        columns = partition.load()
        assert {len(column) for column in columns} == {partition.n_rows}
        assert partition.nbytes == sum(column.nbytes for column in columns)
        rows = by_hash(columns[0], columns)
        assert not rows.keys() & found.keys()
        found |= rows
    return found


def own_hashes(columns: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return columns[0]


# ---------------------------------------------------------------------------------------------------------------
# Narrow columns


@st.composite
def columns_of(draw: st.DrawFn, dtype: str, n_rows: int) -> np.ndarray[Any, Any]:
    """Numbers near each other, whole numbers as floats, and any bits."""
    kind = np.dtype(dtype)
    unsigned = np.dtype(f"u{kind.itemsize}")
    if draw(st.booleans()):
        return draw(hnp.arrays(unsigned, n_rows, elements=hnp.from_dtype(unsigned))).view(kind)
    span = draw(st.sampled_from([0, 1, 255, 256, 65_535, 65_536, 2**31]))
    if kind.kind == "f":
        whole = draw(hnp.arrays(np.int64, n_rows, elements=st.integers(-span // 2, -(-span // 2))))
        scale = draw(st.sampled_from([1.0, 0.1, 0.125, -0.0, np.inf, 1e300]))
        with np.errstate(all="ignore"):
            return (whole * np.float64(scale)).astype(kind)
    limits = np.iinfo(kind)
    span = min(span, int(limits.max) - int(limits.min))
    low = draw(st.sampled_from([int(limits.min), max(-3, int(limits.min)), int(limits.max) - span]))
    high = min(low + span, int(limits.max))
    numbers = draw(st.lists(st.integers(low, high), min_size=n_rows, max_size=n_rows))
    return np.array(numbers, dtype=kind)


@settings(max_examples=40)
@given(st.data(), st.sampled_from([*INTEGERS, *FLOATS]), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_narrow_columns_keep_every_bit(data: st.DataObject, dtype: str, lengths: list[int]) -> None:
    parts = [data.draw(columns_of(dtype, n_rows)) for n_rows in lengths]
    buffers, kind = Buffers(), np.dtype(dtype)
    frames = [frame_of(part, buffers) for part in parts]
    kept = [np.array(narrow(part, frame, buffers)) for part, frame in zip(parts, frames, strict=True)]
    assert all(frame.width in (0, array.dtype.itemsize) for frame, array in zip(frames, kept, strict=True))
    each = [Pieces.one(a.ctypes.data, len(a), frame) for a, frame in zip(kept, frames, strict=True)]
    names = ("addresses", "counts", "kinds", "widths", "smallest")
    pieces = Pieces(*(np.concatenate([getattr(piece, name) for piece in each]) for name in names))
    whole = np.concatenate(parts)
    out = np.empty(len(whole), dtype=kind)
    pieces.unpack(out)
    assert bits(out) == bits(whole)
    # And by way of the frame that holds all of them.
    frame = common_frame(frames, kind)
    together = np.empty(len(whole), dtype=frame.dtype)
    pieces.repack(frame, together)
    out[:] = 0
    Pieces.one(together.ctypes.data, len(whole), frame).unpack(out)
    assert bits(out) == bits(whole)


@pytest.mark.parametrize(
    ("numbers", "dtype", "width"),
    [
        ([7, 7, 7], "int64", 0),
        ([2**62, 2**62 + 255], "int64", 1),
        ([-(2**63), -(2**63) + 65_535], "int64", 2),
        ([0, 2**32 - 1], "uint64", 4),
        ([0, 2**64 - 1], "uint64", 8),
        ([-(2**31), 2**31 - 1], "int32", 4),
        ([0.0, 1.0], "float64", 1),
        ([1.0, 1.0], "float32", 0),
        ([0.0, -0.0], "float64", 4),
        ([0.5, np.nan, np.inf], "float64", 4),
        ([0.1], "float64", 8),
        ([-1.0, 65_535.0], "float32", 4),
    ],
)
def test_columns_take_as_few_bytes_as_their_numbers_allow(numbers: list[float], dtype: str, width: int) -> None:
    assert frame_of(np.array(numbers, dtype=dtype), Buffers()).width == width


# ---------------------------------------------------------------------------------------------------------------
# The store


@settings(max_examples=40)
@given(st.data(), st.booleans(), st.booleans())
def test_what_is_added_comes_back(data: st.DataObject, rehashed: bool, splits: bool) -> None:
    dtypes = data.draw(st.lists(st.sampled_from([*INTEGERS, *FLOATS]), max_size=3))
    n_hashes = data.draw(st.sampled_from([1, 2, 5, 1_000]))
    known = np.random.default_rng(n_hashes).integers(0, 2**64, n_hashes, dtype=np.uint64)
    batches = []
    for n_rows in data.draw(st.lists(st.integers(0, 12), max_size=6)):
        picked = data.draw(st.lists(st.integers(0, n_hashes - 1), min_size=n_rows, max_size=n_rows))
        hashes = known[np.array(picked, dtype=np.int64)]
        batches.append([hashes, *(data.draw(columns_of(dtype, n_rows)) for dtype in dtypes)])
    with RowStore(
        ["uint64", *dtypes],
        # From each batch on disk, through rows that wait for others, to all in memory.
        memory_bytes=data.draw(st.sampled_from([1, 20_000, 1 << 20])),
        log2_partitions=data.draw(st.sampled_from([0, 1, 4])),
        rehash=own_hashes if rehashed else None,
    ) as store:
        for columns in batches:
            given_columns = [column.copy() for column in columns]
            store.add(given_columns[0], given_columns)
            for column in given_columns:
                column.view(np.uint8)[:] = 99
        assert store.n_rows == sum(len(columns[0]) for columns in batches)
        partitions = list(store.partitions(most_rows=2 if splits else None, joined_rows=3))
        whole = [np.concatenate(parts) for parts in zip(*batches, strict=True)] if batches else []
        expected = by_hash(whole[0], whole) if batches else {}
        assert loaded(partitions) == expected
        if splits:
            for partition in partitions:
                # What is still larger has a hash with half of its rows.
                shares = [len(rows) for rows in loaded([partition]).values()]
                assert partition.n_rows <= 2 or 2 * max(shares) >= partition.n_rows


def filled(store: RowStore, n_batches: int = 8, n_rows: int = 3_000, threads: int = 1) -> dict[int, list[Any]]:
    """Fill a store with hashes and two columns in several threads."""
    rng = np.random.default_rng(5)
    known = rng.integers(0, 2**64, 700, dtype=np.uint64)
    batches = []
    for _ in range(n_batches):
        hashes = rng.choice(known, n_rows)
        batches.append([hashes, rng.normal(size=n_rows), rng.integers(0, 2, n_rows).astype(np.int8)])

    def work(mine: list[Columns]) -> None:
        for columns in mine:
            store.add(columns[0], columns)

    workers = [threading.Thread(target=work, args=(batches[i::threads],)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    whole = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    return by_hash(whole[0], whole)


DTYPES = ["uint64", "float64", "int8"]


@pytest.mark.parametrize("memory_bytes", [1, 200_000, 1 << 24])
def test_several_threads_add_and_load(memory_bytes: int) -> None:
    with RowStore(DTYPES, memory_bytes=memory_bytes, rehash=own_hashes, log2_partitions=4) as store:
        expected = filled(store, n_batches=40, n_rows=1_000, threads=4)
        assert (store.spilled_bytes > 0) == (memory_bytes < 1 << 24)
        assert memory_bytes == 1 or store.nbytes <= memory_bytes
        partitions = list(store.partitions(joined_rows=5_000))
        found: dict[int, list[Any]] = {}
        halves = [partitions[0::2], partitions[1::2]]
        workers = [threading.Thread(target=lambda half=half: found.update(loaded(half))) for half in halves]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert found == expected


def test_single_columns_are_loaded() -> None:
    with RowStore(DTYPES, memory_bytes=200_000) as store:
        filled(store)
        for partition in store.partitions():
            hashes, _, labels = partition.load()
            (alone,) = partition.load([2])
            assert alone.dtype == np.int8
            assert sorted(alone) == sorted(labels)
            assert len(hashes) == len(alone)


@pytest.mark.parametrize("rehash", [None, own_hashes])
def test_large_partitions_are_split_and_large_groups_taken_apart(rehash: Any) -> None:
    rng = np.random.default_rng(1)
    # One first partition: all hashes begin alike.
    hashes = rng.integers(0, 2**60, 3_000, dtype=np.uint64)
    giants = hashes[:2].repeat([5_000, 4_000])
    rows = rng.permutation(np.concatenate([hashes, giants]))
    with RowStore(["uint64", "int32"], memory_bytes=60_000, log2_partitions=2, rehash=rehash) as store:
        columns = [rows, np.arange(len(rows), dtype=np.int32)]
        for begin in range(0, len(rows), 1_500):
            part = [column[begin : begin + 1_500] for column in columns]
            store.add(part[0], part)
        partitions = list(store.partitions(most_rows=600))
        assert loaded(partitions) == by_hash(rows, columns)
        sizes = sorted(partition.n_rows for partition in partitions)
        # Each giant stands alone.
        assert sizes[-2:] == [4_001, 5_001]
        assert sizes[-3] <= 600


def test_a_single_hash_is_not_split() -> None:
    with RowStore(["int32"], memory_bytes=1 << 24) as store:
        hashes = np.full(20_000, 2**63 + 5, dtype=np.uint64)
        store.add(hashes, [np.arange(20_000, dtype=np.int32)])
        (partition,) = store.partitions(most_rows=100, most_bytes=100)
        assert sorted(partition.load()[0]) == list(range(20_000))
        # It has all the memory: what is held goes to disk.
        assert store.spilled_bytes == 40_000
        assert store.nbytes == 0


def test_columns_that_are_not_the_store_s_are_refused() -> None:
    with RowStore(["int64"], memory_bytes=1 << 20) as store:
        hashes = np.zeros(2, dtype=np.uint64)
        for columns in ([np.zeros(2, dtype=np.int32)], [np.zeros(3, dtype=np.int64)], []):
            with pytest.raises(ValueError, match="columns"):
                store.add(hashes, columns)
        list(store.partitions())
        with pytest.raises(ValueError, match="the store is read"):
            store.add(hashes, [np.zeros(2, dtype=np.int64)])
    with pytest.raises(ValueError, match="the store is closed"):
        store.partitions()
    with pytest.raises(ValueError, match="columns of bool cannot be kept"):
        RowStore([np.bool_], memory_bytes=1)


def test_regions_keep_to_their_bound() -> None:
    regions = Regions(1 << 20)
    taken = []
    while (piece := regions.take(100_000)) is not None:
        piece[:] = len(taken)
        taken.append(piece)
    assert len(taken) >= 8
    assert regions.nbytes <= 1 << 20
    assert [int(piece[0]) for piece in taken] == list(range(len(taken)))
    regions.reset()
    # What is larger than the bound is taken alone.
    assert regions.take(3 << 20) is not None
    assert regions.take(1) is None
    regions.release()
    assert regions.nbytes == 0


# ---------------------------------------------------------------------------------------------------------------
# Temporary files


def spilling(folder: Path) -> RowStore:
    return RowStore(DTYPES, memory_bytes=1, folder=str(folder), rehash=own_hashes, log2_partitions=3)


def add_often(store: RowStore, columns: Columns) -> None:
    for _ in range(100):
        store.add(columns[0], columns)


def test_nothing_stands_in_the_folder(tmp_path: Path) -> None:
    with spilling(tmp_path) as store:
        filled(store)
        assert store.spilled_bytes > 0
        assert os.listdir(tmp_path) == []
        before = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_nothing_is_left_where_files_need_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    with spilling(tmp_path) as store:
        expected = filled(store)
        assert os.listdir(tmp_path) == []
        assert loaded(list(store.partitions())) == expected


def test_a_full_disk_is_found_before_it_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda handle: SimpleNamespace(free=9))
    columns = [np.arange(1_000, dtype=np.uint64), np.zeros(1_000), np.zeros(1_000, dtype=np.int8)]
    with spilling(tmp_path) as store:
        with pytest.raises(TemporaryFileError, match=r"needs [\d,]+ bytes more, and there are 9 bytes; set FASTLOSS_"):
            add_often(store, columns)
        # What is missing stays missing.
        with pytest.raises(TemporaryFileError):
            store.add(columns[0], columns)
        with pytest.raises(TemporaryFileError):
            store.partitions()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_every_thread_hears_that_writing_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    errors: list[BaseException] = []
    with spilling(tmp_path) as store:
        monkeypatch.setattr(os, "pwrite", fail)

        def work() -> None:
            rng = np.random.default_rng(0)
            columns = [rng.integers(0, 2**64, 2_000, dtype=np.uint64), np.zeros(2_000), np.zeros(2_000, dtype=np.int8)]
            try:
                add_often(store, columns)
            except FastlossError as error:
                errors.append(error)

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert {str(error) for error in errors} == {
        f"A temporary file in {str(tmp_path)!r} cannot be written: {os.strerror(code)}; "
        "set FASTLOSS_TMPDIR to another folder, or raise memory."
    }
    assert len(errors) == 3
    assert os.listdir(tmp_path) == []


def test_short_writes_and_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda handle, view, offset: write(handle, view[:1_000], offset))
    monkeypatch.setattr(os, "preadv", lambda handle, views, offset: read(handle, [views[0][:999]], offset))
    with spilling(tmp_path) as store:
        expected = filled(store)
        assert loaded(list(store.partitions())) == expected


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    with spilling(tmp_path) as store:
        filled(store)
        partitions = list(store.partitions(joined_rows=1))
        assert store._file is not None
        handle = store._file._handle
        piece = store._written[0].pieces[0]
        for place, bit in ((piece.offset, 1), (piece.offset + piece.n_rows * 8 - 1, 128)):
            (byte,) = os.pread(handle, 1, place)
            os.pwrite(handle, bytes([byte ^ bit]), place)
            with pytest.raises(ReadError, match="is damaged; set FASTLOSS_TMPDIR"):
                partitions[0].load()
            os.pwrite(handle, bytes([byte]), place)
        partitions[0].load()
        os.ftruncate(handle, 1_000)
        with pytest.raises(ReadError, match="is damaged"):
            partitions[-1].load()


def test_a_file_in_use_is_closed_by_its_last_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = TemporaryFile(str(tmp_path))
    write, handle = os.pwrite, file._handle

    def close_between(number: int, view: Any, offset: int) -> int:
        file.close()
        # As another file would take the number, if it were free.
        with open(tmp_path / "other", "wb") as other:
            assert other.fileno() != number
        return write(number, view[:1], offset)

    monkeypatch.setattr(os, "pwrite", close_between)
    file.write(np.arange(3, dtype=np.uint8), 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
    for use in (file.write, file.read):
        with pytest.raises(ValueError, match="closed"):
            use(np.zeros(1, dtype=np.uint8), 0)
    assert os.listdir(tmp_path) == ["other"]


def test_a_store_that_is_closed_early_stops_its_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 2**64, 2_000, dtype=np.uint64), rng.normal(size=2_000), np.zeros(2_000, dtype=np.int8)]
    stopped: list[str] = []

    def work(store: RowStore) -> None:
        try:
            while True:
                store.add(columns[0], columns)
        except ValueError as error:
            stopped.append(str(error))

    for _ in range(3):
        with spilling(tmp_path) as store:
            workers = [threading.Thread(target=work, args=(store,)) for _ in range(3)]
            for worker in workers:
                worker.start()
            while not store.spilled_bytes:
                pass
        for worker in workers:
            worker.join()
    assert {text.split(" is ")[1] for text in stopped} == {"closed"}
    assert len(stopped) == 9


@pytest.mark.parametrize(("n_rows", "expected"), [(0, 4), (1_000_000, 4), (40_000_000, 9), (10**10, 11)])
def test_more_rows_are_gathered_by_more_bits(n_rows: int, expected: int) -> None:
    assert log2_partitions_for(n_rows) == expected


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTLOSS_TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(TemporaryFileError, match=r"No such file or directory \('.*nowhere'\); set FASTLOSS_TMPDIR"):
        TemporaryFile()
    monkeypatch.setenv("FASTLOSS_TMPDIR", str(tmp_path))
    assert TemporaryFile().folder == str(tmp_path)


CHILD = """
import os, signal, sys
import numpy as np
from fastloss.errors import FastlossError
from fastloss.shuffle.store import RowStore

store = RowStore(["int64"], memory_bytes=1, folder=sys.argv[1])
hashes = np.arange(50_000, dtype=np.uint64) << np.uint64(48)
try:
    for _ in range(3):
        store.add(hashes, [hashes.view(np.int64)])
except FastlossError as error:
    print(error)
    sys.exit(2)
assert store.spilled_bytes > 0
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("most_bytes", [None, 100_000])
def test_a_process_that_is_killed_or_limited_leaves_nothing(tmp_path: Path, most_bytes: int | None) -> None:
    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    if most_bytes is None:
        assert run.returncode == -signal.SIGKILL, run.stderr
    else:
        assert run.returncode == 2, run.stderr
        assert "cannot be written: File too large; set FASTLOSS_TMPDIR" in run.stdout
        assert run.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == []


BOUNDED = """
import sys
import numpy as np
from fastloss.shuffle.grouping import group_rows, hash_integers
from fastloss.shuffle.store import RowStore

def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def shuffle(n_batches, memory_bytes):
    rng = np.random.default_rng(0)
    hashes_of = lambda columns: hash_integers(columns[0])
    with RowStore(["int64", "float32", "int8"], memory_bytes=memory_bytes, rehash=hashes_of) as store:
        for _ in range(n_batches):
            key = rng.integers(0, 1 << 40, 262_144)
            columns = [key, rng.random(262_144, dtype=np.float32), np.zeros(262_144, dtype=np.int8)]
            store.add(hash_integers(key), columns)
        assert store.nbytes <= memory_bytes
        for partition in store.partitions():
            group_rows(partition.load([0]))
        return store.thread_bytes, store.spilled_bytes

shuffle(2, 1 << 20)
before = peak()
memory_bytes = 48 << 20
thread_bytes, spilled_bytes = shuffle(80, memory_bytes)
assert spilled_bytes > 150 << 20
print(peak() - before - memory_bytes - thread_bytes)
"""


@pytest.mark.slow
def test_memory_stays_within_its_bound() -> None:
    run = subprocess.run(
        [sys.executable, "-c", BOUNDED],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    # Beside the store: a batch of 3 MiB, and a loaded partition of 80,000 rows.
    assert int(run.stdout) < 16 << 20


# ---------------------------------------------------------------------------------------------------------------
# Groups


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 1)), max_size=8),
    st.lists(st.integers(0, 7), max_size=40),
    st.booleans(),
)
def test_rows_of_equal_keys_come_together(known: list[tuple[int, int]], picked: list[int], paired: bool) -> None:
    rows = [known[i % len(known)] for i in picked] if known else []
    keys = [np.array([row[i] for row in rows], dtype=np.int64) for i in range(1 + paired)]
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row[: 1 + paired], []).append(i)
    order, starts = group_rows(keys)
    assert [order[a:b].tolist() for a, b in itertools.pairwise(starts)] == list(groups.values())
    assert gather(keys[0], order).tolist() == [rows[i][0] for i in order]


def test_a_table_of_groups_grows() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 200, (2, 30_000))
    order, starts = group_rows([first, second])
    pairs = first * 200 + second
    assert len(starts) - 1 == len(np.unique(pairs))
    sorted_pairs = pairs[order]
    assert (np.diff(sorted_pairs) != 0).sum() == len(starts) - 2
    assert (np.flatnonzero(np.diff(sorted_pairs)) + 1).tolist() == starts[1:-1].tolist()
    assert sorted(order) == list(range(30_000))


def test_keys_that_cannot_be_grouped_are_refused() -> None:
    key = np.zeros(3, dtype=np.int64)
    for keys in ([key, key[:2]], [key, key, key]):
        with pytest.raises(ValueError, match="allowed: one or two"):
            group_rows(keys)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=30))
def test_hashes_of_integers_are_as_many_as_integers(keys: list[int]) -> None:
    hashes = hash_integers(np.array(keys, dtype=np.int64))
    assert len(set(hashes.tolist())) == len(keys)
    # SplitMix64's finalizer, by definition.
    for key, found in zip(keys, hashes.tolist(), strict=True):
        z = key % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        assert found == z ^ z >> 31
