"""The cases of `benchmarks.kernels` under pytest-benchmark.

python -m pytest -n 0 --benchmark-enable benchmarks/test_kernels.py
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.kernels import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}, {case.name}")
def test_kernel(benchmark: Any, case: Case) -> None:
    if not case.is_installed:
        pytest.skip(f"{case.needs} is not installed")
    run, check = case.make()
    check()
    benchmark.group = case.group
    benchmark(run)
    if benchmark.stats is not None:
        benchmark.extra_info["rows_per_second"] = case.rows / benchmark.stats.stats.min
