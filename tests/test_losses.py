"""Every listed loss in every space: against its oracle in ULPs, as plain Python to the bit, and its derivatives."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest
from mpmath import mpf

from fastloss_kernels.cpu import pointwise
from fastloss_kernels.losses import (
    LOSSES,
    POINTWISE_LOSSES,
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    BinaryLoss,
    BrierScore,
    Expectile,
    Exponential,
    Gamma,
    GeneralizedCrossentropy,
    HalfSquaredError,
    HalfSquaredSigmoid,
    Hinge,
    Huber,
    LogCosh,
    Loss,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    ModifiedHuber,
    Pinball,
    Poisson,
    Poly1,
    PseudoHuber,
    SmoothL1,
    SquaredHinge,
    Tweedie,
    ZeroOne,
)
from tests.oracles.losses import ORACLES, PRECISION_DIGITS

INF = math.inf
VALUE_ULP = {"hard": 2.0, "soft": 4.0}
DERIVATIVE_ULP = 4.0
# Of sums of rounded terms of both signs.
PARTS_ULP = 6.0
OUTPUTS = ("value", "gradient", "hessian")

# Every loss as it comes, and those whose parameters change the formula or its accuracy.
INSTANCES = [loss() for loss in POINTWISE_LOSSES] + [
    BinaryFocalCrossentropy(gamma=0.3, alpha=0.25),
    BinaryFocalCrossentropy(gamma=5.0),
    Huber(delta=0.47),
    SmoothL1(beta=0.47),
    PseudoHuber(slope=0.7),
    Poisson(full=True),
    Poisson(log_input=True),
    Poisson(log_input=True, full=True),
    Gamma(log_input=True),
    GeneralizedCrossentropy(q=0.3),
    Poly1(eps=-1.0),
    Pinball(quantile=0.1),
    Expectile(expectile=0.1),
    Tweedie(power=1.1),
    Tweedie(log_input=True),
]
CASES = [pytest.param(loss, space, id=f"{loss.full_name}-{space}") for loss in INSTANCES for space in loss.formulas]
# Outputs that pass through zero as a difference of their own definition, so that no float64 formula is within a few
# ULP of them everywhere. They are held to as much as one rounding of prediction, label or a parameter would move
# them.
CANCELLING = {
    ("BrierScore", "logit", "hessian"): "squares bend up, a sigmoid that saturates bends down",
    ("BrierScore", "logprob", "hessian"): "2p·(2p − y) changes sign",
    ("HalfSquaredSigmoid", "logit", "hessian"): "squares bend up, a sigmoid that saturates bends down",
    ("BinaryFocalCrossentropy", "logit", "hessian"): "the loss is not convex in the logit",
    ("MeanSquaredLogarithmicError", "value", "hessian"): "1 − log((1 + ŷ)/(1 + y)) changes sign",
    ("Poisson", "value", "value"): "ŷ − y·log ŷ changes sign",
    ("Poisson", "value", "gradient"): "of a logarithmic rate, eˣ − y changes sign",
    ("Gamma", "value", "value"): "log ŷ changes sign",
    ("Gamma", "value", "gradient"): "of a logarithmic mean, 1 − y·e^−x changes sign",
    ("Gamma", "value", "hessian"): "2·y − ŷ changes sign",
    ("Tweedie", "value", "gradient"): "of a logarithmic mean, e^((2 − ρ)·x) − y·e^((1 − ρ)·x) changes sign",
    ("Tweedie", "value", "hessian"): "ρ·y − (ρ − 1)·ŷ changes sign",
    ("GeneralizedCrossentropy", "logit", "hessian"): "the loss is not convex in the logit",
}

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


def grid(loss: Loss, space: str) -> list[float]:
    return [x for x in GRIDS[space] if x in loss.prediction_range(space)]


def random_scores(loss: Loss, space: str, count: int) -> list[float]:
    random = np.random.default_rng(20)
    if space == "prob":
        return random.beta(0.3, 0.7, count).tolist()
    if space == "logprob":
        return (-random.exponential(2.0, count)).tolist()
    scores = random.normal(-2.0, 8.0, count).tolist()
    return [x if x in loss.prediction_range(space) else abs(x) for x in scores]


def labels_of(loss: Loss) -> list[tuple[str, float]]:
    if isinstance(loss, BinaryLoss):
        return [("hard", y) for y in HARD] + [("soft", y) for y in SOFT]
    return [("hard", y) for y in REAL_LABELS if y in loss.label_range]


def evaluate(loss: Loss, space: str, scores: list[float], labels: list[float]) -> np.ndarray:
    score, label = np.array(scores), np.array(labels)
    out = [np.empty(len(score)) for _ in range(3)]
    pointwise.make_value_gradient_hessian(loss.formulas[space])(score, label, loss.parameters(space), *out)
    return np.array(out)


@pytest.mark.parametrize("loss", INSTANCES, ids=lambda loss: loss.full_name)
def test_traits_say_which_derivatives_are_zero(loss: Loss) -> None:
    gradients, hessians = [], []
    for space in loss.formulas:
        rows = list(itertools.product(random_scores(loss, space, 40), [y for _, y in labels_of(loss)]))
        _, gradient, hessian = evaluate(loss, space, *(list(column) for column in zip(*rows, strict=True)))
        gradients.append(gradient.any())
        hessians.append(hessian.any())
    assert any(gradients) == loss.differentiable
    assert any(hessians) == (loss.hessian != "zero")


def ulp_error(found: float, exact: Any, scale: Any = None) -> float:
    """The distance of a float64 from the exact number, in units of its last place (2^-1074 for subnormals)."""
    reference = abs(exact) if scale is None else scale
    if not math.isfinite(found):
        # An infinite result is right exactly where rounding the number overflows.
        return 0.0 if abs(exact) >= mpf(2) ** 1024 * (1 - mpf(2) ** -54) and (exact > 0) == (found > 0) else INF
    exponent = -1074 if reference == 0 else max(int(mpmath.floor(mpmath.log(reference, 2))) - 52, -1074)
    return float(abs(mpf(found) - exact) / mpf(2) ** exponent)


def movement(oracle: Any, x: Any, y: Any, loss: Loss, exact: tuple[Any, ...]) -> list[Any]:
    """How far each output moves per relative change of prediction, label or a parameter, at least its own size.

    And at least 1e-300: below it a float64 has fewer digits, and terms of a difference have lost some of theirs.
    """
    step = mpf(10) ** -60
    given = {field.name: getattr(loss, field.name) for field in fields(loss)}
    numbers = {name: mpf(number) for name, number in given.items() if isinstance(number, float)}
    others = [SimpleNamespace(**{**given, name: number * (1 + step)}) for name, number in numbers.items()]
    moved = [oracle(x * (1 + step), y, loss), oracle(x, y * (1 + step), loss)]
    moved += [oracle(x, y, other) for other in others]
    movements = [max(abs(other[i] - exact[i]) / step for other in moved) for i in range(3)]
    return [max(mpf(10) ** -300, abs(exact[i]), movements[i]) for i in range(3)]


def worst_errors(loss: Loss, space: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Return for each kind of label and each output the largest ULP error and the row it happened at."""
    oracle = ORACLES[type(loss).__name__][space]
    cancelling = [(type(loss).__name__, space, output) in CANCELLING for output in OUTPUTS]
    rows = [(kind, x, y) for (kind, y) in labels_of(loss) for x in grid(loss, space)]
    rows += [
        (kind, x, y)
        for x, (kind, y) in zip(random_scores(loss, space, 150), itertools.cycle(labels_of(loss)), strict=False)
    ]
    found = evaluate(loss, space, [x for _, x, _ in rows], [y for _, _, y in rows])
    worst: dict[tuple[str, str], tuple[float, float, float]] = {}
    with mpmath.workdps(PRECISION_DIGITS):
        for (kind, x, y), column in zip(rows, found.T, strict=True):
            exact = oracle(mpf(x), mpf(y), loss)
            scales = movement(oracle, mpf(x), mpf(y), loss, exact) if any(cancelling) else exact
            for i, output in enumerate(OUTPUTS):
                error = ulp_error(float(column[i]), exact[i], scales[i] if cancelling[i] else None)
                if error > worst.get((kind, output), (-1.0,))[0]:
                    worst[kind, output] = (error, x, y)
    return worst


