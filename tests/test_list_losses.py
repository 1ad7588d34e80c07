"""Every list loss in every space: against its oracle in ULPs, as plain Python to the bit, and its derivatives."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pyarrow as pa
import pytest
from mpmath import mpf

import fastloss as fl
from fastloss_kernels.cpu import lists as cpu_lists
from fastloss_kernels.listwise.softmax import dense_label, make_logit_row
from fastloss_kernels.losses import (
    LISTWISE_LOSSES,
    ApproxNDCG,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    Dice,
    KLDivergence,
    LambdaRank,
    ListMLE,
    ListwiseLoss,
    MultiMargin,
    MultiPositiveCrossentropy,
    PairwiseHinge,
    PairwiseLogistic,
    SparseCategoricalCrossentropy,
    Tversky,
)
from tests.oracles.list_losses import LIST_ORACLES, LISTS, LONG_DIGITS, PRECISION_DIGITS, Lists
from tests.test_losses import ulp_error

INF, NAN = math.inf, math.nan
HARD = ("one-hot", "index")
VALUE_ULP = {True: 2.0, False: 4.0}
DERIVATIVE_ULP = 4.0
# Of sums of rounded terms of both signs.
PARTS_ULP = 6.0
OUTPUTS = ("value", "gradient", "hessian")


# Every loss as it comes, and those whose parameters change the formula or its accuracy.
def row_of(case: Any) -> Any:
    loss, space = case.values
    return loss.formulas[space]


INSTANCES: list[ListwiseLoss] = [loss() for loss in LISTWISE_LOSSES] + [
    ApproxNDCG(temperature=2.0, gain="linear"),
    CategoricalCrossentropy(label_smoothing=0.1),
    CategoricalFocalCrossentropy(gamma=0.5, alpha=1.0, label_smoothing=0.1),
    CategoricalFocalCrossentropy(gamma=5.0),
    LambdaRank(sigma=2.5, gain="linear"),
    MultiMargin(p=2, margin=0.3),
    MultiPositiveCrossentropy(form="sum"),
    MultiPositiveCrossentropy(form="mass"),
    MultiPositiveCrossentropy(form="each_vs_negatives"),
    PairwiseHinge(margin=0.1),
    SparseCategoricalCrossentropy(label_smoothing=0.1),
    Tversky(alpha=0.3, beta=0.7, smooth=1.0),
]
CASES = [pytest.param(loss, space, id=f"{loss.full_name}-{space}") for loss in INSTANCES for space in loss.formulas]
# Spaces that share a formula compute the same; one of them is enough for what a formula computes.
FORMULAS = [
    case
    for case in CASES
    if case.values[1] == next(s for s, row in case.values[0].formulas.items() if row is row_of(case))
]


SLOW = [pytest.mark.slow]


def first_of_each_loss(cases: list[Any]) -> list[Any]:
    """The same cases, all but the first of each loss marked slow."""
    seen: set[str] = set()
    marked = []
    for case in cases:
        name = case.values[0].name
        marked.append(pytest.param(*case.values, id=case.id, marks=[pytest.mark.slow] if name in seen else []))
        seen.add(name)
    return marked


def third_of_losses(cases: list[Any]) -> list[Any]:
    """The same cases, all but the first of every third loss marked slow."""
    names = list(dict.fromkeys(case.values[0].name for case in cases))[::3]
    return [
        case if case.values[0].name in names else pytest.param(*case.values, id=case.id, marks=[pytest.mark.slow])
        for case in first_of_each_loss(cases)
    ]


class Case(NamedTuple):
    """One list, and what kind of labels it has."""

    kind: str
    score: list[float]
    label: list[float]


# ---------------------------------------------------------------------------------------------------------------
# Lists


EXTREME_LOGITS: list[list[float]] = [
    [0.0],
    [-800.0],
    [0.0, 0.0],
    [1e-300, -1e-300],
    [5e-324, -5e-324, 0.0],
    [800.0, -800.0],
    [1000.0, 999.0, 0.0, 0.0],
    [-1000.0, -999.0, -1745.0],
    [700.0, 0.0, -700.0, 5.0, 690.0],
    [745.1, 0.0, 1.0],
    [36.7, 0.0, 0.0, -1.0],
    [1e8 + 0.25, 1e8, 1e8 - 2.0, 1e8 + 1.0],
    [-1e8, -1e8 + 0.125, -1e8 - 3.0],
    [1e300, -1e300, 0.0],
    [8e307, -8e307],
    [0.1, 0.1, 0.1, -30.0, -60.0],
]
EXTREMES: dict[str, list[list[float]]] = {
    "logit": [*EXTREME_LOGITS, [INF, 0.0, 1.0], [3.0, INF]],
    "margin": EXTREME_LOGITS,
    "value": EXTREME_LOGITS,
    "prob": [
        [1.0],
        [0.0],
        [0.0, 1.0],
        [1e-300, 1.0 - 2**-53],
        [0.0, 1e-300, 1e-12, 0.5, 0.5],
        [9e-13, 1.1e-12, 5e-324, 0.75, 0.25],
        [1 / 3, 1 / 3, 1 / 3],
        [1e-7, 1.0 - 1e-7],
    ],
    "logprob": [
        [0.0],
        [-0.0, -800.0],
        [-5e-324, -1e-300, -27.6, -27.7, -0.7],
        [-1e-12, -28.0],
        [-1e300, -0.1, -2.5],
        [-1.0986122886681098] * 3,
    ],
}
MASKED: dict[str, list[list[float]]] = {
    "logit": [[NAN, 1.0, 2.0], [-INF, 0.5, -INF], [NAN, -INF, 3.0, -1.0, 2.0], [NAN, 800.0, -800.0]],
    "margin": [[NAN, 1.0, 2.0], [-INF, 0.5, -INF], [NAN, -INF, 3.0, -1.0, 2.0]],
    "value": [[NAN, 1.0, 2.0], [0.5, NAN, NAN], [3.0, -1.0, NAN, 2.0, NAN]],
    "prob": [[NAN, 0.25, 0.75], [0.5, NAN, NAN], [0.25, 0.125, NAN, 0.5, NAN]],
    "logprob": [[NAN, -0.3, -1.5], [-0.5, NAN, -INF], [-1.0, -2.0, NAN, -0.75, -INF]],
}


def declared(loss: ListwiseLoss) -> Lists:
    return LISTS.get(type(loss).__name__, Lists())


def random_scores(space: str, length: int, random: np.random.Generator) -> list[float]:
    if space in ("prob", "logprob"):
        p = random.dirichlet(np.full(length, 0.7)) if length > 1 else np.array([0.8])
        p = np.maximum(p, 1e-10)
        return (np.log(p) if space == "logprob" else p).tolist()
    return random.normal(0.5, 3.0, length).tolist()


def labels_of(kind: str, length: int, random: np.random.Generator) -> list[float]:
    if kind == "index":
        return [float(random.integers(length))]
    label = np.zeros(length)
    if kind == "one-hot":
        label[random.integers(length)] = 1.0
    elif kind == "multi-hot":
        label[random.choice(length, min(length, 2 + length // 20), replace=False)] = 1.0
    elif kind == "soft":
        label = np.where(random.random(length) < 0.4, 0.0, random.random(length))
    elif kind == "distribution":
        label = random.dirichlet(np.full(length, 0.7)) if length > 1 else np.ones(1)
        label = np.where(label < 1e-10, 0.0, label)
    elif kind == "graded":
        label = random.integers(0, 5, length).astype(np.float64)
    else:
        assert kind == "vector"
        label = random.normal(0.0, 2.0, length)
    return label.tolist()


def with_labels(loss: ListwiseLoss, scores: list[list[float]], random: np.random.Generator) -> list[Case]:
    """Give every list of scores labels of each kind."""
    return [Case(kind, s, labels_of(kind, len(s), random)) for s in scores for kind in declared(loss).labels]


def arrays_of(cases: Sequence[Case]) -> tuple[np.ndarray, ...]:
    def flatten(lists: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return np.array([x for entry in lists for x in entry], dtype=np.float64), offsets

    return (*flatten([case.score for case in cases]), *flatten([case.label for case in cases]))


def usable(loss: ListwiseLoss, space: str, cases: list[Case]) -> list[Case]:
    """The lists that the loss is defined for."""
    allowed = loss.prediction_range(space)
    cases = [case for case in cases if all(math.isnan(x) or x in allowed for x in case.score)]
    cases = [case for case in cases if all(y in loss.label_range for y in case.label)]
    classes = np.empty(len(cases), dtype=np.int8)
    lowest, needs = loss.lowest_score(space), cpu_lists.NEEDS[loss.needs]
    lists = np.arange(len(cases))
    cpu_lists.make_classify()(*arrays_of(cases), lists, lowest, needs, loss.label_kind == "index", classes)
    return [case for case, found in zip(cases, classes, strict=True) if found == cpu_lists.USABLE]


@functools.cache
def short_lists(loss: ListwiseLoss, space: str) -> list[Case]:
    """Lists of length 1, 2, 5 and 50, extremes, and masked candidates."""
    random = np.random.default_rng(11)
    scores = [random_scores(space, n, random) for n in (1, 2, 2, 5, 5, 5, 50)]
    return usable(loss, space, with_labels(loss, [*scores, *EXTREMES[space], *MASKED[space]], random))


class Found(NamedTuple):
    """What a kernel gave for some lists."""

    value: np.ndarray
    gradient: list[np.ndarray]
    hessian: list[np.ndarray]


def scratch_of(loss: ListwiseLoss, cases: Sequence[Case]) -> np.ndarray:
    scratch = cpu_lists.make_scratch(loss.n_scratch, max(len(case.score) for case in cases))
    scratch[:] = NAN
    return scratch


def evaluate(loss: ListwiseLoss, space: str, cases: Sequence[Case], parallel: bool = False) -> Found:
    score, offsets, label, label_offsets = arrays_of(cases)
    value, gradient, hessian = np.empty(len(cases)), np.full(len(score), -7.0), np.full(len(score), -7.0)
    kernel = cpu_lists.make_list_value_gradient_hessian(loss.formulas[space], parallel)
    arrays = (score, offsets, label, label_offsets, np.arange(len(cases)), loss.parameters(space))
    kernel(*arrays, scratch_of(loss, cases), value, gradient, hessian)
    return Found(value, np.split(gradient, offsets[1:-1]), np.split(hessian, offsets[1:-1]))


def evaluate_values(loss: ListwiseLoss, space: str, cases: Sequence[Case]) -> np.ndarray:
    score, offsets, label, label_offsets = arrays_of(cases)
    value = np.empty(len(cases))
    kernel = cpu_lists.make_list_value(loss.formulas[space])
    arrays = (score, offsets, label, label_offsets, np.arange(len(cases)), loss.parameters(space))
    kernel(*arrays, scratch_of(loss, cases), value)
    return value


@pytest.mark.parametrize("loss", first_of_each_loss([pytest.param(x, id=x.full_name) for x in INSTANCES]))
def test_traits_say_which_derivatives_are_zero(loss: ListwiseLoss) -> None:
    found = [evaluate(loss, space, short_lists(loss, space)) for space in loss.formulas]
    assert any(gradient.any() for one in found for gradient in one.gradient) == loss.differentiable
    assert any(hessian.any() for one in found for hessian in one.hessian) == (loss.hessian != "zero")


def same_bits(a: Any, b: Any) -> bool:
    """Equal bit for bit; every NaN is the same, and so are both zeros."""
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


# ---------------------------------------------------------------------------------------------------------------
# The oracle


def exact_outputs(
    loss: Any, space: str, score: Sequence[Any], label: Sequence[Any]
) -> tuple[Any, list[Any], list[Any]]:
    oracle = LIST_ORACLES[type(loss).__name__ if isinstance(loss, ListwiseLoss) else loss.class_name][space]
    numbers = [None if isinstance(x, float) and math.isnan(x) else mpf(x) for x in score]
    return oracle(numbers, [mpf(y) for y in label], loss)


def flat(outputs: tuple[Any, list[Any], list[Any]]) -> list[Any]:
    return [outputs[0], *outputs[1], *outputs[2]]


def changed(loss: ListwiseLoss, **parameters: Any) -> Any:
    """What an oracle reads of a loss with other parameters, which may be mpmath numbers."""
    given = {field.name: getattr(loss, field.name) for field in fields(loss)}
    return SimpleNamespace(**{**given, **parameters, "class_name": type(loss).__name__})


def is_linear(loss: ListwiseLoss, space: str) -> bool:
    """Tell whether the definition without smoothing is linear in the labels, from itself."""
    if loss.label_kind == "index":
        return True
    if 2.0 not in loss.label_range:
        return False
    score = [0.5, 0.25, 0.125] if space == "prob" else [-0.5, -0.25, -1.0]
    plain = changed(loss, label_smoothing=0.0)
    with mpmath.workdps(PRECISION_DIGITS):
        labels = ([1.0, 0.5, 0.0], [2.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
        once, twice, first, second = (exact_outputs(plain, space, score, label)[0] for label in labels)
        tiny = mpf(10) ** -300
        return bool(abs(twice - 2 * once) < tiny and abs(first + second / 2 - once) < tiny)


def scales_of_parts(loss: ListwiseLoss, space: str, case: Case, exact: list[Any]) -> list[Any]:
    """The largest term of each output that one label's part of a linear loss adds."""
    n = len(case.score)
    is_index = loss.label_kind == "index"
    labels = [float(k == case.label[0]) for k in range(n)] if is_index else case.label
    smoothing = getattr(loss, "label_smoothing", 0.0)
    plain = changed(loss, label_smoothing=0.0)
    scales = [abs(x) for x in exact]
    for k, y in enumerate(labels):
        weight = (1 - smoothing) * y + smoothing / n
        if weight > 0.0:
            one = [k] if is_index else [float(j == k) for j in range(n)]
            part = flat(exact_outputs(plain, space, case.score, one))
            scales = [max(scale, abs(x) * weight) for scale, x in zip(scales, part, strict=True)]
    return scales


