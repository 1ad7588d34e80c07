"""Predictions through calibration maps: columns that are made of others, computed by our own formulas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fastloss.columns.arrow import check_numeric_type, is_list_type, to_numbers
from fastloss.columns.base import Float64Array, NumberArray
from fastloss.errors import SchemaError, nearest_names
from fastloss.maps import Mapped
from fastloss_kernels.calibration import map_row, parameters_of_rate
from fastloss_kernels.domain import SPACES


@dataclass(frozen=True)
class MappedColumn:
    """A map of a column's numbers, bound to the columns of a log. It can be pickled.

    Attributes
    ----------
    mapped : Mapped
        The column and the map.
    """

    mapped: Mapped

    @property
    def text(self) -> str:
        """The column's name."""
        return self.mapped.name

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that it reads."""
        return (self.mapped.column,)

    @property
    def type(self) -> pa.DataType:
        """The type of its values."""
        return pa.float64()

    def evaluate(self, columns: Mapping[str, pa.Array]) -> pa.Array:
        """Return the mapped numbers; NaN for one outside the space, and null stays null.

        Raises
        ------
        DataError
            If a 64-bit integer is beyond 2**53 in magnitude.
        """
        values, valid = to_numbers(columns[self.mapped.column], self.mapped.column)
        return pa.array(self._map(values), mask=None if valid is None else ~valid)

    def _map(self, values: NumberArray) -> Float64Array:
        # Planning needs no compiler.
        from fastloss_kernels.cpu.pointwise import make_value

        map, space = self.mapped.map, self.mapped.space
        out = np.empty(len(values))
        if isinstance(map, float):
            make_value(map_row("sampling_rate", space))(values, values, parameters_of_rate(map, space), out)
        elif map.method == "isotonic":
            _interpolate(values, np.array(map.knots).T, out)
            low, high = SPACES[space]
            # What is no prediction of its space is none through a map.
            out[(values < low) | (values > high)] = np.nan
        else:
            make_value(map_row(map.method, space))(values, values, map.coefficients, out)
        return out


def _interpolate(values: NumberArray, knots: Float64Array, out: Float64Array) -> None:
    """Interpolate between knots, the first and the last of which hold beyond them."""
    scores, probabilities = knots
    if len(scores) == 1:
        out[:] = np.where(np.isnan(values), np.nan, probabilities[0])
        return
    x = np.clip(values.astype(np.float64), scores[0], scores[-1])
    left = np.clip(np.searchsorted(scores, x, side="right") - 1, 0, len(scores) - 2)
    low, high = probabilities[left], probabilities[left + 1]
    # Each operation is rounded by itself, so that no device contracts two of them.
    share = (x - scores[left]) / (scores[left + 1] - scores[left])
    out[:] = np.clip(low + share * (high - low), low, high)


def bind_map(mapped: Mapped, schema: pa.Schema) -> MappedColumn:
    """Bind a map to the columns of a log.

    Raises
    ------
    SchemaError
        If the log has no such column, or it does not hold one number a row.
    """
    if mapped.column not in schema.names:
        raise SchemaError(f"The log has no column {mapped.column!r}. {nearest_names(mapped.column, schema.names)}")
    kind = schema.field(mapped.column).type
    if is_list_type(kind):
        raise SchemaError(f"{mapped.name} maps one number a row, and column {mapped.column!r} holds lists.")
    check_numeric_type(mapped.column, kind)
    return MappedColumn(mapped)
