"""The result of an evaluation: values with their evidence, as table, dict, JSON, Arrow and Polars."""

from __future__ import annotations

import contextlib
import copy
import datetime
import decimal
import importlib.util
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args, overload

import numpy as np

from fastloss._version import __version__
from fastloss.curves.thinning import FEWEST_POINTS
from fastloss.errors import UsageError, nearest_names
from fastloss.groups import GroupsFound
from fastloss.metrics.choice import Choice
from fastloss.metrics.curves import check_one_binning
from fastloss.metrics.evaluate import GroupingValues, GroupTable, ModelValues, evaluate_table, with_groups
from fastloss.metrics.names import name_among, parse_metric
from fastloss.metrics.resolve import Evaluation
from fastloss.report.content import DEFAULT_SLICES, dropped_rows, skipped_parts
from fastloss.report.curves import DEFAULT_POINTS, curve_table
from fastloss.report.formats import FORMATS
from fastloss.report.view import View
from fastloss.scan import Pruned, ScanResult
from fastloss.states.causes import OF_SOME_METRICS
from fastloss.states.inputs import STREAM
from fastloss.states.ledger import Ledger
from fastloss.words import CurveName

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SCHEMA_VERSION = 1
CURVES = get_args(CurveName)
# So many points of a curve are printed; of more, the first and the last.
_SHOWN = 30


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


