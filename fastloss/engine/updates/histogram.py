"""Histograms of scores."""

from __future__ import annotations

from collections.abc import Sequence

from fastloss.engine.device import Device
from fastloss.engine.inputs import RowInputs
from fastloss.engine.slices import UsedRows
from fastloss.engine.updates.base import Update
from fastloss.states.histogram import ScoreHistogram, ScoreHistogramColumn, ScoreRows
from fastloss.states.sorted_scores import SortedScores, SortedScoresColumn


def make_histogram_update(spec: ScoreHistogram | SortedScores, device: Device) -> Update:
    """Make the update of a histogram of scores, or of all of them, as they stand in their column."""

    def update(rows: UsedRows, columns: Sequence[ScoreHistogramColumn | SortedScoresColumn]) -> None:
        inputs = rows.inputs
        assert isinstance(inputs, RowInputs)
        given = ScoreRows(inputs.score, inputs.label, rows.weight)
        for column, runs in zip(columns, rows.runs, strict=True):
            column.add(given, runs)

    return update
