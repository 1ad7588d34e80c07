"""From a request to a checked plan: every mistake that the schema and the footers can show is found here."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastloss.budget import Execution, ExecutionOptions, choose_execution, format_bytes, memory_for_room
from fastloss.columns.buckets import Quantiles
from fastloss.columns.types import check_columns
from fastloss.errors import ReadError, UsageError
from fastloss.expressions import possible_columns
from fastloss.metrics.resolve import Evaluation, resolve
from fastloss.request import Request
from fastloss.sources import Source, SourceSummary, open_source
from fastloss.sources.base import ReadOptions, gives_rows_once
from fastloss.sources.derived import DerivedSource, derive
from fastloss.sources.parquet.decoders import DECODERS
from fastloss.sources.schemas import check_keys
from fastloss.states.histogram import MOST_HISTOGRAM_BYTES, counted_task_bytes

if TYPE_CHECKING:
    import pyarrow as pa

_OPTIONS = frozenset(field.name for field in dataclasses.fields(ExecutionOptions))


@dataclass(frozen=True)
class Plan:
    """A checked request, and how it is carried out.

    Attributes
    ----------
    evaluation : Evaluation
        What is computed.
    execution : Execution
        How the log is read.
    source : Source
        The log.
    summary : SourceSummary
        What is known of it before a row is read.
    keep : tuple of str
        Columns that are read only to be passed on.
    """

    evaluation: Evaluation
    execution: Execution
    source: Source
    summary: SourceSummary
    keep: tuple[str, ...] = ()

    @property
    def request(self) -> Request:
        """The request."""
        return self.evaluation.request

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        return tuple(dict.fromkeys((*self.request.columns, *self.keep)))

    @property
    def quantiles(self) -> dict[str, Quantiles]:
        """The columns of quantiles, which a pass over the log finds before the one that evaluates."""
        return self.source.quantiles(self.columns) if isinstance(self.source, DerivedSource) else {}

    @property
    def read_options(self) -> ReadOptions:
        """The options that the source needs; no tasks are joined."""
        return _read_options(self.execution)

    @property
    def joining_options(self) -> ReadOptions:
        """The options for tasks of which it matters to nobody how many files they read."""
        execution = self.execution
        rows = execution.joined_rows(self.summary.rows)
        return dataclasses.replace(self.read_options, join_rows=rows, join_bytes=execution.joined_bytes)

    @property
    def memory_bound(self) -> int:
        """Upper bound of the memory that the scan takes beyond the imported libraries, bytes."""
        largest = self.summary.largest_task_bytes
        if largest is not None and self.summary.row_groups > 1:
            largest = max(largest, self.execution.joined_bytes)
        return self.execution.memory_bound(largest)

    @property
    def fingerprint(self) -> str:
        """A hash of all that can change a number."""
        return self.evaluation.fingerprint

    def asked(self) -> dict[str, Any]:
        """Return what was asked, as plain values."""
        return self.evaluation.asked()


def make_plan(log: object, *, keep: Sequence[str] = (), **options: Any) -> Plan:
    """Check a request against the log's schema.

    Parameters
    ----------
    log : object
        As in `fastloss.evaluate`.
    keep : sequence of str
        Columns of any type that are read only to be passed on.
    **options
        The other parameters of `fastloss.evaluate`.

    Raises
    ------
    FastlossError
        If the request is not possible as asked, a column is missing or of a wrong type, or a file is unreadable.
    """
    asked, how = split_options(options)
    return plan_request(log, Request.of(**asked), execution_options(**how), keep=keep)


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that belong to a `Request`, and those that belong to `ExecutionOptions`."""
    asked = {name: value for name, value in options.items() if name not in _OPTIONS}
    how = {name: value for name, value in options.items() if name in _OPTIONS}
    return asked, how


def execution_options(**options: Any) -> ExecutionOptions:
    """Check options against the words that decoders, executors and devices are registered under."""
    from fastloss.engine.device import DEVICES
    from fastloss.executors import EXECUTORS

    words = {"reader": tuple(DECODERS), "executor": tuple(EXECUTORS), "device": tuple(DEVICES)}
    return ExecutionOptions.of(words, **options)


