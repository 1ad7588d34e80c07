"""The worked examples of lists to their printed digits, and a test of each form that is often written wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastloss_kernels.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    MeanSquaredError,
    MultiPositiveCrossentropy,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from fastloss_kernels.over_lists import OverLists

# |Δ| ≤ 4e-16·max(1, |v|): examples are rounded from decimal inputs, kernels see the nearest float64.
TOLERANCE = 4e-16


def assert_close(found: Any, expected: Any) -> None:
    expected = np.asarray(expected, dtype=np.float64)
    assert np.shape(found) == expected.shape
    assert (np.abs(found - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))).all(), (found, expected)


# ---------------------------------------------------------------------------------------------------------------
# Examples


@pytest.mark.parametrize(
    ("loss", "label"), [(CategoricalCrossentropy(), [[1, 0, 0]]), (SparseCategoricalCrossentropy(), [0])]
)
def test_softmax(loss: Any, label: Any) -> None:
    logits = np.array([[3.0, -3.0, -3.0]])
    # log1p(2·e⁻⁶) to the last bit, where −log of the rounded softmax has lost 1e-16.
    assert loss(label, logit=logits).tolist() == [0.004945256391496422]
    gradient = loss.gradient(label, logit=logits)
    assert_close(gradient, [[-0.004933048742715503, 0.0024665243713577513, 0.0024665243713577513]])
    softmax = gradient + np.array([[1, 0, 0]])
    assert_close(softmax, [[0.9950669512572845, 0.0024665243713577513, 0.0024665243713577513]])


TWO_POSITIVES = [[1, 1, 0, 0, 0, 0]]
DESCENDING = [3.0, 2.0, 1.0, 0.0, -1.0, -2.0]


@pytest.mark.parametrize(
    ("logits", "total", "mean", "gradient"),
    [
        ([0.0] * 6, 3.58351893845611, 1.791759469228055, [-2 / 3, -2 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3]),
        (
            DESCENDING,
            1.9123866320362448,
            0.9561933160181224,
            [
                0.26738264514744375,
                -0.533755980752774,
                0.1715215892501967,
                0.06309926640220002,
                0.023212922862369312,
                0.00853955709056422,
            ],
        ),
        (
            [1000.0, 999.0, 0.0, 0.0, 0.0, 0.0],
            1.6265233750364456,
            0.8132616875182228,
            [0.46211715726000974, -0.46211715726000974, 0, 0, 0, 0],
        ),
    ],
)
def test_multi_positive(logits: list[float], total: float, mean: float, gradient: list[float]) -> None:
    scores = np.array([logits])
    assert MultiPositiveCrossentropy(form="sum")(TWO_POSITIVES, logit=scores).tolist() == [total]
    assert MultiPositiveCrossentropy()(TWO_POSITIVES, logit=scores).tolist() == [mean]
    assert_close(MultiPositiveCrossentropy(form="sum").gradient(TWO_POSITIVES, logit=scores), [gradient])
    assert_close(MultiPositiveCrossentropy().gradient(TWO_POSITIVES, logit=scores), [[g / 2 for g in gradient]])


@pytest.mark.parametrize(
    ("form", "expected"), [("mass", 0.14293162849989952), ("each_vs_negatives", 0.6426801478624633)]
)
def test_other_definitions_of_multi_positive(form: str, expected: float) -> None:
    loss = MultiPositiveCrossentropy(form=form)
    found = loss(TWO_POSITIVES, logit=np.array([DESCENDING]))
    assert_close(found, [expected])
    # The same from probabilities, whatever the shift.
    probability = np.exp(np.array([DESCENDING]) - 3.456193316018122)
    np.testing.assert_allclose(loss(TWO_POSITIVES, prob=probability), found, rtol=1e-14)
    for offset in (1e8, -1e8):
        assert loss(TWO_POSITIVES, logit=np.array([DESCENDING]) + offset).tolist() == found.tolist()


def test_multi_positive_at_the_ends_of_float64() -> None:
    mass = MultiPositiveCrossentropy(form="mass")
    each = MultiPositiveCrossentropy(form="each_vs_negatives")
    label = [[1, 1, 0, 0]]
    # Positives that underflow beside the negatives, and negatives beside the positives.
    assert mass(label, logit=[[-1000.0, -1000.0, 0.0, -1000.0]]).tolist() == [1000 - math.log(2)]
    assert_close(each(label, logit=[[-1000.0, -1000.0, 0.0, -1000.0]]), [2000.0])
    for loss, times in ((mass, 1), (each, 4)):
        found = loss(label, logit=[[700.0, 700.0, 0.0, 0.0]])
        assert found[0] == pytest.approx(times * math.exp(-700), rel=4e-16)
    assert mass(label, logit=[[-math.inf, 0.0, 0.0, -math.inf]]).tolist() == [math.log(2)]
    assert each(label, logit=[[-math.inf, 0.0, 0.0, -math.inf]]).tolist() == [math.inf]
    # Without negatives nothing is missed.
    assert mass([[1, 2]], logit=[[1.0, 2.0]]).tolist() == [0.0]
    assert each([[1, 2]], logit=[[1.0, 2.0]]).tolist() == [0.0]


@pytest.mark.parametrize("form", ["sum", "mean", "mass", "each_vs_negatives"])
@pytest.mark.parametrize("space", ["logit", "prob"])
def test_one_positive_is_the_categorical_crossentropy_in_every_form(form: str, space: str) -> None:
    label = [[0, 1, 0]]
    score = [[0.5, 0.25, 0.25]]
    loss = MultiPositiveCrossentropy(form=form)
    expected = CategoricalCrossentropy()(label, **{space: score})
    np.testing.assert_allclose(loss(label, **{space: score}), expected, rtol=4e-16)


@pytest.mark.parametrize("form", ["sum", "mean", "mass", "each_vs_negatives"])
@pytest.mark.parametrize("space", ["logit", "prob"])
def test_a_list_without_a_positive_is_left_out_or_counts_0(form: str, space: str) -> None:
    label, score = [[0, 0, 0]], {space: [[0.5, 0.25, 0.25]]}
    assert math.isnan(MultiPositiveCrossentropy(form=form)(label, **score)[0])
    zero = MultiPositiveCrossentropy(form=form, no_positive="zero")
    assert zero(label, **score).tolist() == [0.0]
    assert not np.array(zero.gradient_hessian(label, **score)).any()


RIGHT = [[0, 1, 0], [0, 0, 1]]
PROBABILITIES = [[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]]


def test_categorical_crossentropy() -> None:
    rows = CategoricalCrossentropy()(RIGHT, prob=PROBABILITIES)
    assert_close(rows, [0.05129329438755058, 2.3025850929940455])
    assert_close(rows.mean(), 1.176939193690798)
    sparse = SparseCategoricalCrossentropy()([1, 2], prob=PROBABILITIES)
    assert sparse.tolist() == rows.tolist()


def test_hinge() -> None:
    label, score = [[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]]
    rows = OverLists(Hinge())(label, margin=score)
    assert_close(rows, [1.1, 1.5])
    # Without the conversion of labels 0 to −1 it would be 0.9.
    assert_close(rows.mean(), 1.3)
    assert_close(OverLists(Hinge(), list_reduction="element")(label, margin=score).sum(), 5.2)
    squares = OverLists(SquaredHinge())(label, margin=score)
    assert_close(squares, [1.46, 2.26])
    assert_close(squares.mean(), 1.86)


def test_categorical_hinge_and_focal_by_hand() -> None:
    hinge = CategoricalHinge()
    assert_close(hinge([[0, 1], [0, 1]], margin=[[0.6, 0.4], [0.25, 4.0]]), [1.2, 0.0])
    gradient, hessian = hinge.gradient_hessian([[0, 1, 0]], margin=np.array([[0.6, 0.4, 0.6]]))
    # The first of two equal maxima.
    assert gradient.tolist() == [[1, -1, 0]]
    assert not hessian.any()
    # At the joint the flat side counts.
    assert hinge.gradient([[0, 1]], margin=np.array([[0.0, 1.0]])).tolist() == [[0, 0]]
    # As in Keras a right candidate's place counts as 0 among the wrong ones.
    assert hinge([[0, 1]], margin=[[-5.0, 0.25]]).tolist() == [0.75]
    # And a list without a right one has a loss.
    assert_close(hinge([[0, 1], [0, 0]], margin=[[0.6, 0.4], [0.4, 0.6]]), [1.2, 1.6])
    focal = CategoricalFocalCrossentropy()
    logits = [[8.0, 1.0, 1.0], [0.0, 9.0, 1.0], [2.0, 3.0, 5.0]]
    assert focal(np.eye(3), logit=logits).mean() == pytest.approx(0.000345, abs=1e-6)
    smooth = CategoricalFocalCrossentropy(label_smoothing=0.1)
    assert smooth([[1, 0, 0]], logit=[[4.9, -0.5, 2.05]])[0] == pytest.approx(0.06685, abs=1e-5)
    assert_close(focal([[0, 1]], prob=[[0.5, 0.5]]), [0.25 * 0.25 * math.log(2)])
    assert_close(focal([[0, 1]], logit=[[0.0, 0.0]]), [0.25 * 0.25 * math.log(2)])
    plain = CategoricalFocalCrossentropy(gamma=0.0, alpha=1.0)
    scores = np.array([[0.3, -1.0, 2.0]])
    for label in ([[0, 1, 0]], [[0.25, 0.5, 0.0]]):
        found, expected = (loss.gradient_hessian(label, logit=scores) for loss in (plain, CategoricalCrossentropy()))
        np.testing.assert_allclose(found, expected, rtol=2e-15)


def test_cosine_similarity() -> None:
    found = CosineSimilarity()([[0, 1], [1, 1], [1, 1]], value=[[1.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
    # Not ±0.999, which is a truncated display.
    assert found.tolist() == [0.0, -1.0, 1.0]


# ---------------------------------------------------------------------------------------------------------------
# Forms that are often written wrong


def test_mistake_scores_without_exponentials_in_the_softmax() -> None:
    found = MultiPositiveCrossentropy(form="sum")(TWO_POSITIVES, logit=np.array([DESCENDING]))
    # log(e^s/Σs), as the formula is written, loses sense: a cross-entropy cannot be negative.
    wrong = 2 * math.log(sum(DESCENDING)) - sum(DESCENDING[:2])
    assert wrong == pytest.approx(-2.8027754226637804, rel=1e-15)
    assert_close(found, [1.9123866320362448])


def test_mistake_of_dropping_the_number_of_positives() -> None:
    label = [[1, 0, 0], [1, 1, 0]]
    logits = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    total = MultiPositiveCrossentropy(form="sum")(label, logit=logits)
    mean = MultiPositiveCrossentropy(form="mean")(label, logit=logits)
    assert_close(total / mean, [1.0, 2.0])
    # So the sum form is no constant multiple of the mean form, and lists weigh differently in a mean of lists.
    assert total.mean() / mean.mean() == pytest.approx(1.737, abs=1e-3)


def test_mistake_of_a_class_sum_outside_the_mean() -> None:
    y, p = np.array(RIGHT), np.array(PROBABILITIES)
    logs = np.where(y > 0, np.log(np.where(y > 0, p, 1.0)), 0.0)
    mean = CategoricalCrossentropy()(RIGHT, prob=PROBABILITIES).mean()
    assert_close(mean, -np.mean(logs.sum(axis=1)))
    wrong = -(logs[:, 0].mean() + logs[:, 1:].sum())
    assert abs(wrong - mean) > 1.0


def test_mistake_of_an_unsquared_denominator_in_the_slope_of_a_softmax() -> None:
    logits = np.array([1.0, 0.5, -0.25])
    e = np.exp(logits)
    a = e / e.sum()
    for q in range(3):
        gradient = SparseCategoricalCrossentropy().gradient([q], logit=logits[None, :])[0]
        for j in {0, 1, 2} - {q}:
            # ∂L/∂z_j = −(1/a_q)·∂a_q/∂z_j for L = −log a_q.
            right, wrong = -e[q] * e[j] / e.sum() ** 2, -e[q] * e[j] / e.sum()
            assert gradient[j] == pytest.approx(-right / a[q], rel=1e-15)
            assert abs(gradient[j] - (-wrong / a[q])) > 0.1


def test_mistake_of_one_output_in_the_chain_rule() -> None:
    label, logits = np.array([0.5, 0.25, 0.25]), np.array([1.0, 0.5, -0.25])
    e = np.exp(logits)
    a = e / e.sum()
    jacobian = np.diag(a) - np.outer(a, a)
    by_output = -(label / a)[:, None] * jacobian
    found = CategoricalCrossentropy().gradient(label[None, :], logit=logits[None, :])[0]
    # The slope adds up every output's part, a_q inside the sum; one output alone is not it.
    np.testing.assert_allclose(found, by_output.sum(axis=0), rtol=0, atol=1e-15)
    assert all(np.abs(found - part).max() > 0.05 for part in by_output)


@pytest.mark.parametrize("label", [[1.0, 1.0, 0.0], [0.25, 0.25, 0.0], [3.0, 0.0, 0.5]])
def test_mistake_of_labels_that_do_not_add_up_to_one(label: list[float]) -> None:
    logits = np.array([1.0, 0.5, -0.25])
    a = np.exp(logits) / np.exp(logits).sum()
    y = np.array(label)
    gradient, hessian = CategoricalCrossentropy().gradient_hessian([label], logit=logits[None, :])
    np.testing.assert_allclose(gradient[0], a * y.sum() - y, rtol=0, atol=1e-15)
    np.testing.assert_allclose(hessian[0], y.sum() * a * (1 - a), rtol=1e-15)
    assert np.abs(gradient[0] - (a - y)).max() > 0.1
    # A shift of all logits changes nothing, so the slopes add up to 0.
    assert abs(gradient.sum()) < 1e-15


def test_mistake_of_a_missing_minus() -> None:
    # −1·log 0.95 and −1·log 0.1.
    found = CategoricalCrossentropy()(RIGHT, prob=PROBABILITIES)
    assert found.tolist() == pytest.approx([0.0513, 2.303], abs=1e-3)
    assert (found > 0).all()


def test_mistake_of_a_mean_of_means_over_ragged_lists() -> None:
    label = [np.zeros(1), np.zeros(3)]
    score = [np.array([2.0]), np.array([1.0, 1.0, 1.0])]
    rows = OverLists(MeanSquaredError())(label, value=score)
    sums = OverLists(MeanSquaredError(), list_reduction="element")(label, value=score)
    assert rows.tolist() == [4.0, 1.0]
    assert rows.mean() == 2.5
    assert sums.sum() / 4 == 1.75


def test_mistake_of_one_softmax_for_several_right_labels() -> None:
    # Exactly one right class: a softmax. One or more right labels: a sigmoid each.
    label, logits = [[1, 1, 0]], np.array([[10.0, 10.0, -10.0]])
    assert OverLists(BinaryCrossentropy())(label, logit=logits)[0] < 1e-4
    assert CategoricalCrossentropy()(label, logit=logits)[0] > 1.0


# ---------------------------------------------------------------------------------------------------------------
# Edges of lists


def test_masked_candidates() -> None:
    loss = CategoricalCrossentropy()
    plain = loss([[1, 0]], logit=[[0.5, 1.0]])
    assert loss([[1, 0, 0]], logit=[[0.5, 1.0, -math.inf]]).tolist() == plain.tolist()
    assert loss([[1, 0, 1]], logit=[[0.5, 1.0, -math.inf]]).tolist() == [math.inf]
    (gradient,) = loss.gradient([[1, 0, 0]], logit=[[0.5, 1.0, -math.inf]])
    assert gradient[2] == 0
    # Smoothing spreads over the unmasked candidates alone.
    smooth = CategoricalCrossentropy(label_smoothing=0.1)
    assert smooth([[1, 0, 0]], logit=[[0.5, 1.0, -math.inf]]).tolist() == smooth([[1, 0]], logit=[[0.5, 1.0]]).tolist()


def test_lists_that_have_no_value() -> None:
    loss = CategoricalCrossentropy()
    lists = [None, np.array([]), np.array([-math.inf, -math.inf]), np.array([math.nan, 1.0]), np.array([0.0, 0.0])]
    label = [np.array([1.0]), np.array([]), np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([1.0, 0.0])]
    found = loss(label, logit=lists)
    assert np.isnan(found[:4]).all()
    assert found[4] == math.log(2)
    assert math.isnan(loss([[1, 0]], logit=[[math.inf, math.inf]])[0])
    ignored = SparseCategoricalCrossentropy(ignore_class=-100)([-100, 0], logit=[[0.0, 0.0], [0.0, 0.0]])
    assert math.isnan(ignored[0])
    assert ignored[1] == math.log(2)


def test_lists_that_are_refused() -> None:
    with pytest.raises(ValueError, match="List 1 has 1 labels and 2 candidates"):
        CategoricalCrossentropy()([[1.0], [1.0]], logit=[np.array([0.5]), np.array([0.5, 1.0])])
    with pytest.raises(ValueError, match=r"label of list 0 is 2\.0"):
        SparseCategoricalCrossentropy()([2], logit=[[0.5, 1.0]])
    with pytest.raises(ValueError, match=r"label is -1\.0"):
        CategoricalCrossentropy()([[-1.0, 0.0]], logit=[[0.5, 1.0]])
    with pytest.raises(ValueError, match=r"label is 1\.5"):
        CategoricalHinge()([[1.5, 0.0]], margin=[[0.5, 1.0]])
    for parameters in ({"form": "max"}, {"no_positive": "drop"}):
        with pytest.raises(ValueError, match="allowed"):
            MultiPositiveCrossentropy(**parameters)
    for parameters in ({"gamma": -1.0}, {"alpha": 0.0}, {"label_smoothing": 2.0}):
        with pytest.raises(ValueError, match="allowed"):
            CategoricalFocalCrossentropy(**parameters)


def test_signed_labels_of_a_pointwise_loss_over_lists() -> None:
    scores = [[0.5, -2.0], [0.25]]
    signed = OverLists(Hinge(label_domain="pm1"))([[1, -1], [-1]], margin=scores)
    assert signed.tolist() == OverLists(Hinge())([[1, 0], [0]], margin=scores).tolist() == [0.25, 1.25]
    # None is masked, and 0 is a soft label half way.
    assert OverLists(Hinge(label_domain="pm1"))([[0, None]], margin=[[0.5, 3.0]]).tolist() == [1.0]
    with pytest.raises(ValueError, match=r"label is 2\.0; allowed: -1 <= label <= 1\."):
        OverLists(Hinge(label_domain="pm1"))([[2, 1]], margin=[[0.5, 3.0]])
