"""The command ``fastloss``: a thin caller of the API.

stdout carries the result alone; progress and warnings go to stderr. Exit status: 0 fine, 1 a ``--fail-if`` gate
failed, 2 usage, data or I/O error (one line on stderr), 130 interrupted, 143 terminated, 129 hung up. Everything heavy
is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter

from fastloss._version import __version__
from fastloss.errors import FastlossError, UsageError

if TYPE_CHECKING:
    from fastloss.plan import Plan
    from fastloss.result import Result

GATE_FAILED = 1
FAILED = 2
INTERRUPTED = 130

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda value, limit: value <= limit,
    ">=": lambda value, limit: value >= limit,
    "<": lambda value, limit: value < limit,
    ">": lambda value, limit: value > limit,
}

app = App(
    name="fastloss",
    version=f"fastloss {__version__}",
    help="Evaluate prediction logs: every loss and metric over Parquet, exact sums, in one pass.",
    help_format="markdown",
    default_parameter=Parameter(negative_iterable=()),
)

_COLUMNS = Group("Columns", sort_key=1)
_QUESTION = Group("What to compute", sort_key=2)
_READING = Group("Reading", sort_key=3)
_OUTPUT = Group("Output", sort_key=4)

_Columns = Parameter(group=_COLUMNS)
_Question = Parameter(group=_QUESTION)
_Reading = Parameter(group=_READING)
_Output = Parameter(group=_OUTPUT)


_Reduction = Literal["mean", "sum", "sum_over_batch_size", "sum_by_nonzero_weights", "none"]
_Preset = Literal["keras", "torch", "sklearn", "xgboost", "lightgbm", "torchrec"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Request:
    """What `fastloss.evaluate` takes, as options.

    Parameters
    ----------
    label
        Label column: numbers or booleans.
    logit
        Logits: COLUMN, which names its model, or NAME=COLUMN. Repeat it for more models; a column whose name holds "="
        needs a NAME before it.
    prob
        Probabilities in [0, 1], given like --logit.
    logprob
        Natural logarithms of probabilities.
    margin
        Decision values.
    value
        Predictions in the unit of the label.
    weight
        Row weights, at least 0; rows of weight 0 are skipped.
    metric
        Metrics, comma separated or repeated, such as log_loss,normalized_entropy or 'log_loss(label_smoothing=0.1)';
        "fastloss losses" lists them. Left out: the usual ones for the predictions.
    by
        Slice by a column, or by the cross of several: country,device. Repeat it for more groupings.
    label_domain
        pm1 for labels -1 and +1.
    reduction
        How losses are summed up: the weighted mean (left out: this), the weighted sum, or that sum by the number of
        rows, of all or of those whose weight is not 0. The value of each row is what "fastloss score" writes.
    list_reduction
        A pointwise loss over list columns: the mean in each list, then over lists (left out: row), or over all
        candidates.
    preset
        The clipping, divisor and unit of another system, to reproduce its number.
    common_rows
        Evaluate all metrics over the same lists: those that every one of them can use.
    saturation
        Where a probability rules out what happened: clip it at 1e-12, keep the infinite loss, or stop. It is counted.
    on_bad_row
        At a NaN, a value outside its domain or a negative weight: stop, or leave the row out and count it.
    on_bad_file
        At an unreadable file: stop, or leave out what cannot be read and list it.
    reader
        What decodes Parquet; polars is for trusted files alone, since a malformed one may end the process.
    verify_checksums
        Verify the page checksums that files carry.
    memory
        Most memory that the scan may take, such as 512MiB (the default).
    threads
        Reader threads; left out, one for each core. No digit depends on it.
    executor
        Whether threads of one process read the log, or processes of their own.
    """

    label: Annotated[str, _Columns]
    logit: Annotated[list[str] | None, _Columns] = None
    prob: Annotated[list[str] | None, _Columns] = None
    logprob: Annotated[list[str] | None, _Columns] = None
    margin: Annotated[list[str] | None, _Columns] = None
    value: Annotated[list[str] | None, _Columns] = None
    weight: Annotated[str | None, _Columns] = None
    metric: Annotated[list[str] | None, Parameter(name=("--metric", "-m"), group=_QUESTION)] = None
    by: Annotated[list[str] | None, _Question] = None
    label_domain: Annotated[Literal["01", "pm1"], _Question] = "01"
    reduction: Annotated[_Reduction | None, _Question] = None
    list_reduction: Annotated[Literal["row", "element"] | None, _Question] = None
    preset: Annotated[_Preset | None, _Question] = None
    common_rows: Annotated[bool, Parameter(group=_QUESTION, negative=())] = False
    saturation: Annotated[Literal["clip", "exact", "error"], _Question] = "clip"
    on_bad_row: Annotated[Literal["raise", "drop"], _Reading] = "raise"
    on_bad_file: Annotated[Literal["raise", "skip"], _Reading] = "raise"
    reader: Annotated[Literal["pyarrow", "polars"], _Reading] = "pyarrow"
    verify_checksums: Annotated[bool, Parameter(group=_READING, negative=())] = False
    memory: Annotated[str | None, _Reading] = None
    threads: Annotated[int | None, _Reading] = None
    executor: Annotated[Literal["threads", "processes"], _Reading] = "threads"

    def plan(self, log: Sequence[str]) -> Plan:
        """Check the request against the log; no row is read."""
        from fastloss.budget import DEFAULT_MEMORY
        from fastloss.plan import make_plan
        from fastloss.request import SPACES, split_names

        if not log:
            raise UsageError("No log was given; name Parquet files, folders, globs or URLs.")
        models: dict[str, Any] = {space: _models(space, getattr(self, space) or []) for space in SPACES}
        return make_plan(
            list(log),
            label=self.label,
            **models,
            weight=self.weight,
            metrics=None if self.metric is None else [name for text in self.metric for name in split_names(text)],
            by=[_grouping(text) for text in self.by or []],
            label_domain=self.label_domain,
            reduction=self.reduction,
            list_reduction=self.list_reduction,
            preset=self.preset,
            common_rows=self.common_rows,
            saturation=self.saturation,
            on_bad_row=self.on_bad_row,
            on_bad_file=self.on_bad_file,
            reader=self.reader,
            verify_checksums=self.verify_checksums,
            memory=DEFAULT_MEMORY if self.memory is None else self.memory,
            threads=self.threads,
            executor=self.executor,
        )


def _models(space: str, given: Sequence[str]) -> dict[str, str]:
    models: dict[str, str] = {}
    for text in given:
        name, equals, column = text.partition("=")
        if not (name and (column or not equals)):
            raise UsageError(f"--{space} is {text!r}; write COLUMN or NAME=COLUMN.")
        if name in models:
            raise UsageError(f"Two predictions are called {name!r}; give each a name of its own: NAME=COLUMN.")
        models[name] = column if equals else name
    return models


def _grouping(text: str) -> tuple[str, ...]:
    return tuple(column.strip() for column in text.split(","))


@dataclass(frozen=True)
class Gate:
    """A condition on the total of every model under which the command fails, such as ``log_loss > 0.5``."""

    text: str
    metric: str
    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str, asked: Sequence[str]) -> Gate:
        """Read a gate on one of the metrics that were asked for."""
        from fastloss.metrics.names import parse_metric

        # <= and >= are tried first, because they begin like < and >.
        operator = next((operator for operator in _OPERATORS if operator in text), "")
        name, _, number = text.rpartition(operator) if operator else ("", "", "")
        try:
            limit = float(number)
        except ValueError:
            limit = float("nan")
        if not name.strip() or limit != limit:
            raise UsageError(f"--fail-if is {text!r}; write METRIC > NUMBER, with one of {', '.join(_OPERATORS)}.")
        metric = parse_metric(name.strip()).name
        if metric not in asked:
            raise UsageError(f"--fail-if names {metric}, which is not computed; computed are {', '.join(asked)}.")
        return cls(text, metric, operator, limit)

    def failures(self, result: Result) -> list[str]:
        """Say for which models the gate fails; a value that is null or NaN fails too."""
        failures = []
        for value in result.values:
            if value.slice or value.metric != self.metric:
                continue
            number = value.value
            if number is None:
                failures.append(f"gate {self.text!r} failed: {self.metric} of {value.model} is null ({value.reason})")
            elif number != number or _OPERATORS[self.operator](number, self.limit):
                failures.append(f"gate {self.text!r} failed: {self.metric} of {value.model} is {number!r}")
        return failures


_Output_file = Annotated[Path | None, Parameter(name=("--output", "-o"), group=_OUTPUT)]
_Gates = Annotated[list[str] | None, _Output]


@app.command(name="eval")
def evaluate(
    *log: str,
    request: Request,
    format: Annotated[Literal["table", "json", "arrow"] | None, _Output] = None,
    output: _Output_file = None,
    fail_if: _Gates = None,
    progress: Annotated[bool, _Output] = True,
) -> int:
    """Evaluate predictions over a log in one pass.

    Parameters
    ----------
    log
        Parquet files, folders (hive partitions become columns), globs, s3:// or gs:// URLs.
    format
        arrow is an Arrow IPC stream on stdout, and an Arrow IPC file with --output. Left out: what the name of
        --output ends in (.json, .arrow), else table.
    output
        Write the result here instead of to stdout; the file appears whole or not at all.
    fail_if
        Exit with status 1 if this holds for the total of any model, such as "normalized_entropy > 0.95", or if the
        value is null. Repeat it for more gates.
    progress
        The progress bar on stderr; there is none where stderr is no terminal.
    """
    _check_output(output, log)
    if format is None:
        suffixes: dict[str, Literal["json", "arrow"]] = {".json": "json", ".arrow": "arrow"}
        format = "table" if output is None else suffixes.get(output.suffix.lower(), "table")
    if format == "arrow" and output is None and sys.stdout.isatty():
        raise UsageError("--format arrow is binary and stdout is a terminal; add -o FILE, or a pipe.")
    plan = request.plan(log)
    gates = [Gate.parse(text, [metric.name for metric in plan.evaluation.metrics]) for text in fail_if or []]

    from fastloss.api import run_plan
    from fastloss.report.progress import progress_bar

    with progress_bar(progress) as report:
        result = run_plan(plan, report)
    if format == "arrow":
        _emit_bytes(_arrow(result, as_file=output is not None), output)
    else:
        _emit(result.to_json(indent=2) if format == "json" else str(result), output, is_json=format == "json")
    failures = [failure for gate in gates for failure in gate.failures(result)]
    for failure in failures:
        _complain(failure)
    return GATE_FAILED if failures else 0


@app.command(name="plan")
def show_plan(
    *log: str,
    request: Request,
    format: Annotated[Literal["table", "json"], _Output] = "table",
    output: _Output_file = None,
    fail_if: _Gates = None,
    progress: Annotated[bool, Parameter(group=_OUTPUT, show=False)] = True,
) -> int:
    """Show what eval would read and compute; no row is read. It takes the same options.

    Parameters
    ----------
    log
        Parquet files, folders (hive partitions become columns), globs, s3:// or gs:// URLs.
    output
        Write the plan here instead of to stdout.
    fail_if
        Checked, but not applied.
    """
    _check_output(output, log)
    plan = request.plan(log)
    for text in fail_if or []:
        Gate.parse(text, [metric.name for metric in plan.evaluation.metrics])

    from fastloss.report.table import describe_plan, render_plan

    description = describe_plan(plan)
    if format == "json":
        import json

        _emit(json.dumps(description, indent=2, ensure_ascii=False), output, is_json=True)
    else:
        _emit(render_plan(description), output)
    return 0


@app.command(name="score")
def write_scores(
    *paths: str,
    label: Annotated[str, _Columns],
    loss: Annotated[str, _Question],
    logit: Annotated[str | None, _Columns] = None,
    prob: Annotated[str | None, _Columns] = None,
    logprob: Annotated[str | None, _Columns] = None,
    margin: Annotated[str | None, _Columns] = None,
    value: Annotated[str | None, _Columns] = None,
    keep: Annotated[list[str] | None, _Columns] = None,
    top: Annotated[int | None, _Question] = None,
    label_domain: Annotated[Literal["01", "pm1"], _Question] = "01",
    list_reduction: Annotated[Literal["row", "element"] | None, _Question] = None,
    preset: Annotated[_Preset | None, _Question] = None,
    saturation: Annotated[Literal["clip", "exact", "error"], _Question] = "clip",
    on_bad_row: Annotated[Literal["raise", "drop"], _Reading] = "raise",
    on_bad_file: Annotated[Literal["raise", "skip"], _Reading] = "raise",
    reader: Annotated[Literal["pyarrow", "polars"], _Reading] = "pyarrow",
    verify_checksums: Annotated[bool, Parameter(group=_READING, negative=())] = False,
    memory: Annotated[str | None, _Reading] = None,
    threads: Annotated[int | None, _Reading] = None,
    compression: Annotated[Literal["zstd", "snappy", "lz4", "gzip", "brotli", "none"], _Output] = "zstd",
    overwrite: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False,
    progress: Annotated[bool, _Output] = True,
) -> int:
    """Write every row's loss, gradient and hessian to Parquet.

    The last path is where to write: a folder, in which each file of the log gets one of the same name; or FILE.parquet
    for a single file, and with --top. Stopped and started again, it does what is left. The account is on stderr.

    Parameters
    ----------
    paths
        LOG... OUT: Parquet files, folders, globs, s3:// or gs:// URLs; then the file or folder to write.
    label
        Label column: numbers or booleans.
    loss
        The loss, such as log_loss or 'log_loss(label_smoothing=0.1)'; "fastloss losses" lists them.
    logit
        Column of logits.
    prob
        Column of probabilities in [0, 1].
    logprob
        Column of natural logarithms of probabilities.
    margin
        Column of decision values.
    value
        Column of predictions in the unit of the label.
    keep
        Columns to write beside, comma separated or repeated.
    top
        Write only the rows with the largest losses of the whole log, this many.
    label_domain
        pm1 for labels -1 and +1.
    list_reduction
        A pointwise loss over list columns: the mean in each list (row), or the sum, whose gradient is that of
        each candidate alone (element).
    preset
        The clipping and the unit of another system.
    saturation
        Where a probability rules out what happened: clip it at 1e-12, keep the infinite loss, or stop. It is counted.
    on_bad_row
        At a NaN or a value outside its domain: stop, or give the row nulls and count it.
    on_bad_file
        At an unreadable file: stop, or write nothing for it and list it.
    reader
        What decodes Parquet; polars is for trusted files alone, since a malformed one may end the process.
    verify_checksums
        Verify the page checksums that files carry.
    memory
        Most memory that scoring may take, such as 512MiB (the default).
    threads
        Threads, each with one file at a time; left out, one for each core. No digit depends on it.
    compression
        The codec of what is written.
    overwrite
        Replace what exists. Left out, what a run with the same request has written stays, and all else is an error.
    progress
        The progress bar on stderr; there is none where stderr is no terminal.
    """
    if len(paths) < 2:
        raise UsageError("Name the log and, last, where to write: fastloss score LOG... OUT.")
    from fastloss.api import score
    from fastloss.budget import DEFAULT_MEMORY
    from fastloss.report.progress import progress_bar

    with progress_bar(progress) as report:
        scored = score(
            list(paths[:-1]),
            paths[-1],
            label=label,
            loss=loss,
            logit=logit,
            prob=prob,
            logprob=logprob,
            margin=margin,
            value=value,
            keep=[column.strip() for text in keep or [] for column in text.split(",")],
            top=top,
            compression=compression,
            overwrite=overwrite,
            label_domain=label_domain,
            list_reduction=list_reduction,
            preset=preset,
            saturation=saturation,
            on_bad_row=on_bad_row,
            on_bad_file=on_bad_file,
            reader=reader,
            verify_checksums=verify_checksums,
            memory=DEFAULT_MEMORY if memory is None else memory,
            threads=threads,
            progress=report,
        )
    for line in str(scored).splitlines():
        _complain(line)
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

    _emit(render_losses(name))
    return 0


@app.command(name="doctor")
def show_doctor() -> int:
    """Check this installation: versions, processor, kernel cache, GPU, and a self-test of the kernels."""
    from fastloss.doctor import examine

    report, healthy = examine()
    _emit(report)
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

    _emit(run_demo(folder, rows))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``fastloss``; left out, those of the process.
    """
    if sys.stdout is None:
        _complain("stdout is closed; redirect it to a file or to /dev/null.")
        return FAILED
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            command, bound, _ = app.parse_args(
                sys.argv[1:] if argv is None else list(argv), print_error=False, exit_on_error=False
            )
            if not isinstance(getattr(command, "__self__", None), App):
                return int(command(*bound.args, **bound.kwargs))
            # --help and --version, printed by Rich, which ends the process where stdout was closed early.
            with _guarded_stdout(), contextlib.suppress(SystemExit):
                command(*bound.args, **bound.kwargs)
            return 0
        except CycloptsError as error:
            _complain(f"{error} See fastloss --help.")
        except FastlossError as error:
            _complain(_with_options(str(error)))
        except MemoryError:
            _complain("Out of memory; lower --memory or --threads, or slice by fewer values.")
        except OSError as error:
            _complain(f"{error.strerror or error}{'' if error.filename is None else f': {error.filename!r}'}")
        except KeyboardInterrupt:
            _complain("interrupted")
            return INTERRUPTED
        except Exception as error:
            _complain_of_bug(error)
        except BaseException as error:
            # Rust libraries raise their panics past Exception.
            if type(error).__name__ != "PanicException":
                raise
            _complain_of_bug(error)
        return FAILED


