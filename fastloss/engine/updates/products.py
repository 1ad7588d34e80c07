"""Sums of products of features with a loss's derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastloss.columns.base import NumberArray
from fastloss.engine.device import Device
from fastloss.engine.features import Feature
from fastloss.engine.slices import UsedRows
from fastloss.engine.updates.base import Update
from fastloss.errors import UsageError
from fastloss.metrics.quantities import FeatureDerivatives
from fastloss.states.base import Integers
from fastloss.states.products import FeatureProducts, FeatureProductsColumn
from fastloss_kernels.exact_sum import BLOCK_ROWS

_GATHERED_ROWS = 1 << 14
# Of many columns, fewer rows are summed at a time.
_SCRATCH_NUMBERS = 1 << 20
_FEWEST_ROWS = 64
_MOST_COLUMNS = 4096


def make_feature_products_update(spec: FeatureProducts, device: Device) -> Update:
    """Make the update of sums of products of features; slices have none."""
    quantity = spec.quantity
    assert isinstance(quantity, FeatureDerivatives)

    def update(rows: UsedRows, columns: Sequence[FeatureProductsColumn]) -> None:
        features = [feature for name in quantity.features if isinstance(feature := rows.features[name], Feature)]
        for column, is_total in zip(columns, rows.arrangement.is_total, strict=True):
            if is_total:
                _add(quantity, rows, features, column, device, spec.offsets)

    return update


def _add(
    quantity: FeatureDerivatives,
    rows: UsedRows,
    features: Sequence[Feature],
    column: FeatureProductsColumn,
    device: Device,
    offsets: tuple[float, ...],
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
    with rows.workspace.scope():
        block_rows = min(BLOCK_ROWS, max(_FEWEST_ROWS, _SCRATCH_NUMBERS // (3 * n_columns)))
        scratch = rows.workspace.floats(3 * n_columns * block_rows).reshape(3 * n_columns, block_rows)
        exponents = np.empty((3 * n_columns, 2), dtype=np.int64)
        loop = device.products.make_add_feature_products()
        # Rows that are chosen, or changed, are gathered a part at a time.
        step = max(1, rows.n_rows if chosen is None and not offsets else _GATHERED_ROWS)
        for start in range(0, rows.n_rows, step):
            stop = min(start + step, rows.n_rows)
            held = [
                _contiguous(feature.values[start:stop] if chosen is None else feature.values[chosen[start:stop]])
                for feature in features
            ]
            if offsets:
                held = _less(held, stop - start, column.widths, offsets)
            _observe(features, held, slice(start, stop) if chosen is None else chosen[start:stop], column)
            columns = _addresses(held, column.widths.tolist())
            r, c = residual[start:stop], curvature[start:stop]
            loop(columns, stop - start, r, c, factors, scratch, exponents, accumulators)


def _observe(
    features: Sequence[Feature], held: Sequence[NumberArray], chosen: Integers | slice, column: FeatureProductsColumn
) -> None:
    """Note the least and the greatest number of each column, and the numbers that lists lack."""
    first = 0
    for feature, values, width in zip(features, held, column.widths.tolist(), strict=True):
        null = None if feature.null_places is None else feature.null_places[chosen]
        for place in range(len(values)):
            column.observe(first + place, values[place], 0 if null is None else int(np.count_nonzero(null[:, place])))
        first += width


def _less(held: Sequence[NumberArray], n_rows: int, widths: Integers, offsets: tuple[float, ...]) -> list[NumberArray]:
    """Return numbers less the offsets of their columns, also those of lists that are all null."""
    parts = np.split(np.array(offsets), np.cumsum(widths)[:-1])
    return [
        (values if len(values) else np.zeros((len(part), n_rows))) - part[:, None] if part.any() else values
        for values, part in zip(held, parts, strict=True)
    ]


def _contiguous(values: NumberArray) -> NumberArray:
    """Return numbers by row and place as arrays by place and row."""
    return np.ascontiguousarray(values.T)


def _addresses(held: Sequence[NumberArray], widths: Sequence[int]) -> Integers:
    """Return where the numbers of each column begin, and the bytes of one; zeros where no list was seen."""
    columns = []
    for values, width in zip(held, widths, strict=True):
        first, size = values.ctypes.data, values.itemsize
        columns += [
            (first + place * values.shape[1] * size, size) if len(values) else (0, 0) for place in range(width)
        ]
    return np.array(columns, dtype=np.int64).reshape(-1, 2)
