"""A search for the rows and lists where a loss errs most, among millions of random ones.

Exact numbers of many digits take a millisecond each. So they are computed at a few points of a short interval around
a random prediction, where a loss is a polynomial to more digits than a float64 has, and thousands of float64 within
it are held against that polynomial. Only the worst of an interval, where it exceeds what is known, is computed
exactly, so every figure is an error that some input has. Half of the intervals are random; the others lie near the
worst.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mpmath
import numpy as np
from mpmath import mpf

from fastloss_kernels.cpu import lists as cpu_lists
from fastloss_kernels.cpu import pointwise
from fastloss_kernels.losses import BinaryLoss, ListwiseLoss, Loss
from tests import test_list_losses, test_losses
from tests.oracles.losses import ORACLES, PRECISION_DIGITS

POINTS = 4096
# Over 2⁻⁸ of the distance to where a loss has a joint or a pole, six terms give it to 2⁻⁶⁰.
WIDTH = 2.0**-8
N_NODES = 7
# How far the polynomial may be off where it is tried, in ULP.
TOLERANCE = 0.02
# Enough for moderate predictions, and several times as fast.
FEW_DIGITS = 60


class Worst(NamedTuple):
    """The largest error of an output in ULP, whether in units of the parts, and where."""

    ulp: float
    of_parts: bool
    where: Any


class Line(NamedTuple):
    """A prediction, or a list, and one number of it that varies by less than `width`, a power of two, around `start`.

    Attributes
    ----------
    exact : callable
        ``exact(number) -> outputs``, with mpmath numbers.
    computed : callable
        ``computed(numbers) -> outputs``, float64 of shape (n_outputs, n_numbers).
    columns : sequence of (str, bool) or None
        Which column of the table each output belongs to.
    scales : sequence
        What an output's error is in units of, if not of itself.
    place : callable
        ``place(number) -> where``, to read.
    """

    start: float
    width: float
    digits: int
    exact: Callable[[Any], list[Any]]
    computed: Callable[[np.ndarray], np.ndarray]
    columns: Sequence[tuple[str, bool] | None]
    scales: Callable[[Any, list[Any]], list[Any]] | None
    cancelling: Sequence[bool]
    place: Callable[[float], Any]


@functools.cache
def nodes() -> tuple[list[Any], Any]:
    """Return where a polynomial is taken from, and the matrix that makes its coefficients of values there."""
    with mpmath.workdps(FEW_DIGITS):
        at = [mpmath.cos(mpmath.pi * (2 * k + 1) / (2 * N_NODES)) for k in range(N_NODES)]
        return at, mpmath.matrix([[t**k for k in range(N_NODES)] for t in at]) ** -1


def search_line(line: Line, random: np.random.Generator, known: dict[tuple[str, bool], Worst]) -> float:
    """Raise what is known by the errors along a line; return the largest, as a part of what was known."""
    at, inverse = nodes()
    width = line.width
    for _ in range(3):
        with mpmath.workdps(line.digits):
            found = [line.exact(mpf(line.start) + width * t) for t in at]
            tried = mpf("0.37")
            there = line.exact(mpf(line.start) + width * tried)
        with mpmath.workdps(FEW_DIGITS):
            fitted = []
            for i, column in enumerate(line.columns):
                values = [entry[i] for entry in found]
                if column is None or not all(mpmath.isfinite(x) for x in values):
                    fitted.append(None)
                    continue
                coefficients = [mpmath.fsum(inverse[k, m] * values[m] for m in range(N_NODES)) for k in range(N_NODES)]
                off = abs(mpmath.polyval(coefficients[::-1], tried) - there[i])
                fits = off <= TOLERANCE * math.ulp(float(there[i])) if abs(there[i]) > 1e-290 else False
                fitted.append(coefficients if fits else None)
        if any(column is not None and fit is not None for column, fit in zip(line.columns, fitted, strict=True)):
            break
        width *= 2.0**-6
    t = random.uniform(-1.0, 1.0, POINTS)
    numbers = line.start + width * t
    t = (numbers - line.start) / width
    computed = line.computed(numbers)
    scales = None
    highest = 0.0
    for i, (column, fit) in enumerate(zip(line.columns, fitted, strict=True)):
        if column is None or fit is None:
            continue
        if line.cancelling[i] and scales is None:
            with mpmath.workdps(line.digits):
                scales = line.scales(mpf(line.start), line.exact(mpf(line.start)))
        first = float(fit[0])
        rest = np.polynomial.polynomial.polyval(t, [float(fit[0] - first), *map(float, fit[1:])])
        unit = np.spacing(float(scales[i])) if line.cancelling[i] else np.spacing(abs(computed[i]))
        errors = abs((computed[i] - first) - rest) / unit
        best = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
        worst = known.get(column, Worst(-1.0, False, None))
        highest = max(highest, errors[best] / max(worst.ulp, 0.1))
        if not errors[best] <= worst.ulp:
            number = float(numbers[best])
            with mpmath.workdps(PRECISION_DIGITS):
                exact = line.exact(mpf(number))[i]
                ulp = test_losses.ulp_error(float(computed[i][best]), exact, scales[i] if line.cancelling[i] else None)
            if ulp > worst.ulp:
                known[column] = Worst(ulp, line.cancelling[i], line.place(number))
    return highest


def power_of_two_below(x: float) -> float:
    return 2.0 ** math.floor(math.log2(x))


# ---------------------------------------------------------------------------------------------------------------
# Rows


def random_row(loss: Loss, space: str, random: np.random.Generator) -> tuple[float, float]:
    """Return a prediction and a label."""
    if isinstance(loss, BinaryLoss):
        y = float(random.integers(2)) if random.random() < 0.7 else float(random.random())
    elif -1.0 in loss.label_range:
        y = float(
            random.choice([0.0, 1.0, -1.0, random.normal(0.0, 3.0), random.normal() * 10.0 ** random.uniform(-6, 6)])
        )
    else:
        y = float(random.choice([0.0, 1.0, random.poisson(4.0), random.lognormal(0.0, 2.0)]))
    kind = random.random()
    if space == "prob":
        x = random.beta(0.4, 0.7)
        if kind < 0.4:
            x = 2.0 ** -random.uniform(1.0, 40.0)
            x = 1.0 - x if kind < 0.2 else x
    elif space == "logprob":
        x = -random.exponential(2.0) if kind < 0.5 else -(2.0 ** random.uniform(-35.0, 9.0))
    elif kind < 0.25 and space == "value" and -1.0 in loss.label_range:
        x = y + random.choice([-1.0, 1.0]) * 2.0 ** random.uniform(-20.0, 6.0)
    elif kind < 0.5:
        x = random.normal(0.0, 1.5)
    elif kind < 0.8:
        x = random.normal(-2.0, 8.0)
    else:
        x = random.choice([-1.0, 1.0]) * 2.0 ** random.uniform(-30.0, 9.0)
    x = float(x)
    return (x if x in loss.prediction_range(space) else abs(x)), y


def line_of_row(loss: Loss, space: str, x: float, y: float) -> Line | None:
    oracle = ORACLES[type(loss).__name__][space]
    distances = [abs(x), 1.0]
    if space == "prob":
        distances += [1.0 - x]
    if not isinstance(loss, BinaryLoss):
        distances.append(abs(x - y))
    if not min(distances) > 1e-290:
        return None
    hard = not isinstance(loss, BinaryLoss) or y in (0.0, 1.0)
    cancels = not hard and test_losses.is_difference(loss, space)
    columns = [None if cancels else ("value", hard), ("gradient", True) if hard else None]
    columns.append(("hessian", True) if hard else None)
    label, parameters = mpf(y), loss.parameters(space)
    kernel = pointwise.make_value_gradient_hessian(loss.formulas[space])

    def computed(numbers: np.ndarray) -> np.ndarray:
        out = np.empty((3, len(numbers)))
        kernel(numbers, np.full(len(numbers), y), parameters, *out)
        return out

    return Line(
        x,
        WIDTH * power_of_two_below(min(distances)),
        FEW_DIGITS if 1e-12 < abs(x) < 50.0 else PRECISION_DIGITS,
        lambda number: list(oracle(number, label, loss)),
        computed,
        columns,
        lambda number, exact: test_losses.movement(oracle, number, label, loss, exact),
        [(type(loss).__name__, space, output) in test_losses.CANCELLING for output in test_losses.OUTPUTS],
        lambda number: (number, y),
    )


def search_rows(loss: Loss, space: str, samples: int, seed: int) -> dict[tuple[str, bool], Worst]:
    """Search a loss of rows."""
    random = np.random.default_rng(seed)
    return _search(
        lambda: random_row(loss, space, random),
        lambda row: (row[0] * (1.0 + random.normal(0.0, 0.02)), row[1]),
        lambda row: line_of_row(loss, space, *row) if row[0] in loss.prediction_range(space) else None,
        samples,
        random,
    )


def _search(
    make: Callable[[], Any],
    move: Callable[[Any], Any],
    line_of: Callable[[Any], Line | None],
    samples: int,
    random: np.random.Generator,
) -> dict[tuple[str, bool], Worst]:
    known: dict[tuple[str, bool], Worst] = {}
    # The rows or lists of the highest errors so far.
    best: list[tuple[float, Any]] = []
    n_lines = max(1, samples // POINTS)
    for i in range(n_lines):
        near = i >= n_lines // 2 and best
        entry = move(best[int(random.integers(len(best)))][1]) if near else make()
        line = line_of(entry)
        if line is None:
            continue
        highest = search_line(line, random, known)
        best = sorted([*best, (highest, entry)], key=lambda pair: -pair[0])[:16]
    return known


# ---------------------------------------------------------------------------------------------------------------
# Lists


def random_list(loss: ListwiseLoss, space: str, random: np.random.Generator) -> test_list_losses.Case:
    """Return a short list."""
    while True:
        n = int(random.choice([2, 2, 3, 4, 7]))
        score = test_list_losses.random_scores(space, n, random)
        kind = str(random.choice(test_list_losses.declared(loss).labels))
        case = test_list_losses.Case(kind, score, test_list_losses.labels_of(kind, n, random))
        if test_list_losses.usable(loss, space, [case]):
            return case


def line_of_list(loss: ListwiseLoss, space: str, case: test_list_losses.Case, j: int) -> Line | None:
    n = len(case.score)
    x = case.score[j]
    others = case.score[:j] + case.score[j + 1 :]
    distances = [abs(x), 1.0]
    if space == "prob":
        distances += [1.0 - x]
    else:
        distances += [abs(x - other) for other in others]
    if not min(distances) > 1e-290 or not test_list_losses.usable(loss, space, [case]):
        return None
    hard = case.kind in test_list_losses.HARD and not getattr(loss, "label_smoothing", 0.0)
    columns: list[tuple[str, bool] | None] = [("value", hard)]
    columns += [("gradient", True) if hard else None] * n + [("hessian", True) if hard else None] * n
    cancels = [(space, output) in test_list_losses.declared(loss).cancelling for output in test_list_losses.OUTPUTS]
    parameters = loss.parameters(space)
    kernel = cpu_lists.make_list_value_gradient_hessian(loss.formulas[space])

    def exact(number: Any) -> list[Any]:
        score = [number if k == j else other for k, other in enumerate(case.score)]
        return test_list_losses.flat(test_list_losses.exact_outputs(loss, space, score, case.label))

    def computed(numbers: np.ndarray) -> np.ndarray:
        n_lists = len(numbers)
        score = np.tile(case.score, (n_lists, 1))
        score[:, j] = numbers
        label = np.tile(case.label, (n_lists, 1))
        value, gradient, hessian = np.empty(n_lists), np.empty(n_lists * n), np.empty(n_lists * n)
        offsets, label_offsets = (np.arange(n_lists + 1) * width for width in (n, label.shape[1]))
        lists = np.arange(n_lists)
        kernel(
            score.reshape(-1), offsets, label.reshape(-1), label_offsets, lists, parameters, value, gradient, hessian
        )
        return np.array([value, *gradient.reshape(-1, n).T, *hessian.reshape(-1, n).T])

    def moved(number: float) -> test_list_losses.Case:
        return case._replace(score=[number if k == j else other for k, other in enumerate(case.score)])

    return Line(
        x,
        WIDTH * power_of_two_below(min(distances)),
        FEW_DIGITS,
        exact,
        computed,
        columns,
        lambda number, outputs: test_list_losses.scales_of(loss, space, case, outputs, True),
        [cancels[0], *[cancels[1]] * n, *[cancels[2]] * n],
        moved,
    )


def search_lists(loss: ListwiseLoss, space: str, samples: int, seed: int) -> dict[tuple[str, bool], Worst]:
    """Search a loss of lists."""
    random = np.random.default_rng(seed)
    allowed = loss.prediction_range(space)

    def make() -> tuple[test_list_losses.Case, int]:
        case = random_list(loss, space, random)
        return case, int(random.integers(len(case.score)))

    def move(entry: tuple[test_list_losses.Case, int]) -> tuple[test_list_losses.Case, int]:
        case, j = entry
        k = int(random.integers(len(case.score)))
        score = [x * (1.0 + random.normal(0.0, 0.02)) if i == k else x for i, x in enumerate(case.score)]
        return case._replace(score=score), j

    return _search(
        make,
        move,
        lambda entry: line_of_list(loss, space, *entry) if all(x in allowed for x in entry[0].score) else None,
        samples,
        random,
    )
