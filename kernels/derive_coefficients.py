"""Derive the polynomial coefficients of `fastloss_kernels.elementary` and print them.

Run as `python kernels/derive_coefficients.py` (a few seconds; needs mpmath). Each polynomial is the minimax fit
(Remez exchange in 60 digits) of a smooth function under the weight with which its error enters the result. The
coefficients are rounded to float64 one at a time from the constant upwards, and the ones above are fitted again after
each rounding, so they absorb it. Printed beside each: the largest relative error that the float64 coefficients leave,
in units of 2⁻⁵³.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mpmath
from mpmath import mp, mpf

Real = Callable[[mpf], mpf]

DIGITS = 60

# Grid points per coefficient: enough for the extrema of the error to be found to a thousandth of their height.
POINTS_PER_COEFFICIENT = 40


class Polynomial(NamedTuple):
    """A function to approximate by `n_coefficients` of a power series on an interval."""

    name: str
    meaning: str
    function: Real
    weight: Real
    interval: tuple[mpf, mpf]
    n_coefficients: int


def horner(coefficients: Sequence[mpf], x: mpf) -> mpf:
    """Evaluate a power series, constant coefficient first."""
    value = mpf(0)
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def solve_levelled(targets: Sequence[mpf], weights: Sequence[mpf], points: Sequence[mpf], n: int) -> list[mpf]:
    """Return the n coefficients whose weighted error has one size and alternating signs on n + 1 points."""
    matrix = mpmath.matrix(n + 1, n + 1)
    right = mpmath.matrix(n + 1, 1)
    for i, x in enumerate(points):
        power = mpf(1)
        for j in range(n):
            matrix[i, j] = power
            power *= x
        matrix[i, n] = (-1) ** i / weights[i]
        right[i] = targets[i]
    solution = mpmath.lu_solve(matrix, right)
    return [solution[j] for j in range(n)]


def alternating_extrema(errors: Sequence[mpf], n: int) -> list[int]:
    """Return n indices of extrema whose signs alternate, largest errors first when there are more."""
    runs: list[int] = []
    for i, error in enumerate(errors):
        if runs and (errors[runs[-1]] > 0) == (error > 0):
            if abs(error) > abs(errors[runs[-1]]):
                runs[-1] = i
        else:
            runs.append(i)
    while len(runs) > n:
        runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
    return runs


def fit(grid: Sequence[mpf], targets: Sequence[mpf], weights: Sequence[mpf], n: int) -> list[mpf]:
    """Fit n coefficients by Remez exchange over a grid of points."""
    # Chebyshev points of the grid, which is itself dense towards its ends.
    chosen = [round(i * (len(grid) - 1) / n) for i in range(n + 1)]
    coefficients: list[mpf] = []
    for _ in range(30):
        coefficients = solve_levelled(
            [targets[i] for i in chosen], [weights[i] for i in chosen], [grid[i] for i in chosen], n
        )
        errors = [w * (t - horner(coefficients, x)) for x, t, w in zip(grid, targets, weights, strict=True)]
        exchanged = alternating_extrema(errors, n + 1)
        if len(exchanged) <= n or exchanged == chosen:
            break
        chosen = exchanged
    return coefficients


def absorb(grid: Sequence[mpf], weights: Sequence[mpf], j: int, n: int) -> list[mpf]:
    """Return the least-squares coefficients of the powers j + 1 to n - 1 that stand in for the power j."""
    if j + 1 == n:
        return []
    matrix = mpmath.matrix(len(grid), n - j - 1)
    right = mpmath.matrix(len(grid), 1)
    for i, (x, weight) in enumerate(zip(grid, weights, strict=True)):
        right[i] = power = weight * x**j
        for k in range(n - j - 1):
            power *= x
            matrix[i, k] = power
    return list(mpmath.lu_solve(matrix, right))


def derive(polynomial: Polynomial) -> tuple[list[float], mpf]:
    """Return the float64 coefficients, constant first, and the largest weighted error they leave."""
    n = polynomial.n_coefficients
    low, high = polynomial.interval
    n_points = POINTS_PER_COEFFICIENT * n
    # No grid point falls on an interior zero of the weight, where the functions are 0/0.
    nodes = [mpmath.cos(mp.pi * (2 * i + 1) / (2 * n_points)) for i in range(n_points)]
    grid = [(low + high) / 2 - (high - low) / 2 * node for node in nodes]
    targets = [polynomial.function(x) for x in grid]
    weights = [abs(polynomial.weight(x)) for x in grid]
    coefficients = fit(grid, targets, weights, n)
    rounded: list[float] = []
    for j in range(n):
        rounded.append(float(coefficients[j]))
        lost = coefficients[j] - rounded[j]
        for k, share in enumerate(absorb(grid, weights, j, n), start=j + 1):
            coefficients[k] += lost * share
    exact = [mpf(c) for c in rounded]
    errors = (w * (t - horner(exact, x)) for x, t, w in zip(grid, targets, weights, strict=True))
    return rounded, max(abs(error) for error in errors)


def atanh_tail(z: mpf) -> mpf:
    """Return (2·atanh(√z)/√z − 2)/z, the part of log1p's series above its first term."""
    root = mpmath.sqrt(z)
    return (2 * mpmath.atanh(root) / root - 2) / z


