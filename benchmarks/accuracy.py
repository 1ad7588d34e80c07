"""Measures every loss against its definition and renders docs/accuracy.md.

Run from the root of the repository: ``python -m benchmarks.accuracy`` (some minutes). The table's figures depend on no
machine: every one computes the same bits.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mpmath

from tests import test_list_losses, test_losses
from tests.oracles.losses import PRECISION_DIGITS

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"

HEAD = """# Accuracy of the losses

The largest error of each loss on the tests' grid of hostile and random rows and lists, in units in the last place of
the exact value, which has {digits} digits. A hard label is 0, 1, −1 or a real number, a hard list one-hot or an index.
Rendered by `python -m benchmarks.accuracy`; the same on every machine.

A figure with a star is in units of the parts: the number is a difference by its own definition and passes through
zero, so that its error is that of what is subtracted; "cancels" stands where the square of such a difference has no
digits left to count. The tests hold values to 2 ULP for hard labels and 4 for soft ones, derivatives to 4, starred
figures to 6.

Metrics of rankings (`ndcg`, `map` and their kin) are held to 1 ULP of the exact mean over every order of tied
candidates, on random lists and on those that a search for counterexamples makes.

| loss | predictions | value, hard | value, soft | gradient, hard | hessian, hard |
|---|---|---:|---:|---:|---:|
"""

# Output and whether the label is hard, as the columns of the table.
COLUMNS = (("value", True), ("value", False), ("gradient", True), ("hessian", True))


class Worst(NamedTuple):
    """The largest error of an output, and whether it is in units of the parts."""

    ulp: float
    of_parts: bool


Found = dict[tuple[str, bool], Worst]


def rows_of_losses() -> Iterator[tuple[str, str, Found]]:
    for case in test_losses.CASES:
        loss, space = case.values
        found = {}
        for (kind, output), (ulp, _, _) in test_losses.worst_errors(loss, space).items():
            of_parts = (type(loss).__name__, space, output) in test_losses.CANCELLING
            cancels = (kind, output) == ("soft", "value") and test_losses.is_difference(loss, space)
            found[output, kind == "hard"] = Worst(math.inf if cancels else ulp, of_parts)
        yield loss.name, space, found


def rows_of_list_losses() -> Iterator[tuple[str, str, Found]]:
    for case in test_list_losses.CASES:
        loss, space = case.values
        found: Found = {}
        with mpmath.workdps(PRECISION_DIGITS):
            for error in test_list_losses.errors_of(loss, space, test_list_losses.short_lists(loss, space)):
                key = error.output, error.hard
                found[key] = max(found.get(key, Worst(0.0, False)), Worst(error.ulp, error.of_parts))
        yield loss.name, space, found


def render() -> str:
    worst: dict[tuple[str, str], Found] = defaultdict(dict)
    for rows in (rows_of_losses(), rows_of_list_losses()):
        for name, space, found in rows:
            known = worst[name, space]
            for key, error in found.items():
                known[key] = max(known.get(key, error), error)
    lines = [
        f"| `{name}` | {space} | {' | '.join(_cell(found.get(column)) for column in COLUMNS)} |\n"
        for (name, space), found in worst.items()
    ]
    return HEAD.format(digits=PRECISION_DIGITS) + "".join(lines)


def _cell(worst: Worst | None) -> str:
    if worst is None:
        return ""
    return "cancels" if worst.ulp == math.inf else f"{worst.ulp:.2f}{'*' if worst.of_parts else ''}"


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0]).parse_args()
    PAGE.write_text(render())
    print(PAGE)


if __name__ == "__main__":
    main()
