"""The result of an evaluation: values with their evidence, as table, dict, JSON, Arrow and Polars."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastloss._version import __version__
from fastloss.errors import UsageError, nearest_names
from fastloss.metrics.form import LABEL, ROWS, WEIGHT, Term
from fastloss.metrics.names import parse_metric
from fastloss.plan import Plan
from fastloss.scan import Scanned
from fastloss.states.sums import CellKey, CellSums
from fastloss_kernels.exact_sum import ExactSum

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Value:
    """One number of a result, with its evidence.

    Attributes
    ----------
    metric, model : str
        What was measured, of which prediction.
    slice : dict
        Slice keys and their values; empty for the total.
    value : float or None
        The number; None where it is not defined, and then `reason` says why.
    n : int
        Rows used.
    weight : float
        Their total weight; `n` where the log has no weight.
    evidence : dict
        What the metric adds, such as ``n_saturated``.
    """

    metric: str
    model: str
    slice: Mapping[str, Any]
    value: float | None
    reason: str | None
    n: int
    weight: float
    evidence: Mapping[str, float | int | str]

    def to_dict(self) -> dict[str, Any]:
        """Return the value as a flat dict."""
        row: dict[str, Any] = {
            "metric": self.metric,
            "model": self.model,
            "slice": dict(self.slice),
            "value": self.value,
        }
        if self.reason is not None:
            row["reason"] = self.reason
        return {**row, "n": self.n, "weight": self.weight, **self.evidence}


class _SliceSums:
    """The sums of one model over one slice, each read once."""

    def __init__(self, columns: Mapping[tuple[int, Term], int], plan: Plan, sums: CellSums, key: CellKey, model: int):
        self._columns = columns
        self._plan = plan
        self._sums = sums
        self._key = key
        self._model = model
        self._read: dict[Term, ExactSum] = {}
        self.n = self.count(ROWS)
        self.space = plan.models[model].space

    def count(self, term: Term) -> int:
        return self._sums.count(self._key, self._plan.counts.index((self._model, term)))

    def __getitem__(self, term: Term) -> ExactSum:
        if term not in self._read:
            self._read[term] = self._total(term)
        return self._read[term]

    def _total(self, term: Term) -> ExactSum:
        if self._plan.weight is None and term == WEIGHT:
            return ExactSum.from_count(self.n)
        if self._plan.weight is None and term.quantity == "saturated_weight":
            return ExactSum.from_count(self.count(Term("saturated_rows", term.loss)))
        total = ExactSum()
        for owner in (self._model, -1) if term in (WEIGHT, LABEL) else (self._model,):
            # The weight and label of rows that all models use alike are summed once, as nobody's.
            if (column := self._columns.get((owner, term))) is not None:
                total += self._sums.total(self._key, column)
        return total


class Result:
    """What `fastloss.evaluate` returns.

    ``result["log_loss"]`` is the total's value: a float for a single model, else a dict by model. `values` lists
    everything: first the total, then the slices of each grouping in the order they were asked for.
    """

    def __init__(self, plan: Plan, scanned: Scanned) -> None:
        self.asked = plan.asked()
        self.fingerprint = plan.fingerprint
        self.conventions = plan.conventions
        self._ledger = scanned.state.ledger
        self._skipped = scanned.skipped
        self._n_files = scanned.n_files
        self._models = [model.name for model in plan.models]
        self._keys = plan.keys
        self.values: list[Value] = list(_values(plan, scanned))

    def __getitem__(self, metric: str) -> float | dict[str, float | None] | None:
        """Return the total's value of a metric, by model where there are several."""
        found = self._total(metric)
        if not found:
            raise UsageError(f"The result has no metric {metric!r}. {nearest_names(metric, self.metrics)}")
        return found if len(self._models) > 1 else found[self._models[0]]

    def __contains__(self, metric: object) -> bool:
        """Tell whether a metric was computed; any spelling of its name will do."""
        return isinstance(metric, str) and bool(self._total(metric))

    @property
    def metrics(self) -> list[str]:
        """The names of what was computed."""
        return list(dict.fromkeys(value.metric for value in self.values))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of what was computed."""
        return iter(self.metrics)

    def _total(self, metric: str) -> dict[str, float | None]:
        if metric not in self.metrics:
            try:
                metric = parse_metric(metric).label
            except UsageError:
                return {}
        return {v.model: v.value for v in self.values if v.metric == metric and not v.slice}

    @property
    def rows(self) -> dict[str, Any]:
        """Rows read, used (by model, where there are several), and dropped by cause, each with its first place."""
        ledger = self._ledger
        dropped = [
            {
                "cause": cause.name,
                "column": cause.column,
                "role": cause.role,
                "rows": count,
                "first": ledger.first[cause].describe(),
            }
            for cause, count in sorted(ledger.dropped.items())
        ]
        totals = {v.model: v.n for v in self.values if not v.slice}
        used: int | dict[str, int] = totals if len(totals) > 1 else next(iter(totals.values()))
        return {"read": ledger.n_read, "used": used, "dropped": dropped}

    @cached_property
    def files(self) -> dict[str, Any]:
        """How many files were read, and which parts were skipped for which cause."""
        skipped = [
            {"file": s.file, "row_group": s.row_group, "rows": s.n_rows, "cause": s.cause} for s in self._skipped
        ]
        return {"read": self._n_files, "skipped": skipped}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "fastloss": __version__,
            "plan": {"fingerprint": self.fingerprint, **self.asked},
            "rows": self.rows,
            "files": self.files,
            "values": [value.to_dict() for value in self.values],
        }

    def to_json(self, indent: int | None = None) -> str:
        """Return everything as one JSON object; floats read back to the same bits, NaN and ±inf are strings."""
        return json.dumps(_jsonable(self.to_dict()), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_arrow(self) -> pa.Table:
        """Return the values as an Arrow table: a column for each slice key, null where a key is not part."""
        import pyarrow as pa

        evidence = list(dict.fromkeys(name for value in self.values for name in value.evidence))
        integers = {n for n in evidence if all(isinstance(v.evidence.get(n, 0), int) for v in self.values)}
        columns: dict[str, Any] = {
            "metric": pa.array([v.metric for v in self.values], pa.string()),
            "model": pa.array([v.model for v in self.values], pa.string()),
            "slice": pa.array([" × ".join(v.slice) for v in self.values], pa.string()),
        }
        for key in self._keys:
            columns[f"slice.{key}"] = _key_column([v.slice.get(key) for v in self.values])
        columns["value"] = pa.array([v.value for v in self.values], pa.float64(), from_pandas=False)
        columns["reason"] = pa.array([v.reason for v in self.values], pa.string())
        columns["n"] = pa.array([v.n for v in self.values], pa.int64())
        columns["weight"] = pa.array([v.weight for v in self.values], pa.float64(), from_pandas=False)
        for name in evidence:
            words = any(isinstance(v.evidence.get(name), str) for v in self.values)
            kind = pa.string() if words else pa.int64() if name in integers else pa.float64()
            columns[name] = pa.array([v.evidence.get(name) for v in self.values], kind)
        return pa.table(columns)

    def to_polars(self) -> pl.DataFrame:
        """Return the values as a Polars frame, with the columns of `to_arrow`."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def __str__(self) -> str:
        """Return the result as a text table."""
        from fastloss.report.table import render

        return render(self)

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return f"<fastloss.Result of {self._ledger.n_read:,} rows: {len(self.values)} values>"


