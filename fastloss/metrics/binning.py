"""Where bins of predicted probabilities lie."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from fastloss.states.bins import Edges
from fastloss_kernels.elementary import sigmoid
from fastloss_kernels.inverse_links import INVERSE_LINKS

Floats = NDArray[np.float64]

# Bins of equal width in the logit divide this range.
LOGIT_RANGE = (-10, 10)
# Below this many, plain Python takes less time than loading a loop.
_FEW = 512


def probability_edges(binning: str, n_bins: int) -> Floats:
    """Return the edges of all bins as probabilities, float64 ``(n_bins + 1,)``.

    Bins of equal width are ``[i/B, (i + 1)/B)``, the last one closed. Those of equal width in the logit divide the
    logits from −10 to 10, and the outer two hold what lies beyond, so their edges are 0 and 1. An edge is the nearest
    float64; a bin begins at its edge.
    """
    if binning == "width":
        return np.array([i / n_bins for i in range(n_bins + 1)])
    return np.array([0.0, *(sigmoid(x) for x in _logit_edges(n_bins)), 1.0])


@functools.cache
def edges_of(binning: str, n_bins: int, space: str) -> Edges:
    """Return the edges by which the rows of a model find their bins.

    Bins of logits in a column of logits have edges that are logits: no probability is rounded on the way.
    """
    low, high = LOGIT_RANGE
    of_scores = binning == "logit" and space == "logit"
    inner = np.array(_logit_edges(n_bins)) if of_scores else probability_edges(binning, n_bins)[1:-1]
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    edges.flags.writeable = False
    if binning == "width":
        return Edges(edges, float(n_bins), 0.0, of_scores=False)
    scale = n_bins / (high - low)
    return Edges(edges, scale, -low * scale, of_scores=of_scores, by_odds=not of_scores)


def _logit_edges(n_bins: int) -> list[float]:
    """Return the edges between bins, each rounded once."""
    low, high = LOGIT_RANGE
    return [(low * (n_bins - i) + high * i) / n_bins for i in range(1, n_bins)]


def predicted_means(scores: Floats, space: str) -> Floats:
    """Return the probabilities that scores of a space stand for, float64 ``(n,)``."""
    inverse_link = INVERSE_LINKS.get(space)
    if inverse_link is None:
        return scores
    if len(scores) < _FEW:
        return np.array([inverse_link(score, 0.0, ())[0] for score in scores.tolist()], dtype=np.float64)
    # Planning needs no compiler.
    from fastloss_kernels.cpu.pointwise import make_value

    means = np.empty(len(scores))
    given = scores.view()
    given.flags.writeable = False
    make_value(inverse_link)(given, given, (), means)
    return means
