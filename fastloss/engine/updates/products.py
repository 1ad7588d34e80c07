"""Sums of products of features with a loss's derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastloss.engine.device import Device
from fastloss.engine.features import Feature
from fastloss.engine.slices import UsedRows
from fastloss.engine.updates.base import Update
from fastloss.errors import UsageError
from fastloss.metrics.quantities import FeatureDerivatives
from fastloss.states.products import FeatureProducts, FeatureProductsColumn
from fastloss_kernels.exact_sum import BLOCK_ROWS

# So many numbers are widened at a time: they stay in a core's cache.
_CHUNK_NUMBERS = 1 << 16
_MOST_COLUMNS = 4096


def make_feature_products_update(spec: FeatureProducts, device: Device) -> Update:
    """Make the update of sums of products of features; slices have none."""
    quantity = spec.quantity
    assert isinstance(quantity, FeatureDerivatives)

    def update(rows: UsedRows, columns: Sequence[FeatureProductsColumn]) -> None:
        features = [rows.features[name] for name in quantity.features]
        for column, is_total in zip(columns, rows.arrangement.is_total, strict=True):
            if is_total:
                _add(quantity, rows, features, column, device)

    return update


def _add(
    quantity: FeatureDerivatives,
    rows: UsedRows,
    features: Sequence[Feature],
    column: FeatureProductsColumn,
    device: Device,
) -> None:
    residual, curvature = rows.weighted_derivatives(quantity.evaluation)
    chosen = rows.arrangement.rows
    for number, feature in enumerate(features):
        if feature.null is not None:
            column.n_null[number] += np.count_nonzero(feature.null if chosen is None else feature.null[chosen])
    widths = [feature.width for feature in features]
    if sum(widths) > _MOST_COLUMNS:
        raise UsageError(
            f"The features have {sum(widths):,} columns, those of lists counted; allowed: up to {_MOST_COLUMNS:,}. "
            "Name fewer."
        )
    factors, accumulators = column.prepare(widths, rows.n_rows)
    if column.conflict is not None:
        return
    n_columns = column.n_columns
    chunk = max(1, min(rows.n_rows, max(BLOCK_ROWS, _CHUNK_NUMBERS // n_columns)))
    with rows.workspace.scope():
        block = rows.workspace.floats(n_columns * chunk).reshape(n_columns, chunk)
        scaled = rows.workspace.floats(2 * n_columns * BLOCK_ROWS).reshape(2 * n_columns, BLOCK_ROWS)
        exponents = np.empty((3 * n_columns, 2), dtype=np.int64)
        block[0] = 1.0
        loop = device.products.make_add_feature_products()
        for start in range(0, rows.n_rows, chunk):
            stop = min(start + chunk, rows.n_rows)
            first = 1
            for feature, width in zip(features, column.widths.tolist(), strict=True):
                some = block[first : first + width, : stop - start]
                if feature.width:
                    part = slice(start, stop) if chosen is None else chosen[start:stop]
                    np.copyto(some, feature.values[part].T)
                else:
                    some[:] = 0.0
                first += width
            n = stop - start
            loop(block, n, residual[start:stop], curvature[start:stop], factors, scaled, exponents, accumulators)
