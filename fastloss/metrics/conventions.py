"""One loss of one model under one request: what is computed. Presets are read here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastloss.metrics.presets import ListInputs, Preset, Unit
from fastloss.request import ColumnType
from fastloss_kernels.domain import SATURATION_EPSILON, SPACES, UNSATURATED, Interval
from fastloss_kernels.losses import ListwiseLoss, Loss
from fastloss_kernels.rankings import Ranking


@dataclass(frozen=True)
class RankOrder:
    """How the candidates of a list are ordered for metrics of rankings.

    Attributes
    ----------
    ties : {"average", "input", "pessimistic", "optimistic", "id_desc"}
        How candidates of equal scores are ordered; on average they stay equal, else no score is equal to another.
    """

    ties: str = "average"


@dataclass(frozen=True)
class InputTransform:
    """How predictions, and labels beside lists of them, are changed before a loss reads them.

    Attributes
    ----------
    clip : tuple of float, or None
        What predictions are clipped to.
    lists : ListInputs or None
        How lists of probabilities are prepared.
    ranked : RankOrder or None
        How candidates are ordered; None where they stay as they are.
    """

    clip: tuple[float, float] | None = None
    lists: ListInputs | None = None
    ranked: RankOrder | None = None

    def changes(self, *, may_saturate: bool) -> bool:
        """Tell whether inputs are changed; far from the ends of its space no prediction is clipped."""
        return self.lists is not None or self.ranked is not None or (self.clip is not None and may_saturate)


@dataclass(frozen=True)
class LossEvaluation:
    """A loss as it is computed for one model.

    Attributes
    ----------
    loss : Loss
        The loss as asked for, with its name and traits.
    formula : callable
        The formula: that of the loss, or of what the preset has stand in for it.
    parameters : tuple of float
        What the formula reads beside score and label.
    exact_formula, exact_parameters : callable, tuple of float
        The loss itself with nothing clipped.
    saturated : callable or None
        The test whether the loss is clipped or infinite; None for losses that never are.
    saturation_parameters : tuple of float
        What the test reads.
    transform : InputTransform
        What is done to predictions first.
    needs : tuple of str
        What a list must hold; empty for numbers.
    n_scratch : int
        Rows of scratch that a listwise formula needs.
    """

    loss: Loss
    formula: Callable[..., Any]
    parameters: tuple[float, ...]
    exact_formula: Callable[..., Any]
    exact_parameters: tuple[float, ...]
    saturated: Callable[..., bool] | None
    saturation_parameters: tuple[float, ...]
    transform: InputTransform
    needs: tuple[str, ...]
    n_scratch: int = 0


@dataclass(frozen=True)
class RequestConventions:
    """The conventions of a request: its preset and its saturation, and the types of its columns.

    Attributes
    ----------
    preset : Preset or None
        The conventions of another system.
    saturation : {"clip", "exact", "error"}
        What is done where a probability rules out what happened.
    columns : mapping of str to ColumnType
        The types of the columns.
    common_needs : tuple of str
        What every list must hold where all metrics use the same lists; empty where each uses its own.
    ties : str
        How metrics of rankings order candidates of equal scores.
    """

    preset: Preset | None
    saturation: str
    columns: tuple[tuple[str, ColumnType], ...]
    common_needs: tuple[str, ...] = ()
    ties: str = "average"

    def epsilon(self, column: str) -> float:
        """Return the smallest probability of an outcome before a loss is clipped; 0 if it never is."""
        if self.saturation != "clip":
            return 0.0
        if self.preset is None:
            return SATURATION_EPSILON
        return self._type(column).epsilon if self.preset.epsilon is None else self.preset.epsilon

    def _type(self, column: str) -> ColumnType:
        return dict(self.columns)[column]

    def _clip(self, space: str, column: str) -> tuple[float, float] | None:
        epsilon = self.epsilon(column)
        if self.preset is None or not self.preset.clips_both_sides or epsilon == 0.0:
            return None
        if space == "prob":
            high = 1.0 - epsilon
            if self.preset.clips_in_column_type and self._type(column).is_single:
                high = float(np.float32(high))
            return epsilon, high
        return (math.log(epsilon), math.log1p(-epsilon)) if space == "logprob" else None

    def unsaturated(self, space: str, column: str) -> tuple[float, float]:
        """Return predictions between which none is clipped or rules out an outcome."""
        low, high = UNSATURATED.get(space, SPACES[space])
        epsilon = 2.0 * self.epsilon(column)
        if space == "prob":
            return max(low, epsilon), min(high, 1.0 - epsilon)
        if space == "logprob" and epsilon > 0.0:
            return max(low, math.log(epsilon)), min(high, -epsilon)
        return low, high

    def variant(self, loss: Loss) -> Loss:
        """Return the loss whose formula is computed: what the preset has stand in for it, or itself."""
        return loss if self.preset is None else self.preset.variant_of(loss)

    def evaluation(self, loss: Loss, space: str, column: str) -> LossEvaluation:
        """Return how a loss is computed for predictions of a space in a column."""
        variant, epsilon = self.variant(loss), self.epsilon(column)
        lists = None
        if self.preset is not None and space == "prob":
            lists = self.preset.list_inputs.get(loss.name)
        clip = self._clip(space, column) if space in loss.saturated or lists is not None else None
        return LossEvaluation(
            loss=loss,
            formula=variant.formulas[space],
            parameters=variant.parameters(space, epsilon),
            exact_formula=loss.formulas[space],
            exact_parameters=loss.parameters(space, 0.0),
            saturated=loss.saturated.get(space),
            saturation_parameters=loss.parameters(space, epsilon),
            transform=InputTransform(clip, lists, self._ranked(loss)),
            needs=self.needs(loss),
            n_scratch=variant.n_scratch if isinstance(variant, ListwiseLoss) else 0,
        )

    def _ranked(self, loss: Loss) -> RankOrder | None:
        if not isinstance(loss, Ranking):
            return None
        # A tie of a pair counts one half under every rule.
        return RankOrder(self.ties if loss.at_ranks else "average")

    def needs(self, loss: Loss) -> tuple[str, ...]:
        """Return what a list must hold for a loss; empty for pointwise losses."""
        if not isinstance(loss, ListwiseLoss):
            return ()
        return (loss.needs if self.preset is None else self.preset.needs(loss),)

    def label_range(self, loss: Loss) -> Interval:
        """Return the labels that a loss accepts."""
        return self.variant(loss).label_range

    def prediction_range(self, loss: Loss, space: str) -> Interval:
        """Return the predictions that a loss accepts."""
        return self.variant(loss).prediction_range(space)

    def unit(self, loss: Loss) -> Unit | None:
        """Return the unit that means of a loss are given in; None for the loss's own."""
        return None if self.preset is None else self.preset.units.get(loss.name)

    @property
    def one_class_auc(self) -> float | None:
        """The AUC that a list of one class counts with; None if it is left out."""
        return None if self.preset is None else self.preset.one_class_auc

    def reduction(self, loss: Loss, asked: str | None) -> str:
        """Return how a loss is summed up over rows."""
        if asked is not None:
            return asked
        return "mean" if self.preset is None else self.preset.reduction_of(loss)

    def ignored_classes(self, losses: Sequence[Loss]) -> tuple[float, ...]:
        """Return the index labels that leave their row out."""
        ignored = {loss.ignore_class for loss in losses if isinstance(loss, ListwiseLoss)}
        if self.preset is not None:
            ignored.add(self.preset.ignored_class)
        return tuple(sorted(float(label) for label in ignored if label is not None))

    def describe(self, losses: Sequence[Loss], spaces: Sequence[str]) -> list[str]:
        """Say what the preset does to losses of predictions in these spaces."""
        if self.preset is None:
            return []
        return self.preset.conventions(losses, spaces, clips=self.saturation == "clip")


def column_types(types: Mapping[str, ColumnType]) -> tuple[tuple[str, ColumnType], ...]:
    """Return the types in the order of their columns' names, as a value that can be hashed."""
    return tuple(sorted(types.items()))
