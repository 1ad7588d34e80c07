"""Presets: what another system clips, divides by and counts in, so that its numbers can be reproduced.

A preset changes how a number is computed, never which rows are used: a probability outside [0, 1], which some of these
systems clip silently, stays a bad row, and a value over no rows, or over weights of sum 0, stays null, where
Keras has 0. Clipping applies to probabilities and their logarithms; the formulas from logits are exact everywhere, and
so are those from probabilities that are well inside (0, 1), where these systems round in float32.

Losses of whole lists are divided by the number of lists, as ``batchmean`` of PyTorch's ``kl_div`` has it. Soft labels
count by their parts in every preset, though LightGBM's ``binary_logloss`` takes any label above 0 for 1.

Sources: Keras 3 ``keras/src/losses/losses.py``, ``backend.epsilon()``; PyTorch ``torch.nn.functional``; scikit-learn
``sklearn.metrics.log_loss``; XGBoost ``src/metric/elementwise_metric.cu``; LightGBM ``src/metric/*_metric.hpp``;
TorchRec ``torchrec/metrics/ne.py`` and ``utils.py``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fastloss.errors import UsageError
from fastloss.words import ListReduction, Reduction
from fastloss_kernels.losses import LOSSES, Dice, ListwiseLoss, Loss, Poisson, Tversky
from fastloss_kernels.over_lists import OverLists
from fastloss_kernels.rankings import Ranking
from fastloss_kernels.variants import (
    DenominatorSmoothedDice,
    DenominatorSmoothedTversky,
    FlooredCosineSimilarity,
    FlooredPercentageError,
    FlooredSquaredLogarithmicError,
    PoissonNearZero,
)

REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


@dataclass(frozen=True)
class Unit:
    """The unit that a system counts a loss in, and how much of the loss's own unit it is."""

    name: str
    size: float


BITS = Unit("bits", math.log(2.0))
PERCENT = Unit("percent", 0.01)


@dataclass(frozen=True)
class ListInputs:
    """How lists of probabilities are prepared for a loss.

    Attributes
    ----------
    normalize : {"first", "last"} or None
        Whether they are divided by their sum, before or after they are clipped.
    upper : float or None
        What they are clipped to from above; 1 − ε if None.
    clips_labels : bool
        Whether labels are clipped too.
    """

    normalize: Literal["first", "last"] | None = None
    upper: float | None = None
    clips_labels: bool = False


