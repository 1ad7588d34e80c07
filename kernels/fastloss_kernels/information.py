"""Entropies of distributions."""

from __future__ import annotations

from fastloss_kernels.elementary import log, log1p
from fastloss_kernels.jit import formula


@formula
def binary_entropy(rate: float, rest: float) -> float:
    """Compute −c·log c − (1 − c)·log(1 − c) in nats, of a rate c and 1 − c as both are known best."""
    # The logarithm of the larger side is taken through the smaller one, which keeps more digits.
    log_rate = log(rate) if rate < 0.5 else log1p(-rest)
    log_rest = log(rest) if rest < 0.5 else log1p(-rate)
    return -(rate * log_rate + rest * log_rest)
