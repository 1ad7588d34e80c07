"""Groups whose rows are adjacent: whole ones and edges against a loop over the rows, and promises that are broken."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections import defaultdict

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from fastloss.shuffle.adjacent import AdjacentGroups, NotAdjacentError, group_adjacent_rows
from fastloss.sources import open_source
from fastloss.sources.base import ReadOptions
from fastloss.sources.group_names import not_adjacent

# A number as a key of one word or of two; the first words of the latter repeat.
KEYS = [
    lambda numbers: [np.array(numbers, dtype=np.int64)],
    lambda numbers: list(np.divmod(np.array(numbers, dtype=np.int64), 3)),
]


@st.composite
def batches(draw):
    """The rows of a log in order, cut into tasks and batches."""
    lengths = draw(st.lists(st.integers(1, 9), max_size=12))
    numbers = [number for number, length in enumerate(lengths) for _ in range(length)]
    swapped = draw(st.lists(st.tuples(st.integers(0, 107), st.integers(0, 107)), max_size=2))
    for first, second in swapped:
        if max(first, second) < len(numbers):
            numbers[first], numbers[second] = numbers[second], numbers[first]
    cuts = sorted(draw(st.lists(st.integers(0, len(numbers)), max_size=6)))
    parts = [numbers[first:stop] for first, stop in itertools.pairwise([0, *cuts, len(numbers)])]
    size = draw(st.integers(1, 4))
    return numbers, {divmod(number, size): part for number, part in enumerate(parts)}


@pytest.mark.parametrize("key_of", KEYS, ids=["one word", "two words"])
@given(log=batches(), order=st.randoms(use_true_random=False))
def test_whole_groups_are_told_from_edges(key_of, log, order):
    numbers, parts = log
    is_broken = len(list(itertools.groupby(numbers))) > len(set(numbers))
    broken = None
    with AdjacentGroups(len(key_of([])), memory_bytes=1 << 16) as groups:
        try:
            for place in order.sample(list(parts), len(parts)):
                part = parts[place]
                runs = groups.add(key_of(part), place)
                edges = [*part[: runs.whole.start], *part[runs.whole.stop :]]
                for first, stop in itertools.pairwise(runs.starts.tolist()):
                    (number,) = set(part[first:stop])
                    assert is_broken or stop - first == numbers.count(number)
                # No more than a run at each end.
                assert len(list(itertools.groupby(edges))) <= 2
            groups.check()
        except NotAdjacentError as error:
            broken = error
    assert (broken is not None) == is_broken
    if broken is not None:
        number = broken.key[0] if len(broken.key) == 1 else 3 * broken.key[0] + broken.key[1]
        assert len([value for value, _ in itertools.groupby(numbers) if value == number]) > 1
        assert all(number in parts[place] for place in broken.places)
        assert list(broken.places) == sorted(broken.places)


@pytest.mark.parametrize("key_of", KEYS, ids=["one word", "two words"])
@given(numbers=st.lists(st.integers(0, 5)), is_sorted=st.booleans())
def test_rows_that_are_adjacent_are_not_moved(key_of, numbers, is_sorted):
    words = key_of(sorted(numbers) if is_sorted else numbers)
    order, starts = group_adjacent_rows(words)
    rows = np.arange(len(numbers)) if order is None else order
    rows_of = defaultdict(list)
    for row, key in enumerate(zip(*(word.tolist() for word in words), strict=True)):
        rows_of[key].append(row)
    groups = [rows[first:stop].tolist() for first, stop in itertools.pairwise(starts.tolist())]
    assert groups == list(rows_of.values())
    if is_sorted and 2 * len(groups) <= len(numbers):
        assert order is None


def test_many_groups_from_several_threads_on_disk():
    parts = {(task, 0): np.repeat(np.arange(task * 5_000, (task + 1) * 5_000), 2) for task in range(8)}
    for promised in (True, False):
        with AdjacentGroups(1, memory_bytes=1 << 16) as groups:
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                list(threads.map(lambda item: groups.add([item[1]], item[0]), parts.items()))
            if promised:
                groups.check()
                continue
            groups.add([np.array([-2, 17_000, -1])], (8, 0))
            with pytest.raises(NotAdjacentError) as found:
                groups.check()
            assert (found.value.key, found.value.places) == ((17_000,), ((3, 0), (8, 0)))


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ({"k": pa.array(["a", "b", "b", "ü'", "c", "ü'"])}, 'k="ü\'"'),
        ({"k": pa.array([1, 2, 2, 2**40, 4, 2**40], pa.timestamp("s"))}, "k='36812-02-20T00:36:16'"),
        ({"k": [1, 2, 2, 7, 4, 7], "d": ["x", "y", "y", "z", "z", "z"]}, "k=7, d='z'"),
    ],
    ids=["text", "moment", "two columns"],
)
def test_a_broken_promise_names_the_group(tmp_path, keys, name):
    path, options = tmp_path / "log.parquet", ReadOptions()
    table = pa.table({**keys, "label": np.zeros(6)})
    pq.write_table(table, path, row_group_size=4)
    source = open_source(str(path), options)
    types = {key: source.schema.field(key).type for key in keys}
    with AdjacentGroups(1 if name.startswith("k='36812") else 2, memory_bytes=1 << 16) as groups:
        for task in source.tasks(table.column_names, options):
            for number, batch in enumerate(task.read()):
                groups.add(batch.group_keys(tuple(types), types).columns, (task.index, number))
        with pytest.raises(NotAdjacentError) as found:
            groups.check()
    (first, _), (second, _) = found.value.places
    error = not_adjacent(source, table.column_names, types, options, found.value.key, (first, second))
    assert str(error) == (
        f"the rows of the group {name} are not adjacent, as group_sorted says: they are in {str(path)!r}, row group 0"
        f", and again in {str(path)!r}, row group 1, with others between them; sort the log by its groups, or leave "
        "out group_sorted."
    )
