"""Buckets of numbers: a function around an expression, whose values are the intervals that its numbers lie in.

``cut(x, 0, 10)`` has the edges that it names, ``qcut(x, 10)`` those at the quantiles of the log,
``width_bucket(x, 0.1)`` the multiples of a width, ``log_bucket(x, 10)`` the powers of a number. An interval holds its
lower edge and not its upper one. An edge is the number, of the column's type, that is nearest to the decimal in the
interval's name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastloss.columns.arrow import to_numbers
from fastloss.columns.base import IntegerArray
from fastloss.columns.expressions import Expression, bind
from fastloss.errors import SchemaError
from fastloss.expressions import PolarsExpression, bucket_call, refusal, refuse_queries

Floats = NDArray[np.float64]
# The bucket of what is no number; as a key it comes after all intervals.
NAN = "NaN"
MOST_EDGES = 1000
_TYPE = pa.dictionary(pa.int32(), pa.string())
_NUMBER = re.compile(r"[+-]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_NARROWEST, _WIDEST = Decimal("1e-250"), Decimal("1e250")
_LARGEST_BASE = 1000
# float64 holds integers up to here, and their quotient is rounded once.
_EXACT_INTEGER = 2**53
# Counting which buckets occur pays where there are at most so many.
_FEW_BUCKETS = 1 << 12


class Buckets(Protocol):
    """Intervals that hold every number."""

    def numbers_of(self, values: Floats) -> IntegerArray:
        """Return the number of each value's bucket."""

    def label(self, number: int) -> str:
        """Return the interval of a bucket."""


@dataclass(frozen=True)
class Edges:
    """Buckets between edges, and beyond the first and the last.

    Attributes
    ----------
    edges : tuple of float
        The edges, ascending.
    kind : str
        The type of the numbers, as NumPy calls it.
    """

    edges: tuple[float, ...]
    kind: str

    def numbers_of(self, values: Floats) -> IntegerArray:
        """Return how many edges are at most each value."""
        return np.searchsorted(stored_as(self.kind, self.edges), values, side="right")

    def label(self, number: int) -> str:
        """Return the interval of a bucket."""
        first = "(-inf" if number == 0 else f"[{number_text(self.edges[number - 1])}"
        return f"{first}, {'inf' if number == len(self.edges) else number_text(self.edges[number])})"


@dataclass(frozen=True)
class Widths:
    """Buckets of equal width, one of which begins at 0.

    From 10**15 of them on (float32: 10**6), where edges are no further apart than numbers, there is one bucket.

    Attributes
    ----------
    width : Decimal
        The width as it was written.
    kind : str
        The type of the numbers, as NumPy calls it.
    """

    width: Decimal
    kind: str

    @cached_property
    def _ratio(self) -> tuple[int, int]:
        return self.width.as_integer_ratio()

    @cached_property
    def _most(self) -> int:
        return int(10 ** int(-np.log10(np.finfo(self.kind).eps)))

    def numbers_of(self, values: Floats) -> IntegerArray:
        """Return the multiple of the width at which each bucket begins."""
        most = self._most
        with np.errstate(all="ignore"):
            # At most one off: quotient and edges are rounded by less than half a width together.
            numbers = np.clip(np.floor(values / float(self.width)), -most - 1, most).astype(np.int64)
        below, above = values < self._edges(numbers), values >= self._edges(numbers + 1)
        return np.clip(numbers - below + above, -most - 1, most)

    def _edges(self, numbers: IntegerArray) -> Floats:
        """Return the edges at which buckets begin."""
        numerator, denominator = self._ratio
        largest = int(np.abs(numbers).max(initial=0)) * numerator
        if largest <= _EXACT_INTEGER and denominator <= _EXACT_INTEGER:
            return stored_as(self.kind, (numbers * numerator).astype(np.float64) / denominator)
        different, position = np.unique(numbers, return_inverse=True)
        return stored_as(self.kind, [self._edge(number) for number in different.tolist()])[position]

    def _edge(self, number: int) -> float:
        numerator, denominator = self._ratio
        # Python rounds a quotient of integers once.
        return number * numerator / denominator

    def label(self, number: int) -> str:
        """Return the interval of a bucket."""
        first = "(-inf" if number < -self._most else f"[{number_text(self._edge(number))}"
        return f"{first}, {'inf' if number == self._most else number_text(self._edge(number + 1))})"


