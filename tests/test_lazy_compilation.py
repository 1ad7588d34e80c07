"""Kernels compile when they are first called: evaluating one loss compiles its formula alone, of all losses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Numba makes a dispatcher of every function that it compiles, kernel or formula; those that have compiled something
# hold an overload. Formulas are told from each other by identity: many of them have the same name.
PROGRAM = """
import gc, json, sys, tempfile
import pyarrow as pa
import pyarrow.parquet as pq
import fastloss
from fastloss import losses
from numba.core.dispatcher import Dispatcher

written, space, action = sys.argv[1:]
loss = eval(written, vars(losses))
is_list = isinstance(loss, losses.ListwiseLoss)
labels, scores = [0.0, 1.0, 1.0], [0.25, 0.5, 0.75]
log = pa.table({"y": [labels] if is_list else labels, "s": [scores] if is_list else scores})
if action == "evaluate":
    fastloss.evaluate(log, label="y", metrics=[loss], **{space: "s"})
elif action == "score":
    with tempfile.TemporaryDirectory() as folder:
        fastloss.score(log, folder + "/out.parquet", label="y", loss=loss, **{space: "s"})
else:
    loss(log["y"], **{space: log["s"]})

from fastloss_kernels.losses import LOSSES
formulas = {}
for other in [*(kind() for kind in LOSSES), loss]:
    for kind in ("formulas", "saturated"):
        for where, formula in getattr(other, kind).items():
            formulas.setdefault(formula, []).append([other.name, kind, where])
own = {loss.formulas[space], loss.saturated.get(space)}
compiled = {d.py_func for d in gc.get_objects() if isinstance(d, Dispatcher) and d.overloads}
print(json.dumps({
    "known": len(formulas),
    "own": loss.formulas[space] in compiled,
    "others": [formulas[formula] for formula in compiled & (formulas.keys() - own)],
    "modules": sorted({f.__module__ for f in compiled if f.__module__.startswith("fastloss_kernels.losses.")}),
}))
"""


@pytest.mark.parametrize(
    ("loss", "space", "action", "module"),
    [
        ("BinaryCrossentropy()", "logit", "evaluate", "binary_crossentropy"),
        pytest.param("BinaryCrossentropy()", "prob", "score", "binary_crossentropy", marks=pytest.mark.slow),
        ("Huber()", "value", "call", "huber"),
        # Its formulas are made by `fastloss_kernels.listwise.softmax`.
        ("CategoricalCrossentropy()", "logit", "evaluate", None),
        pytest.param(
            "MultiPositiveCrossentropy(form='mass')",
            "logit",
            "evaluate",
            "multi_positive_crossentropy",
            marks=pytest.mark.slow,
        ),
        ("MultiPositiveCrossentropy(form='mass')", "prob", "score", "multi_positive_crossentropy"),
    ],
)
def test_one_loss_compiles_alone(tmp_path: Path, loss: str, space: str, action: str, module: str | None) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, loss, space, action],
        env={**os.environ, "FASTLOSS_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["own"]
    assert found["known"] > 50
    assert found["others"] == []
    assert found["modules"] == ([] if module is None else [f"fastloss_kernels.losses.{module}"])
