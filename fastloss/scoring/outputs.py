"""Outputs: the files to write, what already lies in their places, and what each says of itself."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastloss._version import __version__
from fastloss.errors import ReadError, UsageError
from fastloss.files import Stamp, is_device, refuse_to_overwrite_inputs, stamp
from fastloss.scoring.names import check_file_target, output_paths
from fastloss.sources.base import Task
from fastloss.sources.listing import SUFFIXES, LogFile, list_files
from fastloss.sources.stores.options import shown_url
from fastloss.sources.stores.store import Stores
from fastloss.states.causes import Cause
from fastloss.states.ledger import Ledger, Location

METADATA_KEY = b"fastloss.score"


@dataclass
class OutputCounts:
    """Counts of an output's rows: those read, those without a loss by cause, and those whose loss is saturated."""

    ledger: Ledger = field(default_factory=Ledger)
    saturated: int = 0

    def merge(self, other: OutputCounts) -> None:
        """Add other counts to these. The others stay as they are."""
        self.ledger.merge(other.ledger)
        self.saturated += other.saturated

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        dropped = []
        for cause, count in sorted(self.ledger.dropped.items()):
            location = self.ledger.first[cause]
            dropped.append([list(cause), count, location.origin, location.row_group, location.row])
        return {
            "read": self.ledger.n_read,
            "filtered": self.ledger.n_filtered,
            "saturated": self.saturated,
            "dropped": dropped,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> OutputCounts:
        """Read what `to_json` returned."""
        counts = cls(
            Ledger(int(content["read"]), n_filtered=int(content.get("filtered", 0))), int(content["saturated"])
        )
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
        A hash of the request and of the inputs. None for a stream: nothing tells whether it is the same again.
    tasks : iterable of Task
        Its rows.
    complete : OutputCounts or None
        The counts of its rows, if an earlier run has written it.
    """

    path: Path
    inputs: tuple[LogFile, ...]
    stamps: tuple[Stamp, ...]
    fingerprint: str | None
    tasks: Iterable[Task]
    complete: OutputCounts | None = None

    @property
    def origin(self) -> str:
        """The first of the inputs."""
        return self.inputs[0].origin if self.inputs else "<stream>"

    def check_unchanged(self) -> None:
        """Raise a ReadError if an input is not what it was when the plan was made."""
        for file, planned in zip(self.inputs, self.stamps, strict=True):
            try:
                changed = stamp(file) != planned
            except OSError:
                changed = True
            if changed:
                raise ReadError(f"{file.origin!r} changed while it was scored; score a complete log.")

    def metadata(self, asked: Mapping[str, Any], counts: OutputCounts) -> dict[bytes, str]:
        """Return what the file says of itself, as `read_metadata` finds it."""
        content = {
            "fastloss": __version__,
            "fingerprint": self.fingerprint,
            "request": asked,
            "rows": counts.to_json(),
        }
        return {METADATA_KEY: json.dumps(content, ensure_ascii=False)}


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """Return what an output says of itself: fingerprint, request, counts; None if it is no output of scoring."""
    try:
        found = (pq.read_metadata(path).metadata or {}).get(METADATA_KEY)
        content = None if found is None else json.loads(found)
    except (OSError, ValueError, pa.ArrowException):
        return None
    return content if isinstance(content, dict) and {"fingerprint", "rows"} <= content.keys() else None


def plan_stream_output(target: Path, tasks: Iterable[Task]) -> Output:
    """Return the one output of a stream or a frame."""
    check_file_target(target)
    return Output(target, (), (), None, tasks)


def plan_file_outputs(
    entries: Sequence[str],
    target: Path,
    tasks: Iterable[Task],
    asked: Mapping[str, Any],
    *,
    skipped: Iterable[str],
    as_one: bool,
    stores: Stores,
) -> list[Output]:
    """Return the outputs of the files that the user named.

    Parameters
    ----------
    entries : sequence of str
        Files, globs, folders, URLs.
    target : Path
        The file or folder to write to.
    tasks : iterable of Task
        The rows of all files that can be read.
    asked : mapping
        The request, for fingerprints.
    skipped : iterable of str
        The files that cannot be read, which get no output.
    as_one : bool
        Whether all files share one output.
    stores : Stores
        How stores are reached.

    Raises
    ------
    UsageError
        If an output would replace a file of the log, or a file of the log is itself an output.
    ReadError
        If a file appeared after the log was listed.
    """
    listed = [(shown_url(entry), list_files([entry], stores)) for entry in entries]
    inputs = {file.path: file.origin for _, found in listed for file in found if file.is_local}
    left_out = set(skipped)
    files = {file.origin: file for _, found in listed for file in found if file.origin not in left_out}
    tasks_of: dict[str, list[Task]] = {origin: [] for origin in files}
    for task in tasks:
        if task.origin not in tasks_of:
            raise ReadError(f"{task.origin!r} was removed while the log was listed; read a complete log.")
        tasks_of[task.origin].append(task)
    if as_one:
        check_file_target(target)
        refuse_to_overwrite_inputs([target], inputs)
        stamps = tuple(map(stamp, files.values()))
        fingerprint = _fingerprint(asked, [(origin, s.content) for origin, s in zip(files, stamps, strict=True)])
        every = [task for found in tasks_of.values() for task in found]
        return [Output(target, tuple(files.values()), stamps, fingerprint, every)]
    _refuse_outputs_as_log(files.values(), target)
    paths = output_paths(listed, files, target)
    refuse_to_overwrite_inputs(paths.values(), inputs)
    outputs = []
    for origin, file in files.items():
        found_stamp = stamp(file)
        fingerprint = _fingerprint(asked, [found_stamp.content])
        outputs.append(Output(paths[origin], (file,), (found_stamp,), fingerprint, tasks_of[origin]))
    return outputs


def _refuse_outputs_as_log(files: Iterable[LogFile], target: Path) -> None:
    for file in files:
        inside = file.is_local and Path(os.path.realpath(file.path)).is_relative_to(os.path.realpath(target))
        if inside and read_metadata(file.path) is not None:
            raise UsageError(
                f"The log's file {file.origin!r} is itself an output of scoring, in the folder {str(target)!r}; "
                "name only the log's own files."
            )


def _fingerprint(asked: Mapping[str, Any], stamps: list[Any]) -> str:
    content = json.dumps([__version__, asked, stamps], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def inspect_output(output: Output, *, overwrite: bool) -> Output:
    """Return the output, marked complete if an earlier run with the same fingerprint wrote it.

    Raises
    ------
    UsageError
        If something else is in its place, unless it is a file and `overwrite`.
    """
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
    return dataclasses.replace(output, complete=OutputCounts.from_json(found["rows"]))


def inspect_new_output(output: Output, *, overwrite: bool) -> Output:
    """Return an output that is not kept from an earlier run.

    Raises
    ------
    UsageError
        If something is in its place, unless it is a file and `overwrite`.
    """
    if os.path.lexists(output.path) and not overwrite and not is_device(output.path):
        raise UsageError(f"{str(output.path)!r} exists; choose another place, or overwrite=True.")
    return inspect_output(output, overwrite=True)


def other_outputs(target: Path, outputs: Sequence[Output]) -> tuple[Path, ...]:
    """Return the outputs of scoring below a folder that are none of these; they may be of another request."""
    if not target.is_dir():
        return ()
    own = {output.path for output in outputs}
    found = (path for path in target.rglob("*") if path.suffix.lower() in SUFFIXES and path not in own)
    return tuple(sorted(path for path in found if path.is_file() and read_metadata(path) is not None))
