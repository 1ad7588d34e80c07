"""Evaluations by name: the file, what a command line says beside it, its mistakes, and its schema."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastloss as fl
from fastloss import api
from fastloss.cli import main, runs
from fastloss.cli.options import Named, OutputOptions, RequestOptions, ScanOptions
from fastloss.errors import UsageError

Run = Callable[..., tuple[int, str, str]]

FILE = """\
[defaults]
log = "logs"
label = "click"
weight = "weight"

[evaluations.nightly]
logit = { a = "score_a", b = "score_b" }
by = ["country", "country,device"]
with = { heavy = "weight >= 2" }
where = "weight < 3"
metric = ["log_loss", "calibration"]
fail-if = "b.log_loss > 100"
format = "json"

[evaluations.weekly]
log = ["logs/one.parquet", "logs/t*.parquet"]
prob = "p"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a log of two files and the evaluations above."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / "logs").mkdir()
    (folder / ".git").mkdir()
    (folder / "deep" / "down").mkdir(parents=True)
    for name in ("one", "two"):
        pq.write_table(
            pa.table(
                {
                    "click": pa.array([1, 0, 1, 0], pa.int8()),
                    "score_a": [0.8, 0.33, 0.77, 0.66],
                    "score_b": [2.0, -1.0, 1.5, -0.5],
                    "p": [0.8, 0.33, 0.77, 0.66],
                    "weight": [1.0, 2.0, 0.5, 4.0],
                    "country": ["DE", "FR", "DE", "FR"],
                    "device": ["phone", "phone", "tablet", "tablet"],
                }
            ),
            folder / "logs" / f"{name}.parquet",
        )
    (folder / "fastloss.toml").write_text(FILE)
    return folder


