"""The elementary functions from their definitions in 60 digits, where to try them, and errors in ULP.

A definition takes and returns mpmath numbers and holds where the function is finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
from mpmath import mpf

PRECISION_DIGITS = 60
ULP_PRECISION_BITS = 53
SMALLEST_EXPONENT = -1074

Real = Callable[[Any], Any]


class Definition(NamedTuple):
    """A function, the open interval on which it is defined and the intervals that are sampled densely."""

    function: Real
    domain: tuple[float, float]
    dense: tuple[tuple[float, float], ...]
    domain_text: str = "every x"


def softplus(x: Any) -> Any:
    return max(x, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x)))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x)) if x > 0 else mpmath.exp(x) / (1 + mpmath.exp(x))


REAL_LINE = (-math.inf, math.inf)
# The short intervals are where the results lie just below a power of two, so that one unit is smallest beside them.
BELOW_POWERS = ((0.33, 0.42), (0.68, 0.7), (1.1, 1.4), (2.7, 2.78), (3.44, 3.47), (4.14, 4.17), (6.92, 6.94))
LOGISTIC = (
    *((-1.0, 1.0), (-5.0, 5.0), (-40.0, 40.0), (-746.0, -700.0), (-746.0, 746.0)),
    *BELOW_POWERS,
    *((-high, -low) for low, high in BELOW_POWERS),
)

ORACLES: dict[str, Definition] = {
    "exp": Definition(
        mpmath.exp,
        REAL_LINE,
        ((-1.0, 1.0), (-1.04, -1.0), (-746.0, -700.0), (-708.8, -708.7), (700.0, 710.0), (-746.0, 710.0)),
    ),
    "expm1": Definition(
        mpmath.expm1,
        REAL_LINE,
        ((-0.5, 0.5), (0.346, 0.351), (-1.1, 1.1), (36.0, 39.0), (37.07, 37.13), (-40.0, 710.0)),
    ),
    "log": Definition(mpmath.log, (0.0, math.inf), ((0.7, 1.42), (0.69, 0.7072), (1.4, 1.415), (0.4, 3.0)), "x > 0"),
    "log1p": Definition(
        mpmath.log1p, (-1.0, math.inf), ((-0.3, 0.42), (0.395, 0.4143), (-1.0, 3.0), (-1e-15, 1e-15)), "x > −1"
    ),
    "log1p_unit": Definition(mpmath.log1p, (0.0, 1.0), ((0.0, 1.0), (0.4, 0.6), (0.45, 0.5)), "0 ≤ x ≤ 1"),
    "tanh": Definition(
        mpmath.tanh, REAL_LINE, ((-0.2, 0.2), (-1.0, 1.0), (-3.0, 3.0), (-20.0, 20.0), (18.5, 18.6), (0.25, 0.26))
    ),
    "sigmoid": Definition(sigmoid, REAL_LINE, LOGISTIC),
    "softplus": Definition(softplus, REAL_LINE, LOGISTIC),
    "log_sigmoid": Definition(lambda x: -softplus(-x), REAL_LINE, LOGISTIC),
    "lgamma": Definition(
        mpmath.loggamma,
        (0.0, math.inf),
        ((0.0, 0.5), (0.5, 1.5), (1.48, 1.52), (1.5, 2.5), (2.5, 3.0), (3.0, 20.0)),
        "x > 0",
    ),
}


def evaluate(name: str, x: float) -> Any:
    """Return the value of a function at a float64, in 60 digits."""
    with mpmath.workdps(PRECISION_DIGITS):
        return +ORACLES[name].function(mpf(x))


def ulp_error(computed: float, exact: Any) -> float:
    """Return |computed − exact| in units in the last place of the exact value.

    The unit of a value in [2ᵉ, 2ᵉ⁺¹) is 2ᵉ⁻⁵², and 2⁻¹⁰⁷⁴ below 2⁻¹⁰²². An infinity counts as ±2¹⁰²⁴, so it is free of
    error from where rounding to nearest overflows, within half a unit. An exact zero must be met exactly.
    """
    if math.isnan(computed):
        return math.inf
    if exact == 0:
        return 0.0 if computed == 0.0 else math.inf
    with mpmath.workdps(PRECISION_DIGITS):
        overflow = mpf(2) ** 1024
        exact = max(-overflow, min(overflow, exact))
        exponent = min(mpmath.frexp(exact)[1], 1024)
        unit = mpf(2) ** max(exponent - ULP_PRECISION_BITS, SMALLEST_EXPONENT)
        met = math.copysign(1, computed) * overflow if math.isinf(computed) else mpf(computed)
        return float(abs(met - exact) / unit)


def within(name: str, x: np.ndarray) -> np.ndarray:
    """Return the values of x, shape (n,), that lie in a function's domain, its ends left out."""
    low, high = ORACLES[name].domain
    return x[(x > low) & (x < high)]


