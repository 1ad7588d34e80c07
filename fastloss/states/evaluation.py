"""The whole state of an evaluation: the ledger and the sums of every grouping."""

from __future__ import annotations

from dataclasses import dataclass

from fastloss.states.ledger import Ledger
from fastloss.states.sums import CellSums


@dataclass
class EvaluationState:
    """What a task contributes, and what tasks merge into."""

    ledger: Ledger
    groupings: tuple[CellSums, ...]

    @classmethod
    def identity(cls, n_groupings: int, n_counts: int, n_terms: int) -> EvaluationState:
        """Return the state of no rows."""
        return cls(Ledger(), tuple(CellSums(n_counts, n_terms) for _ in range(n_groupings)))

    def absorb(self, other: EvaluationState) -> None:
        """Add another state to this one; the other stays as it is."""
        self.ledger.absorb(other.ledger)
        for mine, theirs in zip(self.groupings, other.groupings, strict=True):
            mine.absorb(theirs)