@pytest.fixture
def repository(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current folder."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def fails(fails: Callable[..., str]) -> Callable[..., str]:
    """Run a command line that must fail; return its line on stderr without the name of the program."""
    return lambda *words: fails(*words).removeprefix("fastloss: ").rstrip("\n")


NIGHTLY = {
    "label": "click",
    "weight": "weight",
    "logit": {"a": "score_a", "b": "score_b"},
    "by": ["country", ("country", "device")],
    "with_columns": {"heavy": "weight >= 2"},
    "where": "weight < 3",
    "metrics": ["log_loss", "calibration"],
}


def test_a_run_is_the_evaluation_that_the_file_names(run: Run, repository: Path) -> None:
    status, out, err = run("run", "nightly")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(fl.evaluate("logs", **NIGHTLY).to_json())
    words = ["eval", "logs/one.parquet", "logs/t*.parquet", "--label", "click", "--weight", "weight", "--prob", "p"]
    assert run("run", "weekly") == run(*words)


def test_what_the_command_line_says_takes_the_place_of_the_file(run: Run, repository: Path) -> None:
    words = ["run", "nightly", "--where", "country = 'DE'", "--by", "device", "--metric", "ctr", "--log"]
    status, out, _ = run(*words, "logs/one.parquet", "--fail-if", "n > 1000")
    asked = {**NIGHTLY, "where": "country = 'DE'", "by": ["device"], "metrics": ["ctr"]}
    assert status == 0
    assert json.loads(out) == json.loads(fl.evaluate("logs/one.parquet", **asked).to_json())
    assert run("run", "nightly", "--format", "table")[1].startswith("8 rows read")


def test_what_the_file_says_can_be_taken_back(run: Run, tmp_path: Path, repository: Path) -> None:
    file = write(tmp_path, FILE.replace('"logs', f'"{repository}/logs') + "common-rows = true\nprogress = false\n")
    taken_back = ["--no-by", "--no-where", "--no-with", "--no-metric", "--no-fail-if"]
    out = json.loads(run("run", "nightly", "--file", file, *taken_back)[1])
    asked = {name: NIGHTLY[name] for name in ("label", "weight", "logit")}
    assert out == json.loads(fl.evaluate(str(repository / "logs"), **asked).to_json())
    plain, common = (runs.read_evaluations(path)["weekly"] for path in ("fastloss.toml", file))
    assert common.options()[0].common_rows
    _, bound, _ = runs_app().parse_args(["--no-common-rows", "--progress"], print_error=False, exit_on_error=False)
    request, _, output = common.options(bound.kwargs["given"])
    assert (request, output) == (plain.options()[0], plain.options()[2])


def runs_app() -> Any:
    from cyclopts import App

    def command(*, given: runs.Given = runs.Given()) -> None:  # noqa: B008
        pass

    return App(default_command=command)


def test_without_a_name_the_evaluations_are_listed(run: Run, fails: Any, repository: Path) -> None:
    status, out, err = run("run")
    assert (status, err) == (0, "")
    assert [[line[:7], line[9:43], line[44:].strip()] for line in out.splitlines()] == [
        ["name   ", "log".ljust(34), "metrics"],
        ["nightly", "logs".ljust(34), "log_loss, calibration"],
        ["weekly ", "logs/one.parquet, logs/t*.parquet ", "the usual ones"],
    ]
    assert "No evaluation was named; there is 'nightly', 'weekly'." in fails("run", "--by", "country")


def test_a_gate_of_the_file_is_one(run: Run, repository: Path) -> None:
    status, out, err = run("run", "nightly", "--fail-if", "a.log_loss > 0")
    assert (status, bool(out)) == (1, True)
    assert "gate 'a.log_loss > 0' failed" in err
    assert run("run", "nightly", "--max-dropped", "0")[0] == 0


def test_several_run_one_after_the_other(run: Run, fails: Any, repository: Path, tmp_path: Path) -> None:
    status, out, err = run("run", "nightly", "weekly", "nightly", "--format", "table")
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("#")] == ["# nightly", "# weekly"]
    # The second fails, and the worst status is that of all; the others are carried out.
    status, out, err = run("run", "nightly", "weekly", "--format", "table", "--metric", "log_loss", "--by", "heavy")
    assert status == 2
    assert "# nightly" in out
    assert err.startswith("fastloss: weekly of fastloss.toml: ")
    assert "'heavy'" in err
    assert "give each a file of its own" in fails("run", "nightly", "weekly", "-o", tmp_path / "r.json")
    assert "nightly writes json to stdout" in fails("run", "nightly", "weekly")