def scales_of_movement(loss: ListwiseLoss, space: str, case: Case, exact: list[Any]) -> list[Any]:
    """How far each output moves per relative change of a score, a label or a parameter, at least its own size.

    Numbers are moved one by one in short lists, in long ones all at once with random signs. At least 1e-300: below it
    a float64 has fewer digits.
    """
    step = mpf(10) ** -60
    # A rounding of e^s is as much as s moved by that.
    least = mpf(int(space == "logit"))
    score = [x if math.isnan(x) else mpf(x) for x in case.score]
    label = [mpf(y) for y in case.label]
    n_scores = len(score)
    random = np.random.default_rng(5)
    n = n_scores + (0 if loss.label_kind == "index" else len(label))
    directions = np.eye(n) if n <= 12 else random.choice([-1.0, 1.0], (8, n))
    given = {field.name: getattr(loss, field.name) for field in fields(loss)}
    numbers = {name: mpf(number) for name, number in given.items() if isinstance(number, float)}
    moved = [
        flat(exact_outputs(changed(loss, **{k: v * (1 + step)}), space, score, label)) for k, v in numbers.items()
    ]
    for direction in directions:
        signs = [mpf(sign) for sign in direction] + [mpf(0)] * len(label)
        moved_score = [
            x if isinstance(x, float) else x + max(abs(x), least) * (s * step)
            for x, s in zip(score, signs, strict=False)
        ]
        moved_label = [y * (1 + s * step) for y, s in zip(label, signs[n_scores:], strict=False)]
        moved.append(flat(exact_outputs(loss, space, moved_score, moved_label)))
    scales = []
    for i, x in enumerate(exact):
        changes = [abs(other[i] - x) / step for other in moved if abs(x) < mpmath.inf]
        scales.append(max([mpf(10) ** -300, abs(x), *changes]))
    return scales


