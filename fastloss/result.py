"""The result of an evaluation: values with their evidence, as table, dict, JSON, Arrow and Polars."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from fastloss._version import __version__
from fastloss.errors import UsageError, nearest_names
from fastloss.metrics.evaluate import GroupingValues, ModelValues, evaluate_table
from fastloss.metrics.names import parse_metric
from fastloss.metrics.resolve import Evaluation
from fastloss.report.content import DEFAULT_SLICES, dropped_rows, skipped_parts
from fastloss.scan import ScanResult
from fastloss.states.causes import OF_SOME_METRICS
from fastloss.states.ledger import Ledger

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


class Values(Sequence[Value]):
    """The values of a result, made one at a time from columns: first the total, then the slices of each grouping."""

    def __init__(self, groupings: Sequence[GroupingValues]) -> None:
        self._groupings = groupings
        self._ends = np.cumsum([grouping.n_slices * len(grouping.columns) for grouping in groupings]).tolist()

    def __len__(self) -> int:
        """Return how many values there are."""
        return int(self._ends[-1]) if self._ends else 0

    def __eq__(self, other: object) -> bool:
        """Compare with any sequence of values."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> Value: ...

    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...

    def __getitem__(self, index: int | slice) -> Value | list[Value]:
        """Return one value, or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"the result has {len(self)} values")
        number = next(i for i, end in enumerate(self._ends) if index < end)
        grouping = self._groupings[number]
        position, column = divmod(index - (self._ends[number - 1] if number else 0), len(grouping.columns))
        return value_at(grouping, int(grouping.order[position]), grouping.columns[column])


def value_at(grouping: GroupingValues, position: int, column: ModelValues) -> Value:
    """Return the value of one metric and model in one slice of a grouping."""
    values = column.values
    evidence: dict[str, float | int | str] = {}
    for name, found in values.evidence.items():
        if isinstance(found, str):
            evidence[name] = found
        elif name not in values.absent or not values.absent[name][position]:
            evidence[name] = found[position].item()
    return Value(
        metric=column.metric,
        model=column.model,
        slice=grouping.key_at(position),
        value=None if values.undefined[position] else float(values.value[position]),
        reason=values.reasons[values.reason[position]] or None,
        n=int(column.n[position]),
        weight=float(column.weight[position]),
        evidence=evidence,
    )


class Result:
    """What `fastloss.evaluate` returns.

    ``result["log_loss"]`` is the total's value: a float for a single model, else a dict by model. `values` lists
    everything: first the total, then the slices of each grouping in the order they were asked for.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        groupings: Sequence[GroupingValues],
        ledger: Ledger,
        skipped: Sequence[Mapping[str, Any]],
        n_files: int | None,
    ) -> None:
        self.asked = evaluation.asked()
        self.fingerprint = evaluation.fingerprint
        self.conventions = evaluation.said
        self.groupings = list(groupings)
        self.values = Values(self.groupings)
        self._ledger = ledger
        self._models = [model.name for model in evaluation.models]
        # Metrics of lists each use the lists that they can.
        self._rows_by_metric = len({spec.rows.needs for spec in evaluation.specs} - {("zero_weight",)}) > 1
        self.files: dict[str, Any] = {"read": n_files, "skipped": [dict(part) for part in skipped]}

    def __getitem__(self, metric: str) -> float | dict[str, float | None] | None:
        """Return the total's value of a metric, by model where there are several."""
        if not isinstance(metric, str):
            raise UsageError(f"A result is asked for {metric!r}; allowed: the name of a metric, such as 'log_loss'.")
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
        return list(dict.fromkeys(column.metric for column in self.groupings[0].columns))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of what was computed."""
        return iter(self.metrics)

    def _total(self, metric: str) -> dict[str, float | None]:
        if metric not in self.metrics:
            try:
                metric = parse_metric(metric).name
            except UsageError:
                return {}
        total = self.groupings[0]
        return {c.model: value_at(total, 0, c).value for c in total.columns if c.metric == metric}

    @cached_property
    def rows(self) -> dict[str, Any]:
        """Rows read, used (by model, where there are several), and dropped by cause, each with its first place.

        A model uses a row if one of its metrics does.
        """
        ledger = self._ledger
        dropped = dropped_rows(ledger)
        for entry in dropped:
            if self._rows_by_metric and entry["cause"] in OF_SOME_METRICS:
                entry["metrics"] = "some"
        used = dict.fromkeys(self._models, 0)
        for column in self.groupings[0].columns:
            used[column.model] = max(used[column.model], int(column.n[0]))
        return {
            "read": ledger.n_read,
            "used": used if len(used) > 1 else next(iter(used.values())),
            "dropped": dropped,
        }

    def _head(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "fastloss": __version__,
            "plan": {"fingerprint": self.fingerprint, **self.asked},
            "rows": self.rows,
            "files": self.files,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**self._head(), "values": [value.to_dict() for value in self.values]}

    def to_json(self, indent: int | None = None) -> str:
        """Return everything as one JSON object; floats read back to the same bits, NaN and ±inf are strings."""
        return json.dumps(_jsonable(self.to_dict()), indent=indent, ensure_ascii=False, allow_nan=False)

    def shown(
        self, slices: int | None = DEFAULT_SLICES, *, sort: str | None = None, min_rows: int = 0
    ) -> dict[str, Any]:
        """Return what a report shows, as plain values.

        Parameters
        ----------
        slices : int or None
            How many slices of each grouping to show; None for all. Where there are more, those with the most rows.
        sort : str, optional
            Order slices by this metric of the first model, the largest first; left out, by their keys.
        min_rows : int
            Leave out slices of fewer rows.
        """
        if sort is not None:
            sort = parse_metric(sort).name
            if sort not in self.metrics:
                raise UsageError(f"Slices cannot be sorted by {sort}, which is not computed.")
        groupings = []
        for grouping in self.groupings[1:]:
            chosen, n_large = _chosen(grouping, slices, sort, min_rows)
            groupings.append(
                {
                    "keys": list(grouping.keys),
                    "n_slices": grouping.n_slices,
                    "n_of_min_rows": n_large,
                    "slices": [[value_at(grouping, p, c).to_dict() for c in grouping.columns] for p in chosen],
                }
            )
        total = self.groupings[0]
        return {
            **self._head(),
            "conventions": self.conventions,
            "total": [value_at(total, 0, column).to_dict() for column in total.columns],
            "groupings": groupings,
        }

    def to_arrow(self) -> pa.Table:
        """Return the values as an Arrow table: a column for each slice key, null where a key is not part."""
        from fastloss.report.arrow import to_arrow

        return to_arrow(self.groupings)

    def to_polars(self) -> pl.DataFrame:
        """Return the values as a Polars frame, with the columns of `to_arrow`."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def __str__(self) -> str:
        """Return the result as a text table."""
        from fastloss.report.table import render

        return render(self.shown())

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return f"<fastloss.Result of {self._ledger.n_read:,} rows: {len(self.values)} values>"


