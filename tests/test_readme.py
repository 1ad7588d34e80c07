"""What the README shows is what the code does and prints."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.cli import main
from fastloss.demo import run_demo, write_log
from fastloss.report.formats import FORMATS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks_of(heading: str) -> list[str]:
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```(?:python|toml)?\n(.*?)```", section, flags=re.DOTALL)


def printed_by(code: str) -> tuple[str, dict[str, Any]]:
    """Return what a block of Python prints, and its names."""
    out, names = io.StringIO(), {}
    with contextlib.redirect_stdout(out):
        exec(code, names)
    return out.getvalue(), names


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the logs that the README's commands read."""
    folder = tmp_path_factory.mktemp("readme")
    write_log(folder / "logs", 200_000)
    (folder / "slates").mkdir()
    slates = pa.table({"clicked": [[0, 1, 0], [1, 0]], "scores": [[0.3, 2.1, -1.0], [0.2, 0.9]]})
    pq.write_table(slates, folder / "slates" / "part-0.parquet")
    (file,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    (folder / "fastloss.toml").write_text(file)
    return folder


def test_the_demo_prints_what_is_shown() -> None:
    shown = next(block for block in blocks_of("Try it") if block.startswith("Wrote a click log"))
    printed = re.sub(r"/[^\s,]*?/fastloss-demo-\w+", "/tmp/fastloss-demo", run_demo(None, 200_000))
    # The README shows the first country and nothing after it.
    last = printed.index("\nFR ")
    assert printed[: last + 1] == shown


COMMANDS = [
    shlex.split(line, comments=True)
    for heading in ("On your own log", "ROC AUC", "Curves", "One result from many logs", "Evaluations in a file")
    for block in blocks_of(heading)
    for line in block.splitlines()
    if line.startswith("fastloss ")
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[1:6]))
def test_every_command_runs(
    words: list[str], logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(logs)
    assert main(words[1:]) == 0
    captured = capsys.readouterr()
    if words[1] != "score":
        assert captured.out
        assert captured.err == ""
    else:
        written = Path(words[3])
        columns = pq.read_schema(written if written.is_file() else next(written.rglob("*.parquet"))).names
        if "--group" in words:
            assert columns == ["user_id", "n", "ndcg@10", "log_loss"]
        else:
            assert {"loss", "gradient", "hessian"} <= set(columns)


def test_there_are_commands() -> None:
    assert {words[1] for words in COMMANDS} == {"eval", "plan", "score", "merge", "losses", "doctor", "run"}


def test_the_gates_of_the_text(logs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(logs)
    limit, between = re.findall(r"`--fail-if \"([^\"]+)\"`", README)
    (dropped,) = re.findall(r"`--max-dropped (\S+)`", README)
    asked = ["eval", "logs/", "--label", "click", "--weight", "weight", "-o", str(tmp_path / "result.json")]
    # Model a claims too much, model b is calibrated.
    assert main([*asked, "--logit", "a=score_a", "--fail-if", limit]) == 1
    assert main([*asked, "--logit", "b=score_b", "--fail-if", limit]) == 0
    both = [*asked, "--logit", "a=score_a", "--logit", "b=score_b"]
    assert main([*both, "--fail-if", between, "--max-dropped", dropped]) == 0
    assert main([*both, "--max-dropped", "0.1%"]) == 1


def test_the_endings_of_the_text() -> None:
    said = re.search(r"the ending says the format\s+\(([^)]+)\)", README)
    assert said is not None
    assert set(re.findall(r"\.\w+", said[1])) == {ending for known in FORMATS.values() for ending in known.endings}


def test_merged_states_give_the_digits_of_one_evaluation(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs)
    for words in (words for words in COMMANDS if "--state" in words):
        assert main(words[1:]) == 0
    days = ["logs/day=2026-03-01", "logs/day=2026-03-02"]
    whole = fl.evaluate(days, label="click", logit="score_a", by="device")
    merged = fl.merge(["day2.arrow", "day1.arrow"], by="device")
    by_one, by_two = ([(v.metric, v.slice, v.value) for v in result.values] for result in (whole, merged))
    assert by_one == by_two


def test_the_file_of_evaluations(logs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(logs)
    whole = fl.evaluate("logs", label="click", weight="weight", prob="p_b", where="country = 'DE'", metrics="log_loss")
    assert fl.run("germany", metrics="log_loss")["log_loss"] == whole["log_loss"]
    schema, directive = tmp_path / "fastloss.schema.json", "#:schema ./fastloss.schema.json\n"
    assert main(["schema", "-o", str(schema)]) == 0
    text = (logs / "fastloss.toml").read_text()
    assert text.startswith(directive)
    valid = jsonschema.Draft202012Validator(json.loads(schema.read_text())).is_valid
    assert valid(tomllib.loads(text))
    assert not valid(tomllib.loads(text + "unknown = 5"))


def test_python(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs)
    code = next(block for block in blocks_of("On your own log") if "import fastloss" in block)
    printed, names = printed_by(code)
    assert "by country" in printed
    shown = re.search(r'# \{"a": ([\d.]+)…, "b": ([\d.]+)…\}', code)
    assert shown is not None
    for model, digits in zip("ab", shown.groups(), strict=True):
        assert str(names["result"]["log_loss"][model]).startswith(digits)
    p = 1.0 / (1.0 + np.exp(-names["x"]))
    assert names["gradient"] == pytest.approx(p - names["label"], rel=1e-14)
    assert names["hessian"] == pytest.approx(p * (1.0 - p), rel=1e-14)


def test_processes_give_the_same_digits(logs: Path) -> None:
    asked: dict[str, Any] = {"label": "click", "logit": "score_a", "metrics": "log_loss"}
    log = str(logs / "logs")
    by_processes = fl.evaluate(log, **asked, executor="processes", threads=2)
    assert by_processes["log_loss"] == fl.evaluate(log, **asked)["log_loss"]


def test_lists_of_candidates() -> None:
    code, printed = blocks_of("Lists of candidates")
    assert printed_by(code)[0] == printed


def test_curves(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(logs)
    code, printed, _ = blocks_of("Curves")
    found, names = printed_by(code)
    assert found == printed
    said = re.search(r"the default, it is ([\d.]+) here", README)
    assert said is not None
    (error,) = set(names["result"].curve("gain", model="b").to_polars()["area_error"])
    assert f"{error:.4f}" == said[1]


@pytest.mark.parametrize(
    "heading",
    [
        "Is the ranking right",
        "By user and request",
        "Slices of any number",
        "Are the probabilities right",
        "What the model has not used",
    ],
)
def test_commands_print_what_is_shown(
    logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], heading: str
) -> None:
    monkeypatch.chdir(logs)
    command, printed = blocks_of(heading)[:2]
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr() == (printed, "")


def test_calibrating_prints_what_is_shown(
    logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(logs)
    blocks = blocks_of("Calibrating")
    for command, printed in zip(blocks[::2], blocks[1::2], strict=True):
        assert main(shlex.split(command)[1:]) == 0
        assert capsys.readouterr() == (printed, "")


def test_common_rows_are_those_that_every_metric_can_use() -> None:
    code, _ = blocks_of("Lists of candidates")
    code = code.replace("metrics=metrics)", "metrics=metrics, common_rows=True)")
    assert re.findall(r"^n +(\d)$", printed_by(code)[0], flags=re.MULTILINE) == ["3"]


def test_the_table_of_presets() -> None:
    rows = re.findall(r"^\| (?:preset|`log_loss`) \|(.*)\|$", README, flags=re.MULTILINE)
    presets, values = ([cell.split()[0] for cell in row.split("|")] for row in rows)
    log = pa.table({"click": [1, 0, 1, 0], "p": [0.9, 0.2, 0.0, 1e-9]})
    for preset, value in zip(presets, values, strict=True):
        found = fl.evaluate(
            log, label="click", prob="p", metrics="log_loss", preset=None if preset == "none" else preset
        )
        assert found["log_loss"] == pytest.approx(float(value), rel=1e-5)


def test_the_table_of_reductions() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (Σw·l[^|]*)\|$", README, flags=re.MULTILINE)
    log = pa.table({"y": [1.0, 0.0, 1.0, None], "p": [0.5, 0.5, 0.0, 0.5], "w": [2.0, 1.0, 0.0, 5.0]})
    divisors = {
        "Σw": 3.0,
        "": 1.0,
        "n, where n counts the used rows and those": 3.0,
        "n, where n counts the used": 2.0,
    }
    assert len(rows) == 4
    for reduction, said in rows:
        part = said.removeprefix("Σw·l").lstrip(" /")
        divisor = next(divisors[key] for key in sorted(divisors, key=len, reverse=True) if part.startswith(key))
        found = fl.evaluate(log, label="y", prob="p", weight="w", metrics="brier_score", reduction=reduction)
        assert found["brier_score"] == pytest.approx(0.75 / divisor, rel=1e-15)


def test_a_custom_loss() -> None:
    code, printed = blocks_of("Custom losses")
    assert printed_by(code)[0] == printed


def test_in_training() -> None:
    (code,) = blocks_of("In training")
    done = subprocess.run(
        [sys.executable, "-c", "import lightgbm, xgboost"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a library cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    with contextlib.redirect_stderr(io.StringIO()):
        _, names = printed_by(code)
    # Both are probabilities of the class, as far as ten rounds of either library can tell.
    for predicted in (names["by_lightgbm"], names["by_xgboost"]):
        assert predicted.min() >= 0.0
        assert predicted.max() <= 1.0
        log = pa.table({"y": names["click"], "p": predicted.astype(np.float64)})
        assert fl.evaluate(log, label="y", prob="p", metrics="log_loss")["log_loss"] < 0.6
    # A sigmoid of what XGBoost predicts would have no row below one half.
    assert names["by_xgboost"].min() < 0.4
    assert abs(np.corrcoef(names["by_lightgbm"], names["by_xgboost"])[0, 1]) > 0.8


def test_a_flipped_bit_in_a_page_with_a_checksum_is_found(tmp_path: Path) -> None:
    (written,) = re.findall(r"`(pq\.write_table\(.*?\))`", README)
    path = tmp_path / "log.parquet"
    table = pa.table({"click": [0.0, 1.0] * 500, "p": np.linspace(0.1, 0.9, 1000)})
    exec(written, {"pq": pq, "table": table, "path": path})
    content = bytearray(path.read_bytes())
    content[pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset + 200] ^= 1
    path.write_bytes(content)
    with pytest.raises(fl.ReadError):
        fl.evaluate(str(path), label="click", prob="p", metrics="log_loss", verify_checksums=True)


def test_every_page_and_module_that_is_named_exists() -> None:
    pages = [README, *(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))]
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)\)", page):
            assert (ROOT / link).exists() or (ROOT / "docs" / link).exists(), link
        for module in re.findall(r"python -m (benchmarks\.\w+)", page):
            assert (ROOT / f"{module.replace('.', os.sep)}.py").exists(), module
