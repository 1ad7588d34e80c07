"""Fields of structs and of lists of structs as columns of their own, against the values in plain Python."""

from __future__ import annotations

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given

from fastloss.columns.nested import find_columns, take_column, with_fields

LISTS = [
    pa.list_,
    pa.large_list,
    lambda of: pa.list_(of, 2),
    pa.list_view,
    pa.large_list_view,
]


@st.composite
def nested_types(draw, depth=3):
    kind = draw(st.sampled_from(["leaf", "struct", "list"])) if depth else "leaf"
    if kind == "leaf":
        return draw(st.sampled_from([pa.float64(), pa.int8(), pa.bool_(), pa.string(), pa.null()]))
    if kind == "list":
        return draw(st.sampled_from(LISTS))(draw(nested_types(depth - 1)))
    # A name may hold a dot, and be "list".
    names = draw(st.lists(st.sampled_from(["a", "b", "a.b", "list", ""]), min_size=1, max_size=3, unique=True))
    return pa.struct([(name, draw(nested_types(depth - 1))) for name in names])


def values_of(kind):
    if pa.types.is_struct(kind):
        found = st.fixed_dictionaries(
            {kind.field(i).name: values_of(kind.field(i).type) for i in range(kind.num_fields)}
        )
    elif pa.types.is_fixed_size_list(kind):
        found = st.lists(values_of(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    elif hasattr(kind, "value_type"):
        found = st.lists(values_of(kind.value_type), max_size=3)
    elif kind == pa.null():
        return st.none()
    else:
        found = {
            pa.float64(): st.floats(allow_nan=False),
            pa.int8(): st.integers(-9, 9),
            pa.bool_(): st.booleans(),
        }.get(kind, st.text("xy", max_size=2))
    return st.none() | found


def walk(value, kind, steps):
    """What the definition says: a null on the way is a null at its end."""
    if value is None or not steps:
        return value
    if steps[0] is None:
        return [walk(element, kind.value_type, steps[1:]) for element in value]
    field = kind.field(steps[0])
    return walk(value[field.name], field.type, steps[1:])


@st.composite
def tables(draw):
    fields = draw(
        st.lists(st.sampled_from(["a", "b", "a.b", "a.list", "a.list.b"]), min_size=1, max_size=3, unique=True)
    )
    columns, kinds = {}, {}
    n_rows, first = draw(st.integers(0, 6)), draw(st.integers(0, 2))
    for name in fields:
        kind = kinds[name] = draw(nested_types())
        rows = draw(st.lists(values_of(kind), min_size=n_rows + first + 1, max_size=n_rows + first + 1))
        columns[name] = pa.array(rows, kind).slice(first, n_rows)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


@given(tables())
def test_every_field_is_found_by_its_name_and_holds_what_the_struct_holds(batch):
    offered = with_fields(batch.schema)
    for name in set(offered.names):
        paths = find_columns(batch.schema, name)
        assert len(paths) == offered.names.count(name)
        assert len({len(path.steps) for path in paths}) == 1
        for path in paths:
            column = batch.column(path.column)
            taken = take_column(column, path.steps)
            taken.validate(full=True)
            assert taken.type == path.type
            assert taken.to_pylist() == [walk(value, column.type, path.steps) for value in column.to_pylist()]
    assert find_columns(batch.schema, "a.nowhere") == []


def test_a_column_comes_before_a_field_of_the_same_name():
    struct = pa.struct([("b", pa.int8()), ("b.c", pa.float64())])
    schema = pa.schema([("a", struct), ("a.b", pa.struct([("c", pa.int8())])), ("a.b.c", pa.string())])
    assert with_fields(schema).names == ["a", "a.b", "a.b.c"]
    assert [path.type for path in find_columns(schema, "a.b.c")] == [pa.string()]
    assert [path.column for path in find_columns(schema, "a.b")] == [1]
    # Neither of two fields comes before the other.
    assert with_fields(schema.remove(2)).names == ["a", "a.b.c", "a.b", "a.b.c"]
    assert [path.column for path in find_columns(schema.remove(2), "a.b.c")] == [0, 1]


@pytest.mark.parametrize("n_structs", [0, 1, 40])
def test_a_schema_without_structs_stays_as_it_is(n_structs):
    plain = [pa.field("x", pa.float64(), metadata={"unit": "nats"}), pa.field("l", pa.list_(pa.int8()))]
    schema = pa.schema(plain + [pa.field(f"s{i}", pa.struct([("y", pa.int8())])) for i in range(n_structs)])
    offered = with_fields(schema)
    assert list(offered)[:2] == plain
    assert offered.field("x").metadata == {b"unit": b"nats"}
    assert offered.names == ["x", "l"] + [f"s{i}{end}" for i in range(n_structs) for end in ("", ".y")]
