"""Which metric keeps what a curve is drawn from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fastloss.errors import UsageError
from fastloss.metrics.base import Metric, ModelFacts
from fastloss.metrics.names import parse_metric
from fastloss.states.base import StateSpec

# Kinds of curves, each with a metric whose statistics tell it.
CURVES: Mapping[str, str] = {"roc": "roc_auc", "precision_recall": "roc_auc", "gain": "roc_auc"}


def metrics_of_curves(kinds: Sequence[str], models: Sequence[ModelFacts], kept: Collection[StateSpec]) -> list[Metric]:
    """Return the metrics whose statistics the curves need beside those that are kept, each once."""
    metrics = [parse_metric(name) for name in dict.fromkeys(CURVES[kind] for kind in kinds)]
    return [metric for metric in metrics if not all(spec in kept for model in models for spec in metric.states(model))]


def check_curves(kinds: Sequence[str], models: Sequence[ModelFacts], kept: Collection[StateSpec]) -> None:
    """Raise if states that were saved do not tell a curve."""
    for kind in kinds:
        for metric in metrics_of_curves([kind], models, kept):
            raise UsageError(
                f"A curve {kind!r} is drawn from what {metric.name} keeps, and the states do not hold it; evaluate "
                f"the logs with that metric, or with curves={kind!r}."
            )