@dataclass(frozen=True, repr=False)
class Curve:
    """The points of a kind of curve, for models and slices: a table.

    Attributes
    ----------
    kind : str
        ``"roc"``, ``"precision_recall"``, ``"gain"`` or ``"reliability"``.
    table : pyarrow.Table
        A row for each point.
    """

    kind: str
    table: pa.Table

    def to_arrow(self) -> pa.Table:
        """Return the points as an Arrow table."""
        return self.table

    def to_polars(self) -> pl.DataFrame:
        """Return the points as a Polars frame."""
        import polars as pl

        frame = pl.from_arrow(self.table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_pandas(self) -> Any:
        """Return the points as a pandas frame."""
        _pandas()
        return self.table.to_pandas()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the points as other libraries take them."""
        return self.table.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        """Return how many points there are."""
        return int(self.table.num_rows)

    def __str__(self) -> str:
        """Return the points as a text table, of many the first and the last."""
        from fastloss.report.table import write_table

        rows = self.table
        if rows["reason"].null_count == len(self):
            rows = rows.drop_columns("reason")
        if len(self) <= _SHOWN:
            return write_table(rows)
        ends = np.concatenate((np.arange(10), np.arange(len(self) - 10, len(self))))
        lines = write_table(rows.take(ends)).splitlines()
        return "\n".join([*lines[:11], f"… {len(self) - 20:,} points …", *lines[11:]])

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return f"<fastloss.Curve {self.kind} of {len(self):,} points>"


class Result:
    """The result of `fastloss.evaluate`.

    ``result["log_loss"]`` is the total's value: a float for a single model, else a dict by model.
    ``result["log_loss", {"country": "DE"}]`` is that of a slice. `values` lists everything: first the total, then the
    slices of each grouping in the order they were asked for. `edges` has the edges of each column of quantiles.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        groupings: Sequence[GroupingValues],
        ledger: Ledger,
        skipped: Sequence[Mapping[str, Any]],
        n_files: int | None,
        unchecked_streams: int = 0,
        pruned: Pruned | None = None,
        edges: Mapping[str, Sequence[float]] | None = None,
        groups: Sequence[GroupsFound] = (),
    ) -> None:
        self.asked = evaluation.asked()
        self.fingerprint = evaluation.fingerprint
        self.conventions = evaluation.said
        self.key_types = {key: evaluation.types[key].name for key in evaluation.request.keys}
        self.groupings = list(groupings)
        self.values = Values(self.groupings)
        self.edges = {column: list(found) for column, found in (edges or {}).items()}
        self._ledger = ledger
        self.groups = {found.group.name: _counts_of_groups(found) for found in groups}
        self._models = [model.name for model in evaluation.models]
        # Metrics of lists each use the lists that they can.
        self._rows_by_metric = len({spec.rows.needs for spec in evaluation.specs if spec.rows.is_used}) > 1
        self.files: dict[str, Any] = {"read": n_files, "skipped": [dict(part) for part in skipped]}
        if pruned is not None and any(pruned):
            self.files["pruned"] = {"files": pruned.files, "row_groups": pruned.row_groups}
        if unchecked_streams:
            self.files["unchecked_streams"] = unchecked_streams

    def __getitem__(self, asked: str | tuple[str, Mapping[str, Any]]) -> float | dict[str, float | None] | None:
        """Return a metric's value, by model where there are several: of the total, or of a slice given by its keys."""
        metric, keys = (asked, {}) if not isinstance(asked, tuple) or len(asked) != 2 else asked
        if not isinstance(metric, str) or not isinstance(keys, Mapping):
            raise UsageError(
                f"A result is asked for {asked!r}; allowed: the name of a metric, such as 'log_loss', and of a slice "
                "its keys, too: result['log_loss', {'country': 'DE'}]."
            )
        found = self._values_of(metric, *self._find(keys))
        if not found:
            raise UsageError(f"The result has no metric {metric!r}. {nearest_names(metric, self.metrics)}")
        return found if len(self._models) > 1 else found[self._models[0]]

    def _grouping(self, keys: Sequence[str]) -> GroupingValues:
        """Return the grouping that has these keys, in any order."""
        grouping = next((g for g in self.groupings if set(g.keys) == set(keys)), None)
        if grouping is None:
            known = ", ".join(repr(g.keys) for g in self.groupings[1:]) or "none"
            raise UsageError(f"The result has no slices by {tuple(keys)!r}; it has slices by: {known}.")
        return grouping

    def _find(self, keys: Mapping[str, Any]) -> tuple[GroupingValues, int]:
        """Return the grouping that has these keys, and the position of the slice in it."""
        grouping = self._grouping(tuple(keys))

        def is_asked(position: int) -> bool:
            return all(_is_key(found, keys[name]) for name, found in grouping.key_at(position).items())

        position = 0 if not keys else next(filter(is_asked, grouping.order.tolist()), None)
        if position is None:
            raise UsageError(f"The result has no slice {dict(keys)!r}; `values` lists those that it has.")
        return grouping, position

    def __contains__(self, metric: object) -> bool:
        """Tell whether a metric was computed; any spelling of its name will do."""
        return isinstance(metric, str) and bool(self._values_of(metric, self.groupings[0], 0))

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return list(self._models)

    @property
    def metrics(self) -> list[str]:
        """The names of what was computed."""
        return list(dict.fromkeys(column.metric for column in self.groupings[0].columns))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of what was computed."""
        return iter(self.metrics)

    def _values_of(self, metric: str, grouping: GroupingValues, position: int) -> dict[str, float | None]:
        try:
            metric = name_among(metric, self.metrics)
        except UsageError:
            return {}
        return {c.model: value_at(grouping, position, c).value for c in grouping.columns if c.metric == metric}

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
        n_rows = self.groupings[0].n_rows
        if n_rows is not None:
            used |= {model: int(n[0]) for model, n in n_rows.items()}
        for column in self.groupings[0].columns if n_rows is None else ():
            used[column.model] = max(used[column.model], int(column.n[0]))
        return {
            "read": ledger.n_read,
            **({"filtered": ledger.n_filtered} if "where" in self.asked else {}),
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
            **({"group_counts": self.groups} if self.groups else {}),
            **({"edges": self.edges} if self.edges else {}),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**self._head(), "values": [value.to_dict() for value in self.values]}

    def to_json(self, indent: int | None = None) -> str:
        """Return everything as one JSON object; floats read back to the same bits, NaN and ±inf are strings."""
        return "".join(self.json_parts(indent))

    def json_parts(self, indent: int | None = None) -> Iterator[str]:
        """Yield the text of `to_json` in parts, so that millions of values need not be held as text."""

        def text(plain: Any) -> str:
            return json.dumps(_jsonable(plain), indent=indent, ensure_ascii=False, allow_nan=False)

        line = " " if indent is None else f"\n{indent * ' '}"
        between = "" if indent is None else f"\n{2 * indent * ' '}"
        yield f'{text(self._head())[:-1].rstrip()},{line}"values": ['
        for number, value in enumerate(self.values):
            # A text of JSON holds no line end.
            yield f"{',' * (number > 0)}{between or ' ' * (number > 0)}" + text(value.to_dict()).replace("\n", between)
        yield "]}" if indent is None else f"{line}]\n}}"

    def shown(
        self, slices: int | None = DEFAULT_SLICES, *, sort: str | None = None, min_rows: int = 0
    ) -> dict[str, Any]:
        """Return what a report shows, as plain values.

        Parameters
        ----------
        slices : int or None
            How many slices of each grouping to show; None for all. Where there are more, those with the most rows.
        sort : str, optional
            Order slices by this metric of the first model, the largest first, or by their rows ("n"); left out, by
            their keys.
        min_rows : int
            Leave out slices of fewer rows.
        """
        sort = sorting_metric(sort, self.metrics)
        groupings = []
        for grouping in self.groupings[1:]:
            chosen, n_large = Choice(slices, sort, min_rows).of(grouping)
            groupings.append(
                {
                    "keys": list(grouping.keys),
                    "n_slices": grouping.n_slices if grouping.counted is None else grouping.counted.n_slices,
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

    def selected(self, slices: int | None = None, *, sort: str | None = None, min_rows: int = 0) -> Result:
        """Return a result of some slices alone, in another order; the parameters are those of `shown`."""
        sort = sorting_metric(sort, self.metrics)
        chosen = copy.copy(self)
        chosen.groupings = [
            replace(grouping, order=Choice(slices, sort, min_rows).of(grouping)[0]) if grouping.keys else grouping
            for grouping in self.groupings
        ]
        chosen.values = Values(chosen.groupings)
        return chosen

    def to_arrow(self, *, wide: bool = False) -> pa.Table:
        """Return the values as an Arrow table.

        Parameters
        ----------
        wide : bool
            A row for each slice and model, and a column for each metric and for the threshold of those that have one
            (``"ks.threshold"``); otherwise a row for each value with its evidence. Each slice key has a column in its
            own type, null where a key is not part.
        """
        from fastloss.report.arrow import to_arrow

        return to_arrow(self.groupings, self.key_types, wide=wide)

    def to_polars(self, *, wide: bool = False) -> pl.DataFrame:
        """Return the values as a Polars frame, with the columns of `to_arrow`."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow(wide=wide))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def to_pandas(self, *, wide: bool = False) -> Any:
        """Return the values as a pandas frame, with the columns of `to_arrow`."""
        pandas = _pandas()

        def mapped(kind: pa.DataType) -> Any:
            # Integers beside nulls would become floats, which hold none beyond 2**53.
            nullable = re.fullmatch(r"(u?)(int\d+)", str(kind))
            return nullable and pandas.api.types.pandas_dtype(nullable[1].upper() + nullable[2].capitalize())

        return self.to_arrow(wide=wide).to_pandas(types_mapper=mapped)

    def curve(
        self,
        kind: CurveName,
        *,
        model: str | None = None,
        slice: Mapping[str, Any] | None = None,
        by: str | Sequence[str] | None = None,
        points: int | None = DEFAULT_POINTS,
        metric: str | None = None,
    ) -> Curve:
        """Return a curve of every model as a table: of the total, of one slice, or of all slices of a grouping.

        Parameters
        ----------
        kind : {"roc", "precision_recall", "gain", "reliability"}
            What is drawn. The rows whose score is the threshold or above it are taken in the first three.

            - ``"roc"``: false_positive_rate and true_positive_rate, from (0, 0), where no row is taken, to (1, 1);
            - ``"precision_recall"``: recall and precision, from the highest score on; the area below is one of steps,
              each as wide as the recall that its point adds;
            - ``"gain"``: weight_share, of all rows, and positive_share, with lift, which is their quotient;
            - ``"reliability"``: the bins of a calibration error that have rows, each from low to high, with n, weight,
              mean_prediction, mean_label, and Wilson's interval of the latter at 95 %.
        model : str, optional
            This model alone.
        slice : mapping of str to object, optional
            The keys of one slice: ``{"country": "DE"}``.
        by : str or sequence of str, optional
            The keys of a grouping, for all of its slices.
        points : int or None
            The most points of each curve, at least 3; None for all of them, one for each bucket of scores.
        metric : str, optional
            The metric whose bins a reliability curve shows; it may be left out where all have the same.

        Returns
        -------
        Curve
            A table in order of slice, model and falling threshold, which is a score as the column holds it. A slice's
            keys are columns before the coordinates. `area_error` is the most area that lies between the curve drawn
            through the points (straight; steps for precision and recall) and that of all rows: what thinning leaves
            out, and what may be hidden inside a bucket of several scores. A curve that is not defined is one row of
            nulls with its reason.

        Raises
        ------
        UsageError
            If no metric of the result keeps what the curve is drawn from, or there is no such curve, model or slice.
        """
        if kind not in CURVES:
            raise UsageError(f"A curve is {kind!r}; allowed: {' or '.join(map(repr, CURVES))}.")
        if model is not None and model not in self._models:
            raise UsageError(f"The result has no model {model!r}. {nearest_names(str(model), self._models)}")
        if points is not None and (isinstance(points, bool) or not isinstance(points, int) or points < FEWEST_POINTS):
            raise UsageError(f"points is {points!r}; allowed: a whole number from {FEWEST_POINTS}, or None for all.")
        grouping = self.groupings[0]
        if slice is not None:
            if not isinstance(slice, Mapping):
                raise UsageError(f"slice is {slice!r}; allowed: the keys of one slice, such as {{'country': 'DE'}}.")
            if by is not None:
                raise UsageError("A curve is asked for slice= and by=; give one of them.")
            grouping, position = self._find(slice)
            grouping = replace(grouping, order=np.array([position]))
        elif by is not None:
            grouping = self._grouping((by,) if isinstance(by, str) else by)
        models = self._models if model is None else [model]
        if not (grouping.bins if kind == "reliability" else grouping.histograms):
            what, keeping = ("bins", "expected_calibration_error") if kind == "reliability" else ("scores", "roc_auc")
            raise UsageError(
                f"A curve {kind!r} is drawn from {what}, and no metric here keeps them; ask for one that does, such "
                f"as {keeping!r}, or for curves={kind!r}."
            )
        if metric is not None:
            metric = parse_metric(metric).name
            if kind != "reliability" or metric not in grouping.bins:
                known = ", ".join(map(repr, grouping.bins)) if kind == "reliability" else "none for this kind of curve"
                raise UsageError(f"metric is {metric!r}, which has no bins here; allowed: {known}.")
        elif kind == "reliability":
            check_one_binning([parse_metric(name) for name in grouping.bins], "choose one by metric=.")
        return Curve(kind, curve_table(kind, [grouping], models, self.key_types, points, metric))

    def to_csv(self) -> str:
        """Return the values as CSV, with the columns of `to_arrow`."""
        return self._written("csv")

    def to_markdown(self) -> str:
        """Return the total and all slices as tables in Markdown."""
        return self._written("markdown")

    def _written(self, name: str) -> str:
        return f"{FORMATS[name].write(self, View(), as_file=True)!s}\n"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from fastloss.report.html import render_html

        return render_html(self.shown())

    def __str__(self) -> str:
        """Return the result as a text table."""
        from fastloss.report.table import render

        return render(self.shown())

    def __repr__(self) -> str:
        """Return a one-line summary."""
        return f"<fastloss.Result of {self._ledger.n_read:,} rows: {len(self.values)} values>"


