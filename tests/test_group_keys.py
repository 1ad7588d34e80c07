"""Group keys against the values that they stand for: equal where these are, whatever the encoding."""

from __future__ import annotations

import concurrent.futures
import datetime
import decimal
import functools
import itertools
import uuid

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings

from fastloss.columns.arrow import ArrowBatch
from fastloss.columns.base import GroupKeys
from fastloss.columns.group_keys import is_integer_key, restore_keys
from fastloss.columns.types import check_group_keys
from fastloss.errors import DataError, ReadError, SchemaError
from fastloss.shuffle.key_store import KeyStore
from fastloss_kernels.cpu.hashing import make_hash_bytes, make_hash_words

DAYS = st.integers(-3, 3).map(lambda n: datetime.date(1970, 1, 1) + datetime.timedelta(days=n))
MOMENTS = st.integers(-3, 3).map(lambda n: datetime.datetime(1969, 12, 31) + n * datetime.timedelta(hours=8))
CENTS = st.integers(-101, 101).map(lambda n: decimal.Decimal(n).scaleb(-1))
TEXTS = st.text("ab\0é", max_size=3) | st.sampled_from(["x" * 15, "x" * 16, "x" * 17, "x" * 40 + "y", "x" * 40 + "z"])
UNICODE = [pa.string(), pa.large_string(), pa.string_view()]
BINARY = [pa.binary(), pa.large_binary(), pa.binary_view()]
SIGNED, UNSIGNED = [pa.int8(), pa.int16(), pa.int32(), pa.int64()], [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]

