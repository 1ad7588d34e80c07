"""Which metric keeps what a curve is drawn from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from fastloss.errors import UsageError
from fastloss.metrics.base import Metric, ModelFacts, SliceStates
from fastloss.metrics.calibration_error import CalibrationBins
from fastloss.metrics.names import parse_metric
from fastloss.states.base import StateSpec

# Kinds of curves, each with a metric whose statistics tell it.
CURVES: Mapping[str, str] = {
    "roc": "roc_auc",
    "precision_recall": "roc_auc",
    "gain": "roc_auc",
    "reliability": "expected_calibration_error",
}


@runtime_checkable
class Binned(Protocol):
    """A metric that keeps bins of predictions, which are a reliability curve."""

    @property
    def name(self) -> str:
        """The name that results carry."""

    @property
    def places(self) -> tuple[str, int]:
        """Where its bins lie: the binning, and how many there are."""

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the statistics that it needs of a model."""

    def bins(self, states: SliceStates) -> CalibrationBins:
        """Return the bins of every slice."""


def metrics_of_curves(
    kinds: Sequence[str], metrics: Sequence[Metric], models: Sequence[ModelFacts], kept: Collection[StateSpec]
) -> list[Metric]:
    """Return the metrics that the curves need beside these, which keep these statistics, each once."""
    needed = [parse_metric(name) for name in dict.fromkeys(CURVES[kind] for kind in kinds)]
    return [metric for metric in needed if not _is_told(metric, metrics, models, kept)]


def _is_told(
    needed: Metric, metrics: Sequence[Metric], models: Sequence[ModelFacts], kept: Collection[StateSpec]
) -> bool:
    # Bins of any metric are a curve, and those of none are not, though they may lie in the same places.
    if isinstance(needed, Binned):
        return any(isinstance(metric, Binned) for metric in metrics)
    return all(spec in kept for model in models for spec in needed.states(model))


def check_one_binning(metrics: Sequence[Metric], advice: str) -> None:
    """Raise if metrics keep bins in different places, of which a reliability curve shows one."""
    binned = [metric for metric in metrics if isinstance(metric, Binned)]
    if len({metric.places for metric in binned}) > 1:
        names = ", ".join(metric.name for metric in binned)
        raise UsageError(
            f"A curve 'reliability' shows the bins of one metric, and these have different ones: {names}; {advice}"
        )


def check_curves(
    kinds: Sequence[str], metrics: Sequence[Metric], models: Sequence[ModelFacts], kept: Collection[StateSpec]
) -> None:
    """Raise if states that were saved do not tell a curve."""
    for kind in kinds:
        for metric in metrics_of_curves([kind], metrics, models, kept):
            raise UsageError(
                f"A curve {kind!r} is drawn from what {metric.name} keeps, and the states do not hold it; evaluate "
                f"the logs with that metric, or with curves={kind!r}."
            )
