"""The version of the formulas: raised when a formula gives other digits, so that none is taken for another's.

Each digest is of the bits of value, gradient and hessian of a loss in all of its spaces, with default parameters, on a
fixed grid. Kernels give the same bits on every machine, so it is the same everywhere.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest

from fastloss_kernels import FORMULAS_VERSION
from fastloss_kernels.losses import LOSSES, ListwiseLoss
from fastloss_kernels.rankings import RANKINGS
from fastloss_kernels.rankings.base import RankingAtK

# The version, and the digests of its formulas.
VERSION = 1
DIGESTS = {
    "approx_ndcg_loss": "c36163201009",
    "binary_focal_crossentropy": "ff4340c7a349",
    "brier_score": "c38711d3b5b0",
    "categorical_crossentropy": "7a0ba05b9f94",
    "categorical_focal_crossentropy": "9aff23a6df91",
    "categorical_hinge": "afe61fc776c6",
    "cosine_similarity": "a2764030abe9",
    "dice": "5aba4847f12e",
    "entropy": "923aaf77fb89",
    "expectile": "16fe8a9528db",
    "exponential": "2186c7cb4daa",
    "gamma": "1fe91e6031b2",
    "generalized_crossentropy": "2d8d16fd90a0",
    "half_squared_error": "16fe8a9528db",
    "half_squared_sigmoid": "7904302458c3",
    "hinge": "7247ac21d74c",
    "huber": "be30db328e49",
    "jensen_shannon": "64f7a4da300f",
    "kl_divergence": "61bc189ea173",
    "l1_norm": "6ad724af11be",
    "l2_norm": "86813cd8ffe1",
    "lambda_rank": "4fe6fd87e9f9",
    "list_mle": "7ddc9db48aa5",
    "list_net": "9ba0a123fcd3",
    "log_cosh": "0b4e2e6bdc1e",
    "log_loss": "f978484c0855",
    "mean_absolute_error": "200f76e647d0",
    "mean_absolute_percentage_error": "b41b06c9974b",
    "mean_squared_error": "c7e67b9db00b",
    "mean_squared_logarithmic_error": "22a88b8db295",
    "modified_huber": "baef12339a1a",
    "multi_margin": "47403f6eb54e",
    "multi_positive_crossentropy": "ddecc473e2d6",
    "pairwise_hinge": "bdf0a8191851",
    "pairwise_logistic": "6eb873a6fb01",
    "pinball": "7355a9ef93d5",
    "poisson": "03a5db35fae9",
    "poly1": "7a5ecbd778c0",
    "pseudo_huber": "dc72dee85552",
    "smooth_l1": "0db82efff854",
    "sparse_categorical_crossentropy": "f4f0d14181fc",
    "squared_hinge": "d17a9a696ece",
    "tversky": "984e8924f2fb",
    "tweedie": "c45247609f06",
    "zero_one": "c9ecf5d1be4e",
}

RANKING_DIGESTS = {
    "bpref": "0ede4077557a",
    "dcg": "6aae3584edb4",
    "err": "fd14ce203fca",
    "hit_rate": "bd135b85ce20",
    "list_auc": "aaababb03623",
    "map": "0213ac7f0883",
    "ndcg": "55e3bc60bfe6",
    "ndcg_exp2": "0e847646505f",
    "precision_at_k": "c0524936b59f",
    "r_precision": "36c4e3b30235",
    "rbp": "eaee3608a941",
    "recall_at_k": "bb5c2a4b9cee",
    "reciprocal_rank": "0a322312aae1",
    "xauc": "8d356a7b9a1b",
}

FRACTIONS = [0.0, 1e-12, 1e-3, 0.125, 0.3, 0.5, 0.7, 0.999, 1.0]
NUMBERS = [-800.0, -30.0, -3.7, -1.0, -0.3, -1e-9, 0.0, 1e-9, 0.1, 1.0, 2.5, 17.0, 36.5, 800.0]
SCORES = {
    "logit": NUMBERS,
    "margin": NUMBERS,
    "value": NUMBERS,
    "prob": FRACTIONS,
    "logprob": [-700.0, -27.7, -5.5, -0.7, -0.1, -1e-9, 0.0],
}
LABELS = [*FRACTIONS, -1.0, 2.0, 3.5, 40.0]
LENGTHS = (1, 2, 3, 5, 17)


def grid(loss: Any, space: str) -> tuple[Any, Any]:
    """Return labels and scores that the loss accepts, lists as ``(n_lists, length)`` arrays."""
    labels = np.array([y for y in LABELS if y in loss.label_range])
    scores = np.array([s for s in SCORES[space] if s in loss.prediction_range(space)])
    return labels, scores


def bits(loss: Any, label: Any, space: str, score: Any) -> bytes:
    # Value and derivatives from one loop: as many compilations again would tell nothing more.
    arrays = loss._evaluate(label, {space: score}, derivatives=True)
    # One pattern of bits for every NaN.
    return b"".join(np.where(np.isnan(a), np.nan, a).astype("<f8").tobytes() for a in arrays)


def bits_of_loss(loss: Any) -> bytes:
    found = b""
    for space in loss.formulas:
        labels, scores = grid(loss, space)
        if not isinstance(loss, ListwiseLoss):
            pairs = np.array(list(itertools.product(labels, scores)))
            found += bits(loss, pairs[:, 0], space, pairs[:, 1])
            continue
        for length in LENGTHS:
            # The same score and label come together in another way in each list.
            place = np.arange(9)[:, np.newaxis] * 5 + np.arange(length) * 3
            listed = scores[place % len(scores)]
            if loss.label_kind == "index":
                found += bits(loss, np.arange(9.0) % length, space, listed)
            else:
                found += bits(loss, labels[(place * 7 + place // 4) % len(labels)], space, listed)
    return found


def test_the_digests_are_of_this_version() -> None:
    assert VERSION == FORMULAS_VERSION, "The version was raised: set VERSION, and the digests that changed."
    # A new loss gets a line here, and needs no other version.
    assert list(DIGESTS) == sorted(made.name for made in LOSSES)
    assert list(RANKING_DIGESTS) == sorted(made.name for made in RANKINGS)


@pytest.mark.parametrize("made", LOSSES, ids=lambda made: made.name)
def test_the_version_was_raised_if_a_formula_gives_other_digits(made: Any) -> None:
    found = hashlib.sha256(bits_of_loss(made())).hexdigest()[:12]
    assert found == DIGESTS.get(made.name), (
        f"{made.name} gives other digits than in version {VERSION}. Raise fastloss_kernels.FORMULAS_VERSION and "
        f"VERSION, set its digest to {found!r}, and say so in the changelog."
    )


@pytest.mark.parametrize("made", RANKINGS, ids=lambda made: made.name)
def test_the_version_was_raised_if_a_ranking_gives_other_digits(made: Any) -> None:
    random = np.random.default_rng(1)
    found = b""
    for k in (None, 1, 3, 10):
        for length in LENGTHS:
            # Ties, grades, and labels that are all equal.
            label, score = random.integers(0, 4, (9, length)) * 1.0, random.integers(0, 6, (9, length)) / 4
            ranking = made(k=k) if k is not None and isinstance(made(), RankingAtK) else made()
            label = np.maximum(label - random.integers(0, 3, (9, 1)), 0.0)
            values = ranking(np.minimum(label, ranking.label_range.high), score=score)
            found += np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes()
    digest = hashlib.sha256(found).hexdigest()[:12]
    assert digest == RANKING_DIGESTS.get(made.name), (
        f"{made.name} gives other digits than in version {VERSION}. Raise fastloss_kernels.FORMULAS_VERSION and "
        f"VERSION, set its digest to {digest!r}, and say so in the changelog."
    )


@pytest.mark.parametrize("loss", [made() for made in LOSSES], ids=lambda loss: loss.name)
def test_the_grid_meets_every_loss(loss: Any) -> None:
    for space in loss.formulas:
        labels, scores = grid(loss, space)
        assert len(scores) >= 5
        assert len(labels) >= 2
