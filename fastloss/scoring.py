"""Scoring: the loss, gradient and hessian of every row, written to Parquet beside the columns that the user keeps.

Each input file has one output file of the same relative name, with its rows in the same order, so that row i of one
belongs to row i of the other; a row that has no loss keeps its place, with nulls. Whatever stops a run, the files that
are there are whole (`fastloss.files`), and a run with the same request does the rest: each output carries a
fingerprint of the request and of its input, and the counts of its rows.

Text is read, and written, as Arrow dictionaries, which saves most of the time and memory that it would take. The files
declare the plain type all the same: Arrow's schema is put into their metadata by hand.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fastloss._version import __version__
from fastloss.budget import format_bytes
from fastloss.columns.arrow import ArrowBatch
from fastloss.errors import ReadError, SchemaError, UsageError
from fastloss.executors import ThreadExecutor, raise_if_stopped
from fastloss.files import Stamp, atomic_file, refuse_to_overwrite_inputs, stamp
from fastloss.metrics.base import Metric
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.names import parse_metric
from fastloss.plan import Plan, make_plan
from fastloss.request import SPACES, Prediction, Space
from fastloss.scan import Progress, SkippedTask
from fastloss.sources.base import ReadOptions, Task
from fastloss.sources.listing import LogFile, list_files
from fastloss.states.causes import Cause
from fastloss.states.ledger import Ledger, Location, Place
from fastloss_kernels import FORMULAS_VERSION
from fastloss_kernels.losses import Loss

if TYPE_CHECKING:
    from fastloss.columns.base import Batch
    from fastloss.engine.inputs import Inputs
    from fastloss.engine.selection import Mask
    from fastloss.engine.workspace import Workspace

LOSS_COLUMNS = ("loss", "gradient", "hessian")
PLACE_COLUMNS = ("file", "row_group", "row")
COMPRESSIONS = ("zstd", "snappy", "lz4", "gzip", "brotli", "none")
METADATA_KEY = b"fastloss.score"

_SUFFIXES = (".parquet", ".parq", ".pq")
# A stream's batches may be short; row groups are not.
_STREAM_ROW_GROUP_ROWS = 1 << 20
_TOP_BYTES_PER_VALUE = 64
# The hardest rows of the log may take this part of the memory; so may those of the task that each thread looks at.
_TOP_SHARE = 12


@dataclass
class Counts:
    """What became of the rows of an output."""

    ledger: Ledger = field(default_factory=Ledger)
    saturated: int = 0

    def merge(self, other: Counts) -> None:
        """Add other counts to these."""
        self.ledger.merge(other.ledger)
        self.saturated += other.saturated

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        dropped = []
        for cause, count in sorted(self.ledger.dropped.items()):
            place = self.ledger.first[cause]
            dropped.append([list(cause), count, *place[:3]])
        return {"read": self.ledger.n_read, "saturated": self.saturated, "dropped": dropped}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Counts:
        """Read what `to_json` returned."""
        counts = cls(Ledger(int(content["read"])), int(content["saturated"]))
        for cause, count, origin, row_group, row in content["dropped"]:
            counts.ledger.drop(Cause(*cause), count, Location(origin, row_group, row, None))
        return counts


@dataclass(frozen=True)
class Output:
    """A file to write.

    Attributes
    ----------
    path : Path
        Where it goes.
    inputs : tuple of LogFile
        The files whose rows it holds; none for a stream.
    stamps : tuple of Stamp
        Their identities when the plan was made.
    fingerprint : str or None
        A hash of the request and of these; None for a stream, of which nothing tells whether it is the same again.
    tasks : iterable of Task
        Its rows.
    complete : Counts or None
        The counts of its rows, if an earlier run has written it.
    """

    path: Path
    inputs: tuple[LogFile, ...]
    stamps: tuple[Stamp, ...]
    fingerprint: str | None
    tasks: Iterable[Task]
    complete: Counts | None

    @property
    def origin(self) -> str:
        """The first of the inputs."""
        return self.inputs[0].origin if self.inputs else "<stream>"


@dataclass(frozen=True)
class ScorePlan:
    """A checked request to score a log."""

    plan: Plan
    loss: Loss
    outputs: tuple[Output, ...]
    top: int | None
    compression: str
    options: ReadOptions
    flush_bytes: int
    others: tuple[Path, ...] = ()

    def asked(self) -> dict[str, Any]:
        """Return what was asked, as plain values: all that shapes an output, and nothing else."""
        return _asked(self.plan, self.top, self.compression)


@dataclass(frozen=True)
class Scored:
    """What `fastloss.score` returns.

    Attributes
    ----------
    rows : dict
        ``read``, ``scored``, ``saturated`` (their loss was clipped or is infinite), and ``dropped``: causes, with
        the number of rows that have no loss and the place of the first. Files of an earlier run are counted in.
    files : dict
        ``written``, ``complete`` (left as an earlier run had written them), ``skipped``, and with ``overwrite``
        ``others``: outputs of other runs in the same folder, which no file of this log has replaced.
    conventions : list of str
        What the preset did.
    """

    rows: dict[str, Any]
    files: dict[str, Any]
    conventions: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Say in lines what was done."""
        rows, files = self.rows, self.files
        complete = f", {_number(len(files['complete']), 'file')} already complete" if files["complete"] else ""
        lines = [
            f"{rows['scored']:,} of {_number(rows['read'], 'row')} scored; "
            f"{_number(len(files['written']), 'file')} written{complete}"
        ]
        lines += [
            f"{_number(entry['rows'], 'row')} without a loss: {entry['cause']} in column {entry['column']!r}, "
            f"first at {entry['first']}"
            for entry in rows["dropped"]
        ]
        if rows["saturated"]:
            lines.append(f"{_number(rows['saturated'], 'row')} whose prediction rules out what happened")
        lines += self.conventions
        lines += [f"skipped: {entry['cause']}" for entry in files["skipped"]]
        if others := files["others"]:
            lines.append(
                f"{_number(len(others), 'output')} of other runs {'is' if len(others) == 1 else 'are'} left in the "
                f"folder, the first {others[0]!r}; remove those that do not belong to this log"
            )
        return "\n".join(lines)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# ---------------------------------------------------------------------------------------------------------------
