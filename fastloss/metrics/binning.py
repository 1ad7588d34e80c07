"""Where bins of predicted probabilities lie."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastloss_kernels.elementary import sigmoid
from fastloss_kernels.inverse_links import INVERSE_LINKS

Floats = NDArray[np.float64]

# Bins of equal width in the logit divide this range.
LOGIT_RANGE = (-10, 10)
# Below this many, plain Python takes less time than loading a loop.
_FEW = 512


@dataclass(frozen=True)
class Edges:
    """The edges of bins, for predictions of one space.

    Attributes
    ----------
    inner : numpy.ndarray of float64, shape (n_bins + 1,)
        The edges, of which the outer two are −∞ and ∞.
    scale : float
        One over the width of a bin; 0 where bins are not of one width.
    of_scores : bool
        Whether they are edges of the logits in the column; else of predicted probabilities.
    """

    inner: Floats
    scale: float
    of_scores: bool


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
    if binning == "logit" and space == "logit":
        return _edges(np.array(_logit_edges(n_bins)), n_bins / (high - low), of_scores=True)
    inner = probability_edges(binning, n_bins)[1:-1]
    return _edges(inner, float(n_bins) if binning == "width" else 0.0, of_scores=False)


def _edges(inner: Floats, scale: float, *, of_scores: bool) -> Edges:
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    edges.flags.writeable = False
    return Edges(edges, scale, of_scores)


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
