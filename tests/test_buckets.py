"""Buckets of numbers: NumPy's digitize, exact arithmetic and sorted values say where each number belongs."""

from __future__ import annotations

import bisect
import json
import math
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastloss as fl
from fastloss.cli import main
from fastloss.columns.buckets import bind_buckets
from fastloss.errors import FastlossError, SchemaError, UsageError
from fastloss.quantiles import Counted, edges_of

ASKED: dict[str, Any] = {"label": "y", "prob": "p", "metrics": ["log_loss", "ctr"]}
FLOATS = st.floats(width=64) | st.integers(-40, 40).map(lambda tenths: tenths / 10)


def buckets(text: str, values: Any, kind: pa.DataType | None = None) -> list[str | None]:
    array = pa.array(values, kind, from_pandas=False)
    bound = bind_buckets(text, pa.schema([("x", array.type)]))
    assert bound is not None
    return list(pickle.loads(pickle.dumps(bound)).evaluate({"x": array}).to_pylist())


def bounds(label: str) -> tuple[float, float]:
    low, high = label[1:-1].split(", ")
    return float(low), float(high)


def make_frame(n: int = 12_000) -> pl.DataFrame:
    r = np.random.default_rng(11)
    score = r.normal(size=n)
    return pl.DataFrame(
        {
            "y": r.random(n) < 0.4,
            "p": r.beta(1.0, 2.0, n),
            "score": [None if i % 97 == 0 else math.nan if i % 89 == 0 else x for i, x in enumerate(score.tolist())],
            "single": np.round(r.random(n), 2).astype(np.float32),
            "count": r.geometric(0.05, n) - 1,
            "country": [["DE", "FR", "US"][i] for i in r.integers(0, 3, n)],
        }
    )


FRAME = make_frame()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    for part in range(3):
        FRAME.slice(part * 4_000, 4_000).write_parquet(folder / f"{part}.parquet", row_group_size=1_700)
    return folder


def numbers(result: fl.Result) -> list[Any]:
    return [(v.metric, v.model, tuple(v.slice.values()), v.value, v.n) for v in result.values]


def keys(result: fl.Result) -> list[Any]:
    return [next(iter(v.slice.values())) for v in result.values if v.slice and v.metric == "log_loss"]


# ---------------------------------------------------------------------------------------------------------------
# Which bucket


@given(
    st.lists(FLOATS | st.none(), max_size=30),
    st.lists(st.integers(-40, 40), min_size=1, max_size=8, unique=True).map(sorted),
)
def test_cut_is_digitize(values: list[float | None], tenths: list[int]) -> None:
    edges = [tenth / 10 for tenth in tenths]
    texts = ["-inf", *(str(edge).removesuffix(".0") for edge in edges), "inf"]
    expected = []
    for value in values:
        number = 0 if value is None or math.isnan(value) else int(np.digitize(value, edges))
        interval = f"{'[' if number else '('}{texts[number]}, {texts[number + 1]})"
        expected.append(None if value is None else "NaN" if math.isnan(value) else interval)
    text = f"cut(x, {', '.join(f'{tenth / 10}' for tenth in tenths)})"
    assert buckets(text, values, pa.float64()) == expected


@pytest.mark.parametrize(
    "width", ["0.1", "0.3", "0.05", "1e-3", "2.5", "7", "1e300", "0.1234567890123456789", "3e-200"]
)
def test_an_edge_is_the_nearest_number_of_the_decimal_that_was_written(width: str) -> None:
    if width == "1e300":
        with pytest.raises(UsageError, match="the width is 1e300"):
            buckets(f"width_bucket(x, {width})", [1.0])
        return
    for k in [*range(-30, 31), 12_345, -999_999, 10**9 + 7, 10**15, -(10**15)]:
        edge = float(Fraction(width) * k)
        below, at = buckets(f"width_bucket(x, {width})", [math.nextafter(edge, -math.inf), edge])
        assert bounds(str(at))[0] == edge
        assert bounds(str(below))[1] == edge
    assert buckets("width_bucket(x, 0.1)", [0.1 * 3, 0.3, 0.7, 1.1]) == [
        "[0.3, 0.4)",
        "[0.3, 0.4)",
        "[0.7, 0.8)",
        "[1.1, 1.2)",
    ]