def systematic_grid(name: str, busy: int, quiet: int) -> np.ndarray:
    """Return points of both signs in every binade: `busy` in those from 2⁻⁸ to 2¹⁰, `quiet` in the others."""
    parts = []
    for exponent in range(SMALLEST_EXPONENT, 1024):
        n = busy if -8 <= exponent < 10 else quiet
        # The golden ratio shifts the points of each binade, so no significand is tried everywhere.
        significand = 1.0 + (np.arange(n) + exponent * 0.6180339887498949 % 1.0) / n
        parts.append(np.ldexp(significand, exponent))
    positive = np.concatenate(parts)
    return within(name, np.concatenate((positive, -positive)))


def dense_samples(name: str, n: int, seed: int = 0) -> np.ndarray:
    """Return n random points in each interval where the function is reduced, selected or used most."""
    generator = np.random.default_rng(seed)
    return within(name, np.concatenate([generator.uniform(low, high, n) for low, high in ORACLES[name].dense]))


def neighbours(x: float, steps: int) -> list[float]:
    """Return x and the floats up to so many steps on either side."""
    found = [x]
    for _ in range(steps):
        found = [math.nextafter(found[0], -math.inf), *found, math.nextafter(found[-1], math.inf)]
    return found


def hostile_values() -> np.ndarray:
    """Return values around every place where a function changes its ways, of both signs, infinities and NaN too."""
    log_2 = math.log(2.0)
    centres = [0.0, 2.0**-1022, 1e-300, 2.0**-54, 2.0**-53, 2.0**-52, 0.25, math.sqrt(0.5), 0.75, math.sqrt(2.0)]
    centres += [math.sqrt(2.0) - 1.0, 1.0 - math.sqrt(0.5), 0.5, 1.0, 1.4616321449683622, 1.5, 2.0, 2.5, 3.0]
    centres += [18.0, 19.0, 20.0, 36.7, 37.4, 40.0, 708.0, 708.3964185322641, 709.0, 709.782712893384, 710.0]
    centres += [744.4400719213812, 745.1332191019412, 746.0, 2.0**52, 2.0**53, 2.0**54, 2.5599833278516387e305]
    centres += [1e300, 1.7976931348623157e308, math.log(math.sqrt(2.0)), math.acosh(2.0), math.log(3.0)]
    # Where the nearest multiple of log 2 changes, and where the result is close to a power of two.
    centres += [(k + half) * log_2 for k in (*range(60), 1021, 1022, 1023, 1074, 1075) for half in (0.0, 0.5)]
    centres += [math.ldexp(math.sqrt(0.5), k) for k in (-1073, -1022, -1021, -53, -1, 2, 53, 54, 1023, 1024)]
    values = [y for x in centres for y in neighbours(x, 3)]
    values += [1.0 - 2.0**-k for k in range(1, 54)] + [1.0 + 2.0**-k for k in range(1, 53)]
    values += [2.0 - 2.0**-k for k in range(1, 53)] + [2.0 + 2.0**-k for k in range(1, 52)]
    values += [math.inf, math.nan]
    return np.array([*sorted({y for x in values for y in (x, -x)} - {0.0}, key=lambda y: (y != y, y)), 0.0, -0.0])
