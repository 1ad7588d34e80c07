"""The elementary functions: their error against the oracle, the same bits everywhere, and what they compile to."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import mpmath
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import derive_coefficients
from fastloss_kernels import elementary, jit
from tests.oracles.elementary import (
    ORACLES,
    dense_samples,
    evaluate,
    hostile_values,
    systematic_grid,
    ulp_error,
    within,
)

INF = math.inf
NAN = math.nan
ROOT = Path(__file__).parents[1]
LIBM = "exp|exp2|expm1|log|log2|log1p|tanh|pow|fma|lgamma|tgamma"


def make_loop(function: Callable[[float], float]) -> Callable[[np.ndarray, np.ndarray], None]:
    def loop(x: np.ndarray, out: np.ndarray) -> None:
        for i in range(x.shape[0]):
            out[i] = function(x[i])

    return loop


@functools.cache
def kernel(name: str) -> Callable[[np.ndarray, np.ndarray], None]:
    return jit.compile_cpu(make_loop(getattr(elementary, name)))


def compiled(name: str, x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    kernel(name)(x, out)
    return out


def assert_bits(name: str, x: np.ndarray) -> None:
    """The compiled loop gives the bits of the plain Python function; every NaN counts as one."""
    out = compiled(name, x)
    plain = np.array([getattr(elementary, name)(float(value)) for value in x])
    same = (out.view(np.int64) == plain.view(np.int64)) | (np.isnan(out) & np.isnan(plain))
    assert same.all(), [(float(a), float(b), float(c)) for a, b, c in zip(x, out, plain, strict=True) if b != c][:5]


def assert_bound(name: str, x: np.ndarray) -> None:
    errors = [ulp_error(float(y), evaluate(name, float(v))) for v, y in zip(x, compiled(name, x), strict=True)]
    worst = max(range(len(x)), key=errors.__getitem__)
    assert errors[worst] <= elementary.ULP_BOUNDS[name], (name, float(x[worst]), errors[worst])


def test_every_function_has_an_oracle_and_a_bound() -> None:
    assert set(elementary.ULP_BOUNDS) == set(ORACLES)


@pytest.mark.parametrize("name", ORACLES)
def test_error_is_within_its_bound_in_every_binade(name: str) -> None:
    assert_bound(name, systematic_grid(name, busy=24, quiet=1))


@pytest.mark.parametrize("name", ORACLES)
def test_error_is_within_its_bound_on_dense_samples(name: str) -> None:
    assert_bound(name, dense_samples(name, 600))


@pytest.mark.parametrize("name", ORACLES)
def test_error_is_within_its_bound_around_every_threshold(name: str) -> None:
    x = hostile_values()
    assert_bound(name, within(name, x[np.isfinite(x)]))


@pytest.mark.parametrize("name", ORACLES)
def test_plain_python_gives_the_bits_of_the_compiled_loop(name: str) -> None:
    x = hostile_values()
    if name == "log1p_unit":
        x = np.concatenate((within(name, x), [0.0, 1.0, NAN]))
    assert_bits(name, np.concatenate((x, systematic_grid(name, busy=8, quiet=1)[::3], dense_samples(name, 80))))


@pytest.mark.parametrize("name", ORACLES)
@given(data=st.data())
def test_any_float_has_the_same_bits_and_a_bounded_error(name: str, data: st.DataObject) -> None:
    low, high = ORACLES[name].domain
    x = np.array(data.draw(st.lists(st.floats(allow_nan=True), min_size=1, max_size=8)))
    inside = np.array(data.draw(st.lists(st.floats(max(low, -750.0), min(high, 750.0)), min_size=1, max_size=8)))
    if name != "log1p_unit":
        assert_bits(name, x)
    assert_bits(name, inside)
    x = within(name, np.concatenate((x, inside)))
    x = x[np.isfinite(x)]
    if x.size:
        assert_bound(name, x)


SPECIAL_VALUES: dict[str, list[tuple[float, float]]] = {
    "exp": [
        (-INF, 0.0),
        (INF, INF),
        (0.0, 1.0),
        (-0.0, 1.0),
        (-745.1332191019411, 5e-324),
        (-745.2, 0.0),
        (709.782712893385, INF),
        (-1e300, 0.0),
        (1e300, INF),
    ],
    "expm1": [
        (-INF, -1.0),
        (INF, INF),
        (0.0, 0.0),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (-1e-310, -1e-310),
        (709.782712893385, INF),
        (-1e300, -1.0),
    ],
    "log": [
        (0.0, -INF),
        (-0.0, -INF),
        (INF, INF),
        (1.0, 0.0),
        (-5e-324, NAN),
        (-1.0, NAN),
        (-INF, NAN),
        (5e-324, -744.4400719213812),
    ],
    "log1p": [
        (-1.0, -INF),
        (INF, INF),
        (0.0, 0.0),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (-1e-310, -1e-310),
        (-1.0000000000000002, NAN),
        (-INF, NAN),
        (1.7976931348623157e308, 709.782712893384),
    ],
    "log1p_unit": [(0.0, 0.0), (1.0, 0.6931471805599453), (5e-324, 5e-324)],
    "tanh": [(-INF, -1.0), (INF, 1.0), (0.0, 0.0), (-0.0, -0.0), (5e-324, 5e-324), (-1e-310, -1e-310), (1e300, 1.0)],
    "sigmoid": [(-INF, 0.0), (INF, 1.0), (0.0, 0.5), (-0.0, 0.5), (-745.13, 5e-324), (-746.0, 0.0), (40.0, 1.0)],
    "softplus": [
        (-INF, 0.0),
        (INF, INF),
        (0.0, 0.6931471805599453),
        (-745.13, 5e-324),
        (-746.0, 0.0),
        (800.0, 800.0),
        (1.7976931348623157e308, 1.7976931348623157e308),
    ],
    "log_sigmoid": [(-INF, -INF), (INF, -0.0), (0.0, -0.6931471805599453), (745.13, -5e-324), (-800.0, -800.0)],
    "lgamma": [
        (0.0, INF),
        (-0.0, INF),
        (INF, INF),
        (1.0, 0.0),
        (2.0, 0.0),
        (-5e-324, NAN),
        (-1.5, NAN),
        (-INF, NAN),
        (1.7976931348623157e308, INF),
        (5e-324, 744.4400719213812),
    ],
}


@pytest.mark.parametrize("name", ORACLES)
def test_special_values(name: str) -> None:
    x, expected = np.array([*SPECIAL_VALUES[name], (NAN, NAN)]).T.copy()
    out = compiled(name, x)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.signbit(out[~np.isnan(out)]), np.signbit(expected[~np.isnan(expected)]))


def test_tanh_is_odd_and_log_sigmoid_mirrors_softplus_to_the_bit() -> None:
    x = dense_samples("tanh", 500)
    np.testing.assert_array_equal(compiled("tanh", -x), -compiled("tanh", x))
    np.testing.assert_array_equal(compiled("log_sigmoid", -x), -compiled("softplus", x))


def test_far_negative_softplus_and_sigmoid_are_exp() -> None:
    x = -np.geomspace(40.0, 745.2, 500)
    np.testing.assert_array_equal(compiled("softplus", x), compiled("exp", x))
    np.testing.assert_array_equal(compiled("sigmoid", x), compiled("exp", x))


@pytest.mark.parametrize(
    ("computed", "exact", "error"),
    [
        (1.0, mpmath.mpf(1) + mpmath.mpf(2) ** -52, 1.0),
        (1.0, mpmath.mpf(1) - mpmath.mpf(2) ** -53, 1.0),
        (0.0, mpmath.mpf(2) ** -1075, 0.5),
        (5e-324, mpmath.mpf(2) ** -1074, 0.0),
        (INF, mpmath.mpf(2) ** 1024 - mpmath.mpf(2) ** 971, 1.0),
        (INF, mpmath.mpf(2) ** 2000, 0.0),
        (1e-300, mpmath.mpf(0), INF),
        (NAN, mpmath.mpf(1), INF),
    ],
)
def test_the_error_is_counted_in_units_in_the_last_place(computed: float, exact: Any, error: float) -> None:
    assert ulp_error(computed, exact) == error


def test_numbers_of_two_parts_lose_nothing() -> None:
    random = np.random.default_rng(8)
    x = np.concatenate(
        [-random.exponential(3.0, 4000), -random.uniform(0.0, 740.0, 1000), -(2.0 ** random.uniform(-60, 0, 500))]
    )
    # As much as the difference of two larger numbers loses.
    small = x * random.uniform(-1.0, 1.0, len(x)) * 2.0**-52
    t, t_small = np.exp(x), np.exp(x) * random.uniform(-1.0, 1.0, len(x)) * 2.0**-54
    with mpmath.workdps(60):
        exponentials = [
            ulp_error(elementary.exp_of_parts(a, b), mpmath.exp(mpmath.mpf(a) + b))
            for a, b in zip(x.tolist(), small.tolist(), strict=True)
        ]
        logarithms = [
            ulp_error(elementary.log1p_of_parts(a, b), mpmath.log1p(mpmath.mpf(a) + b))
            for a, b in zip((100.0 * t).tolist(), (100.0 * t_small).tolist(), strict=True)
        ]
        sigmoids = []
        for e in t[t > 1e-300].tolist():
            likely, unlikely = elementary.sigmoids(e)
            sigmoids.append(ulp_error(likely, 1 / (1 + mpmath.mpf(e))))
            assert unlikely == e * likely
    assert max(exponentials) <= 1.0
    assert max(logarithms) <= elementary.ULP_BOUNDS["log1p"]
    assert max(sigmoids) <= 0.51


def test_the_script_derives_the_coefficients_that_are_used() -> None:
    with mpmath.workdps(derive_coefficients.DIGITS):
        for polynomial in derive_coefficients.polynomials():
            assert tuple(derive_coefficients.derive(polynomial)[0]) == getattr(elementary, polynomial.name)
        for name, parts in derive_coefficients.constants().items():
            assert parts == (getattr(elementary, f"{name}_HIGH"), getattr(elementary, f"{name}_LOW"))


# ---------------------------------------------------------------------------------------------------------------
# What the loops compile to


def can_pack() -> bool:
    """This machine is one on which packed instructions are asked for: x86-64 with AVX2 and FMA."""
    features = llvm.get_host_cpu_features() if platform.machine() in ("x86_64", "AMD64") else {}
    return bool(features.get("avx2") and features.get("fma"))


needs_avx2 = pytest.mark.skipif(not can_pack(), reason="needs an x86-64 machine with AVX2 and FMA")


def assembly(function: Callable[[float], float]) -> str:
    """Return the assembly of a contiguous float64 loop, compiled anew because a cached kernel keeps none."""
    jit.tell_numba()
    dispatcher = numba.njit(**jit.KERNEL_FLAGS)(make_loop(function))
    dispatcher(np.ones(64), np.empty(64))
    return str(next(iter(dispatcher.inspect_asm().values())))


def count_packed_fma(text: str) -> int:
    return len(re.findall(r"\bvfn?m(?:add|sub)(?:132|213|231)pd\b.*[yz]mm", text))


def libm_calls(text: str) -> set[str]:
    return set(re.findall(rf"(?<![\w.])(?:{LIBM})f?\b(?!:)", text))


def both(x: float) -> float:
    return elementary.softplus(x) * elementary.sigmoid(x)


def libm_exp(x: float) -> float:
    return math.exp(x)


@needs_avx2
@pytest.mark.parametrize("name", ORACLES)
def test_a_loop_is_packed_and_calls_no_libm(name: str) -> None:
    text = assembly(getattr(elementary, name))
    assert count_packed_fma(text) > 0
    assert not libm_calls(text)


@needs_avx2
def test_the_assembly_check_sees_a_libm_call() -> None:
    text = assembly(numba.njit(libm_exp))
    assert count_packed_fma(text) == 0
    assert libm_calls(text) == {"exp"}


@needs_avx2
def test_softplus_and_sigmoid_side_by_side_share_their_exponential() -> None:
    apart = [count_packed_fma(assembly(f)) for f in (elementary.softplus, elementary.sigmoid, elementary.exp)]
    softplus, sigmoid, exp = apart
    assert count_packed_fma(assembly(numba.njit(both))) <= softplus + sigmoid - exp


def describe_loops() -> dict[str, Any]:
    """Return each loop's packed instructions, libm calls and a hash of its results (NaN in one form)."""
    report = {}
    x = np.concatenate((hostile_values(), np.linspace(-750.0, 750.0, 3001), np.geomspace(1e-300, 1e300, 3001)))
    for name in ORACLES:
        text = assembly(getattr(elementary, name))
        out = compiled(name, within(name, x) if name == "log1p_unit" else x)
        out[np.isnan(out)] = NAN
        digest = hashlib.sha256(out.tobytes()).hexdigest()
        report[name] = {"packed": count_packed_fma(text) > 0, "libm": sorted(libm_calls(text)), "digest": digest}
    return report


@needs_avx2
def test_a_machine_with_avx2_alone_packs_too_and_gives_the_same_bits() -> None:
    # Haswell: the least of the machines with AVX2. It has no 64-bit arithmetic shift and no conversion to int64.
    environment = os.environ | {"NUMBA_CPU_NAME": "haswell", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import json; from tests.test_elementary import describe_loops; print(json.dumps(describe_loops()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    assert there == describe_loops()
    assert all(loop["packed"] and not loop["libm"] for loop in there.values())


def test_the_documented_table_states_every_bound() -> None:
    text = (ROOT / "docs" / "elementary.md").read_text()
    rows = {cells[1].strip(" `"): cells for line in text.splitlines() if len(cells := line.split("|")) == 6}
    for name, bound in elementary.ULP_BOUNDS.items():
        measured, stated = (float(cell) for cell in rows[name][3:5])
        assert measured <= stated == bound
