"""A look at this installation: what ``fastloss doctor`` shows."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastloss._version import __version__

LIBRARIES = ("numba", "llvmlite", "numpy", "pyarrow", "polars")
CPU_FEATURES = ("fma", "avx2", "avx512f")

# Labels, logits and their mean log loss, computed with 60 digits and rounded once.
_LABELS = (1, 0, 1, 0, 0, 0, 0)
_LOGITS = (0.8, 0.33, 0.77, 0.66, 0.55, 0.002, 0.213)
_LOG_LOSS = 0.7435545077594143
# Scores on both sides of every branch, ordinary and extreme.
_SCORES = (0.0, 1e-300, 0.25, 1.0, -1e-300, -0.25, -1.0, 40.0, -40.0, 800.0, -800.0)


def examine() -> tuple[str, bool]:
    """Examine the installation.

    Returns
    -------
    report : str
        One line for each finding.
    healthy : bool
        Whether everything that an evaluation needs is there and works.
    """
    findings = [("python", f"{platform.python_version()} on {platform.platform()}"), ("fastloss", __version__)]
    healthy = True
    for library in LIBRARIES:
        try:
            findings.append((library, str(importlib.import_module(library).__version__)))
        except Exception as error:
            findings.append((library, f"cannot be imported: {error}"))
            healthy = False
    for name, look in (("processor", _processor), ("kernel cache", _kernel_cache), ("GPU", _gpu)):
        findings.append((name, _safely(look)))
    try:
        failures = _self_test() if healthy else ["not run, for want of a library"]
    except Exception as error:
        failures = [f"{type(error).__name__}: {error}"]
    findings += [("self-test", failure) for failure in failures] or [("self-test", "passed")]
    lines = [f"{name:<12}  {' '.join(text.split())}" for name, text in findings]
    return "\n".join(lines), healthy and not failures


def _safely(look: Callable[[], str]) -> str:
    """Return what was found, or why nothing was: a broken driver must not end the examination."""
    try:
        return look()
    except Exception as error:
        return f"unknown: {type(error).__name__}: {error}"


def _processor() -> str:
    from llvmlite import binding

    from fastloss.budget import available_cpus

    features = binding.get_host_cpu_features()
    present = [feature for feature in CPU_FEATURES if features.get(feature)] or ["none"]
    cores, threads = os.cpu_count() or 1, available_cpus()
    return (
        f"{binding.get_host_cpu_name()}; {cores} cores, {threads} of them for this process (reader threads); "
        f"{' '.join(present)} of {' '.join(CPU_FEATURES)}"
    )


def _kernel_cache() -> str:
    from fastloss_kernels.jit import cache_folder

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = cache_folder()
    if folder is None:
        return str(caught[0].message) if caught else "not writable: kernels are compiled anew in every run"
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return f"{folder}, writable; {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes"


def _gpu() -> str:
    installed = importlib.util.find_spec("numba_cuda") is not None
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        driver = True
    except OSError:
        driver = False
    if not (installed and driver):
        missing = [*([] if installed else ["numba-cuda is not installed"]), *([] if driver else ["no NVIDIA driver"])]
        return f"not found ({', '.join(missing)}); not needed"
    cuda: Any = importlib.import_module("numba.cuda")
    if not cuda.is_available():
        return "not found (the NVIDIA driver reports none); not needed"
    name = cuda.get_current_device().name
    return f"found: {name.decode() if isinstance(name, bytes) else name}; this version evaluates on the CPU"


def _self_test() -> list[str]:
    """Evaluate a log whose answer is known, and compare its kernel with the formula run as plain Python."""
    import numpy as np
    import pyarrow as pa

    from fastloss.api import evaluate
    from fastloss_kernels.losses import BinaryCrossentropy

    failures = []
    log = pa.table({"label": pa.array(_LABELS, pa.int8()), "logit": pa.array(_LOGITS)})
    found = evaluate(log, label="label", logit="logit", metrics="log_loss", threads=1)["log_loss"]
    # One unit in the last place: the logits are the nearest doubles of the decimal numbers.
    if not isinstance(found, float) or abs(found - _LOG_LOSS) > math.ulp(_LOG_LOSS):
        failures.append(f"log loss of a known log is {found!r}, not {_LOG_LOSS!r}")
    loss = BinaryCrossentropy()
    cases = [(label, score) for label in (0.0, 0.25, 1.0) for score in _SCORES]
    labels, scores = np.array(cases).T
    for (label, score), compiled in zip(cases, loss(labels, logit=scores).tolist(), strict=True):
        plain = loss.formulas["logit"](score, label, loss.parameters("logit"))[0]
        if compiled != plain:
            failures.append(f"{loss.name} of logit {score!r}, label {label!r}: {compiled!r}, not {plain!r}")
            break
    return failures
