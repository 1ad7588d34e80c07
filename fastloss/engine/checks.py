"""Checks of columns of one number a row; and the messages of refusals, for lists too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fastloss.columns.base import Batch, NumberArray, Numbers
from fastloss.engine.device import Device
from fastloss.engine.features import Feature, FeatureChecks, FeatureSet
from fastloss.engine.inputs import Inputs, RowInputs
from fastloss.engine.selection import Mask, Selection
from fastloss.engine.workspace import read_only
from fastloss.errors import DataError
from fastloss.metrics.base import ModelFacts
from fastloss.metrics.resolve import Evaluation
from fastloss.states import causes
from fastloss.states.base import RowSet
from fastloss.states.causes import Cause
from fastloss.states.ledger import Ledger, Location, Place
from fastloss_kernels.domain import SPACES, Interval

_LARGEST = float(np.finfo(np.float64).max)
_SMALLEST = 5e-324


@dataclass
class ModelRows:
    """The rows of a batch that one model uses.

    Attributes
    ----------
    inputs : RowInputs or ListInputs
        All rows of the batch.
    keep : mapping of RowSet to numpy.ndarray of bool, or None
        The rows of each set that statistics are kept of; None for all.
    may_saturate : bool
        Whether a loss of some row may be clipped or infinite.
    """

    inputs: Inputs
    keep: dict[RowSet, Mask | None]
    may_saturate: bool


@dataclass
class CheckedBatch:
    """The numbers of a batch, and which of its rows can be used.

    Attributes
    ----------
    weight : numpy.ndarray or None
        The rows' weights; None where each weighs 1.
    models : list of ModelRows
        What each model reads.
    features : mapping of str to Feature or FeatureSet
        The features, where a metric reads them.
    usable : numpy.ndarray of bool, or None
        The rows that could be used, whatever their predictions are; None for all.
    """

    weight: NumberArray | None
    models: list[ModelRows]
    features: Mapping[str, Feature | FeatureSet] = field(default_factory=dict)
    usable: Mask | None = None


class Checks(Protocol):
    """Reads the columns of a batch and leaves out the rows that cannot be used."""

    def check(self, ledger: Ledger, batch: Batch, place: Place) -> CheckedBatch:
        """Return a batch's numbers; each row that is left out is counted in the ledger."""


class WeightChecks:
    """The checks of weights, which rows and lists share."""

    def __init__(self, evaluation: Evaluation, device: Device) -> None:
        self._name = evaluation.request.weight
        self._count_outside = device.sums.make_count_outside()

    def check(self, usable: Selection, batch: Batch) -> tuple[NumberArray | None, Mask | None]:
        """Return the weights, and the rows that are left out for nothing but a weight of 0 (None: none)."""
        name = self._name
        if name is None:
            return None, None
        weight, valid = batch.numbers(name)
        usable.drop_null(valid, Cause(causes.NULL_WEIGHT, name, "weight"))
        n_nan, n_outside = self._count_outside(weight, _SMALLEST, _LARGEST)
        if n_nan:
            usable.drop(np.isnan(weight), Cause(causes.NAN, name, "weight"), weight)
        if n_outside:
            usable.drop(weight < 0.0, Cause(causes.NEGATIVE_WEIGHT, name, "weight"), weight)
            usable.drop(np.isinf(weight), Cause(causes.INFINITE_WEIGHT, name, "weight"), weight)
            zero_weight: Mask = weight == 0.0
            if usable.keep is not None:
                zero_weight &= usable.keep
            if zero_weight.any():
                usable.drop(zero_weight, Cause(causes.ZERO_WEIGHT, name, "weight"), weight)
                return weight, zero_weight
        return weight, None


class RowChecks:
    """The checks of columns of one number a row."""

    def __init__(self, evaluation: Evaluation, device: Device) -> None:
        self._evaluation = evaluation
        self._count_outside = device.sums.make_count_outside()
        self._weights = WeightChecks(evaluation, device)
        self._features = FeatureChecks(evaluation.features, evaluation.feature_sets, device)
        self._label_range = evaluation.column_label_range
        self._mapped = {mapped.name: mapped for mapped in evaluation.request.mapped or ()}

    def check(self, ledger: Ledger, batch: Batch, place: Place) -> CheckedBatch:
        """Return a batch's numbers; each row that is left out is counted in the ledger."""
        evaluation = self._evaluation
        usable = Selection(ledger, place)
        weight, zero_weight = self._weights.check(usable, batch)
        label = self._labels(usable, batch)
        features = self._features.check(usable, batch, place)
        models = []
        predictions = _Predictions()
        for model, allowed in zip(evaluation.models, evaluation.prediction_ranges, strict=True):
            score, valid = batch.numbers(model.column)
            # One pass usually shows that all is well: the range in which nothing saturates is the narrower one.
            low, high = evaluation.conventions.unsaturated(model.space, model.column)
            n_nan, n_outside = self._count_outside(score, max(low, allowed.bounds[0]), min(high, allowed.bounds[1]))
            within = usable
            if model.column in self._mapped and (n_nan or valid is not None):
                # A map makes null of null and NaN of a bad number: what is told is the number that is stored.
                mapped = self._mapped[model.column]
                stored, space = batch.numbers(mapped.column), Interval(*SPACES[mapped.space])
                found = self._count_outside(stored.values, *space.bounds)
                within = predictions.select(usable, mapped.column, mapped.space, space, stored, found)
            read = Numbers(score, valid)
            keep = predictions.select(within, model.column, model.space, allowed, read, (n_nan, n_outside)).keep
            rows: dict[RowSet, Mask | None] = {model.rows(): keep}
            if zero_weight is not None:
                rows[model.zero_weight_rows] = zero_weight
            models.append(ModelRows(RowInputs(score, label), rows, n_outside > 0))
        return CheckedBatch(weight, models, features, usable.keep)

    def _labels(self, usable: Selection, batch: Batch) -> NumberArray:
        name = self._evaluation.request.label_column
        label, valid = batch.numbers(name)
        usable.drop_null(valid, Cause(causes.NULL_LABEL, name, "label"))
        n_nan, n_outside = self._count_outside(label, *self._label_range.bounds)
        if n_nan:
            usable.drop(np.isnan(label), Cause(causes.NAN, name, "label"), label)
        _drop_outside(usable, label, Cause(causes.OUTSIDE_DOMAIN, name, "label"), n_outside, self._label_range)
        if self._evaluation.label_domain == "pm1":
            return read_only(0.5 * label.astype(np.float64) + 0.5)
        return label


