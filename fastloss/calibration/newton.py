"""Newton's method on exact sums: coefficients that depend on the rows alone, not on their order.

A point is a set of coefficients. What is asked of the log there are sums of terms, each computed in float64 and added
exactly, so that every step is an exact rational number, rounded once when the next point is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fastloss_kernels.exact_sum import ExactSum

LOSS, HESSIAN = 1, 2
# On the log, each point is a pass.
MOST_PASSES = 24
_MOST_STEPS = 100
_MOST_HALVINGS = 40
# A direction that changes the predictor this much less than its features vary has no curvature but of rounding.
_SINGULAR = Fraction(1, 1 << 42)
_PRECISION = 2.0**-50
_NEAR = 2.0**-22
# What the first step on the log may leave, by a cautious estimate; it leaves less than that by far.
_FIRST_PRECISION = 2.0**-42
# An error is estimated to be no more than this many times as large as one like it.
_WORSE = 64.0


@dataclass(frozen=True)
class Sums:
    """The sums at a point, as integers of one unit.

    Attributes
    ----------
    loss : int
        The log loss; 0 where it was not asked for.
    gradient : tuple of int
        Its derivatives by the coefficients.
    hessian : tuple of tuple of int, or None
        The second derivatives, where they were asked for.
    is_finite : bool
        Whether no term overflows; the numbers mean nothing if one does.
    """

    loss: int
    gradient: tuple[int, ...]
    hessian: tuple[tuple[int, ...], ...] | None
    is_finite: bool

    @classmethod
    def of(cls, sums: Sequence[ExactSum], n: int, wanted: int) -> Sums:
        """Read the loss, the gradient of n coefficients, and the Hessian's upper triangle."""
        units = [found.units for found in sums]
        triangle = iter(units[1 + n :])
        rows = [[0] * n for _ in range(n)]
        for j in range(n):
            for k in range(j, n):
                rows[j][k] = rows[k][j] = next(triangle)
        hessian = tuple(map(tuple, rows)) if wanted & HESSIAN else None
        return cls(units[0], tuple(units[1 : 1 + n]), hessian, all(found.is_finite for found in sums))


# evaluate(coefficients, wanted): the sums at a point.
Evaluate = Callable[[tuple[float, ...], int], Sums]


@dataclass(frozen=True)
class Fitted:
    """A minimum.

    Attributes
    ----------
    coefficients : tuple of Fraction
        Where it lies.
    loss : Fraction
        The loss there, in the unit of the sums.
    hessian : tuple of tuple of int
        The last second derivatives.
    n_points : int
        How many points were evaluated.
    """

    coefficients: tuple[Fraction, ...]
    loss: Fraction
    hessian: tuple[tuple[int, ...], ...]
    n_points: int


class SingularError(Exception):
    """The features do not vary enough to tell their coefficients."""


class UnboundedError(Exception):
    """The loss falls for ever: there is no minimum."""


def minimize_nearby(evaluate: Evaluate, start: Sequence[float]) -> Fitted:
    """Minimize where points cost little: a Newton step from each, halved until the loss does not rise.

    Raises
    ------
    SingularError
        If the features do not tell the coefficients.
    UnboundedError
        If no minimum is found.
    """
    point = tuple(start)
    sums = evaluate(point, LOSS | HESSIAN)
    for number in range(1, _MOST_STEPS):
        assert sums.hessian is not None
        step = solve(sums.hessian, sums.gradient)
        size = _relative_size(step, point, sums.hessian)
        if size <= _NEAR:
            # The next step would be about the square of this one.
            end = tuple(Fraction(c) - s for c, s in zip(point, step, strict=True))
            return Fitted(end, Fraction(sums.loss), sums.hessian, number)
        for halvings in range(_MOST_HALVINGS):
            following = tuple(float(c - s / (1 << halvings)) for c, s in zip(map(Fraction, point), step, strict=True))
            found = evaluate(following, LOSS | HESSIAN)
            if found.is_finite and found.loss <= sums.loss:
                break
        else:
            # As near as rounding lets it come.
            return Fitted(tuple(map(Fraction, point)), Fraction(sums.loss), sums.hessian, number)
        if following == point or (found.loss == sums.loss and size < 2.0**-30):
            return Fitted(tuple(map(Fraction, point)), Fraction(sums.loss), sums.hessian, number)
        point, sums = following, found
    raise UnboundedError


