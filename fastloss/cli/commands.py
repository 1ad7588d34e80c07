"""The commands, each a thin caller of the API. They import what is heavy as they run, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App, Parameter

from fastloss._version import __version__
from fastloss.cli.options import (
    OutputOptions,
    ReadingOptions,
    RequestOptions,
    ScanOptions,
    ScoreOptions,
    WriteOptions,
)
from fastloss.cli.output import check_output, complain, emit, emit_bytes
from fastloss.errors import UsageError
from fastloss.gates import Gate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastloss.plan import Plan
    from fastloss.result import Result

GATE_FAILED = 1
FAILED = 2
INTERRUPTED = 130

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
_WRITE = WriteOptions()


@app.command(name="eval")
def evaluate(*log: str, request: RequestOptions, scan: ScanOptions = _SCAN, options: OutputOptions = _OUTPUT) -> int:
    """Evaluate predictions over a log in one pass.

    Parameters
    ----------
    log
        Parquet files, folders (hive partitions become columns), globs, s3:// or gs:// URLs.
    """
    output = options.output
    check_output(output, log)
    format = options.format
    if format is None:
        format = "table"
        if output is not None:
            format = {".json": "json", ".arrow": "arrow"}.get(output.suffix.lower(), "table")  # type: ignore[assignment]
    if format == "arrow" and output is None and sys.stdout.isatty():
        raise UsageError("--format arrow is binary and stdout is a terminal; add -o FILE, or a pipe.")
    plan = _plan(log, request, scan)
    gates = [Gate.parse(text, [metric.name for metric in plan.evaluation.metrics]) for text in options.fail_if or []]

    from fastloss.api import run_plan
    from fastloss.report.progress import progress_bar

    with progress_bar(options.progress) as report:
        result = run_plan(plan, report)
    if format == "arrow":
        emit_bytes(_arrow(result, as_file=output is not None), output)
    else:
        emit(result.to_json(indent=2) if format == "json" else str(result), output, is_json=format == "json")
    failures = [failure for gate in gates for failure in gate.failures(result)]
    for failure in failures:
        complain(failure)
    return GATE_FAILED if failures else 0


@app.command(name="plan")
def show_plan(*log: str, request: RequestOptions, scan: ScanOptions = _SCAN, options: OutputOptions = _OUTPUT) -> int:
    """Show what eval would read and compute; no row is read. It takes the same options.

    The plan goes to --output, as table or json; gates are checked, but not applied.

    Parameters
    ----------
    log
        Parquet files, folders (hive partitions become columns), globs, s3:// or gs:// URLs.
    """
    output = options.output
    check_output(output, log)
    if options.format not in (None, "table", "json"):
        raise UsageError(f"--format is {options.format!r}; a plan is written as table or json.")
    plan = _plan(log, request, scan)
    for text in options.fail_if or []:
        Gate.parse(text, [metric.name for metric in plan.evaluation.metrics])

    from fastloss.report.table import describe_plan, render_plan

    description = describe_plan(plan)
    if options.format == "json":
        import json

        emit(json.dumps(description, indent=2, ensure_ascii=False), output, is_json=True)
    else:
        emit(render_plan(description), output)
    return 0


@app.command(name="score")
def write_scores(
    *paths: str, request: ScoreOptions, reading: ReadingOptions = _READING, options: WriteOptions = _WRITE
) -> int:
    """Write every row's loss, gradient and hessian to Parquet.

    The last path is where to write: a folder, in which each file of the log gets one of the same name; or FILE.parquet
    for a single file, and with --top. Stopped and started again, it does what is left. The account is on stderr.

    Parameters
    ----------
    paths
        LOG... OUT: Parquet files, folders, globs, s3:// or gs:// URLs; then the file or folder to write.
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


@app.command(name="losses")
def show_losses(name: str | None = None, /) -> int:
    """List every loss and metric: formula, labels, predictions, parameters, aliases, source.

    Parameters
    ----------
    name
        One loss or metric, by its name or an alias.
    """
    from fastloss.report.losses import render_losses

    emit(render_losses(name))
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


def _plan(log: Sequence[str], request: RequestOptions, scan: ScanOptions) -> Plan:
    """Check a request against the log; no row is read."""
    from fastloss.plan import make_plan

    if not log:
        raise UsageError("No log was given; name Parquet files, folders, globs or URLs.")
    return make_plan(list(log), **request.arguments(), **scan.arguments())


def _arrow(result: Result, *, as_file: bool) -> bytes:
    import pyarrow as pa

    table = result.to_arrow()
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content