def _pandas() -> Any:
    if importlib.util.find_spec("pandas") is None:
        raise UsageError("pandas is not installed, and to_pandas needs it; to_polars and to_arrow do without it.")
    return importlib.import_module("pandas")


def _counts_of_groups(found: GroupsFound) -> dict[str, Any]:
    """Return how many groups there are, how many are left out, by cause, and how many rows have no key."""
    ledger = found.state.ledger
    dropped = [
        {"cause": cause.name, "column": cause.column, "role": cause.role, "groups": count}
        for cause, count in sorted(ledger.dropped.items())
    ]
    for entry in dropped:
        if entry["cause"] in OF_SOME_METRICS:
            entry["metrics"] = "some"
    return {
        "groups": ledger.n_read,
        "dropped": dropped,
        **({"rows_of_null_key": found.n_null} if found.n_null else {}),
    }


def _is_key(found: Any, asked: Any) -> bool:
    """Tell whether a slice's key is the one asked for: as the result writes it, or as a value of its own type."""
    if isinstance(found, str) and isinstance(asked, datetime.date | decimal.Decimal):
        with contextlib.suppress(ValueError, decimal.InvalidOperation):
            if isinstance(asked, decimal.Decimal):
                return decimal.Decimal(found) == asked
            return type(asked).fromisoformat(found) == asked
        return False
    return bool(found == asked)