def minimize_on_log(evaluate: Evaluate, start: Sequence[float], hessian: tuple[tuple[int, ...], ...] | None) -> Fitted:
    """Minimize from a start near the minimum, with as few points as possible.

    The Hessian of the start serves for every step while each is far smaller than the one before it; else it is summed
    anew. The last step is taken without looking at where it leads: what it leaves is predicted, by how fast steps
    shrink or, of the first step, by its own size; and the loss there follows from its derivatives.

    Parameters
    ----------
    evaluate : callable
        The sums at a point; each call reads the log.
    start : sequence of float
        The first point.
    hessian : tuple of tuple of int, or None
        About the Hessian there.

    Raises
    ------
    SingularError, UnboundedError
        As `minimize_nearby` does.
    """
    point = tuple(start)
    last: tuple[tuple[float, ...], tuple[Fraction, ...], int, float] | None = None
    wanted = LOSS if hessian is not None else LOSS | HESSIAN
    for number in range(1, MOST_PASSES + 1):
        sums = evaluate(point, wanted)
        rises = last is not None and sums.loss > last[2] + abs(last[2]) // (1 << 40)
        if last is None and not sums.is_finite:
            raise UnboundedError
        if sums.hessian is not None:
            hessian = sums.hessian
        assert hessian is not None
        if last is not None and (rises or not sums.is_finite):
            # Too far: half of the step that led here.
            point = tuple(float(Fraction(c) - s / 2) for c, s in zip(last[0], last[1], strict=True))
            last = last[0], tuple(s / 2 for s in last[1]), last[2], last[3]
            wanted = LOSS | HESSIAN
            continue
        step = solve(hessian, sums.gradient)
        size = _relative_size(step, point, hessian)
        if last is None:
            # What moved the start away from the minimum has moved the Hessian about as much.
            is_last = size * _WORSE * size <= _FIRST_PRECISION
        else:
            shrinking = min(1.0, size / last[3])
            is_last = size * shrinking <= _PRECISION or (size <= 64 * _PRECISION and shrinking > 0.25)
        if is_last:
            found = tuple(Fraction(c) - s for c, s in zip(point, step, strict=True))
            gain = sum((g * s for g, s in zip(sums.gradient, step, strict=True)), Fraction(0)) / 2
            return Fitted(found, sums.loss - gain, hessian, number)
        wanted = LOSS if last is None or shrinking < 1 / 64 else LOSS | HESSIAN
        last = point, step, sums.loss, size
        point = tuple(float(Fraction(c) - s) for c, s in zip(point, step, strict=True))
    raise UnboundedError


def solve(hessian: Sequence[Sequence[int]], gradient: Sequence[int]) -> tuple[Fraction, ...]:
    """Return the Newton step, exactly, by elimination.

    Raises
    ------
    SingularError
        If the matrix is not positive definite, but for rounding.
    """
    n = len(gradient)
    rows = [[Fraction(value) for value in row] + [Fraction(g)] for row, g in zip(hessian, gradient, strict=True)]
    for k in range(n):
        if rows[k][k] <= _SINGULAR * hessian[k][k]:
            raise SingularError
        for j in range(k + 1, n):
            factor = rows[j][k] / rows[k][k]
            rows[j] = [a - factor * b for a, b in zip(rows[j], rows[k], strict=True)]
    found = [Fraction(0)] * n
    for k in reversed(range(n)):
        rest = sum((rows[k][j] * found[j] for j in range(k + 1, n)), Fraction(0))
        found[k] = (rows[k][n] - rest) / rows[k][k]
    return tuple(found)


def _relative_size(step: Sequence[Fraction], point: Sequence[float], hessian: Sequence[Sequence[int]]) -> float:
    """Return how much a step changes the predictor, by the size of the predictor: root mean squares by curvature.

    A predictor counts as no smaller than its last feature, which is 1, or the logit itself.
    """
    size = _quadratic(hessian, [Fraction(c) for c in point]) + hessian[-1][-1]
    return math.sqrt(_quadratic(hessian, step) / size)


def _quadratic(hessian: Sequence[Sequence[int]], vector: Sequence[Fraction]) -> Fraction:
    return sum(
        (a * value * b for a, row in zip(vector, hessian, strict=True) for value, b in zip(row, vector, strict=True)),
        Fraction(0),
    )
