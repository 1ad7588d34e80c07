"""From exact sums to what they say of features: score tests, and the improvement of one Newton step.

With g = Σw·g·x and H = Σw·h·x·xᵀ over rows, the bias is profiled out first: what a better bias alone would mend is
held against no feature. A feature's score is s = gⱼ − (H₀ⱼ/H₀₀)·g₀, its curvature C = Hⱼⱼ − H₀ⱼ²/H₀₀, both exact
rational numbers that are rounded once. z = s/√V with V = Σ(w·g)²·(x − H₀ⱼ/H₀₀)² is the generalized score statistic,
which needs no model of the labels' variance and holds under any weights (Boos, "On generalized score tests", The
American Statistician 46, 1992; White, "Maximum likelihood estimation of misspecified models", Econometrica 50, 1982).
The improvement of the mean loss by one Newton step is s²/(2C)/Σw for a feature alone, and ½·sᵀC⁻¹s/Σw for all.
Of scores that are 0 but for chance, it is half the trace of V·C⁻¹ on average, which is the noise in it (Takeuchi's
criterion: Stone, "An asymptotic equivalence of choice of model by cross-validation and Akaike's criterion", J. Royal
Stat. Soc. B 39, 1977).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastloss.states.products import VARIES_BITS, FeatureProductSums
from fastloss_kernels.exact_sum import LIMBS, LOWEST_EXPONENT, ExactSum, ExactSums

Floats = NDArray[np.float64]

_UNIT = 1 << -LOWEST_EXPONENT
# Roundings of terms to 53 bits change a profiled sum by at most this part of the sum that the bias is profiled out of.
_ROUNDED_BITS = 50
# Six digits.
_DIGIT_BITS = _ROUNDED_BITS - VARIES_BITS
# Of categories, whose sums are rounded once: one that holds all but this part of the rows is the bias.
_NOISE_BITS = 46
# What a term may lose below the normal numbers, in units of sums.
_UNDERFLOW = 4 << (-1074 - LOWEST_EXPONENT)
# A feature of whose variance the others leave less than this part is a combination of them.
_COLLINEAR = 1e-10

NO_ROWS = "no_rows"
INFINITE_TERMS = "infinite_terms"
CONSTANT = "constant"
VARIES_TOO_LITTLE = "varies_too_little"
TOO_SMALL = "too_small"
NO_GRADIENT = "no_gradient"
NO_CURVATURE = "no_curvature"
NEGATIVE_CURVATURE = "negative_curvature"
INFINITE_LOSS = "infinite_loss"


@dataclass
class Numbers:
    """The numbers of one column of features, or of one category.

    Attributes
    ----------
    gradient : float or None
        The derivative of the mean loss by the column's weight.
    gradient_sum : float or None
        The derivative of the summed loss.
    curvature : float or None
        The second derivative of the mean loss, as Gauss and Newton take it.
    profiled : float or None
        The gradient where the bias is at its best: that of z, step and improvement, whose sign may be the other.
    z : float or None
        The score, with the bias profiled out, over its standard error.
    step : float or None
        The weight after one Newton step of this column and the bias.
    improvement : float or None
        By how much that step lowers the mean loss, by a quadratic model of it.
    noise : float or None
        The improvement to expect where the true score is 0.
    joint_step : float or None
        The weight after one Newton step of all columns.
    reason : str or None
        Why numbers are None.
    """

    gradient: float | None = None
    gradient_sum: float | None = None
    curvature: float | None = None
    profiled: float | None = None
    z: float | None = None
    step: float | None = None
    improvement: float | None = None
    noise: float | None = None
    joint_step: float | None = None
    reason: str | None = None


@dataclass
class Columns:
    """The numbers of all columns.

    Attributes
    ----------
    bias : Numbers
        Those of the bias.
    scores : list of Numbers
        Those of the features' columns.
    gauss_newton : numpy.ndarray of float64, shape (n_columns, n_columns), or None
        The second derivatives of the mean loss by the columns' weights and, last, by the bias; None where those of
        pairs were not summed.
    joint_improvement : float or None
        By how much a Newton step of all columns lowers the mean loss, beyond a step of the bias alone.
    joint_noise : float or None
        The improvement to expect where the true scores are 0. It is that of uncorrelated columns, or of a variance
        that is a multiple of the curvature, as that of a calibrated model is.
    joint_reason : str or None
        Why it is None.
    collinear : list of int
        The columns that are left out of that step, since those before determine them.
    """

    bias: Numbers
    scores: list[Numbers]
    gauss_newton: Floats | None = None
    joint_improvement: float | None = None
    joint_noise: float | None = None
    joint_reason: str | None = None
    collinear: list[int] = field(default_factory=list)


def analyse_columns(
    products: FeatureProductSums,
    weight: ExactSum,
    n: int,
    centred: FeatureProductSums | None = None,
    offsets: Sequence[float] = (),
) -> Columns:
    """Return the numbers of the columns of all features.

    Parameters
    ----------
    products : FeatureProductSums
        The sums.
    weight : ExactSum
        The weight of the rows.
    n : int
        How many rows there are.
    centred, offsets : FeatureProductSums and sequence of float, optional
        The sums of columns less their offsets. Profiled numbers are the same of both, and have more digits of these.
    """
    n_columns = products.n_columns
    profiling = products if centred is None else centred
    bias = _numbers_of(products, profiling, 0, weight, n)
    found = Columns(bias, [_numbers_of(products, profiling, column, weight, n) for column in range(1, n_columns)])
    if not weight.units:
        return found
    if products.is_paired:
        found.gauss_newton = np.array(
            [[products.curvature(j, k) / weight for k in (*range(1, n_columns), 0)] for j in (*range(1, n_columns), 0)]
        ).reshape(n_columns, n_columns)
    _add_joint_step(found, profiling, weight)
    if bias.joint_step is not None and offsets:
        steps = [numbers.joint_step or 0.0 for numbers in found.scores]
        moved = (-step * offset for step, offset in zip(steps, offsets, strict=True))
        bias.joint_step = math.fsum([bias.joint_step, *moved])
    return found


def _numbers_of(
    plain: FeatureProductSums, products: FeatureProductSums, column: int, weight: ExactSum, n: int
) -> Numbers:
    if not weight.units:
        return Numbers(reason=NO_ROWS)
    gradient, curvature = plain.gradient(column), plain.curvature(column, column)
    numbers = Numbers(gradient / weight, float(gradient), curvature / weight)
    gradient, curvature = products.gradient(column), products.curvature(column, column)
    sums = [gradient, curvature, products.square(column), products.gradient(0), products.curvature(0, 0)]
    if column:
        sums += [products.curvature(0, column), products.square_with_bias(column), products.square(0)]
    if not all(found.is_finite for found in sums):
        numbers.reason = INFINITE_TERMS
        return numbers
    h00 = products.curvature(0, 0).units
    if not column:
        score, variance, profiled = Ratio(gradient.units), Ratio(products.square(0).units), Ratio(h00)
    elif h00 > 0:
        h, hj = products.curvature(0, column).units, curvature.units
        score = Ratio(gradient.units * h00 - h * products.gradient(0).units, h00)
        profiled = Ratio(hj * h00 - h * h, h00)
        with_bias, squares = products.square_with_bias(column).units, products.square(column).units
        variance = Ratio(squares * h00**2 - 2 * h * h00 * with_bias + h * h * products.square(0).units, h00**2)
        is_constant = products.lowest[column - 1] == products.highest[column - 1]
        numbers.reason = CONSTANT if is_constant else _too_little(profiled, hj, n)
        if numbers.reason is not None:
            return numbers
    else:
        # Without curvature nothing can be profiled out.
        score, variance = Ratio(gradient.units), Ratio(products.square(column).units)
        profiled = Ratio(0 if h00 == 0 else -1)
    numbers.profiled = score.over(Ratio(weight.units))
    if not products.square(0).units:
        numbers.reason = NO_GRADIENT
    elif (few_digits := _too_little(variance, products.square(column).units, n)) is not None:
        numbers.reason = few_digits
    else:
        numbers.z = score.to_float() / math.sqrt(variance.to_float())
    if profiled.top > 0:
        twice = profiled.times(Ratio(2 * weight.units))
        numbers.step = -score.over(profiled)
        numbers.improvement = score.times(score).over(twice)
        if numbers.z is not None:
            numbers.noise = variance.times(Ratio(_UNIT)).over(twice)
    else:
        numbers.reason = numbers.reason or (NEGATIVE_CURVATURE if profiled.top < 0 else NO_CURVATURE)
    return numbers


@dataclass(frozen=True)
class Ratio:
    """An exact number of units: top/bottom, bottom above 0."""

    top: int
    bottom: int = 1

    def to_float(self) -> float:
        """Round once to float64."""
        return _divided(self.top, self.bottom * _UNIT)

    def times(self, other: Ratio) -> Ratio:
        """Multiply; the product is in units squared."""
        return Ratio(self.top * other.top, self.bottom * other.bottom)

    def over(self, other: Ratio) -> float:
        """Divide by a number above 0 in the same units, and round once."""
        return _divided(self.top * other.bottom, self.bottom * other.top)


def _divided(top: int, bottom: int) -> float:
    # Python's int / int is correctly rounded.
    try:
        return top / bottom
    except OverflowError:
        return math.inf if (top < 0) == (bottom < 0) else -math.inf


def _too_little(left: Ratio, units: int, n: int) -> str | None:
    """Tell why what is left of a sum of n rounded terms has no six digits; None if it has."""
    rounded, underflow = abs(units) * left.bottom, n * _UNDERFLOW * left.bottom << _DIGIT_BITS + _ROUNDED_BITS
    rounded <<= _DIGIT_BITS
    if abs(left.top) << _ROUNDED_BITS >= rounded + underflow:
        return None
    return TOO_SMALL if underflow > rounded else VARIES_TOO_LITTLE


def _add_joint_step(found: Columns, products: FeatureProductSums, weight: ExactSum) -> None:
    """Solve for the Newton step of all columns that have a curvature, those that depend on earlier ones left out."""
    if not products.is_paired:
        found.joint_reason = "diagonal"
        return
    usable = [column for column, numbers in enumerate(found.scores, 1) if numbers.improvement is not None]
    if not usable:
        found.joint_reason = next((numbers.reason for numbers in found.scores), None) or NO_CURVATURE
        return
    h00 = products.curvature(0, 0).units

    def profiled(j: int, k: int) -> float:
        top = products.curvature(j, k).units * h00 - products.curvature(0, j).units * products.curvature(0, k).units
        return _divided(top, h00 * _UNIT)

    curvatures = np.array([[profiled(j, k) for k in usable] for j in usable])
    scale = np.sqrt(np.diag(curvatures))
    scores = np.array(
        [
            _divided(
                products.gradient(j).units * h00 - products.curvature(0, j).units * products.gradient(0).units,
                h00 * _UNIT,
            )
            for j in usable
        ]
    )
    noise = [
        max(_COLLINEAR, float(products.curvature(j, j)) / curvatures[i, i] * 2.0**-_NOISE_BITS)
        for i, j in enumerate(usable)
    ]
    solved = solve_in_order(curvatures / scale[:, None] / scale, scores / scale, noise)
    if solved is None:
        found.joint_reason = NEGATIVE_CURVATURE
        return
    found.joint_improvement = solved.value / float(weight)
    kept = [found.scores[column - 1].noise for i, column in enumerate(usable) if i not in solved.left_out]
    found.joint_noise = math.fsum(noise or 0.0 for noise in kept)
    found.collinear = [usable[i] - 1 for i in solved.left_out]
    for i, column in enumerate(usable):
        found.scores[column - 1].joint_step = None if i in solved.left_out else -float(solved.x[i] / scale[i])
    moved = [
        float(products.curvature(0, column)) * step
        for column, numbers in enumerate(found.scores, 1)
        if (step := numbers.joint_step) is not None
    ]
    found.bias.joint_step = -math.fsum([float(products.gradient(0)), *moved]) / float(products.curvature(0, 0))


@dataclass(frozen=True)
class Solved:
    """A solution x of A·x = b in the unknowns that are not left out, and ½·bᵀx."""

    x: Floats
    value: float
    left_out: list[int]


def solve_in_order(a: Floats, b: Floats, noise: Sequence[float]) -> Solved | None:
    """Solve a positive definite system of unit diagonal, each unknown that earlier ones determine left out.

    Every operation is one on single elements, so that no library's order of summation decides a bit. None if the
    matrix is not positive definite.
    """
    a, b = a.copy(), b.copy()
    kept: list[int] = []
    left_out: list[int] = []
    factors: dict[int, Floats] = {}
    pivots: dict[int, float] = {}
    parts = []
    for j in range(len(b)):
        pivot = float(a[j, j])
        if pivot < -noise[j]:
            return None
        if pivot <= noise[j]:
            left_out.append(j)
            continue
        factor = a[:, j] / pivot
        kept.append(j)
        factors[j], pivots[j] = factor, pivot
        parts.append(0.5 * float(b[j]) * float(b[j]) / pivot)
        reduced = float(b[j])
        a = a - factor[:, None] * a[j]
        b = b - factor * reduced
        b[j] = reduced
    x = np.zeros(len(b))
    for position in range(len(kept) - 1, -1, -1):
        j = kept[position]
        later = [-float(factors[j][k]) * float(x[k]) for k in kept[position + 1 :]]
        x[j] = math.fsum([float(b[j]) / pivots[j], *later])
    return Solved(x, math.fsum(parts), left_out)


@dataclass
class Categories:
    """The numbers of all categories of a column, arrays by category.

    Attributes
    ----------
    gradient, gradient_sum, curvature, profiled, z, step, improvement, noise : numpy.ndarray of float64
        As in `Numbers`; NaN where there is none.
    reasons : list of str or None
        Why a category lacks numbers.
    joint_improvement : float or None
        By how much a Newton step of all categories lowers the mean loss, beyond a step of the bias alone.
    joint_noise : float or None
        The improvement to expect where no category differs from the others.
    """

    gradient: Floats
    gradient_sum: Floats
    curvature: Floats
    profiled: Floats
    z: Floats
    step: Floats
    improvement: Floats
    noise: Floats
    reasons: list[str | None]
    joint_improvement: float | None
    joint_noise: float | None

    def numbers(self, category: int) -> Numbers:
        """Return the numbers of one category."""

        def value(found: Floats) -> float | None:
            return None if math.isnan(found[category]) else float(found[category])

        return Numbers(
            gradient=value(self.gradient),
            gradient_sum=value(self.gradient_sum),
            curvature=value(self.curvature),
            profiled=value(self.profiled),
            z=value(self.z),
            step=value(self.step),
            improvement=value(self.improvement),
            noise=value(self.noise),
            reason=self.reasons[category],
        )


def analyse_categories(
    gradients: ExactSums, curvatures: ExactSums, squares: ExactSums, total: Sequence[ExactSum], weight: ExactSum
) -> Categories:
    """Return the numbers of the categories of a column: each is a feature that is 1 in its rows and 0 elsewhere.

    Parameters
    ----------
    gradients, curvatures, squares : ExactSums
        Σw·g, Σw·h and Σ(w·g)² of each category.
    total : sequence of ExactSum
        The same of all rows.
    weight : ExactSum
        The weight of all rows.
    """
    n = len(gradients)
    missing = np.full(n, np.nan)
    if not weight.units:
        reasons: list[str | None] = [NO_ROWS] * n
        none = missing
        return Categories(none, none, none, none, none, none, none, none, reasons, None, None)
    g, h, b = gradients.to_float(), curvatures.to_float(), squares.to_float()
    g0, h0, b0 = (float(found) for found in total)
    w = float(weight)
    with np.errstate(all="ignore"):
        share = h / h0 if h0 > 0.0 else np.zeros(n)
        score = g - share * g0
        profiled = h * (1.0 - share) if h0 > 0.0 else missing
        variance = b * (1.0 - 2.0 * share) + share * share * b0
        # A category that holds nearly all rows is the bias.
        constant = (1.0 - share) * 2.0**_NOISE_BITS <= 1.0
        finite = np.isfinite(score) & np.isfinite(h) & np.isfinite(variance)
        tested = finite & ~constant & (variance > 0.0)
        z = np.where(tested, score / np.sqrt(variance), np.nan)
        curved = tested & (profiled > 0.0)
        step = np.where(curved, -score / profiled, np.nan)
        improvement = np.where(curved, score * score / (2.0 * profiled) / w, np.nan)
        noise = np.where(curved, variance / (2.0 * profiled) / w, np.nan)
    reasons = [None] * n
    for i in np.flatnonzero(~curved).tolist():
        no_curvature = NEGATIVE_CURVATURE if h0 < 0.0 or h[i] < 0.0 else NO_CURVATURE
        reasons[i] = INFINITE_TERMS if not finite[i] else CONSTANT if not tested[i] else no_curvature
    joint = joint_noise = None
    if h0 > 0.0 and finite.all() and (h >= 0.0).all():
        parts, of_chance = (found / np.where(h > 0.0, h, np.inf) for found in (g * g, b))
        joint = max(0.0, 0.5 * (math.fsum(parts.tolist()) - g0 * g0 / h0) / w)
        joint_noise = max(0.0, 0.5 * (math.fsum(of_chance.tolist()) - b0 / h0) / w)
    mean = gradients / _each(weight, n)
    at_best = np.where(finite, score / w, np.nan)
    return Categories(mean, g, h / w, at_best, z, step, improvement, noise, reasons, joint, joint_noise)


def cap_improvements(found: Columns | Categories, most: float | None) -> None:
    """Cap improvements, and what noise gives, at the mean of a loss that is nowhere below 0; None removes them.

    A Newton step's quadratic model of the loss may promise more than there is.
    """
    cap = functools.partial(_capped, most=most)
    found.joint_improvement, found.joint_noise = cap(found.joint_improvement), cap(found.joint_noise)
    if isinstance(found, Categories):
        most = math.nan if most is None else most
        found.improvement, found.noise = (np.minimum(values, most) for values in (found.improvement, found.noise))
        found.reasons = [INFINITE_LOSS if math.isnan(most) and not reason else reason for reason in found.reasons]
        return
    if most is None:
        found.joint_reason = found.joint_reason or INFINITE_LOSS
    for numbers in (found.bias, *found.scores):
        numbers.improvement, numbers.noise = cap(numbers.improvement), cap(numbers.noise)
        if most is None:
            numbers.reason = numbers.reason or INFINITE_LOSS


def _capped(value: float | None, most: float | None) -> float | None:
    return None if value is None or most is None else min(value, most)


def _each(weight: ExactSum, n: int) -> ExactSums:
    """Return one sum, as often as asked."""
    limbs = [(weight.units >> 32 * limb) & 0xFFFF_FFFF for limb in range(LIMBS)]
    return ExactSums(np.tile(np.array([*limbs, 0, 0, 0], dtype=np.int64), (n, 1)))