def is_difference(loss: Loss, space: str) -> bool:
    """Tell whether the value of a soft label is the square of a difference of two rounded numbers."""
    return isinstance(loss, (BrierScore, HalfSquaredSigmoid)) and space != "prob"


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_against_the_oracle(loss: Loss, space: str) -> None:
    for (kind, output), (error, x, y) in worst_errors(loss, space).items():
        if (type(loss).__name__, space, output) in CANCELLING:
            bound = PARTS_ULP
        elif output == "value":
            bound = VALUE_ULP[kind]
        elif kind == "hard":
            bound = DERIVATIVE_ULP
        else:
            continue  # A soft label's derivative is a difference that may cancel; the next test bounds it.
        if kind == "soft" and is_difference(loss, space):
            continue  # The next test bounds it.
        assert error <= bound, f"{output}, {kind} label: {error} ULP at {space} {x!r}, label {y!r}"


# Hard labels at which roundings have added up to more than these bounds; a search of millions of rows found them.
PLACES = [
    (BrierScore(), "logit", -2.687538364789501, 0.0),
    (BrierScore(), "logit", 1.8687972152425103, 1.0),
    (HalfSquaredSigmoid(), "logit", -2.687538364789501, 0.0),
    (HalfSquaredSigmoid(), "logit", 1.8687972152425103, 1.0),
    (BinaryCrossentropy(), "logit", 2.6588281085663774, 0.0),
    # A weight of positives below 1, of which 1 + y·(q − 1) would leave few digits.
    *((BinaryCrossentropy(pos_weight=q), "logit", 0.7, 1.0) for q in (0.01, 1e-4, 1e-6, 1e-17, 1e-300)),
    (LogCosh(), "value", 3.1181825548407858, 0.0),
    *((Poisson(full=True), "value", x, y) for x, y in ((1e308, 1.5e308), (1.7e308, 1.7e308), (1e308, 1e-300))),
    *((Poisson(full=True), "value", x, 1.7e308) for x in (1e-300, 5.0, 1.6e308)),
]


