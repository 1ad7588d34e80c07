"""The CUDA kernels in Numba's simulator: every loss in every space gives the bits of the CPU kernels.

The simulator replaces `numba.cuda` when Numba is first imported, so this file runs itself in a process of its own.
Each loss is tried in its first space; further spaces and parameters are marked slow.
"""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastloss_kernels.domain import SPACES
from fastloss_kernels.inverse_links import INVERSE_LINKS
from fastloss_kernels.losses import POINTWISE_LOSSES, ListwiseLoss
from tests import test_list_losses

ROOT = Path(__file__).parents[1]
# Two blocks of thirteen threads: fewer threads than rows, and a number of rows that they do not divide.
GRID = (2, 13)

MAGNITUDES = [0.0, 5e-324, 2.2250738585072014e-308, 1e-300, 1e-20, 1e-12, 1.1e-8, 0.25, 0.5, 0.6931471805599453, 0.7]
MAGNITUDES += [1.0 - 2**-53, 1.0, 1.0 + 2**-52, 2.5, 19.0, 36.7, 40.0, 708.4, 709.8, 745.1, 745.2, 1e5, 2.0**53, 1e300]
MAGNITUDES += [1.7976931348623157e308, float("inf")]
SCORES = [sign * m for m in MAGNITUDES for sign in (1.0, -1.0)] + [1.0 - 1e-12, 1.0 - 1e-7, -27.631, float("nan")]
LABELS = [0.0, 1.0, 0.5, 5e-324, 0.3, 1.0 - 2**-53, float("nan")]


Case = tuple[Callable[..., Any], Callable[..., Any] | None, tuple[float, ...], str]


def all_cases() -> dict[str, Case]:
    """Every loss in every space, as it comes and with every parameter changed and infinities kept; and the means."""
    cases: dict[str, Case] = {f"mean-{space}": (row, None, (), space) for space, row in INVERSE_LINKS.items()}
    for listed in POINTWISE_LOSSES:
        plain = listed()
        changed = listed(**{name: 0.25 for name, allowed in listed.ranges.items() if 0.25 in allowed})
        for space, row in plain.formulas.items():
            test = plain.saturated.get(space)
            cases[f"{listed.name}-{space}"] = (row, test, plain.parameters(space), space)
            if plain.parameters(space):
                cases[f"{changed.full_name}-{space}"] = (row, test, changed.parameters(space, epsilon=0.0), space)
    return cases


CASES = all_cases()
LIST_CASES: dict[str, tuple[ListwiseLoss, str]] = {
    f"{loss.full_name}-{space}": (loss, space) for loss in test_list_losses.INSTANCES for space in loss.formulas
}


def sampled(cases: Iterable[str], loss_of: Callable[[str], str]) -> list[Any]:
    """Return the cases as parameters of tests: all but the first of each loss are marked slow."""
    seen: set[str] = set()
    parameters = []
    for name in cases:
        marks = [pytest.mark.slow] if loss_of(name) in seen else []
        seen.add(loss_of(name))
        parameters.append(pytest.param(name, marks=marks))
    return parameters


SAMPLED = sampled(CASES, lambda name: re.split(r"[(-]", name)[0])
SAMPLED_LISTS = sampled(LIST_CASES, lambda name: LIST_CASES[name][0].name)
# So many cases run in one process.
CASES_AT_ONCE = 16


