"""Histograms of scores by label: the state behind metrics of ranking over a whole log.

A histogram keeps the positive mass Σw·y and the weight Σw of every bucket of scores that occurs, exactly. While the
different scores are few, each is a bucket of its own. Beyond that a bucket is the leading bits of a score: 27 of the
64 at first (sign, exponent and 15 bits of the fraction), fewer where those buckets are too many as well. How many
bits are dropped is a function of the merged data alone: the fewest whose buckets fit. The first `slice_buckets` of
each slice do not count in that, so that many slices of few rows stay fine. The buckets of a part are some of the
whole's, in every slice, so a part never drops more bits than the whole, and results are the same for every order and
partition.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, RowSet, SliceRuns, grown
from fastloss.states.cumulated import Cumulated, cumulate, parts_of
from fastloss_kernels.cpu import histogram as loops
from fastloss_kernels.cpu.histogram import LOG2_MOST_ROWS, MOST_DROPPED_BITS, UNIT_DIGIT
from fastloss_kernels.exact_sum import LOWEST_EXPONENT

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
# Bucket, slice and masses of cells.
_Cells = tuple[Integers, Integers, Words]

# The first level of buckets has 27 bits: histograms of float32 logits then leave ROC AUC uncertain by 5e-6 to 2e-5.
FIRST_DROPPED_BITS = 37
# Of different scores (131,072 of unweighted rows), and of buckets (262,144).
SCORE_BYTES = 4 << 20
BUCKET_BYTES = 8 << 20
# What they take with their index.
MOST_HISTOGRAM_BYTES = BUCKET_BYTES * 3 // 2
# Many slices of few rows each keep their scores apart.
SLICE_BUCKETS = 64
# Buckets in a page, and pages at first.
_PAGE_BITS = 6
_SMALLEST_ROOM = 64
_MAGNITUDE_MASK = 0x7FFF_FFFF_FFFF_FFFF
_NO_ROWS: Integers = np.empty(0, dtype=np.int64)
_NO_WEIGHTS: Floats = np.empty(0)
_EVERY_BUCKET: Integers = np.frombuffer(b"", dtype=np.int64)


@dataclass(frozen=True)
class Buckets:
    """A set of buckets: those of scores without their low `dropped_bits`, as a bit for each in little-endian words."""

    dropped_bits: int
    words: bytes


@dataclass(frozen=True)
class ScoreHistogram:
    """Positive mass and weight by score, in bounded memory.

    Attributes
    ----------
    rows : RowSet
        The rows that it takes.
    score_bytes, bucket_bytes : int
        How many bytes all slices may take while each score is a bucket of its own, and after that; 16 a bucket, and 16
        for each digit of its masses, of which counts have one and weights two as a rule.
    slice_buckets : int
        How many buckets each slice may have besides.
    only : Buckets or None
        The buckets whose rows count; None is all.
    """

    rows: RowSet
    score_bytes: int = SCORE_BYTES
    bucket_bytes: int = BUCKET_BYTES
    slice_buckets: int = SLICE_BUCKETS
    only: Buckets | None = None

    @property
    def name(self) -> str:
        """The name in state files."""
        return "score histogram" if self.only is None else f"score histogram {zlib.crc32(self.only.words):08x}"

    @property
    def bytes_per_slice(self) -> int:
        """About what a slice's own buckets take, with their index."""
        return 48 * self.slice_buckets

    @property
    def most_bytes(self) -> int:
        """The most bytes of all slices together, with the index, beside the buckets that each may have."""
        return max(self.score_bytes, self.bucket_bytes) * 3 // 2

    def identity(self) -> ScoreHistogramColumn:
        """Return the histogram of no rows."""
        column = ScoreHistogramColumn(self.score_bytes, self.bucket_bytes, self.slice_buckets)
        if self.only is not None:
            column.keep_only(self.only)
        return column


@dataclass(frozen=True)
class PairCounts:
    """Sums over pairs of a positive and a negative of one slice, in units that cancel: exact integers.

    Attributes
    ----------
    apart : int
        Pairs whose positive is in the higher bucket.
    together : int
        Pairs that share a bucket.
    positive, negative : int
        The masses of both classes.
    """

    apart: int
    together: int
    positive: int
    negative: int