def scales_of(loss: ListwiseLoss, space: str, case: Case, exact: list[Any], cancels: bool) -> list[Any]:
    """What each output's error is measured by where terms of both signs add up to it."""
    n = len(case.score)
    if n > 12:
        # Parts would take as many oracles as there are candidates.
        return [abs(exact[0]), *[max(map(abs, exact[1 : n + 1]))] * n, *[max(map(abs, exact[n + 1 :]))] * n]
    if not cancels and is_linear(loss, space):
        return scales_of_parts(loss, space, case, exact)
    return scales_of_movement(loss, space, case, exact)


class Error(NamedTuple):
    """How far one number of a loss is from the oracle's.

    Attributes
    ----------
    ulp, bound : float
        In units of the last place of the exact number; or `of_parts`, of the parts that it is a difference of.
    text : str
        What it is, for a failure.
    """

    output: str
    hard: bool
    of_parts: bool
    ulp: float
    bound: float
    text: str


def errors_of(loss: ListwiseLoss, space: str, cases: list[Case]) -> Iterator[Error]:
    """Compare every number of a loss over some lists with the oracle's."""
    found = evaluate(loss, space, cases)
    cancelling = [(space, output) in declared(loss).cancelling for output in OUTPUTS]
    for i, case in enumerate(cases):
        exact = flat(exact_outputs(loss, space, case.score, case.label))
        n = len(case.score)
        hard = case.kind in HARD and not getattr(loss, "label_smoothing", 0.0)
        scales = exact if hard and not any(cancelling) else scales_of(loss, space, case, exact, any(cancelling))
        numbers = [found.value[i], *found.gradient[i], *found.hessian[i]]
        for j, (number, x) in enumerate(zip(numbers, exact, strict=True)):
            output = 0 if j == 0 else 1 + (j > n)
            bound, scale = PARTS_ULP, abs(scales[j])
            of_parts = cancelling[output] or not (hard or output == 0)
            if not of_parts:
                bound, scale = DERIVATIVE_ULP if output else VALUE_ULP[hard], abs(x)
            ulp = ulp_error(float(number), x, scale)
            text = (
                f"{OUTPUTS[output]} {(j - 1) % n}: {number!r} is {ulp:.3g} ULP from {mpmath.nstr(x, 20)}; "
                f"{case.kind}, {space} {case.score[:6]}, label {case.label[:6]}, {n} candidates"
            )
            yield Error(OUTPUTS[output], hard, of_parts, ulp, bound, text)


