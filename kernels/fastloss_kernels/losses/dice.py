"""Dice loss: 1 less the overlap of two sets by their mean size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.losses.base import ListwiseLoss
from fastloss_kernels.losses.tversky import Tversky


@dataclass(frozen=True)
class Dice(ListwiseLoss):
    """1 less the Dice coefficient of the labels and the predicted probabilities of a list; 0 where both are empty.

    Parameters
    ----------
    smooth : float
        What is added to numerator and denominator, at least 0.
    """

    smooth: float = 1e-7

    name: ClassVar[str] = "dice"
    aliases: ClassVar[tuple[str, ...]] = ("dice_loss",)
    label_range: ClassVar[Interval] = Interval(0.0, 1.0)
    formulas = Tversky.formulas
    ranges = {"smooth": Interval(0.0, 1e100)}
    definition = "1 − (2Σpt + smooth)/(Σp + Σt + smooth)"
    source = "Dice, Measures of the amount of ecologic association between species, Ecology 26 (1945)"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the Tversky loss reads: both weights one half, and half of what is added."""
        return 0.5, 0.5, 0.5 * self.smooth, 0.0
