"""Times the kernels on one core: arrays of 65,536 float64 rows, fastloss beside NumPy, libm through Numba, PyTorch.

The plain memory speed of the machine stands beside them: a copy of the same arrays, which stay in the cache, and of
arrays far larger than it. Every case checks its answer before it is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown

ROWS = 65_536
LARGE_ROWS = 1 << 24

VALUE = "logistic loss: value"
DERIVATIVES = "logistic loss: value, gradient, hessian"
SUM = "sum"
VALUE_SUM = "logistic loss: value and sum"
MEMORY = "copy of float64"

# What to time, and a function that runs it and raises AssertionError if the answer is wrong.
Made = tuple[Callable[[], Any], Callable[[], None]]


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes
    ----------
    make : callable
        Returns what to time and its check.
    needs : str or None
        The module without which the case is left out.
    """

    group: str
    name: str
    make: Callable[[], Made]
    rows: int = ROWS
    needs: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether the module it needs can be imported."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


@cache
def _data() -> tuple[np.ndarray, np.ndarray]:
    """Return logits of a click log and labels drawn from them."""
    random = np.random.default_rng(20_240_229)
    score = random.normal(-2.703, 1.2, ROWS)
    label = (random.random(ROWS) < 1.0 / (1.0 + np.exp(-score))).astype(np.float64)
    return score, label


def _outputs(n: int) -> tuple[np.ndarray, ...]:
    return tuple(np.empty(ROWS) for _ in range(n))


@cache
def _expected() -> tuple[np.ndarray, ...]:
    """Return value, gradient and hessian as Python's own math gives them, row by row."""
    rows = []
    for x, y in zip(*_data(), strict=True):
        e = math.exp(-abs(x))
        likely, unlikely = 1.0 / (1.0 + e), e / (1.0 + e)
        probability = likely if x > 0.0 else unlikely
        rows.append((max(x, 0.0) - x * y + math.log1p(e), probability - y, likely * unlikely))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def _check_rows(run: Callable[[], Any], outputs: Callable[[Any], tuple[Any, ...]]) -> Callable[[], None]:
    def check() -> None:
        for found, expected in zip(outputs(run()), _expected(), strict=False):
            # An absolute error of 1e-15 is what 1 - p and x - x·y leave where the loss is small.
            np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-13, atol=1e-15)

    return check


def _fastloss_value() -> Made:
    from fastloss_kernels.cpu.pointwise import make_value
    from fastloss_kernels.losses import BinaryCrossentropy

    (out,) = _outputs(1)
    loss, kernel = BinaryCrossentropy(), make_value(BinaryCrossentropy.formulas["logit"])
    score, label = _data()
    parameters = loss.parameters("logit")

    def run() -> None:
        kernel(score, label, parameters, out)

    return run, _check_rows(run, lambda _: (out,))


def _fastloss_derivatives() -> Made:
    from fastloss_kernels.cpu.pointwise import make_value_gradient_hessian
    from fastloss_kernels.losses import BinaryCrossentropy

    outputs = _outputs(3)
    loss, kernel = BinaryCrossentropy(), make_value_gradient_hessian(BinaryCrossentropy.formulas["logit"])
    score, label = _data()
    parameters = loss.parameters("logit")

    def run() -> None:
        kernel(score, label, parameters, *outputs)

    return run, _check_rows(run, lambda _: outputs)


def _libm_value() -> Made:
    import numba

    (out,) = _outputs(1)

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(score, label, out):
        for i in range(score.shape[0]):
            x = score[i]
            out[i] = max(x, 0.0) - x * label[i] + math.log1p(math.exp(-abs(x)))

    def run() -> None:
        kernel(*_data(), out)

    return run, _check_rows(run, lambda _: (out,))


