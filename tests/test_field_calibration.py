"""The error of calibration over a key: the definition in fractions, merged states, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastloss as fl

Row = tuple[float, float, float, str | None]  # probability, label, weight, key

rows_of_keys = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 10), st.sampled_from(["a", "b", None])), min_size=1
)
METRIC = "field_calibration_error(by=k)"


def table(rows: list[Row]) -> pa.Table:
    """Rows as a log of probabilities."""
    columns: dict[str, Any] = {name: [row[at] for row in rows] for at, name in enumerate(("p", "y", "w", "k"))}
    return pa.table({**columns, "k": pa.array(columns["k"], pa.string()), "j": pa.array([1] * len(rows))})


def expected(rows: list[Row]) -> float | None:
    """Σ over keys of |Σw·(y − p)|, divided by Σw; products are rounded."""
    distances = [
        abs(sum((Fraction(w * p) - Fraction(w * y) for p, y, w, k in rows if k == key), Fraction()))
        for key in {row[3] for row in rows}
    ]
    weight = sum((Fraction(w) for _, _, w, _ in rows), Fraction())
    return float(sum(distances, Fraction()) / weight) if weight else None


@settings(max_examples=25, deadline=None)
@given(rows_of_keys)
def test_the_total_has_the_error_of_the_definition(rows: list[Row]) -> None:
    """The exact number, rounded once; slices have none, and say so."""
    result = fl.evaluate(table(rows), label="y", prob="p", weight="w", by=["j", "k", ("j", "k")], metrics=METRIC)
    total, *slices = result.values
    assert total.value == expected(rows)
    assert total.reason == ("no_rows" if total.value is None else None)
    assert {(value.value, value.reason) for value in slices} <= {(None, "of_the_total_alone")}


def test_merged_states_give_the_number_of_one_evaluation(tmp_path: Path) -> None:
    """Slices are added up before their distances are taken."""
    days = [[(0.5, 1.0, 1.0, "a"), (0.25, 0.0, 2.0, "b")], [(0.5, 0.0, 1.0, "a"), (0.75, 1.0, 1.0, None)]]
    states = [str(tmp_path / f"{day}.arrow") for day in range(2)]
    for rows, state in zip(days, states, strict=True):
        fl.evaluate(table(rows), label="y", prob="p", weight="w", by=["k", "j"], metrics=METRIC, state=state)
    merged = fl.merge(states)
    assert merged.values[0].value == expected([*days[0], *days[1]]) == 0.75 / 5.0
    # Without the slices by its key it is the only one without a value, also of a state that is merged anew.
    for by in ("j", [], ["j", "k"]):
        coarser = fl.merge(states, by=by, output_state=tmp_path / "coarser.arrow")
        for result in (coarser, fl.merge(tmp_path / "coarser.arrow")):
            first = result.values[0]
            assert (first.value, first.reason) == ((0.15, None) if "k" in by else (None, "no_slices_by_key"))
            assert {value.reason for value in result.values[1:]} <= {"of_the_total_alone"}


@pytest.mark.parametrize(
    ("metric", "by", "said"),
    [
        (METRIC, (), "there are no slices by 'k' alone; slice by it too, and name it in by=."),
        (METRIC, ["j", ("j", "k")], "there are no slices by 'k' alone; name by='j' in it, or slice by another."),
        ("field_calibration_error", ["k"], "no key is named; name by='k' in it, or slice by another."),
    ],
)
def test_a_key_without_slices_is_refused_while_planning(metric: str, by: Any, said: str) -> None:
    """The error names the keys that there are."""
    with pytest.raises(fl.UsageError) as refused:
        fl.evaluate(table([(0.5, 1.0, 1.0, "a")]), label="y", prob="p", by=by, metrics=metric)
    assert str(refused.value).endswith(said)


def test_the_table_of_slices_leaves_it_out_beside_other_metrics() -> None:
    log = table([(0.5, 1.0, 1.0, "a"), (0.25, 0.0, 2.0, "b")])
    asked = {"label": "y", "prob": "p", "by": ["k"]}
    assert str(fl.evaluate(log, metrics=[METRIC, "log_loss"], **asked)).count("field_calibration_error") == 1
    assert str(fl.evaluate(log, metrics=METRIC, **asked)).count("field_calibration_error") == 2
