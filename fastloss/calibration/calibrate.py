"""Fitting a calibration map: a pass for the scores, a fit to their histogram, and passes that make it exact."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, get_args

from fastloss.calibration.buckets import Buckets
from fastloss.calibration.newton import (
    LOSS,
    Fitted,
    SingularError,
    Sums,
    UnboundedError,
    minimize_nearby,
    minimize_on_log,
)
from fastloss.calibration.passes import Passes, ScoresPass
from fastloss.calibration.result import Calibration
from fastloss.errors import DataError, UsageError
from fastloss.maps import COEFFICIENTS, CalibrationMap
from fastloss.metrics.base import PROBABILITY_SPACES
from fastloss.metrics.quantities import FitTerms
from fastloss.plan import Plan, make_plan
from fastloss.report.content import count_of
from fastloss.request import Prediction, one_of
from fastloss.scan import Progress
from fastloss.sources.base import gives_rows_once
from fastloss.words import CalibrationMethod
from fastloss_kernels.calibration import LOGITS, features_of

# A step of an isotonic map takes two knots.
MOST_STEPS = 5_000
# What rounding, and the clipping of probabilities, may make of two log losses that are the same.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-11


@dataclass(frozen=True)
class CalibrationPlan:
    """A checked request to fit a map.

    Attributes
    ----------
    method : str
        The kind of map.
    plan : Plan
        The first pass.
    """

    method: CalibrationMethod
    plan: Plan


def plan_calibration(log: object, *, method: str = "platt", **options: Any) -> CalibrationPlan:
    """Check a request against the log's schema.

    Parameters
    ----------
    log, method, **options
        As in `fastloss.calibrate`.

    Raises
    ------
    FastlossError
        If the request is not possible as asked.
    """
    chosen: CalibrationMethod = one_of("method", method, get_args(CalibrationMethod))
    given = {space: options.pop(space, None) for space in PROBABILITY_SPACES}
    metric = ScoresPass(f"calibrate {method}", counts_clipped=method != "isotonic")
    plan = make_plan(log, predictions=_one_prediction(given), metrics=[metric], **options)
    if gives_rows_once(plan.source):
        raise UsageError(
            "A calibration reads the log several times, and this one gives its rows once; give a table, a list of "
            "batches or files."
        )
    return CalibrationPlan(chosen, plan)


def _one_prediction(given: Mapping[str, Any]) -> dict[str, Prediction]:
    columns = {space: column for space, column in given.items() if column is not None}
    if len(columns) != 1 or not all(isinstance(column, str) for column in columns.values()):
        found = ", ".join(f"{space}={column!r}" for space, column in columns.items()) or "none"
        raise UsageError(
            f"A map is of one prediction column, as {' or '.join(f'{s}=' for s in PROBABILITY_SPACES)}; got {found}."
        )
    ((space, column),) = columns.items()
    return {column: Prediction(space, column)}  # type: ignore[arg-type]


def run_calibration(calibration: CalibrationPlan, report: Callable[[Progress], None] | None = None) -> Calibration:
    """Fit the map.

    Raises
    ------
    DataError
        If the rows determine no map.
    """
    return _Fit(calibration, report).run()


class _Fit:
    """One fit: the passes over the log, and the buckets of its scores."""

    def __init__(self, calibration: CalibrationPlan, report: Callable[[Progress], None] | None) -> None:
        (model,) = calibration.plan.request.models
        self._method = calibration.method
        self._space, self._column = model.space, model.column
        self._plan = calibration.plan
        self._passes = Passes(calibration.plan, report)
        self._buckets: Buckets

    def run(self) -> Calibration:
        scores = self._passes.scores()
        if scores.n_rows == 0:
            raise DataError(f"No row was used, so no map can be fitted: {_fate(self._passes.rows)}.")
        self._buckets = Buckets(scores.histogram, self._space)
        weight = float(scores.weight)
        best = self._buckets.isotonic.loss() / weight
        coefficients: tuple[float, ...] = ()
        knots: tuple[tuple[float, float], ...] = ()
        if self._method == "isotonic":
            self._refuse_one_class()
            steps = self._buckets.isotonic.at_most(MOST_STEPS)
            knots, after = steps.knots(), steps.loss() / weight
        else:
            self._refuse_undetermined()
            coefficients, loss = self._coefficients()
            after = float(loss / scores.weight.units)
        before = scores.loss / scores.weight
        self._check(before, after, best, falls=bool(coefficients) and coefficients[0] < 0.0)
        fit = {
            "rows": scores.n_rows,
            "weight": weight,
            "log_loss_before": before,
            "log_loss_after": after,
            "log_loss_isotonic": best,
            "scores_are_exact": self._buckets.is_exact,
            "n_clipped": scores.n_clipped,
            "passes": self._passes.n,
            "label": self._plan.request.label,
            "column": self._column,
            "fingerprint": self._plan.fingerprint,
        }
        found = CalibrationMap(self._method, self._space, coefficients, knots, fit)
        return Calibration(found, self._passes.rows, self._passes.files)

    def _check(self, before: float, after: float, best: float, *, falls: bool) -> None:
        """Raise an error at a log loss that no best map has: what follows from a wrong fit must not be shown.

        The predictions as they are, are one of the maps that are chosen from, and no increasing map is better than
        isotonic regression of single scores.
        """
        # An isotonic map may have fewer steps than scores.
        is_whole = self._buckets.is_exact and len(self._buckets.isotonic.low) <= MOST_STEPS
        too_high = (self._method != "isotonic" or is_whole) and not after <= before * (1 + _RELATIVE) + _ABSOLUTE
        too_low = self._buckets.is_exact and not falls and not after >= best * (1 - _RELATIVE) - _ABSOLUTE
        if too_high or too_low:
            bound = f"was {before!r} before" if too_high else f"is {best!r} by the best increasing map"
            raise RuntimeError(
                f"the fit of {self._column!r} by {self._method!r} came to a log loss of {after!r}, which {bound}"
            )

    def _refuse_undetermined(self) -> None:
        buckets = self._buckets
        # One score alone has a temperature, if it is not that of one half.
        if buckets.is_constant() and (self._method != "temperature" or buckets.is_half()):
            raise DataError(
                f"Column {self._column!r} is the same number in every row, which does not determine a map by "
                f"{self._method!r}; one by 'isotonic' gives all rows the mean label."
            )
        if self._method == "temperature":
            if buckets.lie_on_one_side():
                raise self._separable()
            return
        self._refuse_one_class()
        if buckets.are_separable():
            raise self._separable()

    def _refuse_one_class(self) -> None:
        only = self._buckets.only_class()
        if only is not None:
            raise DataError(f"Every label is {only}, and a map needs rows of both outcomes; calibrate on more rows.")

    def _separable(self) -> DataError:
        return DataError(
            f"The labels are separable by column {self._column!r}: no finite map by {self._method!r} exists, since "
            "the log loss falls for as long as the map grows steeper. Calibrate on more rows, or on rows that the "
            "model has not seen."
        )

    def _coefficients(self) -> tuple[tuple[float, ...], Fraction]:
        """Return the map's coefficients, and the log loss with them in units of the exact sums."""
        try:
            return self._beta() if self._method == "beta" else self._of_kind(self._method)
        except OverflowError:
            raise DataError(
                f"Column {self._column!r} holds numbers so small that the coefficients of a map of them are beyond "
                "float64; scale the column."
            ) from None

    def _beta(self) -> tuple[tuple[float, ...], Fraction]:
        """Return a, b and c of the beta map; a feature whose part would be negative is left out, as its authors do."""
        (a, b, c), loss = self._of_kind("beta")
        if a >= 0.0 and b >= 0.0:
            return (a, b, c), loss
        (slope, c), loss = self._of_kind("beta_b" if a < 0.0 else "beta_a")
        if slope < 0.0:
            raise DataError(
                f"The higher column {self._column!r}, the fewer positives: no increasing beta map is better than a "
                "constant. Is it the prediction of this label?"
            )
        return (0.0, slope, c) if a < 0.0 else (slope, 0.0, c), loss

    def _of_kind(self, kind: str) -> tuple[tuple[float, ...], Fraction]:
        fitted, parameters = self._fit(kind)
        centers = parameters[1:2] if kind == "beta_b" else parameters[:2]
        return _coefficients_of(fitted.coefficients, centers, parameters[2]), fitted.loss

    def _fit(self, kind: str) -> tuple[Fitted, tuple[float, ...]]:
        """Return the minimum for these features, and their parameters."""
        buckets, features = self._buckets, features_of(kind, self._space)
        parameters = buckets.parameters(kind)
        start = self._start(kind, features.n, parameters)
        try:
            hessian = None
            try:
                near = minimize_nearby(functools.partial(buckets.evaluate, kind, parameters), start)
                start, hessian = list(map(float, near.coefficients)), near.hessian
            except SingularError:
                # All rows may lie in one bucket, and differ in it.
                if buckets.is_exact:
                    raise
            evaluate = functools.partial(self._evaluate, kind, parameters)
            return minimize_on_log(evaluate, start, hessian), parameters
        except SingularError:
            raise DataError(
                f"Column {self._column!r} has too few different numbers for a map by {self._method!r}; choose a map "
                "of fewer coefficients, or calibrate on more rows."
            ) from None
        except UnboundedError:
            raise self._separable() from None

    def _start(self, kind: str, n: int, parameters: tuple[float, ...]) -> list[float]:
        """Return the better of two points: the predictions as they are, and the mean label, or 1/2, for all rows."""
        constant = [0.0] * n
        if kind != "temperature":
            constant[-1] = float(LOGITS["prob"](self._buckets.rate))
        if n != len(COEFFICIENTS.get(kind, ())):
            return constant
        first, second, factor = parameters
        identity = {"platt": [1.0 / factor, first], "temperature": [1.0 / factor]}.get(
            kind, [1.0 / factor, 1.0 / factor, first + second]
        )
        points = [(self._buckets.evaluate(kind, parameters, tuple(p), LOSS), p) for p in (identity, constant)]
        return min((found.loss, point) for found, point in points if found.is_finite or point is constant)[1]

    def _evaluate(
        self, kind: str, parameters: tuple[float, ...], coefficients: tuple[float, ...], wanted: int
    ) -> Sums:
        n = len(coefficients)
        return Sums.of(self._passes.sums(FitTerms(kind, n, parameters, coefficients, wanted)), n, wanted)


def _fate(rows: Mapping[str, Any]) -> str:
    """Say what became of the rows."""
    causes = [f"{count_of(rows['filtered'], 'row')} left out by the filter"] if rows.get("filtered") else []
    causes += [f"{cause['rows']:,} {cause['cause']} in {cause['column']}" for cause in rows["dropped"]]
    return ", ".join([f"{count_of(rows['read'], 'row')} read", *causes])


def _coefficients_of(fitted: tuple[Fraction, ...], centers: tuple[float, ...], factor: float) -> tuple[float, ...]:
    """Return the coefficients of features that are less nothing, each rounded once."""
    if len(fitted) == 1:
        return (float(fitted[0] * Fraction(factor)),)
    *slopes, constant = fitted
    slopes = [slope * Fraction(factor) for slope in slopes]
    constant -= sum((slope * Fraction(center) for slope, center in zip(slopes, centers, strict=False)), Fraction(0))
    return *map(float, slopes), float(constant)
