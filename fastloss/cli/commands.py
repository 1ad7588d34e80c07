"""The commands, each a thin caller of the API. They import what is heavy as they run, so that ``--help`` is quick."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from fastloss._version import __version__
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
from fastloss.cli.output import (
    Target,
    check_output,
    choose_format,
    choose_target,
    complain,
    complain_of,
    curve_files,
    emit,
    emit_bytes,
)
from fastloss.cli.runs import (
    FILE_NAME,
    Evaluation,
    Given,
    choose,
    find_file,
    given_of,
    is_path,
    make_schema,
    options_of,
    read_evaluations,
)
from fastloss.errors import FastlossError, UsageError, nearest_names
from fastloss.gates import Gate, dropped_failures, parse_dropped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastloss.merging import MergePlan
    from fastloss.plan import Plan
    from fastloss.result import Result

GATE_FAILED = 1
FAILED = 2
INTERRUPTED = 130

# A gate on every slice may fail in thousands of them.
_FAILURES_SAID = 20

# A longer ranking is no longer read by a person.
_SHOWN_FEATURES = 50

_FILE = Parameter(group="File")
_NO_LOG = "No log was given; name Parquet files, folders, globs, URLs or @lists."

app = App(
    name="fastloss",
    version=f"fastloss {__version__}",
    help="Evaluate prediction logs: every loss and metric over Parquet, exact sums, in one pass.",
    help_format="markdown",
    default_parameter=Parameter(negative_iterable=()),
)

_SCAN = ScanOptions()
_READING = ReadingOptions()
_OUTPUT = OutputOptions()
_MERGE = MergeOptions()
_GIVEN = Given()
_RESULT = ResultOptions()
_WRITE = WriteOptions()
_MAP = MapOptions()
_RANKING = RankingOptions()


@app.command(name="eval")
def evaluate(*log: str, request: RequestOptions, scan: ScanOptions = _SCAN, options: OutputOptions = _OUTPUT) -> int:
    """Evaluate predictions over a log in one pass.

    Parameters
    ----------
    log
        Files (Parquet, Arrow, CSV, JSON lines), folders, globs, URLs (s3://, ...), @FILE lists; or a Delta or Iceberg
        table.
    """
    return _evaluate(log, request, scan, options)


@app.command(name="run")
def run_evaluations(
    *names: str,
    file: Annotated[Path | None, _FILE] = None,
    log: Annotated[list[str] | None, Parameter(group="File", negative=())] = None,
    given: Given = _GIVEN,
) -> int:
    """Carry out evaluations by their names in fastloss.toml; without a name, list them.

    [evaluations.NAME] there holds the log and the options of eval, --fail-if as fail-if, and [defaults] what all of
    them start from. An option given here takes the place of the file's. Several are carried out one after the other,
    and the exit status is the worst of them.

    Parameters
    ----------
    names
        The evaluations.
    file
        The file. Left out: fastloss.toml in this folder or above it, up to the root of the repository.
    log
        Evaluate this log instead. Repeat it for more paths.
    """
    evaluations = read_evaluations(file)
    if not names:
        if log or given_of(given):
            raise UsageError(f"No evaluation was named; there is {', '.join(map(repr, evaluations))}.")
        if listed := [evaluation for evaluation in evaluations.values() if evaluation.fault is None]:
            emit(_listed(listed))
        faults = [evaluation.fault for evaluation in evaluations.values() if evaluation.fault is not None]
        for fault in faults:
            complain_of(fault)
        return FAILED if faults else 0
    chosen = choose(evaluations, names)
    _refuse_one_place(chosen, given)

    def run(evaluation: Evaluation) -> int:
        request, scan, options = evaluation.options(given)
        return _evaluate(log or evaluation.log, request, scan, options, heading=_heading(evaluation, chosen))

    return _each(chosen, run)


@app.command(name="schema")
def show_schema(*, output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None) -> int:
    """Show the JSON schema of fastloss.toml, by which an editor completes and checks it.

    Parameters
    ----------
    output
        Write it to this file instead of to stdout.
    """
    import json

    check_output(output, ())
    emit(json.dumps(make_schema(), indent=2, ensure_ascii=False), output, is_json=True)
    return 0


@app.command(name="merge")
def merge_states(*states: str, request: MergeOptions = _MERGE, options: ResultOptions = _RESULT) -> int:
    """Merge the states that eval --state has written: the result of one evaluation over all their logs.

    States must be of the same request, and have no file of the log in common.

    Parameters
    ----------
    states
        The files, in any order.
    """
    from fastloss.api import run_merge_plan
    from fastloss.merging import plan_merge
    from fastloss.metrics.curves import check_curves
    from fastloss.state_file import refuse_inputs

    if not states:
        raise UsageError("No state was given; name files that eval --state has written.")
    target = choose_target(options, ())
    plan = plan_merge(list(states), **request.arguments())
    saved = plan.evaluation
    check_curves(target.kinds, (*saved.metrics, *saved.hidden), saved.models, saved.specs)
    for option, path in target.files:
        refuse_inputs(path, plan.inputs, option)
    gates = _gates(plan, options)
    result = run_merge_plan(plan, options.state)
    target.write(result)
    return _judge(result, gates, options)


@app.command(name="plan")
def show_plan(*log: str, file: Annotated[Path | None, _FILE] = None, given: Given = _GIVEN) -> int:
    """Show what eval or run would read and compute; no row is read. It takes the same options.

    The plan goes to --output, as table or json; gates and --state are checked, but not applied.

    Parameters
    ----------
    log
        Files (Parquet, Arrow, CSV, JSON lines), folders, globs, URLs (s3://, ...), @FILE lists; or a Delta or Iceberg
        table.
        Or the names of evaluations in fastloss.toml: with --file, and where there is no such path.
    file
        The file of the evaluations. Left out: fastloss.toml in this folder or above it, up to the root of the
        repository.
    """
    chosen = _evaluations_of(log, file, given)
    if not chosen:
        return _show_plan(log, *options_of(given))
    _refuse_one_place(chosen, given)

    def show(evaluation: Evaluation) -> int:
        return _show_plan(evaluation.log, *evaluation.options(given), heading=_heading(evaluation, chosen))

    return _each(chosen, show)


@app.command(name="score")
def write_scores(
    *paths: str, request: ScoreOptions, reading: ReadingOptions = _READING, options: WriteOptions = _WRITE
) -> int:
    """Write every row's loss, gradient and hessian to Parquet; with --group, the losses and rankings of every group.

    The last path is where to write: a folder, in which each file of the log gets one of the same name; or FILE.parquet
    for a single file, and with --top or --group. Stopped and started again, it does what is left, but of groups. The
    account is on stderr.

    Parameters
    ----------
    paths
        LOG... OUT: Parquet files, folders, globs, URLs (s3://, ...), @FILE lists; then the file or folder to write.
    """
    if len(paths) < 2:
        raise UsageError("Name the log and, last, where to write: fastloss score LOG... OUT.")
    from fastloss.api import score
    from fastloss.report.progress import progress_bar

    with progress_bar(options.progress) as report:
        scored = score(
            list(paths[:-1]),
            paths[-1],
            **request.arguments(),
            **reading.arguments(),
            compression=options.compression,
            overwrite=options.overwrite,
            progress=report,
        )
    for line in str(scored).splitlines():
        complain(line)
    return 0


@app.command(name="calibrate")
def calibrate_scores(
    *log: str, request: CalibrateOptions, scan: ScanOptions = _SCAN, options: MapOptions = _MAP
) -> int:
    """Fit a map that mends predictions, and say how much of the log loss it mends.

    The log is read a few times. The map is printed, and written as JSON by -o.

    Parameters
    ----------
    log
        Files (Parquet, Arrow, CSV, JSON lines), folders, globs, URLs (s3://, ...), @FILE lists; or a Delta or Iceberg
        table.
    """
    if not log:
        raise UsageError(_NO_LOG)
    from fastloss.files import is_device

    check_output(options.output, log, scan)
    if options.output is not None and options.output.suffix.lower() != ".json" and not is_device(options.output):
        raise UsageError(
            f"--output ends in {options.output.suffix or 'nothing'}; allowed: .json, as a map is written."
        )

    from fastloss.api import calibrate
    from fastloss.report.progress import progress_bar

    with progress_bar(options.progress) as report:
        found = calibrate(list(log), **request.arguments(), **scan.arguments(), progress=report)
    if options.output is not None:
        found.write(options.output)
    if options.format == "json":
        import json

        emit(json.dumps(found.to_dict(), indent=2, ensure_ascii=False), is_json=True)
    else:
        emit(str(found))
    return 0


@app.command(name="gradient")
def show_gradient(
    *log: str, request: GradientOptions, scan: ScanOptions = _SCAN, options: RankingOptions = _RANKING
) -> int:
    """Rank features by what the model has not used of them: the gradient of the loss by a linear layer over them.

    z is the feature's gradient over its standard error if the true one is 0; improvement is what one Newton step of
    the feature and the bias takes off the mean loss. Exact sums, in one pass; ids, and others that vary little beside
    their size, need a second.

    Parameters
    ----------
    log
        Files (Parquet, Arrow, CSV, JSON lines), folders, globs, URLs (s3://, ...), @FILE lists; or a Delta or Iceberg
        table.
    """
    output, format = choose_format(options.format, options.output, log, scan)
    if not log:
        raise UsageError(_NO_LOG)
    if options.top is not None and options.top < 0:
        raise UsageError(f"--top is {options.top}; allowed: a whole number from 0.")
    if not (request.features or request.categorical):
        raise UsageError("No feature was named; name columns by --features, comma separated.")

    from fastloss.api import feature_gradient
    from fastloss.report.gradient import write
    from fastloss.report.progress import progress_bar

    with progress_bar(options.progress) as report:
        found = feature_gradient(list(log), **request.arguments(), **scan.arguments(), progress=report)
    top = _SHOWN_FEATURES if options.top is None and format.is_read and output is None else options.top
    content = write(found, format, options.sort, top, as_file=output is not None)
    if isinstance(content, bytes):
        emit_bytes(content, output)
    else:
        emit(content, output, is_json=format.name == "json")
    if not found.n:
        complain("warning: no row was used, and every value is null; the result says what became of the rows.")
    return 0


@app.command(name="losses")
def show_losses(
    name: str | None = None,
    /,
    *,
    short: Annotated[bool, Parameter(negative=())] = False,
    format: Literal["table", "json"] = "table",
) -> int:
    """List every loss and metric: formula, labels, predictions, parameters, aliases, source.

    Parameters
    ----------
    name
        One loss or metric, by its name or an alias.
    short
        One line for each: name, kind and predictions.
    format
        json is a list of objects.
    """
    from fastloss.report.losses import describe_losses, render_losses, render_short

    if format == "json":
        import json

        described = describe_losses(name)
        emit(json.dumps(described, indent=2, ensure_ascii=False), is_json=True)
    else:
        emit((render_short if short else render_losses)(name))
    return 0


@app.command(name="doctor")
def show_doctor() -> int:
    """Check this installation: versions, processor, kernel cache, GPU, and a self-test of the kernels."""
    from fastloss.doctor import examine

    report, healthy = examine()
    emit(report)
    return 0 if healthy else FAILED


@app.command(name="demo")
def show_demo(*, folder: Path | None = None, rows: int = 200_000) -> int:
    """Write a small click log and evaluate it.

    Parameters
    ----------
    folder
        Keep the log in this folder, which must be new or empty; left out, it is temporary.
    rows
        How many rows the log has.
    """
    from fastloss.demo import run_demo

    emit(run_demo(folder, rows))
    return 0


def _evaluate(
    log: Sequence[str], request: RequestOptions, scan: ScanOptions, options: OutputOptions, *, heading: str = ""
) -> int:
    """Evaluate a log, write the result under a heading, and return the exit status."""
    target = choose_target(options, log, scan)
    plan = _plan(log, request, scan, target)
    gates = _gates(plan, options)

    from fastloss.api import run_plan
    from fastloss.report.progress import progress_bar

    with progress_bar(options.progress) as report:
        # A gate may look at any slice.
        choice = None if any(gate.slice for gate in gates) else target.choice(plan.evaluation)
        result = run_plan(plan, report, options.state, choice)
    _head(target, heading)
    target.write(result)
    return _judge(result, gates, options)


def _show_plan(
    log: Sequence[str], request: RequestOptions, scan: ScanOptions, options: OutputOptions, *, heading: str = ""
) -> int:
    target = choose_target(options, log, scan)
    if target.format.name not in ("table", "json"):
        raise UsageError(f"The format is {target.format.name}; a plan is written as table or json.")
    plan = _plan(log, request, scan, target)
    _gates(plan, options)

    from fastloss.report.table import describe_plan, render_plan

    _head(target, heading)
    description = describe_plan(plan)
    if target.format.name == "json":
        import json

        emit(json.dumps(description, indent=2, ensure_ascii=False), target.output, is_json=True)
    else:
        emit(render_plan(description), target.output)
    return 0


def _evaluations_of(words: Sequence[str], file: Path | None, given: Given) -> list[Evaluation]:
    """Return the evaluations that the words of plan name; none where they are a log."""
    if file is not None:
        if not words:
            raise UsageError(f"No evaluation of {str(file)!r} was named; fastloss run --file {file} lists them.")
        return choose(read_evaluations(file), words)
    # A path that exists is a path, whatever a file calls its evaluations.
    if not words or any(is_path(word) for word in words):
        return []
    found = find_file()
    evaluations = {} if found is None else read_evaluations(found)
    if any(word in evaluations for word in words):
        return choose(evaluations, words)
    if "label" not in given_of(given):
        hint = f" {nearest_names(words[0], evaluations)}" if evaluations else ""
        raise UsageError(f"{words[0]!r} is no path, and no evaluation of a {FILE_NAME}.{hint}")
    return []


def _each(chosen: Sequence[Evaluation], act: Callable[[Evaluation], int]) -> int:
    """Carry out one evaluation after the other; return the worst exit status."""
    worst = 0
    for evaluation in chosen:
        try:
            with evaluation.naming():
                status = act(evaluation)
        except FastlossError as error:
            complain_of(error)
            status = FAILED
        worst = max(worst, status)
    return worst


def _refuse_one_place(chosen: Sequence[Evaluation], given: Given) -> None:
    """Refuse several results in one file, and on stdout in a format in which one cannot follow the other."""
    places: dict[str, str] = {}
    for evaluation in chosen if len(chosen) > 1 else ():
        with evaluation.naming():
            _, _, options = evaluation.options(given)
        curves = [("--curve", path) for _, path in curve_files(options)]
        for option, path in (("--output", options.output), ("--state", options.state), *curves):
            if path is None or path == Path("-"):
                continue
            other = places.setdefault(os.path.realpath(path), evaluation.name)
            if other != evaluation.name:
                raise UsageError(
                    f"{option} of {other} and of {evaluation.name} is {str(path)!r}; give each a file of its own."
                )
        if options.output in (None, Path("-")) and options.format not in (None, "table", "markdown"):
            raise UsageError(
                f"{evaluation.name} writes {options.format} to stdout, as one of {len(chosen)} evaluations; "
                "give each a file by output, or run one at a time."
            )


def _heading(evaluation: Evaluation, chosen: Sequence[Evaluation]) -> str:
    return evaluation.name if len(chosen) > 1 else ""


def _head(target: Target, heading: str) -> None:
    if heading and target.output is None:
        emit(f"# {heading}\n")


def _listed(evaluations: Iterable[Evaluation]) -> str:
    """Return a table of evaluations: name, log and metrics."""
    rows = [("name", "log", "metrics")]
    for evaluation in evaluations:
        metrics = ", ".join(evaluation.given.get("metric") or ["the usual ones"])
        rows.append((evaluation.name, ", ".join(evaluation.log), metrics))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"{name:{widths[0]}}  {log:{widths[1]}}  {metrics}" for name, log, metrics in rows)


def _plan(log: Sequence[str], request: RequestOptions, scan: ScanOptions, target: Target) -> Plan:
    """Check a request against the log; no row is read."""
    from fastloss.plan import make_plan

    if not log:
        raise UsageError(_NO_LOG)
    return make_plan(list(log), **request.arguments(), **scan.arguments(), curves=target.kinds)


def _gates(plan: Plan | MergePlan, options: ResultOptions) -> list[Gate]:
    """Check what is done with the result, before the log is read."""
    from fastloss.result import sorting_metric

    asked = plan.asked()
    sorting_metric(options.sort, asked["metrics"])
    if options.max_dropped is not None:
        parse_dropped(options.max_dropped)
    if any(kind == "reliability" for kind, _ in curve_files(options)):
        from fastloss.metrics.curves import check_one_binning

        check_one_binning(plan.evaluation.metrics, "evaluate one of them beside --curve.")
    return [Gate.parse(text, asked) for text in options.fail_if or []]


def _judge(result: Result, gates: Sequence[Gate], options: ResultOptions) -> int:
    """Say what is wrong with a result, and return the exit status."""
    used = result.rows["used"]
    if not any(used.values() if isinstance(used, dict) else [used]):
        complain("warning: no row was used, and every value is null; the result says what became of the rows.")
    failures = [failure for gate in gates for failure in gate.failures(result)]
    for gate in gates:
        if doubt := gate.doubt(result):
            complain(doubt)
    if options.max_dropped is not None:
        failures += dropped_failures(result, options.max_dropped)
    for failure in failures[:_FAILURES_SAID]:
        complain(failure)
    if len(failures) > _FAILURES_SAID:
        complain(f"{len(failures) - _FAILURES_SAID:,} more failures of gates")
    return GATE_FAILED if failures else 0
