"""The quantities that metrics sum or count over rows, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from fastloss.metrics.conventions import LossEvaluation


@dataclass(frozen=True)
class _OfLoss:
    """A quantity of one loss, called by `kind` and the loss's name with its parameters."""

    evaluation: LossEvaluation

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """The kind of quantity and the loss."""
        return f"{self.kind} {self.evaluation.loss.full_name}"


@dataclass(frozen=True)
class Weight:
    """The weight of a row."""

    name = "weight"


@dataclass(frozen=True)
class Label:
    """The label, times the weight."""

    name = "label"


@dataclass(frozen=True)
class WeightFrom:
    """The weight of the rows whose prediction is a threshold or above, in the prediction's own space."""

    threshold: float

    @property
    def name(self) -> str:
        """The quantity and the threshold."""
        return f"weight from {self.threshold!r}"


@dataclass(frozen=True)
class LabelFrom:
    """The label, times the weight, of the rows whose prediction is a threshold or above."""

    threshold: float

    @property
    def name(self) -> str:
        """The quantity and the threshold."""
        return f"label from {self.threshold!r}"


@dataclass(frozen=True)
class LabelVariance:
    """y·(1 − y) of the label y, times the weight; 0 of binary labels."""

    name = "label variance"


@dataclass(frozen=True)
class PredictedMean:
    """The mean of the label that the prediction stands for, times the weight."""

    name = "predicted mean"


@dataclass(frozen=True)
class LossValue(_OfLoss):
    """A loss, times the weight."""

    kind = "loss"


@dataclass(frozen=True)
class LossGradient(_OfLoss):
    """The derivative of a loss by the prediction, times the weight."""

    kind = "gradient"


@dataclass(frozen=True)
class LossHessian(_OfLoss):
    """The second derivative of a loss by the prediction, times the weight."""

    kind = "hessian"


@dataclass(frozen=True)
class SquaredGradient(_OfLoss):
    """The square of the derivative of a loss times the weight."""

    kind = "squared gradient"


@dataclass(frozen=True)
class FeatureDerivatives:
    """The derivatives of a loss by the prediction, times features."""

    evaluation: LossEvaluation
    features: tuple[str, ...]

    @property
    def name(self) -> str:
        """The loss and the features."""
        return f"{self.evaluation.loss.full_name} with {', '.join(self.features)}"


@dataclass(frozen=True)
class Candidates:
    """The unmasked candidates of a list: counted, or summed times the weight."""

    name = "candidates"


@dataclass(frozen=True)
class AucChoice:
    """The lists that a mean of AUCs takes, and what each weighs in it.

    Attributes
    ----------
    weighting : str
        What a list weighs.
    drop_constant : bool
        Whether lists whose scores are all equal are left out.
    one_class : float or None
        The AUC that a list of one class counts with; None if it is left out.
    """

    weighting: str
    drop_constant: bool
    one_class: float | None

    @property
    def name(self) -> str:
        """What tells it from other choices."""
        constant = " without constant ones" if self.drop_constant else ""
        return f"lists{constant}, one class {self.one_class!r}"


@dataclass(frozen=True)
class ListAuc:
    """The AUC of a list times what the list weighs."""

    choice: AucChoice

    @property
    def name(self) -> str:
        """The weighting and the lists."""
        return f"auc by {self.choice.weighting} of {self.choice.name}"


@dataclass(frozen=True)
class ListAucWeight:
    """What a list weighs in a mean of AUCs."""

    choice: AucChoice

    @property
    def name(self) -> str:
        """The weighting and the lists."""
        return f"{self.choice.weighting} of {self.choice.name}"


@dataclass(frozen=True)
class ListAucCandidates:
    """The unmasked candidates of the lists that a mean of AUCs takes; how much they weigh does not matter."""

    choice: AucChoice

    @property
    def name(self) -> str:
        """The lists."""
        return f"candidates of {self.choice.name}"


@dataclass(frozen=True)
class ListsOfKind:
    """The lists of one kind.

    Attributes
    ----------
    kind : {"no positive", "no negative", "constant"}
        What the unmasked candidates have: no positive, no negative, or both and one score.
    """

    kind: str

    @property
    def name(self) -> str:
        """The kind."""
        return f"lists, {self.kind}"


@dataclass(frozen=True)
class SaturatedWeight(_OfLoss):
    """The weight of the rows whose loss is clipped or infinite."""

    kind = "saturated weight"


@dataclass(frozen=True)
class Rows:
    """The rows themselves."""

    name = "rows"


@dataclass(frozen=True)
class Positives:
    """The rows whose label is above 0."""

    name = "positives"


@dataclass(frozen=True)
class SaturatedRows(_OfLoss):
    """The rows whose loss is clipped or infinite."""

    kind = "saturated rows"


@dataclass(frozen=True)
class ClippedRows:
    """The rows whose prediction the fit of a calibration map clips: a probability within 1e-12 of 0 or of 1.

    Attributes
    ----------
    space : {"prob", "logprob"}
        The space of the predictions.
    """

    space: str

    name = "clipped rows"


@dataclass(frozen=True)
class InfiniteRows(_OfLoss):
    """The rows whose loss would be infinite if nothing were clipped."""

    kind = "infinite rows"


@dataclass(frozen=True)
class FitTerms:
    """The log loss of a calibration map, its gradient and its Hessian by the map's coefficients, times the weight.

    Attributes
    ----------
    kind : str
        The map's features, as `fastloss_kernels.calibration.features_of` has them.
    n_features : int
        How many there are.
    parameters : tuple of float
        What features read beside the score.
    coefficients : tuple of float
        The coefficient of each feature.
    wanted : int
        The bit 1 for the loss, the bit 2 for the Hessian; the gradient is always there. Others are 0.
    """

    kind: str
    n_features: int
    parameters: tuple[float, ...]
    coefficients: tuple[float, ...]
    wanted: int

    @property
    def name(self) -> str:
        """The map and what is summed of it."""
        return f"fit {self.kind} {self.wanted} {self.parameters} {self.coefficients}"

    @property
    def n_sums(self) -> int:
        """How many sums there are: the loss, the gradient, and the Hessian's upper triangle."""
        return 1 + self.n_features + self.n_features * (self.n_features + 1) // 2