def assert_near_the_oracle(loss: ListwiseLoss, space: str, cases: list[Case]) -> None:
    for error in errors_of(loss, space, cases):
        assert error.ulp <= error.bound, error.text


@pytest.mark.parametrize(("loss", "space"), FORMULAS)
def test_against_the_oracle(loss: ListwiseLoss, space: str) -> None:
    cases = short_lists(loss, space)
    assert len(cases) > 10
    with mpmath.workdps(PRECISION_DIGITS):
        assert_near_the_oracle(loss, space, cases)


# Lists at which roundings have added up to more than the bounds; a search of millions of lists found them.
PLACES = [
    (CategoricalCrossentropy(), "logit", [0.7384267786042887, 5.588239774662278], [0.0, 1.0]),
    (CategoricalCrossentropy(), "logit", [-0.18023650212701425, -0.21097985321063337, -4.0511027967591415], [0, 1, 0]),
    (SparseCategoricalCrossentropy(), "logit", [0.7384267786042887, 5.588239774662278], [1.0]),
    (SparseCategoricalCrossentropy(), "logit", [-7.538120722883719, 2.253023963877419, -0.4451955086993221], [0.0]),
    (SparseCategoricalCrossentropy(), "logit", [-3.65350159573293, 4.572628344364708, -2.9197708574502035], [1.0]),
    (KLDivergence(), "logit", [-0.18023650212701425, -0.21097985321063337, -4.0511027967591415], [0, 1, 0]),
    (MultiPositiveCrossentropy(), "logit", [-0.18023650212701425, -0.21293001933586675, -3.9231964459], [0, 1, 0]),
    (
        PairwiseLogistic(),
        "logit",
        [1.1317860260089116, -3.4399802885596102, -3.3402689805943298, -1.8008993967783082],
        [1, 0, 0, 0],
    ),
    (Dice(), "prob", [0.9922193271720748, 0.007784696630858602], [0.0, 1.0]),
    (Tversky(), "prob", [0.9922193271720748, 0.007792690883429322], [0.0, 1.0]),
]