def plan_request(
    log: object,
    request: Request,
    options: ExecutionOptions,
    *,
    keep: Sequence[str] = (),
    complete: Callable[[pa.Schema, Request], Request] | None = None,
    of_groups: bool = False,
) -> Plan:
    """Plan a request on a log; `complete` adds to it what the types of the columns decide, and reads no other ones.

    `of_groups` has all metrics be of groups.
    """
    columns = list(dict.fromkeys([*request.columns, *keep]))
    expressions = [
        *columns,
        request.label,
        *(request.where or ()),
        *(given for _, given in request.with_columns or ()),
        *(mapped.column for mapped in request.mapped or ()),
    ]
    possible = {name: None for given in expressions for name in sorted(possible_columns(given))}
    execution = choose_execution(options, n_columns=len(columns), sliced=bool(request.by))
    with suggesting_to_skip(execution.on_bad_file):
        opened = open_source(log, _read_options(execution), list(possible))
        source = derive(opened, request, keep, _read_options(execution), list(possible))
    if complete is not None:
        request = complete(source.schema, request)
    types = check_columns(source.schema, request, keep)
    evaluation = resolve(request, types, of_groups=of_groups)
    execution = dataclasses.replace(
        execution, sliced=bool(request.by or evaluation.feature_sets), n_groups=len(evaluation.groups)
    )
    if evaluation.groups and execution.executor != "threads":
        raise UsageError(
            f"group= gathers rows in one process, and executor is {execution.executor!r}; leave out executor=."
        )
    quantiles = source.quantiles(columns) if isinstance(source, DerivedSource) else {}
    if quantiles and gives_rows_once(source):
        raise UsageError(
            f"{next(iter(quantiles))} needs a pass over the log before the one that evaluates, and this log gives its "
            "rows once; give a table, a list of batches or files, or edges of your own: cut(score, 0.1, 0.5)."
        )
    bounded = max(evaluation.bounded_bytes, len(quantiles) * MOST_HISTOGRAM_BYTES)
    execution = dataclasses.replace(execution, bounded_bytes=bounded, bounded_task_bytes=bounded)
    with suggesting_to_skip(execution.on_bad_file):
        summary = source.summary(columns, _read_options(execution))
        if bounded and summary.largest_task_rows is not None:
            # Tasks that are joined have no more rows than a batch, nor than there are.
            rows = max(summary.largest_task_rows, min(execution.batch_rows, summary.rows or execution.batch_rows))
            of_task = max(evaluation.bounded_task_bytes(rows), len(quantiles) * counted_task_bytes(rows))
            execution = dataclasses.replace(execution, bounded_task_bytes=of_task)
            summary = source.summary(columns, _read_options(execution))
    check_keys(summary.differences, (*request.keys, *request.group_columns))
    plan = Plan(evaluation, execution, source, summary, tuple(keep))
    while plan.memory_bound > execution.memory_bytes and options.threads is None and plan.execution.threads > 1:
        # Many cores share the memory: as many of them read as there is room for pieces of the largest row group.
        fewer = plan.execution.with_fewer_threads()
        plan = dataclasses.replace(plan, execution=fewer, summary=source.summary(columns, _read_options(fewer)))
    if plan.memory_bound > execution.memory_bytes:
        raise _too_little_memory(plan)
    return plan


def _too_little_memory(plan: Plan) -> UsageError:
    execution = plan.execution
    bounded = execution.states_bytes
    has_features = bool(plan.evaluation.features)
    kept = ["sums over features"] if has_features else ["histograms of scores"] if execution.bounded_bytes else []
    kept += ["rows of groups"] if execution.n_groups else []
    part = f" and {format_bytes(bounded)} of {' and '.join(kept)}" if bounded else ""
    # A quarter of what is left for reading goes to batches.
    tasks = plan.memory_bound - execution.memory_bound(0)
    room = (tasks + execution.buffer_bytes + bounded) * 4 // 3
    if execution.n_groups:
        # Half of what is left goes to rows of groups, and so another quarter to tasks.
        room = 4 * tasks + 2 * (bounded - execution.n_groups * execution.group_bytes)
    ways = [f"Raise memory to {format_bytes(memory_for_room(room, execution.sliced))}"]
    ways += ["lower threads"] if execution.threads > 1 else []
    fewer = "name fewer features" if has_features else "leave out some of the metrics that need histograms"
    ways += [fewer] if execution.bounded_bytes else []
    return UsageError(
        f"memory is {format_bytes(execution.memory_bytes)}, too little for the largest row group in the smallest "
        f"pieces{part}. {', or '.join(ways)}."
    )


@contextlib.contextmanager
def suggesting_to_skip(on_bad_file: str) -> Iterator[None]:
    """Add to a ReadError what the user can do about it."""
    try:
        yield
    except ReadError as error:
        if on_bad_file == "skip":
            raise
        text = str(error).rstrip(".")
        raise ReadError(f"{text}. Mend or remove it; on_bad_file='skip' leaves out what cannot be read.") from error


def _read_options(execution: Execution) -> ReadOptions:
    return ReadOptions(
        reader=execution.reader,
        verify_checksums=execution.verify_checksums,
        batch_rows=execution.batch_rows,
        task_bytes=execution.task_bytes,
        skip_bad_files=execution.on_bad_file == "skip",
        missing_as_null=execution.missing_columns == "null",
        storage_options=execution.storage_options,
        retry_seconds=execution.retry_seconds,
    )