class _Predictions:
    """The rows of a batch whose predictions can be used. Models may read one column: what it drops is counted once."""

    def __init__(self) -> None:
        self._of_column: dict[str, Selection] = {}
        self._of_space: dict[tuple[str, str, Interval], Selection] = {}

    def select(
        self, within: Selection, column: str, space: str, allowed: Interval, numbers: Numbers, n_bad: tuple[int, int]
    ) -> Selection:
        """Return the rows of a column; `n_bad` is how many of its numbers are NaN, and are or may be outside."""
        n_nan, n_outside = n_bad
        if column not in self._of_column:
            own = self._of_column[column] = within.copy()
            own.drop_null(numbers.valid, Cause(causes.NULL_PREDICTION, column, space))
            if n_nan:
                own.drop(np.isnan(numbers.values), Cause(causes.NAN, column, space), numbers.values)
        if (column, space, allowed) not in self._of_space:
            own = self._of_space[column, space, allowed] = self._of_column[column].copy()
            _drop_outside(own, numbers.values, Cause(causes.OUTSIDE_DOMAIN, column, space), n_outside, allowed)
        return self._of_space[column, space, allowed]


def _drop_outside(selection: Selection, values: NumberArray, cause: Cause, n_outside: int, allowed: Interval) -> None:
    if n_outside:
        # NumPy would round a Python float to the column's float32 before it compares.
        low, high = map(np.float64, allowed.bounds)
        selection.drop((values < low) | (values > high), cause, values)
    if allowed.without_zero:
        selection.drop(values == 0.0, cause, values)


def refuse_bad_rows(evaluation: Evaluation, ledger: Ledger) -> None:
    """Raise a DataError if the ledger of a task holds a bad row and the request does not drop bad rows."""
    bad = ledger.bad()
    if evaluation.request.on_bad_row != "raise" or not bad:
        return
    first = min(bad, key=lambda cause: ledger.first[cause].order)
    count = sum(bad.values())
    kind = "group" if ledger.first[first].row < 0 else "row"
    rows = f"{count:,} bad {kind}{'s' if count > 1 else ''} in this part"
    text = _describe(evaluation, first, ledger.first[first])
    raise DataError(f"{text} {rows}; on_bad_row='drop' leaves such {kind}s out and counts them.")


def _describe(evaluation: Evaluation, cause: Cause, place: Location) -> str:
    role, hint, request = cause.role, "", evaluation.request
    if cause.name in causes.LIST_FAULTS:
        return f"{place.describe()}: column {cause.column!r} {causes.LIST_FAULTS[cause.name]}."
    if role == "weight":
        allowed = "finite numbers from 0"
    elif role == "feature":
        allowed = "finite numbers, and null, which counts as 0"
    elif role == "label":
        labels = evaluation.column_label_range
        allowed = labels.describe("label")
        if evaluation.label_is_index:
            allowed = "the index of one of the list's candidates, from 0"
        elif place.value == -1.0 and 1.0 in labels and 2.0 not in labels:
            hint = " If labels are -1 and +1, use label_domain='pm1'."
        if place.value == 0.0 and evaluation.label_domain == "pm1":
            hint = " If labels are 0 and 1, leave out label_domain='pm1'."
    else:
        # The numbers of a column that is mapped are those of their space.
        ranges = {(mapped.column, mapped.space): Interval(*SPACES[mapped.space]) for mapped in request.mapped or ()}
        of_models = zip(evaluation.models, evaluation.prediction_ranges, strict=True)
        ranges |= {(model.column, model.space): own for model, own in of_models}
        allowed = ranges[cause.column, role].describe(role)
        if role == "logit" and abs(place.value or 0.0) == math.inf:
            # Calibration alone refuses one.
            allowed = "finite logits"
            hint = (
                f" No map moves an infinite logit; a filter such as where='abs({cause.column}) < 1e300' leaves it out."
            )
        if role == "prob":
            hint = " If these are logits, declare them logit=."
    return f"{place.describe()}: {role} column {cause.column!r} is {place.value!r}; allowed: {allowed}.{hint}"


def saturation_error(place: Place, row: int, model: ModelFacts, loss: str, found: str) -> DataError:
    """Return the error of a saturated row of the batch at `place`, where the request forbids such rows."""
    where = place.location(row).describe()
    # An infinite logit is never clipped.
    choices = "'exact'" if model.space == "logit" else "'clip' or 'exact'"
    return DataError(
        f"{where}: column {model.column!r} rules out an outcome that happened, so {loss} is infinite there"
        f"{found}; use saturation={choices}."
    )
