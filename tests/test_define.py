"""Custom losses: what is compiled of a Python function, derivatives against mpmath, where it can be used, errors.

The CUDA kernels of custom losses run in Numba's simulator and compile to PTX, so this file runs itself in processes of
its own.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import itertools
import json
import math
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from math import exp, log1p
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mpmath import mpf

import fastloss as fl
from fastloss_kernels import elementary, special
from fastloss_kernels.cpu import pointwise
from fastloss_kernels.define import DEFINED, define, tracing
from fastloss_kernels.elementary import sigmoid, softplus
from fastloss_kernels.jit import formula
from fastloss_kernels.losses import LOSSES, BinaryLoss, Interval, Loss
from tests.test_cuda_simulator import GRID, bits, run_in_own_process

POSITIVE = Interval(0.0, math.inf, low_open=True)
# A global that a formula reads.
STEEPNESS = 1.5


def asymmetric(prediction, label, under=2.0, over=1.0):
    d = prediction - label
    return (over if d > 0 else under) * d * d


def naive_log_loss(score, label):
    p = 1 / (1 + math.exp(-score))
    return -label * math.log(p) - (1 - label) * math.log(1 - p)


def stable_log_loss(x, y):
    return max(x, 0) - x * y + log1p(exp(-abs(x)))


def huber(prediction, label, delta=1.0):
    d = abs(prediction - label)
    if d <= delta:
        return 0.5 * d**2
    return delta * (d - 0.5 * delta)


def power_loss(prediction, label, p=1.5):
    return abs(prediction - label) ** p / p


def softplus_of(x):
    return np.logaddexp(0.0, x)


def with_helper(score, label, shift=0.25):
    return softplus_of(STEEPNESS * score + shift) - label * STEEPNESS * score


def with_extremes(prediction, label):
    return max(abs(prediction - label), 0.1 * prediction**2, -0.5) + min(prediction, 1.5 * label)


def deviance(prediction, label):
    return 2.0 * (math.lgamma(prediction + label) - label * np.log(prediction) + np.sqrt(prediction))


def log_cosh(prediction, label):
    return math.log(math.cosh(prediction - label)) + np.tanh(0.5 * prediction) ** 2


def own_functions(score, label):
    return softplus(score) * (1.0 - label) + sigmoid(score) ** 3 * label + 2.0**score + math.sinh(0.1 * score)


def exponents(prediction, label):
    return prediction**label + prediction**-1.5 + prediction**0.3 + math.expm1(-prediction) ** 4


def series(x, y, scale=0.5):
    total, term = 0.0, 1.0
    for k in range(1, 6):
        term = term * scale * (x - y) / k
        total += term * term
    return total


def huber_oracle(x, y, delta=1.0):
    d = abs(x - y)
    return d**2 / 2 if d <= delta else delta * (d - mpf(delta) / 2)


def stable_oracle(x, y):
    return mpmath.log(1 + mpmath.exp(x)) - x * y


def helper_oracle(x, y, shift=0.25):
    return mpmath.log(1 + mpmath.exp(mpf("1.5") * x + shift)) - y * mpf("1.5") * x


def extremes_oracle(x, y):
    return max(abs(x - y), mpf(0.1) * x**2) + min(x, mpf(1.5) * y)


def deviance_oracle(x, y):
    return 2 * (mpmath.loggamma(x + y) - y * mpmath.log(x) + mpmath.sqrt(x))


def log_cosh_oracle(x, y):
    return mpmath.log(mpmath.cosh(x - y)) + mpmath.tanh(x / 2) ** 2


def own_oracle(x, y):
    s = 1 / (1 + mpmath.exp(-x))
    return mpmath.log(1 + mpmath.exp(x)) * (1 - y) + s**3 * y + mpf(2) ** x + mpmath.sinh(mpf(0.1) * x)


def exponents_oracle(x, y):
    return x**y + x ** mpf(-1.5) + x ** mpf(0.3) + mpmath.expm1(-x) ** 4


def series_oracle(x, y, scale=0.5):
    return sum(((scale * (x - y)) ** k / mpmath.factorial(k)) ** 2 for k in range(1, 6))


# Function, how it is defined, its oracle of mpmath numbers.
Case = tuple[Callable[..., Any], dict[str, Any], Callable[..., Any]]
CASES: dict[str, Case] = {
    "asymmetric": (asymmetric, {}, lambda x, y, under=2.0, over=1.0: (over if x > y else under) * (x - y) ** 2),
    "naive_log_loss": (naive_log_loss, {"space": "logit"}, stable_oracle),
    "stable_log_loss": (stable_log_loss, {"space": ("logit", "margin")}, stable_oracle),
    "own_huber": (huber, {"space": ("value", "prob")}, huber_oracle),
    "power_loss": (power_loss, {"ranges": {"p": (1.0, 4.0)}}, lambda x, y, p=1.5: abs(x - y) ** p / mpf(p)),
    "with_helper": (with_helper, {"space": "logit"}, helper_oracle),
    "with_extremes": (with_extremes, {}, extremes_oracle),
    "deviance": (deviance, {"label_range": (0.0, math.inf), "prediction_range": POSITIVE}, deviance_oracle),
    "own_log_cosh": (log_cosh, {}, log_cosh_oracle),
    "own_functions": (own_functions, {"space": "logit"}, own_oracle),
    "exponents": (exponents, {"label_range": (0.5, 3.0), "prediction_range": POSITIVE}, exponents_oracle),
    "series": (series, {}, series_oracle),
}


@pytest.fixture(autouse=True)
def _definitions() -> Iterator[None]:
    """Leave what is defined as it was."""
    kept = dict(DEFINED)
    yield
    DEFINED.clear()
    DEFINED.update(kept)


def defined(name: str) -> type[Loss]:
    function, options, _ = CASES[name]
    return define(function, name=name, **options)


def rows_of(loss: Loss, space: str) -> list[tuple[float, float]]:
    allowed = loss.prediction_range(space)
    predictions = [x for x in (-5.3, -1.7, -0.3, 0.2, 0.43, 0.9, 1.15, 2.4, 6.8) if x in allowed]
    labels = [y for y in (-1.25, 0.0, 0.25, 0.6, 1.0, 2.0, 3.45) if y in loss.label_range]
    return list(itertools.product(predictions, labels))


def evaluate_rows(loss: Loss, space: str, rows: list[tuple[float, float]], parallel: bool = False) -> np.ndarray:
    score, label = np.array(rows).T.copy()
    found = np.empty((3, len(rows)))
    pointwise.make_value_gradient_hessian(loss.formulas[space], parallel)(score, label, loss.parameters(space), *found)
    return found


def derivative(oracle: Callable[..., Any], x: float, y: float, parameters: dict[str, Any], n: int) -> Any:
    return mpmath.diff(lambda t: oracle(t, mpf(y), **parameters), mpf(x), n)


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_against_mpmath(name: str) -> None:
    oracle = CASES[name][2]
    loss_class = defined(name)
    changed = {field: 0.7 * default + 0.4 for field, default in vars(loss_class()).items() if field != "label_domain"}
    for loss in (loss_class(), loss_class(**changed)):
        parameters = {k: mpf(v) for k, v in vars(loss).items() if k != "label_domain"}
        for space in loss.formulas:
            rows = rows_of(loss, space)
            with mpmath.workdps(50):
                for (x, y), column in zip(rows, evaluate_rows(loss, space, rows).T, strict=True):
                    exact = [derivative(oracle, x, y, parameters, n) for n in range(3)]
                    scale = float(max(abs(number) for number in exact))
                    for found, number in zip(column, exact, strict=True):
                        assert found == pytest.approx(float(number), rel=1e-13, abs=2e-14 * max(1.0, scale)), (x, y)


@pytest.mark.parametrize("name", CASES)
def test_every_driver_gives_the_same_bits(name: str) -> None:
    loss = defined(name)()
    for space in loss.formulas:
        rows = rows_of(loss, space)
        rows += [(x, y) for x, y in rows_of(loss, space)[:3] for x, y in ((math.nan, y), (x, math.nan))]
        compiled = evaluate_rows(loss, space, rows)
        assert np.array_equal(bits(compiled), bits(evaluate_rows(loss, space, rows, parallel=True)))
        alone = np.empty(len(rows))
        score, label = np.array(rows).T.copy()
        pointwise.make_value(loss.formulas[space])(score, label, loss.parameters(space), alone)
        assert np.array_equal(bits(compiled[0]), bits(alone))
        plain = [loss.formulas[space](x, y, loss.parameters(space)) for x, y in rows]
        assert np.array_equal(bits(np.array(plain).T), bits(compiled))
        assert np.isnan(compiled[:, -6:]).all()


def compiled_code(loss: Loss, space: str) -> str:
    kernel = pointwise.make_value(loss.formulas[space])
    numbers = np.array([0.25, 0.5, 0.75])
    kernel(numbers, numbers, loss.parameters(space), np.empty(3))
    return str(kernel.inspect_llvm(kernel.signatures[0]))


@pytest.mark.parametrize("name", ["asymmetric", "naive_log_loss", "stable_log_loss", "own_huber", "power_loss"])
def test_value_loops_vectorise_and_call_nothing(name: str) -> None:
    code = compiled_code(defined(name)(), "logit" if "log_loss" in name else "value")
    assert re.search(r"<\d+ x double>", code)
    assert not re.search(r"@(exp|log|log1p|pow|llvm\.(exp|log|pow))\b", code)


def test_a_value_alone_does_no_work_for_derivatives() -> None:
    # The gradient of a square root divides; its value does not.
    assert " fdiv " not in compiled_code(define(lambda p, y: math.sqrt(1 + (p - y) ** 2), name="root")(), "value")


def test_a_defined_loss_is_called_as_a_shipped_one() -> None:
    asymmetric_loss = fl.losses.define(asymmetric)
    assert asymmetric_loss.__name__ == "Asymmetric"
    loss = asymmetric_loss(under=3)
    assert loss.full_name == "asymmetric(under=3)"
    assert asymmetric_loss().full_name == "asymmetric"
    label, value = pa.array([1.0, None, 2.0]), [2.0, 1.0, 1.0]
    assert np.array_equal(loss(label, value=value), [1.0, np.nan, 3.0], equal_nan=True)
    assert np.array_equal(loss.gradient(label, value=value), [2.0, np.nan, -6.0], equal_nan=True)
    gradient, hessian = loss.gradient_hessian([1.0, 2.0], value=[2.0, 1.0])
    assert (gradient.tolist(), hessian.tolist()) == ([2.0, -6.0], [2.0, 6.0])
    assert pickle.loads(pickle.dumps(loss)) == loss
    with pytest.raises(ValueError, match=r"^asymmetric: under is 'x'; allowed: under is a number\.$"):
        asymmetric_loss(under="x")
    with pytest.raises(TypeError, match=r"asymmetric takes one prediction, as value=; got logit"):
        loss([1.0], logit=[1.0])


def test_a_pickle_without_its_definition_says_so() -> None:
    pickled = pickle.dumps(define(asymmetric)())
    DEFINED.clear()
    with pytest.raises(LookupError, match=r"^No loss 'asymmetric' is defined; module [\w.]+ must define it"):
        pickle.loads(pickled)


def test_the_latest_definition_of_a_name_counts() -> None:
    define(lambda p, y: (p - y) ** 2, name="mine")
    second = define(lambda p, y: 3.0 * (p - y) ** 2, name="mine")
    assert DEFINED["mine"] is second
    assert second()([0.0], value=[1.0]).tolist() == [3.0]


def test_defined_losses_are_not_listed_and_not_cached_on_disk() -> None:
    loss = define(asymmetric)
    assert loss not in LOSSES
    assert type(pointwise.make_value(loss.formulas["value"])._cache).__name__ == "NullCache"


def test_labels_of_binary_spaces() -> None:
    loss = define(stable_log_loss, space="logit")
    assert issubclass(loss, BinaryLoss)
    assert loss(label_domain="pm1")([-1.0], logit=[2.0]) == loss()([0.0], logit=[2.0])
    with pytest.raises(ValueError, match=r"label is 3\.0; allowed: 0 <= label <= 1"):
        loss()([3.0], logit=[2.0])
    positive = define(deviance, label_range=(0, math.inf), prediction_range=POSITIVE)()
    with pytest.raises(ValueError, match=r"value is 0\.0; allowed: value > 0"):
        positive([1.0], value=[0.0])
    with pytest.raises(ValueError, match=r"label is inf; allowed: label >= 0"):
        positive([math.inf], value=[1.0])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    prediction = random.normal(size=5000)
    label = prediction + random.normal(size=5000)
    table = pa.table({"y": label, "p": prediction.astype(np.float32), "q": prediction, "w": random.random(5000)})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=700)
    return tmp_path / "log.parquet"


def test_evaluate_and_score(log: Path, tmp_path: Path) -> None:
    loss_class = define(asymmetric)
    table = pq.read_table(log)
    for column in ("p", "q"):
        values = loss_class(under=3.0)(table["y"].to_numpy(), value=table[column].to_numpy())
        weighted = math.fsum((values * table["w"].to_numpy()).tolist()) / math.fsum(table["w"].to_pylist())
        for metric in (loss_class(under=3.0), "asymmetric(under=3.0)"):
            result = fl.evaluate(log, label="y", value=column, weight="w", metrics=[metric, "mean_squared_error"])
            assert result["asymmetric(under=3.0)"] == pytest.approx(weighted, rel=1e-15)
    fl.score(log, tmp_path / "scored.parquet", label="y", value="p", loss="asymmetric(under=3.0)")
    scored = pq.read_table(tmp_path / "scored.parquet")
    expected = loss_class(under=3.0)
    assert np.array_equal(scored["loss"], expected(table["y"], value=table["p"]))
    gradient, hessian = expected.gradient_hessian(table["y"], value=table["p"])
    assert np.array_equal(scored["gradient"], gradient)
    assert np.array_equal(scored["hessian"], hessian)


def test_a_booster_can_learn_it() -> None:
    loss = define(with_helper, space="logit")(shift=0.5)
    label, score = np.array([0.0, 1.0, 1.0]), np.array([0.0, -3.0, 0.7])
    for named in (fl.objective("with_helper", shift=0.5), fl.objective(loss)):
        for found, derivative_found in zip(
            named(label, score), loss.gradient_hessian(label, logit=score), strict=True
        ):
            assert np.array_equal(found, derivative_found.astype(np.float32))


def test_evaluate_names_what_is_defined(log: Path) -> None:
    define(asymmetric)
    with pytest.raises(fl.UsageError, match=r"Did you mean 'asymmetric'\?"):
        fl.evaluate(log, label="y", value="p", metrics=["asymetric"])
    with pytest.raises(fl.UsageError, match=r"asymmetric has no parameter 'below'; its parameters: under, over"):
        fl.evaluate(log, label="y", value="p", metrics=["asymmetric(below=1)"])
    named_as_metric = define(asymmetric, name="ctr")()
    with pytest.raises(
        fl.UsageError, match=r"^The loss 'ctr' has the name of a metric; define it with another name=\.$"
    ):
        fl.evaluate(log, label="y", value="p", metrics=[named_as_metric])


def test_formulas_in_many_styles() -> None:
    factor = 2.0
    rows = [(0.5, 0.0), (-2.0, 1.0), (3.0, 1.0)]

    def imports_inside(p, y):
        import math as mathematics
        from math import exp as grow

        return grow(-abs(p - y)) + mathematics.sqrt(1.0 + (p - y) ** 2)

    def conditions(p, y):
        d = p - y
        if -1 < d < 1 and d != 0.5:
            return d * d
        return 2 * abs(d) - 1 if d else 0.0

    def selects(p, y):
        d = np.float64(1.0) * (p - y)
        inside = (d > -1) & (d < 1) | (d == 5.0)
        return np.where(inside, d * d, 2 * np.abs(d) - 1) + 0.0 * (~inside)

    def tables(p, y):
        weights = {"below": 3.0, "above": 1.0}
        return sum(weights["above" if p > y else "below"] * term for term in [np.square(p - y), abs(p - y)])

    def clipped(p, y):
        return np.clip((p - y) ** 2, 0.5, 4.0) + np.sign(p) * p

    def recursive(p, y):
        return polynomial([1.0, 2.0, 0.5], p - y) ** 2

    def polynomial(coefficients, x):
        return coefficients[0] + x * polynomial(coefficients[1:], x) if coefficients else 0.0

    functions = [
        lambda p, y: factor * (p - y) ** 2 / 3,
        imports_inside,
        conditions,
        selects,
        tables,
        clipped,
        recursive,
    ]
    for position, function in enumerate(functions):
        found = evaluate_rows(define(function, name=f"style{position}")(), "value", rows)[0]
        direct = [function(np.float64(x), np.float64(y)) for x, y in rows]
        assert found == pytest.approx(np.array(direct, dtype=float), rel=1e-15), position


def test_a_function_compiled_by_numba_can_be_a_loss_or_a_helper() -> None:
    import numba

    helper = numba.njit(lambda d: d * d)
    compiled = numba.njit(lambda p, y: 0.5 * (p - y) ** 2)
    assert define(compiled, name="compiled")()([0.0], value=[2.0]).tolist() == [2.0]
    assert define(lambda p, y: helper(p - y), name="helped")()([0.0], value=[2.0]).tolist() == [4.0]


@pytest.mark.parametrize(
    ("function", "gradient", "hessian"),
    [
        # Smooth where the kinks of their terms meet: the derivatives at 0 are the true ones.
        pytest.param(lambda x, y: max(x, 0) + log1p(exp(-abs(x))), 0.5, 0.25, id="max first"),
        pytest.param(lambda x, y: max(0, x) + log1p(exp(-abs(x))), 0.5, 0.25, id="max second"),
        pytest.param(lambda x, y: log1p(exp(-abs(-x))) - min(0, -x), 0.5, 0.25, id="min"),
        pytest.param(lambda x, y: np.logaddexp(x, -x), 0.0, 1.0, id="logaddexp"),
        pytest.param(lambda x, y: abs(x) * x, 0.0, 2.0, id="from the right"),
        pytest.param(lambda x, y: abs(-(x**2)), 0.0, 2.0, id="second order"),
        pytest.param(lambda x, y: max(-(x**2), x**2), 0.0, 2.0, id="second order of max"),
        pytest.param(lambda x, y: min(-(x**2), x**2), 0.0, -2.0, id="second order of min"),
        # The branch that is taken decides.
        pytest.param(lambda x, y: x * x if x > 0 else 3 * x * x, 0.0, 6.0, id="branch"),
    ],
)
def test_derivatives_at_kinks(function: Callable[..., float], gradient: float, hessian: float) -> None:
    loss = define(function, name="kinked")()
    assert [float(found[0]) for found in loss.gradient_hessian([0.25], value=[0.0])] == [gradient, hessian]


def test_tails_keep_their_digits() -> None:
    for function in (
        lambda x, y: softplus(x) - x * y,
        lambda x, y: max(x, 0) - x * y + log1p(exp(-abs(x))),
    ):
        loss = define(function, name="tails", space="logit")()
        scores = [-700.0, -40.0, 40.0, 700.0]
        gradient, hessian = loss.gradient_hessian([0.0, 0.0, 1.0, 1.0], logit=scores)
        tails = [math.exp(-abs(x)) for x in scores]
        assert gradient == pytest.approx([tails[0], tails[1], -tails[2], -tails[3]], rel=1e-12)
        assert hessian == pytest.approx(tails, rel=1e-12)


def huber_gradient(prediction, label, delta):
    d = prediction - label
    return d if abs(d) <= delta else delta * np.sign(d)


def huber_hessian(prediction, label, delta):
    return 1.0 if abs(prediction - label) <= delta else 0.0


def test_given_derivatives_are_used() -> None:
    derived = define(huber, name="derived")(delta=0.7)
    label, value = [0.0, 0.0, 0.0], [0.5, 0.9, -3.0]
    for given in ({"gradient": huber_gradient}, {"gradient": huber_gradient, "hessian": huber_hessian}):
        loss = define(huber, name="given", **given)(delta=0.7)
        for one, other in zip(
            loss.gradient_hessian(label, value=value), derived.gradient_hessian(label, value=value), strict=True
        ):
            assert one.tolist() == pytest.approx(other.tolist(), rel=1e-15)
    # Stable where differentiating the formula would not be.
    loss = define(naive_log_loss, name="given", space="logit", gradient=lambda x, y: sigmoid(x) - y)()
    gradient, hessian = loss.gradient_hessian([0.0], logit=[1000.0])
    assert (gradient[0], hessian[0]) == (1.0, 0.0)


def erf_loss(p, y):
    return math.erf(p - y)


def conversion(p, y):
    return float(p) - y


def endless(p, y):
    while p > y:
        p = p * 0.5
    return p


def branching(p, y):
    return sum(abs(p - y) if p > k * 0.37 + y else (p - y) ** 2 for k in range(9)) + sum(
        1.0 if p * k > y * y else 0.0 for k in range(9)
    )


def not_scalar(p, y):
    return p, y


def of_kwargs(p, y, **parameters):
    return p - y


def squared(p, y):
    return (p - y) ** 2


def asks_for_types(p, y):
    return (p - y) ** 2 if isinstance(p, float) else abs(p - y)


def refuses(p, y):
    if y < 0:
        raise ValueError("labels are counts")
    return p - y


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "unknown function": (
        lambda: define(erf_loss),
        TypeError,
        r"erf_loss: erf_loss cannot be compiled: math\.erf of a number of the row cannot be compiled; allowed: \+ - ",
    ),
    "conversion": (
        lambda: define(conversion),
        TypeError,
        r"conversion: .* cannot be compiled: float\(\), or a function",
    ),
    "operator": (
        lambda: define(lambda p, y: p // 2, name="floor"),
        TypeError,
        r"floor: <lambda> cannot be compiled: unsupported operand type\(s\) for //: 'Number' and 'int'\.",
    ),
    "endless loop": (
        lambda: define(endless),
        ValueError,
        r"endless: .* it branches more than 64 times on one row",
    ),
    "many paths": (lambda: define(branching), ValueError, r"branching: .* it has more than 256 paths; write min, max"),
    "not scalar": (
        lambda: define(not_scalar),
        TypeError,
        r"not_scalar: .* it returns a tuple; a loss of one row is one",
    ),
    "nothing": (lambda: define(lambda p, y: None, name="none"), TypeError, r"none: .* it returns a NoneType; a loss"),
    "truth": (lambda: define(lambda p, y: p > y, name="wins"), TypeError, r"wins: .* it returns a comparison; a loss"),
    "raises": (lambda: define(refuses), ValueError, r"refuses: refuses cannot be compiled: labels are counts\."),
    "typo": (
        lambda: define(lambda p, y: unknown_name * p, name="typo"),  # noqa: F821
        ValueError,
        r"typo: <lambda> cannot be compiled: it raises NameError: name 'unknown_name' is not defined\.",
    ),
    "shipped name": (
        lambda: define(squared, name="mse"),
        ValueError,
        r"'mse' is the name of a shipped loss, MeanSquaredError; choose another name=\.",
    ),
    "no name": (
        lambda: define(lambda p, y: (p - y) ** 2),
        ValueError,
        r"A loss cannot be called '<lambda>'; allowed: a Python identifier, given as name=\.",
    ),
    "no function": (lambda: define(3), TypeError, r"A loss is defined by a Python function of one row; got 3\."),
    "one argument": (
        lambda: define(lambda p: p, name="one"),
        TypeError,
        r"one takes \(p\); allowed: \(prediction, label, \.\.\.\)\.",
    ),
    "kwargs": (lambda: define(of_kwargs), TypeError, r"of_kwargs: \*arguments and \*\*arguments cannot be parameters"),
    "parameter without default": (
        lambda: define(lambda p, y, a: a * p, name="bare"),
        TypeError,
        r"bare: parameter 'a' has no default; give it one, a number\.",
    ),
    "parameter not a number": (
        lambda: define(lambda p, y, a="x": p, name="texts"),
        TypeError,
        r"texts: parameter 'a' is 'x'; allowed: a finite number\.",
    ),
    "parameter's name": (
        lambda: define(lambda p, y, gradient=1.0: p, name="clash"),
        ValueError,
        r"clash: 'gradient' cannot be a parameter, since losses use it; rename it\.",
    ),
    "space": (
        lambda: define(squared, space="raw"),
        ValueError,
        r"squared: space is 'raw'; allowed: 'logit', 'prob', 'logprob', 'margin', 'value'\.",
    ),
    "range": (
        lambda: define(squared, label_range=(1, 0)),
        ValueError,
        r"squared: label_range is \(1, 0\); allowed: \(low, high\) with low < high, or an Interval\.",
    ),
    "range of nothing": (
        lambda: define(squared, ranges={"a": (0, 1)}),
        ValueError,
        r"squared: ranges names 'a'; its parameters: none\.",
    ),
    "not finite": (
        lambda: define(lambda p, y: math.log(p), name="logarithm"),
        ValueError,
        r"logarithm is -inf at prediction .*, label .*; allowed: a finite number; narrow prediction_",
    ),
    "type": (
        lambda: define(asks_for_types),
        ValueError,
        r"asks_for_types is .* called as it is and .* compiled, at prediction .*; allowed: a function of its",
    ),
    "wrong gradient": (
        lambda: define(squared, gradient=lambda p, y: 4 * (p - y)),
        ValueError,
        r"squared: the gradient given is 0\.2 at prediction 0, label -0\.05, where differences of the function give "
        r"0\.(1|09999\d+|1000\d+); correct gradient=, or leave it out\.",
    ),
    "wrong on one side": (
        lambda: define(asymmetric, gradient=lambda p, y, under, over: 2 * over * (p - y)),
        ValueError,
        r"asymmetric: the gradient given is .*, under=2, over=1, where differences of the function give ",
    ),
    "parameter forgotten": (
        lambda: define(asymmetric, gradient=lambda p, y, under: (2 if p > y else 2 * under) * (p - y)),
        ValueError,
        r"asymmetric: the gradient given is .*, under=2, over=0\.9375, where differences of the function give ",
    ),
    "wrong hessian": (
        lambda: define(squared, hessian=lambda p, y: 1.0),
        ValueError,
        r"squared: the hessian given is 1\.0 at .*, where differences of the gradient give 2\.0\d*; correct hessian=",
    ),
    "parameter of the gradient": (
        lambda: define(squared, gradient=lambda p, y, a: 2 * (p - y)),
        TypeError,
        r"squared: gradient has a parameter 'a' that the function does not have\.",
    ),
    "gradient that cannot be compiled": (
        lambda: define(squared, gradient=lambda p, y: math.erf(p)),
        TypeError,
        r"squared: gradient cannot be compiled: math\.erf of a number of the row",
    ),
    # Sawteeth narrower than the differences: what is derived is right nowhere that differences see.
    "derived and not found": (
        lambda: define(lambda p, y: (1e17 + p) - 1e17, name="rounded"),
        ValueError,
        r"rounded: the gradient derived is 1\.0 at .*, where differences of the function give .*; give",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    run, kind, message = ERRORS[case]
    before = dict(DEFINED)
    with pytest.raises(kind, match="^" + message) as raised:
        run()
    assert "\n" not in str(raised.value)
    assert before == DEFINED


def test_right_derivatives_of_kinked_losses_are_accepted() -> None:
    kinked = define(
        lambda p, y, q=0.5: max(q * (y - p), (q - 1) * (y - p)),
        name="kinked",
        gradient=lambda p, y, q: (1.0 if p > y else 0.0) - q,
        hessian=lambda p, y: 0.0,
    )
    assert kinked().gradient([0.0, 0.0], value=[1.0, -1.0]).tolist() == [0.5, -0.5]
    steps = define(lambda p, y: 0.0 if (p > 0) == (y > 0) else 1.0, name="steps")
    assert steps().gradient([1.0], value=[-1.0]).tolist() == [0.0]


# ---------------------------------------------------------------------------------------------------------------
# The functions that only custom losses need


def compiled_values(function: Callable[..., float], rows: list[tuple[float, float]], two: bool) -> np.ndarray:
    @formula
    def of_two(score, label, parameters):
        return function(score, label), 0.0, 0.0

    @formula
    def of_one(score, label, parameters):
        return function(score), 0.0, 0.0

    score, label = np.array(rows).T.copy()
    found = np.empty(len(rows))
    pointwise.make_value(of_two if two else of_one)(score, label, (), found)
    return found


def units(found: float, exact: Any) -> float:
    exponent = max(int(mpmath.floor(mpmath.log(abs(exact), 2))) - 52, -1074)
    return float(abs(mpf(found) - exact) / mpf(2) ** exponent)


def test_power() -> None:
    bases = [5e-324, 1e-300, 1e-9, 0.3, 0.5, 1 - 2**-53, 1.0, 1 + 2**-52, 1.7, 2.0, 10.0, 1e9, 1e300]
    exponents = [-800.0, -8.0, -3.0, -1.0, -0.75, -0.5, 1e-300, 0.1, 0.5, 1.0, 1.5, 2.0, 2.7, 8.0, 31.5, 300.0, 2000.0]
    random = np.random.default_rng(5)
    rows = [
        *itertools.product(bases, exponents),
        *zip(random.lognormal(0, 3, 300), random.normal(0, 4, 300), strict=True),
    ]
    rows += [(-x, y) for x, y in rows if y == round(y)]
    found = compiled_values(special.power, rows, two=True)
    with mpmath.workdps(60):
        for (x, y), value in zip(rows, found.tolist(), strict=True):
            assert special.power(float(x), float(y)) == value
            exact = mpf(x) ** mpf(y)
            if abs(exact) >= mpf(2) ** 1024:
                assert value == math.copysign(math.inf, exact)
            else:
                assert units(value, exact) <= max(2.0, abs(y) / 4), (x, y)


def signed(numbers: Any) -> list[str]:
    """Numbers as text, in which zeros of either sign differ."""
    return [repr(float(x)) for x in numbers]


def ieee_power(x: float, y: float) -> float:
    """xʸ of the platform's C library, whose ends are standard, without Python's exceptions."""
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0.0 and math.fmod(y, 2.0) else math.inf
    except ValueError:
        if x != 0.0:
            return math.nan
        return math.copysign(math.inf, x if abs(math.fmod(y, 2.0)) == 1.0 else 1.0)


def test_power_at_the_ends_is_that_of_ieee() -> None:
    inf, nan = math.inf, math.nan
    bases = [0.0, 5e-324, 0.5, 1.0, 2.0, inf]
    exponents = [0.0, 1e-300, 0.5, 1.0, 1.5, 2.0, 3.0, 2.0**51 + 0.5, 2.0**51 + 1, 2.0**53 - 1, 2.0**53, 1e300, inf]
    rows = list(itertools.product([*bases, *[-x for x in bases], nan], [*exponents, *[-y for y in exponents], nan]))
    # What is neither 0, 1 nor infinite is compared with mpmath above.
    rows = [(x, y) for x, y in rows if (z := ieee_power(x, y)) != z or abs(z) in (0.0, 1.0, inf)]
    expected = [ieee_power(x, y) for x, y in rows]
    assert len(rows) > 250
    assert signed(compiled_values(special.power, rows, two=True)) == signed(expected)
    assert signed(special.power(*row) for row in rows) == signed(expected)


def round_to_one(x: Any) -> Any:
    return mpf(int(x > 0)) - int(x < 0)


def fixed(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """The same of a number and 0.75 or, of three, 0.75 and 20.5."""
    return lambda x: function(x, *(mpf(0.75), mpf(20.5))[: 2 if function is clip else 1])


def clip(x: Any, low: Any, high: Any) -> Any:
    return min(max(x, low), high)


def log_sigmoid_oracle(x: Any) -> Any:
    return -mpmath.log1p(mpmath.exp(-x))


# How each function that can be followed is written in mpmath, of one number.
FOLLOWED: dict[str, Callable[[Any], Any]] = {
    "abs": abs,
    "clip": fixed(clip),
    "cosh": mpmath.cosh,
    "exp": mpmath.exp,
    "exp2": lambda x: mpf(2) ** x,
    "expm1": mpmath.expm1,
    "fabs": abs,
    "float_power": fixed(lambda x, y: x**y),
    "lgamma": mpmath.loggamma,
    "log": mpmath.log,
    "log10": lambda x: mpmath.log(x) / mpmath.log(10),
    "log1p": mpmath.log1p,
    "log1p_unit": mpmath.log1p,
    "log2": lambda x: mpmath.log(x) / mpmath.log(2),
    "log_sigmoid": log_sigmoid_oracle,
    "logaddexp": fixed(lambda a, b: mpmath.log(mpmath.exp(a) + mpmath.exp(b))),
    "maximum": fixed(max),
    "minimum": fixed(min),
    "max": fixed(max),
    "min": fixed(min),
    "pow": fixed(lambda x, y: x**y),
    "power": fixed(lambda x, y: x**y),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sign": round_to_one,
    "sinh": mpmath.sinh,
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "sqrt": mpmath.sqrt,
    "square": lambda x: x * x,
    "tanh": mpmath.tanh,
    "where": lambda x: mpf(1.0) if x else mpf(2.0),
}
# From where a function is defined.
DEFINED_ABOVE = {"log1p": -1.0, "log1p_unit": 0.0} | dict.fromkeys(
    ("float_power", "lgamma", "log", "log10", "log2", "pow", "power", "sqrt"), 0.0
)
HOMES: dict[str, tuple[Any, Any]] = {
    "math": (math, tracing.MATH),
    "numpy": (np, tracing.NUMPY),
    "builtins": (builtins, tracing.BUILTINS),
    "elementary": (elementary, tracing.OWN),
}


def of_one_number(home: str, name: str) -> Callable[..., Any]:
    """A loss of a known function of the prediction alone."""
    module = importlib.import_module({"elementary": elementary.__name__}.get(home, home))
    function = getattr(module, name)
    others: tuple[float, ...] = ()
    if name in ("clip", "float_power", "logaddexp", "max", "maximum", "min", "minimum", "pow", "power"):
        others = (0.75, 20.5) if name == "clip" else (0.75,)
    if name == "where":
        return lambda x, y: function(x != 0.0, 1.0, 2.0)
    return lambda x, y: function(x, *others)


KNOWN = [(home, name) for home, (module, functions) in HOMES.items() for name in functions if hasattr(module, name)]


@pytest.mark.parametrize(("home", "name"), KNOWN, ids=[f"{home}.{name}" for home, name in KNOWN])
def test_every_known_function_keeps_its_digits_and_those_of_its_derivatives(home: str, name: str) -> None:
    above = DEFINED_ABOVE.get(name, -math.inf)
    sizes = np.concatenate([np.linspace(0.1, 50.0, 40), np.logspace(-12, -1, 12)])
    allowed = Interval(above, 1.0 if name == "log1p_unit" else math.inf, low_open=True)
    points = [x for x in (*-sizes, *sizes) if x in allowed]
    options = {"prediction_range": allowed} if name in DEFINED_ABOVE else {}
    loss = define(of_one_number(home, name), name="known", **options)()
    found = evaluate_rows(loss, "value", [(x, 0.0) for x in points])
    oracle = FOLLOWED[name]
    with mpmath.workdps(150):
        for x, column in zip(points, found.T, strict=True):
            coefficients = mpmath.taylor(oracle, mpf(x), 2, h=mpf(10) ** -45)
            for order, value in enumerate(column.tolist()):
                exact = coefficients[order] * (1 + (order == 2))
                # A derivative that passes through zero is the one of a sum, as ψ is.
                least = 2.0**-48 if name in ("lgamma", "logaddexp") else 1e-300
                assert abs(mpf(value) - exact) <= 3e-14 * abs(exact) + least, (x, order, value)


@pytest.mark.parametrize("name", ["sinh", "cosh"])
def test_hyperbolic_functions(name: str) -> None:
    function, exact_function = getattr(special, name), getattr(mpmath, name)
    random = np.random.default_rng(7)
    points = [5e-324, 1e-300, 1e-17, 1e-9, 0.3, 1.0, 39.9, 40.1, 709.0, 709.7, 709.8, 710.4]
    points += [*random.lognormal(0.0, 2.0, 300).tolist(), *random.uniform(0.0, 710.0, 300).tolist()]
    points += [-x for x in points]
    found = compiled_values(function, [(x, 0.0) for x in points], two=False)
    with mpmath.workdps(400):
        for x, value in zip(points, found.tolist(), strict=True):
            assert function(x) == value
            exact = exact_function(mpf(x))
            if abs(exact) < mpf(2) ** 1024:
                assert units(value, exact) <= 3.0, x
            else:
                assert abs(value) == math.inf
    ends = [0.0, -0.0, math.inf, -math.inf, math.nan]
    assert signed(compiled_values(function, [(x, 0.0) for x in ends], two=False)) == signed(getattr(np, name)(ends))


@pytest.mark.parametrize(("name", "order"), [("digamma", 0), ("trigamma", 1)])
def test_derivatives_of_lgamma(name: str, order: int) -> None:
    function = getattr(special, name)
    random = np.random.default_rng(6)
    points = [1e-100, 1e-9, 0.01, 0.5, 1.0, 1.4616321449683623, 2.0, 9.999, 10.0, 1e3, 1e15, 1e100]
    points += random.lognormal(0.5, 1.5, 300).tolist()
    found = compiled_values(function, [(x, 0.0) for x in points], two=False)
    with mpmath.workdps(40):
        for x, value in zip(points, found.tolist(), strict=True):
            assert function(x) == value
            exact = mpmath.psi(order, mpf(x))
            if name == "trigamma":
                assert units(value, exact) <= 8.0, x
            else:
                assert abs(mpf(value) - exact) <= mpf(2) ** -49 * max(1, abs(exact)), x
    ends = [-1.0, 0.0, math.nan]
    assert np.array_equal(
        [function(x) for x in ends], [math.nan, -math.inf if order == 0 else math.inf, math.nan], equal_nan=True
    )


# ---------------------------------------------------------------------------------------------------------------
# CUDA


def run_kernels(kernels: Any, launch: Callable[..., Any], name: str) -> dict[str, np.ndarray]:
    """Run the kernels of a defined loss in its first space."""
    loss = defined(name)()
    space = next(iter(loss.formulas))
    score, label = np.array([*rows_of(loss, space), (math.nan, 1.0)]).T.copy()
    results = np.full((4, len(score)), -7.0)
    parameters = loss.parameters(space)
    launch(kernels.make_value_gradient_hessian(loss.formulas[space]))(score, label, parameters, *results[:3])
    launch(kernels.make_value(loss.formulas[space]))(score, label, parameters, results[3])
    return dict(zip(("value", "gradient", "hessian", "value alone"), results, strict=True))


def test_simulated_kernels_give_the_bits_of_the_cpu(tmp_path: Path) -> None:
    run_in_own_process("test_define", tmp_path / "simulated.npz", NUMBA_ENABLE_CUDASIM="1")
    with np.load(tmp_path / "simulated.npz") as simulated:
        for name in CASES:
            for output, values in run_kernels(pointwise, lambda kernel: kernel, name).items():
                assert np.array_equal(bits(simulated[f"{name} {output}"]), bits(values)), (name, output)


@pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda is not installed: pip install '.[cuda12]' runs this test, with or without a GPU",
)
def test_kernels_compile_to_ptx_that_gives_the_bits_of_the_cpu(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from tests.cuda.ptx import Kernel

    run_in_own_process("test_define", tmp_path / "compiled.json", NUMBA_ENABLE_CUDASIM="0")
    compiled = json.loads((tmp_path / "compiled.json").read_text())
    for name, kernels in compiled.items():
        for text in kernels.values():
            assert not re.search(r"\bcall\b|\.local\b|\.f32\b|approx|\.ftz", text)
        names = SimpleNamespace(**{f"make_{kernel}": lambda _, k=kernel: k for kernel in kernels})

        def interpret(kernel: str, kernels: dict[str, str] = kernels) -> Callable[..., None]:
            return lambda *arguments: Kernel(kernels[kernel]).launch(*GRID, arguments)

        expected = run_kernels(pointwise, lambda kernel: kernel, name)
        for output, values in run_kernels(names, interpret, name).items():
            assert np.array_equal(bits(values), bits(expected[output])), (name, output)


def simulate(output: str) -> None:
    """Run every kernel in the simulator and write what it gives."""
    from fastloss_kernels.cuda import pointwise as cuda_pointwise

    results = {}
    for name in CASES:
        for key, values in run_kernels(cuda_pointwise, lambda kernel: kernel[GRID], name).items():
            results[f"{name} {key}"] = values
    np.savez(output, **results)


def compile_all(output: str) -> None:
    """Compile every kernel for a device that is not there and write its PTX."""
    from fastloss_kernels.cuda import pointwise as cuda_pointwise
    from tests.test_cuda_ptx import compile_for_launch, pretend_device

    pretend_device()
    made: dict[str, dict[str, str]] = {}
    for name in CASES:
        made[name] = {}

        def launch(kernel: Any, into: dict[str, str] = made[name]) -> Callable[..., None]:
            def compile_into(*arguments: Any) -> None:
                into[kernel.py_func.__name__] = compile_for_launch(kernel, arguments).library.get_asm_str()

            return compile_into

        run_kernels(cuda_pointwise, launch, name)
    Path(output).write_text(json.dumps(made))


if __name__ == "__main__":
    (simulate if sys.argv[1].endswith(".npz") else compile_all)(sys.argv[1])


def test_a_function_of_no_module_is_compiled_too() -> None:
    names: dict[str, object] = {}
    exec("def tripled(prediction, label):\n    return 3.0 * (prediction - label) ** 2", {"__builtins__": {}}, names)
    loss = define(names["tripled"], name="tripled_square")
    assert loss()([1.0], value=[3.0]).tolist() == [12.0]


# ---------------------------------------------------------------------------------------------------------------
# Single points


@pytest.mark.parametrize(
    ("function", "gradient", "hessian"),
    [
        (lambda p, y: abs(p - y) ** 2.5, 0.0, 0.0),
        (lambda p, y: ((p - y) ** 2) ** 1.25, 0.0, 0.0),
        (lambda p, y: abs(p - y) ** 3.5, 0.0, 0.0),
        (lambda p, y: max(p - y, 0.0) ** 2.5, 0.0, 0.0),
    ],
)
def test_powers_have_their_derivatives_at_zero(
    function: Callable[..., float], gradient: float, hessian: float
) -> None:
    loss = define(function, name="power_of_a_distance")()
    found = loss.gradient_hessian([0.0, 1.0, -2.0], value=[0.0, 1.0, -2.0])
    assert [number.tolist() for number in found] == [[gradient] * 3, [hessian] * 3]
    # What stands still has no slope, however steep the power is.
    assert np.isfinite(loss.gradient_hessian([3.0], value=[0.0])).all()


def test_a_power_has_its_infinite_curvature_at_zero() -> None:
    loss = define(lambda p, y: abs(p - y) ** 1.5, name="steep")()
    assert loss.gradient([0.0, 0.0], value=[0.0, 4.0]).tolist() == [0.0, 3.0]
    assert loss.gradient_hessian([0.0, 0.0], value=[0.0, 4.0])[1].tolist() == [math.inf, 0.375]


@pytest.mark.parametrize(
    ("function", "role", "stated"),
    [
        (lambda p, y: 0.0 if p == y else (p - y) ** 2, "hessian", "0.0"),
        (lambda p, y: 0.0 * y + (math.expm1(p) / p if p != 0.0 else 1.0), "gradient", "0.0"),
        (lambda p, y: math.sqrt((p - y) ** 2), "hessian", "inf"),
    ],
)
def test_a_derivative_that_a_single_point_decides_is_warned_of(
    function: Callable[..., float], role: str, stated: str
) -> None:
    with pytest.warns(UserWarning, match="at a single point") as warned:
        define(function, name="pointed")
    start = f"pointed: the {role} derived is {stated} at prediction "
    assert any(str(each.message).startswith(start) for each in warned)


def test_kinks_are_not_warned_of() -> None:
    # Warnings are errors here.
    define(lambda p, y: abs(p - y), name="kinked")
    define(lambda p, y: max(p - y, 0.0) + 0.5 * (p - y) ** 2, name="kinked")
    define(lambda p, y: (p - y) ** 2 if p > y else 3.0 * (p - y) ** 2, name="kinked")


# ---------------------------------------------------------------------------------------------------------------
# Which argument is the label


def reference(prediction, label):
    return (prediction - 2.0 * label) ** 2


@pytest.mark.parametrize(
    "function",
    [
        lambda label, prediction: (prediction - 2.0 * label) ** 2,
        lambda y_true, y_pred: (y_pred - 2.0 * y_true) ** 2,
        lambda y_pred, y_true: (y_pred - 2.0 * y_true) ** 2,
        lambda y, p: (p - 2.0 * y) ** 2,
        lambda label, anything: (anything - 2.0 * label) ** 2,
        lambda target, score: (score - 2.0 * target) ** 2,
    ],
)
def test_arguments_are_told_apart_by_their_names(function: Callable[..., float]) -> None:
    expected = define(reference)()
    loss = define(function, name="by_name", gradient=lambda label, score: 2.0 * (score - 2.0 * label))()
    label, prediction = [0.5, -1.0, 3.0], [2.0, 0.25, 1.0]
    assert loss(label, value=prediction).tolist() == expected(label, value=prediction).tolist()
    found, wanted = (each.gradient_hessian(label, value=prediction) for each in (loss, expected))
    assert [x.tolist() for x in found] == [x.tolist() for x in wanted]


@pytest.mark.parametrize("function", [lambda a, b: (a - b) ** 2, lambda p, score: (p - score) ** 2])
def test_arguments_that_cannot_be_told_apart_are_refused(function: Callable[..., float]) -> None:
    with pytest.raises(TypeError, match=r"which of them is the label cannot be told; allowed: prediction or y_pred"):
        define(function, name="by_name")