def _libm_derivatives() -> Made:
    import numba

    outputs = _outputs(3)

    @numba.njit(nogil=True, error_model="numpy")
    def kernel(score, label, value, gradient, hessian):
        for i in range(score.shape[0]):
            x = score[i]
            e = math.exp(-abs(x))
            likely = 1.0 / (1.0 + e)
            unlikely = e * likely
            value[i] = max(x, 0.0) - x * label[i] + math.log1p(e)
            gradient[i] = (likely if x > 0.0 else unlikely) - label[i]
            hessian[i] = likely * unlikely

    def run() -> None:
        kernel(*_data(), *outputs)

    return run, _check_rows(run, lambda _: outputs)


def _numpy_value() -> Made:
    def run() -> np.ndarray:
        x, y = _data()
        return np.maximum(x, 0.0) - x * y + np.log1p(np.exp(-np.abs(x)))

    return run, _check_rows(run, lambda value: (value,))


def _numpy_derivatives() -> Made:
    def run() -> tuple[np.ndarray, ...]:
        x, y = _data()
        e = np.exp(-np.abs(x))
        likely = 1.0 / (1.0 + e)
        unlikely = e * likely
        value = np.maximum(x, 0.0) - x * y + np.log1p(e)
        return value, np.where(x > 0.0, likely, unlikely) - y, likely * unlikely

    return run, _check_rows(run, lambda outputs: outputs)


def _torch_value() -> Made:
    import torch

    torch.set_num_threads(1)
    x, y = map(torch.from_numpy, _data())
    loss = torch.nn.functional.binary_cross_entropy_with_logits

    def run() -> Any:
        return loss(x, y, reduction="none")

    return run, _check_rows(run, lambda value: (value.numpy(),))


def _torch_derivatives() -> Made:
    import torch

    torch.set_num_threads(1)
    x, y = map(torch.from_numpy, _data())
    loss = torch.nn.functional.binary_cross_entropy_with_logits

    def run() -> tuple[Any, ...]:
        probability = torch.sigmoid(x)
        return loss(x, y, reduction="none"), probability - y, probability * (1.0 - probability)

    return run, _check_rows(run, lambda outputs: tuple(output.numpy() for output in outputs))


def _fastloss_sum() -> Made:
    from fastloss_kernels.cpu.sums import make_add_terms
    from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, ExactSum

    kernel, terms = make_add_terms(), _expected()[0]

    def run() -> np.ndarray:
        words = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
        kernel(terms, words)
        return words

    def check() -> None:
        assert float(ExactSum.from_words(run())) == math.fsum(terms)

    return run, check


def _fastloss_value_sum() -> Made:
    from fastloss_kernels.cpu.pointwise import make_value
    from fastloss_kernels.cpu.sums import make_add_terms
    from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, ExactSum
    from fastloss_kernels.losses import BinaryCrossentropy

    (out,) = _outputs(1)
    loss, value, add_terms = BinaryCrossentropy(), make_value(BinaryCrossentropy.formulas["logit"]), make_add_terms()
    score, label = _data()
    parameters = loss.parameters("logit")

    def run() -> np.ndarray:
        words = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
        value(score, label, parameters, out)
        add_terms(out, words)
        return words

    def check() -> None:
        assert float(ExactSum.from_words(run())) == math.fsum(out)
        np.testing.assert_allclose(out, _expected()[0], rtol=1e-13, atol=1e-15)

    return run, check


def _total_case(total: Callable[[np.ndarray], float], tolerance: float) -> Made:
    terms = _expected()[0]

    def check() -> None:
        assert math.isclose(total(terms), math.fsum(terms), rel_tol=tolerance, abs_tol=0.0)

    return lambda: total(terms), check


def _copy(rows: int) -> Made:
    source = np.arange(rows, dtype=np.float64)
    target = np.zeros(rows)

    def run() -> None:
        np.copyto(target, source)

    def check() -> None:
        run()
        np.testing.assert_array_equal(target, source)

    return run, check