def _complain(message: str) -> None:
    # Without stderr, as after 2>&-, print would write to stdout.
    if sys.stderr is not None:
        print("fastloss:", " ".join(message.split()), file=sys.stderr)


def _with_options(message: str) -> str:
    """Replace arguments of the API, as its messages name them, by the options that stand for them here."""
    message = re.sub(
        r"(?<![(\w])(label_domain|saturation|on_bad_row|on_bad_file|reader)='(\w+)'",
        lambda found: f"--{found[1].replace('_', '-')} {found[2]}",
        message,
    )
    message = message.replace("overwrite=True", "--overwrite")
    return re.sub(r"\b(logit|prob|logprob|margin|value)=(?=[\s.,;]|$)", r"--\1", message)


def _complain_of_bug(error: BaseException) -> None:
    if os.environ.get("FASTLOSS_DEBUG") == "1":
        traceback.print_exception(error)
    _complain(
        f"Unexpected {type(error).__name__}: {error}. This is a bug; "
        "set FASTLOSS_DEBUG=1 to see where it happened, and report it."
    )


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _complain(f"warning: {message}")


@contextlib.contextmanager
def _guarded_stdout() -> Iterator[None]:
    """Write what is left in the buffer; a reader that left early, such as ``head``, is no error."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes once more at its end, and must not find the same error there.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def _emit(text: str, output: Path | None = None, *, is_json: bool = False) -> None:
    # JSON is UTF-8 by its standard. A terminal that cannot show a character gets its escape.
    encoding = "utf-8" if is_json or output is not None else sys.stdout.encoding
    _emit_bytes((text + "\n").encode(encoding, "backslashreplace"), output)


def _emit_bytes(content: bytes, output: Path | None) -> None:
    if output is not None:
        from fastloss.files import atomic_file

        # A second command may be writing the same file; to wait is better than to lose what was computed.
        with atomic_file(output, wait=True) as part:
            part.write_bytes(content)
        return
    with _guarded_stdout():
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def _check_output(output: Path | None, log: Sequence[str]) -> None:
    """Refuse a file that cannot or must not be written before the log is read."""
    if output is None:
        return
    from fastloss.files import is_device
    from fastloss.sources.listing import refuse_output_in_log

    folder = Path(os.path.realpath(output)).parent
    if output.is_dir():
        raise UsageError(f"--output {str(output)!r} is a folder; name a file in it.")
    if not is_device(output):
        if not folder.is_dir():
            raise UsageError(f"--output {str(output)!r} lies in a folder that does not exist; create {str(folder)!r}.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"--output {str(output)!r} lies in a folder that you may not write to; choose another.")
    refuse_output_in_log(output, log)


def _arrow(result: Result, *, as_file: bool) -> bytes:
    import pyarrow as pa

    table = result.to_arrow()
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content