@dataclass(frozen=True)
class Preset:
    """The conventions of one system.

    Attributes
    ----------
    name : str
        Its name.
    says : str
        What it does to probabilities, for the reader of a result.
    epsilon : float or None
        The smallest probability that a logarithm is taken of; None for the machine epsilon of the column's type.
    clips_both_sides : bool
        Whether probabilities are clipped to [ε, 1 − ε], so that even a certain and right one costs −log(1 − ε);
        otherwise logarithms are clipped at log ε.
    clips_in_column_type : bool
        Whether the upper bound is rounded to float32 first, for float32 and float16 columns: 1 − 1e-7 is 0.99999988
        there.
    reduction : str
        How a loss is summed up over rows.
    reductions : mapping of str to str
        Other ways for some losses, by their names.
    list_reduction : {"row", "element"}
        How a pointwise loss is taken over lists.
    units : mapping of str to Unit
        Units of losses, by their names.
    variants : mapping of str to callable
        Losses whose formula differs, by their names: from the loss to one that stands in.
    list_inputs : mapping of str to ListInputs
        Losses of lists of probabilities that are prepared in another way than by the clipping, by their names.
    ignored_class : int or None
        An index label that leaves its row out.
    one_class_auc : float or None
        The AUC of a list of one class; None if it has none.
    rankings : mapping of str to mapping of str to str
        Parameters of metrics of rankings, by their names: what a list without a positive label is, and divisors.
    """

    name: str
    says: str
    epsilon: float | None
    clips_both_sides: bool
    clips_in_column_type: bool = False
    reduction: Reduction = "mean"
    reductions: Mapping[str, Reduction] = field(default_factory=dict)
    list_reduction: ListReduction = "row"
    units: Mapping[str, Unit] = field(default_factory=dict)
    variants: Mapping[str, Callable[[Loss], Loss]] = field(default_factory=dict)
    list_inputs: Mapping[str, ListInputs] = field(default_factory=dict)
    ignored_class: int | None = None
    one_class_auc: float | None = None
    rankings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def needs(self, loss: ListwiseLoss) -> str:
        """Return the least that a list must contain.

        Presets count a list without a positive label wherever the loss is defined there, as those systems do.
        """
        if isinstance(loss, Ranking):
            return self._ranking_of(loss).needs
        return "candidate" if loss.needs == "positive" and loss.counts_no_positive else loss.needs

    def reduction_of(self, loss: Loss) -> Reduction:
        """Return how a loss is summed up over rows."""
        return self.reductions.get(loss.name, self.reduction)

    def conventions(self, losses: Sequence[Loss], spaces: Sequence[str], *, clips: bool) -> list[str]:
        """Say what the system does to these losses of predictions in these spaces, clipping left out if it is off."""
        plain = [loss.loss if isinstance(loss, OverLists) else loss for loss in losses]
        probable = [space for space in spaces if space in ("prob", "logprob")]
        said = [self.says] if clips and any(space in loss.saturated for loss in plain for space in probable) else []
        for loss in plain:
            variant, inputs = self.variant_of(loss), self.list_inputs.get(loss.name)
            if isinstance(variant, Ranking) and variant is not loss:
                said.append(f"{loss.full_name} is {variant.full_name}")
            elif variant is not loss:
                said.append(f"{loss.name} is {variant.definition}")
            if inputs is not None and "prob" in spaces:
                said += [f"{loss.name} divides the probabilities of a list by their sum"] * bool(inputs.normalize)
                said += [f"{loss.name} clips labels too"] * (inputs.clips_labels and clips)
        return said

    def variant_of(self, loss: Loss) -> Loss:
        """Return the loss that stands in for a loss; mostly itself."""
        if isinstance(loss, OverLists):
            return dataclasses.replace(loss, loss=self.variant_of(loss.loss))
        if isinstance(loss, Ranking):
            return self._ranking_of(loss)
        return self.variants[loss.name](loss) if loss.name in self.variants else loss

    def _ranking_of(self, ranking: Ranking) -> Ranking:
        """Return a ranking with the system's parameters, where it has none of its own."""
        defaults = {each.name: each.default for each in dataclasses.fields(ranking)}
        of_system = self.rankings.get(ranking.name, {})
        changed: dict[str, Any] = {
            name: word for name, word in of_system.items() if getattr(ranking, name) == defaults[name]
        }
        return dataclasses.replace(ranking, **changed) if changed else ranking


def _poisson(constant: float, form: str) -> Callable[[Loss], Loss]:
    def stand_in(loss: Loss) -> Loss:
        of_rate = isinstance(loss, Poisson) and not loss.log_input and loss.full <= form.endswith("full")
        return PoissonNearZero(constant, form) if of_rate else loss

    return stand_in


def _poisson_of_torch(loss: Loss) -> Loss:
    if isinstance(loss, Poisson) and loss.full:
        raise UsageError(
            "poisson(full=True) has the exact log y!, and PyTorch approximates it by Stirling's formula; "
            "leave out full, or the preset 'torch'."
        )
    return _poisson(1e-8, "shifted")(loss)


def _dice_of_keras(loss: Loss) -> Loss:
    assert isinstance(loss, Dice)
    return DenominatorSmoothedDice(loss.smooth)


def _tversky_of_keras(loss: Loss) -> Loss:
    assert isinstance(loss, Tversky)
    return DenominatorSmoothedTversky(loss.alpha, loss.beta, loss.smooth)


def _percentage(floor: float) -> Callable[[Loss], Loss]:
    return lambda _: FlooredPercentageError(floor)


