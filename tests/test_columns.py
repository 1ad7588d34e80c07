"""Columns against a slow reading of the same Arrow array, value by value in Python."""

from __future__ import annotations

import datetime
import decimal
import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from fastloss.columns.arrow import ArrowBatch, check_key_type, check_numeric_type, encode_keys, to_numbers
from fastloss.columns.base import NUMBER_TYPES
from fastloss.errors import DataError, SchemaError

INTEGERS = {pa.int8(): 7, pa.int16(): 15, pa.int32(): 31, pa.int64(): 53} | {
    pa.uint8(): 8,
    pa.uint16(): 16,
    pa.uint32(): 32,
    pa.uint64(): 53,
}
FLOATS = {pa.float16(): 16, pa.float32(): 32, pa.float64(): 64}
DECIMALS = [pa.decimal32(9, 2), pa.decimal64(18, 6), pa.decimal128(19, 4), pa.decimal128(38, 30), pa.decimal256(60, 5)]
KEY_STRINGS = [pa.string(), pa.large_string(), pa.string_view()]


@st.composite
def sliced(draw, data_type, values):
    """An array with nulls, cut out of a longer one so that its offset is not zero."""
    items = draw(st.lists(st.none() | values, max_size=40))
    array = pa.array(items, data_type)
    if draw(st.booleans()):
        array = as_dictionary(array, draw(st.booleans()))
    first = draw(st.integers(0, len(items)))
    return array.slice(first, draw(st.integers(0, len(items) - first)))


def as_dictionary(array, long):
    """Encode by hand: a dictionary that may repeat entries, hold nulls and hold entries that no row uses."""
    entries = array.to_pylist() * (3 if long else 1)
    indices = [None if i % 5 == 4 and value is None else i for i, value in enumerate(array.to_pylist())]
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(entries, array.type))


def numeric_arrays():
    choices = [
        sliced(t, st.integers(-(2**bits) if pa.types.is_signed_integer(t) else 0, 2**bits - 1))
        for t, bits in INTEGERS.items()
    ]
    choices += [sliced(t, st.floats(width=width)) for t, width in FLOATS.items()]
    choices += [sliced(t, decimals(t)) for t in DECIMALS]
    choices += [sliced(pa.bool_(), st.booleans()), sliced(pa.null(), st.none())]
    return st.one_of(choices)


def decimals(data_type):
    largest = 10**data_type.precision - 1
    exact = decimal.Context(prec=80)
    return st.integers(-largest, largest).map(lambda i: exact.scaleb(decimal.Decimal(i), -data_type.scale))


def as_float(value):
    if isinstance(value, decimal.Decimal):
        ratio = Fraction(value)
        return ratio.numerator / ratio.denominator
    return float(value)


def bits(values):
    return np.asarray(values, dtype=np.float64).view(np.uint64).tolist()


@given(numeric_arrays())
def test_numbers_are_the_rounded_values_of_the_column(array):
    values, valid = to_numbers(array, "x")
    expected = [scalar.as_py() for scalar in array]
    assert values.dtype in NUMBER_TYPES
    assert values.flags.c_contiguous
    assert values.flags.aligned
    assert not values.flags.writeable
    assert bits(values) == bits([0.0 if value is None else as_float(value) for value in expected])
    if None in expected:
        assert valid.tolist() == [value is not None for value in expected]
    else:
        assert valid is None


@pytest.mark.parametrize("data_type", FLOATS, ids=str)
def test_special_floats_pass_unchanged(data_type):
    values, valid = to_numbers(pa.array([-0.0, math.inf, -math.inf, math.nan, None], data_type), "x")
    assert math.copysign(1.0, values[0]) == -1.0
    assert values[1:3].tolist() == [math.inf, -math.inf]
    assert math.isnan(values[3])
    assert valid.tolist() == [True, True, True, True, False]


def test_unaligned_values_become_an_aligned_array():
    buffer = pa.py_buffer(b"\0" + np.array([1.0, 2.0]).tobytes()).slice(1)
    values, _ = to_numbers(pa.Array.from_buffers(pa.float64(), 2, [None, buffer]), "x")
    assert values.flags.aligned
    assert values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("data_type", [pa.int64(), pa.uint64()], ids=str)
def test_integers_are_exact_or_refused(data_type):
    assert to_numbers(pa.array([2**53, None], data_type), "x")[0][0] == 2**53
    with pytest.raises(DataError, match="'x' holds the integer 9007199254740993"):
        to_numbers(pa.array([0, 2**53 + 1], data_type), "x")


def test_what_lies_under_a_null_is_not_looked_at():
    bitmap = pa.py_buffer(b"\x01")
    hidden = pa.Array.from_buffers(pa.int64(), 2, [bitmap, pa.py_buffer(np.array([7, 2**60]))])
    values, valid = to_numbers(hidden, "x")
    assert values.tolist() == [7.0, 0.0]
    assert valid.tolist() == [True, False]
    unused = pa.DictionaryArray.from_arrays(pa.array([0, 0, 0]), pa.array([7, 2**60]))
    assert to_numbers(unused, "x")[0].tolist() == [7.0, 7.0, 7.0]