@pytest.mark.parametrize(("loss", "space", "score", "label"), PLACES, ids=lambda part: getattr(part, "name", ""))
def test_places_where_roundings_add_up(loss: ListwiseLoss, space: str, score: list[float], label: list[float]) -> None:
    random = np.random.default_rng(16)
    kind = "index" if loss.label_kind == "index" else "one-hot"
    near = [
        Case(kind, [x * (1.0 + random.normal(0.0, 1e-9)) for x in score], list(map(float, label))) for _ in range(150)
    ]
    with mpmath.workdps(LONG_DIGITS):
        assert_near_the_oracle(loss, space, [Case(kind, score, list(map(float, label))), *near])


def sample_of_long_lists() -> list[Any]:
    """The same cases, all but those of three quick oracles marked slow."""
    quick = {"categorical_crossentropy", "pairwise_logistic", "cosine_similarity"}
    return [
        pytest.param(*case.values, id=case.id, marks=[*case.marks, *([] if case.values[0].name in quick else SLOW)])
        for case in first_of_each_loss(FORMULAS)
    ]


@pytest.mark.parametrize(("loss", "space"), sample_of_long_lists())
def test_long_lists_against_the_oracle(loss: ListwiseLoss, space: str) -> None:
    random = np.random.default_rng(12)
    cases = with_labels(loss, [random_scores(space, declared(loss).longest, random)], random)
    with mpmath.workdps(LONG_DIGITS):
        assert_near_the_oracle(loss, space, usable(loss, space, cases))


def test_every_list_loss_has_an_oracle_for_every_space() -> None:
    needed: dict[str, set[str]] = {}
    for loss in INSTANCES:
        needed.setdefault(type(loss).__name__, set()).update(loss.formulas)
    assert needed == {name: set(oracles) for name, oracles in LIST_ORACLES.items()}
    assert set(LISTS) <= set(LIST_ORACLES)


@pytest.mark.parametrize(("loss", "space"), FORMULAS)
def test_derivatives_agree_with_differences(loss: ListwiseLoss, space: str) -> None:
    random = np.random.default_rng(13)
    checked, kinks = 0, 0
    scores = [random_scores(space, 5, random) for _ in range(3)]
    # Probabilities not so small that a step is a large part of them.
    scores = [[0.1 + 0.5 * x for x in score] if space == "prob" else score for score in scores]
    for case in usable(loss, space, with_labels(loss, scores, random)):
        (gradient,), (hessian,) = evaluate(loss, space, [case])[1:]
        for j in range(5):
            slopes, curves = [], []
            for step in (1e-3, 5e-4):
                moved = [
                    case._replace(score=[x + k * step * (i == j) for i, x in enumerate(case.score)])
                    for k in (-2, -1, 1, 2)
                ]
                found = evaluate(loss, space, moved)
                v, g = found.value, [entry[j] for entry in found.gradient]
                slopes.append((v[0] - 8 * v[1] + 8 * v[2] - v[3]) / (12 * step))
                curves.append((g[0] - 8 * g[1] + 8 * g[2] - g[3]) / (12 * step))
            close = 1e-6 * max(1.0, abs(slopes[0]), abs(curves[0]))
            if abs(slopes[0] - slopes[1]) > close or abs(curves[0] - curves[1]) > close:
                kinks += 1  # A kink in between: estimates of two steps differ.
                continue
            checked += 1
            assert slopes[1] == pytest.approx(gradient[j], rel=1e-7, abs=1e-8), (case, j)
            assert curves[1] == pytest.approx(hessian[j], rel=1e-6, abs=1e-7), (case, j)
    assert checked > 4 * kinks
    assert checked >= 5


# ---------------------------------------------------------------------------------------------------------------
# Bits


@pytest.mark.parametrize(("loss", "space"), FORMULAS)
def test_plain_python_gives_the_same_bits(loss: ListwiseLoss, space: str) -> None:
    cases = short_lists(loss, space)
    compiled = evaluate(loss, space, cases)
    with np.errstate(all="ignore"):
        for i, case in enumerate(cases):
            gradient, hessian = np.full((2, len(case.score)), -7.0)
            given = (np.array(case.score), np.array(case.label), loss.parameters(space))
            arrays = (*given, scratch_of(loss, [case]), gradient, hessian)
            value = loss.formulas[space](*arrays, True)
            assert same_bits(value, compiled.value[i]), case
            assert same_bits(gradient, compiled.gradient[i]), case
            assert same_bits(hessian, compiled.hessian[i]), case
            assert same_bits(loss.formulas[space](*arrays, False), value), case


@pytest.mark.parametrize(("loss", "space"), FORMULAS)
def test_every_driver_place_and_order_give_the_same_bits(loss: ListwiseLoss, space: str) -> None:
    random = np.random.default_rng(14)
    lengths = random.integers(1, 40, 200)
    cases = usable(loss, space, with_labels(loss, [random_scores(space, int(n), random) for n in lengths], random))
    cases += short_lists(loss, space)
    found = evaluate(loss, space, cases)
    assert same_bits(evaluate_values(loss, space, cases), found.value)
    order = random.permutation(len(cases))
    shuffled = evaluate(loss, space, [cases[i] for i in order])
    assert same_bits(shuffled.value, found.value[order])
    for output in ("gradient", "hessian"):
        serial = getattr(found, output)
        assert same_bits(np.concatenate(getattr(shuffled, output)), np.concatenate([serial[i] for i in order]))