CASES = (
    Case(VALUE, "fastloss", _fastloss_value),
    Case(VALUE, "NumPy", _numpy_value),
    Case(VALUE, "libm through Numba", _libm_value),
    Case(VALUE, "PyTorch", _torch_value, needs="torch"),
    Case(DERIVATIVES, "fastloss", _fastloss_derivatives),
    Case(DERIVATIVES, "NumPy", _numpy_derivatives),
    Case(DERIVATIVES, "libm through Numba", _libm_derivatives),
    Case(DERIVATIVES, "PyTorch", _torch_derivatives, needs="torch"),
    Case(SUM, "fastloss, exact", _fastloss_sum),
    Case(SUM, "math.fsum, exact", lambda: _total_case(math.fsum, 0.0)),
    Case(SUM, "NumPy, rounding", lambda: _total_case(np.sum, 1e-13)),
    Case(VALUE_SUM, "fastloss, exact", _fastloss_value_sum),
    Case(MEMORY, "in the cache", lambda: _copy(ROWS)),
    Case(MEMORY, "in memory", lambda: _copy(LARGE_ROWS), LARGE_ROWS),
)


def best_seconds(runs: list[Callable[[], Any]], rounds: int, seconds: float) -> list[float]:
    """Return the best time of one call of each, taken in turn; each turn calls for about `seconds`."""
    best = [math.inf] * len(runs)
    calls = [1] * len(runs)
    for turn in range(rounds + 1):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            for _ in range(calls[i]):
                run()
            taken = (time.perf_counter() - start) / calls[i]
            if turn == 0:
                calls[i] = max(1, round(seconds / taken))
            else:
                best[i] = min(best[i], taken)
    return best


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """Return the report of a run: machine, versions, cases and figures."""
    cases = [case for case in CASES if case.is_installed]
    runs = []
    for case in cases:
        run, check = case.make()
        check()
        runs.append(run)
    measured = [
        {"group": case.group, "name": case.name, "rows": case.rows, "rows_per_second": case.rows / taken}
        for case, taken in zip(cases, best_seconds(runs, rounds, seconds), strict=True)
    ]
    rate = {(m["group"], m["name"]): m["rows_per_second"] / 1e6 for m in measured}
    libm = "libm through Numba"
    figures = [
        figure(f"{VALUE}, million rows/s", rate[VALUE, "fastloss"], ">=", 150),
        figure(f"{DERIVATIVES}, million rows/s", rate[DERIVATIVES, "fastloss"], ">=", 100),
        figure(f"{VALUE}, against libm", rate[VALUE, "fastloss"] / rate[VALUE, libm], ">=", 5, " ×"),
        figure(f"{DERIVATIVES}, against libm", rate[DERIVATIVES, "fastloss"] / rate[DERIVATIVES, libm], ">=", 5, " ×"),
    ]
    missing = [
        {"group": case.group, "name": case.name, "needs": case.needs} for case in CASES if not case.is_installed
    ]
    return {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "cases": measured,
        "missing": missing,
        "figures": figures,
    }


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown tables."""
    parts = [headline(report["machine"], report["versions"]), f"One core, arrays of {ROWS:,} float64 rows."]
    for group in dict.fromkeys(entry["group"] for entry in report["cases"]):
        entries = [entry for entry in report["cases"] if entry["group"] == group]
        fastest = entries[0]["rows_per_second"]
        rows = [
            [
                entry["name"] if entry["rows"] == ROWS else f"{entry['name']} ({entry['rows']:,} rows)",
                f"{entry['rows_per_second'] / 1e6:.0f}",
                f"{1e9 / entry['rows_per_second']:.2f}",
                f"{fastest / entry['rows_per_second']:.2f} ×",
            ]
            for entry in entries
        ]
        parts.append(markdown((group, "Mrow/s", "ns a row", "time against the first"), rows))
    parts += [f"Left out: {m['group']}, {m['name']} ({m['needs']} is not installed)." for m in report["missing"]]
    parts.append(figures_table(report["figures"]))
    return "\n\n".join(parts)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="of which the best counts")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each case in each round")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    report = measure(given.rounds, given.seconds)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(render(report))


if __name__ == "__main__":
    main()