@pytest.mark.parametrize(("loss", "space", "x", "y"), PLACES, ids=lambda part: getattr(part, "name", repr(part)))
def test_places_where_roundings_add_up(loss: Loss, space: str, x: float, y: float) -> None:
    oracle = ORACLES[type(loss).__name__][space]
    near = [x * (1 + k * 2.0**-40) for k in range(-100, 101)]
    found = evaluate(loss, space, near, [y] * len(near))
    with mpmath.workdps(PRECISION_DIGITS):
        for place, column in zip(near, found.T, strict=True):
            exact = oracle(mpf(place), mpf(y), loss)
            scales = movement(oracle, mpf(place), mpf(y), loss, exact)
            for i, (output, bound) in enumerate(
                zip(OUTPUTS, (VALUE_ULP["hard"], DERIVATIVE_ULP, DERIVATIVE_ULP), strict=True)
            ):
                cancels = (type(loss).__name__, space, output) in CANCELLING
                error = ulp_error(float(column[i]), exact[i], scales[i] if cancels else None)
                assert error <= (PARTS_ULP if cancels else bound), (output, place)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_soft_labels_stay_within_the_rounding_of_their_parts(loss: Loss, space: str) -> None:
    if not isinstance(loss, BinaryLoss):
        pytest.skip("takes no soft labels")
    oracle = ORACLES[type(loss).__name__][space]
    rows = [(x, y) for x in random_scores(loss, space, 60) for y in (0.0, 0.1, 0.25, 0.9, 1.0)]
    found = evaluate(loss, space, [x for x, _ in rows], [y for _, y in rows])
    with mpmath.workdps(PRECISION_DIGITS):
        for (x, y), column in zip(rows, found.T, strict=True):
            ends = [oracle(mpf(x), mpf(end), loss) for end in (0, 1)]
            exact = oracle(mpf(x), mpf(y), loss)
            for i, output in enumerate(OUTPUTS):
                scale = max(abs(exact[i]), *(abs(end[i]) for end in ends))
                if (type(loss).__name__, space, output) in CANCELLING:
                    scale = max(scale, movement(oracle, mpf(x), mpf(y), loss, exact)[i])
                assert ulp_error(float(column[i]), exact[i], scale) <= PARTS_ULP, (x, y, i)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_plain_python_gives_the_same_bits(loss: Loss, space: str) -> None:
    scores = grid(loss, space) + random_scores(loss, space, 40)
    scores += [x for x in (INF, -INF) if x in loss.prediction_range(space)]
    labels = [y for _, y in labels_of(loss)]
    rows = list(itertools.product(scores, labels))
    compiled = evaluate(loss, space, [x for x, _ in rows], [y for _, y in rows])
    for (x, y), column in zip(rows, compiled.T, strict=True):
        plain = loss.formulas[space](x, y, loss.parameters(space))
        assert np.array_equal(np.array(plain).view(np.int64), column.copy().view(np.int64)) or all(
            a == b or (a != a and b != b) for a, b in zip(plain, column, strict=True)
        ), (x, y, plain, column)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_nan_never_vanishes_and_finite_input_never_gives_nan(loss: Loss, space: str) -> None:
    labels = [y for _, y in labels_of(loss)]
    scores = grid(loss, space)
    infinite = [x for x in (INF, -INF) if x in loss.prediction_range(space)]
    assert np.isnan(evaluate(loss, space, [math.nan] * len(labels), labels)[0]).all()
    everything = scores + infinite
    assert np.isnan(evaluate(loss, space, everything, [math.nan] * len(everything))[0]).all()
    pairs = list(itertools.product(everything, labels))
    found = evaluate(loss, space, [x for x, _ in pairs], [y for _, y in pairs])
    assert [pair for pair, column in zip(pairs, found.T, strict=True) if np.isnan(column).any()] == []


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_derivatives_agree_with_differences(loss: Loss, space: str) -> None:
    points = {"prob": [0.1, 0.3, 0.62, 0.9], "logprob": [-3.0, -1.1, -0.4]}.get(space, [-3.1, -0.4, 0.3, 2.2])
    labels = [y for _, y in labels_of(loss) if abs(y) < 4]
    step = 1e-3
    for x, y in itertools.product([x for x in points if x in loss.prediction_range(space)], labels):
        if abs(x - y) < 0.05 or abs((2 * y - 1) * x - 1) < 0.05:
            continue  # Too near a kink for a difference.
        value, gradient, hessian = evaluate(loss, space, [x + k * step for k in (-2, -1, 0, 1, 2)], [y] * 5)
        slope = (value[0] - 8 * value[1] + 8 * value[3] - value[4]) / (12 * step)
        curve = (gradient[0] - 8 * gradient[1] + 8 * gradient[3] - gradient[4]) / (12 * step)
        assert slope == pytest.approx(gradient[2], rel=1e-7, abs=1e-9), (x, y)
        assert curve == pytest.approx(hessian[2], rel=1e-7, abs=1e-9 * max(1.0, abs(gradient).max())), (x, y)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_a_missing_number_has_no_derivatives_either(loss: Loss, space: str) -> None:
    x = next(x for x in (0.5, -0.5) if x in loss.prediction_range(space))
    label, score = np.array([1.0, math.nan, 1.0, math.nan]), np.array([x, x, math.nan, math.nan])
    for number in (loss(label, **{space: score}), *loss.gradient_hessian(label, **{space: score})):
        assert np.isnan(number).tolist() == [False, True, True, True]


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_every_driver_gives_the_same_bits(loss: Loss, space: str) -> None:
    random = np.random.default_rng(3)
    score = np.array(random_scores(loss, space, 200_003))
    label = random.random(len(score)) if isinstance(loss, BinaryLoss) else random.normal(size=len(score))
    label = label if -1.0 in loss.label_range else abs(label)
    parameters = loss.parameters(space)
    serial = [np.empty(len(score)) for _ in range(3)]
    pointwise.make_value_gradient_hessian(loss.formulas[space])(score, label, parameters, *serial)
    alone = np.empty(len(score))
    pointwise.make_value(loss.formulas[space])(score, label, parameters, alone)
    assert np.array_equal(alone, serial[0])
    parallel = [np.empty(len(score)) for _ in range(3)]
    pointwise.make_value_gradient_hessian(loss.formulas[space], parallel=True)(score, label, parameters, *parallel)
    for one, other in zip(serial, parallel, strict=True):
        assert np.array_equal(one, other)


