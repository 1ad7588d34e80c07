"""The inputs of loops: one number a row, or lists. Both classes have the same members."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import NumberArray
from fastloss.engine.device import Device
from fastloss.engine.workspace import Workspace, read_only
from fastloss.metrics.conventions import InputTransform, RankOrder

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Inputs(Protocol):
    """Predictions and labels of the rows of a batch, for one model."""

    lists: bool

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of a loop before the parameters of its formula."""

    @property
    def n_values(self) -> int:
        """How many values a loop gives."""

    @property
    def n_predictions(self) -> int:
        """How many derivatives a loop gives."""

    @property
    def offsets(self) -> Integers | None:
        """Where the predictions of each row begin; None where there is one a row."""

    def take(self, taken: Taken) -> Self:
        """Return these rows, in this order."""

    def transformed(self, transform: InputTransform, workspace: Workspace, device: Device) -> Self:
        """Return the inputs as a loss reads them."""

    def scratch(self, n_scratch: int, workspace: Workspace) -> tuple[Any, ...]:
        """Return what a loop of values takes besides, between parameters and outputs."""

    def candidates(self) -> Integers:
        """Return the number of predictions of each row that are not masked."""

    def writable(self, keep: Mask | None, workspace: Workspace) -> Self:
        """Return the rows to compute derivatives of, in arrays as array calls have them."""

    def describe(self, position: int, space: str) -> str:
        """Say what stands in a row, for an error; empty where a row is a list."""


class Taken(Protocol):
    """Some rows of a batch in some order."""

    @property
    def batch_rows(self) -> Integers:
        """Their numbers in the batch."""

    def take(self, values: NumberArray) -> NumberArray:
        """Return the values of these rows; each array is gathered once."""


