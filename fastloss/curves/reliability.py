"""Reliability curves: what the bins of a calibration error hold."""

from __future__ import annotations

import numpy as np

from fastloss.curves.points import CurvePoints, Integers
from fastloss.metrics.calibration_error import CalibrationBins


def reliability_curves(bins: CalibrationBins, slices: Integers) -> CurvePoints:
    """Return the bins of some slices that have rows, from the lowest prediction up."""
    columns = {
        "low": bins.lower,
        "high": bins.upper,
        "n": bins.n,
        "weight": bins.weight,
        "mean_prediction": bins.mean_prediction,
        "mean_label": bins.mean_label,
        "wilson_low": bins.low,
        "wilson_high": bins.high,
    }
    filled = bins.weight[slices] > 0
    is_empty = ~filled.any(axis=1)
    # A slice without rows has one point without coordinates.
    told = filled.copy()
    told[is_empty, :1] = True
    places = np.nonzero(told)
    return CurvePoints(
        places[0].astype(np.int64, copy=False),
        {name: np.where(filled, values[slices], np.nan)[places] for name, values in columns.items()},
        np.where(is_empty, 1, 0),
    )