def test_every_loss_has_an_oracle_for_every_space() -> None:
    assert {loss.__name__: set(loss().formulas) for loss in POINTWISE_LOSSES} == {
        name: set(o) for name, o in ORACLES.items()
    }


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


# A worked example: seven predictions, read as probabilities and as logits.
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
        (HalfSquaredSigmoid(), "logit", 0.13770250854782398),
        (BinaryFocalCrossentropy(gamma=2), "prob", 0.11267273164784232),
        (BinaryFocalCrossentropy(gamma=2, alpha=0.25), "prob", 0.08287941030193327),
        (BinaryFocalCrossentropy(gamma=0), "prob", 0.4291188961244073),
        (BinaryFocalCrossentropy(gamma=0), "logit", 0.7435545077594143),
        (MeanSquaredError(), "value", 0.14075328571428572),
        (HalfSquaredError(), "value", 0.14075328571428572 / 2),
        (MeanAbsoluteError(), "value", 0.31214285714285717),
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


def test_worked_example_of_squares_under_a_sigmoid() -> None:
    gradients = [-0.06631746465553921, 0.14155101798067676, -0.06846078607969994, 0.1480937014474065]
    gradients += [0.1471243039549904, 0.1251248748334168, 0.13670597163599776]
    found = HalfSquaredSigmoid().gradient(LABEL, logit=PREDICTION)
    np.testing.assert_allclose(found, gradients, rtol=0, atol=4e-16)


