"""Curves of a result as tables: the keys and the model of each point, its coordinates, and how much is left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fastloss.curves.points import REASONS, CurvePoints
from fastloss.curves.ranked import ranked_curves
from fastloss.curves.reliability import reliability_curves
from fastloss.metrics.evaluate import GroupingValues
from fastloss.report.arrow import joined, key_array

# The most points of a curve where nobody says how many.
DEFAULT_POINTS = 200


def curve_table(
    kind: str,
    groupings: Sequence[GroupingValues],
    models: Sequence[str],
    key_types: Mapping[str, str],
    points: int | None,
    metric: str | None = None,
) -> pa.Table:
    """Return the curves of all slices of some groupings, in their order.

    Parameters
    ----------
    kind : str
        The kind of curve.
    groupings : sequence of GroupingValues
        The slices.
    models : sequence of str
        The models.
    key_types : mapping of str to str
        The Arrow type of each slice key's column in the log.
    points : int or None
        The most points of each curve; None for all. A reliability curve has all of its bins.
    metric : str, optional
        The metric whose bins are a reliability curve; left out, the first that keeps bins.
    """
    keys = list(dict.fromkeys(key for grouping in groupings for key in grouping.keys))
    parts: dict[str, list[pa.Array]] = {}

    def add(name: str, array: pa.Array) -> None:
        parts.setdefault(name, []).append(array)

    for grouping in groupings:
        found = [_points_of(kind, grouping, model, points, metric) for model in models]
        model_of = np.repeat(np.arange(len(models)), [len(curves.slices) for curves in found])
        slices = np.concatenate([curves.slices for curves in found])
        # By slice and model; the points of a curve stay in order.
        order = np.lexsort((model_of, slices))
        add("model", pa.array(models, pa.string()).take(pa.array(model_of[order])))
        if len(groupings) > 1:
            add("slice", pa.repeat(" × ".join(grouping.keys), len(order)))
        for key in keys:
            if key in grouping.keys:
                column = grouping.key_columns[grouping.keys.index(key)]
                add(f"slice.{key}", key_array(column, grouping.order[slices[order]], key_types.get(key, "")))
            else:
                add(f"slice.{key}", pa.nulls(len(order)))
        for name in found[0].columns:
            numbers = _numbers(np.concatenate([curves.columns[name] for curves in found])[order])
            add(name, numbers.cast(pa.int64()) if name == "n" else numbers)
        errors = [curves.area_error[curves.slices] for curves in found if curves.area_error is not None]
        if errors:
            add("area_error", _numbers(np.concatenate(errors)[order]))
        reasons = np.concatenate([curves.reasons[curves.slices] for curves in found])[order]
        add("reason", pa.array(REASONS, pa.string()).take(pa.array(reasons, mask=reasons == 0)))
    return pa.table({name: joined(arrays) for name, arrays in parts.items()})


def _points_of(kind: str, grouping: GroupingValues, model: str, points: int | None, metric: str | None) -> CurvePoints:
    if kind != "reliability":
        return ranked_curves(kind, grouping.histograms[model], grouping.order, points)
    bins = grouping.bins[next(iter(grouping.bins)) if metric is None else metric]
    return reliability_curves(bins[model](), grouping.order)


def _numbers(values: np.ndarray[Any, Any]) -> pa.Array:
    """Return numbers, null where they are NaN."""
    missing = np.isnan(values) if values.dtype.kind == "f" else None
    return pa.array(values, mask=missing)