def test_plan_takes_a_name_where_there_is_no_such_path(
    run: Run, fails: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(api, "run_plan", lambda *_: pytest.fail("plan evaluated the log"))
    status, out, err = run("plan", "nightly")
    assert (status, err) == (0, "")
    plan = json.loads(out)
    assert plan["rows"] == 8
    assert plan["plan"]["fingerprint"] == fl.make_plan("logs", **NIGHTLY).fingerprint
    assert [line for line in run("plan", "nightly", "weekly", "--format", "table")[1].splitlines() if "#" in line] == [
        "# nightly",
        "# weekly",
    ]
    assert "'nightlie' is no path, and no evaluation" in fails("plan", "nightlie")
    assert "Did you mean 'nightly'?" in fails("plan", "nightlie")
    assert "Did you mean 'weekly'?" in fails("plan", "nightly", "weakly")
    # A path comes first, whatever the file says, and --file says otherwise.
    os.rename("logs/one.parquet", "nightly")
    Path("fastloss.toml").write_text(FILE.replace("weekly]\nlog = [", "weekly]\nlog = ['nightly', "))
    words = ["--label", "click", "--logit", "score_a", "--format", "json"]
    assert json.loads(run("plan", "nightly", *words)[1])["rows"] == 4
    assert "with --file where a path has its name" in fails("plan", "nightly")
    assert json.loads(run("plan", "nightly", "--file", "fastloss.toml")[1])["plan"]["by"]
    assert "No evaluation of 'fastloss.toml' was named" in fails("plan", "--file", "fastloss.toml")


def test_paths_of_the_file_are_relative_to_its_folder(
    run: Run, fails: Any, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a [strange] *name"
    shutil.copytree(made, folder)
    (folder / "files.txt").write_text("logs/one.parquet\n")
    text = (
        FILE + 'output = "deep/weekly.json"\nstate = "deep/weekly.arrow"\n[evaluations.listed]\nlog = "@files.txt"\n'
    )
    (folder / "fastloss.toml").write_text(text + 'logit = "score_a"\n[evaluations.out]\nlogit="score_a"\noutput="-"\n')
    expected = json.loads(fl.evaluate(str(made / "logs"), label="click", weight="weight", prob="p").to_json())
    monkeypatch.chdir(folder / "deep" / "down")
    assert run("run", "weekly") == (0, "", "")
    found = json.loads((folder / "deep" / "weekly.json").read_text())
    assert found["values"] == expected["values"]
    assert (
        fl.merge(folder / "deep" / "weekly.arrow")["log_loss"]
        == fl.evaluate(str(folder / "logs"), label="click", weight="weight", prob="p")["log_loss"]
    )
    assert json.loads(run("plan", "listed", "--format", "json")[1])["rows"] == 4
    assert run("run", "out")[1].startswith("8 rows read")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    assert "No fastloss.toml was found" in fails("run", "weekly")
    assert run("run", "weekly", "--file", folder / "fastloss.toml") == (0, "", "")


def test_the_file_is_looked_for_up_to_the_root_of_the_repository(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "fastloss.toml").write_text(FILE)
    inner = tmp_path / "repository" / "folder"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert runs.find_file() == "../../fastloss.toml"
    # A worktree has a file of this name.
    (inner.parent / ".git").write_text("gitdir: elsewhere\n")
    assert runs.find_file() is None
    (inner.parent / "fastloss.toml").write_text(FILE)
    assert runs.find_file() == "../fastloss.toml"
    (inner / "fastloss.toml").mkdir()
    assert runs.find_file() == "../fastloss.toml"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "other.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


X = '[evaluations.x]\nlog = "logs"\nlabel = "click"\nlogit = "score_a"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (X + "wher = 'x'", ": [evaluations.x] has an unknown key 'wher'. Did you mean 'where'?"),
        (X + "on_bad_row = 'drop'", ": [evaluations.x] has an unknown key 'on_bad_row'. Write 'on-bad-row'."),
        (X + "with_columns = {}", ": [evaluations.x] has an unknown key 'with_columns'. Write 'with'."),
        (X + "metrics = []", ": [evaluations.x] has an unknown key 'metrics'. Did you mean 'metric'?"),
        (X + "[default]", ": there is an unknown key 'default'. Did you mean 'defaults'?"),
        (X + "[defaults]\nlogs = 1", ": [defaults] has an unknown key 'logs'. Write 'log'."),
        (X + "weight = 5", ": [evaluations.x] weight is 5; allowed: a string; write '5'."),
        (X + "max-dropped = 0.5", ": [evaluations.x] max-dropped is 0.5; allowed: a string; write '0.5'."),
        (X + "where = true", "where is true; allowed: a string or a list of strings; write 'true'."),
        (X + "where = ['a', 5]", "where holds 5; allowed: a string or a list of strings."),
        (
            X + "with = { a = 5 }",
            "with holds 5; allowed: a string or a list of strings or a table of strings by name.",
        ),
        (X + "with = { 'a=b' = '5' }", "with holds the name 'a=b', and a name has a character, and no '='"),
        (X + "by = { a = 'b' }", "by is a table; allowed: a string or a list of strings."),
        (X + "saturation = 'clap'", "saturation is 'clap'; allowed: 'clip', 'exact' or 'error'."),
        (X + "saturation = []", "saturation is an empty list; allowed: 'clip', 'exact' or 'error'."),
        (X + "threads = '2'", "threads is '2'; allowed: a whole number."),
        (X + "threads = true", "threads is true; allowed: a whole number."),
        (X + "threads = 2.0", "threads is 2.0; allowed: a whole number."),
        (X + "slices = 'some'", "slices is 'some'; allowed: a whole number or 'all'."),
        (X + "common-rows = 1", "common-rows is 1; allowed: true or false."),
        (X + "output = 5", "output is 5; allowed: a path."),
        (X + "weight = 2026-03-01", "weight is 2026-03-01; allowed: a string."),
        (X + 'weight = "a\\u0000"', "weight holds a zero byte; allowed: a string."),
        (X + f"weight = [{'9' * 70}]", "weight is a list; allowed: a string."),
        (X + f"weight = {'9' * 70}", f"weight is {'9' * 59}…; allowed: a string"),
        (X + f"weight = {'9' * 5000}", "holds a value that cannot be read: Exceeds the limit"),
        (X + f"where = {'[' * 5000}", "nests values too deeply"),
        (
            X + "y y",
            " is not TOML: Expected '=' after a key in a key/value pair (at line 5, column 3); mend it there.",
        ),
        (X + "log = 'again'\n", " is not TOML: Cannot overwrite a value (at line 5, column 14); mend it there."),
        (X.encode() + b"weight = '\xff'", ": line 5 is not UTF-8 text, as TOML must be; save it as UTF-8."),
        ("", ": evaluations is missing or empty; write a table for each, such as [evaluations.nightly]."),
        ("[evaluations]", ": evaluations is missing or empty"),
        ("evaluations = 5", ": evaluations is 5; write a table for each"),
        ("[[evaluations]]", ": evaluations is a list; write a table for each"),
        ("evaluations.x = 5", ": [evaluations.x] is 5; allowed: a table of options."),
        ("defaults = 5", ": [defaults] is 5; allowed: a table of options."),
        (X + "sampling-rate = true", "sampling-rate is true; allowed: a string or a list of strings, a table of "),
        (
            X + "sampling-rate = [0.1]",
            "holds 0.1; allowed: a string or a list of strings, a table of numbers by name or",
        ),
        (X + "[evaluations.'']", ": an evaluation is called ''; allowed: a name that begins without '-'."),
        (X + "[evaluations.-x]", ": an evaluation is called '-x'; allowed: a name that begins without '-'."),
        (X.replace("label", "#"), "label is missing; write it in [evaluations.x] or in [defaults], or add --label."),
        (X.replace("log =", "# "), "log is missing; write it in [evaluations.x] or in [defaults], or add --log."),
        (X.replace("logit", "#"), "No prediction was given; name a column with --logit, "),
        (X + "metric = 'log_los'", "x of {file}: "),
        (X + "fail-if = 'log_loss'", "x of {file}: --fail-if is 'log_loss'; write METRIC > NUMBER"),
        (X + "output = 'no/where.json'", "lies in a folder that does not exist"),
        (b"#" * (1 << 20) + b"#", " is larger than 1 MiB; name a file of evaluations."),
    ],
)
def test_a_mistake_is_one_line(fails: Any, repository: Path, text: str | bytes, said: str) -> None:
    file = write(repository, text)
    line = fails("run", "x", "--file", file)
    assert said.replace("{file}", str(file)) in line
    assert str(file) in line
    assert fails("plan", "x", "--file", file) == line


