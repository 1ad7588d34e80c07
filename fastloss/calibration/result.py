"""The result of a calibration: the map, and how much of the log loss it mends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from fastloss.maps import CalibrationMap
from fastloss.report.calibration import render


@dataclass(frozen=True)
class Calibration:
    """What `fastloss.calibrate` returns.

    Attributes
    ----------
    map : CalibrationMap
        The map.
    rows : dict
        ``read``, ``used`` and ``dropped``: causes, with the number of rows and the place of the first; ``filtered``
        where there is a filter.
    files : dict
        ``read`` and ``skipped``.
    """

    map: CalibrationMap
    rows: dict[str, Any]
    files: dict[str, Any]

    @property
    def coefficients(self) -> dict[str, float]:
        """The map's coefficients by name."""
        return self.map.named_coefficients

    @property
    def log_loss_before(self) -> float:
        """The mean log loss of the predictions as they are."""
        return float(self.map.fit["log_loss_before"])

    @property
    def log_loss_after(self) -> float:
        """The mean log loss through the map."""
        return float(self.map.fit["log_loss_after"])

    @property
    def log_loss_isotonic(self) -> float:
        """The mean log loss of isotonic regression on the buckets of scores: what increasing maps can reach."""
        return float(self.map.fit["log_loss_isotonic"])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the map as JSON, whole or not at all; `evaluate` and `score` apply it."""
        self.map.write(path)

    def to_dict(self) -> dict[str, Any]:
        """Return the map, and what became of rows and files, as plain values."""
        return {**self.map.to_dict(), "rows": self.rows, "files": self.files}

    def __str__(self) -> str:
        """Return the map and its log losses as a text table."""
        return render(self.to_dict())
