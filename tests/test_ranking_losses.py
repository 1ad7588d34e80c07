"""Losses of rankings beside what TF-Ranking documents, and what PyTorch and LightGBM compute."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl


def test_examples_of_tf_ranking() -> None:
    # The examples of tfr.keras.losses.ApproxNDCGLoss: one list, and the mean over two.
    loss = fl.losses.ApproxNDCG()
    assert loss([[1.0, 0.0]], logit=[[0.6, 0.8]])[0] == pytest.approx(-0.655107, abs=1e-6)
    labels, scores = [[1.0, 0.0], [0.0, 1.0, 0.0]], [[0.6, 0.8], [0.5, 0.8, 0.4]]
    assert loss(labels, logit=scores).mean() == pytest.approx(-0.80536866, abs=1e-6)


def test_list_mle_is_the_likelihood_of_choices_one_after_the_other() -> None:
    score, label = [0.5, 2.0, -1.0], [1.0, 0.0, 3.0]
    e = np.exp(score)
    # The third candidate is chosen first, then the first, then the second.
    likelihood = e[2] / e.sum() * e[0] / (e[0] + e[1])
    assert fl.losses.ListMLE()([label], logit=[score])[0] == pytest.approx(-math.log(likelihood), rel=1e-15)


def test_equal_numbers_are_ordered_by_position() -> None:
    label, score = [[1.0, 1.0, 0.0]], [[3.0, 1.0, 2.0]]
    assert fl.losses.ListMLE()(label, logit=score) == fl.losses.ListMLE()([[2.0, 1.0, 0.0]], logit=score)
    # Equal scores: the first candidate has rank 1. Exchanging both changes NDCG by 1 − 1/log2(3).
    loss = fl.losses.LambdaRank()
    expected = (1 - 1 / math.log2(3)) * math.log(2)
    assert loss([[1.0, 0.0]], logit=[[0.0, 0.0]])[0] == pytest.approx(expected, rel=1e-15)
    other = (1 / math.log2(3) - 1 / math.log2(4)) * math.log(2)
    assert loss([[0.0, 0.0, 1.0]], logit=[[0.0, 0.0, 0.0]])[0] == pytest.approx(
        other + (1 - 1 / math.log2(4)) * math.log(2), rel=1e-15
    )


@pytest.mark.parametrize("gain", ["exp2", "linear"])
@pytest.mark.parametrize("regularization", [0.0, 0.01])
def test_lambdas_are_those_of_lightgbm(gain: str, regularization: float) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    # LightGBM counts the rows of a leaf by their share of the hessian: close scores keep each above a half.
    score, label = np.array([0.1, 0.5, 0.3, 0.0, 0.4]), np.array([2, 0, 3, 1, 4])
    n = len(score)
    # One tree whose leaves hold one candidate each gives −gradient/(hessian + λ) of each.
    parameters = {
        "objective": "lambdarank",
        "lambdarank_norm": False,
        "lambdarank_truncation_level": n,
        "label_gain": [2.0**y - 1 if gain == "exp2" else float(y) for y in range(5)],
        "sigmoid": 1.5,
        "learning_rate": 1.0,
        "num_leaves": n,
        "min_data_in_leaf": 1,
        "min_data_in_bin": 1,
        "min_sum_hessian_in_leaf": 0.0,
        "lambda_l2": regularization,
        "verbose": -1,
        "num_threads": 1,
    }
    features = np.arange(n, dtype=np.float64)[:, None]
    data = lightgbm.Dataset(features, label=label, group=[n], init_score=score, params=parameters)
    found = lightgbm.train(parameters, data, num_boost_round=1).predict(features, raw_score=True)
    loss = fl.losses.LambdaRank(sigma=1.5, gain=gain)
    gradient, hessian = loss.gradient_hessian(label[None].astype(np.float64), logit=score[None])
    # LightGBM keeps float32 gradients and reads sigmoids from a table.
    assert found.tolist() == pytest.approx((-gradient / (hessian + regularization))[0].tolist(), rel=2e-4)


@pytest.mark.parametrize(("p", "margin"), [(1, 1.0), (2, 0.3)])
def test_multi_margin_is_that_of_pytorch(p: int, margin: float) -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(2)
    score, label = random.normal(size=(20, 7)), random.integers(0, 7, 20)
    scores = torch.tensor(score, requires_grad=True)
    values = torch.nn.functional.multi_margin_loss(scores, torch.tensor(label), p=p, margin=margin, reduction="none")
    values.sum().backward()
    loss = fl.losses.MultiMargin(p=p, margin=margin)
    assert loss(label, logit=score) == pytest.approx(values.detach().numpy(), rel=1e-14)
    assert loss.gradient(label, logit=score) == pytest.approx(scores.grad.numpy(), rel=1e-13, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("MultiMargin", {"p": 3}, "p is 3; allowed: 1 or 2"),
        ("MultiMargin", {"p": True}, "p is True; allowed: 1 or 2"),
        ("LambdaRank", {"gain": "log"}, "gain is 'log'; allowed: 'exp2' or 'linear'"),
        ("LambdaRank", {"sigma": 0.0}, "sigma is 0.0; allowed: 0 < sigma"),
        ("ApproxNDCG", {"temperature": 0.0}, "temperature is 0.0; allowed"),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(fl.losses, name)(**parameters)


def test_labels_beyond_a_gain_are_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        fl.losses.LambdaRank()([[2000.0, 0.0]], logit=[[0.0, 1.0]])
    loss = fl.losses.LambdaRank(gain="linear")
    assert loss([[2000.0, 0.0]], logit=[[0.0, 1.0]]) == loss([[1.0, 0.0]], logit=[[0.0, 1.0]])


@pytest.mark.parametrize("name", ["LambdaRank", "ApproxNDCG"])
def test_more_pairs_than_allowed_are_refused(name: str) -> None:
    loss = getattr(fl.losses, name)(max_pairs=3)
    label, score = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]], [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0]]
    assert not np.isnan(loss(label[:1], logit=score[:1])).any()
    with pytest.raises(ValueError, match="List 1 has 4 candidates; allowed: at most 3 by max_pairs; raise max_pairs"):
        loss(label, logit=score)
    with pytest.raises(ValueError, match="List 1 has 4 candidates"):
        loss.gradient_hessian(label, logit=score)


def test_a_list_whose_positives_are_all_masked_is_left_out() -> None:
    loss = fl.losses.ApproxNDCG()
    label, score = [[1.0, 0.0], [1.0, 0.0]], [[None, 2.0], [1.0, 2.0]]
    value = loss(label, logit=score)
    assert math.isnan(value[0])
    assert value[1] < 0.0
    for derivative in loss.gradient_hessian(label, logit=score):
        assert np.isnan(derivative[0]).all()
        assert np.isfinite(derivative[1]).all()
    table = pa.table({"y": label, "s": score})
    result = fl.evaluate(table, label="y", logit="s", metrics=["approx_ndcg"], on_bad_row="drop")
    assert result.rows["used"] == 1
    assert result["approx_ndcg"] == value[1]
    # A masked positive makes other losses infinite: their lists count.
    assert fl.losses.CategoricalCrossentropy()(label, logit=score)[0] == math.inf


def test_a_masked_right_candidate_makes_the_margin_infinite() -> None:
    loss = fl.losses.MultiMargin()
    assert loss([1], logit=[[0.0, -math.inf, 1.0]]).tolist() == [math.inf]
    assert loss.gradient([1], logit=np.array([[0.0, -math.inf, 1.0]])).tolist() == [[0.5, 0.0, 0.5]]


def test_long_ascending_lists_keep_their_digits() -> None:
    # Every candidate is the highest from its position on: the sum is rescaled at each.
    n = 3000
    score, label = np.linspace(0.0, 3.0, n), np.linspace(1.0, 0.0, n)
    suffixes = [math.fsum(np.exp(score[i:] - score[-1])) for i in range(n)]
    expected = math.fsum(math.log(total) + (score[-1] - x) for total, x in zip(suffixes, score, strict=True))
    assert fl.losses.ListMLE()([label], logit=[score])[0] == pytest.approx(expected, rel=1e-13)
    descending = fl.losses.ListMLE().gradient([label[::-1]], logit=[score[::-1]])[0]
    assert np.array_equal(descending[::-1], fl.losses.ListMLE().gradient([label], logit=[score])[0])