def test_a_file_or_an_evaluation_that_is_not_there(fails: Any, repository: Path, tmp_path: Path) -> None:
    assert fails("run", "x", "--file", tmp_path / "no") == (
        f"'{tmp_path}/no' cannot be read: No such file or directory; name a file of evaluations."
    )
    assert "Is a directory" in fails("run", "--file", tmp_path)
    assert fails("run", "nightly", "nigthly") == (
        "There is no evaluation 'nigthly' in fastloss.toml. Did you mean 'nightly'?"
    )
    assert "larger than 1 MiB" in fails("run", "--file", "/dev/zero")


def test_a_mistake_in_one_evaluation_stops_no_other(run: Run, fails: Any, repository: Path) -> None:
    file = write(repository, X + "[evaluations.'a b']\nwhat = 5")
    assert run("run", "x", "--file", file)[0] == 0
    said = f"fastloss: {file}: [evaluations.'a b'] has an unknown key 'what'. "
    assert said in "fastloss: " + fails("run", "x", "a b", "--file", file)
    assert said in "fastloss: " + fails("plan", "a b", "--file", file)
    status, out, err = run("run", "--file", file)
    assert (status, err[: len(said)], err.count("\n")) == (2, said, 1)
    assert "x" in out
    assert "a b" not in out
    with pytest.raises(UsageError, match="unknown key 'what'"):
        fl.run("a b", file)


