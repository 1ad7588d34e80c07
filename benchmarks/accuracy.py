"""Measures every loss against its definition and renders docs/accuracy.md.

Run from the root of the repository: ``python -m benchmarks.accuracy`` (some ten minutes on two cores). The table's
figures depend on no machine: every one computes the same bits.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mpmath

from benchmarks import search
from benchmarks.search import Found, Worst
from fastloss_kernels.losses import ListwiseLoss, Loss
from tests import test_list_losses, test_losses
from tests.oracles.losses import PRECISION_DIGITS

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"

HEAD = """# Accuracy of the losses

The largest error that was found of each loss, in units in the last place of the exact value, which has {digits}
digits: on the tests' grid of hostile and random rows and lists, and by a search of {samples:,} random predictions or
short lists of each loss, half of them near the worst of the others; of a loss with other parameters a fifth as many.
The figures of a loss are the largest over all that were tried. A hard label is 0, 1, −1 or a real number, a hard list
one-hot or an index, without label smoothing. Rendered by `python -m benchmarks.accuracy`; the same on every machine.

A figure with a star is in units of the parts: the number is a difference by its own definition and passes through
zero, so that its error is that of what is subtracted; "cancels" stands where the square of such a difference has no
digits left to count. So do derivatives of soft and of smoothed labels, which the table leaves out. The tests hold
values of their grid to 2 ULP for hard labels and 4 for soft ones, derivatives to 4, starred figures to 6. Where a
search of millions found more, the table says so.

| loss | predictions | value, hard | value, soft | gradient, hard | hessian, hard |
|---|---|---:|---:|---:|---:|
"""

# Output and whether the label is hard, as the columns of the table.
COLUMNS = (("value", True), ("value", False), ("gradient", True), ("hessian", True))
SAMPLES = 10_000_000
# Of what a loss with other parameters is tried, beside the loss as it comes.
PART_OF_VARIANTS = 5


def of_row_grid(loss: Loss, space: str) -> Found:
    """Return the largest errors on the tests' grid of rows."""
    found = {}
    for (kind, output), (ulp, _, _) in test_losses.worst_errors(loss, space).items():
        of_parts = (type(loss).__name__, space, output) in test_losses.CANCELLING
        cancels = (kind, output) == ("soft", "value") and test_losses.is_difference(loss, space)
        found[output, kind == "hard"] = Worst(math.inf if cancels else ulp, of_parts, None)
    return found


def of_list_grid(loss: ListwiseLoss, space: str) -> Found:
    """Return the largest errors over the tests' short lists and the places of earlier errors."""
    found: Found = {}
    cases = test_list_losses.short_lists(loss, space) + [
        test_list_losses.Case("index" if loss.label_kind == "index" else "one-hot", score, [float(y) for y in label])
        for other, place, score, label in test_list_losses.PLACES
        if (other, place) == (loss, space)
    ]
    with mpmath.workdps(PRECISION_DIGITS):
        for error in test_list_losses.errors_of(loss, space, cases):
            key = error.output, error.hard
            if error.ulp > found.get(key, Worst(-1.0, False, None)).ulp:
                found[key] = Worst(error.ulp, error.of_parts, None)
    return found


def measure(job: tuple[Any, str, int]) -> Found:
    """Return the largest errors of a loss in a space."""
    loss, space, samples = job
    is_list = isinstance(loss, ListwiseLoss)
    searched = (search.search_lists if is_list else search.search_rows)(loss, space, samples, seed=1)
    return larger(searched, of_list_grid(loss, space) if is_list else of_row_grid(loss, space))


def larger(one: Found, other: Found) -> Found:
    """Return the larger error of each column."""
    return {
        key: max((found[key] for found in (one, other) if key in found), key=lambda worst: worst.ulp)
        for key in (*one, *(key for key in other if key not in one))
    }


def render(samples: int, n_processes: int) -> str:
    """Measure every loss and return the page."""
    jobs: list[tuple[Any, str, int]] = []
    # Spaces that share a formula have the same errors, as far as their predictions are the same.
    users: list[list[tuple[str, str]]] = []
    places: dict[Any, int] = {}
    for case in (*test_losses.CASES, *test_list_losses.CASES):
        loss, space = case.values
        kind = "prob" if space in ("prob", "logprob") else "real"
        key = (loss, loss.formulas[space], kind, space if kind == "prob" else loss.prediction_range(space))
        if key not in places:
            places[key] = len(jobs)
            jobs.append((loss, space, samples if loss == type(loss)() else samples // PART_OF_VARIANTS))
            users.append([])
        users[places[key]].append((loss.name, space))
    with multiprocessing.get_context("spawn").Pool(n_processes) as pool:
        return page(zip(pool.map(measure, jobs, chunksize=1), users, strict=True), samples)


def page(measured: Iterable[tuple[Found, list[tuple[str, str]]]], samples: int) -> str:
    """Return the page of what was measured, for the losses and spaces that share it."""
    worst: dict[tuple[str, str], Found] = defaultdict(dict)
    for found, names in measured:
        for name in names:
            worst[name] = larger(worst[name], found)
    lines = [
        f"| `{name}` | {space} | {' | '.join(_cell(found.get(column)) for column in COLUMNS)} |\n"
        for (name, space), found in worst.items()
    ]
    return HEAD.format(digits=PRECISION_DIGITS, samples=samples) + "".join(lines)


def _cell(worst: Worst | None) -> str:
    if worst is None:
        return ""
    # Rounded up: no error that was found is larger than what is said.
    ulp = math.ceil(worst.ulp * 100.0) / 100.0 if worst.ulp < math.inf else math.inf
    return "cancels" if ulp == math.inf else f"{ulp:.2f}{'*' if worst.of_parts else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=SAMPLES, help="how many inputs of each loss the search tries")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many losses are tried at once")
    request = parser.parse_args()
    PAGE.write_text(render(request.samples, request.processes))
    print(PAGE)


if __name__ == "__main__":
    main()
