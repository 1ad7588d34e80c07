"""What the README shows is what the code prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import fastloss as fl

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks_of(heading: str) -> list[str]:
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```(?:python)?\n(.*?)```", section, flags=re.DOTALL)


def test_lists_of_candidates() -> None:
    code, printed = blocks_of("Lists of candidates")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert out.getvalue() == printed


def test_the_table_of_presets() -> None:
    rows = re.findall(r"^\| (?:preset|`log_loss`) \|(.*)\|$", README, flags=re.MULTILINE)
    presets, values = ([cell.split()[0] for cell in row.split("|")] for row in rows)
    log = pa.table({"click": [1, 0, 1, 0], "p": [0.9, 0.2, 0.0, 1e-9]})
    for preset, value in zip(presets, values, strict=True):
        found = fl.evaluate(
            log, label="click", prob="p", metrics="log_loss", preset=None if preset == "none" else preset
        )
        assert found["log_loss"] == pytest.approx(float(value), rel=1e-5)


def test_an_own_loss() -> None:
    (code,) = blocks_of("Your own loss")
    y, p = np.array([1.0, 2.0]), np.array([0.0, 3.0])
    names = {"fl": fl, "y": y, "p": p}
    exec(code.replace('"logs/"', "log"), {**names, "log": pa.table({"y": y, "p": p})}, names)
    assert names["gradient"].tolist() == [-4.0, 2.0]
    assert names["hessian"].tolist() == [4.0, 2.0]