def result_of(evaluation: Evaluation, scanned: ScanResult) -> Result:
    """Evaluate the metrics of a scanned log."""
    tables = scanned.state.tables
    whole = [table for table in tables if not table.keys]
    total = whole[0] if whole else tables[0].total()
    sliced = [table for table in tables if table.keys]
    groupings = [evaluate_table(evaluation, total, scanned.specs, sliced)]
    of_slices = {table.keys: evaluate_table(evaluation, table, scanned.specs) for table in sliced} | scanned.gathered
    groupings += [of_slices[keys] for keys in (evaluation.request.by if scanned.gathered else of_slices)]
    if scanned.groups:
        of_keys = [_tables_by_keys(found) for found in scanned.groups]
        groupings = [
            with_groups(evaluation, values, table, scanned.specs, [tables[table.keys] for tables in of_keys])
            for values, table in zip(groupings, [total, *sliced], strict=True)
        ]
    inputs = scanned.state.inputs
    # One alone has nothing to overlap with.
    unchecked = sum(found == STREAM for found in inputs.values()) if len(inputs) > 1 else 0
    skipped = skipped_parts(scanned.skipped)
    return Result(
        evaluation,
        groupings,
        scanned.state.ledger,
        skipped,
        scanned.n_files,
        unchecked,
        scanned.pruned,
        scanned.edges,
        scanned.groups,
    )


def _tables_by_keys(found: GroupsFound) -> dict[tuple[str, ...], GroupTable]:
    """Return the statistics of groups by the keys of their slices, the total among them."""
    tables = {table.keys: table for table in found.state.tables}
    if () not in tables:
        tables[()] = found.state.tables[0].total()
    return {keys: GroupTable(found.group, table) for keys, table in tables.items()}


def sorting_metric(given: str | None, computed: Sequence[str]) -> str | None:
    """Return what slices are sorted by: one of the metrics that are computed, or "n"."""
    if given is None or given == "n":
        return given
    name = name_among(given, computed)
    if name not in computed:
        known = ", ".join(computed)
        raise UsageError(f"Slices cannot be sorted by {name}, which is not computed; computed are {known}, and n.")
    return name


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    return value
