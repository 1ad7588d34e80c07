"""Sums by category of rows that have any number of categories each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastloss.engine.device import Device
from fastloss.engine.features import FeatureSet
from fastloss.engine.slices import UsedRows
from fastloss.engine.updates.base import Update
from fastloss.metrics.quantities import LossGradient
from fastloss.states.categories import CategorySums, CategorySumsColumn


def make_category_sums_update(spec: CategorySums, device: Device) -> Update:
    """Make the update of the sums of gradient, hessian and squared gradient by category; slices have none."""
    gradient = spec.quantities[0]
    assert isinstance(gradient, LossGradient)

    def update(rows: UsedRows, columns: Sequence[CategorySumsColumn]) -> None:
        residual, curvature = rows.weighted_derivatives(gradient.evaluation)
        found = rows.features[spec.column]
        assert isinstance(found, FeatureSet)
        of_rows, codes = found.rows, found.keys.codes
        if rows.arrangement.rows is not None:
            place = np.full(rows.arrangement.n_batch_rows, -1)
            place[rows.arrangement.rows] = np.arange(rows.n_rows)
            used = place[of_rows] >= 0
            of_rows, codes = place[of_rows[used]], codes[used]
        terms = (residual, curvature, residual * residual)
        for column, is_total in zip(columns, rows.arrangement.is_total, strict=True):
            if is_total:
                column.add(terms, of_rows, codes, found.keys)

    return update
