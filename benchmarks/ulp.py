"""Measures the elementary functions against their definitions and renders docs/elementary.md.

Run from the root of the repository: ``python -m benchmarks.ulp`` (half a minute). The table's figures depend on no
machine: every one computes the same bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastloss_kernels import elementary, jit
from tests.oracles.elementary import (
    ORACLES,
    dense_samples,
    evaluate,
    hostile_values,
    systematic_grid,
    ulp_error,
    within,
)

PAGE = Path(__file__).parents[1] / "docs" / "elementary.md"

HEAD = """# Elementary functions

`fastloss_kernels.elementary` holds the functions that every loss is built from. They are float64 and branch-free, they
vectorise, and they give the same bits in plain Python, on every CPU and on the GPU. `python -m benchmarks.ulp` renders
this page.

The error is |computed − exact| in units in the last place (ULP) of the exact value; below 2⁻¹⁰²² the unit is 2⁻¹⁰⁷⁴.
The exact values have 60 digits. *Measured* is the largest error at {points:,} points: a grid over every exponent of
float64, random points where a function is used most or errs most, and the neighbours of every threshold. The tests
hold every error below *bound*.

| function | domain | measured | bound |
|---|---|---|---|
"""

NOTES = """
Outside the domains: `log` and `log1p` give −∞ at 0 and −1 and NaN below, `lgamma` gives ∞ at 0 and NaN below, and
`log1p_unit` is for `exp(-abs(x))` alone. Infinities give the limits, NaN gives NaN, and `expm1`, `log1p` and `tanh`
keep the sign of zero. `softplus` and `sigmoid` are eˣ, to the bit, for x ≤ −40.

The coefficients come from `python kernels/derive_coefficients.py`.
"""


def make_loop(function: Callable[[float], float]) -> Callable[[np.ndarray, np.ndarray], None]:
    def loop(x: np.ndarray, out: np.ndarray) -> None:
        for i in range(x.shape[0]):
            out[i] = function(x[i])

    return loop


def measure(name: str, scale: int) -> tuple[float, int]:
    """Return the largest error of a function in ULP and the number of points tried."""
    hostile = hostile_values()
    points = (
        systematic_grid(name, busy=24 * scale, quiet=max(1, scale // 4)),
        dense_samples(name, 600 * scale, seed=1),
        within(name, hostile[np.isfinite(hostile)]),
    )
    x = np.concatenate(points)
    out = np.empty_like(x)
    jit.compile_cpu(make_loop(getattr(elementary, name)))(x, out)
    return max(ulp_error(float(y), evaluate(name, float(v))) for v, y in zip(x, out, strict=True)), x.size


def render(scale: int) -> str:
    rows = []
    total = 0
    for name, definition in ORACLES.items():
        error, points = measure(name, scale)
        total += points
        rows.append(f"| `{name}` | {definition.domain_text} | {error:.3f} | {elementary.ULP_BOUNDS[name]:.1f} |\n")
    return HEAD.format(points=total) + "".join(rows) + NOTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=16, help="points, as a multiple of what the tests try")
    PAGE.write_text(render(parser.parse_args().scale))
    print(PAGE)


if __name__ == "__main__":
    main()