def test_worked_example_of_squared_hinge() -> None:
    rows = SquaredHinge()([[0, 1], [0, 0]], margin=[[0.6, 0.4], [0.4, 0.6]]).mean(axis=1)
    np.testing.assert_allclose(rows, [1.46, 2.26], rtol=4e-16)
    assert rows.mean() == pytest.approx(1.86, rel=4e-16)


def golden(shared_data: Path, name: str) -> dict[str, dict[str, Any]]:
    cases = json.loads((shared_data / "golden" / f"{name}.json").read_text())["cases"]
    return {case["id"]: case for case in cases}


@pytest.mark.parametrize(
    ("identifier", "loss", "scale"),
    [
        ("keras_losses-024", MeanAbsolutePercentageError(), 2.3 * 100),
        ("keras_losses-040", SquaredHinge(), 2),
        ("keras_losses-060", Huber(), 1),
        ("keras_losses-066", LogCosh(), 1),
        ("keras_losses-076", Poisson(), 1),
        ("keras_losses-128", BinaryFocalCrossentropy(gamma=2), 1),
    ],
)
def test_golden_keras(shared_data: Path, identifier: str, loss: Loss, scale: float) -> None:
    # The number is Keras's mean over all elements, its sum over rows of their means, or those means themselves, times
    # its constant weight and a unit.
    case = golden(shared_data, "keras_losses")[identifier]
    label = np.array(case["inputs"]["y_true"]["value"], dtype=float)
    prediction = np.array(case["inputs"]["y_pred"]["value"], dtype=float)
    space = next(
        s for s in ("prob", "margin", "value") if s in loss.formulas and (s != "prob" or "value" not in loss.formulas)
    )
    rows = scale * loss(label, **{space: prediction}).mean(axis=1)
    expected = np.array(case["expected"])
    np.testing.assert_allclose(rows if expected.ndim else rows.mean(), expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("identifier", "loss"),
    [
        ("torch_family-002", SmoothL1(beta=1.0)),
        ("torch_family-004", Huber(delta=0.5)),
        ("torch_family-046", LogCosh()),
        ("torch_family-050", MeanAbsolutePercentageError()),
    ],
)
def test_golden_torch(shared_data: Path, identifier: str, loss: Loss) -> None:
    case = golden(shared_data, "torch_family")[identifier]
    expected = np.array(case["expected"])
    rows = loss(case["target"], value=case["input"])
    np.testing.assert_allclose(rows if expected.ndim else rows.mean(), expected, rtol=0, atol=case["abs_tol"])