# The parallel loop cuts the lists into blocks for the serial one, whatever the formula.
@pytest.mark.parametrize(
    "loss",
    [CategoricalCrossentropy(), SparseCategoricalCrossentropy(), PairwiseHinge()],
    ids=lambda loss: loss.name,
)
def test_the_parallel_driver_gives_the_same_bits(loss: ListwiseLoss) -> None:
    # In one space: the loop is the same for all, and takes seconds to compile.
    space = next(iter(loss.formulas))
    cases = short_lists(loss, space) * 5
    serial, parallel = (evaluate(loss, space, cases, parallel) for parallel in (False, True))
    for one, other in zip(serial, parallel, strict=True):
        assert same_bits(np.hstack(one), np.hstack(other))


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_finite_lists_never_give_nan_and_masked_candidates_have_no_slope(loss: ListwiseLoss, space: str) -> None:
    cases = short_lists(loss, space)
    found = evaluate(loss, space, cases)
    lowest = loss.lowest_score(space)
    for i, case in enumerate(cases):
        assert not np.isnan([found.value[i], *found.gradient[i], *found.hessian[i]]).any(), case
        masked = ~(np.array(case.score) >= lowest)
        assert not found.gradient[i][masked].any(), case
        assert not found.hessian[i][masked].any(), case


@pytest.mark.parametrize(("loss", "space"), third_of_losses(CASES))
def test_a_masked_candidate_is_as_good_as_absent(loss: ListwiseLoss, space: str) -> None:
    if loss.label_kind == "index":
        pytest.skip("an index counts masked candidates")
    random = np.random.default_rng(15)
    cases = usable(loss, space, with_labels(loss, [random_scores(space, 6, random) for _ in range(5)], random))
    marks = [NAN, -INF] if loss.lowest_score(space) > -INF else [NAN]
    absent = evaluate(loss, space, cases)
    for mark in marks:
        masked = [
            Case(c.kind, [mark, *c.score[:4], mark, *c.score[4:]], [0, *c.label[:4], 0, *c.label[4:]]) for c in cases
        ]
        found = evaluate(loss, space, masked)
        np.testing.assert_allclose(found.value, absent.value, rtol=1e-15)
        for output in ("gradient", "hessian"):
            for with_mask, without in zip(getattr(found, output), getattr(absent, output), strict=True):
                np.testing.assert_allclose(np.delete(with_mask, [0, 5]), without, rtol=1e-15)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_doubled_labels_double_a_linear_loss(loss: ListwiseLoss, space: str) -> None:
    if loss.label_kind == "index" or getattr(loss, "label_smoothing", 0.0) or not is_linear(loss, space):
        pytest.skip("not linear in the labels")
    cases = [case for case in short_lists(loss, space) if max(case.label) < 1e300]
    found = evaluate(loss, space, cases)
    doubled = evaluate(loss, space, [case._replace(label=[2 * y for y in case.label]) for case in cases])
    for once, twice in zip(found, doubled, strict=True):
        once, twice = np.hstack(once), np.hstack(twice)
        # Subnormal numbers round apart, and the largest overflow.
        normal = (np.abs(once) > 1e-300) & (np.abs(once) < 1e308)
        assert same_bits(twice[normal], 2 * once[normal])


@pytest.mark.parametrize(("loss", "space"), [case for case in CASES if case.values[1] in ("logit", "margin", "value")])
def test_shifts_that_a_loss_does_not_see_change_no_bit(loss: ListwiseLoss, space: str) -> None:
    random = np.random.default_rng(16)
    score = (random.integers(-40, 40, 7) / 4).tolist()
    with mpmath.workdps(PRECISION_DIGITS):
        for kind in declared(loss).labels:
            label = labels_of(kind, len(score), random)
            here, there = (exact_outputs(loss, space, [x + by for x in score], label)[0] for by in (0.0, 1.0))
            if abs(here - there) > mpf(10) ** -300:
                pytest.skip("the loss depends on more than differences")
    cases = usable(loss, space, with_labels(loss, [score, score[:2], score[2:4]], random))
    found = evaluate(loss, space, cases)
    for offset in (1e8, -1e8, 2.0**40, -(2.0**40)):
        # Quarters of integers: the shifted scores are exact.
        shifted = evaluate(loss, space, [case._replace(score=[x + offset for x in case.score]) for case in cases])
        assert same_bits(shifted.value, found.value)
        for output in ("gradient", "hessian"):
            assert same_bits(np.concatenate(getattr(shifted, output)), np.concatenate(getattr(found, output)))