@given(st.lists(FLOATS, max_size=20), st.sampled_from(["0.1", "0.7", "25", "1e-5", "1e10"]))
def test_widths_hold_their_numbers(values: list[float], width: str) -> None:
    most = float(Fraction(width) * 10**15)
    for value, label in zip(values, buckets(f"width_bucket(x, {width})", values, pa.float64()), strict=True):
        if math.isnan(value):
            assert label == "NaN"
            continue
        low, high = bounds(str(label))
        assert low <= value < high or (math.isinf(value) and value in (low, high))
        if abs(value) < most:
            number = round(Fraction(low) / Fraction(width))
            assert (low, high) == (float(Fraction(width) * number), float(Fraction(width) * (number + 1)))
        else:
            assert (low, high) in ((most, math.inf), (-math.inf, -most))


def test_edges_are_of_the_type_of_the_numbers() -> None:
    # 0.7 in float32 is below 0.7 in float64, and belongs to what begins at 0.7.
    for kind in (pa.float64(), pa.float32(), pa.float16()):
        values = np.array([k / 10 for k in range(10)], dtype=kind.to_pandas_dtype())
        expected = [f"[{k / 10:g}, {(k + 1) / 10:g})" for k in range(10)]
        assert buckets("width_bucket(x, 0.1)", values, kind) == expected
        assert buckets("cut(x, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)", values, kind) == expected
    integers = [None, -5, 0, 9, 10, 99, 100]
    expected_integers = [None, "[-10, 0)", "[0, 10)", "[0, 10)", "[10, 20)", "[90, 100)", "[100, 110)"]
    for kind in (pa.int8(), pa.int64(), pa.decimal128(9, 3)):
        assert buckets("width_bucket(x, 10)", integers, kind) == expected_integers


@given(st.lists(FLOATS, max_size=20), st.sampled_from([2, 3, 10, 1000]))
def test_powers_hold_their_numbers(values: list[float], base: int) -> None:
    for value, label in zip(values, buckets(f"log_bucket(x, {base})", values, pa.float64()), strict=True):
        assert label is not None
        if value == 0 or math.isnan(value):
            assert label == ("NaN" if math.isnan(value) else "[0, 0]")
            continue
        low, high = bounds(label)
        assert (low < value if label[0] == "(" else low <= value) or value == -math.inf
        assert value < high or value == math.inf
        assert (low >= 0) == (value > 0)
        sizes = sorted(abs(bound) for bound in (low, high))
        if sizes[0] > 0 and math.isfinite(sizes[1]):
            exponent = round(math.log(sizes[0]) / math.log(base))
            assert sizes == [float(Fraction(base) ** exponent), float(Fraction(base) ** (exponent + 1))]


def test_powers_read_well() -> None:
    values = [-1000.0, -999.0, -0.5, 0.0, -0.0, 1e-3, 0.00999, 1.0, 10.0, 999.0, 1e308, math.inf, -math.inf, 5e-324]
    assert buckets("log_bucket(x)", values) == [
        "[-1000, -100)", "[-1000, -100)", "[-1, -0.1)", "[0, 0]", "[0, 0]", "[0.001, 0.01)", "[0.001, 0.01)",
        "[1, 10)", "[10, 100)", "[100, 1000)", "[1e308, inf)", "[1e308, inf)", "(-inf, -1e308)", "(0, 1e-323)",
    ]  # fmt: skip
    assert buckets("LOG_BUCKET(x, 2)", [0.3, 5.0], pa.float32()) == ["[0.25, 0.5)", "[4, 8)"]


