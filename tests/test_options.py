"""An option has one name, one default and one list of words: in the API, on the command line and in what they make."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

import pytest

from fastloss import api, words
from fastloss.budget import ExecutionOptions, parse_bytes
from fastloss.cli import main
from fastloss.cli.options import (
    CalibrateOptions,
    GradientOptions,
    MapOptions,
    MergeOptions,
    OutputOptions,
    RankingOptions,
    ReadingOptions,
    RequestOptions,
    ResultOptions,
    ScanOptions,
    ScoreOptions,
    WriteOptions,
)
from fastloss.engine.device import DEVICES
from fastloss.executors import EXECUTORS
from fastloss.metrics.curves import CURVES
from fastloss.metrics.presets import PRESETS, REDUCTIONS
from fastloss.report.formats import FORMATS
from fastloss.request import SPACES, Request
from fastloss.scoring import ScoreRequest
from fastloss.sources.parquet.decoders import DECODERS

# What a call of Python has and a command line has not.
API_ALONE = {"curves", "log", "out", "predictions", "batch_rows", "device", "states", "progress"}
# What a command does with a result; and the progress bar is another thing than a callable.
COMMAND_LINE_ALONE = {
    "curve",
    "format",
    "output",
    "slices",
    "sort",
    "min_rows",
    "wide",
    "fail_if",
    "max_dropped",
    "progress",
}
# What a command line calls otherwise.
NAMES = {"metric": "metrics", "storage_option": "storage_options"}


def words_of(hint: Any) -> tuple[str, ...]:
    """The allowed words of a type, if it has some."""
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for part in typing.get_args(hint) if (found := words_of(part))), ())
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def options_of(*classes: type) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Name -> default and allowed words of the fields of dataclasses."""
    found = {}
    for each in classes:
        hints = typing.get_type_hints(each, include_extras=True)
        for field in dataclasses.fields(each):
            found[NAMES.get(field.name, field.name)] = (field.default, words_of(hints[field.name]))
    return found


def parameters_of(function: Callable[..., Any]) -> dict[str, tuple[Any, tuple[str, ...]]]:
    hints = typing.get_type_hints(function)
    return {
        name: (parameter.default, words_of(hints[name]))
        for name, parameter in inspect.signature(function).parameters.items()
    }


def test_evaluate_takes_what_a_request_and_its_execution_have() -> None:
    made = options_of(Request, ExecutionOptions)
    taken = parameters_of(api.evaluate)
    given = {"log", "state", "progress", "predictions", "apply", "sampling_rate", *SPACES}
    assert set(made) - {"models", "mapped"} == set(taken) - given
    for name in set(made) & set(taken) - {"label"}:
        assert made[name] == taken[name], name


def test_score_takes_what_a_score_request_has() -> None:
    made = options_of(ScoreRequest)
    del made["request"]
    taken = parameters_of(api.score)
    assert {name: taken[name] for name in made} == made


@pytest.mark.parametrize(
    ("function", "groups"),
    [
        (api.evaluate, (RequestOptions, ScanOptions, OutputOptions)),
        (api.merge, (MergeOptions, ResultOptions)),
        (api.score, (ScoreOptions, ReadingOptions, WriteOptions)),
        (api.calibrate, (CalibrateOptions, ScanOptions, MapOptions)),
        (api.feature_gradient, (GradientOptions, ScanOptions, RankingOptions)),
    ],
    ids=["eval", "merge", "score", "calibrate", "gradient"],
)
def test_the_command_line_takes_what_the_function_takes(function: Callable[..., Any], groups: tuple[type]) -> None:
    taken, given = parameters_of(function), options_of(*groups)
    if function is api.merge:
        taken["state"] = taken.pop("output_state")
    # How many rows are written decides what is computed; how many features are shown does not.
    alone = COMMAND_LINE_ALONE | ({"top"} if function is api.feature_gradient else set())
    given = {name: found for name, found in given.items() if name not in alone}
    assert set(given) == set(taken) - API_ALONE
    for name in set(given) - {"label", "loss", "features"}:
        default, allowed = taken[name]
        assert given[name][1] == allowed, name
        if name == "memory":
            assert parse_bytes(given[name][0]) == default
        else:
            # An empty list is what a command line has where nothing is written.
            assert (given[name][0] or None) == (default or None), name


def test_score_and_evaluate_agree_where_both_have_an_option() -> None:
    evaluate, score = parameters_of(api.evaluate), parameters_of(api.score)
    for name in set(evaluate) & set(score):
        assert evaluate[name] == score[name], name
    calibrate = parameters_of(api.calibrate)
    for name in set(calibrate) & set(score):
        assert calibrate[name] == score[name], name


@pytest.mark.parametrize(
    ("function", "planner"),
    [
        ("evaluate", "make_plan"),
        ("score", "make_score_plan"),
        ("calibrate", "plan_calibration"),
        ("feature_gradient", "make_gradient_plan"),
    ],
)
def test_every_argument_is_passed_on(monkeypatch: pytest.MonkeyPatch, function: str, planner: str) -> None:
    passed: dict[str, Any] = {}

    class Passed(Exception):  # noqa: N818
        pass

    def catch(*positional: Any, **named: Any) -> None:
        passed.update(named)
        raise Passed

    monkeypatch.setattr(api, planner, catch)
    names = inspect.signature(getattr(api, function)).parameters
    given = {name: object() for name in names if name not in ("progress", "state")}
    with pytest.raises(Passed):
        getattr(api, function)(**given)
    assert passed == {name: value for name, value in given.items() if name not in ("log", "out")}


@pytest.mark.parametrize(
    ("known", "allowed"),
    [
        (PRESETS, words.PresetName),
        (REDUCTIONS, words.Reduction),
        (DECODERS, words.Reader),
        (EXECUTORS, words.ExecutorName),
        (DEVICES, words.DeviceName),
        (FORMATS, words.FormatName),
        (CURVES, words.CurveName),
    ],
)
def test_words_are_those_that_are_registered(known: Any, allowed: Any) -> None:
    assert tuple(known) == typing.get_args(allowed)


@pytest.mark.parametrize(
    "group",
    [
        RequestOptions,
        ScoreOptions,
        CalibrateOptions,
        GradientOptions,
        ReadingOptions,
        ScanOptions,
        OutputOptions,
        RankingOptions,
        WriteOptions,
        MapOptions,
    ],
)
def test_every_option_is_explained(group: type) -> None:
    explained = "\n".join(inspect.getdoc(each) or "" for each in group.__mro__)
    for field in dataclasses.fields(group):
        assert f"\n{field.name}\n    " in explained, field.name


def test_every_option_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {
        "eval": (RequestOptions, ScanOptions, OutputOptions),
        "plan": (RequestOptions, ScanOptions, OutputOptions),
        "score": (ScoreOptions, ReadingOptions, WriteOptions),
        "calibrate": (CalibrateOptions, ScanOptions, MapOptions),
        "gradient": (GradientOptions, ScanOptions, RankingOptions),
    }
    for command, groups in commands.items():
        assert main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        for group in groups:
            for field in dataclasses.fields(group):
                assert f"--{field.name.replace('_', '-')} " in shown, f"{command} --{field.name}"
