"""The loops of every loss hold packed instructions, and call no function of the C library."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
import pytest

from fastloss_kernels import jit
from fastloss_kernels.cpu import pointwise, sums
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS
from fastloss_kernels.losses import POINTWISE_LOSSES, Loss

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not llvmlite.binding.get_host_cpu_features().get("avx2"),
    reason="looks for the packed instructions of x86-64 with AVX2",
)

LIBM = "exp|exp2|expm1|log|log1p|log2|log10|tanh|pow|sqrt|fma|lgamma|tgamma|ldexp|frexp|floor|rint"
CASES = [
    pytest.param(loss, space, id=f"{loss.__name__}-{space}") for loss in POINTWISE_LOSSES for space in loss().formulas
]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    # Numba shows the assembly of a kernel only to the process that compiled it.
    monkeypatch.setattr(jit, "cache_folder", lambda: None)


def assembly(kernel: Any, *arguments: Any) -> str:
    kernel(*arguments)
    (text,) = kernel.inspect_asm().values()
    return str(text)


def packed(text: str) -> int:
    return len(re.findall(r"\bv(?:add|sub|mul|div|fn?m(?:add|sub)(?:132|213|231))pd\b.*%[yz]mm", text))


def libm_calls(text: str) -> set[str]:
    return set(re.findall(rf"(?<![\w.])(?:{LIBM})f?(?:@PLT)?\b(?![:\w])", text))


def make(factory: Callable[..., Any], *arguments: Any) -> Any:
    return factory.__wrapped__(*arguments)


@pytest.mark.parametrize(("loss", "space"), CASES)
def test_values_are_computed_in_vectors(loss: type[Loss], space: str) -> None:
    made = loss()
    kernel = make(pointwise.make_value, made.formulas[space])
    ones = np.full(64, 0.5)
    text = assembly(kernel, ones, ones, made.parameters(space), np.empty(64))
    assert packed(text) > 0
    assert not libm_calls(text)


@pytest.mark.parametrize("score_type", [np.float32, np.float64])
def test_log_loss_with_its_derivatives_is_computed_in_vectors(score_type: type) -> None:
    loss = POINTWISE_LOSSES[0]()
    kernel = make(pointwise.make_value_gradient_hessian, loss.formulas["logit"])
    score, out = np.zeros(64, score_type), [np.empty(64) for _ in range(3)]
    text = assembly(kernel, score, np.zeros(64), loss.parameters("logit"), *out)
    assert packed(text) > 20
    assert not libm_calls(text)


def test_values_summed_at_once_are_computed_in_vectors() -> None:
    loss = POINTWISE_LOSSES[0]()
    kernel = make(sums.make_add_values, loss.formulas["logit"])
    score, label = np.zeros(4096, np.float32), np.zeros(4096, np.int8)
    text = assembly(kernel, score, label, loss.parameters("logit"), np.zeros(ACCUMULATOR_WORDS, dtype=np.int64))
    assert packed(text) > 20
    assert not libm_calls(text)


def test_exact_sums_are_computed_in_vectors() -> None:
    text = assembly(make(sums.make_add_terms), np.ones(4096), np.zeros(ACCUMULATOR_WORDS, dtype=np.int64))
    assert packed(text) >= 7
    assert not libm_calls(text)


def test_a_libm_call_would_be_seen() -> None:
    import math

    import numba

    @numba.njit(error_model="numpy")
    def loop(values: np.ndarray, out: np.ndarray) -> None:
        for i in range(values.shape[0]):
            out[i] = math.exp(values[i])

    text = assembly(loop, np.ones(64), np.empty(64))
    assert libm_calls(text) == {"exp"}
