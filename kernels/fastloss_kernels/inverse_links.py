"""Inverse link functions: the predicted mean of the label from a logit or a log-probability."""

from __future__ import annotations

from collections.abc import Mapping

from fastloss_kernels.domain import Row
from fastloss_kernels.elementary import exp, sigmoid
from fastloss_kernels.jit import formula


@formula
def from_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Return σ(x)."""
    return sigmoid(score), 0.0, 0.0


@formula
def from_logprob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Return e^l."""
    return exp(score), 0.0, 0.0


# The remaining spaces already hold the mean (prob, value), or have none (margin).
INVERSE_LINKS: Mapping[str, Row] = {"logit": from_logit, "logprob": from_logprob}