# Planning


def make_score_plan(
    log: object,
    out: str | os.PathLike[str],
    *,
    label: str,
    loss: object,
    logit: str | None = None,
    prob: str | None = None,
    logprob: str | None = None,
    margin: str | None = None,
    value: str | None = None,
    keep: Sequence[str] | str = (),
    top: int | None = None,
    compression: str = "zstd",
    overwrite: bool = False,
    **settings: Any,
) -> ScorePlan:
    """Check a request against the log and against what lies at `out`; parameters are those of `fastloss.score`."""
    prediction = _prediction({"logit": logit, "prob": prob, "logprob": logprob, "margin": margin, "value": value})
    metric = _loss_metric(loss)
    kept = _kept_columns(keep, LOSS_COLUMNS if top is None else LOSS_COLUMNS + PLACE_COLUMNS)
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise UsageError(f"top is {top!r}; allowed: a whole number from 1.")
    if compression not in COMPRESSIONS:
        raise UsageError(f"compression is {compression!r}; allowed: {', '.join(COMPRESSIONS)}.")
    target = _target(out)
    if isinstance(log, (str, os.PathLike)):
        log = [log]
    if isinstance(log, (list, tuple)):
        _check_apart(log, target)
    plan = make_plan(log, label=label, predictions=prediction, metrics=[metric.loss], keep=kept, **settings)
    if top is not None and top * _TOP_BYTES_PER_VALUE * (len(kept) + 6) > plan.execution.memory_bytes // 4:
        raise UsageError(f"top is {top:,}, too many rows to hold in the memory; ask for fewer, or raise memory.")

    # Half of what a task may take is for what is read, half for what is about to be written.
    options = plan.read_options
    flush_bytes = options.task_bytes // 2
    options = dataclasses.replace(options, task_bytes=flush_bytes)
    request = _asked(plan, top, compression)
    if isinstance(log, (list, tuple)):
        outputs = _plan_files(plan, [os.fspath(entry) for entry in log], target, request, options, top=top is not None)
    else:
        _check_file_target(target)
        outputs = [Output(target, (), (), None, plan.source.tasks(plan.columns, options), None)]
    outputs = [_look_at(output, overwrite=overwrite) for output in outputs]
    others = _outputs_of_other_runs(target, outputs) if overwrite else ()
    (over_columns,) = plan.evaluation.metrics
    return ScorePlan(
        plan, _loss_metric(over_columns).loss, tuple(outputs), top, compression, options, flush_bytes, others
    )


def _prediction(given: dict[Space, Any]) -> dict[str, Prediction]:
    columns = {space: column for space, column in given.items() if column is not None}
    if len(columns) != 1 or not all(isinstance(column, str) for column in columns.values()):
        found = ", ".join(f"{space}={column!r}" for space, column in columns.items()) or "none"
        raise UsageError(
            f"Scoring takes one prediction column, as {' or '.join(f'{s}=' for s in SPACES)}; got {found}."
        )
    ((space, column),) = columns.items()
    return {column: Prediction(space, column)}


def _loss_metric(given: object) -> MeanLoss:
    metric: Metric = given if isinstance(given, MeanLoss) else parse_metric(given)
    if not isinstance(metric, MeanLoss):
        raise UsageError(f"{metric.name} has no value of a single row; name a loss: 'fastloss losses' lists them.")
    return metric


def _kept_columns(keep: Sequence[str] | str, taken: Sequence[str]) -> tuple[str, ...]:
    kept = (keep,) if isinstance(keep, str) else tuple(keep)
    for column in kept:
        if not isinstance(column, str):
            raise UsageError(f"keep holds {column!r}; allowed: names of columns.")
        if column in taken:
            raise UsageError(
                f"keep names the column {column!r}, and the output has one of that name already; "
                "keep others, or rename it in the log."
            )
    return tuple(dict.fromkeys(kept))