@pytest.mark.parametrize("rate", ["0.5", "'0.5'", "{ score_a = 0.5 }", "['score_a=0.5']", "{ score_a = '0.5' }"])
def test_a_rate_may_be_a_number(repository: Path, rate: str) -> None:
    wanted = fl.evaluate("logs", label="click", logit="score_a", sampling_rate=0.5)
    file = write(repository, X + f"sampling-rate = {rate}")
    assert fl.run("x", file).to_json() == wanted.to_json()
    content = tomllib.loads(X + f"sampling-rate = {rate}")
    assert jsonschema.Draft202012Validator(runs.make_schema()).is_valid(content)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert list(runs.read_evaluations(write(tmp_path, b"\xef\xbb\xbf" + FILE.encode()))) == ["nightly", "weekly"]


# ---------------------------------------------------------------------------------------------------------------
# Keys


def test_every_option_of_eval_is_a_key() -> None:
    named = {
        field.name for group in (RequestOptions, ScanOptions, OutputOptions) for field in dataclasses.fields(group)
    }
    assert set(runs.keys()) == {"log", *named}
    for field, key in runs.keys().items():
        assert key.name == {"with_columns": "with"}.get(field, field.replace("_", "-"))
        assert key.help
        assert key.allowed


def test_a_new_option_is_a_key_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Wider(ScanOptions):
        """More options.

        Parameters
        ----------
        new_words
            One of some words.
        new_share
            A share.
        new_table
            Values by name.
        """

        new_words: Literal["some", "more"] = "some"
        new_share: float | None = None
        new_table: Annotated[list[str] | None, Named] = None

    monkeypatch.setitem(globals(), "Wider", Wider)
    monkeypatch.setattr(runs, "_GROUPS", (RequestOptions, Wider, OutputOptions))
    monkeypatch.setattr(runs, "Given", runs._given_type())
    runs.keys.cache_clear()
    try:
        text = FILE + 'new-words = "more"\nnew-share = 1\nnew-table = { a = "b" }\n'
        _, wider, _ = runs.read_evaluations(write(tmp_path, text))["weekly"].options()
        assert (wider.new_words, wider.new_share, wider.new_table) == ("more", 1, ["a=b"])
        described = runs.make_schema()["$defs"]["options"]["properties"]["new-words"]
        assert described == {"description": "One of some words.", "enum": ["some", "more"], "default": "some"}
        with pytest.raises(UsageError, match="new-words is 'less'; allowed: 'some' or 'more'"):
            runs.choose(runs.read_evaluations(write(tmp_path, FILE + "new-words = 'less'")), ["weekly"])
    finally:
        runs.keys.cache_clear()


def test_every_option_is_one_of_run_and_plan(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "plan"):
        assert main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        for field, key in runs.keys().items():
            if (command, field) != ("plan", "log"):
                assert f"--{key.name} " in shown, f"{command} --{key.name}"
        assert "[default: 512MiB]" in shown
        assert "[required]" not in shown


# ---------------------------------------------------------------------------------------------------------------
# From Python


def test_python_runs_a_name_too(repository: Path) -> None:
    assert fl.run("nightly").to_json() == fl.evaluate("logs", **NIGHTLY).to_json()
    found = fl.run("nightly", "fastloss.toml", log="logs/one.parquet", by=["device"], where=None)
    asked = {**NIGHTLY, "by": ["device"], "where": None}
    assert found.to_json() == fl.evaluate("logs/one.parquet", **asked).to_json()
    with pytest.raises(UsageError, match="There is no evaluation 'no'"):
        fl.run("no")