# ---------------------------------------------------------------------------------------------------------------
# As keys


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("width_bucket(score * 2, 0.25)", pl.col("score") * 2),
        ("cut(score, -1, 0, 1)", pl.col("score")),
        ("log_bucket(count)", pl.col("count")),
        ("cut(coalesce(score, 0.5), 0.25, 0.75)", pl.col("score").fill_null(0.5)),
        ("width_bucket(single, 0.1)", pl.col("single")),
    ],
)
def test_slices_by_buckets_are_those_of_a_column_of_intervals(text: str, expression: pl.Expr, log: Path) -> None:
    values = FRAME.select(expression.alias("x")).to_series().to_arrow()
    argument = text[text.rindex(", ") :] if text.startswith(("width", "log_bucket(count, ")) else ""
    call = (
        f"{text.partition('(')[0]}(x{argument or {'cut(s': ', -1, 0, 1', 'cut(c': ', 0.25, 0.75'}.get(text[:5], '')}"
    )
    labels = buckets(call.removesuffix(")") + ")", values)
    expected = fl.evaluate(FRAME.with_columns(found=pl.Series(labels)), **ASKED, by=["found", ("country", "found")])
    for how in ({}, {"batch_rows": 333}, {"threads": 3}, {"executor": "processes", "threads": 2}):
        found = fl.evaluate(log, **ASKED, by=[text, ("country", text)], **how)  # type: ignore[arg-type]
        assert numbers(found) == numbers(expected)
    named = fl.evaluate(log, **ASKED, by=["b", ("country", "b")], with_columns={"b": text}, where="p < 2")
    assert numbers(named) == numbers(expected)


def test_slices_come_in_the_order_of_their_intervals(log: Path) -> None:
    result = fl.evaluate(log, **ASKED, by="width_bucket(score * 5, 2.5)")
    found = keys(result)
    assert found[-2:] == ["NaN", None]
    lows = [bounds(label)[0] for label in found[:-2]]
    assert lows == sorted(lows)
    assert len(lows) > 10
    assert lows[0] < -10
    rows = [row for row in result.to_arrow().to_pylist() if row["metric"] == "log_loss" and row["slice"]]
    assert [row["slice.width_bucket(score * 5, 2.5)"] for row in rows] == found
    listed = [v["slice"] for v in json.loads(result.to_json())["values"] if v["slice"] and v["metric"] == "log_loss"]
    assert [next(iter(key.values())) for key in listed] == found
    shown = [line.split("  ")[0] for line in str(result).splitlines() if line.startswith(("[", "("))]
    assert shown == found[:-2]
    crossed = fl.evaluate(log, **ASKED, by=[("country", "log_bucket(count)")])
    pairs = [tuple(v.slice.values()) for v in crossed.values if v.slice and v.metric == "log_loss"]
    expected = ["[0, 0]", "[1, 10)", "[10, 100)", "[100, 1000)"]
    assert pairs == [
        (country, label) for country in ("DE", "FR", "US") for label in expected if (country, label) in pairs
    ]
    assert len(pairs) >= 9


def test_intervals_of_other_libraries_have_their_order_too() -> None:
    def order(values: list[str | None]) -> list[Any]:
        frame = pl.DataFrame({"y": [1] * len(values), "p": [0.5] * len(values), "k": values})
        return keys(fl.evaluate(frame, **ASKED, by="k"))

    assert order(["(10, 100]", None, "(-inf, 0]", "(0, 10]"]) == ["(-inf, 0]", "(0, 10]", "(10, 100]", None]
    assert order(["[10, 100)", "[1.2.3, 4)", "[2, 10)"]) == ["[1.2.3, 4)", "[10, 100)", "[2, 10)"]
    assert order(["[10, 100)", "other", "[2, 10)"]) == ["[10, 100)", "[2, 10)", "other"]
    assert order(["[1, 2)", "[1.0, 2)", "(1, 2)"]) == ["[1, 2)", "[1.0, 2)", "(1, 2)"]