def _asked(plan: Plan, top: int | None, compression: str) -> dict[str, Any]:
    return {
        **plan.asked(),
        "custom": plan.evaluation.custom(),
        "formulas": FORMULAS_VERSION,
        "keep": list(plan.keep),
        "top": top,
        "compression": compression,
    }


def _target(out: str | os.PathLike[str]) -> Path:
    text = os.fspath(out)
    if not text or "://" in text:
        raise UsageError(f"The output is {text!r}; allowed: a file or folder of this machine.")
    target = Path(text).expanduser()
    ancestor = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    if ancestor != target and not ancestor.is_dir():
        raise UsageError(f"The output {text!r} lies below {str(ancestor)!r}, which is a file; choose another place.")
    folder = ancestor if ancestor.is_dir() else target.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"The output {text!r} lies in a folder that you may not write to; choose another place.")
    return target


def _check_apart(log: Sequence[object], target: Path) -> None:
    """Refuse an output that would be part of the log the next time it is read."""
    for entry in log:
        if not isinstance(entry, (str, os.PathLike)) or not os.path.isdir(os.path.expanduser(os.fspath(entry))):
            continue
        folder = os.path.realpath(os.path.expanduser(os.fspath(entry)))
        below = os.path.relpath(os.path.realpath(target), folder)
        if below.split(os.sep)[0] != os.pardir and not any(
            s[0] in "._" for s in below.split(os.sep) if s != os.curdir
        ):
            raise UsageError(
                f"The output {str(target)!r} lies in the log's folder {os.fspath(entry)!r}, and would be part of the "
                "log from then on; choose another place."
            )


def _check_file_target(target: Path) -> None:
    if target.is_dir():
        raise UsageError(f"The output {str(target)!r} is a folder, and there is one file to write; name the file.")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"The output {str(target)!r} lies in a folder that does not exist; create it.")


def _plan_files(
    plan: Plan, entries: Sequence[str], target: Path, request: dict[str, Any], options: ReadOptions, *, top: bool
) -> list[Output]:
    listed = [(entry, list_files([entry])) for entry in entries]
    inputs = {file.path: file.origin for _, found in listed for file in found if file.is_local}
    skipped = {file for file, _ in plan.summary.skipped}
    files = {file.origin: file for _, found in listed for file in found if file.origin not in skipped}
    tasks: dict[str, list[Task]] = {origin: [] for origin in files}
    for task in plan.source.tasks(plan.columns, options):
        if task.origin not in tasks:
            raise ReadError(f"{task.origin!r} was removed while the log was listed; read a complete log.")
        tasks[task.origin].append(task)
    if top:
        _check_file_target(target)
        refuse_to_overwrite_inputs([target], inputs)
        stamps = tuple(map(stamp, files.values()))
        fingerprint = _fingerprint(request, [(origin, s.content) for origin, s in zip(files, stamps, strict=True)])
        every = [task for found in tasks.values() for task in found]
        return [Output(target, tuple(files.values()), stamps, fingerprint, every, None)]

    for file in files.values():
        inside = file.is_local and Path(os.path.realpath(file.path)).is_relative_to(os.path.realpath(target))
        if inside and read_metadata(file.path) is not None:
            raise UsageError(
                f"The log's file {file.origin!r} is itself an output of scoring, in the folder {str(target)!r}; "
                "name only the log's own files."
            )
    outright = len(entries) == 1 and _is_outright(*listed[0])
    if outright and target.suffix.lower() in _SUFFIXES and not target.is_dir():
        _check_file_target(target)
        paths = dict.fromkeys(files, target)
    else:
        if target.exists() and not target.is_dir():
            raise UsageError(f"The output {str(target)!r} is a file; for this log name a folder.")
        if target.suffix.lower() in _SUFFIXES and not target.exists():
            raise UsageError(
                f"The output {str(target)!r} looks like a file, and each file of this log gets one of its own; "
                "name a folder."
            )
        names = relative_names(listed)
        paths = {origin: target / name for origin, name in names.items() if origin in files}
        by_path: dict[Path, str] = {}
        for origin, path in paths.items():
            if path in by_path:
                raise UsageError(
                    f"{by_path[path]!r} and {origin!r} would both be written to {str(path)!r}; "
                    "score them into different folders."
                )
            by_path[path] = origin
    refuse_to_overwrite_inputs(paths.values(), inputs)
    outputs = []
    for origin, file in files.items():
        found = stamp(file)
        fingerprint = _fingerprint(request, [found.content])
        outputs.append(Output(paths[origin], (file,), (found,), fingerprint, tasks[origin], None))
    return outputs


