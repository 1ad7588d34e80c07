"""Every listed loss in every space: against its oracle in ULPs, as plain Python to the bit, and its derivatives."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from fastloss_kernels.cpu import pointwise
from fastloss_kernels.losses import LOSSES, BinaryCrossentropy, BinaryLoss, BrierScore, Hinge, Loss
from tests.oracles.losses import ORACLES, PRECISION_DIGITS

INF = math.inf
VALUE_ULP = {"hard": 2.0, "soft": 4.0}
DERIVATIVE_ULP = 4.0

CASES = [pytest.param(loss, space, id=f"{loss.__name__}-{space}") for loss in LOSSES for space in loss.rows]

MAGNITUDES = [0.0, 5e-324, 1e-308, 1e-300, 1e-20, 1e-9, 0.1, 0.5, 0.7, 1.0, 2.0, 5.0, 10.0, 30.0, 36.1, 37.5, 40.0]
MAGNITUDES += [100.0, 500.0, 690.0, 708.5, 709.8, 740.0, 745.2, 746.0, 800.0, 1e5, 1e100, 1e300, 1.7e308]
REAL_LINE = [s * m for m in MAGNITUDES for s in (1.0, -1.0)]
PROBABILITIES = [0.0, 5e-324, 1e-300, 1e-20, 9e-13, 1e-12, 1.1e-12, 1e-7, 1e-3, 0.05, 0.25, 0.3, 0.5, 0.55, 0.7, 0.8]
PROBABILITIES += [0.95, 0.999, 1 - 1e-7, 1 - 1e-12, 1 - 2**-52, 1 - 2**-53, 1.0]
LOG_PROBABILITIES = [-p for p in (0.0, 5e-324, 1e-300, 1e-20, 1e-12, 1e-7, 1e-3, 0.05, 0.3, 0.69, 0.6932, 1, 5, 20)]
LOG_PROBABILITIES += [-27.0, -27.6, -28.0, -300.0, -745.0, -800.0, -1e300]
GRIDS = {
    "logit": REAL_LINE,
    "margin": REAL_LINE,
    "value": REAL_LINE,
    "prob": PROBABILITIES,
    "logprob": LOG_PROBABILITIES,
}
HARD = [0.0, 1.0]
SOFT = [5e-324, 1e-20, 0.1, 0.25, 0.5, 0.75, 0.9, 1 - 2**-53]
REAL_LABELS = [0.0, 1.0, -1.0, 1e-300, 3.5, -2.25, 1e10, -1e300]


def random_scores(space: str, count: int) -> list[float]:
    random = np.random.default_rng(20)
    if space == "prob":
        return random.beta(0.3, 0.7, count).tolist()
    if space == "logprob":
        return (-random.exponential(2.0, count)).tolist()
    return (random.normal(-2.0, 8.0, count)).tolist()


def labels_of(loss: type[Loss]) -> list[tuple[str, float]]:
    if issubclass(loss, BinaryLoss):
        return [("hard", y) for y in HARD] + [("soft", y) for y in SOFT]
    return [("hard", y) for y in REAL_LABELS]


def evaluate(loss: Loss, space: str, scores: list[float], labels: list[float]) -> np.ndarray:
    score, label = np.array(scores), np.array(labels)
    out = [np.empty(len(score)) for _ in range(3)]
    pointwise.make_value_gradient_hessian(loss.rows[space])(score, label, loss.parameters(space), *out)
    return np.array(out)


def ulp_error(found: float, exact: Any, scale: Any = None) -> float:
    """The distance of a float64 from the exact number, in units of its last place (2^-1074 for subnormals)."""
    reference = abs(exact) if scale is None else scale
    if not math.isfinite(found):
        # An infinite result is right exactly where rounding the number overflows.
        return 0.0 if abs(exact) >= mpf(2) ** 1024 * (1 - mpf(2) ** -54) and (exact > 0) == (found > 0) else INF
    exponent = -1074 if reference == 0 else max(int(mpmath.floor(mpmath.log(reference, 2))) - 52, -1074)
    return float(abs(mpf(found) - exact) / mpf(2) ** exponent)


def worst_errors(loss: Loss, space: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return for each kind of label and each output the largest ULP error and the row it happened at."""
    oracle = ORACLES[type(loss).__name__][space]
    rows = [(kind, x, y) for (kind, y) in labels_of(type(loss)) for x in GRIDS[space]]
    rows += [
        (kind, x, y)
        for x, (kind, y) in zip(random_scores(space, 150), itertools.cycle(labels_of(type(loss))), strict=False)
    ]
    found = evaluate(loss, space, [x for _, x, _ in rows], [y for _, _, y in rows])
    worst: dict[tuple[str, str], tuple[float, float, float]] = {}
    with mpmath.workdps(PRECISION_DIGITS):
        for (kind, x, y), column in zip(rows, found.T, strict=True):
            for output, number, exact in zip(
                ("value", "gradient", "hessian"), column, oracle(mpf(x), mpf(y), loss), strict=True
            ):
                error = ulp_error(float(number), exact)
                if error > worst.get((kind, output), (-1.0,))[0]:
                    worst[kind, output] = (error, x, y)
    return worst


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_against_the_oracle(loss: type[Loss], space: str) -> None:
    worst = worst_errors(loss(), space)
    for (kind, output), (error, x, y) in worst.items():
        if output == "value":
            bound = VALUE_ULP[kind]
        elif kind == "hard":
            bound = DERIVATIVE_ULP
        else:
            continue  # A soft label's derivative is a difference that may cancel; the next test bounds it.
        if (loss, output) == (BrierScore, "hessian") or ((kind, loss) == ("soft", BrierScore) and space != "prob"):
            continue  # Changes sign, or is a difference of two rounded numbers; the next test bounds it.
        assert error <= bound, f"{output}, {kind} label: {error} ULP at {space} {x!r}, label {y!r}"


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_soft_labels_stay_within_the_rounding_of_their_parts(loss: type[Loss], space: str) -> None:
    if not issubclass(loss, BinaryLoss):
        pytest.skip("takes no soft labels")
    made, oracle = loss(), ORACLES[loss.__name__][space]
    rows = [(x, y) for x in random_scores(space, 60) for y in (0.0, 0.1, 0.25, 0.9, 1.0)]
    found = evaluate(made, space, [x for x, _ in rows], [y for _, y in rows])
    with mpmath.workdps(PRECISION_DIGITS):
        for (x, y), column in zip(rows, found.T, strict=True):
            ends = [oracle(mpf(x), mpf(end), made) for end in (0, 1)]
            exact = oracle(mpf(x), mpf(y), made)
            for i in range(3):
                scale = max(abs(end[i]) for end in ends)
                assert ulp_error(float(column[i]), exact[i], scale) <= 6.0, (x, y, i)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_plain_python_gives_the_same_bits(loss: type[Loss], space: str) -> None:
    made = loss()
    scores = GRIDS[space] + random_scores(space, 40) + ([INF, -INF] if space == "logit" else [])
    labels = [y for _, y in labels_of(loss)]
    rows = [(x, y) for x in scores for y in labels]
    compiled = evaluate(made, space, [x for x, _ in rows], [y for _, y in rows])
    for (x, y), column in zip(rows, compiled.T, strict=True):
        plain = made.rows[space](x, y, made.parameters(space))
        assert np.array_equal(np.array(plain).view(np.int64), column.copy().view(np.int64)) or all(
            a == b or (a != a and b != b) for a, b in zip(plain, column, strict=True)
        ), (x, y, plain, column)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_nan_never_vanishes_and_finite_input_never_gives_nan(loss: type[Loss], space: str) -> None:
    made = loss()
    labels = [y for _, y in labels_of(loss)]
    assert np.isnan(evaluate(made, space, [math.nan] * len(labels), labels)[0]).all()
    assert np.isnan(evaluate(made, space, GRIDS[space], [math.nan] * len(GRIDS[space]))[0]).all()
    pairs = list(itertools.product(GRIDS[space], labels))
    assert not np.isnan(evaluate(made, space, [x for x, _ in pairs], [y for _, y in pairs])).any()


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_derivatives_agree_with_differences(loss: type[Loss], space: str) -> None:
    made = loss()
    points = {"prob": [0.1, 0.3, 0.62, 0.9], "logprob": [-3.0, -1.1, -0.4]}.get(space, [-3.1, -0.4, 0.3, 2.2])
    step = 1e-3
    for x, (_, y) in itertools.product(points, [label for label in labels_of(loss) if abs(label[1]) < 4]):
        if abs(x - y) < 0.05 or abs((2 * y - 1) * x - 1) < 0.05:
            continue  # Too near a kink for a difference.
        value, gradient, hessian = evaluate(made, space, [x + k * step for k in (-2, -1, 0, 1, 2)], [y] * 5)
        slope = (value[0] - 8 * value[1] + 8 * value[3] - value[4]) / (12 * step)
        curve = (gradient[0] - 8 * gradient[1] + 8 * gradient[3] - gradient[4]) / (12 * step)
        assert slope == pytest.approx(gradient[2], rel=1e-7, abs=1e-9)
        assert curve == pytest.approx(hessian[2], rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_every_driver_gives_the_same_bits(loss: type[Loss], space: str) -> None:
    made = loss()
    random = np.random.default_rng(3)
    score = np.array(random_scores(space, 200_003))
    label = random.random(len(score)) if issubclass(loss, BinaryLoss) else random.normal(size=len(score))
    parameters = made.parameters(space)
    serial = [np.empty(len(score)) for _ in range(3)]
    pointwise.make_value_gradient_hessian(made.rows[space])(score, label, parameters, *serial)
    alone = np.empty(len(score))
    pointwise.make_value(made.rows[space])(score, label, parameters, alone)
    assert np.array_equal(alone, serial[0])
    parallel = [np.empty(len(score)) for _ in range(3)]
    pointwise.make_value_gradient_hessian(made.rows[space], parallel=True)(score, label, parameters, *parallel)
    for one, other in zip(serial, parallel, strict=True):
        assert np.array_equal(one, other)


def test_every_loss_has_an_oracle_for_every_space() -> None:
    assert {loss.__name__: set(loss.rows) for loss in LOSSES} == {name: set(o) for name, o in ORACLES.items()}


def test_golden_binary_crossentropy(shared_data: Path) -> None:
    cases = json.loads((shared_data / "golden" / "oracle_bce_logits.json").read_text())["cases"]
    assert len(cases) > 100
    scores = [float.fromhex(case["x_hex"]) for case in cases]
    labels = [case["y"] for case in cases]
    found = evaluate(BinaryCrossentropy(), "logit", scores, labels)
    for case, (value, gradient, hessian) in zip(cases, found.T, strict=True):
        hard = case["y"] in (0.0, 1.0)
        names = (("loss", value, 2 if hard else 4), ("grad", gradient, 4), ("hess", hessian, 4))
        for name, number, bound in names:
            expected = float.fromhex(case[f"{name}_hex"])
            if name == "grad" and not hard:
                assert number == pytest.approx(expected, abs=4e-16)
            elif math.isinf(expected):
                assert number == expected
            else:
                assert abs(number - expected) <= bound * math.ulp(expected), (case["id"], name)


# The worked example of SEMANTICS part 1, N4: seven predictions, read as probabilities and as logits.
LABEL = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
PREDICTION = [0.8, 0.33, 0.77, 0.66, 0.55, 0.002, 0.213]


@pytest.mark.parametrize(
    ("loss", "space", "expected"),
    [
        (BinaryCrossentropy(), "prob", 0.4291188961244073),
        (BinaryCrossentropy(), "logit", 0.7435545077594143),
        (BinaryCrossentropy(label_smoothing=0.1), "prob", 0.5002500953426644),
        (BinaryCrossentropy(pos_weight=2), "logit", 0.8509257535436187),
        (BrierScore(), "prob", 0.14075328571428572),
        (BrierScore(), "logit", 2 * 0.13770250854782398),
    ],
)
def test_worked_example_means(loss: Loss, space: str, expected: float) -> None:
    assert loss(LABEL, **{space: PREDICTION}).mean() == pytest.approx(expected, abs=4e-16)


def test_worked_example_rows() -> None:
    loss = BinaryCrossentropy()
    values = [0.37110066594777774, 0.8716983585938614, 0.3804980545416522, 1.0766366958882392, 1.0054924814633377]
    values += [0.694147680559862, 0.8053076173211702]
    gradients = [-0.3100255188723875, 0.5817593768418363, -0.31647910626368436, 0.6592603884513855]
    gradients += [0.6341355910108007, 0.5004999998333334, 0.553049584279497]
    hessians = [0.2139096965202944, 0.2433154042984346, 0.21632008156222393, 0.22463612867031382]
    hessians += [0.23200764322418319, 0.24999975000016667, 0.24718574160777254]
    np.testing.assert_allclose(loss(LABEL, logit=PREDICTION), values, rtol=0, atol=4e-16)
    gradient, hessian = loss.gradient_hessian(LABEL, logit=PREDICTION)
    np.testing.assert_allclose(gradient, gradients, rtol=0, atol=4e-16)
    np.testing.assert_allclose(hessian, hessians, rtol=0, atol=4e-16)
    slopes = [-1.25, 1.492537313432836, -1.2987012987012987, 2.9411764705882355, 2.2222222222222223]
    slopes += [1.0020040080160322, 1.2706480304955527]
    np.testing.assert_allclose(loss.gradient(LABEL, prob=PREDICTION), slopes, rtol=4e-16, atol=0)


def test_clipping_and_infinities() -> None:
    loss = BinaryCrossentropy()
    assert loss([1.0, 0.0, 1.0], prob=[0.0, 0.0, 1.0]).tolist() == [27.631021115928547, 0.0, 0.0]
    assert loss([0.0], prob=[1.0]).tolist() == [27.631021115928547]
    logits = [INF, -INF, INF, -INF, INF, -INF, -800.0]
    assert loss([1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 1.0], logit=logits).tolist() == [0, 0, INF, INF, INF, INF, 800]
    assert loss.gradient([1.0, 0.0, 0.0, 1.0, 0.25], logit=[INF, -INF, INF, -INF, INF]).tolist() == [0, 0, 1, -1, 0.75]
    exact = BinaryCrossentropy.rows["prob"]
    assert exact(0.0, 1.0, loss.parameters("prob", 0.0))[0] == INF


def test_signed_labels_and_hinge_conversion() -> None:
    scores = [-2.0, 0.0, 0.7, 30.0, -800.0]
    plus = [2.1269280110429727, 0.6931471805599453, 0.4031860488854579, 9.357622968839737e-14, 800.0]
    minus = [0.1269280110429725, 0.6931471805599453, 1.103186048885458, 30.000000000000092, 0.0]
    signed = BinaryCrossentropy(label_domain="pm1")
    np.testing.assert_allclose(signed([1.0] * 5, logit=scores), plus, rtol=4e-16)
    np.testing.assert_allclose(signed([-1.0] * 5, logit=scores), minus, rtol=4e-16)
    rows = Hinge()([[0, 1], [0, 0]], margin=[[0.6, 0.4], [0.4, 0.6]])
    np.testing.assert_allclose(rows, [[1.6, 0.6], [1.4, 1.6]], rtol=4e-16)


@pytest.mark.parametrize("make", [np.array, lambda x: x])
def test_array_calls_refuse_what_they_cannot_mean(make: Any) -> None:
    loss = BinaryCrossentropy()
    with pytest.raises(ValueError, match=r"label is 2\.0; allowed: 0 <= label <= 1"):
        loss(make([2.0]), logit=make([0.0]))
    with pytest.raises(ValueError, match=r"prob is 1\.2"):
        loss(make([1.0]), prob=make([1.2]))
    with pytest.raises(ValueError, match="shape"):
        loss(make([1.0, 0.0]), logit=make([0.0]))
    with pytest.raises(TypeError, match="logit= or prob= or logprob="):
        loss(make([1.0]), value=make([0.0]))
    with pytest.raises(TypeError, match="got none"):
        loss(make([1.0]))


def test_array_calls_take_columns_of_other_libraries() -> None:
    import polars as pl
    import pyarrow as pa

    expected = BinaryCrossentropy()(LABEL, logit=PREDICTION)
    for make in (pa.array, pl.Series, np.array, tuple):
        assert np.array_equal(BinaryCrossentropy()(make(LABEL), logit=make(PREDICTION)), expected)
    with_null = BinaryCrossentropy()(pa.array([1.0, None]), logit=pa.array([0.5, 0.5]))
    assert math.isnan(with_null[1])
    assert not math.isnan(with_null[0])
    # A scalar and an empty column are arrays too.
    assert BinaryCrossentropy()(1.0, logit=0.0).shape == ()
    assert BinaryCrossentropy()([], logit=[]).shape == (0,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BinaryCrossentropy(label_smoothing=1.5),
        lambda: BinaryCrossentropy(label_smoothing=math.nan),
        lambda: BinaryCrossentropy(pos_weight=0),
        lambda: BinaryCrossentropy(pos_weight=INF),
        lambda: BinaryCrossentropy(label_domain="±1"),
    ],
)
def test_parameters_outside_their_range_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="allowed"):
        make()