def test_a_bucket_is_a_column_of_texts(log: Path, tmp_path: Path) -> None:
    asked = {**ASKED, "with_columns": {"b": "width_bucket(single, 0.25)"}}
    kept = fl.evaluate(log, **asked, where="b = '[0.5, 0.75)'")
    assert kept.rows["used"] == FRAME.filter((pl.col("single") >= 0.5) & (pl.col("single") < 0.75)).height
    fl.score(
        log,
        tmp_path / "out",
        label="y",
        prob="p",
        loss="log_loss",
        keep=["b", "single"],
        with_columns=asked["with_columns"],
    )
    written = pl.from_arrow(pq.read_table(tmp_path / "out"))
    assert isinstance(written, pl.DataFrame)
    expected = buckets("width_bucket(x, 0.25)", FRAME["single"].to_arrow())
    assert written["b"].cast(pl.String).to_list() == expected


# ---------------------------------------------------------------------------------------------------------------
# Quantiles


def check_edges(values: list[float], n: int, edges: tuple[float, ...], kind: str = "float64") -> None:
    """An edge parts the numbers before the place ⌈k·N/n⌉ that differ from the one there from all others."""
    ordered = sorted(values)
    wanted = []
    for k in range(1, n):
        place = -(-k * len(ordered) // n)
        if place < len(ordered) and ordered[place] != ordered[0]:
            wanted.append(bisect.bisect_left(ordered, ordered[place]))
    stored = np.array(edges).astype(kind).astype(np.float64).tolist()
    assert [bisect.bisect_left(ordered, edge) for edge in stored] == list(dict.fromkeys(wanted))
    assert all(math.isfinite(edge) for edge in edges)


@given(
    st.lists(FLOATS.filter(lambda x: not math.isnan(x)) | st.just(math.inf), max_size=60),
    st.integers(1, 12),
    st.integers(0, 60),
)
def test_edges_part_the_sorted_numbers(values: list[float], n: int, cut: int) -> None:
    first, second = Counted(), Counted()
    for part, counted in ((values[:cut], first), (values[cut:], second)):
        counted.add("x", np.array(part, dtype=np.float64))
    second.merge(first)
    edges = edges_of(second.histograms["x"].evaluate(), n, "float64")
    check_edges(values, n, edges)
    first.merge(second)
    both = edges_of(first.histograms["x"].evaluate(), n, "float64")
    assert set(both) <= set(edges_of(first.histograms["x"].evaluate(), 2 * n, "float64"))


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=60), st.integers(1, 12))
def test_edges_of_float32_part_them_too(values: list[float], n: int) -> None:
    counted = Counted()
    counted.add("x", np.array(values, dtype=np.float32))
    check_edges(values, n, edges_of(counted.histograms["x"].evaluate(), n, "float32"), "float32")


def test_edges_have_few_digits() -> None:
    counted = Counted()
    counted.add("x", np.arange(1, 101) / 100 + 0.00123456)
    assert edges_of(counted.histograms["x"].evaluate(), 4, "float64") == (0.26, 0.51, 0.76)
    counted = Counted()
    counted.add("x", np.array([-2.0, -1.0, 1.0, 2.0]))
    assert edges_of(counted.histograms["x"].evaluate(), 2, "float64") == (0.0,)


