"""Several sums over rows that one loop adds up. They are of the whole log; slices have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.engine.device import Device
from fastloss.engine.inputs import RowInputs
from fastloss.engine.slices import UsedRows
from fastloss.engine.updates.base import Update
from fastloss.engine.workspace import read_only
from fastloss.metrics.quantities import FitTerms
from fastloss.states.several_sums import SeveralSums, SeveralSumsColumn
from fastloss_kernels.calibration import features_of, log_loss

Integers = NDArray[np.int64]
# add(rows, accumulators): add the terms of the rows to each accumulator, int64 (n_sums, ACCUMULATOR_WORDS).
Add = Callable[[UsedRows, Integers], None]

_NO_WEIGHTS = read_only(np.empty(0))


def _fit_terms(quantity: FitTerms, device: Device) -> Add:
    coefficients = np.array(quantity.coefficients, dtype=np.float64)

    def add(rows: UsedRows, accumulators: Integers) -> None:
        inputs = rows.inputs
        assert isinstance(inputs, RowInputs)
        features = features_of(quantity.kind, rows.space)
        loop = device.linear.make_add_fit_sums(log_loss, features.of_score, features.constant)
        loop(
            *inputs.arguments, _NO_WEIGHTS if rows.weight is None else rows.weight, quantity.parameters,
            coefficients, quantity.wanted, accumulators,
        )  # fmt: skip

    return add


_ADDS: Mapping[type, Callable[[Any, Device], Add]] = {FitTerms: _fit_terms}


def make_several_sums_update(spec: SeveralSums, device: Device) -> Update:
    """Make the update of several sums over rows."""
    add = _ADDS[type(spec.quantity)](spec.quantity, device)

    def update(rows: UsedRows, columns: Sequence[SeveralSumsColumn]) -> None:
        assert rows.is_whole
        (column,) = columns
        add(rows, column.only_accumulators(rows.n_rows))

    return update