@pytest.mark.parametrize("loss", [ListMLE, PairwiseHinge, PairwiseLogistic])
def test_a_list_of_more_pairs_than_allowed_is_refused(loss: type[PairwiseLogistic]) -> None:
    few = loss(max_pairs=14)
    assert few.longest_list == 5
    assert loss(max_pairs=15).longest_list == 6
    label, score = [[1.0, 0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]], [np.arange(5.0), np.arange(6.0)]
    for call in (few, few.gradient, few.gradient_hessian):
        with pytest.raises(ValueError, match="List 1 has 6 candidates; allowed: at most 5 by max_pairs"):
            call(label, logit=score)
    # A null list is not looked at.
    assert np.isnan(few([label[0], None], logit=score)).tolist() == [False, True]
    gradient = few.gradient(label[:1], logit=score[:1])
    assert same_bits(gradient[0], loss().gradient(label, logit=score)[0])
    with pytest.raises(ValueError, match="max_pairs is 0; allowed: 1 <= max_pairs"):
        loss(max_pairs=0)


# ---------------------------------------------------------------------------------------------------------------
# Calls with arrays


def is_saturated(loss: ListwiseLoss, space: str, cases: Sequence[Case]) -> list[bool]:
    score, offsets, label, label_offsets = arrays_of(cases)
    flags = np.zeros(len(cases), dtype=np.bool_)
    kernel = cpu_lists.make_list_flag(loss.saturated[space])
    kernel(score, offsets, label, label_offsets, np.arange(len(cases)), loss.parameters(space), flags)
    return flags.tolist()


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_saturation_is_where_clipping_changes_the_loss(loss: ListwiseLoss, space: str) -> None:
    random = np.random.default_rng(19)
    infinite = [[INF, 0.5, 1.0, -2.0, 0.25], [0.5, 1.0, INF, -INF, 0.25], [NAN, 1.0, 0.5, 2.0, INF]]
    scores = [score for score in infinite for _ in range(4)] if INF in loss.prediction_range(space) else []
    cases = short_lists(loss, space) + usable(loss, space, with_labels(loss, scores, random))
    flags = is_saturated(loss, space, cases) if space in loss.saturated else [False] * len(cases)
    value = evaluate(loss, space, cases).value
    unclipped = []
    for case in cases:
        gradient, hessian = np.empty((2, len(case.score)))
        given = (np.array(case.score), np.array(case.label), loss.parameters(space, 0.0))
        arrays = (*given, scratch_of(loss, [case]), gradient, hessian)
        with np.errstate(all="ignore"):
            unclipped.append(loss.formulas[space](*arrays, False))
    # A sum of finite numbers that is too large for a float64 rules nothing out.
    ruled_out = [bool(math.isinf(v) and not np.isfinite(c.score).all()) for v, c in zip(value, cases, strict=True)]
    changed_by_clipping = [bool(v != u) for v, u in zip(value, unclipped, strict=True)]
    assert flags == [out or clipped for out, clipped in zip(ruled_out, changed_by_clipping, strict=True)]


def test_mass_is_clipped_by_the_sum_of_its_formula() -> None:
    loss = MultiPositiveCrossentropy(form="mass")
    # Added one after the other these are below 1e-12, and rounded once they are not.
    score, label = [1e-12 / 13] * 13 + [0.5], [1.0] * 13 + [0.0]
    assert sum(score[:13]) < 1e-12 <= math.fsum(score[:13])
    cases = [Case("soft", score, label), Case("soft", [0.0, 1.0], [1.0, 0.0]), Case("soft", [0.5, 0.0], [1.0, 0.0])]
    assert is_saturated(loss, "prob", cases) == [False, True, False]
    random = np.random.default_rng(18)
    for n in (1, 3, 13, 100):
        shares = random.dirichlet(np.ones(n), 50)
        cases += [Case("soft", [float(k * 1e-12 * x) for x in s], [1.0] * n) for s in shares for k in (1 - 2**-52, 1)]
    assert is_saturated(loss, "prob", cases) == [
        math.fsum(p for p, y in zip(c.score, c.label, strict=True) if y) < 1e-12 for c in cases
    ]


@pytest.mark.parametrize(
    ("loss", "space", "label", "score"),
    [
        ("list_net", "logit", [1.0, 0.0], [0.0, INF]),
        ("list_mle", "logit", [1.0, 0.0], [0.0, INF]),
        ("pairwise_logistic", "logit", [1.0, 0.0], [0.0, INF]),
        ("pairwise_hinge", "margin", [1.0, 0.0], [0.0, INF]),
        ("lambda_rank", "margin", [1.0, 0.0], [0.0, INF]),
        ("categorical_hinge", "margin", [1.0, 0.0], [-INF, 2.0]),
        ("multi_margin", "margin", 0, [0.0, INF]),
        ("multi_margin", "logit", 0, [-INF, 2.0]),
    ],
)
def test_an_infinite_loss_is_counted_or_refused(loss: str, space: str, label: Any, score: list[float]) -> None:
    log = pa.table({"y": [label, label], "s": [score, [1.0, 0.5]]})
    asked: dict[str, Any] = {"label": "y", space: "s", "metrics": [loss]}
    value = fl.evaluate(log, **asked).values[0]
    assert (value.value, value.evidence["n_saturated"], value.evidence["n_infinite"]) == (INF, 1, 1)
    with pytest.raises(fl.DataError):
        fl.evaluate(log, **asked, saturation="error")
    assert fl.evaluate(log.slice(1), **asked, saturation="error").values[0].evidence["n_saturated"] == 0