@dataclass(frozen=True)
class Powers:
    """Buckets between the powers of a number, and those of the negative numbers likewise; 0 is a bucket of its own.

    Attributes
    ----------
    base : int
        The number.
    kind : str
        The type of the numbers, as NumPy calls it.
    """

    base: int
    kind: str

    @cached_property
    def _powers(self) -> list[float]:
        """The powers that float64 holds, ascending."""
        small, large = [], []
        power = self.base
        while (quotient := 1 / power) > 0.0:
            small.append(quotient)
            power *= self.base
        power = 1
        while power <= int(sys.float_info.max):
            large.append(float(power))
            power *= self.base
        return [*reversed(small), *large]

    def numbers_of(self, values: Floats) -> IntegerArray:
        """Return numbers that are 0 for 0, and above it one more than the powers that are at most a value."""
        powers, sizes = stored_as(self.kind, self._powers), np.abs(values)
        positive = 1 + np.searchsorted(powers, sizes, side="right")
        negative = -1 - np.searchsorted(powers, sizes, side="left")
        return np.where(values > 0.0, positive, np.where(values < 0.0, negative, 0))

    def label(self, number: int) -> str:
        """Return the interval of a bucket."""
        if number == 0:
            return "[0, 0]"
        powers, nearer = [number_text(power) for power in self._powers], abs(number) - 1
        low = powers[nearer - 1] if nearer else "0"
        high = powers[nearer] if nearer < len(powers) else "inf"
        if number > 0:
            return f"{'[' if nearer else '('}{low}, {high})"
        return f"{'(' if high == 'inf' else '['}-{high}, {'-' if nearer else ''}{low})"


@dataclass(frozen=True)
class Quantiles:
    """Buckets between quantiles of the log, which are to be found.

    Attributes
    ----------
    n : int
        How many buckets there are, where no values are equal.
    kind : str
        The type of the numbers, as NumPy calls it.
    """

    n: int
    kind: str

    def numbers_of(self, values: Floats) -> IntegerArray:
        """Raise an error: `Bucketed.with_edges` comes first."""
        raise AssertionError("the quantiles are not known")

    def label(self, number: int) -> str:
        """Raise an error: `Bucketed.with_edges` comes first."""
        raise AssertionError("the quantiles are not known")


@dataclass(frozen=True)
class Bucketed:
    """Buckets of an expression's numbers, bound to the columns of a log. It can be pickled.

    Attributes
    ----------
    text : str
        What the user wrote.
    inner : Expression
        The numbers.
    buckets : Buckets
        The intervals.
    """

    text: str
    inner: Expression
    buckets: Buckets

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return self.inner.columns

    @property
    def type(self) -> pa.DataType:
        """The type of its values: texts."""
        return _TYPE

    def with_edges(self, edges: Sequence[float]) -> Bucketed:
        """Return the same with the quantiles that were found."""
        assert isinstance(self.buckets, Quantiles)
        return replace(self, buckets=Edges(tuple(edges), self.buckets.kind))

    def evaluate(self, columns: Mapping[str, pa.Array]) -> pa.Array:
        """Return the interval of each row, as a dictionary of those that occur; null where there is no value.

        Raises
        ------
        DataError
            If Polars cannot evaluate a row, or a 64-bit integer is beyond 2**53 in magnitude.
        """
        found, valid = to_numbers(self.inner.evaluate(columns), self.inner.text)
        values = found.astype(np.float64, copy=False)
        is_nan = np.isnan(values)
        is_number = ~is_nan if valid is None else valid & ~is_nan
        codes = np.zeros(len(values), dtype=np.int32)
        numbers, codes[is_number] = _distinct(self.buckets.numbers_of(values[is_number]))
        labels = [self.buckets.label(number) for number in numbers]
        if is_nan.any():
            codes[is_nan] = len(labels)
            labels.append(NAN)
        indices = pa.array(codes, mask=None if valid is None else ~valid)
        return pa.DictionaryArray.from_arrays(indices, pa.array(labels, pa.string()))


def _distinct(numbers: IntegerArray) -> tuple[list[int], IntegerArray]:
    """Return the numbers that occur, ascending, and the place of each among them."""
    if not len(numbers):
        return [], numbers
    first = int(numbers.min())
    if int(numbers.max()) - first >= _FEW_BUCKETS:
        found, places = np.unique(numbers, return_inverse=True)
        return found.tolist(), places
    present = np.bincount(numbers - first) > 0
    return (np.flatnonzero(present) + first).tolist(), (np.cumsum(present) - 1)[numbers - first]