@dataclass(frozen=True)
class ScoreHistograms:
    """The histograms of many slices.

    Attributes
    ----------
    dropped_bits : int
        How many low bits of a score a bucket ignores; at 0 every bucket is one score.
    low_digit : int
        The lowest digit of the masses, of a number that begins at 2^`LOWEST_EXPONENT`.
    starts : ndarray of int64, (n_slices + 1,)
        Where each slice's buckets begin.
    buckets : ndarray of int64, (n_buckets,)
        Ordered bits of the scores, without the dropped ones; ascending in each slice.
    masses : ndarray of uint64, (n_buckets, 2 * n_digits)
        Positive mass and weight, digits of 64 bits, the lowest first.
    """

    dropped_bits: int
    low_digit: int
    starts: Integers
    buckets: Integers
    masses: Words

    def score_bounds(self) -> tuple[Floats, Floats]:
        """Return the lowest and the highest score that each bucket may hold, float64 ``(n_buckets,)``."""
        lowest = self.buckets << self.dropped_bits
        highest = lowest + ((1 << self.dropped_bits) - 1)
        # No score is −0, which would be the highest below 0.
        highest[highest == -1] = -2
        least, most = ordered_bits_of(np.array([-np.inf, np.inf]))
        return scores_of(np.clip(lowest, least, most)), scores_of(np.clip(highest, least, most))

    def masses_as_float(self) -> tuple[Floats, Floats]:
        """Return the positive mass and the weight of each bucket, float64 ``(n_buckets,)``, each to within one ulp."""
        n_digits = self.masses.shape[1] // 2
        found = np.zeros((2, len(self.buckets)))
        # From the highest digit on, so that each addition rounds what the next ones are small beside.
        for digit in reversed(range(n_digits)):
            exponent = 64 * (self.low_digit + digit) + LOWEST_EXPONENT
            found[0] += np.ldexp(self.masses[:, digit].astype(np.float64), exponent)
            found[1] += np.ldexp(self.masses[:, n_digits + digit].astype(np.float64), exponent)
        return found[0], found[1]

    def cumulated(self) -> Iterator[Cumulated]:
        """Yield the points of the curves of all slices, some slices at a time."""
        # Masses of whole numbers are those of rows, each at least 1.
        unit = 1.0 if self.low_digit == UNIT_DIGIT and self.masses.shape[1] == 2 else 0.0
        for first, stop in parts_of(self.starts):
            begin, end = self.starts[first], self.starts[stop]
            starts, buckets = self.starts[first : stop + 1] - begin, self.buckets[begin:end]
            part = ScoreHistograms(self.dropped_bits, self.low_digit, starts, buckets, self.masses[begin:end])
            yield cumulate(starts, part.score_bounds()[0], part.masses, unit)

    def units(self) -> Integers:
        """Return the highest digit of the weights of each slice, int64 ``(n_slices,)``; 0 for a slice without any."""
        n_digits = self.masses.shape[1] // 2
        highest = n_digits - 1 - np.argmax(self.masses[:, : n_digits - 1 : -1] != 0, axis=1)
        found = np.zeros(len(self.starts) - 1, dtype=np.int64)
        slices = np.repeat(np.arange(len(found)), np.diff(self.starts))
        np.maximum.at(found, slices, self.low_digit + highest)
        return found

    def masses_in_parts(self, units: Integers) -> tuple[Floats, Floats, Floats, Floats]:
        """Return positive mass and weight of each bucket as hi and lo each, relative to a digit of its slice.

        Parameters
        ----------
        units : ndarray of int64, (n_slices,)
            The digit of each slice that counts single units. With that of its highest weight, as `units` returns, no
            product of two sums overflows, and what is lost is nothing beside the slice.
        """
        n_digits = self.masses.shape[1] // 2
        of = np.repeat(units, np.diff(self.starts))
        parts: list[Floats] = []
        for first in (0, n_digits):
            hi, lo = np.zeros(len(self.buckets)), np.zeros(len(self.buckets))
            for digit in reversed(range(n_digits)):
                mass = self.masses[:, first + digit]
                exponent = 64 * (self.low_digit + digit - of)
                for half, shift in ((mass >> np.uint64(32), 32), (mass & np.uint64(0xFFFF_FFFF), 0)):
                    term = np.ldexp(half.astype(np.float64), exponent + shift)
                    total = hi + term
                    virtual = total - hi
                    lo += (hi - (total - virtual)) + (term - virtual)
                    hi = total
            parts += [hi + lo, lo - ((hi + lo) - hi)]
        return parts[0], parts[1], parts[2], parts[3]

    def count_pairs(self, within: int = 64) -> list[PairCounts]:
        """Return each slice's pairs; with `within`, of those buckets only that share all but their low bits.

        `within` counts bits of the score, from `dropped_bits` on; 64 is all pairs.
        """
        n_slices, n_digits = len(self.starts) - 1, self.masses.shape[1] // 2
        apart, together = (np.zeros((n_slices, 4 * n_digits), dtype=np.uint64) for _ in range(2))
        positive, negative = (np.zeros((n_slices, 2 * n_digits), dtype=np.uint64) for _ in range(2))
        bits = 64 if within == 64 else within - self.dropped_bits
        loops.make_count_pairs()(self.starts, self.buckets, self.masses, bits, apart, together, positive, negative)
        return [PairCounts(*sums) for sums in zip(*map(_integers, (apart, together, positive, negative)), strict=True)]

    def mixed_buckets(self) -> Buckets:
        """Return the buckets that hold both classes, in all slices together; of 27 bits or fewer."""
        dropped = max(self.dropped_bits, FIRST_DROPPED_BITS)
        positive, negative = (np.zeros(max(1, 1 << (64 - dropped) >> 6), dtype=np.int64) for _ in range(2))
        shift = dropped - self.dropped_bits
        loops.make_mark_classes()(self.buckets, self.masses, shift, dropped, positive, negative)
        return Buckets(dropped, (positive & negative).astype("<i8", copy=False).tobytes())


