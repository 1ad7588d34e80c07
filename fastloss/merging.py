"""Merging of saved states: the result of one evaluation over all their logs, to the last bit.

What can be refused is refused from what the files say of themselves, before any array is read. States are then read
one after the other, so that no more than one of them is in memory beside the merged one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastloss.errors import UsageError
from fastloss.metrics.evaluate import refining_specs
from fastloss.metrics.resolve import Evaluation, resolve
from fastloss.request import groupings_of
from fastloss.scan import ScanResult
from fastloss.state_file import StateHead, StateReader, read_head, resolve_head
from fastloss.states.base import bounded_bytes
from fastloss.states.evaluation import EvaluationState
from fastloss.states.inputs import STREAM
from fastloss.states.slices import SliceTable


@dataclass(frozen=True)
class MergePlan:
    """States that may be merged, and what is made of them.

    Attributes
    ----------
    saved : Evaluation
        The request of the states.
    evaluation : Evaluation
        The same with the groupings that are wanted.
    heads : tuple of StateHead
        The states.
    sources : tuple of int
        For each wanted grouping the saved one that it is read from.
    """

    saved: Evaluation
    evaluation: Evaluation
    heads: tuple[StateHead, ...]
    sources: tuple[int, ...]

    def asked(self) -> dict[str, Any]:
        """Return what was asked, as plain values."""
        return self.evaluation.asked()

    @property
    def inputs(self) -> list[str]:
        """The states, and the files that they were computed from."""
        return [*(head.path for head in self.heads), *(name for head in self.heads for name in head.inputs)]


def plan_merge(
    paths: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    by: Sequence[str | Sequence[str]] | str | None = None,
) -> MergePlan:
    """Check that states may be merged, and choose among their groupings.

    Raises
    ------
    UsageError
        If they may not, or a grouping is not in them.
    ReadError
        If a file is no state, or damaged.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise UsageError(f"The states are {paths!r}; allowed: a list of files that state= has written.")
    if not paths:
        raise UsageError("No state was given; name files that state= has written.")
    heads = [read_head(path) for path in paths]
    _check_requests(heads)
    _check_inputs(heads)
    saved = resolve_head(heads[0])
    for head in heads[1:]:
        resolve_head(head)
    wanted = saved.request.by if by is None else groupings_of(by)
    evaluation = saved
    if wanted != saved.request.by:
        evaluation = resolve(replace(saved.request, by=wanted), saved.types, of_states=True)
    sources = tuple(_source_of(keys, saved) for keys in evaluation.groupings)
    return MergePlan(saved, evaluation, tuple(heads), sources)


def _source_of(keys: tuple[str, ...], saved: Evaluation) -> int:
    """Return which saved grouping tells most directly of the slices by these keys."""
    groupings = saved.groupings
    if keys in groupings:
        return groupings.index(keys)
    finer = [number for number, known in enumerate(groupings) if set(keys) <= set(known)]
    known = ", ".join(" × ".join(by) for by in saved.request.by) or "the total alone"
    if not finer:
        raise UsageError(
            f"by asks for {' × '.join(keys)}, and the states keep {known}; name some of these columns, "
            "or evaluate the logs with that grouping."
        )
    if any(map(bounded_bytes, saved.specs)):
        raise UsageError(
            f"by asks for {' × '.join(keys)}, and the states keep {known}; a histogram of scores by finer slices has "
            "less detail: evaluate the logs with that grouping."
        )
    return min(finer, key=lambda number: len(groupings[number]))


