"""Exact, streaming evaluation of prediction logs: every loss and metric over Parquet, in one pass.

Names are imported when they are first used: ``import fastloss`` loads neither Numba, NumPy nor Arrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastloss._version import __version__

if TYPE_CHECKING:
    from fastloss import losses, rankings
    from fastloss.api import calibrate, evaluate, feature_gradient, merge, score
    from fastloss.calibration.result import Calibration
    from fastloss.cli.runs import run
    from fastloss.errors import DataError, FastlossError, ReadError, SchemaError, StoreError, UsageError
    from fastloss.features import FeatureGradient
    from fastloss.maps import CalibrationMap
    from fastloss.objectives import objective
    from fastloss.plan import Plan, make_plan
    from fastloss.request import Prediction, Request, logit, logprob, margin, prob, ranking_score, value
    from fastloss.result import Curve, Result, Value
    from fastloss.scan import Progress
    from fastloss.scoring import ScoreResult

_HOMES = {
    "fastloss.api": ("calibrate", "evaluate", "feature_gradient", "merge", "score"),
    "fastloss.calibration.result": ("Calibration",),
    "fastloss.cli.runs": ("run",),
    "fastloss.errors": ("DataError", "FastlossError", "ReadError", "SchemaError", "StoreError", "UsageError"),
    "fastloss.features": ("FeatureGradient",),
    "fastloss.maps": ("CalibrationMap",),
    "fastloss.objectives": ("objective",),
    "fastloss.plan": ("Plan", "make_plan"),
    "fastloss.request": ("Prediction", "Request", "logit", "logprob", "margin", "prob", "ranking_score", "value"),
    "fastloss.result": ("Curve", "Result", "Value"),
    "fastloss.scan": ("Progress",),
    "fastloss.scoring": ("ScoreResult",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Curve",
    "Calibration",
    "CalibrationMap",
    "DataError",
    "FastlossError",
    "FeatureGradient",
    "Plan",
    "Prediction",
    "Progress",
    "ReadError",
    "Request",
    "Result",
    "SchemaError",
    "ScoreResult",
    "StoreError",
    "UsageError",
    "Value",
    "__version__",
    "calibrate",
    "evaluate",
    "feature_gradient",
    "logit",
    "logprob",
    "losses",
    "make_plan",
    "margin",
    "merge",
    "objective",
    "prob",
    "ranking_score",
    "rankings",
    "run",
    "score",
    "value",
]


def __getattr__(name: str) -> Any:
    if name in ("losses", "rankings"):
        return importlib.import_module(f"fastloss.{name}")
    if name in _HOME_OF:
        found = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'fastloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