class ScoreHistogramColumn:
    """Histograms of scores of many slices, in one table of buckets that all slices share.

    Pages of 64 buckets are found faster than single ones. They are used from the first level of buckets on, unless
    scores are so scattered that pages would take more memory; what the histogram holds is the same.
    """

    def __init__(self, score_bytes: int, bucket_bytes: int, slice_buckets: int) -> None:
        self.n_slices = 0
        self.dropped_bits = 0
        self._score_bytes = score_bytes
        self._bucket_bytes = bucket_bytes
        self._slice_buckets = slice_buckets
        self._low_digit = UNIT_DIGIT
        self._n_digits = 1
        self._only = _EVERY_BUCKET
        self._only_dropped_bits = 0
        self._page_bits = 0
        # The cells of each slice.
        self._used: Integers = np.zeros(1, dtype=np.int64)
        # Pages in use, cells beside those that every slice may have, and whether there are as many as there may be.
        self._counts: Integers = np.zeros(3, dtype=np.int64)
        self._slots: NDArray[np.int32]
        self._keys: Integers
        self._cells: Words
        self._clear(0)

    @property
    def n_buckets(self) -> int:
        """How many buckets of slices occur."""
        return int(self._used.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the cells and their index."""
        return self._cells.nbytes + self._keys.nbytes + self._slots.nbytes + self._used.nbytes

    def keep_only(self, buckets: Buckets) -> None:
        """Leave out rows of other buckets from now on."""
        self._only = _read_only(np.frombuffer(buckets.words, dtype="<i8"), np.int64)
        self._only_dropped_bits = buckets.dropped_bits

    def resize(self, n_slices: int) -> None:
        """Have at least so many slices; new ones are empty."""
        if n_slices > len(self._used):
            self._used = grown(self._used, self.n_slices, n_slices)
        self.n_slices = max(self.n_slices, n_slices)

    def add_rows(self, score: NDArray[Any], label: NDArray[Any], weight: NDArray[Any] | None, runs: SliceRuns) -> None:
        """Add each row to its slice.

        Labels lie in [0, 1] and weights, where there are any, above 0; a label y of weight w is a positive of w·y and
        a negative of w·(1 − y).
        """
        # Kernels are compiled for arrays of one kind.
        scores, labels = (_read_only(values, np.float64) for values in (score, label))
        weights = _read_only(_NO_WEIGHTS if weight is None else weight, np.float64)
        lowest, highest = loops.make_mass_bits()(labels, weights)
        # Room for the sum of as many masses of this size as there may be rows.
        self._set_window(lowest >> 6, (highest + LOG2_MOST_ROWS >> 6) + 1)
        order = _read_only(_NO_ROWS if runs.order is None else runs.order, np.int64)
        positions = _read_only(runs.positions, np.int64)
        starts = _read_only(np.arange(len(positions) + 1) if runs.starts is None else runs.starts, np.int64)
        at = np.zeros(2, dtype=np.int64)
        while True:
            loops.make_add_scores()(
                scores, labels, weights, order, starts, positions, at, self._form(), self._only,
                self._used, self._counts, self._slots, self._keys, self._cells.reshape(-1),
            )  # fmt: skip
            if at[0] == len(positions):
                return
            self._make_room()

    def merge(self, other: ScoreHistogramColumn, positions: Integers) -> None:
        """Add slice i of another column to slice ``positions[i]``; the other stays as it is."""
        self._set_window(other._low_digit, other._low_digit + other._n_digits)
        if other.dropped_bits > self.dropped_bits:
            self._drop_bits(other.dropped_bits)
        given = other._list_cells(by_slot=True)
        if not self._page_bits:
            # Different scores, most of them new: room is made once.
            wanted = min(int(self._counts[0]) + len(given[0]), self._most_pages())
            if wanted > len(self._keys):
                self._reserve(max(wanted, min(len(self._keys) * 3 // 2, self._most_pages())))
        at = 0
        while (at := self._add_cells(at, *given, other.dropped_bits, other._low_digit, positions)) < len(given[0]):
            self._make_room()

    def normalize(self) -> None:
        """Do nothing: carries are propagated when a row is added."""

    def evaluate(self) -> ScoreHistograms:
        """Return the histograms with their buckets in order."""
        buckets, slices, masses = self._list_cells()
        order = np.argsort(buckets) if self.n_slices < 2 else np.lexsort((buckets, slices))
        starts = np.searchsorted(slices[order], np.arange(self.n_slices + 1)).astype(np.int64, copy=False)
        return ScoreHistograms(self.dropped_bits, self._low_digit, starts, buckets[order], masses[order])

    def fields(self) -> Mapping[str, NDArray[Any]]:
        """Return `starts` ``(n_slices + 1,)``, `buckets` and `masses` as `ScoreHistograms` has them, and `form`.

        `form` int64 ``(5,)`` holds the dropped bits, the lowest digit, the bytes allowed for scores and for buckets,
        and the buckets that each slice may have besides.
        """
        found = self.evaluate()
        limits = self._score_bytes, self._bucket_bytes, self._slice_buckets
        form = np.array([self.dropped_bits, self._low_digit, *limits], dtype=np.int64)
        return {"form": form, "starts": found.starts, "buckets": found.buckets, "masses": found.masses}

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> ScoreHistogramColumn:
        """Make the column of which `fields` tells all."""
        dropped_bits, low_digit, *limits = fields["form"].tolist()
        starts, buckets, masses = (fields[name] for name in ("starts", "buckets", "masses"))
        column = cls(*limits)
        column.resize(len(starts) - 1)
        column.dropped_bits, column._low_digit, column._n_digits = dropped_bits, low_digit, masses.shape[1] // 2
        slices = np.repeat(np.arange(column.n_slices), np.diff(starts))
        column._fill((buckets, slices, np.ascontiguousarray(masses)), dropped_bits, _PAGE_BITS if dropped_bits else 0)
        return column

    def _form(self) -> Integers:
        most = self._most_buckets(self.dropped_bits)
        only = self._only_dropped_bits
        free = self._slice_buckets
        return np.array([self.dropped_bits, self._low_digit, self._page_bits, most, only, self._n_digits, free])

    def _most_buckets(self, dropped_bits: int) -> int:
        """Return how many buckets a level may have beside those of each slice; the coarsest, of two, any number."""
        if dropped_bits == MOST_DROPPED_BITS:
            return 2 * self.n_slices
        return (self._bucket_bytes if dropped_bits else self._score_bytes) // (16 + 16 * self._n_digits)

    def _clear(self, page_bits: int) -> None:
        """Begin anew without cells, in pages of this size."""
        self._page_bits = page_bits
        self._counts[:] = 0
        self._used[:] = 0
        self._keys = np.empty((0, 2), dtype=np.int64)
        self._cells = np.empty((0, 2 * self._n_digits), dtype=np.uint64)
        self._slots = np.full(1, -1, dtype=np.int32)

    def _fill(self, cells: _Cells, dropped_bits: int, page_bits: int) -> None:
        """Hold these cells of another level, and nothing else."""
        self._clear(page_bits)
        at, slices = 0, np.arange(self.n_slices)
        while (at := self._add_cells(at, *cells, dropped_bits, self._low_digit, slices)) < len(cells[0]):
            self._make_room()

    def _drop_bits(self, dropped_bits: int) -> None:
        """Go to a coarser level, or to the next one at which all buckets fit."""
        cells, finer = self._list_cells(), self.dropped_bits
        self.dropped_bits = dropped_bits
        # What does not fit drops more bits on the way, and the rest follows.
        self._fill(cells, finer, _PAGE_BITS)

    def _make_room(self) -> None:
        """Make room for a cell beyond those that there are: more memory if allowed, else fewer bits."""
        n_kept = len(self._keys)
        if self._counts[2] or (not self._page_bits and n_kept >= self._most_pages()):
            self._drop_bits(self.dropped_bits + 1 if self.dropped_bits else FIRST_DROPPED_BITS)
            return
        if self._page_bits:
            most = self._bucket_bytes * 4 // 3 // (16 * self._n_digits << self._page_bits)
            if n_kept >= most:
                self._fill(self._list_cells(), self.dropped_bits, 0)
                return
        else:
            most = self._most_pages()
        self._reserve(min(most, max(_SMALLEST_ROOM, 2 * n_kept)))

    def _most_pages(self) -> int:
        """Return how many single buckets there may be."""
        return self._most_buckets(self.dropped_bits) + self._slice_buckets * self.n_slices

    def _reserve(self, n_pages: int) -> None:
        """Have room for so many pages."""
        n_kept = len(self._keys)
        keys = np.empty((n_pages, 2), dtype=np.int64)
        keys[:n_kept] = self._keys
        cells = np.zeros((n_pages << self._page_bits, 2 * self._n_digits), dtype=np.uint64)
        cells[: len(self._cells)] = self._cells
        self._keys, self._cells = keys, cells
        # Twice as many slots as pages, at least.
        self._slots = np.full(1 << (2 * n_pages - 1).bit_length(), -1, dtype=np.int32)
        loops.make_fill_slots()(keys, int(self._counts[0]), self._slots)

    def _list_cells(self, *, by_slot: bool = False) -> _Cells:
        """Return bucket, slice and masses of every cell in use; `by_slot`, for another table to take them fast.

        In the order of their slots they go to places of another table that are in nearly that order, too.
        """
        n_pages, bits = int(self._counts[0]), self._page_bits
        if not bits:
            pages = self._slots[self._slots >= 0] if by_slot else slice(n_pages)
            return self._keys[pages, 0].copy(), self._keys[pages, 1].copy(), self._cells[pages]
        cells = self._cells[: n_pages << bits]
        used = np.flatnonzero(cells[:, self._n_digits :].any(axis=1))
        pages = used >> bits
        keys = self._keys[pages]
        return (keys[:, 0] << bits) + (used & (1 << bits) - 1), keys[:, 1].copy(), cells[used]

    def _add_cells(
        self,
        at: int,
        buckets: Integers,
        slices: Integers,
        masses: Words,
        dropped_bits: int,
        low: int,
        positions: Integers,
    ) -> int:
        shift, offset = self.dropped_bits - dropped_bits, low - self._low_digit
        return loops.make_add_cells()(
            at, buckets, slices, masses, shift, offset, positions, self._form(),
            self._used, self._counts, self._slots, self._keys, self._cells.reshape(-1),
        )  # fmt: skip

    def _set_window(self, low: int, high: int) -> None:
        """Extend the digits of every mass to those in [low, high) too."""
        low, high = min(low, self._low_digit), max(high, self._low_digit + self._n_digits)
        n_digits, n_kept = high - low, self._n_digits
        if n_digits == n_kept:
            return
        first = self._low_digit - low
        wider = np.zeros((len(self._cells), 2 * n_digits), dtype=np.uint64)
        wider[:, first : first + n_kept] = self._cells[:, :n_kept]
        wider[:, n_digits + first : n_digits + first + n_kept] = self._cells[:, n_kept:]
        self._cells, self._low_digit, self._n_digits = wider, low, n_digits
        if self._counts[1] > self._most_buckets(self.dropped_bits):
            self._drop_bits(self.dropped_bits + 1 if self.dropped_bits else FIRST_DROPPED_BITS)


def ordered_bits_of(scores: Floats) -> Integers:
    """Return the bits of float64 scores as integers that have the order of the scores; −0 is that of 0."""
    bits = (scores + 0.0).view(np.int64)
    ordered: Integers = bits ^ ((bits >> 63) & _MAGNITUDE_MASK)
    return ordered


def scores_of(ordered: Integers) -> Floats:
    """Return the scores that have these ordered bits."""
    scores: Floats = (ordered ^ ((ordered >> 63) & _MAGNITUDE_MASK)).view(np.float64)
    return scores


def _integers(limbs: Words) -> list[int]:
    """Read numbers of 32-bit limbs, the lowest first, one in each row."""
    data, size = limbs.astype("<u4").tobytes(), 4 * limbs.shape[1]
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def _read_only(array: NDArray[Any], dtype: type) -> NDArray[Any]:
    view: NDArray[Any] = array.astype(dtype, copy=False).view()
    view.flags.writeable = False
    return view