def lgamma_2_tail(w: mpf) -> mpf:
    """Return (lgamma(2 + w) − (1 − γ)·w)/w²."""
    return (mpmath.loggamma(2 + w) - (1 - mp.euler) * w) / w**2


def stirling_tail(y: mpf) -> mpf:
    """Return x·(lgamma(x) − (x − 1/2)·(log x − 1) − (log 2π − 1)/2) at x = 1/√y."""
    x = 1 / mpmath.sqrt(y)
    main = (x - mpf(1) / 2) * (mpmath.log(x) - 1) + (mpmath.log(2 * mp.pi) - 1) / 2
    return x * (mpmath.loggamma(x) - main)


def polynomials() -> list[Polynomial]:
    """Return every polynomial of `elementary.py`, in its order."""
    half_log_2 = mpmath.log(2) / 2
    sqrt_2 = mpmath.sqrt(2)
    log_reach = ((sqrt_2 - 1) / (sqrt_2 + 1)) ** 2
    return [
        Polynomial(
            "EXP",
            "(exp(r) - 1 - r) / r**2, |r| <= log(2)/2",
            lambda r: (mpmath.exp(r) - 1 - r) / r**2,
            # Halfway between the relative error of exp(r) - 1 and the absolute one, which counts at the ends.
            lambda r: r**2 / mpmath.sqrt(abs(mpmath.expm1(r))),
            (-half_log_2, half_log_2),
            10,
        ),
        Polynomial(
            "LOG",
            "(2*atanh(s) - 2*s) / s**3 in z = s**2, 1 + f in [1/sqrt(2), sqrt(2)]",
            atanh_tail,
            lambda z: z / 2,
            (mpf(0), log_reach),
            7,
        ),
        Polynomial(
            "LOG1P_UNIT",
            "the same, f in [-1/4, 1/2]",
            atanh_tail,
            lambda z: z / 2,
            (mpf(0), mpf(1) / 25),
            8,
        ),
        Polynomial(
            "LGAMMA_2",
            "(lgamma(2 + w) - (1 - gamma)*w) / w**2, |w| <= 1/2",
            lgamma_2_tail,
            lambda w: w**2 / mpmath.loggamma(2 + w),
            (mpf(-1) / 2, mpf(1) / 2),
            17,
        ),
        Polynomial(
            "STIRLING",
            "x*(lgamma(x) - (x - 1/2)*(log(x) - 1) - (log(2*pi) - 1)/2) in y = 1/x**2, x >= 5/2",
            stirling_tail,
            lambda y: mpmath.sqrt(y) / mpmath.loggamma(1 / mpmath.sqrt(y)),
            (mpf(0), (mpf(2) / 5) ** 2),
            12,
        ),
    ]


def two_parts(value: mpf, zero_bits: int) -> tuple[float, float]:
    """Split a number into two float64, the first with so many zero bits at its end."""
    exponent = int(mpmath.floor(mpmath.log(abs(value), 2)))
    unit = mpf(2) ** (exponent - 52 + zero_bits)
    high = float(mpmath.nint(value / unit) * unit)
    return high, float(value - high)


def constants() -> dict[str, tuple[float, float]]:
    """Return the constants that `elementary.py` keeps in two parts."""
    return {
        "LOG2": two_parts(mpmath.log(2), 20),
        "ONE_MINUS_EULER": two_parts(1 - mp.euler, 0),
        "STIRLING_CONSTANT": two_parts((mpmath.log(2 * mp.pi) - 1) / 2, 0),
    }


def main() -> None:
    """Print every polynomial, constant coefficient first, and the constants in two parts."""
    mp.dps = DIGITS
    for polynomial in polynomials():
        coefficients, error = derive(polynomial)
        print(f"# {polynomial.name}: {polynomial.meaning}; error {float(error * 2**53):.4f} x 2^-53")
        for coefficient in coefficients:
            print(f"    {coefficient!r},")
    for name, (high, low) in constants().items():
        print(f"{name}_HIGH: Final = {high!r}\n{name}_LOW: Final = {low!r}")


if __name__ == "__main__":
    main()