@pytest.mark.parametrize(
    ("identifier", "loss"),
    [
        ("sklearn-062", MeanAbsoluteError()),
        ("sklearn-064", Pinball(quantile=0.25)),
        ("sklearn-066", Huber(delta=3.0)),
        ("sklearn-068", Poisson(log_input=True)),
    ],
)
def test_golden_sklearn(shared_data: Path, identifier: str, loss: Loss) -> None:
    case = golden(shared_data, "sklearn")[identifier]
    assert float(loss(case["y_true"], value=case["raw_prediction"])) == pytest.approx(case["expected"], rel=1e-11)


def test_infinite_predictions() -> None:
    focal = BinaryFocalCrossentropy()
    assert focal([1.0, 0.0, 1.0, 0.0, 0.5], logit=[INF, -INF, -INF, INF, INF]).tolist() == [0, 0, INF, INF, INF]
    assert focal.gradient([1.0, 0.0, 1.0, 0.0], logit=[INF, -INF, -INF, INF]).tolist() == [0, 0, -1, 1]
    for loss in (HalfSquaredError(), Huber(), SmoothL1(), PseudoHuber(), LogCosh(), MeanAbsolutePercentageError()):
        assert loss([1.0, 1.0], value=[INF, -INF]).tolist() == [INF, INF]
    for loss in (Huber(), SmoothL1(), PseudoHuber(), LogCosh()):
        assert loss.gradient([1.0, 1.0], value=[INF, -INF]).tolist() == [1, -1]
    assert SquaredHinge()([1.0, 0.0, 0.5], margin=[INF, INF, INF]).tolist() == [0, INF, 1]
    assert MeanSquaredLogarithmicError()([0.0], value=[INF]).tolist() == [INF]
    assert Poisson()([0.0, 3.0], value=[INF, INF]).tolist() == [INF, INF]
    assert Poisson(log_input=True)([0.0, 3.0, 0.0, 3.0], value=[INF, INF, -INF, -INF]).tolist() == [INF, INF, 0, INF]