_ZERO, _ONE = {"empty": "zero"}, {"empty": "one"}
# Boosters divide by the relevant candidates that k ranks can hold.
_MAP_OF_BOOSTERS = {"empty": "one", "denominator": "reachable"}
_KERAS_EPSILON = 1e-7

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="keras",
            says="probabilities are clipped to 1e-7 and 1 - 1e-7",
            epsilon=_KERAS_EPSILON,
            clips_both_sides=True,
            clips_in_column_type=True,
            reduction="sum_over_batch_size",
            units={"mean_absolute_percentage_error": PERCENT},
            variants={
                "mean_absolute_percentage_error": _percentage(_KERAS_EPSILON),
                "mean_squared_logarithmic_error": lambda _: FlooredSquaredLogarithmicError(_KERAS_EPSILON),
                "poisson": _poisson(_KERAS_EPSILON, "shifted"),
                "cosine_similarity": lambda _: FlooredCosineSimilarity(_KERAS_EPSILON),
                "dice": _dice_of_keras,
                "tversky": _tversky_of_keras,
            },
            list_inputs={
                "categorical_crossentropy": ListInputs(normalize="first"),
                "categorical_focal_crossentropy": ListInputs(normalize="first"),
                "sparse_categorical_crossentropy": ListInputs(normalize="last"),
                "kl_divergence": ListInputs(upper=1.0, clips_labels=True),
            },
        ),
        Preset(
            name="torch",
            says="logarithms of probabilities are at least -100",
            epsilon=math.exp(-100.0),
            clips_both_sides=False,
            reduction="sum_over_batch_size",
            # Its weights are of classes, and its mean divides by those of the rows' classes.
            reductions={"sparse_categorical_crossentropy": "mean"},
            list_reduction="element",
            variants={
                # PyTorch itself has no such loss; this is what torchmetrics divides by at least.
                "mean_absolute_percentage_error": _percentage(1.17e-6),
                "poisson": _poisson_of_torch,
                "cosine_similarity": lambda _: FlooredCosineSimilarity(1e-8),
            },
            ignored_class=-100,
            rankings=dict.fromkeys(
                ("ndcg", "map", "reciprocal_rank", "hit_rate", "precision_at_k", "recall_at_k"), _ZERO
            ),
        ),
        Preset(
            name="sklearn",
            says="probabilities are clipped to eps and 1 - eps of the column's type",
            epsilon=None,
            clips_both_sides=True,
            variants={"mean_absolute_percentage_error": _percentage(2.0**-52)},
            # Its average precision of lists is that of labels in ranks.
            rankings={"ndcg": _ZERO, "dcg": _ZERO, "map": _ONE},
        ),
        Preset(
            name="xgboost",
            says="logarithms of probabilities are at least log 1e-16",
            epsilon=1e-16,
            clips_both_sides=False,
            variants={"poisson": _poisson(1e-16, "floored_full")},
            rankings={
                "ndcg": _ONE,
                "ndcg_exp2": _ONE,
                "map": _MAP_OF_BOOSTERS,
                "precision_at_k": {"empty": "zero", "denominator": "length"},
            },
        ),
        Preset(
            name="lightgbm",
            says="logarithms of probabilities are at least log 1e-15",
            epsilon=1e-15,
            clips_both_sides=False,
            variants={
                "mean_absolute_percentage_error": _percentage(1.0),
                "poisson": _poisson(1e-10, "floored"),
            },
            one_class_auc=1.0,
            rankings={"ndcg": _ONE, "ndcg_exp2": _ONE, "map": _MAP_OF_BOOSTERS},
        ),
        Preset(
            name="torchrec",
            says="probabilities are clipped to 1e-12 and 1 - 1e-12",
            epsilon=1e-12,
            clips_both_sides=True,
            units={loss.name: BITS for loss in LOSSES if loss.unit == "nats"},
            one_class_auc=0.5,
        ),
    )
}


def preset_of(given: str | None) -> Preset | None:
    """Return the preset of a name."""
    if given is not None and given not in PRESETS:
        raise UsageError(f"preset is {given!r}; allowed: {', '.join(map(repr, PRESETS))}.")
    return None if given is None else PRESETS[given]


def reduction_of(given: str | None) -> Reduction | None:
    """Check the name of a reduction."""
    for known in REDUCTIONS:
        if given == known:
            return known
    if given == "none":
        raise UsageError(
            "reduction is 'none'; a value for each row is what fastloss.score (fastloss score) writes to Parquet; "
            f"allowed here: {', '.join(map(repr, REDUCTIONS))}."
        )
    if given is not None:
        raise UsageError(f"reduction is {given!r}; allowed: {', '.join(map(repr, REDUCTIONS))}.")
    return None
