"""The result of a calibration: the map, and how much of the log loss it mends."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from fastloss.maps import FORMULAS, CalibrationMap
from fastloss.report.content import count_of


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
        ``files`` and ``skipped``.
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
        """Return the map and its log losses as a table."""
        fit, method = self.map.fit, self.map.method
        gain, more = self.log_loss_before - self.log_loss_after, self.log_loss_after - self.log_loss_isotonic
        lines = [("method", f"{method}: {FORMULAS[method]}")]
        lines += [(name, repr(value)) for name, value in self.coefficients.items()]
        if method == "temperature":
            (a,) = self.map.coefficients
            lines.append(("T", repr(1.0 / a) if a else "inf"))
        if method == "isotonic":
            ends = " to ".join(f"{p:.6g} at {x:.6g}" for x, p in (self.map.knots[0], self.map.knots[-1]))
            lines.append(("knots", f"{len(self.map.knots):,}, from {ends}"))
        lines += [
            ("rows", f"{fit['rows']:,}"),
            ("log loss", f"{self.log_loss_before:.6g} before, {self.log_loss_after:.6g} after"),
            ("miscalibration", f"{gain:.6g}, {100.0 * gain / self.log_loss_before:.3g} % of the log loss"),
            ("any rising map", f"{self.log_loss_isotonic:.6g} at best, {more:.6g} less"),
        ]
        width = max(len(name) for name, _ in lines)
        said = [f"{name:{width}}  {text}" for name, text in lines]
        if method in ("platt", "temperature") and self.map.coefficients[0] < 0.0:
            said.append("The map falls: the higher the score, the fewer positives. Is it the score of the label?")
        said += [
            f"dropped {count_of(entry['rows'], 'row')}: {entry['cause']} in {entry['column']}, the first in "
            f"{entry['first']}"
            for entry in self.rows["dropped"]
        ]
        return "\n".join(said)