def test_subgradients_and_joints() -> None:
    assert MeanAbsolutePercentageError().gradient([2.0], value=[2.0]).tolist() == [0.0]
    assert SquaredHinge().gradient_hessian([1.0], margin=[1.0]) == ([0.0], [0.0])
    assert Huber(delta=2.0).gradient_hessian([0.0, 0.0], value=[2.0, -2.0])[1].tolist() == [1.0, 1.0]
    assert SmoothL1(beta=2.0).gradient_hessian([0.0, 0.0], value=[2.0, -2.0])[1].tolist() == [0.0, 0.0]
    # Without a parabola the smooth L1 loss is the absolute error.
    sharp = SmoothL1(beta=0.0)
    assert sharp([0.0, 1.0], value=[0.0, -2.0]).tolist() == [0.0, 3.0]
    assert sharp.gradient([0.0, 1.0], value=[0.0, -2.0]).tolist() == [0.0, -1.0]
    # A difference that rounds to the joint but lies beyond it is beyond it.
    assert Huber().gradient_hessian([1e-300, -1e-300], value=[-1.0, -1.0])[1].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("loss", "space", "label", "score", "expected"),
    [
        (ZeroOne(), "logit", [1, 0, 1, 0, 0.25], [0.1, 0.1, 0.0, 0.0, 3.0], [0, 1, 1, 0, 0.75]),
        (ZeroOne(), "prob", [1, 0, 1, 0], [0.6, 0.6, 0.5, 0.5], [0, 1, 1, 0]),
        (Exponential(), "margin", [1, 0, 1, 0], [0.0, 0.0, INF, INF], [1, 1, 0, INF]),
        (ModifiedHuber(), "margin", [1, 1, 1, 0, 0], [2.0, 0.0, -3.0, -INF, INF], [0, 1, 12, 0, INF]),
        (GeneralizedCrossentropy(q=1), "prob", [1, 0, 1, 0], [0.75, 0.75, 0.0, 1.0], [0.25, 0.75, 1, 1]),
        (GeneralizedCrossentropy(q=0.5), "prob", [1, 0, 1], [0.25, 0.75, 0.0], [1, 1, 2]),
        (GeneralizedCrossentropy(q=0.5), "logit", [1, 0, 1, 0], [INF, -INF, -INF, INF], [0, 0, 2, 2]),
        (Poly1(eps=2), "prob", [1, 0, 1, 0], [1.0, 0.0, 0.5, 0.5], [0, 0, math.log(2) + 1, math.log(2) + 1]),
        (Poly1(eps=2), "logit", [1, 0, 1, 0], [INF, -INF, -INF, INF], [0, 0, INF, INF]),
        (Pinball(quantile=0.25), "value", [1, 1, 1], [5.0, -3.0, 1.0], [3, 1, 0]),
        (Expectile(expectile=0.25), "value", [1, 1, 1], [3.0, -1.0, 1.0], [3, 1, 0]),
        (Gamma(), "value", [2, 2], [1.0, INF], [2, INF]),
        (Gamma(log_input=True), "value", [2, 2, 2], [0.0, INF, -INF], [2, INF, INF]),
        (Tweedie(power=1.5), "value", [3, 0, 3], [4.0, 4.0, INF], [7, 4, INF]),
        (Tweedie(power=1.5, log_input=True), "value", [3, 0, 0, 3], [0.0, 0.0, -INF, -INF], [8, 2, 0, INF]),
    ],
)
def test_values_by_hand(loss: Loss, space: str, label: Any, score: Any, expected: Any) -> None:
    assert loss(label, **{space: score}).tolist() == pytest.approx(expected, rel=4e-16)


def test_aliases_are_names_of_one_loss() -> None:
    names = [name for loss in LOSSES for name in (loss.name, *loss.aliases, loss.__name__)]
    assert len(set(names)) == len(names)


def test_large_counts_lose_no_digits() -> None:
    # −log of the Poisson probability of a count at its own mean is ½·log(2πy) + 1/(12y) − …, from terms of 2e17.
    assert float(Poisson(full=True)(1e16, value=1e16)) == pytest.approx(19.339619277157038, rel=2e-16)


def test_domains_narrower_than_the_space() -> None:
    with pytest.raises(ValueError, match=r"label is 0\.0; allowed: label is a number other than 0"):
        MeanAbsolutePercentageError()([1.0, 0.0], value=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"value is -1\.0; allowed: value > -1"):
        MeanSquaredLogarithmicError()([1.0], value=[-1.0])
    with pytest.raises(ValueError, match=r"label is -1\.0; allowed: label > -1"):
        MeanSquaredLogarithmicError()([-1.0], value=[1.0])
    with pytest.raises(ValueError, match=r"value is 0\.0; allowed: value > 0"):
        Poisson()([1.0], value=[0.0])
    assert float(Poisson(log_input=True)(1.0, value=0.0)) == 1.0
    with pytest.raises(ValueError, match="label is inf"):
        HalfSquaredError()([INF], value=[1.0])


