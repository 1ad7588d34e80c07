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
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, RowSet, SliceRuns, grown
from fastloss.states.cumulated import PART_BUCKETS, Cumulated, cumulate, parts_of
from fastloss_kernels.cpu import histogram as loops
from fastloss_kernels.cpu.histogram import LOG2_MOST_ROWS, MOST_DROPPED_BITS, UNIT_DIGIT
from fastloss_kernels.exact_sum import LOWEST_EXPONENT

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
# Bucket, slice and masses of cells.
_Cells = tuple[Integers, Integers, Words]

# The first level of buckets has 27 bits: histograms of float32 logits then leave ROC AUC uncertain by 5e-6 to 1e-5.
FIRST_DROPPED_BITS = 37
# Of different scores (131,072 of unweighted rows), and of buckets (524,288).
SCORE_BYTES = 4 << 20
BUCKET_BYTES = 16 << 20
# Where there are slices, each model has a histogram for every grouping.
SLICED_BUCKET_BYTES = 6 << 20
# What they take with their index.
MOST_HISTOGRAM_BYTES = BUCKET_BYTES * 2
# Many slices of few rows each keep their scores apart.
SLICE_BUCKETS = 64
# Buckets in a page, and pages at first.
_PAGE_BITS = 6
_SMALLEST_ROOM = 64
# So many rows have fewer than 2^64 pairs.
_MOST_SUMMED_ROWS = (1 << 32) - 1
_FEW_PAGES = 2048
# A table counts pages in 16 bits: a page of cells takes 1,024 bytes at least.
_MOST_TABLE_BUCKET_BYTES = 32 << 20
# So much of the rows themselves is held while nothing is counted yet: a million of 17 bytes each.
_HELD_BYTES = 18 << 20
# What a crowded bucket holds of the positives, or of the pairs of a positive and a negative, and how much more than
# so many buckets on either side of it together. Of smooth densities, neighbours are alike.
_MANY_POSITIVES = 5e-3
_MANY_PAIRS = 1e-5
_BESIDE = 8
_FAR_MORE = 4.0
_LARGE_SLICE = 0.01
_MOST_CROWDED = 4096
# Numbers that tell whether float32 holds them.
_SAMPLE_ROWS = 512
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
        return max(self.score_bytes, self.bucket_bytes) * 2

    def most_task_bytes(self, n_rows: int, row_bytes: int) -> int:
        """Return the most bytes of so many rows, each of which takes `row_bytes` as `ScoreRows` keeps it."""
        rows_bytes, most = n_rows * row_bytes, held_bytes(self.score_bytes, self.bucket_bytes)
        return rows_bytes if self.only is None and rows_bytes <= most else self.most_bytes

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
    are_scores : ndarray of bool, (n_buckets,), or None
        Which buckets are one score each, where some are and others have a range of them; each is its lowest score
        then. None where all or none are, as `dropped_bits` tells.
    """

    dropped_bits: int
    low_digit: int
    starts: Integers
    buckets: Integers
    masses: Words
    are_scores: NDArray[np.bool_] | None = None

    @property
    def slices(self) -> Integers:
        """The slice of each bucket, int64 ``(n_buckets,)``."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

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
        for part in self.parts():
            yield cumulate(part.starts, part.score_bounds()[0], part.masses, unit, part.are_scores)

    def parts(self, most_buckets: int = PART_BUCKETS) -> Iterator[ScoreHistograms]:
        """Yield the histograms of some slices at a time, of so many buckets or of one slice that has more."""
        for first, stop in parts_of(self.starts, most_buckets):
            begin, end = self.starts[first], self.starts[stop]
            starts, buckets = self.starts[first : stop + 1] - begin, self.buckets[begin:end]
            are_scores = None if self.are_scores is None else self.are_scores[begin:end]
            masses = self.masses[begin:end]
            yield ScoreHistograms(self.dropped_bits, self.low_digit, starts, buckets, masses, are_scores)

    def only_scores(self) -> ScoreHistograms:
        """Return the histograms of those buckets that are one score each, where some are."""
        assert self.are_scores is not None
        starts = np.append(0, np.cumsum(self.are_scores))[self.starts]
        kept = np.flatnonzero(self.are_scores)
        return ScoreHistograms(self.dropped_bits, self.low_digit, starts, self.buckets[kept], self.masses[kept])

    def chosen(self, marked: NDArray[np.bool_]) -> Buckets:
        """Return the buckets that are marked in any slice; of 27 bits or fewer."""
        dropped = self.dropped_bits
        places = np.unique(self.buckets[marked]) + (1 << (63 - dropped))
        words = np.zeros(max(1, 1 << (64 - dropped) >> 6), dtype=np.int64)
        np.bitwise_or.at(words, places >> 6, np.int64(1) << (places & 63))
        return Buckets(dropped, words.astype("<i8", copy=False).tobytes())

    @cached_property
    def crowded(self) -> Buckets | None:
        """The few buckets with far more weight than those beside them; None where there are none.

        Such buckets hold a score that many rows share, as a default or the end of a clipped range has them. They
        count where they leave the order of many pairs open, or that of many positives.
        """
        positive, weight = self.masses_as_float()
        n_slices, slices = len(self.starts) - 1, self.slices

        def summed(terms: Floats) -> Floats:
            sums = np.bincount(slices, terms, minlength=n_slices).astype(np.float64, copy=False)
            return np.asarray(sums[slices], dtype=np.float64)

        with np.errstate(all="ignore"):
            negative = weight - positive
            positives, negatives = summed(positive), summed(negative)
            marked = (positive > _MANY_POSITIVES * positives) & (negative > 0.0)
            marked |= positive * negative > _MANY_PAIRS * positives * negatives
            # Some rows of a small slice may weigh more than those beside them, and are no crowd.
            sums, at = np.append(0.0, np.cumsum(weight)), np.arange(len(weight))
            begins, ends = self.starts[:-1][slices], self.starts[1:][slices]
            around = sums[np.minimum(at + _BESIDE + 1, ends)] - sums[np.maximum(at - _BESIDE, begins)]
            marked &= weight > _FAR_MORE * (around - weight)
            marked &= (ends - begins > 4 * _BESIDE) | (positives + negatives > _LARGE_SLICE * weight.sum())
        if not marked.any() or len(np.unique(self.buckets[marked])) > _MOST_CROWDED:
            return None
        return self.chosen(marked)

    def masses_in_parts(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return positive mass and weight of each bucket as hi and lo each, in a unit of the slice's own.

        It is a power of two, that of the highest digit of a weight in the slice: no product of two sums overflows, and
        what is lost is nothing beside the slice.
        """
        n_digits = self.masses.shape[1] // 2
        highest = n_digits - 1 - np.argmax(self.masses[:, : n_digits - 1 : -1] != 0, axis=1)
        units, slices = np.zeros(len(self.starts) - 1, dtype=np.int64), self.slices
        np.maximum.at(units, slices, highest)
        of = units[slices]
        parts: list[Floats] = []
        for first in (0, n_digits):
            hi, lo = np.zeros(len(self.buckets)), np.zeros(len(self.buckets))
            for digit in reversed(range(n_digits)):
                mass = self.masses[:, first + digit]
                exponent = 64 * (digit - of)
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
        if n_slices == n_digits == 1 and within == 64 and self.masses[:, 1].sum() <= _MOST_SUMMED_ROWS:
            return [_count_pairs_of_one(self.masses)]
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


class ScoreRows:
    """Rows on their way into histograms, in the narrowest types that hold them.

    Labels lie in [0, 1] and weights, where there are any, above 0; a label y of weight w is a positive of w·y and a
    negative of w·(1 − y).

    Attributes
    ----------
    score : numpy.ndarray of float64 or float32
    label : numpy.ndarray of int8 or float64
        int8 where each is 0 or 1.
    weight : numpy.ndarray of float64 or float32, or None
        None where each row weighs 1.
    """

    def __init__(self, score: NDArray[Any], label: NDArray[Any], weight: NDArray[Any] | None) -> None:
        self.score = score if score.dtype == np.float32 else _read_only(score, np.float64)
        self.label = _narrow_labels(label)
        self.weight = weight if weight is None or weight.dtype == np.float32 else _read_only(weight, np.float64)
        self._kept: ScoreRows | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.score.nbytes + self.label.nbytes + (0 if self.weight is None else self.weight.nbytes)

    def kept(self) -> ScoreRows:
        """Return the same rows in memory of their own, which all columns share."""
        if self._kept is None:
            weight = None if self.weight is None else _narrow(self.weight)
            self._kept = ScoreRows(_narrow(self.score), self.label.copy(), weight)
        return self._kept

    def narrow(self, order: Integers | None) -> tuple[NDArray[Any], ...]:
        """Return scores, labels and, where there are any, weights of rows in some order, read-only."""
        arrays = (self.score, self.label) if self.weight is None else (self.score, self.label, self.weight)
        return tuple(_read_only(array if order is None else array[order], array.dtype.type) for array in arrays)

    def wide(self) -> tuple[Floats, Floats, Floats]:
        """Return scores, labels and weights as read-only float64, without weights where each row weighs 1."""
        score, label, weight = (
            _read_only(values, np.float64)
            for values in (self.score, self.label, _NO_WEIGHTS if self.weight is None else self.weight)
        )
        return score, label, weight

    def least_distinct(self, n_rows: int) -> int:
        """Return how many different scores the first rows have at least, by the places that they are hashed to."""
        scores = self.score[:n_rows] + 0.0
        words = scores.view(np.uint64) if scores.dtype == np.float64 else scores.view(np.uint32).astype(np.uint64)
        log2_places = (8 * len(scores)).bit_length()
        places = (words ^ (words >> np.uint64(32))) * np.uint64(0x9E37_79B9_7F4A_7C15) >> np.uint64(64 - log2_places)
        seen = np.zeros(1 << log2_places, dtype=np.bool_)
        seen[places] = True
        return int(np.count_nonzero(seen))


class ScoreHistogramColumn:
    """Histograms of scores of many slices, in one table of buckets that all slices share.

    Pages of 64 buckets are found faster than single ones. They are used from the first level of buckets on, unless
    scores are so scattered that pages would take more memory; what the histogram holds is the same.

    A million scores are hardly fewer as buckets than as rows. So a new column holds rows as they are, as far as memory
    goes, and whoever merges it counts them.
    """

    def __init__(self, score_bytes: int, bucket_bytes: int, slice_buckets: int) -> None:
        self.n_slices = 0
        self._dropped_bits = 0
        self._evaluated: ScoreHistograms | None = None
        self._held: list[tuple[ScoreRows, SliceRuns]] = []
        self._held_bytes = 0
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
        self._table: NDArray[np.uint16]
        self._slots: NDArray[np.int32]
        self._keys: Integers
        self._cells: Words
        self._clear(0)

    @property
    def dropped_bits(self) -> int:
        """How many low bits of a score a bucket ignores."""
        self._count_held()
        return self._dropped_bits

    @property
    def n_buckets(self) -> int:
        """How many buckets of slices occur."""
        self._count_held()
        return int(self._used.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the cells and their index, and of the rows that are held."""
        index = self._table.nbytes + self._slots.nbytes
        return self._cells.nbytes + self._keys.nbytes + index + self._used.nbytes + self._held_bytes

    def keep_only(self, buckets: Buckets) -> None:
        """Leave out rows of other buckets from now on."""
        self._only = _read_only(np.frombuffer(buckets.words, dtype="<i8"), np.int64)
        self._only_dropped_bits = buckets.dropped_bits

    def resize(self, n_slices: int) -> None:
        """Have at least so many slices; new ones are empty."""
        self._evaluated = None
        if n_slices > len(self._used):
            self._used = grown(self._used, self.n_slices, n_slices)
        self.n_slices = max(self.n_slices, n_slices)
        if 0 < len(self._table) < self.n_slices << self._table_bits:
            self._index_pages()

    def add_rows(self, score: NDArray[Any], label: NDArray[Any], weight: NDArray[Any] | None, runs: SliceRuns) -> None:
        """Add each row to its slice; see `ScoreRows`."""
        self.add(ScoreRows(score, label, weight), runs)

    def add(self, rows: ScoreRows, runs: SliceRuns) -> None:
        """Add each row to its slice. The arrays of `runs` may be kept; those of the rows are not."""
        self._evaluated = None
        most = held_bytes(self._score_bytes, self._bucket_bytes)
        if most and not len(self._keys) and not len(self._only) and runs.starts is not None:
            kept = rows.kept()
            n_bytes = kept.nbytes + sum(part.nbytes for part in runs if part is not None)
            if self._held_bytes + n_bytes <= most:
                self._held.append((kept, runs))
                self._held_bytes += n_bytes
                return
        self._count_held()
        self._count(rows, runs)

    def _count_held(self) -> None:
        """Count the rows that are held."""
        held, self._held, self._held_bytes = self._held, [], 0
        for rows, runs in held:
            self._count(rows, runs)

    def _count(self, rows: ScoreRows, runs: SliceRuns) -> None:
        # Kernels are compiled for arrays of one kind.
        order = _read_only(_NO_ROWS if runs.order is None else runs.order, np.int64)
        positions = _read_only(runs.positions, np.int64)
        starts = _read_only(np.arange(len(positions) + 1) if runs.starts is None else runs.starts, np.int64)
        at = np.zeros(2, dtype=np.int64)
        is_hard, is_filtered = rows.label.dtype == np.int8, len(self._only) > 0
        wide = narrow = None
        if rows.weight is not None or not is_hard:
            wide = rows.wide()
            lowest, highest = loops.make_mass_bits()(*wide[1:])
            # Room for the sum of as many masses of this size as there may be rows.
            self._set_window(lowest >> 6, (highest + LOG2_MOST_ROWS >> 6) + 1)
        if not len(self._keys) and not self._dropped_bits and not is_filtered:
            # What surely does not fit is not tried.
            free = self._slice_buckets * self.n_slices
            if rows.least_distinct(len(rows.score)) > self._most_buckets(0) + free:
                self._drop_bits(FIRST_DROPPED_BITS)
        n_digits = 1 if rows.weight is None else 2
        while True:
            found = self._used, self._counts, self._table
            cells = self._keys, self._cells.reshape(-1)
            form = self._form()
            if is_hard and not is_filtered and self._n_digits == n_digits:
                narrow = narrow or rows.narrow(runs.order)
                add = loops.make_count_scores() if rows.weight is None else loops.make_weigh_scores()
                add(*narrow, starts, positions, at, form, *found, self._slots, *cells)
            else:
                wide = wide or rows.wide()
                add = loops.make_add_scores()
                add(*wide, order, starts, positions, at, form, self._only, *found, self._slots, *cells)
            if at[0] == len(positions):
                return
            self._make_room()

    def merge(self, other: ScoreHistogramColumn, positions: Integers) -> None:
        """Add slice i of another column to slice ``positions[i]``; the other stays as it is."""
        self._evaluated = None
        self._count_held()
        for rows, runs in other._held:
            self._count(rows, runs._replace(positions=positions[runs.positions]))
        if not len(other._keys):
            return
        self._set_window(other._low_digit, other._low_digit + other._n_digits)
        if other._dropped_bits > self._dropped_bits:
            self._drop_bits(other._dropped_bits)
        # In the order of their slots, they go to places here that are in nearly that order, too.
        by_slot = None if other._page_bits else other._slots[other._slots >= 0].astype(np.int64)
        given = other._list_cells(by_slot)
        if not self._page_bits:
            # Different scores, most of them new: room is made once.
            wanted = min(int(self._counts[0]) + len(given[0]), self._most_pages())
            if wanted > len(self._keys):
                self._reserve(max(wanted, min(len(self._keys) * 3 // 2, self._most_pages())))
        at = 0
        while (at := self._add_cells(at, *given, other._dropped_bits, other._low_digit, positions)) < len(given[0]):
            self._make_room()

    def normalize(self) -> None:
        """Do nothing: carries are propagated when a row is added."""

    def evaluate(self) -> ScoreHistograms:
        """Return the histograms with their buckets in order; they are sorted once, as long as nothing is added."""
        if self._evaluated is None:
            self._evaluated = self._sorted()
        return self._evaluated

    def _sorted(self) -> ScoreHistograms:
        self._count_held()
        pages = self._keys[: int(self._counts[0])].T
        buckets, slices, masses = self._list_cells(np.argsort(pages[0]) if self.n_slices < 2 else np.lexsort(pages))
        starts = np.searchsorted(slices, np.arange(self.n_slices + 1)).astype(np.int64, copy=False)
        return ScoreHistograms(self._dropped_bits, self._low_digit, starts, buckets, masses)

    def fields(self) -> Mapping[str, NDArray[Any]]:
        """Return `starts` ``(n_slices + 1,)``, `buckets` and `masses` as `ScoreHistograms` has them, and `form`.

        `form` int64 ``(5,)`` holds the dropped bits, the lowest digit, the bytes allowed for scores and for buckets,
        and the buckets that each slice may have besides.
        """
        found = self.evaluate()
        limits = self._score_bytes, self._bucket_bytes, self._slice_buckets
        form = np.array([self._dropped_bits, self._low_digit, *limits], dtype=np.int64)
        return {"form": form, "starts": found.starts, "buckets": found.buckets, "masses": found.masses}

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> ScoreHistogramColumn:
        """Make the column of which `fields` tells all."""
        dropped_bits, low_digit, *limits = fields["form"].tolist()
        starts, buckets, masses = (fields[name] for name in ("starts", "buckets", "masses"))
        column = cls(*limits)
        column.resize(len(starts) - 1)
        column._dropped_bits, column._low_digit, column._n_digits = dropped_bits, low_digit, masses.shape[1] // 2
        slices = np.repeat(np.arange(column.n_slices), np.diff(starts))
        column._fill((buckets, slices, np.ascontiguousarray(masses)), dropped_bits, _PAGE_BITS if dropped_bits else 0)
        return column

    def _form(self) -> Integers:
        most = self._most_buckets(self._dropped_bits)
        only = self._only_dropped_bits
        free = self._slice_buckets
        table_bits = self._table_bits
        return np.array(
            [self._dropped_bits, self._low_digit, self._page_bits, most, only, self._n_digits, free, table_bits]
        )

    @property
    def _table_bits(self) -> int:
        """How many bits the number of a page has; both signs have one at least."""
        return max(1, 64 - self._dropped_bits - self._page_bits)

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
        self._index_pages()

    def _index_pages(self) -> None:
        """Enter every page in a table, or in a hash table where that would take half of the memory for buckets."""
        n_pages, most = int(self._counts[0]), self._bucket_bytes // 4 >> self._table_bits
        self._table = np.zeros(0, dtype=np.uint16)
        self._slots = np.full(1, -1, dtype=np.int32)
        if self._page_bits and max(1, self.n_slices) <= most and self._bucket_bytes <= _MOST_TABLE_BUCKET_BYTES:
            # What is not written takes no memory. There is room for a few more slices.
            self._table = np.zeros(min(most, len(self._used)) << self._table_bits, dtype=np.uint16)
            pages, slices = self._keys[:n_pages].T
            self._table[(2 * slices + 1 << self._table_bits - 1) + pages] = np.arange(1, n_pages + 1)
            return
        # Twice as many slots as pages, at least.
        self._slots = np.full(1 << (2 * max(1, len(self._keys)) - 1).bit_length(), -1, dtype=np.int32)
        loops.make_fill_slots()(self._keys, n_pages, self._slots)

    def _fill(self, cells: _Cells, dropped_bits: int, page_bits: int) -> None:
        """Hold these cells of another level, and nothing else."""
        self._clear(page_bits)
        # About as many pages as there will be.
        n_pages = len(cells[0]) >> max(0, page_bits - 1)
        self._reserve(min(max(_SMALLEST_ROOM, n_pages), self._most_pages()))
        at, slices = 0, np.arange(self.n_slices)
        while (at := self._add_cells(at, *cells, dropped_bits, self._low_digit, slices)) < len(cells[0]):
            self._make_room()

    def _drop_bits(self, dropped_bits: int) -> None:
        """Go to a coarser level, or to the next one at which all buckets fit."""
        cells, finer = self._list_cells(), self._dropped_bits
        self._dropped_bits = dropped_bits
        # What does not fit drops more bits on the way, and the rest follows.
        self._fill(cells, finer, _PAGE_BITS)

    def _make_room(self) -> None:
        """Make room for a cell beyond those that there are: more memory if allowed, else fewer bits."""
        n_kept = len(self._keys)
        if self._counts[2] or (not self._page_bits and n_kept >= self._most_pages()):
            self._drop_bits(self._dropped_bits + 1 if self._dropped_bits else FIRST_DROPPED_BITS)
            return
        most = self._most_pages()
        if self._page_bits and n_kept >= most:
            self._fill(self._list_cells(), self._dropped_bits, 0)
            return
        self._reserve(min(most, max(_SMALLEST_ROOM, (2 if n_kept > _FEW_PAGES else 4) * n_kept)))

    def _most_pages(self) -> int:
        """Return how many pages there may be, or single buckets."""
        if not self._page_bits:
            return self._most_buckets(self._dropped_bits) + self._slice_buckets * self.n_slices
        # With a key and up to four slots of 4 bytes.
        page_bytes = (16 * self._n_digits << self._page_bits) + 32
        return max(0, self._bucket_bytes * 2 - self._table.nbytes - self._used.nbytes) // page_bytes

    def _reserve(self, n_pages: int) -> None:
        """Have room for so many pages."""
        n_kept = len(self._keys)
        keys = np.empty((n_pages, 2), dtype=np.int64)
        keys[:n_kept] = self._keys
        cells = np.zeros((n_pages << self._page_bits, 2 * self._n_digits), dtype=np.uint64)
        cells[: len(self._cells)] = self._cells
        self._keys, self._cells = keys, cells
        if not len(self._table):
            self._index_pages()

    def _list_cells(self, pages: Integers | None = None) -> _Cells:
        """Return bucket, slice and masses of every cell in use, in the order of some pages."""
        n_pages, bits = int(self._counts[0]), self._page_bits
        if pages is None:
            pages = np.arange(n_pages)
        if not bits:
            pages = pages[self._is_used(n_pages)[pages]]
            # NumPy takes rows ten times as fast as it indexes them.
            keys = self._keys.take(pages, axis=0)
            buckets, slices = np.ascontiguousarray(keys.T)
            return buckets, slices, self._cells.take(pages, axis=0)
        keys = self._keys.take(pages, axis=0)
        used = np.flatnonzero(self._is_used(n_pages << bits).reshape(n_pages, 1 << bits)[pages])
        of_page, in_page = used >> bits, used & (1 << bits) - 1
        keys, places = keys.take(of_page, axis=0), (pages.take(of_page) << bits) + in_page
        return (keys[:, 0] << bits) + in_page, np.ascontiguousarray(keys[:, 1]), self._cells.take(places, axis=0)

    def _is_used(self, n_cells: int) -> NDArray[np.bool_]:
        """Say of the first cells whether a row fell into them."""
        weights = self._cells[:n_cells, self._n_digits :].T
        found: NDArray[np.bool_] = weights[0] != 0
        for digit in weights[1:]:
            found |= digit != 0
        return found

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
        shift, offset = self._dropped_bits - dropped_bits, low - self._low_digit
        return loops.make_add_cells()(
            at, buckets, slices, masses, shift, offset, positions, self._form(),
            self._used, self._counts, self._table, self._slots, self._keys, self._cells.reshape(-1),
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
        if self._counts[1] > self._most_buckets(self._dropped_bits):
            self._drop_bits(self._dropped_bits + 1 if self._dropped_bits else FIRST_DROPPED_BITS)


def _count_pairs_of_one(masses: Words) -> PairCounts:
    """Return the pairs of counts in ascending buckets, few enough for 64 bits."""
    positive = masses[:, 0]
    negative = masses[:, 1] - positive
    below = np.cumsum(negative)
    together = positive * negative
    apart = int((positive * below).sum()) - int(together.sum())
    return PairCounts(apart, int(together.sum()), int(positive.sum()), int(negative.sum()))


def counted_task_bytes(n_rows: int) -> int:
    """Return the most bytes that numbers of so many rows take, each counted once."""
    return ScoreHistogram(RowSet(0)).most_task_bytes(n_rows, 9)


def held_bytes(score_bytes: int, bucket_bytes: int) -> int:
    """Return how many bytes of rows a column holds that has so much memory for scores and for buckets."""
    return min(_HELD_BYTES, max(score_bytes, bucket_bytes) * 3)


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


def _narrow_labels(label: NDArray[Any]) -> NDArray[Any]:
    """Return labels as int8 if each is 0 or 1, and else as float64."""
    if label.dtype != np.int8:
        narrow = label.astype(np.int8)
        if not np.array_equal(narrow, label):
            return _read_only(label, np.float64)
        label = narrow
    return label


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of numbers, as float32 if that holds each of them exactly."""
    if values.dtype == np.float64 and _is_narrow(values[:_SAMPLE_ROWS]) and _is_narrow(values):
        return values.astype(np.float32)
    return values.copy()


def _is_narrow(values: NDArray[Any]) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float32), values))


def _read_only(array: NDArray[Any], dtype: type) -> NDArray[Any]:
    view: NDArray[Any] = array.astype(dtype, copy=False).view()
    view.flags.writeable = False
    return view