@dataclass(frozen=True)
class RowInputs:
    """One prediction and one label a row.

    Attributes
    ----------
    score, label : numpy.ndarray of float64, float32 or int8, shape (n_rows,), read-only
    """

    score: NumberArray
    label: NumberArray

    lists = False

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Score and label."""
        return self.score, self.label

    @property
    def n_values(self) -> int:
        """One value a row."""
        return len(self.score)

    @property
    def n_predictions(self) -> int:
        """One prediction a row."""
        return len(self.score)

    @property
    def offsets(self) -> None:
        """None: there is one prediction a row."""
        return

    def take(self, taken: Taken) -> RowInputs:
        """Return these rows, in this order."""
        return RowInputs(taken.take(self.score), taken.take(self.label))

    def transformed(self, transform: InputTransform, workspace: Workspace, device: Device) -> RowInputs:
        """Return the scores clipped, if they are."""
        if transform.clip is None:
            return self
        clipped = workspace.floats(len(self.score))
        np.copyto(clipped, self.score)
        return RowInputs(read_only(np.clip(clipped, *transform.clip, out=clipped)), self.label)

    def scratch(self, n_scratch: int, workspace: Workspace) -> tuple[Any, ...]:
        """Return nothing: a row needs none."""
        return ()

    def candidates(self) -> Integers:
        """Return 1 for each row."""
        return np.ones(len(self.score), dtype=np.int64)

    def writable(self, keep: Mask | None, workspace: Workspace) -> RowInputs:
        """Return all rows: what is computed of those that are not used is not looked at."""
        # A kernel is compiled anew for another layout.
        score, label = workspace.floats(len(self.score)), workspace.floats(len(self.label))
        np.copyto(score, self.score)
        np.copyto(label, self.label)
        return RowInputs(score, label)

    def describe(self, position: int, space: str) -> str:
        """Say the prediction and the label."""
        return f" ({space} {float(self.score[position])!r} at label {float(self.label[position])!r})"


@dataclass(frozen=True)
class ListInputs:
    """A list of predictions a row, and a list of labels or one label.

    Attributes
    ----------
    score : numpy.ndarray of float64, shape (n_candidates,), read-only
        NaN where masked.
    score_offsets : numpy.ndarray of int64, shape (n_rows + 1,)
        List i is ``score[score_offsets[i]:score_offsets[i + 1]]``.
    label, label_offsets : numpy.ndarray
        The labels, likewise; an index is a list of length 1.
    rows : numpy.ndarray of int64
        The lists to evaluate.
    weight : numpy.ndarray of float64, shape (n_candidates,), or None
        The weights of the candidates; None where each weighs 1.
    ties : numpy.ndarray of float64, shape (n_candidates,), or None
        What decides between candidates of equal scores, where labels alone do not; the larger stands first.
    """

    score: Floats
    score_offsets: Integers
    label: Floats
    label_offsets: Integers
    rows: Integers
    weight: Floats | None = None
    ties: Floats | None = None
    # What is computed of all lists of a batch, whichever rows are taken.
    _of_batch: dict[RankOrder, ListInputs] = field(default_factory=dict, repr=False, compare=False)
    # The unmasked candidates of each list, once they have been counted.
    _lengths: list[Integers] = field(default_factory=list, repr=False, compare=False)

    lists = True

    @property
    def arrays(self) -> tuple[Floats, Integers, Floats, Integers]:
        """The lists, without the choice of rows."""
        return self.score, self.score_offsets, self.label, self.label_offsets

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The lists, and the numbers of those to evaluate."""
        return *self.arrays, self.rows

    @property
    def n_values(self) -> int:
        """One value for each list to evaluate."""
        return len(self.rows)

    @property
    def n_predictions(self) -> int:
        """One prediction a candidate, of all lists."""
        return len(self.score)

    @property
    def offsets(self) -> Integers:
        """Where the candidates of each list begin."""
        return self.score_offsets

    def take(self, taken: Taken) -> ListInputs:
        """Return these rows, in this order."""
        return replace(self, rows=taken.batch_rows)

    def transformed(self, transform: InputTransform, workspace: Workspace, device: Device) -> ListInputs:
        """Return the lists clipped and divided by their sums, as far as they are."""
        if transform.ranked is not None:
            return self.ranked(transform.ranked, device)
        score, label, clip, lists = self.score, self.label, transform.clip, transform.lists
        if lists is not None and lists.normalize == "first":
            score = self._normalized(score, device)
        if clip is not None:
            if lists is not None and lists.upper is not None:
                clip = clip[0], lists.upper
            score = np.clip(score, *clip)
            label = np.clip(label, *clip) if lists is not None and lists.clips_labels else label
        if lists is not None and lists.normalize == "last":
            score = self._normalized(score, device)
        return replace(self, score=read_only(score), label=read_only(label), _of_batch={}, _lengths=[])

    def ranked(self, order: RankOrder, device: Device) -> ListInputs:
        """Return the lists as metrics of rankings read them: unmasked candidates, the highest score first.

        Candidates of equal scores stand in the order of their labels, and then of their weights, the highest first,
        unless the order is another one; they have no weights then. The lists of a batch are sorted once for all that
        read them.
        """
        if order not in self._of_batch:
            # In memory of their own, since they live as long as the batch.
            offsets = np.empty(len(self.score_offsets), dtype=np.int64)
            score, label = np.empty(len(self.score)), np.empty(len(self.score))
            by_key, on_average = order.ties in ("input", "id_desc"), order.ties == "average"
            extra = self.ties if by_key else self.weight if on_average else None
            given = np.empty(0) if extra is None else extra
            sorted_extra = np.empty(len(given))
            rank = device.ranking.make_rank(0 if extra is None else 1 if by_key else 2)
            # Of equal ids, which are an oversight, nothing is made that looks better than it is.
            sign = -1.0 if order.ties in ("pessimistic", "id_desc") else 1.0
            outputs = (offsets, score, label, sorted_extra)
            rank(*self.arrays, read_only(given), -np.inf, sign, not on_average, *outputs)
            score, label = read_only(score[: offsets[-1]]), read_only(label[: offsets[-1]])
            kept = None if extra is None or by_key else read_only(sorted_extra[: offsets[-1]])
            self._of_batch[order] = ListInputs(score, offsets, label, offsets, self.rows, kept)
        return replace(self._of_batch[order], rows=self.rows)

    def _normalized(self, score: Floats, device: Device) -> Floats:
        normalized = np.empty(len(score))
        device.normalize.make_divide_by_sum()(read_only(score), self.score_offsets, normalized)
        return normalized

    def scratch(self, n_scratch: int, workspace: Workspace) -> tuple[Any, ...]:
        """Return arrays as long as the longest list: of gradient, hessian and what the formula asks for."""
        longest = int(np.diff(self.score_offsets).max(initial=0))
        rows = 2 + n_scratch
        return (workspace.floats(rows * longest).reshape(rows, longest),)

    def candidates(self) -> Integers:
        """Return the number of unmasked candidates of each list."""
        if not self._lengths:
            masked = np.isnan(self.score)
            running = self.score_offsets
            if masked.any():
                running = np.append(0, np.cumsum(~masked))[self.score_offsets]
            self._lengths.append(np.diff(running))
        (lengths,) = self._lengths
        return lengths[self.rows]

    def writable(self, keep: Mask | None, workspace: Workspace) -> ListInputs:
        """Return the lists that are used."""
        return self if keep is None else replace(self, rows=np.flatnonzero(keep))

    def describe(self, position: int, space: str) -> str:
        """Return nothing: a list is too long for an error."""
        return ""