def test_clipping_and_infinities() -> None:
    loss = BinaryCrossentropy()
    assert loss([1.0, 0.0, 1.0], prob=[0.0, 0.0, 1.0]).tolist() == [27.631021115928547, 0.0, 0.0]
    assert loss([0.0], prob=[1.0]).tolist() == [27.631021115928547]
    logits = [INF, -INF, INF, -INF, INF, -INF, -800.0]
    assert loss([1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 1.0], logit=logits).tolist() == [0, 0, INF, INF, INF, INF, 800]
    assert loss.gradient([1.0, 0.0, 0.0, 1.0, 0.25], logit=[INF, -INF, INF, -INF, INF]).tolist() == [0, 0, 1, -1, 0.75]
    exact = BinaryCrossentropy.formulas["prob"]
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
        lambda: BinaryFocalCrossentropy(gamma=-1),
        lambda: BinaryFocalCrossentropy(gamma=None),  # type: ignore[arg-type]
        lambda: BinaryFocalCrossentropy(alpha=1),
        lambda: Huber(delta=0),
        lambda: SmoothL1(beta=-1),
        lambda: PseudoHuber(slope=0),
        lambda: Poisson(full=1),  # type: ignore[arg-type]
        lambda: GeneralizedCrossentropy(q=0),
        lambda: Poly1(eps=-1.5),
        lambda: Pinball(quantile=1),
        lambda: Expectile(expectile=0),
        lambda: Tweedie(power=2),
        lambda: Gamma(log_input=0),  # type: ignore[arg-type]
    ],
)
def test_parameters_outside_their_range_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="allowed"):
        make()


def test_smoothing_keeps_the_digits_of_the_smaller_part() -> None:
    # 1 − (1 − s + s/2) would lose what s/2 holds, and the loss of a confident hit is made of it.
    loss = BinaryCrossentropy(label_smoothing=0.1)
    x = 19.332830459078256
    with mpmath.workdps(60):
        exact = ORACLES["BinaryCrossentropy"]["logit"](mpf(x), mpf(1), loss)[0]
        assert ulp_error(float(loss([1.0], logit=[x])[0]), exact) <= 2.0


def test_a_probability_of_epsilon_is_not_clipped() -> None:
    epsilon = 1e-12
    for loss in (BinaryCrossentropy(), BinaryFocalCrossentropy(), Poly1()):
        test, parameters = loss.saturated["prob"], loss.parameters("prob", epsilon)
        assert not test(epsilon, 1.0, parameters)
        assert test(math.nextafter(epsilon, 0.0), 1.0, parameters)
        assert not test(math.nextafter(epsilon, 0.0), 0.0, parameters)
        # The nearest to 1 whose distance from it is not below ε, and the next one.
        high = 1.0 - epsilon
        high = high if 1.0 - high >= epsilon else math.nextafter(high, 0.0)
        assert 1.0 - math.nextafter(high, 1.0) < epsilon
        assert not test(high, 0.0, parameters)
        assert test(math.nextafter(high, 1.0), 0.0, parameters)
        assert not test(math.nextafter(high, 1.0), 1.0, parameters)


@pytest.mark.parametrize("loss", [made() for made in LOSSES if made.is_nonnegative], ids=lambda loss: loss.name)
def test_a_loss_that_is_said_to_be_nonnegative_is(loss: Loss) -> None:
    for space, formula in loss.formulas.items():
        labels = [label for label in (0.0, 0.25, 0.5, 1.0, 3.0) if label in loss.label_range]
        scores = [
            s for s in (-700.0, -3.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.5, 700.0) if s in loss.prediction_range(space)
        ]
        for label in labels:
            for score in scores:
                assert formula(score, label, loss.parameters(space, 0.0))[0] >= 0.0