def test_arrays_and_columns_share_one_compiled_kernel() -> None:
    class Fresh(CategoricalCrossentropy):
        """A loss whose kernels nothing else has used."""

        name = "fresh"
        rows = {"logit": make_logit_row.__wrapped__(dense_label)}

    loss = Fresh()
    label, score = np.array([[1.0, 0.0]]), np.array([[0.5, 0.25]])
    fixed = score.copy()
    fixed.flags.writeable = False
    found = [loss(label, logit=score), loss(label, logit=fixed), loss([label[0]], logit=[fixed[0]])]
    log = pa.table({"y": label.tolist(), "s": score.tolist()})
    result = fl.evaluate(log, label="y", logit="s", metrics=[loss])
    assert [float(value[0]) for value in found] == [result["fresh"]] * 3
    signatures = cpu_lists.make_list_value(loss.formulas["logit"]).signatures
    assert len(signatures) == 1, signatures


@pytest.mark.parametrize(("loss", "space"), third_of_losses(CASES))
def test_float32_columns_equal_float64_columns_of_the_same_numbers(loss: ListwiseLoss, space: str) -> None:
    random = np.random.default_rng(17)
    cases = usable(loss, space, with_labels(loss, [random_scores(space, 6, random) for _ in range(4)], random))
    score = np.array([case.score for case in cases], dtype=np.float32)
    label = np.array([case.label for case in cases], dtype=np.float32)
    if loss.label_kind == "index":
        label = label[:, 0].astype(np.int32)
    narrow = [loss(label, **{space: score}), *loss.gradient_hessian(label, **{space: score})]
    wide_score = score.astype(np.float64)
    wide = [loss(label.astype(np.float64), **{space: wide_score})]
    wide += loss.gradient_hessian(label.astype(np.float64), **{space: wide_score})
    for one, other in zip(narrow, wide, strict=True):
        assert same_bits(one, other)


# ---------------------------------------------------------------------------------------------------------------
# Clipped probabilities


def test_a_probability_of_epsilon_is_not_clipped() -> None:
    epsilon = 1e-12
    below = math.nextafter(epsilon, 0.0)
    for loss, label in (
        (CategoricalCrossentropy(), [1.0, 0.0]),
        (SparseCategoricalCrossentropy(), [0.0]),
        (CategoricalFocalCrossentropy(), [1.0, 0.0]),
        (KLDivergence(), [1.0, 0.0]),
        (MultiPositiveCrossentropy(), [1.0, 0.0]),
        (MultiPositiveCrossentropy(form="mass"), [1.0, 0.0]),
        (MultiPositiveCrossentropy(form="each_vs_negatives"), [1.0, 0.0]),
    ):
        test, parameters = loss.saturated["prob"], loss.parameters("prob", epsilon)
        assert not test(np.array([epsilon, 0.5]), np.array(label), parameters)
        assert test(np.array([below, 0.5]), np.array(label), parameters)
        # Nothing asks for the other one.
        assert not test(np.array([0.5, below]), np.array(label), parameters)


@pytest.mark.parametrize("p", [0.0, 1e-300, 1e-13, math.nextafter(1e-12, 0.0)])
@pytest.mark.parametrize(
    ("loss", "label"),
    [
        (CategoricalCrossentropy(), [[1.0, 0.0]]),
        (SparseCategoricalCrossentropy(), [0.0]),
        (KLDivergence(), [[1.0, 0.0]]),
        (MultiPositiveCrossentropy(), [[1.0, 0.0]]),
        (MultiPositiveCrossentropy(form="mass"), [[1.0, 0.0]]),
    ],
    ids=lambda part: getattr(part, "full_name", ""),
)
def test_derivatives_of_a_clipped_probability_are_those_at_epsilon(loss: ListwiseLoss, label: Any, p: float) -> None:
    # −log p at p = ε: −1/ε and 1/ε².
    (gradient,), (hessian,) = loss.gradient_hessian(label, prob=np.array([[p, 0.75]]))
    assert gradient.tolist() == [pytest.approx(-1e12, rel=1e-15), 0.0]
    assert hessian.tolist() == [pytest.approx(1e24, rel=4e-16), 0.0]
    assert loss(label, prob=np.array([[p, 0.75]]))[0] == loss(label, prob=np.array([[1e-12, 0.75]]))[0]


@pytest.mark.parametrize("p", [0.0, 1e-13])
def test_derivatives_of_pairs_of_clipped_probabilities_are_those_at_epsilon(p: float) -> None:
    for loss in (MultiPositiveCrossentropy(form="each_vs_negatives"), CategoricalFocalCrossentropy()):
        clipped, at_epsilon = (np.array([[first, 0.75]]) for first in (p, 1e-12))
        for found, wanted in zip(
            loss.gradient_hessian([[1.0, 0.0]], prob=clipped),
            loss.gradient_hessian([[1.0, 0.0]], prob=at_epsilon),
            strict=True,
        ):
            assert found[0] == pytest.approx(wanted[0], rel=1e-10)
            assert abs(found[0][0]) > 1e9
