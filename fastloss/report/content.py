"""The content of reports: the plain values that `Result.shown` returns, also those of a stored result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastloss.states.ledger import Ledger

if TYPE_CHECKING:
    from fastloss.scan import SkippedTask

# A longer list of slices is no longer read by a person.
DEFAULT_SLICES = 50


def dropped_rows(ledger: Ledger) -> list[dict[str, Any]]:
    """Return the causes for which rows were dropped: of each the column, the number of rows, and the first's place."""
    return [
        {
            "cause": cause.name,
            "column": cause.column,
            "role": cause.role,
            "rows": count,
            "first": ledger.first[cause].describe(),
        }
        for cause, count in sorted(ledger.dropped.items())
    ]


def skipped_parts(skipped: Iterable[SkippedTask]) -> list[dict[str, Any]]:
    """Return the parts of a log that could not be read."""
    return [{"file": s.file, "row_group": s.row_group, "rows": s.n_rows, "cause": s.cause} for s in skipped]


def count_of(n: int, noun: str) -> str:
    """Write a number of things, such as "1 row" or "2,000 rows"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
