"""Batches, checked and cut where they hold long lists: shared by the engine and scoring."""

from __future__ import annotations

from collections.abc import Iterator

from fastloss.budget import Execution
from fastloss.columns.base import Batch
from fastloss.engine.checks import Checks, RowChecks
from fastloss.engine.device import Device
from fastloss.engine.list_checks import ListChecks, pieces
from fastloss.metrics.resolve import Evaluation


def make_checks(evaluation: Evaluation, device: Device) -> Checks:
    """Return the checks of a request's columns, rows or lists."""
    return ListChecks(evaluation, device) if evaluation.lists else RowChecks(evaluation, device)


def split_batch(evaluation: Evaluation, execution: Execution, batch: Batch) -> Iterator[Batch]:
    """Return a batch whole, or one of lists in pieces of no more numbers than a batch has rows."""
    if evaluation.lists or evaluation.features or evaluation.feature_sets:
        return pieces(batch, execution.batch_rows, execution.longest_list)
    return iter((batch,))
