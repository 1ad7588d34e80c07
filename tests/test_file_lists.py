"""``@files.txt``: a log named by a list of paths."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastloss as fl
from fastloss.cli import main
from fastloss.errors import ReadError, UsageError
from fastloss.sources import ReadOptions, listing, open_source
from fastloss.sources.file_lists import entries_of

REQUEST = {"label": "click", "logit": "score", "metrics": ["log_loss"], "by": "day"}
OPTIONS = ["--label", "click", "--logit", "score", "-m", "log_loss", "--by", "day"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*paths):
        for number, path in enumerate(paths):
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            pq.write_table(pa.table({"click": [1, 0], "score": [0.25 * number, -1.0]}), path)

    return write


def origins(log):
    return [file.origin for file in listing.list_files(entries_of(log))]


def write_list(path, *lines):
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("\n".join(lines))


def test_a_list_holds_files_globs_folders_and_urls_relative_to_its_own_folder(tree):
    tree("logs/day=1/a.parquet", "logs/day=2/b.parquet", "logs/day=3/c.parquet", "logs/@d.parquet", "e.parquet")
    write_list(
        "logs/files.txt",
        "\ufeff# the log",
        "",
        "  day=1/a.parquet\t",
        "day=2\r",
        "   # not this: day=4/x.parquet",
        "day=3/*.parquet",
        "./@d.parquet",
        f"file://{os.getcwd()}/e.parquet",
    )
    expected = ["logs/day=1/a.parquet", "logs/day=2/b.parquet", "logs/day=3/c.parquet", "logs/@d.parquet"]
    expected.append(f"file://{os.getcwd()}/e.parquet")
    assert origins("@logs/files.txt") == origins(Path("@logs/files.txt")) == expected
    assert origins(f"@file://{os.getcwd()}/logs/files.txt")[0] == f"file://{os.getcwd()}/logs/day=1/a.parquet"
    os.chdir("logs")
    assert origins("@files.txt") == [path.removeprefix("logs/") for path in expected]
    assert origins("./@d.parquet") == ["./@d.parquet"]


def test_a_list_stands_among_other_entries(tree):
    tree("a.parquet", "b.parquet", "c.parquet")
    write_list("files.txt", "b.parquet")
    write_list("absolute.txt", f"{os.getcwd()}/a.parquet")
    assert origins(["c.parquet", "@files.txt", "@absolute.txt"]) == [
        "c.parquet",
        "b.parquet",
        f"{os.getcwd()}/a.parquet",
    ]


def test_a_folder_with_wildcards_in_its_name_holds_a_list(tree):
    tree("logs[1]/a.parquet", "logs1/b.parquet")
    write_list("logs[1]/files.txt", "*.parquet")
    assert origins("@logs[1]/files.txt") == ["logs[1]/a.parquet"]


def test_a_list_gives_the_numbers_of_its_files(tree, capsys):
    tree("logs/day=1/a.parquet", "logs/day=2/b.parquet")
    write_list("logs/files.txt", "day=1", "day=2/b.parquet")
    expected = fl.evaluate("logs", **REQUEST).to_dict()
    assert fl.evaluate("@logs/files.txt", **REQUEST).to_dict() == expected
    outputs = []
    for log in ("logs", "@logs/files.txt"):
        assert main(["eval", log, *OPTIONS, "--format", "json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_the_files_of_a_list_are_scored_under_their_names(tree):
    tree("logs/day=1/a.parquet", "logs/day=2/b.parquet")
    write_list("files.txt", "logs/day=1/a.parquet", "logs/day=2/b.parquet")
    fl.score("@files.txt", "out", label="click", logit="score", loss="log_loss")
    assert sorted(str(path) for path in Path("out").rglob("*.parquet")) == [
        "out/day=1/a.parquet",
        "out/day=2/b.parquet",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["# nothing", ""], "the list 'files.txt' names no file"),
        (["a.parquet", "", "none.pq"], "line 3 of the list 'files.txt': there is no file or folder 'none.pq'"),
        (["x/*.parquet"], r"line 1 of the list 'files.txt': no file matches 'x/\*.parquet'"),
        (["a.parquet", "*.parquet"], r"line 2 of the list 'files.txt': file 'a.parquet' is found twice"),
        (["@files.txt"], "line 1 of the list 'files.txt': '@files.txt' is a list in a list"),
        (["a\0b.parquet"], "line 1 of the list 'files.txt': a path holds a zero byte"),
        (["gopher://x"], "line 1 of the list 'files.txt': the URL 'gopher://x' cannot be read"),
    ],
)
def test_an_error_names_the_list_and_the_line(tree, lines, message):
    tree("a.parquet")
    write_list("files.txt", *lines)
    with pytest.raises(UsageError, match=message) as refusal:
        open_source("@files.txt", ReadOptions())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("@", "'@' names no list"),
        ("@none.txt", "the list 'none.txt' cannot be read: No such file"),
        ("@folder", "the list 'folder' cannot be read: Is a directory"),
        ("@a.parquet", "the list 'a.parquet' is not UTF-8 text"),
    ],
)
def test_what_is_no_list_says_so(tree, capsys, log, message):
    tree("folder/a.parquet")
    Path("a.parquet").write_bytes(b"PAR1\xff\xfe")
    with pytest.raises(UsageError, match=message):
        open_source(log, ReadOptions())
    assert main(["eval", log, *OPTIONS]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_bad_file_of_a_list_can_be_skipped(tree):
    tree("day=1/a.parquet")
    Path("day=2").mkdir()
    Path("day=2/b.parquet").write_bytes(b"nothing")
    write_list("files.txt", "day=1/a.parquet", "day=2/b.parquet")
    with pytest.raises(ReadError, match=r"day=2/b\.parquet"):
        fl.evaluate("@files.txt", **REQUEST)
    found = fl.evaluate("@files.txt", **REQUEST, on_bad_file="skip").to_dict()
    assert found["rows"]["read"] == 2
    assert len(found["files"]["skipped"]) == 1


@pytest.mark.parametrize("output", ["files.txt", "day=1/a.parquet", "day=1/new.parquet"])
def test_an_output_is_no_list_and_no_file_of_one(tree, capsys, output):
    tree("day=1/a.parquet")
    write_list("files.txt", "day=1")
    content = Path("files.txt").read_text()
    assert main(["eval", "@files.txt", *OPTIONS, "-o", output]) == 2
    assert output in capsys.readouterr().err
    with pytest.raises(UsageError, match=output):
        fl.evaluate("@files.txt", **REQUEST, state=output)
    assert Path("files.txt").read_text() == content