@pytest.mark.parametrize("where", [None, "country = 'DE'"])
@pytest.mark.parametrize(("column", "n"), [("score", 10), ("single", 4), ("count", 7)])
def test_slices_by_quantiles_are_those_of_the_sorted_values(column: str, n: int, where: str | None, log: Path) -> None:
    kept = FRAME if where is None else FRAME.filter(pl.col("country") == "DE")
    text = f"qcut({column}, {n})"
    result = fl.evaluate(log, **ASKED, by=text, where=where)
    values = kept[column].drop_nulls().cast(pl.Float64).drop_nans().to_list()
    edges = tuple(result.edges[text])
    check_edges(values, n, edges, "float32" if column == "single" else "float64")
    assert len(edges) <= n - 1
    by_hand = fl.evaluate(kept, **ASKED, by=f"cut({column}, {', '.join(map(repr, edges))})")
    assert numbers(result) == numbers(by_hand)
    if column == "score":
        counts = [v.n for v in result.values if v.slice and v.metric == "ctr"][:n]
        assert len(edges) == n - 1
        assert max(counts) - min(counts) <= 1
    for how in ({"batch_rows": 111}, {"threads": 3}, {"executor": "processes", "threads": 2}):
        again = fl.evaluate(log, **ASKED, by=text, where=where, **how)  # type: ignore[arg-type]
        assert (numbers(again), again.edges) == (numbers(result), result.edges)
    for source in (FRAME.sample(fraction=1.0, shuffle=True, seed=3), FRAME.lazy(), [FRAME[7_000:], FRAME[:7_000]]):
        assert fl.evaluate(source, **ASKED, by=text, where=where).edges == result.edges


def test_many_different_numbers_are_parted_nearly_there(tmp_path: Path) -> None:
    r = np.random.default_rng(2)
    values = r.normal(-2.0, 1.5, 300_000)
    table = pa.table({"y": np.zeros(len(values)), "p": np.full(len(values), 0.5), "x": values})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=40_000)
    found = [
        fl.evaluate(log, **ASKED, by="qcut(x, 20)", **how)  # type: ignore[arg-type]
        for log, how in (
            (tmp_path / "log.parquet", {"threads": 2}),
            (tmp_path / "log.parquet", {"threads": 1, "batch_rows": 5_000}),
            (table.take(pa.array(r.permutation(len(values)))), {}),
        )
    ]
    edges = found[0].edges["qcut(x, 20)"]
    assert [result.edges["qcut(x, 20)"] for result in found] == [edges] * 3
    assert len(edges) == 19
    ranks = np.searchsorted(np.sort(values), edges)
    assert np.abs(ranks - np.arange(1, 20) * 15_000).max() < 30
    assert sum(v.n for v in found[0].values if v.slice and v.metric == "ctr") == len(values)
    # Too close to each other for the histogram: fewer buckets, and every row in the one that it lies in.
    close = pa.table({"y": np.zeros(300_000), "p": np.full(300_000, 0.5), "x": 1e9 + r.random(300_000)})
    result = fl.evaluate(close, **ASKED, by="qcut(x, 20)")
    edges = result.edges["qcut(x, 20)"]
    assert len(edges) < 19
    counts = [v.n for v in result.values if v.slice and v.metric == "ctr"]
    inner = np.searchsorted(np.sort(close["x"].to_numpy()), edges)
    assert counts == [c for c in np.diff([0, *inner, 300_000]).tolist() if c]


def test_equal_numbers_are_in_one_bucket() -> None:
    frame = FRAME.with_columns(one=pl.lit(3.0), none=pl.lit(None, dtype=pl.Float64))
    result = fl.evaluate(frame, **ASKED, by=["qcut(one, 10)", "qcut(none, 10)"])
    assert result.edges == {"qcut(one, 10)": [], "qcut(none, 10)": []}
    assert keys(result) == ["(-inf, inf)", None]
    assert "quantiles of qcut(one, 10): none, since no two numbers differ" in str(result)


def test_states_with_quantiles(log: Path, tmp_path: Path) -> None:
    whole = fl.evaluate(log, **ASKED, by="qcut(score, 4)", state=tmp_path / "whole.state")
    merged = fl.merge([tmp_path / "whole.state"], output_state=tmp_path / "again.state")
    for result in (merged, fl.merge([tmp_path / "again.state"])):
        assert (numbers(result), result.edges) == (numbers(whole), whole.edges)
    for part in range(2):
        fl.evaluate(log / f"{part}.parquet", **ASKED, by="qcut(score, 4)", state=tmp_path / f"{part}.state")
    with pytest.raises(
        UsageError, match=r"have different edges of qcut\(score, 4\), which are the quantiles of each log"
    ):
        fl.merge([tmp_path / "0.state", tmp_path / "1.state"])


