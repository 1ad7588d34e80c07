"""Metrics of a log from their definitions, row by row in 50 digits; never calls the library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mpmath
from mpmath import mpf

Row = tuple[float, float, float]  # label, score, weight


def probability(space: str, score: float) -> Any:
    if space == "logit":
        return 1 / (1 + mpmath.exp(-mpf(score)))
    return mpmath.exp(mpf(score)) if space == "logprob" else mpf(score)


def log_loss_row(space: str, label: float, score: float) -> Any:
    y = mpf(label)
    if space == "logit":
        x = mpf(score)
        return max(x, mpf(0)) + mpmath.log1p(mpmath.exp(-abs(x))) - y * x
    p, epsilon = probability(space, score), mpf(1e-12)
    return -y * mpmath.log(max(p, epsilon)) - (1 - y) * mpmath.log(max(1 - p, epsilon))


def evaluate(rows: Iterable[Row], space: str) -> dict[str, Any]:
    """Return every metric of the rows that count: no missing value, weight above zero."""
    with mpmath.workdps(50):
        sums = {name: mpf(0) for name in ("weight", "label", "prediction", "log_loss", "brier", "absolute")}
        n = 0
        for label, score, weight in rows:
            w, y, p = mpf(weight), mpf(label), probability(space, score) if space != "value" else mpf(score)
            sums["weight"] += w
            sums["label"] += w * y
            sums["prediction"] += w * p
            sums["brier"] += w * (p - y) ** 2
            sums["absolute"] += w * abs(p - y)
            if space != "value":
                sums["log_loss"] += w * log_loss_row(space, label, score)
            n += 1
        if n == 0:
            return {"n": 0}
        rate = sums["label"] / sums["weight"]
        log_loss = sums["log_loss"] / sums["weight"]
        result = {
            "n": n,
            "weight": sums["weight"],
            "ctr": rate,
            "mean_prediction": sums["prediction"] / sums["weight"],
            "log_loss": log_loss,
            "brier_score": sums["brier"] / sums["weight"],
            "mean_squared_error": sums["brier"] / sums["weight"],
            "root_mean_squared_error": mpmath.sqrt(sums["brier"] / sums["weight"]),
            "mean_absolute_error": sums["absolute"] / sums["weight"],
        }
        if sums["label"] != 0:
            result["calibration"] = sums["prediction"] / sums["label"]
        if sums["prediction"] != 0:
            result["copc"] = sums["label"] / sums["prediction"]
        if 0 < rate < 1:
            entropy = -(rate * mpmath.log(rate) + (1 - rate) * mpmath.log1p(-rate))
            result["normalized_entropy"] = log_loss / entropy
            result["relative_information_gain"] = 1 - log_loss / entropy
        return result