def relative_names(listed: Sequence[tuple[str, Sequence[LogFile]]]) -> dict[str, str]:
    """Return each file's path below the output folder, by origin.

    A file's name is relative to the folder, or to the fixed part of the glob, that found it; files named outright are
    relative to the deepest folder that holds all of them, so that the shell's expansion of a glob gives the names that
    the glob gives. ``key=value`` folders are kept in any case.

    Parameters
    ----------
    listed : sequence of (str, sequence of LogFile)
        What the user named, with the files found there.
    """
    names: dict[str, str] = {}
    outright: list[LogFile] = []
    for entry, files in listed:
        if _is_outright(entry, files):
            outright += files
            continue
        plain = _without_options(entry)
        wildcard = re.search(r"[*?\[]", plain)
        is_folder = os.path.isdir(plain) or wildcard is None
        base = (
            plain.rstrip("/") if is_folder else plain[: plain.rfind("/", 0, wildcard.start() if wildcard else 0) + 1]
        )
        for file in files:
            names[file.origin] = _below(_absolute(file.origin), _absolute(base or "."))
    if outright:
        base = os.path.commonpath([os.path.dirname(_absolute(file.origin)) for file in outright])
        names |= {file.origin: _below(_absolute(file.origin), base) for file in outright}
    return {
        origin: _plain_keys(max(name, _from_first_key(origin), key=lambda n: n.count("/")))
        for origin, name in names.items()
    }


def _plain_keys(name: str) -> str:
    """Percent-encode partition keys that are no plain names, such as ``k=..``; readers decode them."""
    *folders, file = name.split("/")
    for i, folder in enumerate(folders):
        key, equals, value = folder.partition("=")
        if equals:
            value = value.replace(".", "%2E") if value in (os.curdir, os.pardir) else value
            plain = re.sub(r"[\x00-\x1f\x7f\\]", lambda found: f"%{ord(found[0]):02X}", f"{key}={value}")
            folders[i] = plain
    return "/".join((*folders, file))


def _without_options(entry: str) -> str:
    return entry.partition("?")[0] if "://" in entry else os.path.expanduser(entry)


def _is_outright(entry: str, files: Sequence[LogFile]) -> bool:
    return [file.origin for file in files] == [_without_options(entry)]


def _absolute(path: str) -> str:
    scheme, separator, rest = path.partition("://")
    return f"/{scheme}:/{rest.rstrip('/')}" if separator else os.path.abspath(path)


def _below(path: str, base: str) -> str:
    relative = os.path.relpath(path, base)
    return os.path.basename(path) if relative.startswith(os.pardir) else relative


def _from_first_key(origin: str) -> str:
    segments = origin.split("/")
    first = next((i for i, segment in enumerate(segments[:-1]) if segment.find("=") > 0), len(segments) - 1)
    return (
        segments[-1] if os.pardir in segments[first:] else "/".join(s for s in segments[first:] if s not in ("", "."))
    )