def test_a_decimal_that_two_roundings_spoil():
    # Arrow's own cast divides by an inexact power of ten and misses this one by a unit in the last place.
    text = "0.000000000000000000000000123457"
    array = pa.array([decimal.Decimal(text)], pa.decimal128(38, 30))
    assert to_numbers(array, "x")[0][0] == float(text)


@pytest.mark.parametrize("scale", [-2, 0, 1, 2, 9, 21, 22, 23, 37])
def test_short_decimals_are_the_numbers_that_they_spell(scale):
    exact = decimal.Context(prec=80)
    integers = [0, 1, -1, 3, 12_345, -987_654_321, 2**53, -(2**53), 2**53 + 1]
    values = [exact.scaleb(decimal.Decimal(i), -scale) for i in integers]
    expected = [float(str(value)) for value in values]
    # All at once, those that fit into 53 bits, and one by one: the route depends on the whole column.
    for chosen in (range(9), range(8), *([i] for i in range(9))):
        array = pa.array([values[i] for i in chosen] + [None], pa.decimal128(38, scale))
        found, valid = to_numbers(array, "x")
        assert bits(found) == bits([expected[i] for i in chosen] + [0.0])
        assert valid.tolist() == [True] * len(chosen) + [False]


@pytest.mark.parametrize(
    "data_type",
    [
        pa.string(),
        pa.binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.float64()),
        pa.struct([("a", pa.int8())]),
        pa.timestamp("us"),
        pa.date32(),
        pa.duration("s"),
    ],
    ids=str,
)
def test_what_is_no_number_is_refused_by_its_type(data_type):
    with pytest.raises(SchemaError, match=r"column 'x' has type .*numbers are needed") as refusal:
        check_numeric_type("x", data_type)
    assert "\n" not in str(refusal.value)
    with pytest.raises(SchemaError):
        to_numbers(pa.nulls(1, data_type), "x")


def key_arrays():
    texts = st.text(max_size=3)
    choices = [sliced(t, texts) for t in KEY_STRINGS]
    choices += [sliced(pa.int16(), st.integers(-3, 3)), sliced(pa.uint64(), st.integers(2**64 - 3, 2**64 - 1))]
    choices += [sliced(pa.bool_(), st.booleans()), sliced(pa.null(), st.none()), sliced(pa.date32(), st.dates())]
    choices += [sliced(pa.timestamp("us"), st.datetimes()), sliced(pa.date64(), st.dates())]
    choices += [sliced(t, decimals(t)) for t in DECIMALS]
    return st.one_of(choices)


def as_key(value):
    """The key of a value, written by Python's own formatting."""
    if isinstance(value, datetime.datetime):
        text = value.isoformat()
        return text.rstrip("0") if "." in text else text
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    return value


@given(key_arrays())
def test_codes_give_back_the_keys(array):
    keys = encode_keys(array, "k")
    expected = [as_key(scalar.as_py()) for scalar in array]
    values = keys.to_list()
    assert keys.codes.dtype == np.int32
    assert keys.codes.shape == (len(array),)
    assert [values[code] for code in keys.codes] == expected
    assert [keys.key_of(code) for code in keys.codes] == expected
    assert len(values) == len(keys.values) == len(set(values))
    assert {type(value) for value in values} <= {type(None), bool, int, str}
    assert [i for i, value in enumerate(values) if value is None] == (
        [] if keys.null_code is None else [keys.null_code]
    )


@pytest.mark.parametrize("data_type", INTEGERS, ids=str)
@pytest.mark.parametrize("encoded", ["plain", "dictionary", "long dictionary"])
def test_integer_keys_are_an_array(data_type, encoded):
    array = pa.array([3, None, 0, 3, 7], data_type)
    if encoded != "plain":
        array = as_dictionary(array, encoded == "long dictionary")
    keys = encode_keys(array.slice(1), "k")
    assert keys.values.dtype == (np.uint64 if data_type == pa.uint64() else np.int64)
    assert [keys.key_of(code) for code in keys.codes] == [None, 0, 3, 7]
    assert type(keys.key_of(keys.codes[1])) is int


