"""The command line: what it prints where, its exit statuses, and one readable line for everything that goes wrong."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss
from fastloss import api, doctor
from fastloss.cli import main
from fastloss.report.losses import entries, render_markdown
from fastloss.report.progress import progress_bar
from fastloss.report.table import render
from fastloss.scan import Progress

ROOT = Path(__file__).parents[1]
BASE = ("--label", "click", "--logit", "score")

Run = Callable[..., tuple[int, str, str]]


def log_columns() -> dict[str, Any]:
    return {
        "click": pa.array([1, 0, 1, 0, None, 0, 0, 1], pa.int8()),
        "score": pa.array([0.8, 0.33, 0.77, 0.66, 0.1, 0.55, None, 0.002], pa.float32()),
        "score_b": pa.array([2.0, -1.0, 1.5, -0.5, 0.0, -2.0, -1.0, 0.5], pa.float64()),
        "p": pa.array([0.8, 0.33, 0.77, 0.66, 0.1, 0.55, 0.2, 1.0], pa.float64()),
        "weight": pa.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 1.0, 1.0]),
        "country": pa.array(["DE", "FR", None, "DE", "FR", "", "DE", "FR"]),
        "device": pa.array(["phone", "phone", "tablet", "tablet", "phone", "phone", "tablet", "phone"]),
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a folder of two files, the same eight rows in each, in row groups of three."""
    folder = tmp_path / "log"
    folder.mkdir()
    for name in ("one", "two"):
        pq.write_table(pa.table(log_columns()), folder / f"{name}.parquet", row_group_size=3)
    return folder


def write(path: Path, **columns: Any) -> Path:
    """Write the usual columns with some of them replaced."""
    pq.write_table(pa.table(log_columns() | columns), path)
    return path


# ---------------------------------------------------------------------------------------------------------------
# Results


def test_json_on_stdout_is_the_result_of_the_api(run: Run, log: Path) -> None:
    status, out, err = run(
        "eval", log, *BASE, "--logit", "b=score_b", "--weight", "weight", "--by", "country", "--by", "country,device",
        "-m", "log_loss(label_smoothing=0.1),ne", "-m", "ctr", "--threads", "1", "--format", "json",
    )  # fmt: skip
    expected = fastloss.evaluate(
        str(log),
        label="click",
        logit={"score": "score", "b": "score_b"},
        weight="weight",
        by=["country", ("country", "device")],
        metrics=["log_loss(label_smoothing=0.1)", "normalized_entropy", "ctr"],
    )
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(expected.to_json())
    assert json.loads(out)["schema_version"] == 1


@pytest.mark.parametrize(
    ("space", "column", "metric"),
    [("prob", "p", "log_loss"), ("margin", "score", "hinge"), ("value", "p", "mse"), ("logit", "score", "brier")],
)
def test_each_space_has_its_option(run: Run, log: Path, space: str, column: str, metric: str) -> None:
    status, out, _ = run("eval", log, "--label", "click", f"--{space}", column, "-m", metric, "--format", "json")
    plan = json.loads(out)["plan"]
    assert status == 0
    assert plan["models"] == {column: {space: column}}


def test_a_preset_and_a_reduction_are_options_and_are_named(run: Run, log: Path) -> None:
    words = ["eval", log, "--label", "click", "--prob", "p", "--weight", "weight", "-m", "log_loss"]
    options = ["--preset", "torchrec", "--reduction", "sum"]
    status, out, err = run(*words, *options, "--format", "json")
    expected = fastloss.evaluate(
        str(log),
        label="click",
        prob="p",
        weight="weight",
        metrics=["log_loss"],
        preset="torchrec",
        reduction="sum",
    )
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(expected.to_json())
    assert json.loads(out)["plan"] | {"preset": "torchrec", "reduction": "sum"} == json.loads(out)["plan"]
    status, out, _ = run(*words, *options)
    assert "preset torchrec: probabilities are clipped to 1e-12 and 1 - 1e-12\nreduction sum: Σw·l (log_loss)" in out
    assert "unit bits: log_loss" in out
    assert "reduction sum, preset torchrec" in run("plan", *words[1:], *options)[1]
    # The mean is what is done anyway.
    plain, mean = (json.loads(run(*words, *more, "--format", "json")[1]) for more in ([], ["--reduction", "mean"]))
    assert plain == mean
    assert not {"preset", "reduction"} & plain["plan"].keys()


def test_no_reduction_is_scoring(fails: Any, log: Path) -> None:
    assert "sum_by_nonzero_weights" in fails("eval", log, *BASE, "--reduction", "none")


def test_arrow_goes_to_a_pipe_as_a_stream_and_to_a_file_as_a_file(
    capfdbinary: pytest.CaptureFixture[bytes], log: Path, tmp_path: Path
) -> None:
    expected = fastloss.evaluate(str(log), label="click", logit="score", by=["country"]).to_arrow()
    words = ["eval", str(log), *BASE, "--by", "country", "--format", "arrow"]
    assert main(words) == 0
    assert pa.ipc.open_stream(capfdbinary.readouterr().out).read_all().equals(expected)
    assert main([*words, "-o", str(tmp_path / "result.arrow")]) == 0
    assert capfdbinary.readouterr().out == b""
    assert pa.ipc.open_file(tmp_path / "result.arrow").read_all().equals(expected)