def _fingerprint(request: dict[str, Any], stamps: list[Any]) -> str:
    content = json.dumps([__version__, request, stamps], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _look_at(output: Output, *, overwrite: bool) -> Output:
    """Refuse an output that must not be written, and take note of one that need not."""
    path = output.path
    if not os.path.lexists(path):
        return output
    if path.is_dir():
        raise UsageError(f"The output {str(path)!r} is a folder; remove it, or choose another place.")
    if overwrite:
        return output
    found = read_metadata(path)
    if found is None:
        raise UsageError(f"{str(path)!r} exists and is no output of scoring; choose another place, or overwrite=True.")
    if output.fingerprint is None or found["fingerprint"] != output.fingerprint:
        raise UsageError(
            f"{str(path)!r} exists, from another request, another version of the log or of fastloss; "
            "choose another place, or overwrite=True."
        )
    return dataclasses.replace(output, complete=Counts.from_json(found["rows"]))


def _outputs_of_other_runs(target: Path, outputs: Sequence[Output]) -> tuple[Path, ...]:
    """Return the outputs below a folder that no file of the log has now; they may be of another request."""
    if not target.is_dir():
        return ()
    own = {output.path for output in outputs}
    found = (path for path in target.rglob("*") if path.suffix.lower() in _SUFFIXES and path not in own)
    return tuple(sorted(path for path in found if path.is_file() and read_metadata(path) is not None))


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """Return what an output says of itself: fingerprint, request, counts; None if it is no output of scoring."""
    try:
        found = (pq.read_metadata(path).metadata or {}).get(METADATA_KEY)
        content = None if found is None else json.loads(found)
    except (OSError, ValueError, pa.ArrowException):
        return None
    return content if isinstance(content, dict) and {"fingerprint", "rows"} <= content.keys() else None


# ---------------------------------------------------------------------------------------------------------------
# Carrying out


def run_score(score_plan: ScorePlan, report: Callable[[Progress], None] | None = None) -> Scored:
    """Write every output that is not complete.

    Parameters
    ----------
    score_plan : ScorePlan
        The checked request.
    report : callable, optional
        Called with a `Progress` after each part of the log, from any thread but never from two at once.

    Raises
    ------
    FastlossError
        The error of the first file that has one.
    OSError
        If an output cannot be written.
    """
    run = _Run(score_plan, report)
    waiting = [output for output in score_plan.outputs if output.complete is None]
    if waiting:
        run.work(waiting)
    return run.scored()


class _Run:
    def __init__(self, score_plan: ScorePlan, report: Callable[[Progress], None] | None) -> None:
        plan = score_plan.plan
        self._score_plan = score_plan
        self._plan = plan
        self._report = report
        self._lock = threading.Lock()
        self._counts = Counts()
        self._skipped = [SkippedTask(file, None, None, cause) for file, cause in plan.summary.skipped]
        self._written: list[Path] = []
        self._rows_done = 0
        self._bytes_done = 0
        for output in score_plan.outputs:
            if output.complete is not None:
                self._counts.merge(output.complete)
                self._rows_done += output.complete.ledger.n_read
                self._bytes_done += sum(task.stored_bytes for task in output.tasks)

    def work(self, waiting: Sequence[Output]) -> None:
        """Write these outputs."""
        scorer = _RowScorer(self._score_plan)
        threads = self._plan.execution.threads
        if self._score_plan.top is not None:
            (output,) = waiting
            self._write_top(output, scorer, threads)
            return

        # A thread that has no file of its own writes what another has evaluated; its part of the memory holds that.
        n_files = min(threads, len(waiting))
        in_background = threads >= 2 * n_files

        def write(output: Output) -> Counts | SkippedTask:
            try:
                return self._write_rows(output, scorer, in_background=in_background)
            except ReadError as error:
                if self._plan.execution.on_bad_file == "raise":
                    raise
                return SkippedTask(output.origin, None, None, str(error))

        def merge(output: Output, outcome: Counts | SkippedTask) -> None:
            if isinstance(outcome, SkippedTask):
                self._skipped.append(outcome)
            else:
                self._counts.merge(outcome)
                self._written.append(output.path)

        ThreadExecutor(n_files).fold(waiting, write, merge)

    def scored(self) -> Scored:
        """Return the account of the run."""
        ledger = self._counts.ledger
        dropped = []
        for cause, count in sorted(ledger.dropped.items()):
            of_column = {key: value for key, value in cause._asdict().items() if key != "name"}
            dropped.append({"cause": cause.name, **of_column, "rows": count, "first": ledger.first[cause].describe()})
        rows = {
            "read": ledger.n_read,
            "scored": ledger.n_read - sum(ledger.dropped.values()),
            "saturated": self._counts.saturated,
            "dropped": dropped,
        }
        files = {
            "written": sorted(str(path) for path in self._written),
            "complete": sorted(str(output.path) for output in self._score_plan.outputs if output.complete is not None),
            "others": [str(path) for path in self._score_plan.others],
            "skipped": [
                {"file": s.file, "row_group": s.row_group, "rows": s.n_rows, "cause": s.cause}
                for s in sorted(self._skipped)
            ],
        }
        evaluation = self._plan.evaluation
        preset = evaluation.request.preset
        conventions = [] if preset is None else [f"preset {preset}", *evaluation.said]
        unit = evaluation.conventions.unit(self._score_plan.loss)
        conventions += [] if unit is None else [f"unit: {unit.name}"]
        return Scored(rows, files, conventions)

    def _advance(self, task: Task, n_rows: int) -> None:
        summary = self._plan.summary
        with self._lock:
            self._rows_done += n_rows
            self._bytes_done += task.stored_bytes
            if self._report is not None:
                self._report(Progress(self._rows_done, summary.rows, self._bytes_done, summary.stored_bytes))

    def _metadata(self, output: Output, counts: Counts) -> dict[bytes, str]:
        content = {
            "fastloss": __version__,
            "fingerprint": output.fingerprint,
            "request": self._score_plan.asked(),
            "rows": counts.to_json(),
        }
        return {METADATA_KEY: json.dumps(content, ensure_ascii=False)}

    def _check_unchanged(self, output: Output) -> None:
        for file, planned in zip(output.inputs, output.stamps, strict=True):
            try:
                changed = stamp(file) != planned
            except OSError:
                changed = True
            if changed:
                raise ReadError(f"{file.origin!r} changed while it was scored; score a complete log.")

    # Every row of a file

    def _write_rows(self, output: Output, scorer: _RowScorer, *, in_background: bool) -> Counts:
        counts = Counts()
        with atomic_file(output.path) as part, pa.OSFile(str(part), "wb") as sink:
            writer = _Writer(sink, self._score_plan, is_stream=not output.inputs, in_background=in_background)
            try:
                for task in output.tasks:
                    of_task = Counts()
                    for batch in scorer.batches(task):
                        raise_if_stopped()
                        writer.add(record_batch(batch), scorer.score(batch, task, of_task))
                    scorer.refuse_bad_rows(of_task)
                    writer.end_task()
                    counts.merge(of_task)
                    self._advance(task, of_task.ledger.n_read)
                raise_if_stopped()
                self._check_unchanged(output)
                writer.close(self._metadata(output, counts))
            except BaseException:
                writer.abandon()
                raise
        return counts

    # The rows with the largest losses

    def _write_top(self, output: Output, scorer: _RowScorer, threads: int) -> None:
        assert self._score_plan.top is not None
        best = _Best(self._score_plan.top, self._plan.keep, self._plan.execution.memory_bytes // _TOP_SHARE)

        def look(task: Task) -> tuple[_Best, Counts] | SkippedTask:
            of_task = Counts()
            found = _Best(best.n_rows, self._plan.keep, best.most_bytes)
            try:
                for batch in scorer.batches(task):
                    raise_if_stopped()
                    row = task.first_row + of_task.ledger.n_read
                    values = scorer.score(batch, task, of_task)
                    found.add(record_batch(batch), values, task, row, at_least=best.threshold)
            except ReadError as error:
                if self._plan.execution.on_bad_file == "raise":
                    raise
                return SkippedTask(task.origin, task.row_group, task.n_rows, str(error))
            scorer.refuse_bad_rows(of_task)
            return found, of_task

        def merge(task: Task, outcome: tuple[_Best, Counts] | SkippedTask) -> None:
            if isinstance(outcome, SkippedTask):
                self._skipped.append(outcome)
                return
            found, of_task = outcome
            best.merge(found)
            self._counts.merge(of_task)
            self._advance(task, of_task.ledger.n_read)

        ThreadExecutor(threads).fold(output.tasks, look, merge)
        table = best.table(self._plan.source.schema, value_types(self._plan))
        self._check_unchanged(output)
        with atomic_file(output.path) as part, pa.OSFile(str(part), "wb") as sink:
            writer = pq.ParquetWriter(sink, table.schema, compression=self._score_plan.compression)
            try:
                writer.write_table(table)
                writer.add_key_value_metadata(self._metadata(output, self._counts))
                writer.close()
            except BaseException:
                writer.is_open = False
                raise
        self._written.append(output.path)


def value_types(plan: Plan) -> list[pa.DataType]:
    """Return the types of `LOSS_COLUMNS`: numbers, and lists of them for the derivatives by a list of predictions."""
    derivative = pa.large_list(pa.float64()) if plan.evaluation.lists else pa.float64()
    return [pa.float64(), derivative, derivative]


def record_batch(batch: Batch) -> pa.RecordBatch:
    """Return the columns of a batch as the log has them, for those that are kept."""
    assert isinstance(batch, ArrowBatch)
    return batch.record_batch


class _RowScorer:
    """Evaluates the loss of every row of a batch; safe to call from several threads at once."""

    def __init__(self, score_plan: ScorePlan) -> None:
        from fastloss.engine.batches import make_checks
        from fastloss.engine.device import DEVICES

        plan = score_plan.plan
        self._evaluation = plan.evaluation
        self._execution = plan.execution
        (self._model,) = self._evaluation.models
        (over_columns,) = self._evaluation.metrics
        assert isinstance(over_columns, MeanLoss)
        self._loss = self._model.evaluation(over_columns.loss)
        self._rows = self._model.rows(self._loss.needs)
        self._unit = self._evaluation.conventions.unit(over_columns.loss)
        self._device = DEVICES[plan.execution.device]
        self._checks = make_checks(self._evaluation, self._device)
        self._local = threading.local()

    def batches(self, task: Task) -> Iterator[Batch]:
        """Return a task's batches, short enough where they hold lists."""
        from fastloss.engine.batches import split_batch

        for batch in task.read():
            yield from split_batch(self._evaluation, self._execution, batch)

    def score(self, batch: Batch, task: Task, counts: Counts) -> list[pa.Array]:
        """Return loss, gradient and hessian of each row, null where the row cannot be used."""
        from fastloss.engine.workspace import Workspace

        workspace = self._local.__dict__.setdefault("workspace", Workspace())
        place = Place(task.origin, task.row_group, task.first_row + counts.ledger.n_read)
        counts.ledger.n_read += batch.n_rows
        with np.errstate(all="ignore"), workspace.scope():
            (found,) = self._checks.check(counts.ledger, batch, place).models
            keep = found.keep[self._rows]
            inputs = found.inputs.writable(keep, workspace)
            if found.may_saturate:
                self._count_saturated(inputs, keep, place, counts)
            if not (self._loss.transform.is_identity or (self._loss.transform.only_clips and not found.may_saturate)):
                inputs = inputs.transformed(self._loss.transform, workspace, self._device).writable(keep, workspace)
            return self._evaluate(inputs, keep, batch.n_rows, workspace)

    def _count_saturated(self, inputs: Inputs, keep: Mask | None, place: Place, counts: Counts) -> None:
        from fastloss.engine.checks import saturation_error

        if self._loss.saturated is None:
            return
        flags = np.empty(inputs.n_values, dtype=np.bool_)
        loop = self._device.flag(self._loss.saturated, lists=inputs.lists)
        loop(*inputs.arguments, self._loss.saturation_parameters, flags)
        if keep is not None and len(flags) == len(keep):
            flags &= keep
        counts.saturated += int(np.count_nonzero(flags))
        if self._evaluation.request.saturation == "error" and flags.any():
            position = int(flags.argmax())
            row = position if keep is None or len(flags) == len(keep) else int(np.flatnonzero(keep)[position])
            text = inputs.describe(position, self._model.space)
            raise saturation_error(place, row, self._model, self._loss.loss.name, text)

    def _evaluate(self, inputs: Inputs, keep: Mask | None, n_rows: int, workspace: Workspace) -> list[pa.Array]:
        # Their own memory, since they live on until they are written.
        values = np.empty(inputs.n_values)
        derivatives = [np.zeros(inputs.n_predictions) for _ in LOSS_COLUMNS[1:]]
        loop = self._device.value_gradient_hessian(self._loss.formula, lists=inputs.lists)
        scratch = inputs.scratch(self._loss.n_scratch, workspace)
        loop(*inputs.arguments, self._loss.parameters, *scratch, values, *derivatives)
        if self._unit is not None:
            for column in (values, *derivatives):
                np.divide(column, self._unit.size, out=column)
        mask = None if keep is None else ~keep
        if len(values) < n_rows and keep is not None:
            of_used, values = values, np.zeros(n_rows)
            values[keep] = of_used
        loss = pa.array(values, pa.float64(), mask=mask, from_pandas=False)
        if inputs.offsets is None:
            return [loss, *(pa.array(column, pa.float64(), mask=mask, from_pandas=False) for column in derivatives)]
        offsets = pa.array(inputs.offsets, pa.int64())
        null = None if mask is None else pa.array(mask)
        return [loss, *(pa.LargeListArray.from_arrays(offsets, pa.array(d), mask=null) for d in derivatives)]

    def refuse_bad_rows(self, counts: Counts) -> None:
        """Raise a DataError if a task holds a bad row and the request does not drop bad rows."""
        from fastloss.engine.checks import refuse_bad_rows

        refuse_bad_rows(self._evaluation, counts.ledger)


class _Writer:
    """Writes rows of one file: a row group for each task, or several where one would not fit in the memory."""

    def __init__(self, sink: pa.NativeFile, score_plan: ScorePlan, *, is_stream: bool, in_background: bool) -> None:
        self._sink = sink
        self._keep = score_plan.plan.keep
        self._logged = [score_plan.plan.source.schema.field(name).type for name in self._keep]
        self._value_types = value_types(score_plan.plan)
        self._compression = score_plan.compression
        self._flush_bytes = score_plan.flush_bytes
        self._is_stream = is_stream
        self._background = ThreadPoolExecutor(1, thread_name_prefix="fastloss-write") if in_background else None
        self._writing: Future[None] | None = None
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._declared: pa.Schema | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._dictionaries: dict[str, pa.Array] = {}

    def add(self, batch: pa.RecordBatch, values: Sequence[pa.Array]) -> None:
        """Add the rows of a batch, with their loss, gradient and hessian."""
        schema = self._open([batch.schema.field(name).type for name in self._keep])
        kept = [_as_type(batch.column(name), schema.field(name).type) for name in self._keep]
        self._waiting.append(pa.RecordBatch.from_arrays([*kept, *values], schema=schema))
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += sum(map(self._held_bytes, self._keep, kept)) + sum(value.nbytes for value in values)
        if self._waiting_bytes > self._flush_bytes or (
            self._is_stream and self._waiting_rows >= _STREAM_ROW_GROUP_ROWS
        ):
            self._flush()

    def end_task(self) -> None:
        """End the row group, except that a stream's short batches share one."""
        if not self._is_stream:
            self._flush()

    def close(self, metadata: dict[bytes, str]) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._end_background()
        self._open(self._logged)
        assert self._writer is not None
        assert self._declared is not None
        declared = base64.b64encode(self._declared.serialize().to_pybytes()).decode()
        self._writer.add_key_value_metadata({**metadata, b"ARROW:schema": declared})
        self._writer.close()

    def abandon(self) -> None:
        """Write no footer."""
        with contextlib.suppress(Exception):
            self._end_background()
        if self._writer is not None:
            # Its finalizer would close, and so write to, a file that may be full.
            self._writer.is_open = False

    def _open(self, types: Sequence[pa.DataType]) -> pa.Schema:
        if self._schema is None:
            fields = [pa.field(name, kind) for name, kind in zip(self._keep, types, strict=True)]
            declared = [
                pa.field(name, _declared_type(kind, logged))
                for name, kind, logged in zip(self._keep, types, self._logged, strict=True)
            ]
            values = [pa.field(name, kind) for name, kind in zip(LOSS_COLUMNS, self._value_types, strict=True)]
            self._schema = pa.schema([*fields, *values])
            self._declared = pa.schema([*declared, *values])
            self._writer = pq.ParquetWriter(
                self._sink,
                self._schema,
                compression=self._compression,
                # A dictionary of floats seldom saves anything, and building it costs more than all the rest.
                use_dictionary=[f.name for f in declared if not pa.types.is_floating(f.type)] or False,
                store_schema=False,
            )
        return self._schema

    def _held_bytes(self, name: str, column: pa.Array) -> int:
        if not isinstance(column, pa.DictionaryArray):
            return int(column.nbytes)
        dictionary = column.dictionary
        known = self._dictionaries.get(name)
        if known is not None and [_address(b) for b in known.buffers()] == [_address(b) for b in dictionary.buffers()]:
            return int(column.indices.nbytes)
        self._dictionaries[name] = dictionary
        return int(column.indices.nbytes + dictionary.nbytes)

    def _flush(self) -> None:
        if self._writer is not None and self._waiting:
            table = pa.Table.from_batches(self._waiting, self._schema)
            self._wait()
            if self._background is not None:
                try:
                    self._writing = self._background.submit(self._write, table)
                except RuntimeError:
                    # The system gives no more threads.
                    self._background = None
            if self._background is None:
                self._write(table)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        self._dictionaries = {}

    def _write(self, table: pa.Table) -> None:
        assert self._writer is not None
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def _end_background(self) -> None:
        try:
            self._wait()
        finally:
            if self._background is not None:
                self._background.shutdown()

    def _wait(self) -> None:
        """Wait for the row group that is being written, and raise what went wrong."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


def _address(buffer: pa.Buffer | None) -> int | None:
    return None if buffer is None else int(buffer.address)


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else pc.cast(column, kind)


def _declared_type(kind: pa.DataType, logged: pa.DataType) -> pa.DataType:
    """Return the type that a kept column has for its readers: that of the log, whatever it was read as."""
    if not pa.types.is_dictionary(kind) or pa.types.is_dictionary(logged):
        return kind
    return logged if _is_text(kind.value_type) and _is_text(logged) else kind.value_type


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


class _Best:
    """The rows with the largest losses among those seen; of equal losses, the earlier rows."""

    def __init__(self, n_rows: int, keep: Sequence[str], most_bytes: int) -> None:
        self.n_rows = n_rows
        self.most_bytes = most_bytes
        self.threshold = -float("inf")
        self._keep = keep
        self._tables: list[pa.Table] = []
        self._held = 0

    def add(
        self, batch: pa.RecordBatch, values: Sequence[pa.Array], task: Task, first_row: int, *, at_least: float
    ) -> None:
        """Look at the rows of a batch; those below `at_least` are known to be too small."""
        loss = values[0].to_numpy(zero_copy_only=False)
        # A NaN loss, should there ever be one, is the hardest of all.
        loss = np.where(np.isnan(loss), float("inf"), loss)
        large = loss >= max(at_least, self.threshold)
        if values[0].null_count:
            large &= values[0].is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(large)
        if len(rows) == 0:
            return
        if len(rows) > self.n_rows:
            rows = np.sort(rows[np.argsort(-loss[rows], kind="stable")[: self.n_rows]])
        taken = pa.array(rows)
        columns = {f"keep {i}": _plain(batch.column(name).take(taken)) for i, name in enumerate(self._keep)}
        columns |= {name: column.take(taken) for name, column in zip(LOSS_COLUMNS, values, strict=True)}
        columns |= {
            "file": pa.repeat(task.origin, len(rows)),
            "row_group": pa.repeat(pa.scalar(task.row_group, pa.int64()), len(rows)),
            "row": pa.array(first_row + rows, pa.int64()),
            "task": pa.repeat(pa.scalar(task.index, pa.int64()), len(rows)),
        }
        self._hold([pa.table(columns)])

    def merge(self, other: _Best) -> None:
        """Add the rows of another."""
        self._hold(other._tables)

    def table(self, schema: pa.Schema, of_values: Sequence[pa.DataType]) -> pa.Table:
        """Return the rows, the hardest first."""
        self._prune()
        names = [*self._keep, *LOSS_COLUMNS, *PLACE_COLUMNS]
        if self._tables:
            return self._tables[0].drop_columns(["task"]).rename_columns(names)
        kept = [_plain(pa.array([], schema.field(name).type)) for name in self._keep]
        types = [*of_values, pa.string(), pa.int64(), pa.int64()]
        return pa.table([*kept, *(pa.array([], kind) for kind in types)], names=names)

    def _hold(self, tables: Sequence[pa.Table]) -> None:
        self._tables += tables
        self._held += sum(table.num_rows for table in tables)
        held_bytes = sum(table.nbytes for table in self._tables)
        if self._held > 2 * self.n_rows or held_bytes > self.most_bytes:
            self._prune()

    def _prune(self) -> None:
        if not self._tables:
            return
        try:
            # The files of a log may store one column in different widths.
            table = pa.concat_tables(self._tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise SchemaError(f"a kept column has types that do not go together: {error}") from error
        loss = table.column("loss").to_numpy()
        loss = np.where(np.isnan(loss), float("inf"), loss)
        order = np.lexsort((table.column("row").to_numpy(), table.column("task").to_numpy(), -loss))[: self.n_rows]
        self._tables = [table.take(pa.array(order)).combine_chunks()]
        self._held = len(order)
        if self._tables[0].nbytes > self.most_bytes:
            raise UsageError(
                f"top is {self.n_rows:,}, and {self._held:,} rows with their lists and kept columns take "
                f"{format_bytes(self._tables[0].nbytes)}, more than there is room for; ask for fewer, or raise memory."
            )
        if self._held == self.n_rows:
            self.threshold = float(loss[order[-1]])


def _plain(column: pa.Array) -> pa.Array:
    """Return a column without a dictionary and without views: both would hold on to much more than these rows."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.cast(column, pa.large_string()) if pa.types.is_string_view(column.type) else column
