"""The metrics and losses of each group of a batch."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.budget import Execution
from fastloss.columns.arrays import key_values
from fastloss.columns.base import Batch, IntegerArray
from fastloss.columns.grouped import GroupedBatch
from fastloss.engine.batches import make_checks
from fastloss.engine.checks import refuse_bad_rows, saturation_error
from fastloss.engine.device import DEVICES
from fastloss.engine.gathering import GatheredRows, group_names, pieces_of_groups
from fastloss.engine.selection import Mask
from fastloss.engine.slices import Arrangement, UsedRows
from fastloss.engine.updates.sums import Fill, fill_losses
from fastloss.engine.workspace import Workspace
from fastloss.metrics.conventions import LossEvaluation
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.presets import Unit
from fastloss.states.base import RowSet
from fastloss.states.causes import Cause
from fastloss.states.ledger import GroupNames, Ledger, Place

Floats = NDArray[np.float64]


@dataclass
class GroupCounts:
    """Counts of groups.

    Attributes
    ----------
    ledger : Ledger
        The groups that were there, and those that lack what some metric needs, by cause.
    n_rows : int
        The rows of the groups that are written.
    without_value : dict
        How many of these have no value of a metric, by its name.
    saturated : dict
        Of how many the loss was clipped or is infinite, by its name.
    """

    ledger: Ledger = field(default_factory=Ledger)
    n_rows: int = 0
    without_value: dict[str, int] = field(default_factory=dict)
    saturated: dict[str, int] = field(default_factory=dict)

    def merge(self, other: GroupCounts) -> None:
        """Add other counts to these. The others stay as they are."""
        self.ledger.merge(other.ledger)
        self.n_rows += other.n_rows
        for own, more in ((self.without_value, other.without_value), (self.saturated, other.saturated)):
            for name, count in more.items():
                own[name] = own.get(name, 0) + count


class ScoredGroups(NamedTuple):
    """Groups with their values.

    Attributes
    ----------
    words : tuple of numpy.ndarray of int64, shape (n_groups,)
        The keys, as `GroupKeys.columns` has them.
    sizes : numpy.ndarray of int64, shape (n_groups,)
        The rows of each.
    values : numpy.ndarray of float64, shape (n_metrics, n_groups)
        NaN where a group has no value.
    """

    words: tuple[IntegerArray, ...]
    sizes: IntegerArray
    values: Floats

    @property
    def nbytes(self) -> int:
        """The memory that they take."""
        return int(sum(word.nbytes for word in self.words) + self.sizes.nbytes + self.values.nbytes)

    def take(self, rows: IntegerArray) -> ScoredGroups:
        """Return the groups at these positions."""
        return ScoredGroups(tuple(word[rows] for word in self.words), self.sizes[rows], self.values[:, rows])


class _Metric(NamedTuple):
    name: str
    evaluation: LossEvaluation
    rows: RowSet
    fill: Fill
    unit: Unit | None


class GroupScorer:
    """Evaluates the metrics of one model for each group. It may be called from several threads at once."""

    def __init__(self, gathered: GatheredRows, execution: Execution) -> None:
        evaluation = gathered.group.evaluation
        self._gathered = gathered
        self._evaluation = evaluation
        self._execution = execution
        self._device = DEVICES[execution.device]
        self._checks = make_checks(evaluation, self._device)
        (self._model,) = evaluation.models
        self._metrics = [self._metric(metric) for metric in evaluation.metrics if isinstance(metric, MeanLoss)]
        self._local = threading.local()

    def _metric(self, metric: MeanLoss) -> _Metric:
        found = self._model.evaluation(metric.loss)
        unit = self._evaluation.conventions.unit(metric.loss)
        return _Metric(metric.name, found, self._model.rows(found.needs), fill_losses(found, self._device), unit)

    def score(self, batch: GroupedBatch, counts: GroupCounts) -> ScoredGroups:
        """Return the groups of a batch with their values, and count them and those that were too small.

        Raises
        ------
        DataError
            If a group cannot be used and such groups are not dropped, or is saturated and the request forbids it.
        """
        values = np.full((len(self._metrics), batch.n_rows), np.nan)
        first = 0
        for piece in pieces_of_groups(batch, self._execution.batch_rows, counts.ledger):
            stop = first + piece.n_rows
            place = Place(batch.origin, None, -1, names=self._names(piece))
            self._score(piece, counts, place, values[:, first:stop])
            first = stop
        refuse_bad_rows(self._evaluation, counts.ledger)
        counts.n_rows += int(batch.starts[-1])
        for metric, own in zip(self._metrics, values, strict=True):
            lacking = int(np.count_nonzero(np.isnan(own)))
            counts.without_value[metric.name] = counts.without_value.get(metric.name, 0) + lacking
        return ScoredGroups(batch.words, np.diff(batch.starts), values)

    def _names(self, batch: Batch) -> GroupNames | None:
        values = self._gathered.values
        if not isinstance(batch, GroupedBatch) or len(batch.words) == 1 or values is None:
            return group_names(batch)
        words = batch.words

        def describe(group: int) -> str:
            # All keys are known by now, and it is looked up only if the place is told.
            found = values.lookup([word[group : group + 1] for word in words])
            of_columns = zip(self._gathered.key_types, found, strict=True)
            return ", ".join(f"{name} = {key_values(column)[0]!r}" for name, column in of_columns)

        return GroupNames(words[0].view(np.uint64), describe)

    def _score(self, batch: Batch, counts: GroupCounts, place: Place, values: Floats) -> None:
        counts.ledger.n_read += batch.n_rows
        if batch.n_rows == 0:
            return
        workspace: Workspace = self._local.__dict__.setdefault("workspace", Workspace())
        with np.errstate(all="ignore"), workspace.scope():
            checked = self._checks.check(counts.ledger, batch, place)
            (found,) = checked.models
            # Metrics that need the same of a group share what is computed of its rows.
            used_by: dict[int, UsedRows] = {}
            for metric, own in zip(self._metrics, values, strict=True):
                keep = found.keep[metric.rows]
                used = used_by.get(id(keep))
                if used is None:
                    arrangement = Arrangement((), {}, keep, batch.n_rows, workspace, self._device, is_shared=False)
                    used = used_by[id(keep)] = UsedRows(
                        arrangement=arrangement,
                        inputs=found.inputs.take(arrangement),
                        weight=None,
                        space=self._model.space,
                        may_saturate=found.may_saturate,
                        place=place,
                        workspace=workspace,
                        device=self._device,
                    )
                self._count_saturated(metric, used, counts)
                self._evaluate(metric, used, keep, own, counts, place)

    def _evaluate(
        self, metric: _Metric, used: UsedRows, keep: Mask | None, values: Floats, counts: GroupCounts, place: Place
    ) -> None:
        terms = used.terms
        metric.fill(used, terms)
        if metric.unit is not None:
            np.divide(terms, metric.unit.size, out=terms)
        values[slice(None) if keep is None else keep] = terms
        # No shipped loss is NaN on a good row. A custom one may be, where its formula is 0·∞.
        is_nan = np.isnan(values) if keep is None else np.isnan(values) & keep
        if is_nan.any():
            cause = Cause("nan_loss", self._model.column, self._model.space)
            counts.ledger.drop(cause, int(np.count_nonzero(is_nan)), place.location(place.first(is_nan)))

    def _count_saturated(self, metric: _Metric, used: UsedRows, counts: GroupCounts) -> None:
        flags = used.saturated(metric.evaluation)
        if flags is None or not flags.any():
            return
        if self._evaluation.request.saturation == "error":
            position, row = used.first_row(flags)
            found = used.inputs.describe(position, self._model.space)
            raise saturation_error(used.place, row, self._model, metric.evaluation.loss.name, found)
        n = int(np.count_nonzero(flags))
        counts.saturated[metric.name] = counts.saturated.get(metric.name, 0) + n