@pytest.mark.parametrize("data_type", INTEGERS, ids=str)
@pytest.mark.parametrize("n_distinct", [1, 100, 40_000])
def test_many_integer_keys_are_encoded_as_few_are(data_type, n_distinct):
    dtype = np.dtype(data_type.to_pandas_dtype())
    ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype=dtype)
    numbers = np.append(np.random.default_rng(n_distinct).integers(0, n_distinct, 40_000).astype(dtype), ends)
    keys = encode_keys(pa.array(numbers, data_type).slice(1), "k")
    assert keys.codes.dtype == np.int32
    assert keys.values.dtype == (np.uint64 if data_type == pa.uint64() else np.int64)
    assert np.array_equal(keys.values[keys.codes], numbers[1:].astype(keys.values.dtype))
    # Keys that nearly all differ are left as they are.
    n_different = len(np.unique(numbers[1:]))
    assert len(keys.values) == (n_different if n_different < 20_000 else len(numbers) - 1)
    assert keys.null_code is None


def test_a_null_key_is_not_the_key_zero():
    for array in (pa.array([0, None]), pa.array([0, None]).dictionary_encode()):
        keys = encode_keys(array, "k")
        assert [keys.key_of(code) for code in keys.codes] == [0, None]
        assert len(keys.values) == 2


def test_a_key_that_is_a_date_of_two_milliseconds_is_one_key():
    array = pa.array([0, 1], pa.int64()).view(pa.date64())
    assert encode_keys(array, "k").to_list() == ["1970-01-01"]


def test_a_long_dictionary_gives_only_the_keys_of_its_rows():
    entries = pa.array([f"user-{i}" for i in range(10_000)])
    array = pa.DictionaryArray.from_arrays(pa.array([9_999, 3, None, 3], pa.int32()), entries)
    keys = encode_keys(array, "k")
    assert [keys.key_of(code) for code in keys.codes] == ["user-9999", "user-3", None, "user-3"]
    assert len(keys.values) == 3


def test_keys_do_not_depend_on_a_columns_unit_or_scale():
    moment = datetime.datetime(2024, 2, 29, 12, 30)
    texts = {encode_keys(pa.array([moment], pa.timestamp(unit)), "k").values[0] for unit in ("s", "ms", "us", "ns")}
    assert texts == {"2024-02-29T12:30:00"}
    assert encode_keys(pa.array([moment], pa.timestamp("us", "UTC")), "k").values == ["2024-02-29T12:30:00Z"]
    assert encode_keys(pa.array([1], pa.timestamp("ns")), "k").values == ["1970-01-01T00:00:00.000000001"]
    scales = [encode_keys(pa.array([decimal.Decimal("1.5")], pa.decimal128(9, s)), "k").values[0] for s in (1, 5)]
    assert scales == ["1.5", "1.5"]


@pytest.mark.parametrize("data_type", FLOATS, ids=str)
def test_a_floating_key_is_refused_with_a_way_out(data_type):
    with pytest.raises(SchemaError, match=r"must not be floating point.*buckets"):
        check_key_type("x", data_type)
    with pytest.raises(SchemaError):
        encode_keys(pa.array([1.0], data_type), "k")


@pytest.mark.parametrize("data_type", [pa.binary(), pa.list_(pa.int8()), pa.time32("s"), pa.duration("s")], ids=str)
def test_what_is_no_key_is_refused_by_its_type(data_type):
    with pytest.raises(SchemaError, match=r"column 'x' has type .*a key must be"):
        check_key_type("x", data_type)


def test_text_that_is_not_utf8_is_one_readable_line():
    broken = pa.Array.from_buffers(pa.binary(), 1, pa.array([b"\xff\xfe"]).buffers()).view(pa.string())
    with pytest.raises(DataError, match="not UTF-8") as refusal:
        encode_keys(broken, "k")
    assert "\n" not in str(refusal.value)


def test_a_batch_converts_each_column_once(monkeypatch):
    from fastloss.columns import arrow

    converted = []
    for name in ("to_numbers", "to_lists", "encode_keys"):
        convert = getattr(arrow, name)
        monkeypatch.setattr(arrow, name, lambda *a, convert=convert: (converted.append(a[1]), convert(*a))[1])
    columns = {"x": [1, None, 3], "s": [[1.0, None], None, []], "k": ["a", None, "a"]}
    batch = ArrowBatch(pa.RecordBatch.from_pydict(columns))
    assert (batch.n_rows, batch.list_columns) == (3, ["s"])
    for _ in range(2):
        assert batch.numbers("x").values.tolist() == [1.0, 0.0, 3.0]
        assert batch.numbers("x").valid.tolist() == [True, False, True]
        assert batch.lists("s").offsets.tolist() == [0, 2, 2, 2]
        assert batch.lists("s").lengths.tolist() == batch.list_lengths("s").tolist() == [2, 0, 0]
        assert batch.keys("k").to_list() == ["a", None]
    # (to_lists reads its elements by to_numbers.)
    assert sorted(converted) == ["k", "s", "s", "x"]
    rest = batch.slice(1, 2)
    assert rest.n_rows == 2
    assert rest.numbers("x").values.tolist() == [0.0, 3.0]
    assert rest.list_lengths("s").tolist() == [0, 0]
    assert rest.record_batch.equals(batch.record_batch.slice(1))
