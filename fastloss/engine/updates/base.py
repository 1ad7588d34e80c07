"""The type of updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastloss.engine.slices import UsedRows

# update(rows, columns): add the rows to the statistic's column in each grouping.
Update = Callable[[UsedRows, Sequence[Any]], None]
