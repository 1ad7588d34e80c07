"""The type of updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastloss.engine.slices import UsedRows
from fastloss.states.base import SliceRuns, StateSpec

# update(rows, columns): add the rows to the statistic's column in each grouping.
Update = Callable[[UsedRows, Sequence[Any]], None]

# Of so few slices it is quicker to merge a batch's part into each model's column than to add its rows there.
_FEW_SLICES = 256


def add_once(
    spec: StateSpec, key: object, rows: UsedRows, columns: Sequence[Any], add: Callable[[Any, SliceRuns], None]
) -> None:
    """Add to the column of each grouping what does not depend on the model: models of the same rows share the work.

    Parameters
    ----------
    spec : StateSpec
        The statistic.
    key : object
        The name of what is added, the same for every model of the rows.
    rows : UsedRows
        The rows.
    columns : sequence of StateColumn
        The columns of this model.
    add : callable
        ``add(column, runs)`` adds the rows to a column.
    """
    for number, (column, runs) in enumerate(zip(columns, rows.runs, strict=True)):
        if not rows.arrangement.is_shared or runs.starts is None or column.n_slices > _FEW_SLICES:
            add(column, runs)
            continue

        def make_part(runs: SliceRuns = runs) -> Any:
            part = spec.identity()
            part.resize(len(runs.positions))
            add(part, runs.in_own_slices())
            return part

        column.merge(rows.arrangement.memo.once(("part", key, number), make_part), runs.positions)