# Values, the types that files may store them in, and the type of the log.
KINDS = [
    (st.integers(0, 4), SIGNED + UNSIGNED, pa.int64()),
    (st.integers(-3, 3), SIGNED, pa.int64()),
    (st.sampled_from([0, 2**63 - 1, 2**63, 2**64 - 1]), [pa.uint64()], pa.uint64()),
    (st.sampled_from([0, -1, 2**63 - 1, -(2**63)]), [pa.int64()], pa.int64()),
    (st.booleans(), [pa.bool_()], pa.bool_()),
    (DAYS, [pa.date32(), pa.date64()], pa.date32()),
    (MOMENTS, [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")], pa.timestamp("ns")),
    (MOMENTS.map(datetime.datetime.time), [pa.time32("s")], pa.time32("s")),
    (TEXTS, UNICODE, pa.string()),
    (st.binary(max_size=3) | st.just(b"\xff" * 20), BINARY, pa.binary()),
    (st.binary(min_size=3, max_size=3), [pa.binary(3)], pa.binary(3)),
    (st.integers(0, 3).map(lambda n: uuid.UUID(int=n)), [pa.uuid()], pa.uuid()),
    (CENTS, [pa.decimal128(9, 1), pa.decimal128(9, 3), pa.decimal64(9, 2)], pa.decimal128(9, 3)),
]


def array_of(values, kind):
    if kind == pa.uuid():
        stored = pa.array([None if value is None else value.bytes for value in values], kind.storage_type)
        return pa.ExtensionArray.from_storage(kind, stored)
    return pa.array(values, kind)


@st.composite
def encoded(draw, values, kinds):
    """The values in one of the types, plain or as a dictionary, perhaps cut out of a longer array."""
    kind = draw(st.sampled_from(kinds))
    first, last = draw(st.integers(0, 2)), draw(st.integers(0, 9))
    padded = [*values[:first], *values, *values[:last]]
    start = min(first, len(values))
    encoding = draw(st.sampled_from(["plain", "dictionary", "long dictionary"])) if kind != pa.uuid() else "plain"
    if encoding == "plain":
        return array_of(padded, kind).slice(start, len(values))
    # Entries that repeat, and null as an entry and as a missing index.
    entries = padded * (3 if encoding == "long dictionary" else 1)
    indices = [None if value is None and i % 2 else i for i, value in enumerate(padded)]
    index_type = draw(st.sampled_from([pa.int8(), pa.int32(), pa.int64()]))
    column = pa.DictionaryArray.from_arrays(pa.array(indices, index_type), array_of(entries, kind))
    return column.slice(start, len(values))


@st.composite
def logs(draw):
    """Rows, and two files that store them in different types; each column's type in the log."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    n_rows = draw(st.integers(0, 12))
    columns = [draw(st.lists(st.none() | values, min_size=n_rows, max_size=n_rows)) for values, _, _ in kinds]
    names = [f"k{i}" for i in range(len(kinds))]
    files = [
        pa.record_batch(
            [draw(encoded(column, types)) for column, (_, types, _) in zip(columns, kinds, strict=True)], names
        )
        for _ in range(2)
    ]
    types = {name: kind for name, (_, _, kind) in zip(names, kinds, strict=True)}
    return list(zip(*columns, strict=True)), files, types


@given(logs())
def test_keys_are_equal_where_the_values_are(log):
    rows, files, types = log
    found, expected = [], []
    for file in files:
        keys = ArrowBatch(file).group_keys(file.schema.names, types)
        valid = [None not in row for row in rows]
        assert (np.ones(len(rows), dtype=bool) if keys.valid is None else keys.valid).tolist() == valid
        assert len(keys.columns) == (1 if is_integer_key(list(types.values())) else 2)
        assert keys.hashes.dtype == np.uint64
        assert all(column.dtype == np.int64 and len(column) == len(rows) for column in keys.columns)
        key_of_row = list(zip(*(column.tolist() for column in keys.columns), strict=True))
        found += [(key, value) for key, value, ok in zip(key_of_row, keys.hashes.tolist(), valid, strict=True) if ok]
        expected += [row for row in rows if None not in row]
        if len(keys.columns) == 1 and None not in [value for row in rows for value in row]:
            (kind,) = types.values()
            assert restore_keys(keys.columns[0], kind).equals(pa.array([row[0] for row in rows], kind))
    for (key, row), (other, other_row) in itertools.product(zip(found, expected, strict=True), repeat=2):
        assert (key == other) == (row == other_row)
    # The hash is one of the key.
    assert len(set(found)) == len({key for key, _ in found})


def test_what_lies_under_a_null_is_not_looked_at():
    bitmap, ends = pa.py_buffer(b"\x05"), pa.py_buffer(np.array([0, 1, 9, 10], "i4"))
    texts = pa.Array.from_buffers(pa.string(), 3, [bitmap, ends, pa.py_buffer(b"aGARBAGE!a")])
    integers = pa.Array.from_buffers(pa.int64(), 3, [bitmap, pa.py_buffer(np.array([7, 2**60, 7]))])
    for column in (texts, integers):
        keys = ArrowBatch(pa.record_batch([column], ["k"])).group_keys(["k"])
        assert keys.valid.tolist() == [True, False, True]
        assert [column.tolist()[0] for column in keys.columns] == [column.tolist()[2] for column in keys.columns]
        assert [column.tolist()[1] for column in keys.columns] == [0] * len(keys.columns)


def test_a_column_that_is_null_in_one_file():
    nothing = pa.record_batch([pa.nulls(2), pa.nulls(2, pa.int32())], ["text", "integer"])
    types = {"text": pa.string(), "integer": pa.int64()}
    for name, n_words in (("text", 2), ("integer", 1)):
        keys = ArrowBatch(nothing).group_keys([name], types)
        assert len(keys.columns) == n_words
        assert keys.valid.tolist() == [False, False]
    empty = pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), pa.array([], pa.string()))
    assert ArrowBatch(pa.record_batch([empty], ["k"])).group_keys(["k"]).valid.tolist() == [False]


def test_the_parts_of_a_key_do_not_run_into_each_other():
    batch = pa.record_batch([pa.array(["a", "ab", ""]), pa.array(["bc", "c", "abc"])], ["x", "y"])
    assert len(set(ArrowBatch(batch).group_keys(["x", "y"]).columns[0].tolist())) == 3
    swapped = ArrowBatch(batch).group_keys(["y", "x"])
    assert not set(swapped.columns[0].tolist()) & set(ArrowBatch(batch).group_keys(["x", "y"]).columns[0].tolist())


def test_integers_that_the_type_of_the_log_does_not_hold_are_refused():
    unsigned = ArrowBatch(pa.record_batch([pa.array([1, 2**63, None], pa.uint64())], ["k"]))
    with pytest.raises(DataError, match="'k' holds 9223372036854775808 as uint64, and the log's type is int64"):
        unsigned.group_keys(["k"], {"k": pa.int64()})
    signed = ArrowBatch(pa.record_batch([pa.array([1, -1, None])], ["k"]))
    with pytest.raises(DataError, match="'k' holds -1 as int64, and the log's type is uint64"):
        signed.group_keys(["k"], {"k": pa.uint64()})
    early = ArrowBatch(pa.record_batch([pa.array([-(10**12)], pa.timestamp("s"))], ["k"]))
    with pytest.raises(DataError, match=r"as timestamp.s., and the log's type is timestamp.ns., which does not reach"):
        early.group_keys(["k"], {"k": pa.timestamp("ns")})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (pa.float32(), "must not be floating point"),
        (pa.list_(pa.int64()), "must be string, .* time, timestamp, duration or decimal"),
    ],
    ids=str,
)
def test_types_that_no_group_key_has(kind, words):
    schema = pa.schema([("k", kind), ("ok", pa.dictionary(pa.int8(), pa.string())), ("twice", pa.int8())])
    assert list(check_group_keys(schema, ["ok"])) == ["ok"]
    with pytest.raises(SchemaError, match=f"column 'k' has type .* {words}") as found:
        check_group_keys(schema, ["ok", "k"])
    assert "\n" not in str(found.value)
    with pytest.raises(SchemaError, match=r"The log has no column 'twic'. Did you mean 'twice'"):
        check_group_keys(schema, ["twic"])


def hashes_of(texts, seed=0):
    data = np.frombuffer(b"".join(texts), np.uint8)
    offsets = np.append(0, np.cumsum(list(map(len, texts)))).astype(np.int64)
    high, low = np.empty(len(texts), np.uint64), np.empty(len(texts), np.uint64)
    chosen = np.zeros(0, dtype=np.int64)
    chosen.flags.writeable = False
    make_hash_bytes()(data, offsets, chosen, seed, high, low)
    return np.array([high, low])


def test_the_hash_is_murmurhash3_x64_128():
    # SMHasher's own check: the hashes of 0, 1, 2, ... of each length under a seed each, hashed together.
    parts = b"".join(hashes_of([bytes(range(i))], 256 - i).astype("<u8").tobytes() for i in range(256))
    assert int(hashes_of([parts])[0, 0]) & 0xFFFF_FFFF == 0x6384_BA69
    dog = hashes_of([b"a text before it", b"The quick brown fox jumps over the lazy dog"])[:, 1]
    assert dog.astype("<u8").tobytes().hex() == "6c1b07bc7bbc4be347939ac4a93c437a"


@pytest.mark.parametrize("n_words", [1, 2, 3, 4])
def test_words_hash_as_their_bytes_do(n_words):
    words = np.random.default_rng(n_words).integers(0, 2**64, (n_words, 9), dtype=np.uint64)
    high, low = np.empty(9, np.uint64), np.empty(9, np.uint64)
    make_hash_words()(words, high, low)
    assert np.array_equal(hashes_of([words[:, i].astype("<u8").tobytes() for i in range(9)]), [high, low])


def test_a_text_hashes_the_same_wherever_it_stands():
    texts = pa.array(["", "a" * 7, "a" * 8, "a" * 9, "b" * 31] * 3)
    keys = ArrowBatch(pa.record_batch([texts], ["k"])).group_keys(["k"])
    assert all(np.array_equal(word[:5], word[5:10]) and len(set(word[:5])) == 5 for word in keys.columns)
    assert pc.count_distinct(texts).as_py() == len(set(keys.hashes.tolist()))


# ---------------------------------------------------------------------------------------------------------------
# From keys to values


@settings(max_examples=30)
@given(log=logs(), memory_bytes=st.sampled_from([1, 4_000, 1 << 20]))
def test_the_values_of_a_key_are_found_again(log, memory_bytes):
    rows, files, types = log
    expected = {}
    with KeyStore(types, memory_bytes=memory_bytes) as store:
        for file in files:
            keys = ArrowBatch(file).group_keys(tuple(types), types)
            store.add(ArrowBatch(file), keys)
            words = zip(*(column.tolist() for column in keys.columns), strict=True)
            expected |= {key: row for key, row in zip(words, rows, strict=True) if None not in row}
        wanted = [np.array(words, dtype=np.int64) for words in zip(*expected, strict=True)]
        for column, kind, values in zip(
            store.lookup(wanted) if wanted else [], types.values(), zip(*expected.values(), strict=True), strict=False
        ):
            assert column.equals(array_of(values, kind))


def texts_of(n, length):
    return pa.array([f"{i:0{length}}" for i in range(n)])


def test_values_beyond_the_memory_go_to_disk_and_come_back_in_any_thread():
    types, n, length = {"k": pa.string(), "n": pa.int32(), "b": pa.binary()}, 3_000, 200
    columns = [texts_of(n, length), pa.array(range(n), pa.int16()), texts_of(n, 7).cast(pa.binary())]
    batches = [pa.record_batch(columns, list(types)).slice(first, 700) for first in (0, 500, 1_000, 1_700, 2_300)]
    with KeyStore(types, memory_bytes=200_000) as store:
        add = functools.partial(_add, store, tuple(types))
        # Each comes twice, and is not written as often as it comes.
        run_in_threads(add, [ArrowBatch(batch) for batch in batches * 2])
        keys = ArrowBatch(pa.record_batch(columns, list(types))).group_keys(tuple(types))
        assert 0.5 * n * length < store.spilled_bytes < 2 * n * (length + 60)
        found = {}

        def look(rows):
            found[rows[0]] = store.lookup([word[rows] for word in keys.columns])

        chosen = [np.arange(first, n, 7)[::-1] for first in range(7)]
        run_in_threads(look, chosen)
        for rows in chosen:
            expected = [
                column.take(pa.array(rows)).cast(kind) for column, kind in zip(columns, types.values(), strict=True)
            ]
            assert found[rows[0]] == expected
        with pytest.raises(ValueError, match="1 keys have not been added"):
            store.lookup([np.array([7]), np.array([7])])
        with pytest.raises(ValueError, match="once they are looked up"):
            add(ArrowBatch(batches[0]))


def _add(store, columns, batch):
    store.add(batch, batch.group_keys(columns))


def run_in_threads(work, given_to_each):
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        list(threads.map(work, given_to_each))


def test_keys_whose_first_words_are_equal_are_told_apart():
    batch = ArrowBatch(pa.record_batch([texts_of(4, 3)], ["k"]))
    high, low = np.array([-5, -5, 7, -5]), np.array([3, -3, 3, 4])
    with KeyStore({"k": pa.string()}, memory_bytes=1 << 20) as store:
        for _ in range(2):
            store.add(batch, GroupKeys(high.view(np.uint64), (high, low), None))
        rows = np.array([3, 1, 0])
        assert store.lookup([high[rows], low[rows]])[0].to_pylist() == ["003", "001", "000"]


def test_a_key_that_is_no_text_is_an_error_where_it_is_shown():
    batch = pa.record_batch([pa.array([b"\xff"]).view(pa.string())], ["k"])
    keys = ArrowBatch(batch).group_keys(["k"])
    with KeyStore({"k": pa.string()}, memory_bytes=1 << 20) as store:
        store.add(ArrowBatch(batch), keys)
        with pytest.raises(DataError, match="a group key is not UTF-8 text"):
            store.lookup(keys.columns)


def test_a_damaged_temporary_file_is_an_error():
    batch = ArrowBatch(pa.record_batch([texts_of(100, 9)], ["k"]))
    keys = batch.group_keys(["k"])
    with KeyStore({"k": pa.string()}, memory_bytes=1) as store:
        store.add(batch, keys)
        store.lookup(keys.columns)
        store._file.write(np.zeros(64, dtype=np.uint8), 100)
        with pytest.raises(ReadError, match=r"temporary file .* is damaged"):
            store.lookup(keys.columns)
