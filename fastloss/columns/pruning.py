"""What a filter says of rows that have not been read: partition keys decide it, and bounds may rule it out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastloss.columns.base import BoolArray
from fastloss.columns.expressions import Expression, comparison_of, joined_by

if TYPE_CHECKING:
    import polars as pl

_LEAST, _GREATEST = "least {}", "greatest {}"
# The comparison of literal and column, told as one of column and literal.
_MIRRORED: Mapping[Callable[[Any, Any], Any], Callable[[Any, Any], Any]] = {
    operator.lt: operator.gt,
    operator.le: operator.ge,
    operator.gt: operator.lt,
    operator.ge: operator.le,
    operator.eq: operator.eq,
}


@dataclass(frozen=True)
class Pruning:
    """The conditions of a filter, asked of many files or row groups at once.

    Attributes
    ----------
    where : tuple of Expression
        The conditions, all of which must hold.
    """

    where: tuple[Expression, ...]

    def keys_hold(self, keys: Mapping[str, pa.Array], n_files: int) -> BoolArray:
        """Return which files may hold a row that is kept, by their partition keys.

        Parameters
        ----------
        keys : mapping of str to pyarrow.Array
            The value of each partition key in each file.
        n_files : int
            How many files there are.
        """
        held = np.ones(n_files, dtype=np.bool_)
        for condition in self.where:
            if set(condition.columns) <= keys.keys():
                held &= condition.holds(keys).fill_null(False).to_numpy()
        return held

    @property
    def bounded(self) -> tuple[str, ...]:
        """The columns whose bounds may rule out a row group."""
        found: dict[str, None] = {}
        for condition in self.where:
            if _possibility(condition) is not None:
                found.update(dict.fromkeys(condition.columns))
        return tuple(found)

    def bounds_hold(self, bounds: Mapping[str, tuple[pa.Array, pa.Array]], n_row_groups: int) -> BoolArray:
        """Return which row groups may hold a row that is kept, by the bounds of their columns.

        Parameters
        ----------
        bounds : mapping of str to (pyarrow.Array, pyarrow.Array)
            The least and the greatest number or text of each row group, null where they are not known, for each of
            `bounded`.
        n_row_groups : int
            How many row groups there are.
        """
        import polars as pl

        held = np.ones(n_row_groups, dtype=np.bool_)
        columns = {}
        for name, (least, greatest) in bounds.items():
            columns[_LEAST.format(name)] = least
            columns[_GREATEST.format(name)] = greatest
        frame = pl.from_arrow(pa.table(columns))
        assert isinstance(frame, pl.DataFrame)
        for condition in self.where:
            possibility = _possibility(condition)
            if possibility is None:
                continue
            try:
                found = frame.select(possibility.fill_null(True)).to_series()
            except pl.exceptions.PolarsError:
                # Bounds that cannot be compared rule out nothing.
                continue
            held &= found.to_numpy()
        return held


def _possibility(condition: Expression) -> pl.Expr | None:
    """Return whether a condition may hold somewhere between bounds, as an expression of them; None if any row may."""
    if condition.polars is None:
        return None
    floats = {field.name for field in condition.schema if pa.types.is_floating(field.type)}
    return _possible(condition.polars, floats)


def _possible(node: pl.Expr, floats: set[str]) -> pl.Expr | None:
    import polars as pl

    if (both := joined_by(operator.and_, node)) is not None:
        parts = [part for part in (_possible(side, floats) for side in both) if part is not None]
        return pl.all_horizontal([part.fill_null(True) for part in parts]) if parts else None
    if (either := joined_by(operator.or_, node)) is not None:
        parts = [part for part in (_possible(side, floats) for side in either) if part is not None]
        return pl.any_horizontal([part.fill_null(True) for part in parts]) if len(parts) == 2 else None
    compared = comparison_of(node)
    if compared is None:
        return None
    compare, left, right = compared
    if right.meta.is_column() and left.meta.is_literal():
        compare, left, right = _MIRRORED[compare], right, left
    if not (left.meta.is_column() and right.meta.is_literal()):
        return None
    name = left.meta.output_name()
    least, greatest = pl.col(_LEAST.format(name)), pl.col(_GREATEST.format(name))
    # Polars orders NaN above every number, and bounds leave it out.
    above = None if name in floats else greatest
    possible: pl.Expr | None = None
    if compare in (operator.lt, operator.le):
        possible = compare(least, right)
    elif above is not None:
        possible = (least <= right) & (above >= right) if compare is operator.eq else compare(above, right)
    return possible