def result_of(evaluation: Evaluation, scanned: ScanResult) -> Result:
    """Evaluate the metrics of a scanned log."""
    tables = scanned.state.tables
    whole = [table for table in tables if not table.keys]
    total = whole[0] if whole else tables[0].total()
    groupings = [evaluate_table(evaluation, table, scanned.specs) for table in (total, *(t for t in tables if t.keys))]
    return Result(evaluation, groupings, scanned.state.ledger, skipped_parts(scanned.skipped), scanned.n_files)


def _chosen(
    grouping: GroupingValues, slices: int | None, sort: str | None, min_rows: int
) -> tuple[NDArray[np.int64], int]:
    """Return the slices to show, in order, and how many have rows enough."""
    n = np.max([column.n for column in grouping.columns], axis=0)
    order = grouping.order[n[grouping.order] >= min_rows]
    if sort is not None:
        values = next(column.values for column in grouping.columns if column.metric == sort)
        rank = np.where(values.undefined | np.isnan(values.value), -np.inf, values.value)
        by_value: NDArray[np.int64] = order[np.argsort(-rank[order], kind="stable")]
        return by_value[:slices], len(order)
    if slices is not None and len(order) > slices:
        largest: NDArray[np.int64] = order[np.argsort(-n[order], kind="stable")]
        return largest[:slices], len(order)
    return order, len(order)


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    return value
