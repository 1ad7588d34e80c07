"""R-precision: the share of relevant candidates among as many as there are relevant ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import divide_parts
from fastloss_kernels.jit import formula
from fastloss_kernels.rankings.base import Ranking
from fastloss_kernels.rankings.precision import expected_hits


@formula
def r_precision(score, label, n_positive, parameters, scratch) -> float:
    """Compute the expected number of relevant candidates among the first R, over R."""
    hits, hits_lo = expected_hits(score, label, n_positive)
    value, value_lo = divide_parts(hits, hits_lo, float(n_positive), 0.0)
    return value + value_lo


@dataclass(frozen=True)
class RPrecision(Ranking):
    """Precision, and recall, at the rank R, where R is the number of candidates whose label is above 0."""

    name: ClassVar[str] = "r_precision"
    aliases: ClassVar[tuple[str, ...]] = ("rprec",)
    ranking = staticmethod(r_precision)
    definition = "number of candidates with y > 0 among the first R by score / R; ties are averaged over every order"
    source = "trec_eval, Rprec; ties: as ndcg"
