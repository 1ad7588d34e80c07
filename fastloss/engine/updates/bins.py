"""Sums by bins of the prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastloss.engine.device import Device
from fastloss.engine.inputs import RowInputs
from fastloss.engine.slices import UsedRows
from fastloss.engine.updates.base import Update
from fastloss.engine.workspace import read_only
from fastloss.metrics.binning import edges_of
from fastloss.states.bins import BinnedSums, BinnedSumsColumn

Floats = NDArray[np.float64]


def make_bins_update(spec: BinnedSums, device: Device) -> Update:
    """Make the update of sums by bins."""

    def update(rows: UsedRows, columns: Sequence[BinnedSumsColumn]) -> None:
        inputs = rows.inputs
        assert isinstance(inputs, RowInputs)
        predicted = rows.predicted_means()
        edges = edges_of(spec.binning, spec.n_bins, rows.space)
        keys = _as_floats(inputs.score) if edges.of_scores else predicted
        label = _as_floats(inputs.label)
        weight = None if rows.weight is None else _as_floats(rows.weight)
        for column, runs in zip(columns, rows.runs, strict=True):
            column.add_rows(predicted, label, weight, keys, edges, runs)

    return update


def _as_floats(values: NDArray[np.generic]) -> Floats:
    return read_only(values.astype(np.float64, copy=False))
