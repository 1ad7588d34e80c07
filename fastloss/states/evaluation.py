"""The whole state of an evaluation: the ledger, a table of slices for every grouping, and the inputs, if known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastloss.states.base import StateSpec
from fastloss.states.inputs import Input
from fastloss.states.ledger import Ledger
from fastloss.states.slices import SliceTable


@dataclass
class EvaluationState:
    """The state of a task, and of all tasks merged.

    Attributes
    ----------
    ledger : Ledger
        The rows that were read, and those left out.
    tables : tuple of SliceTable
        The statistics of each grouping.
    inputs : dict of str to Input
        The files that were evaluated, by path or URL, and streams, each by a name of its own. Empty until a whole log
        has been evaluated, and where nobody asked.
    staged : tuple of list
        Rows that are gathered and wait until the task is read whole: for each that gathers, those of each batch.
    groups : tuple of EvaluationState
        For each group key, the state of the groups that were whole in a task.
    """

    ledger: Ledger
    tables: tuple[SliceTable, ...]
    inputs: dict[str, Input] = field(default_factory=dict)
    staged: tuple[list[Any], ...] = field(default=(), repr=False)
    groups: tuple[EvaluationState, ...] = ()

    @classmethod
    def identity(cls, groupings: Sequence[tuple[str, ...]], specs: Sequence[StateSpec]) -> EvaluationState:
        """Return the state of no rows."""
        return cls(Ledger(), tuple(SliceTable(keys, specs) for keys in groupings))

    def merge(self, other: EvaluationState) -> None:
        """Add another state to this one. The other stays as it is."""
        self.ledger.merge(other.ledger)
        self.inputs |= other.inputs
        for mine, theirs in zip(self.tables, other.tables, strict=True):
            mine.merge(theirs)
        for of_mine, of_theirs in zip(self.groups, other.groups, strict=True):
            of_mine.merge(of_theirs)

    def normalize(self) -> None:
        """Bring every column into the form that is read and stored."""
        for table in self.tables:
            for column in table.columns:
                column.normalize()

    @property
    def nbytes(self) -> int:
        """The memory that the statistics take."""
        return sum(table.nbytes for table in self.tables)
