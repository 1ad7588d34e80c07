"""The values of many slices, put together from parts: each slice is in one of them.

A part holds some thousand slices, all of whose statistics were there at once. What is kept of it are its values,
packed: an array of one number is that number, and an array that several metrics share is kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.metrics.base import MetricValues
from fastloss.metrics.evaluate import GroupingValues, ModelValues
from fastloss.states.slices import KeyColumn, join_keys, keys_bytes, order_of, take_keys

# The place of an array: the number of its metric and model, what it is, and of evidence its name.
_Place = tuple[int, str, str]


class _Constant(NamedTuple):
    """An array of one number."""

    number: np.generic


class Part(NamedTuple):
    """The values of some slices, packed, in the order of their keys."""

    n_slices: int
    keys: list[KeyColumn]
    arrays: dict[_Place, NDArray[Any] | _Constant]
    words: dict[_Place, str]
    # The names of the evidence, and the reasons, of each metric and model.
    evidence: list[list[str]]
    reasons: list[list[str]]
    # What it takes, with a position for each slice.
    nbytes: int


def pack(values: GroupingValues) -> Part:
    """Pack the values of the slices that have rows."""
    order = values.order
    packed = _Packed(order)
    words: dict[_Place, str] = {}
    for number, column in enumerate(values.columns):
        for what, name, array in _arrays_of(column):
            packed.add((number, what, name), array)
        texts = {n: found for n, found in column.values.evidence.items() if isinstance(found, str)}
        words |= {(number, "evidence", name): word for name, word in texts.items()}
    keys = [take_keys(column, order) for column in values.key_columns]
    reasons = [list(column.values.reasons) for column in values.columns]
    nbytes = packed.nbytes + sum(map(keys_bytes, keys)) + order.nbytes
    evidence = [list(column.values.evidence) for column in values.columns]
    return Part(len(order), keys, packed.arrays, words, evidence, reasons, nbytes)


class GroupingParts:
    """Puts the values of a grouping together. One thread at a time may add to it.

    Parameters
    ----------
    empty : GroupingValues
        The values of no slice.
    """

    def __init__(self, empty: GroupingValues) -> None:
        self._empty = empty
        self._parts: list[Part] = []
        self._words: dict[_Place, str] = {}
        self.n_slices = 0
        self.nbytes = 0

    def add(self, part: Part) -> None:
        """Add some slices."""
        if part.n_slices:
            self._parts.append(part)
            self._words |= part.words
            self.n_slices += part.n_slices
            self.nbytes += part.nbytes

    def joined(self, restored: Callable[[list[KeyColumn]], list[KeyColumn]] = list) -> GroupingValues:
        """Return the values of all slices, in the order of their keys. The parts are given up.

        `restored` returns the keys that stand for those of the parts.
        """
        parts, self._parts = self._parts, []
        if not parts:
            return self._empty
        keys = [join_keys([part.keys[number] for part in parts]) for number in range(len(self._empty.keys))]
        for part in parts:
            part.keys.clear()
        keys = restored(keys)
        arrays = _Arrays(parts)
        columns = [self._column(parts, arrays, number, column) for number, column in enumerate(self._empty.columns)]
        return GroupingValues(self._empty.keys, keys, order_of(keys), columns)

    def _column(self, parts: Sequence[Part], arrays: _Arrays, number: int, empty: ModelValues) -> ModelValues:
        reasons = list(dict.fromkeys(["", *(word for part in parts for word in part.reasons[number])]))
        reason = arrays.recoded((number, "reason", ""), [part.reasons[number] for part in parts], reasons)
        evidence: dict[str, NDArray[Any] | str] = {}
        absent: dict[str, NDArray[np.bool_]] = {}
        for name in dict.fromkeys(name for part in parts for name in part.evidence[number]):
            place = (number, "evidence", name)
            if place in self._words:
                evidence[name] = self._words[place]
                continue
            gaps = arrays.gaps(place, (number, "absent", name))
            if gaps is not None:
                absent[name] = gaps
            evidence[name] = arrays.joined(place, missing=0)
        values = MetricValues(
            arrays.joined((number, "value", "")),
            empty.values.rows,
            arrays.joined((number, "undefined", "")),
            reason,
            reasons,
            evidence,
            absent,
        )
        n, weight = (arrays.joined((number, what, "")) for what in ("n", "weight"))
        return ModelValues(empty.metric, empty.model, values, n, weight)


def _arrays_of(column: ModelValues) -> Iterator[tuple[str, str, NDArray[Any]]]:
    values = column.values
    yield "value", "", values.value
    yield "undefined", "", values.undefined
    yield "reason", "", values.reason
    yield "n", "", column.n
    yield "weight", "", column.weight
    for name, found in values.evidence.items():
        if not isinstance(found, str):
            yield "evidence", name, found
    for name, gaps in values.absent.items():
        yield "absent", name, gaps


class _Packed:
    """The arrays of a part, in the order of its slices, each once."""

    def __init__(self, order: NDArray[np.int64]) -> None:
        self._order = order
        # An array is kept beside what it was packed to, so that its identity stays its own.
        self._known: dict[int, tuple[NDArray[Any], NDArray[Any] | _Constant]] = {}
        self.arrays: dict[_Place, NDArray[Any] | _Constant] = {}
        self.nbytes = 0

    def add(self, place: _Place, array: NDArray[Any]) -> None:
        if len(self._order) and id(array) not in self._known:
            taken: NDArray[Any] = array[self._order]
            bits = taken.view(f"u{taken.itemsize}")
            if (bits == bits[0]).all():
                self._known[id(array)] = array, _Constant(taken[0])
            else:
                self._known[id(array)] = array, taken
                self.nbytes += taken.nbytes
        if len(self._order):
            self.arrays[place] = self._known[id(array)][1]


class _Arrays:
    """The arrays of all parts, joined: what is one array in each of them is one again, and one number stays one.

    Each array is given up by the parts as it is joined.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._n_slices = sum(part.n_slices for part in parts)
        self._known: dict[tuple[object, ...], NDArray[Any]] = {}

    def joined(self, place: _Place, missing: int = 0) -> NDArray[Any]:
        """Return an array of all slices; `missing` is the number in parts that do not have it."""
        found = [part.arrays.pop(place, None) for part in self._parts]
        dtype = next(_dtype(array) for array in found if array is not None)
        instead = _Constant(dtype.type(missing))
        return self._shared([instead if array is None else array for array in found])

    def gaps(self, place: _Place, absent: _Place) -> NDArray[np.bool_] | None:
        """Return which slices lack a number: as their part says, and all of a part that does not have it."""
        lacking = [place not in part.arrays for part in self._parts]
        found = [part.arrays.pop(absent, None) for part in self._parts]
        if not any(lacking) and all(gaps is None for gaps in found):
            return None
        instead = [_Constant(np.bool_(lacks)) for lacks in lacking]
        return self._shared([other if gaps is None else gaps for gaps, other in zip(found, instead, strict=True)])

    def recoded(self, place: _Place, words: Sequence[Sequence[str]], known: Sequence[str]) -> NDArray[np.int16]:
        """Return codes of `words`, which are those of each part, as codes of the known ones."""
        recoded: list[NDArray[Any] | _Constant] = []
        for part, own in zip(self._parts, words, strict=True):
            code_of = np.array([known.index(word) for word in own], dtype=np.int16)
            codes = part.arrays.pop(place)
            if isinstance(codes, _Constant):
                recoded.append(_Constant(np.int16(code_of[np.asarray(codes.number)])))
            else:
                recoded.append(code_of[codes])
        return self._joined(recoded)

    def _shared(self, found: Sequence[NDArray[Any] | _Constant]) -> NDArray[Any]:
        # No array of a part was made after one that is given up, so that their identities are their own.
        numbers = (array.number.tobytes() if isinstance(array, _Constant) else id(array) for array in found)
        key = (_dtype(found[0]), *numbers)
        if key not in self._known:
            self._known[key] = self._joined(found)
        return self._known[key]

    def _joined(self, found: Sequence[NDArray[Any] | _Constant]) -> NDArray[Any]:
        dtype = _dtype(found[0])
        numbers = {array.number.tobytes() if isinstance(array, _Constant) else None for array in found}
        if len(numbers) == 1 and isinstance(found[0], _Constant):
            return np.broadcast_to(np.asarray(found[0].number), self._n_slices)
        joined = np.empty(self._n_slices, dtype=dtype)
        first = 0
        for part, array in zip(self._parts, found, strict=True):
            joined[first : first + part.n_slices] = array.number if isinstance(array, _Constant) else array
            first += part.n_slices
        return joined


def _dtype(array: NDArray[Any] | _Constant) -> np.dtype[Any]:
    return array.number.dtype if isinstance(array, _Constant) else array.dtype
