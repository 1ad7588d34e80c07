"""Several exact sums of each slice that one loop adds up, such as the terms of a Newton step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, RowSet, grown
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, ADDITIONS_BEFORE_CARRY, ExactSums, normalize_words


class NamedSums(Protocol):
    """Quantities that are summed together: frozen and hashable."""

    @property
    def name(self) -> str:
        """A name that is stable between releases."""

    @property
    def n_sums(self) -> int:
        """How many there are."""


@dataclass(frozen=True)
class SeveralSums:
    """The exact sums of several quantities over the rows of each slice.

    Attributes
    ----------
    rows : RowSet
        The rows that are summed.
    quantity : NamedSums
        What is summed.
    """

    rows: RowSet
    quantity: NamedSums

    @property
    def name(self) -> str:
        """The name in state files."""
        return f"sums of {self.quantity.name}"

    @property
    def bytes_per_slice(self) -> int:
        """What a slice takes: an accumulator for each sum."""
        return 8 * ACCUMULATOR_WORDS * self.quantity.n_sums

    def identity(self) -> SeveralSumsColumn:
        """Return a column without slices."""
        return SeveralSumsColumn(self.quantity.n_sums)


class SeveralSumsColumn:
    """Exact sums of many slices, each in a full accumulator; for few slices.

    Attributes
    ----------
    words : numpy.ndarray of int64, shape (capacity, n_sums, ACCUMULATOR_WORDS)
        Accumulators (`fastloss_kernels.exact_sum`).
    """

    def __init__(self, n_sums: int) -> None:
        self.words: Integers = np.zeros((0, n_sums, ACCUMULATOR_WORDS), dtype=np.int64)
        self.n_slices = 0
        # How often something below 2^33 may have been added to digits since they were normalized.
        self._additions = 0

    @property
    def nbytes(self) -> int:
        """How many bytes the accumulators take."""
        return self.words.nbytes

    def resize(self, n_slices: int) -> None:
        """Have at least `n_slices` slices."""
        if n_slices > len(self.words):
            self.words = grown(self.words, self.n_slices, n_slices)
        self.n_slices = max(self.n_slices, n_slices)

    def only_accumulators(self, n_terms: int) -> Integers:
        """Return the accumulators of the only slice, for a loop that is about to add `n_terms` terms to each."""
        assert self.n_slices == 1
        self._count_additions(n_terms)
        return np.asarray(self.words[0])

    def merge(self, other: SeveralSumsColumn, positions: Integers) -> None:
        """Add slice i of another column to the slice ``positions[i]``."""
        given = other.words[: other.n_slices]
        self._count_additions(other._additions + len(given))
        np.add.at(self.words, positions[: len(given)], given)

    def normalize(self) -> None:
        """Carry every digit but the last into [0, 2^32)."""
        normalize_words(self.words.reshape(-1, ACCUMULATOR_WORDS))
        self._additions = 0

    def evaluate(self) -> tuple[ExactSums, ...]:
        """Return the sums: of each quantity, `n_slices` of them."""
        self.normalize()
        words = self.words[: self.n_slices]
        return tuple(ExactSums(np.ascontiguousarray(words[:, k]), 0) for k in range(words.shape[1]))

    def fields(self) -> dict[str, NDArray[Any]]:
        """Return ``words``, int64 ``(n_slices, n_sums * ACCUMULATOR_WORDS)``, normalized."""
        self.normalize()
        return {"words": self.words[: self.n_slices].reshape(self.n_slices, -1)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column that has these fields, in memory of its own."""
        words = fields["words"]
        column = cls(words.shape[1] // ACCUMULATOR_WORDS)
        column.words = np.array(words, dtype=np.int64).reshape(len(words), -1, ACCUMULATOR_WORDS)
        column.n_slices = len(words)
        return column

    def _count_additions(self, count: int) -> None:
        if self._additions + count > ADDITIONS_BEFORE_CARRY:
            self.normalize()
        self._additions += count