def test_arrow_does_not_go_to_a_terminal(fails: Any, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert "terminal" in fails("eval", log, *BASE, "--format", "arrow")


def test_output_replaces_a_file_whole(run: Run, log: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "result.json"
    target.parent.mkdir()
    target.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(target)
    assert run("eval", log, *BASE, "--format", "json", "-o", link) == (0, "", "")
    assert json.loads(target.read_text())["rows"]["read"] == 16
    assert link.is_symlink()
    assert os.listdir(target.parent) == ["result.json"]


@pytest.mark.parametrize("ending", ["txt", "csv", "json", "arrow", "parquet"])
def test_output_leaves_nothing_behind_when_the_disk_is_full(
    fails: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    class FullFile(io.BufferedWriter):
        def write(self, content: Any) -> int:
            super().write(bytes(content)[:5])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "out" / f"result.{ending}"
    target.parent.mkdir()
    target.write_text("old")
    plain_open = Path.open

    def open_file(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return FullFile(io.FileIO(path, mode)) if mode == "wb" else plain_open(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", open_file)
    assert "No space left on device" in fails("eval", log, *BASE, "-o", target)
    monkeypatch.undo()
    assert os.listdir(target.parent) == [f"result.{ending}"]
    assert target.read_text() == "old"


@pytest.mark.parametrize(("output", "message"), [("no/such.json", "does not exist"), (".", "is a folder")])
def test_output_is_checked_before_the_log(fails: Any, tmp_path: Path, output: str, message: str) -> None:
    assert message in fails("eval", tmp_path / "no log", *BASE, "-o", tmp_path / output)


@pytest.mark.parametrize("ending", ["txt", "md", "csv", "json", "arrow", "parquet"])
def test_output_is_written_in_the_format_of_its_ending(run: Run, log: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"result.{ending}"
    assert run("eval", log, *BASE, "-m", "log_loss", "--by", "country", "-o", path) == (0, "", "")
    result = fastloss.evaluate(str(log), label="click", logit="score", metrics="log_loss", by="country")
    expected = {"txt": f"{result}\n", "md": result.to_markdown(), "csv": result.to_csv()}
    if ending in expected:
        assert path.read_text() == expected[ending]
    elif ending == "json":
        assert json.loads(path.read_text()) == json.loads(result.to_json())
    else:
        read = pq.read_table if ending == "parquet" else lambda path: pa.ipc.open_file(path).read_all()
        assert read(path).equals(result.to_arrow())


def test_output_of_another_ending_is_refused_before_the_log_is_read(fails: Any, tmp_path: Path) -> None:
    message = fails("eval", tmp_path / "no log", *BASE, "-o", tmp_path / "result.xlsx")
    assert "ends in .xlsx; allowed: .txt, .json, .arrow, .parquet, .csv, .md" in message
    message = fails("eval", tmp_path / "no log", *BASE, "-o", tmp_path / "result.csv", "--format", "json")
    assert "--format is json, and --output ends in .csv" in message
    assert "a plan is written as table or json" in fails("plan", tmp_path / "no log", *BASE, "-o", tmp_path / "p.csv")


def test_a_dash_is_stdout(run: Run, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("eval", log, *BASE, "-o", "-") == run("eval", log, *BASE)
    assert json.loads(run("eval", log, *BASE, "-o", "-", "--format", "json")[1])["rows"]["read"] == 16
    assert os.listdir(tmp_path) == ["log"]


def test_a_table_on_stdout_is_short_and_a_file_has_all(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    keys_of_rows = [*(k % 60 for k in range(119)), 7]
    pq.write_table(pa.table({"y": [0, 1, 0] * 40, "x": [k / 100 for k in range(120)], "k": keys_of_rows}), path)
    words = ["eval", path, "--label", "y", "--logit", "x", "-m", "log_loss", "--by", "k"]

    def keys(*options: object) -> list[str]:
        out = run(*words, *options)[1]
        return [line.split()[0] for line in out.partition("\nk ")[2].splitlines()[1:] if line[0].isdigit()]

    assert len(keys()) == 50
    assert keys("--slices", "all") == [str(k) for k in range(60)]
    assert keys("--slices", "1") == ["7"]
    assert keys("--slices", "2", "--sort", "n") == ["7", "0"]
    assert keys("--top", "2", "--sort", "n") == ["7", "0"]
    assert keys("--min-rows", "3") == ["7"]
    assert "59 slices of fewer rows left out" in run(*words, "--min-rows", "3")[1]
    assert run(*words, "-o", tmp_path / "all.txt")[0] == 0
    assert "slices;" not in (tmp_path / "all.txt").read_text()
    assert re.search(r"^59 +1 ", (tmp_path / "all.txt").read_text(), re.MULTILINE)
    values = json.loads(run(*words, "--format", "json", "--slices", "1", "--sort", "log_loss")[1])["values"]
    everything = json.loads(run(*words, "--format", "json")[1])["values"]
    assert len(everything) == 61
    assert values == [everything[0], max(everything[1:], key=lambda value: value["value"])]


def test_choices_of_slices_are_checked_before_the_log_is_read(
    fails: Any, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "run_plan", lambda *_: pytest.fail("the log was read"))
    assert "sorted by hinge" in fails("eval", log, *BASE, "--sort", "hinge")
    assert "--slices is -1" in fails("eval", log, *BASE, "--slices", "-1")
    assert "the format is json" in fails("eval", log, *BASE, "--wide", "--format", "json")
    assert "--slices" in fails("eval", log, *BASE, "--slices", "some")


def test_a_column_whose_name_holds_a_comma_is_a_slice(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", **{"a,b": pa.array(list("xyxyxyxy"))})
    words = ["eval", path, *BASE, "-m", "log_loss", "--format", "json"]
    values = json.loads(run(*words, "--by", '"a,b", device', "--by", '"a,b"')[1])["values"]
    assert {tuple(value["slice"]) for value in values} == {(), ("a,b", "device"), ("a,b",)}
    assert 'write COLUMN, COLUMN,COLUMN or "A,B",COLUMN' in run(*words, "--by", '"a,b')[2]


@pytest.mark.parametrize("command", ["eval", "plan"])
@pytest.mark.parametrize("alias", ["itself", "another way", "hard link", "symbolic link", "linked folder"])
@pytest.mark.parametrize("given", ["file", "folder", "glob"])
def test_output_never_takes_the_place_of_the_log(
    fails: Any, log: Path, tmp_path: Path, command: str, alias: str, given: str
) -> None:
    file = log / "two.parquet"
    before = file.read_bytes()
    output = {
        "itself": file,
        "another way": log / ".." / "log" / "two.parquet",
        "hard link": tmp_path / "hard.json",
        "symbolic link": tmp_path / "symbolic.json",
        "linked folder": tmp_path / "linked" / "two.parquet",
    }[alias]
    os.link(file, tmp_path / "hard.json")
    (tmp_path / "symbolic.json").symlink_to(file)
    (tmp_path / "linked").symlink_to(log)
    words = {"file": file, "folder": log, "glob": log / "t*.parquet"}[given]
    assert f"is the log's own file {str(file)!r}" in fails(command, words, *BASE, "-o", output)
    assert file.read_bytes() == before
    assert sorted(os.listdir(log)) == ["one.parquet", "two.parquet"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (".", "r.parquet"),
        (".", "day=1/r.pq"),
        ("*", "r.json"),
        ("**/*.parquet", "day=1/r.parquet"),
        ("day*", "day=1/r.pq"),
    ],
)
def test_output_never_becomes_a_part_of_the_log(fails: Any, log: Path, given: str, name: str) -> None:
    (log / "day=1").mkdir()
    write(log / "day=1" / "three.parquet")
    assert "would be part of the log" in fails("eval", log / given, *BASE, "-o", log / name)
    assert not (log / name).exists()


@pytest.mark.parametrize(
    ("given", "name"), [(".", "r.json"), (".", ".r.parquet"), (".", "_r/r.parquet"), ("*.parquet", "r.json")]
)
def test_output_may_lie_beside_the_log(run: Run, log: Path, given: str, name: str) -> None:
    (log / "_r").mkdir()
    for _ in range(2):
        assert run("eval", log / given, *BASE, "-m", "log_loss", "-o", log / name) == (0, "", "")
        table = pq.read_table(log / name).to_pylist() if name.endswith(".parquet") else None
        values = json.loads((log / name).read_text())["values"] if table is None else table
        assert [value["n"] for value in values] == [12]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_to_a_device_is_written_in_place(fails: Any, log: Path) -> None:
    assert "No space left on device" in fails("eval", log, *BASE, "-o", "/dev/full")
    assert not os.path.isfile("/dev/full")


def test_output_to_a_pipe_under_a_name(log: Path) -> None:
    done = start("-m", "fastloss", "eval", log, *BASE, "--format", "json", "-o", "/dev/stdout")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rows"]["read"] == 16


def test_plan_shows_what_would_be_read_and_reads_no_row(
    run: Run, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "run_plan", lambda *_: pytest.fail("plan evaluated the log"))
    options = [*BASE, "--logit", "b=score_b", "--weight", "weight", "--by", "country,device", "--threads", "3"]
    status, out, err = run("plan", log, *options, "--fail-if", "log_loss > 1", "--format", "json")
    assert (status, err) == (0, "")
    plan = json.loads(out)
    assert (plan["files"], plan["row_groups"], plan["tasks"], plan["rows"], plan["threads"]) == (2, 6, 6, 16, 3)
    assert {c["name"]: c["roles"] for c in plan["columns"]} == {
        "click": ["label"],
        "score": ["logit of score"],
        "score_b": ["logit of b"],
        "weight": ["weight"],
        "country": ["slice key"],
        "device": ["slice key"],
    }
    assert 0 < plan["memory_bound"] <= plan["memory"] == 512 << 20

    status, out, err = run("plan", log, *options, "-o", tmp_path / "plan.txt")
    assert (status, out, err) == (0, "", "")
    text = (tmp_path / "plan.txt").read_text()
    for part in (
        "2 files, 6 row groups, 16 rows",
        "country × device",
        "score_b",
        "float",
        plan["plan"]["fingerprint"],
    ):
        assert part in text


def test_plan_and_eval_share_the_fingerprint(run: Run, log: Path) -> None:
    plans = [json.loads(run(command, log, *BASE, "--format", "json")[1])["plan"] for command in ("plan", "eval")]
    assert plans[0] == plans[1]


# ---------------------------------------------------------------------------------------------------------------
# Gates


@pytest.mark.parametrize(
    ("gate", "fails_of"),
    [
        ("log_loss > 0.5", ["score"]),
        ("log_loss>=0.25", ["score", "b"]),
        ("binary_crossentropy < 0.5", ["b"]),
        ("ctr <= 0.1", []),
        ("log_loss > 1e9", []),
    ],
)
def test_gates_hold_for_every_model(run: Run, log: Path, gate: str, fails_of: list[str]) -> None:
    words = ("eval", log, *BASE, "--logit", "b=score_b", "-m", "log_loss,ctr", "--fail-if", gate)
    status, out, err = run(*words)
    assert status == (1 if fails_of else 0)
    assert re.findall(r"of (\w+) is", err) == fails_of
    assert err.count("\n") == len(fails_of)
    assert out.startswith("16 rows read")


def test_a_gate_on_a_null_value_fails(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "one_class.parquet", click=pa.array([0] * 8, pa.int8()))
    status, _, err = run("eval", path, *BASE, "--fail-if", "normalized_entropy > 2", "--fail-if", "log_loss > 99")
    assert status == 1
    assert err == "fastloss: gate 'normalized_entropy > 2' failed: normalized_entropy of score is null (one_class)\n"


TWO = ("--logit", "b=score_b", "-m", "log_loss,log_loss(label_smoothing=0.1),ctr", "--by", "country", "--by", "device")


@pytest.mark.parametrize(
    ("gate", "failures"),
    [
        ("score: log_loss > 0.5", ["log_loss of score is 0.7"]),
        ("b: log_loss > 0.5", []),
        ("b.log_loss < score.log_loss", ["log_loss of b is 0.2", "log_loss of score is 0.7"]),
        ("b.log_loss > score.log_loss", []),
        ("0.5 < log_loss", ["log_loss of score is 0.7"]),
        ("log_loss(label_smoothing=0.1) > log_loss", ["log_loss(label_smoothing=0.1) of b is 0.3"]),
        ("n < 13", ["n of score is 12"]),
        ("b: n < 13", []),
        ("weight <= 12", ["weight of score is 12.0"]),
        ("country=DE: n < 6", ["at country DE: n of score is 4"]),
        ("country=DE, b: n < 6", []),
        ("country=null: ctr >= 1", ["at country null: ctr of score is 1.0", "at country null: ctr of b is 1.0"]),
        ("device=*: n < 6", ["at device tablet: n of score is 4"]),
        ("country=XX: n < 1", ["there is no such slice"]),
    ],
)
def test_gates_on_models_slices_and_rows(run: Run, log: Path, gate: str, failures: list[str]) -> None:
    status, out, err = run("eval", log, *BASE, *TWO, "--fail-if", gate)
    assert status == (1 if failures else 0)
    assert out.startswith("16 rows read")
    for failure in failures:
        assert failure in err
    assert (err == "") == (not failures)


def test_a_gate_says_where_bounds_do_not_decide(run: Run, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    columns = {"click": generator.integers(0, 2, 140_000), "score": generator.normal(size=140_000)}
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({**columns, "country": ["DE", "US"] * 70_000}), path)
    words = ("eval", path, "--label", "click", "--logit", "score", "-m", "roc_auc,ctr", "--by", "country")
    found = fastloss.evaluate(path, label="click", logit="score", metrics="roc_auc").values[0]
    low, high, value = found.evidence["low"], found.evidence["high"], found.value
    assert low < value < high
    for gate, status in ((f"roc_auc < {low!r}", 0), (f"roc_auc > {high!r}", 0), (f"{high!r} >= roc_auc", 1)):
        assert run(*words, "--fail-if", gate)[0] == status
    for gate in (f"roc_auc < {low!r}", f"roc_auc > {high!r}", "ctr > 0.9", "n < 5", "country=DE: roc_auc < 0.1"):
        err = run(*words, "--fail-if", gate)[2]
        assert "by the value alone" not in err
    passed = run(*words, "--fail-if", f"roc_auc < {(low + value) / 2!r}")
    assert passed[0] == 0
    assert passed[2].count("\n") == 1
    for said in ("is decided by the value alone", f"roc_auc of score is {value!r}", f"from {low!r} to {high!r}"):
        assert said in passed[2]
    failed = run(*words, "--fail-if", f"roc_auc < {(high + value) / 2!r}")
    assert failed[0] == 1
    assert failed[2].count("\n") == 2
    assert "by the value alone" in failed[2]


@pytest.mark.parametrize(("limit", "fails_of"), [("25%", []), ("24%", ["score"]), ("0", ["score", "b"]), ("4", [])])
def test_a_limit_of_dropped_rows(run: Run, log: Path, limit: str, fails_of: list[str]) -> None:
    status, _, err = run("eval", log, *BASE, *TWO, "--max-dropped", limit)
    assert status == (1 if fails_of else 0)
    assert re.findall(r"of 16 rows of (\w+)", err) == fails_of


def test_rows_of_weight_0_are_not_dropped(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", weight=pa.array([0.0, 0, 0, 1, 1, 1, 1, 1]))
    words = ("eval", path, *BASE, "--weight", "weight")
    assert run(*words, "--max-dropped", "2")[0] == 0
    assert run(*words, "--max-dropped", "1")[2] == "fastloss: gate --max-dropped 1 failed: 2 of 8 rows\n"


@pytest.mark.parametrize("limit", ["-1", "nan", "much", "1%%", "inf"])
def test_a_limit_of_dropped_rows_is_a_number(fails: Any, log: Path, limit: str) -> None:
    assert "a number of rows such as 1000, or a share such as 1%" in fails("eval", log, *BASE, "--max-dropped", limit)


def test_thousands_of_failures_are_said_in_a_few_lines(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"y": [0, 1] * 50, "x": [0.5] * 100, "k": list(range(100))}), path)
    words = ("eval", path, "--label", "y", "--logit", "x", "-m", "log_loss", "--by", "k")
    status, _, err = run(*words, "--fail-if", "k=*: n < 2")
    assert status == 1
    assert len(err.splitlines()) == 21
    assert err.splitlines()[-1] == "fastloss: 80 more failures of gates"


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("log_loss", "METRIC > NUMBER"),
        ("1 > 2", "METRIC > NUMBER"),
        ("log_loss > 1 > 2", "METRIC > NUMBER"),
        ("c: log_loss > 1", "names 'c'. Known: 'score'"),
        ("country=DE: log_loss > 1", "names a slice by country; there are slices by: none"),
        ("log_loss > much", "No metric or loss is called 'much'"),
        ("log_loss > nan", "METRIC > NUMBER"),
        ("> 1", "METRIC > NUMBER"),
        ("lag_loss > 1", "Did you mean 'log_loss'"),
        ("hinge > 1", "not computed"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "plan"])
def test_a_gate_that_cannot_hold_is_refused(fails: Any, log: Path, command: str, gate: str, message: str) -> None:
    assert message in fails(command, log, *BASE, "--fail-if", gate)


# ---------------------------------------------------------------------------------------------------------------
# Bad requests and bad logs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evil"], 'Did you mean "eval"'),
        (["evil"], "See fastloss --help."),
        (["eval", "log", *BASE, "--bogus", "1"], "--bogus"),
        (["eval", "log", *BASE, "--bogus", "1"], "See fastloss eval --help."),
        (["losses", "ace"], "There is no metric 'ace' (yet). What comes near: 'expected_calibration_error'"),
        (["eval", "log", "--logit", "score"], "A label column is needed: --label COLUMN. See fastloss eval --help."),
        (["eval", *BASE], "No log was given"),
        (["eval", "log", *BASE, "--format", "jason"], "json"),
        (["eval", "log", *BASE, "--threads", "many"], "--threads"),
        (["plan", "log", *BASE, "--format", "arrow"], "json"),
        (["eval", "log", *BASE, "--logit", "=score"], "NAME=COLUMN"),
        (["eval", "log", *BASE, "--logit", "b="], "NAME=COLUMN"),
        (["eval", "log", *BASE, "--logit", "score=score_b"], "Two predictions"),
        (["losses", "log_lass"], "Did you mean 'log_loss'"),
        (["demo", "--rows", "0"], "--rows is 0"),
    ],
)
def test_words_that_mean_nothing(fails: Any, words: list[str], message: str) -> None:
    assert message in fails(*words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "clik", "--logit", "score"], "Did you mean 'click'"),
        (["--label", "click", "--logit", "scores"], "'score_b'"),
        ([*BASE, "--weight", "wait"], "Did you mean 'weight'"),
        ([*BASE, "--by", "county"], "Did you mean 'country'"),
        (["--label", "country", "--logit", "score"], "has type string"),
        ([*BASE, "--by", "score"], "has type float"),
        ([*BASE, "-m", "log_lass"], "Did you mean 'log_loss'"),
        ([*BASE, "-m", "ACE"], "What comes near: 'expected_calibration_error'."),
        ([*BASE, "-m", "uauc"], "What comes near: \"gauc(weighting='uniform')\""),
        ([*BASE, "-m", "gauc"], "name the column that tells which rows are a list, such as group='request_id'"),
        ([*BASE, "-m", "auprc"], "What comes near: 'average_precision'."),
        ([*BASE, "-m", "brier_decomposition"], 'What comes near: "miscalibration(loss=\'brier_score\')", "disc'),
        ([*BASE, "-m", "lift@nan"], "behind @ stands a number, such as lift@0.05 or mrr@10."),
        ([*BASE, "-m", "accuracy"], "What comes near: 'zero_one', 'f1', 'precision', 'recall'."),
        ([*BASE, "-m", "n"], "'n' is no metric: every value comes with it, as n."),
        *(
            ([*BASE, "-m", given], f"No metric or loss is called {given!r}. Did you mean {meant!r}?")
            for given, meant in {
                "ndcg10": "ndcg@10",
                "ndcg_10": "ndcg@10",
                "ndcg_at_10": "ndcg@10",
                "ndcg_exp2_10": "ndcg_exp2@10",
                "map_at_10": "map@10",
                "precision_at_5": "precision@5",
                "recall_at_20": "recall@20",
                "hitrate@10": "hit_rate@10",
                "success@1": "hit_rate@1",
                "p@5": "precision@5",
                "r@5": "recall@5",
                "NDCG@10": "ndcg@10",
                "MAP@5": "map@5",
                "ERR@20": "err@20",
                "GAUC": "gauc",
                "LogLoss": "log_loss",
            }.items()
        ),
        ([*BASE, "-m", "ap@10"], "ap has no k behind @: it is of rows. Of the first k of each list it is 'map@k'."),
        ([*BASE, "-m", "gauc@5"], "its parameters are in parentheses: weighting, drop_constant, one_class."),
        ([*BASE, "-m", "auc@5"], "its parameters are in parentheses: exact, most_scores."),
        ([*BASE, "-m", "ctr@5"], "ctr takes no parameters, and none behind @; write 'ctr'."),
        ([*BASE, "-m", "precision@0.5"], "such as precision@10; a threshold is written precision(threshold=0.5)."),
        ([*BASE, "-m", "precision@5.0"], "precision@5.0: k, behind @, is a whole number, such as precision@5;"),
        ([*BASE, "-m", "ndcg@10.5"], "ndcg@10.5: k, behind @, is a whole number, such as ndcg@10."),
        (
            [*BASE, "-m", "ndcg(group=user)"],
            "Name the metric 'ndcg', and the key by group='user', on the command line",
        ),
        (
            [*BASE, "-m", "gauc(group=user)"],
            "gauc has no parameter 'group': where there are several group keys, a res",
        ),
        ([*BASE, "-m", "log_loss(label_smothing=1)"], "label_smoothing"),
        ([*BASE, "-m", "hinge,mse"], "mean_squared_error reads --value or --prob;"),
        ([*BASE, "--memory", "lots"], "MiB"),
        ([*BASE, "--threads", "0"], "threads is 0"),
        ([*BASE, "--by", "country,country"], "different columns"),
    ],
)
def test_requests_that_the_schema_refuses(fails: Any, log: Path, options: list[str], message: str) -> None:
    assert message in fails("eval", log, *options)


def test_logs_that_are_not_there(fails: Any, tmp_path: Path) -> None:
    assert "nothing.parquet" in fails("eval", tmp_path / "nothing.parquet", *BASE)
    assert "*.parquet" in fails("eval", tmp_path / "*.parquet", *BASE)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no Parquet")
    assert "folder" in fails("eval", tmp_path / "folder", *BASE)


def test_files_that_cannot_be_read(run: Run, fails: Any, log: Path) -> None:
    (log / "empty.parquet").write_bytes(b"")
    assert "empty.parquet" in fails("eval", log, *BASE)
    (log / "empty.parquet").unlink()
    content = (log / "two.parquet").read_bytes()
    (log / "two.parquet").write_bytes(content[: len(content) // 2])
    assert "two.parquet" in fails("eval", log, *BASE)
    assert "two.parquet" in fails("plan", log, *BASE)

    status, out, err = run("eval", log, *BASE, "--on-bad-file", "skip")
    assert (status, err) == (0, "")
    assert out.startswith("8 rows read")
    assert re.search(r"^skipped .*two\.parquet", out, re.MULTILINE)
    status, out, err = run("plan", log, *BASE, "--on-bad-file", "skip")
    assert status == 0
    assert re.search(r"^skipped .*two\.parquet", out, re.MULTILINE)


BAD_ROWS = [
    ("a label of 2", {"click": pa.array([0, 1, 2, 0, 1, 0, 1, 0], pa.int8())}, [], "click"),
    ("a label of -1", {"click": pa.array([-1, 1, 1, -1, 1, 1, 1, 1], pa.int8())}, [], "--label-domain pm1"),
    ("a NaN label", {"click": pa.array([0.0, 1.0, float("nan"), 0, 1, 0, 1, 0])}, [], "click"),
    ("a NaN score", {"score": pa.array([0.0, float("nan"), 1.0, 0, 1, 0, 1, 0])}, [], "score"),
    ("a probability of 1.2", {"p": pa.array([0.0, 1.0, 1.2, 0, 1, 0, 1, 0])}, ["--prob", "p"], "1.2"),
    ("a negative weight", {"weight": pa.array([1.0, 1, -1, 1, 1, 1, 1, 1])}, ["--weight", "weight"], "weight"),
    ("an infinite weight", {"weight": pa.array([1.0, float("inf")] + [1] * 6)}, ["--weight", "weight"], "weight"),
]


@pytest.mark.parametrize(
    ("columns", "options", "message"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS]
)
def test_bad_rows_stop_the_evaluation_or_are_counted(
    run: Run, fails: Any, tmp_path: Path, columns: dict[str, Any], options: list[str], message: str
) -> None:
    path = write(tmp_path / "bad.parquet", **columns)
    words = ["eval", path, *BASE, "-m", "log_loss", *options]
    error = fails(*words)
    assert message in error
    assert "row group 0, row " in error
    assert "--on-bad-row drop leaves such rows out" in error

    status, out, err = run(*words, "--on-bad-row", "drop", "--format", "json")
    assert (status, err) == (0, "")
    bad = ("nan", "outside_domain", "negative_weight", "infinite_weight")
    dropped = [cause for cause in json.loads(out)["rows"]["dropped"] if cause["cause"] in bad]
    assert [(cause["rows"], cause["column"]) for cause in dropped] == [
        (2 if "pm1" in message else 1, next(iter(columns)))
    ]


@pytest.mark.parametrize(
    "columns",
    [
        {name: array.slice(0, 0) for name, array in log_columns().items()},
        {"score": pa.nulls(8, pa.float32())},
        {"click": pa.nulls(8)},
    ],
    ids=["zero rows", "null scores", "null labels"],
)
def test_nothing_to_evaluate_is_null_and_no_error(run: Run, tmp_path: Path, columns: dict[str, Any]) -> None:
    path = write(tmp_path / "log.parquet", **columns)
    warning = "fastloss: warning: no row was used, and every value is null; the result says what became of the rows.\n"
    status, out, err = run("eval", path, *BASE, "--by", "country", "--format", "json")
    assert (status, err) == (0, warning)
    totals = [value for value in json.loads(out)["values"] if not value["slice"]]
    assert len(totals) == 6
    assert all(value["value"] is None and value["reason"] and value["n"] == 0 for value in totals)
    status, out, err = run("eval", path, *BASE, "--by", "country")
    assert (status, err) == (0, warning)
    assert "null (no_rows)" in out


# ---------------------------------------------------------------------------------------------------------------
# What goes wrong elsewhere


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "Out of memory"),
        (PermissionError(errno.EACCES, "Permission denied", "log.parquet"), "Permission denied: 'log.parquet'"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (RuntimeError("two\nlines"), "Unexpected RuntimeError: two lines. This is a bug"),
        (type("PanicException", (BaseException,), {})("a page"), "Unexpected PanicException"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_any_failure_is_one_line(
    fails: Any, log: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, message: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.delenv("FASTLOSS_DEBUG", raising=False)
    monkeypatch.setattr(api, "run_plan", fail)
    assert message in fails("eval", log, *BASE)


def test_a_bug_shows_its_traceback_on_request(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("where am I")

    monkeypatch.setenv("FASTLOSS_DEBUG", "1")
    monkeypatch.setattr(api, "run_plan", fail)
    status, out, err = run("eval", log, *BASE)
    assert (status, out) == (2, "")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("fastloss: Unexpected RuntimeError: where am I")


def test_interrupted(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "run_plan", interrupt)
    assert run("eval", log, *BASE) == (130, "", "fastloss: interrupted\n")


@pytest.mark.filterwarnings("default")
def test_warnings_are_lines_on_stderr(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    real = api.run_plan

    def warn(*given: Any) -> Any:
        warnings.warn("the cache\nis cold", stacklevel=1)
        return real(*given)

    monkeypatch.setattr(api, "run_plan", warn)
    status, out, err = run("eval", log, *BASE)
    assert (status, err) == (0, "fastloss: warning: the cache is cold\n")
    assert out.startswith("16 rows read")


# ---------------------------------------------------------------------------------------------------------------
# Tables


def test_the_table_of_several_models_and_slices(log: Path) -> None:
    result = fastloss.evaluate(
        str(log / "one.parquet"),
        label="click",
        logit={"a": "score", "b": "score_b"},
        weight="weight",
        metrics=["log_loss", "ctr"],
        by=["country"],
    )
    values = {(v.metric, v.model, v.slice.get("country", "total")): v for v in result.values}
    a, b = (values["log_loss", model, "total"].value for model in ("a", "b"))
    lines = render(result.shown()).splitlines()
    assert lines[0] == "8 rows read from 1 file, used: 6 by a, 7 by b"
    assert lines[1].startswith("dropped 1: null_label in click, the first in ")
    assert lines[1].endswith("one.parquet, row group 1, row 1")
    assert lines[2].startswith("dropped 1: null_prediction in score, the first in ")
    assert lines[4:11] == [
        "total",
        "metric            a         b       b - a",
        f"log_loss   {a:#.6g}  {b:#.6g}  {f'{b - a:+#.6g}':>10}",
        f"ctr        {2.5 / 8.5:#.6g}  {2.5 / 9.5:#.6g}  {2.5 / 9.5 - 2.5 / 8.5:+#.6g}",
        "n                 6         7",
        "positives         3         3",
        "weight      8.50000   9.50000",
    ]
    assert lines[12:14] == ["by country", "country  model  n  positives    weight  log_loss       ctr"]
    assert [line.split()[:5] for line in lines[14:]] == [
        ['""', "a", "1", "0", "3"],
        ['""', "b", "1", "0", "3"],
        ["DE", "a", "2", "1", "2"],
        ["DE", "b", "3", "1", "3"],
        ["FR", "a", "2", "1", "3"],
        ["FR", "b", "2", "1", "3"],
        ["null", "a", "1", "1", "0.500000"],
        ["null", "b", "1", "1", "0.500000"],
    ]
    assert str(result) == render(result.shown())


def test_the_table_shows_saturation_where_there_is_some() -> None:
    log = pa.table({"y": [1, 0, 1], "p": [0.0, 0.5, 0.5], "q": [0.5, 0.5, 0.5], "k": ["x", "x", "y"]})
    clean = fastloss.evaluate(log, label="y", prob="q", metrics=["log_loss"])
    assert "n_saturated" not in render(clean.shown())
    both = fastloss.evaluate(log, label="y", prob={"p": "p", "q": "q"}, by="k")
    text = render(both.shown())
    assert re.search(r"^n_saturated +1 +0$", text, re.MULTILINE)
    assert re.search(r"^x +p +2 .* 1$", text, re.MULTILINE)
    assert re.search(r"^y +p +1 .* 0$", text, re.MULTILINE)


def test_the_table_cuts_many_slices_and_says_so() -> None:
    log = pa.table({"y": [0, 1] * 60, "x": [0.5] * 120, "k": list(range(120))})
    result = fastloss.evaluate(log, label="y", logit="x", metrics="log_loss", by="k")
    lines = render(result.shown()).splitlines()
    assert lines[-1] == "… 50 of 120 slices; --slices all, files, JSON and Arrow have all of them."
    assert lines[-2].split()[0] == "49"
    assert render(result.shown(slices=None)).splitlines()[-1].split()[0] == "119"


def test_the_table_keeps_control_characters_off_the_terminal_and_columns_aligned() -> None:
    keys = ["a\x1b[2Jb", "日本", "null", " x"]
    log = pa.table({"y": [0, 1, 0, 1], "x": [0.5] * 4, "k": keys})
    text = str(fastloss.evaluate(log, label="y", logit="x", metrics="log_loss", by="k"))
    assert "\x1b" not in text
    assert "a\\x1b[2Jb" in text
    assert '"null"' in text
    assert '" x"' in text
    # Two East Asian characters take four columns of a terminal.
    width = len("a\\x1b[2Jb")
    assert f"日本{' ' * (width - 4)}  1  " in text


def test_the_progress_bar_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as report:
        assert report is None
    assert capsys.readouterr() == ("", "")


def test_the_progress_bar_shows_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with progress_bar(wanted=False) as report:
        assert report is None
    assert terminal.getvalue() == ""
    with progress_bar() as report:
        assert report is not None
        report(Progress(1_500, 3_000, 2_000, 4_000))
        report(Progress(3_000, 3_000, 4_000, 4_000))
    shown = terminal.getvalue()
    assert "3,000 rows" in shown
    assert "4.0 kB of 4.0 kB" in shown


# ---------------------------------------------------------------------------------------------------------------
# Listings


def test_every_loss_and_metric_is_listed(run: Run) -> None:
    status, out, err = run("losses")
    assert (status, err) == (0, "")
    listed = entries()
    assert {"log_loss", "brier_score", "normalized_entropy", "calibration"} <= {entry.name for entry in listed}
    for entry in listed:
        for name in (entry.name, *entry.aliases):
            status, one, _ = run("losses", name)
            assert status == 0
            assert one.startswith(entry.name)
            assert one.strip() in out
        assert {"formula", "labels", "predictions"} <= {heading for heading, _ in entry.facts}


def test_the_listing_in_a_line_each_and_as_json(run: Run) -> None:
    listed = entries()
    status, out, err = run("losses", "--short")
    assert (status, err) == (0, "")
    assert [line.split("  ")[0].strip() for line in out.splitlines()] == [entry.name for entry in listed]
    assert re.search(r"^log_loss +pointwise loss +logit, prob, logprob$", out, re.MULTILINE)
    assert run("losses", "bce", "--short")[1].split()[0] == "log_loss"
    assert run("losses", "lift@0.1") == run("losses", "lift(top=0.2)") == run("losses", "lift")
    described = json.loads(run("losses", "--format", "json")[1])
    assert [entry["name"] for entry in described] == [entry.name for entry in listed]
    assert all(entry["formula"] and entry["predictions"] for entry in described)
    (one,) = json.loads(run("losses", "ne", "--format", "json")[1])
    assert (one["name"], one["aliases"]) == ("normalized_entropy", ["ne"])


def test_near_names_exist() -> None:
    from fastloss.metrics import names

    near = {name for _, found in names._NEAR for name in found}
    assert {name.partition("(")[0] for name in near} <= set(names.known_names())
    assert all(names.parse_metric(name) for name in near)
    # What exists is no mere hint.
    assert not {name for given, _ in names._NEAR for name in given} & set(names.known_names())


def test_losses_show_losses_alone() -> None:
    shown = set(dir(fastloss.losses))
    assert {"BinaryCrossentropy", "OverLists", "define", "LOSSES"} <= shown
    assert not {"Any", "Interval", "annotations", "base", "binary_crossentropy", "_read_column"} & shown
    assert all(hasattr(fastloss.losses, name) for name in shown)


def test_the_listing_in_docs_is_up_to_date() -> None:
    assert (ROOT / "docs" / "losses.md").read_text(encoding="utf-8") == render_markdown()


def test_doctor_finds_a_healthy_installation(run: Run) -> None:
    status, out, err = run("doctor")
    assert (status, err) == (0, "")
    found = dict(line.split(maxsplit=1) for line in out.splitlines() if not line.startswith("kernel"))
    assert found["fastloss"] == fastloss.__version__
    assert found["self-test"] == "passed"
    assert {"python", "numba", "llvmlite", "numpy", "pyarrow", "polars", "processor", "GPU"} <= set(found)


def test_doctor_notices_a_kernel_that_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastloss_kernels.losses import BinaryCrossentropy

    real = BinaryCrossentropy.__call__
    monkeypatch.setattr(BinaryCrossentropy, "__call__", lambda *a, **k: real(*a, **k) + 2.0**-52)
    status, out, _ = run("doctor")
    assert status == 2
    assert "self-test     log_loss of logit" in out


def test_doctor_notices_a_missing_library(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    status, out, _ = run("doctor")
    assert status == 2
    assert re.search(r"^polars +cannot be imported", out, re.MULTILINE)


def test_doctor_survives_a_broken_gpu_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_: str) -> None:
        raise RuntimeError("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")

    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(doctor.ctypes, "CDLL", lambda name: name)
    monkeypatch.setattr(doctor.importlib, "import_module", crash)
    assert "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" in doctor._safely(doctor._gpu)


@pytest.mark.parametrize(("available", "text"), [(True, "found: H200;"), (False, "not found")])
def test_doctor_names_the_gpu(monkeypatch: pytest.MonkeyPatch, available: bool, text: str) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: available, get_current_device=lambda: SimpleNamespace(name=b"H200" if available else None)
    )
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(doctor.ctypes, "CDLL", lambda name: name)
    monkeypatch.setattr(doctor.importlib, "import_module", lambda name: cuda)
    assert doctor._gpu().startswith(text)


# ---------------------------------------------------------------------------------------------------------------
# The process


def start(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path} | options.pop("env", {})
    options = {"stdout": subprocess.PIPE} | options
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, stderr=subprocess.PIPE, text=True, timeout=100, **options
    )


@pytest.mark.parametrize("words", [[], ["--help"], ["eval", "--help"], ["plan", "-h"], ["demo", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom fastloss.cli import main\nstatus = main(sys.argv[1:])\n"
        "heavy = {'numba', 'numpy', 'pyarrow', 'polars'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = start("-c", code, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")


def test_the_process_has_the_status_and_the_streams_of_main() -> None:
    done = start("-m", "fastloss", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastloss {fastloss.__version__}\n", "")
    done = start("-m", "fastloss", "evil")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fastloss: ")


@pytest.mark.parametrize("words", [["--help"], ["losses"]])
def test_a_reader_that_leaves_early_is_no_error(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = start("-m", "fastloss", *words, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["losses"]])
def test_a_full_disk_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = start("-m", "fastloss", *words, stdout=full)
    assert (done.returncode, done.stderr) == (2, "fastloss: No space left on device\n")


def test_an_encoding_without_the_characters_gets_escapes() -> None:
    done = start("-m", "fastloss", "losses", "ctr", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u03a3w" in done.stdout


LATE = """
import os, signal, sys
when, number, program = sys.argv[1], int(sys.argv[2]), "fastloss.__main__"
import runpy, fastloss.cli, atexit
def strike(*_, **__):
    os.kill(os.getpid(), number)
if when == "before":
    class Finder:
        def find_spec(self, name, *_):
            if name == "fastloss.cli":
                strike()
    sys.modules.pop("fastloss.cli")
    sys.meta_path.insert(0, Finder())
elif when == "in a command":
    fastloss.cli.app = type("App", (), {"parse_args": strike})()
elif when == "swallowed":
    def parse_args(*_, **__):
        try:
            strike()
        except KeyboardInterrupt:
            raise ImportError from None
    fastloss.cli.app = type("App", (), {"parse_args": parse_args})()
elif when == "after":
    main = fastloss.cli.main
    fastloss.cli.main = lambda: (main(), strike())[0]
elif when == "at exit":
    main = fastloss.cli.main
    fastloss.cli.main = lambda: (main(), atexit.register(strike))[0]
else:
    class Late:
        __del__ = strike
    sys.late = Late()
sys.argv[1:] = ["--version"]
runpy.run_module("fastloss", run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("when", ["before", "in a command", "swallowed", "after", "at exit", "in the last moments"])
def test_a_signal_gives_its_status_whenever_it_comes(when: str, number: signal.Signals) -> None:
    done = start("-c", LATE, when, int(number))
    # In the last moments all is done, and the status is the command's own.
    assert done.returncode == (0 if when == "in the last moments" else 128 + number), done.stderr
    assert "Traceback" not in done.stderr


def test_an_ignored_signal_stays_ignored() -> None:
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert start("-c", ignoring + LATE, "in a command", int(signal.SIGINT)).returncode == 2
    assert start("-c", ignoring + LATE, "after", int(signal.SIGINT)).returncode == 0