def test_states_by_buckets_merge(log: Path, tmp_path: Path) -> None:
    by = ["width_bucket(score, 0.5)", ("country", "log_bucket(count)")]
    for part in range(3):
        fl.evaluate(log / f"{part}.parquet", **ASKED, by=by, state=tmp_path / f"{part}.state")
    merged = fl.merge([tmp_path / f"{part}.state" for part in (2, 0, 1)])
    assert numbers(merged) == numbers(fl.evaluate(log, **ASKED, by=by))


def test_quantiles_are_part_of_the_account(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "eval",
        str(log),
        "--label",
        "y",
        "--prob",
        "p",
        "-m",
        "log_loss",
        "--with",
        "decile = qcut(score, 10)",
    ]
    assert main([*arguments, "--by", "decile", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["edges"]["decile"]) == 9
    assert main([*arguments, "--by", "decile"]) == 0
    assert "quantiles of decile: -1." in capsys.readouterr().out
    # Nobody reads the column.
    assert main([*arguments, "--format", "json"]) == 0
    assert "edges" not in json.loads(capsys.readouterr().out)
    assert main(["plan", *arguments[1:], "--by", "decile,width_bucket(single, 0.1)"]) == 0
    assert "decile × width_bucket(single, 0.1)" in capsys.readouterr().out


def test_a_second_pass_needs_a_log_that_can_be_read_twice(log: Path, tmp_path: Path) -> None:
    def batches() -> Any:
        yield from FRAME.to_arrow().to_batches()

    for stream in (batches(), FRAME.to_arrow().to_reader()):
        with pytest.raises(UsageError, match="this log gives its rows once"):
            fl.evaluate(stream, **ASKED, by="qcut(score, 3)")
    assert len(keys(fl.evaluate(batches(), **ASKED, by="cut(score, 0)"))) == 4
    with pytest.raises(UsageError, match="which score does not make"):
        fl.score(log, tmp_path / "out", label="y", prob="p", loss="log_loss", keep="qcut(score, 3)")


def test_progress_goes_through_both_passes(log: Path) -> None:
    seen: list[int] = []
    fl.evaluate(log, **ASKED, by="qcut(score, 3)", progress=lambda progress: seen.append(progress.rows), threads=1)
    assert seen.count(len(FRAME)) == 2


def test_bad_files_are_left_out_of_both_passes(tmp_path: Path) -> None:
    FRAME[:500].write_parquet(tmp_path / "a.parquet")
    FRAME[500:900].write_parquet(tmp_path / "b.parquet", compression="uncompressed", statistics=False)
    content = bytearray((tmp_path / "b.parquet").read_bytes())
    content[4:2000] = bytes(1996)
    (tmp_path / "b.parquet").write_bytes(content)
    found = fl.evaluate(tmp_path, **ASKED, by="qcut(score, 3)", on_bad_file="skip")
    assert found.edges == fl.evaluate(FRAME[:500], **ASKED, by="qcut(score, 3)").edges
    assert len(found.files["skipped"]) == 1
    with pytest.raises(FastlossError, match="Mend or remove it"):
        fl.evaluate(tmp_path, **ASKED, by="qcut(score, 3)")


# ---------------------------------------------------------------------------------------------------------------
# Refusals

REFUSED: list[tuple[str, type[FastlossError], str]] = [
    ("qcut(score, 0)", UsageError, "allowed: a whole number from 1 to 1,000"),
    ("qcut(score, 1001)", UsageError, "allowed: a whole number from 1 to 1,000"),
    ("qcut(score, 2.5)", UsageError, "the number of buckets is 2.5"),
    ("qcut(score)", UsageError, "allowed: one number of buckets: qcut(score, 10)"),
    ("cut(score)", UsageError, "it has 0 edges"),
    ("cut(score, 2, 1)", UsageError, "write edges in ascending order"),
    ("cut(score, 1, 1.00000000000000000001)", UsageError, "write edges in ascending order"),
    ("cut(score, 1e999)", UsageError, "beyond the largest float64"),
    ("cut(score, a)", UsageError, "an edge is a"),
    ("cut(score, 1 0)", UsageError, "an edge is 1 0"),
    ("cut(score,)", UsageError, "an argument is missing"),
    ("cut()", UsageError, "an argument is missing"),
    ("width_bucket(score, 0)", UsageError, "the width is 0; allowed: above 0"),
    ("width_bucket(score, -0.1)", UsageError, "the width is -0.1"),
    ("width_bucket(score, 0, 1, 10)", UsageError, "allowed: one width"),
    ("log_bucket(score, 1)", UsageError, "the base is 1"),
    ("log_bucket(score, 2, 3)", UsageError, "allowed: one base"),
    ("cut(country, 1)", SchemaError, "country gives"),
    ("cut(y, 1)", SchemaError, "buckets are of numbers"),
    ("cut(nope, 1)", SchemaError, "no column 'nope'"),
    ("cut(sum(score), 1)", UsageError, "needs more than its row"),
    ("cut(score, 1) || 'a'", UsageError, "name them first"),
    ("lower(cut(score, 1))", UsageError, "name them first"),
    ("cut((select 1), 1)", UsageError, "belongs to a query"),
    ("cut(score, 1", UsageError, "do not match"),
]


@pytest.mark.parametrize(("text", "error", "said"), REFUSED)
def test_refusals_say_what_was_found(text: str, error: type[FastlossError], said: str) -> None:
    with pytest.raises(error) as caught:
        fl.evaluate(FRAME, **ASKED, by=[text])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quantiles_are_not_of_what_they_decide() -> None:
    asked = {**ASKED, "with_columns": {"d": "qcut(score, 3)", "e": "qcut(length(d), 3)", "f": "substr(d, 1, 2)"}}
    with pytest.raises(UsageError, match="whose quantiles are those of the rows that the filter keeps"):
        fl.evaluate(FRAME, **ASKED, with_columns={"d": "qcut(score, 3)"}, where="d is not null")
    with pytest.raises(UsageError, match="needs the quantiles 'd' before its own"):
        fl.evaluate(FRAME, **asked, by="e")
    del asked["with_columns"]["e"]
    assert len(keys(fl.evaluate(FRAME, **asked, by="f"))) == 5


PARTS = [
    "cut",
    "qcut",
    "width_bucket",
    "log_bucket",
    "score",
    "(",
    ")",
    ",",
    "1",
    "0.1",
    "-1",
    "1e-9999",
    "'",
    '"',
    "x",
    " ",
]


@given(
    st.lists(st.sampled_from(PARTS), max_size=8).map("".join)
    | st.text(st.characters(codec="utf-8"), max_size=8).map(lambda text: f"width_bucket(score, {text})")
    | st.text("0123456789.eE+-", max_size=12).map(lambda text: f"cut(score, {text})")
)
def test_any_text_is_a_key_or_one_readable_line(text: str) -> None:
    try:
        found = fl.evaluate(FRAME[:50], **ASKED, by=[text])
    except FastlossError as error:
        said = str(error)
        assert "\n" not in said
        return
    assert found.rows["read"] == 50


def test_a_column_of_that_name_comes_first() -> None:
    frame = FRAME.with_columns(pl.col("country").alias("cut(score, 1)"))
    assert keys(fl.evaluate(frame, **ASKED, by=["cut(score, 1)"])) == ["DE", "FR", "US"]


def test_quantiles_of_many_columns_fit_into_the_default_memory() -> None:
    rows = pa.table({name: [0.0, 1.0] * 50 for name in "yabcd"})
    keys = [f"qcut({name}, 4)" for name in "abcd"]
    plan = fl.make_plan(rows, label="y", prob="a", by=keys, metrics=["log_loss"])
    # Four histograms of 32 MiB, merged, and 100 numbers of 9 bytes of each in each thread.
    assert plan.execution.states_bytes == (128 << 20) + plan.execution.threads * 4 * 900