class CasesByProcess:
    """The results of cases, each computed beside others in a process of its own when it is first asked for.

    Parameters
    ----------
    run : callable
        ``run(names)`` returns the results of some cases.
    request : pytest.FixtureRequest
        The tests that will ask: no case is computed that none of them names.
    """

    def __init__(self, run: Callable[[list[str]], dict[str, Any]], request: pytest.FixtureRequest) -> None:
        self._run = run
        items = (item for item in request.session.items if item.path == request.path)
        named = (getattr(item, "callspec", None) for item in items)
        self._names = list(dict.fromkeys(str(next(iter(spec.params.values()))) for spec in named if spec is not None))
        self._results: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return the result of a case."""
        if name not in self._results:
            first = self._names.index(name) // CASES_AT_ONCE * CASES_AT_ONCE
            self._results |= self._run(self._names[first : first + CASES_AT_ONCE])
        return self._results[name]


def rows_of(space: str) -> tuple[np.ndarray, np.ndarray]:
    """Hostile scores with hostile labels, and random ones."""
    low, high = SPACES[space]
    hostile = np.array([(x, y) for x in SCORES if not (x < low or x > high) for y in LABELS])
    random = np.random.default_rng(7)
    scores = random.normal(-2.0, 8.0, 100)
    if space == "prob":
        scores = random.beta(0.3, 0.7, 100)
    if space == "logprob":
        scores = -random.exponential(2.0, 100)
    labels = np.where(random.random(100) < 0.5, random.random(100), random.random(100) < 0.3)
    return np.concatenate([hostile[:, 0], scores]), np.concatenate([hostile[:, 1], labels])


def run_kernels(pointwise: Any, launch: Callable[..., Any], name: str) -> dict[str, np.ndarray]:
    """Run every kernel of a case on its rows; `launch` turns a kernel into something to call."""
    row, test, parameters, space = CASES[name]
    score, label = rows_of(space)
    value, gradient, hessian, alone = np.full((4, len(score)), -7.0)
    launch(pointwise.make_value_gradient_hessian(row))(score, label, parameters, value, gradient, hessian)
    launch(pointwise.make_value(row))(score, label, parameters, alone)
    results = {"value": value, "gradient": gradient, "hessian": hessian, "value alone": alone}
    if test is not None:
        results["flag"] = np.zeros(len(score), dtype=np.bool_)
        launch(pointwise.make_flag(test))(score, label, parameters, results["flag"])
    return results


def lists_of(name: str) -> list[test_list_losses.Case]:
    """Lists of a case: hostile, masked and random ones of a few candidates."""
    return [case for case in test_list_losses.short_lists(*LIST_CASES[name]) if len(case.score) <= 5]


def run_list_kernels(lists: Any, launch: Callable[..., Any], name: str) -> dict[str, np.ndarray]:
    """Run every kernel of a case of lists for the device; `launch` turns a kernel into something to call."""
    loss, space = LIST_CASES[name]
    cases = lists_of(name)
    arrays = (*test_list_losses.arrays_of(cases), np.arange(len(cases)), loss.parameters(space))
    value, alone = np.full((2, len(cases)), -7.0)
    gradient, hessian = np.full((2, len(arrays[0])), -7.0)
    scratch = np.full((loss.n_scratch + 2, len(arrays[0])), -7.0)
    row = loss.formulas[space]
    launch(lists.make_list_value_gradient_hessian(row))(*arrays, scratch, value, gradient, hessian)
    launch(lists.make_list_value(row))(*arrays, scratch, alone)
    results = {"value": value, "gradient": gradient, "hessian": hessian, "value alone": alone}
    if space in loss.saturated:
        results["flag"] = np.zeros(len(cases), dtype=np.bool_)
        launch(lists.make_list_flag(loss.saturated[space]))(*arrays, results["flag"])
    return results


def run_list_kernels_of_cpu(name: str) -> dict[str, np.ndarray]:
    """Run every kernel of a case of lists for the CPU."""
    loss, space = LIST_CASES[name]
    cases = lists_of(name)
    value, gradient, hessian = test_list_losses.evaluate(loss, space, cases)
    results = {"value": value, "gradient": np.concatenate(gradient), "hessian": np.concatenate(hessian)}
    results["value alone"] = test_list_losses.evaluate_values(loss, space, cases)
    if space in loss.saturated:
        results["flag"] = np.array(test_list_losses.is_saturated(loss, space, cases))
    return results


def bits(values: np.ndarray) -> np.ndarray:
    """The bit patterns of an array; every NaN has the same one here, since its payload is not promised."""
    if values.dtype == np.bool_:
        return values
    return np.where(np.isnan(values), np.nan, values).view(np.int64)


def run_in_own_process(module: str, output: Path, names: Sequence[str] = (), **environment: str) -> None:
    """Run a test module as a program that writes the results of some cases to a file."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    found = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"tests.{module}", str(output), *names],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> CasesByProcess:
    output = tmp_path_factory.mktemp("cuda") / "simulated.pickle"

    def run(names: list[str]) -> dict[str, Any]:
        run_in_own_process("test_cuda_simulator", output, names, NUMBA_ENABLE_CUDASIM="1")
        return dict(pickle.loads(output.read_bytes()))

    return CasesByProcess(run, request)


@pytest.mark.parametrize("name", SAMPLED)
def test_simulated_kernels_give_the_bits_of_the_cpu(name: str, simulated: CasesByProcess) -> None:
    from fastloss_kernels.cpu import pointwise

    score, label = rows_of(CASES[name][3])
    for output, values in run_kernels(pointwise, lambda kernel: kernel, name).items():
        other = bits(simulated[name][output]) != bits(values)
        differing = np.flatnonzero(other)[:3]
        assert not other.any(), f"{output}: {other.sum()} rows differ, first " + ", ".join(
            f"{values[i]!r} at ({score[i]!r}, {label[i]!r})" for i in differing
        )


@pytest.mark.parametrize("name", SAMPLED_LISTS)
def test_simulated_list_kernels_give_the_bits_of_the_cpu(name: str, simulated: CasesByProcess) -> None:
    for output, values in run_list_kernels_of_cpu(name).items():
        assert np.array_equal(bits(simulated[name][output]), bits(values)), output


def simulate(output: str, names: Sequence[str]) -> None:
    """Run every kernel of some cases in the simulator and write what it gives."""
    import numba

    from fastloss_kernels.cuda import lists, pointwise

    assert numba.config.ENABLE_CUDASIM, "the simulator is not in use"
    results = {}
    for name in names:
        run, kernels = (run_kernels, pointwise) if name in CASES else (run_list_kernels, lists)
        results[name] = run(kernels, lambda kernel: kernel[GRID], name)
    Path(output).write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    simulate(sys.argv[1], sys.argv[2:])
