"""The demo: a log like a real one, the command that evaluates it, and the table."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastloss.cli import main
from fastloss.demo import make_log, run_demo, write_log
from fastloss.errors import UsageError


def test_the_log_is_several_files_of_several_row_groups(tmp_path: Path) -> None:
    files = write_log(tmp_path, 3_001)
    read = [pq.ParquetFile(path) for path in files]
    assert len(files) == 4
    assert all(file.num_row_groups == 3 for file in read)
    assert sum(file.metadata.num_rows for file in read) == 3_001


def test_the_log_is_the_same_every_time_and_has_nulls_where_logs_have_them() -> None:
    log = make_log(20_000)
    assert log.equals(make_log(20_000))
    nulls = {name: log[name].null_count for name in log.column_names}
    assert all(0 < nulls.pop(name) < 500 for name in ("click", "score_a", "score_b", "p_a", "p_b", "country"))
    assert set(nulls.values()) == {0}


def test_model_b_is_calibrated_and_the_better_one() -> None:
    # Computed here by the definition, not by the library.
    log = make_log(50_000).drop_null()
    click, weight = log["click"].to_numpy(), log["weight"].to_numpy().astype(float)
    loss, calibration = {}, {}
    for model in "ab":
        logit = log[f"score_{model}"].to_numpy().astype(float)
        loss[model] = np.average(np.logaddexp(0.0, np.where(click, -logit, logit)), weights=weight)
        calibration[model] = weight @ (1.0 / (1.0 + np.exp(-logit))) / (weight @ click)
    assert loss["b"] < loss["a"]
    assert calibration["b"] == pytest.approx(1.0, abs=0.05)
    assert calibration["a"] > 1.1


def test_the_command_that_it_prints_gives_the_same_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a log"
    assert main(["demo", "--folder", str(folder), "--rows", "2000"]) == 0
    shown, err = capsys.readouterr()
    assert err == ""
    command = re.search(r"^  fastloss (.+)$", shown, re.MULTILINE)
    assert command is not None
    words = shlex.split(command[1])
    assert main(words) == 0
    table = capsys.readouterr().out
    assert shown.endswith("\n\n" + table)
    assert "2,000 rows read from 4 files" in table
    assert main([*words, "--format", "json"]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert {value["model"] for value in values} == {"a", "b"}


def test_a_temporary_folder_is_removed() -> None:
    shown = run_demo(None, 100)
    folder = re.search(r"below (.+)\.$", shown, re.MULTILINE)
    assert folder is not None
    assert not Path(folder[1]).exists()
    assert "--folder" in shown.splitlines()[-1]


def test_a_single_row_is_enough() -> None:
    assert "1 row read" in run_demo(None, 1)


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UsageError, match="not an empty folder"):
            run_demo(folder, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
