"""The version of the formulas: raised when a formula gives other digits, so that none is taken for another's.

The digest is of the bits of value, gradient and hessian of every loss in every space, with default parameters, on a
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

# FORMULAS_VERSION -> digest. A version once released keeps its line.
DIGESTS = {
    1: "7677e8eefca95209",
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


def digest() -> str:
    """Return the digest of every formula."""
    whole = hashlib.sha256()
    for loss in sorted((made() for made in LOSSES), key=lambda loss: loss.name):
        whole.update(loss.name.encode() + b"\0" + bits_of_loss(loss))
    return whole.hexdigest()[:16]


def test_the_version_was_raised_if_a_formula_gives_other_digits() -> None:
    found = digest()
    assert found == DIGESTS.get(FORMULAS_VERSION), (
        f"Formulas give other digits than in version {FORMULAS_VERSION}. Raise fastloss_kernels.FORMULAS_VERSION, "
        f"and add {FORMULAS_VERSION + 1}: {found!r} to DIGESTS."
    )


@pytest.mark.parametrize("loss", [made() for made in LOSSES], ids=lambda loss: loss.name)
def test_the_grid_meets_every_loss(loss: Any) -> None:
    for space in loss.formulas:
        labels, scores = grid(loss, space)
        assert len(scores) >= 5
        assert len(labels) >= 2