# ---------------------------------------------------------------------------------------------------------------
# The schema


def test_the_schema_is_one_of_its_draft_and_takes_the_example(run: Run, repository: Path, tmp_path: Path) -> None:
    status, out, err = run("schema")
    assert (status, err) == (0, "")
    schema = json.loads(out)
    assert schema == runs.make_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid(tomllib.loads(FILE))
    for wrong in ("wher = 'x'", "threads = '2'", "saturation = 'clap'", "by = { a = 'b' }", "[defaults]\nx = 1"):
        assert not valid(tomllib.loads(X + wrong)), wrong
    assert run("schema", "-o", tmp_path / "fastloss.schema.json") == (0, "", "")
    assert json.loads((tmp_path / "fastloss.schema.json").read_text()) == schema


def test_the_schema_explains_every_key() -> None:
    properties = runs.make_schema()["$defs"]["options"]["properties"]
    assert set(properties) == {key.name for key in runs.keys().values()}
    assert properties["saturation"]["enum"] == ["clip", "exact", "error"]
    assert properties["where"]["description"].startswith("Evaluate the rows alone for which this condition holds")
    assert all(each["description"] for each in properties.values())


NAMES = sorted({key.name for key in runs.keys().values()})
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/~.\0"), max_size=12)
SCALARS = (
    TEXTS
    | st.sampled_from(
        ["click", "score_a", "p", "country", "-1", "1G", "all", "json", "clip", "polars", "a > 1", "mean"]
    )
    | st.integers()
    | st.floats(allow_subnormal=False).filter(lambda x: not x.is_integer())
    | st.booleans()
    | st.dates()
    | st.datetimes(timezones=st.just(datetime.UTC))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=5
)
TABLES = st.dictionaries(st.sampled_from(NAMES) | TEXTS, VALUES, max_size=5)


def as_toml(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, str):
        escaped = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
        return f'"{"".join(escaped)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{as_toml(name)} = {as_toml(inner)}' for name, inner in value.items())} }}"
    return value.isoformat() if isinstance(value, datetime.date) else str(value)


# Names of columns in every table would else be found in one in a thousand.
WHOLE = TABLES.map(lambda table: {"label": "click", "logit": "score_a", **table, "log": "logs"})


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(table=WHOLE, defaults=TABLES, several=st.booleans())
def test_any_file_is_planned_or_refused_in_one_line(
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    table: dict[str, Any],
    defaults: dict[str, Any],
    several: bool,
) -> None:
    content = {"evaluations": {"x": table}} | ({"defaults": defaults} if several else {})
    text = "\n".join(f"{name} = {as_toml(value)}" for name, value in content.items())
    assert tomllib.loads(text).keys() == content.keys()
    file = repository / "fuzzed.toml"
    file.write_text(text)
    before = sorted(path.name for path in repository.iterdir())
    status = main(["plan", "x", "--file", str(file)])
    out, err = capsys.readouterr()
    if status:
        assert (status, out) == (2, "")
        assert err.startswith("fastloss: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert "Unexpected" not in err
    assert sorted(path.name for path in repository.iterdir()) >= before


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=TABLES)
def test_the_schema_refuses_what_the_reader_refuses(tmp_path: Path, table: dict[str, Any]) -> None:
    content = tomllib.loads(f"evaluations = {as_toml({'x': table})}")
    file = write(tmp_path, f"evaluations = {as_toml({'x': table})}")
    problems = list(jsonschema.Draft202012Validator(runs.make_schema()).iter_errors(content))
    refused = ""
    try:
        runs.choose(runs.read_evaluations(file), ["x"])
    except UsageError as error:
        refused = str(error)
    assert bool(refused) == bool(problems), (refused, problems)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    status = main(["run", "--file", str(write(tmp_path, content))])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert str(tmp_path) in err