def _key_column(values: list[Any]) -> pa.Array:
    """Return slice keys as booleans, integers or text, whatever they all are."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int}:
        return pa.array(values, pa.int64() if max(v for v in values if v is not None) < 1 << 63 else pa.uint64())
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _values(plan: Plan, scanned: Scanned) -> Iterator[Value]:
    total = CellSums(len(plan.counts), len(plan.terms))
    total.rows_of([()])
    first = scanned.state.groupings[0]
    for row in first.cells.values():
        total.counts[0] += first.counts[row]
        total.words[0] += first.words[row]
    yield from _values_of(plan, total, (), ())
    if plan.by:
        for columns, sums in zip(plan.by, scanned.state.groupings, strict=True):
            # A slice of rows of weight 0 alone is counted for its rows, and has no values.
            used = [key for key, row in sums.cells.items() if sums.counts[row, : len(plan.models)].any()]
            for key in sorted(used, key=_sortable):
                yield from _values_of(plan, sums, columns, key)


def _values_of(plan: Plan, sums: CellSums, keys: tuple[str, ...], key: CellKey) -> Iterator[Value]:
    columns = {term: column for column, term in enumerate(plan.terms)}
    of_model = [_SliceSums(columns, plan, sums, key, index) for index in range(len(plan.models))]
    for metric in plan.metrics:
        for model, slice_sums in zip(plan.models, of_model, strict=True):
            reading = metric.read(slice_sums)
            yield Value(
                metric=metric.label,
                model=model.name,
                slice=dict(zip(keys, key, strict=True)),
                value=reading.value,
                reason=reading.reason,
                n=slice_sums.n,
                weight=float(slice_sums[WEIGHT]),
                evidence=reading.evidence,
            )


def _sortable(key: CellKey) -> tuple[tuple[bool, str, Any], ...]:
    # Null sorts last; values of one column share a type, hive keys of mixed files may not.
    return tuple((part is None, type(part).__name__, 0 if part is None else part) for part in key)


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    return value