def stored_as(kind: str, numbers: Sequence[float] | Floats) -> Floats:
    """Return numbers rounded to a type of floats, as float64."""
    with np.errstate(over="ignore"):
        return np.asarray(numbers, dtype=np.float64).astype(kind).astype(np.float64)


def number_text(number: float) -> str:
    """Return the shortest decimal that reads back as a number, such as 0.3, 10 or 1e-9."""
    mantissa, e, exponent = repr(number + 0.0).removesuffix(".0").partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if e else mantissa


# ---------------------------------------------------------------------------------------------------------------
# Binding


def bind_buckets(given: str | PolarsExpression, schema: pa.Schema) -> Bucketed | None:
    """Bind buckets to the columns of a log; None for any other expression.

    Raises
    ------
    UsageError
        If the arguments are none that the function has, or the numbers' expression is refused.
    SchemaError
        If the expression does not fit the log, or gives no numbers.
    """
    call = None if isinstance(given, PolarsExpression) else bucket_call(given)
    if call is None:
        return None
    assert isinstance(given, str)
    refuse_queries(given)
    name, (numbers, *arguments) = call
    make, usage = _FUNCTIONS[name]
    if not numbers or not all(arguments):
        raise refusal(given, f"an argument is missing; write {usage}")
    inner = bind(numbers, schema)
    kind = inner.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise SchemaError(f"Expression {given!r}: {numbers} gives {kind}, and buckets are of numbers.")
    stored = np.dtype(kind.to_pandas_dtype() if pa.types.is_floating(kind) else np.float64)
    return Bucketed(given, inner, make(given, usage, arguments, stored.name))


def _edges(text: str, usage: str, arguments: Sequence[str], kind: str) -> Edges:
    if not 1 <= len(arguments) <= MOST_EDGES:
        raise refusal(text, f"it has {len(arguments):,} edges; allowed: 1 to {MOST_EDGES:,}: {usage}")
    edges = [float(_decimal(text, "an edge", argument)) + 0.0 for argument in arguments]
    for first, second, argument in zip(edges, edges[1:], arguments[1:], strict=False):
        if not first < second:
            raise refusal(text, f"the edge {argument} is not above the one before it; write edges in ascending order")
    if not np.isfinite(edges).all():
        raise refusal(
            text, "an edge is beyond the largest float64; what lies beyond the last edge has a bucket anyway"
        )
    return Edges(tuple(edges), kind)


def _width(text: str, usage: str, arguments: Sequence[str], kind: str) -> Widths:
    if len(arguments) != 1:
        raise refusal(text, f"it has {len(arguments)} arguments after the expression; allowed: one width: {usage}")
    width = _decimal(text, "the width", arguments[0])
    if not _NARROWEST <= width <= _WIDEST:
        raise refusal(text, f"the width is {arguments[0]}; allowed: above 0, from 1e-250 to 1e250")
    return Widths(width, kind)


def _powers(text: str, usage: str, arguments: Sequence[str], kind: str) -> Powers:
    if len(arguments) > 1:
        raise refusal(text, f"it has {len(arguments)} arguments after the expression; allowed: one base: {usage}")
    return Powers(_whole(text, "the base", arguments[0], 2, _LARGEST_BASE) if arguments else 10, kind)


def _quantiles(text: str, usage: str, arguments: Sequence[str], kind: str) -> Quantiles:
    if len(arguments) != 1:
        raise refusal(
            text, f"it has {len(arguments)} arguments after the expression; allowed: one number of buckets: {usage}"
        )
    return Quantiles(_whole(text, "the number of buckets", arguments[0], 1, MOST_EDGES), kind)


_FUNCTIONS: Mapping[str, tuple[Callable[[str, str, Sequence[str], str], Buckets], str]] = {
    "cut": (_edges, "cut(price, 0, 10, 100)"),
    "qcut": (_quantiles, "qcut(score, 10)"),
    "width_bucket": (_width, "width_bucket(score, 0.1)"),
    "log_bucket": (_powers, "log_bucket(price, 10)"),
}


def _decimal(text: str, what: str, argument: str) -> Decimal:
    if not _NUMBER.fullmatch(argument):
        raise refusal(text, f"{what} is {argument}; allowed: a number, such as 0.1 or -1e3")
    return Decimal("".join(argument.split()))


def _whole(text: str, what: str, argument: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", argument) or not least <= int(argument) <= most:
        raise refusal(text, f"{what} is {argument}; allowed: a whole number from {least} to {most:,}")
    return int(argument)