def run_merge(plan: MergePlan) -> ScanResult:
    """Read the states of a plan and merge them.

    Raises
    ------
    ReadError
        If a file has changed since it was planned, or does not hold what its request asks for.
    UsageError
        If a metric wants a second pass over the logs.
    """
    evaluation, specs = plan.evaluation, plan.evaluation.specs
    merged = ScanResult(EvaluationState.identity(evaluation.groupings, specs), specs, n_files=0)
    for head in plan.heads:
        reader = StateReader(head, plan.saved)
        for source in sorted(set(plan.sources)):
            wanted = [table for table, of in zip(merged.state.tables, plan.sources, strict=True) if of == source]
            _add_grouping(reader, source, plan.saved, wanted)
        merged.state.ledger.merge(head.ledger)
        merged.state.inputs |= head.inputs
        merged.skipped += head.skipped
        merged.edges = head.edges
        merged.n_files = None if merged.n_files is None or head.n_files is None else merged.n_files + head.n_files
    merged.state.normalize()
    merged.skipped.sort(key=str)
    if any(refining_specs(evaluation, table, specs) for table in merged.state.tables):
        raise UsageError(
            "An exact value needs a second pass over all logs here, which states cannot give; evaluate the logs "
            "together, or leave out exact: low and high then bound the value."
        )
    return merged


def _add_grouping(reader: StateReader, source: int, saved: Evaluation, tables: Sequence[SliceTable]) -> None:
    """Add the slices of a saved grouping to tables by some of its keys, in any order."""
    keys = reader.keys(source)
    n_slices = len(keys[0].codes) if keys else 1
    if not n_slices:
        return
    coded = dict(zip(saved.groupings[source], keys, strict=True))
    positions = [table.positions_of([coded[key] for key in table.keys], n_slices) for table in tables]
    for number, spec in enumerate(saved.specs):
        column = reader.column(source, spec, n_slices)
        for table, of in zip(tables, positions, strict=True):
            table.columns[number].merge(column, of)


def _check_requests(heads: Sequence[StateHead]) -> None:
    """Refuse states of different requests, and say where they differ."""
    first = heads[0]
    for head in heads[1:]:
        if (head.fingerprint, head.formulas, head.custom) == (first.fingerprint, first.formulas, first.custom):
            continue
        if head.formulas != first.formulas:
            raise UsageError(
                f"The states {first.path!r} and {head.path!r} were computed with versions {first.formulas} and "
                f"{head.formulas} of the formulas; evaluate the log of the older one anew."
            )
        for name, one, other in _differences(first, head):
            raise UsageError(
                f"The states {first.path!r} and {head.path!r} answer different requests: {name} is {_shown(one)} in "
                f"the first and {_shown(other)} in the second; merge states of one request."
            )
        raise UsageError(
            f"The states {first.path!r} and {head.path!r} answer different requests; merge states of one request."
        )
    for head in heads[1:]:
        for column, edges in head.edges.items():
            if edges != first.edges.get(column):
                raise UsageError(
                    f"The states {first.path!r} and {head.path!r} have different edges of {column}, which are the "
                    "quantiles of each log; evaluate the logs together, or by edges of your own: cut(score, 0.1, 0.5)."
                )


def _differences(first: StateHead, head: StateHead) -> Iterator[tuple[str, Any, Any]]:
    one, other = first.asked, head.asked
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield name, one.get(name), other.get(name)
    for column in first.types:
        if column in head.types and first.types[column].name != head.types[column].name:
            yield f"the type of column {column!r}", first.types[column].name, head.types[column].name
    for mine, theirs in zip(first.custom, head.custom, strict=False):
        if mine != theirs:
            yield f"the definition of the custom loss {mine[0]!r}", mine[1:], theirs[1:]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:119] + "…"


def _check_inputs(heads: Sequence[StateHead]) -> None:
    """Refuse states that have an input in common, whose rows would count twice."""
    paths: dict[str, str] = {}
    known: dict[str, StateHead] = {}
    for head in heads:
        path = os.path.realpath(head.path)
        if path in paths:
            raise UsageError(f"The states {paths[path]!r} and {head.path!r} are one file; name each state once.")
        paths[path] = head.path
        for name, found in head.inputs.items():
            earlier = known.setdefault(name, head)
            if earlier is head:
                continue
            both = f"The states {earlier.path!r} and {head.path!r} both hold"
            if found == STREAM:
                raise UsageError(f"{both} the rows of one stream; merge one of them alone.")
            if found == earlier.inputs[name]:
                raise UsageError(f"{both} the rows of {name!r}, which would count twice; merge one of them alone.")
            raise UsageError(
                f"{both} the rows of {name!r}, which was changed between them; evaluate it anew and merge that alone."
            )
