"""State files: a whole evaluation before its last division, as an Arrow IPC file (docs/state-files.md).

The file has one record batch of one row. Each column is an array of the state, as a list: key codes and values of
every grouping, and the fields of every statistic. Whatever is no array stands as JSON in the schema's metadata. A
checksum of all other bytes stands before the Arrow footer, where readers of Arrow files do not look.

Nothing of a file is interpreted before its checksum is verified, and nothing of it is ever executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastloss._version import __version__
from fastloss.errors import FastlossError, ReadError, UsageError
from fastloss.files import Stamp, atomic_file, is_device
from fastloss.metrics.resolve import Evaluation, resolve
from fastloss.request import ColumnType, Request
from fastloss.scan import ScanResult, SkippedTask
from fastloss.states.base import StateColumn, StateSpec
from fastloss.states.causes import Cause
from fastloss.states.inputs import STREAM, Input
from fastloss.states.ledger import Ledger, Location
from fastloss.states.slices import CodedKeys, Texts, Values
from fastloss_kernels import FORMULAS_VERSION

FORMAT = 1
_METADATA_KEY = b"fastloss_state"
# An Arrow file begins and ends with these, and has the footer's length before the latter.
_ARROW = b"ARROW1"
_END_BYTES = 4 + len(_ARROW)
_MARK = b"FLSTATE\0"
_SEAL_BYTES = len(_MARK) + 32
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class StateHead:
    """The header of a state file: all but the arrays.

    Attributes
    ----------
    path : str
        The file, as the caller named it.
    checksum : bytes
        The checksum of the file.
    fastloss : str
        The version that wrote it.
    formulas : int
        The version of the formulas.
    fingerprint : str
        The hash of what was asked, of the columns' types and of the formulas.
    request : Request
        What was asked; losses by name.
    asked : dict
        The same as a reader of results knows it.
    types : mapping of str to ColumnType
        The types of its columns.
    custom : list of list of str
        What tells apart custom losses of one name.
    ledger : Ledger
        The rows that were read, and those left out.
    inputs : dict of str to Input
        What was read.
    n_files : int or None
        How many files were read.
    skipped : list of SkippedTask
        What could not be read and was left out.
    kinds : list of list of str
        The kind of each key column's values, for each grouping.
    edges : dict of str to tuple of float
        The edges of each column of quantiles.
    """

    path: str
    checksum: bytes
    fastloss: str
    formulas: int
    fingerprint: str
    request: Request
    asked: dict[str, Any]
    types: Mapping[str, ColumnType]
    custom: list[list[str]]
    ledger: Ledger
    inputs: dict[str, Input]
    n_files: int | None
    skipped: list[SkippedTask]
    kinds: list[list[str]]
    edges: dict[str, tuple[float, ...]]


def inputs_of(stamps: Sequence[Stamp] | None) -> dict[str, Input]:
    """Return the inputs of a log by path or URL; a stream, whose `stamps` are None, gets a name of its own."""
    if stamps is None:
        return {f"stream:{uuid.uuid4()}": STREAM}
    return {stamp.path: Input(*stamp.content) for stamp in stamps}


# ---------------------------------------------------------------------------------------------------------------
# Writing


def refuse_groups(evaluation: Evaluation) -> None:
    """Raise a UsageError if an evaluation is of groups, which no state holds."""
    if evaluation.groups:
        raise UsageError(
            "A state holds sums, and no groups: rows of one group may be in several logs. Leave out state=, or group=."
        )


def check_state_output(output: str | os.PathLike[str], inputs: Sequence[str], option: str = "state") -> None:
    """Refuse a place where a state cannot or must not be written.

    Parameters
    ----------
    output : path
        Where to write.
    inputs : sequence of str
        Files that must stay as they are; URLs do not matter.
    option : str
        What the caller calls the output.

    Raises
    ------
    UsageError
        If the place is no regular file of this machine, or is an input under any name.
    """
    if not isinstance(output, str | os.PathLike) or not os.fspath(output):
        raise UsageError(f"{option} is {output!r}; allowed: the path of a file to write.")
    name = str(os.fspath(output))
    if "://" in name:
        raise UsageError(f"{option} is {name!r}; a state is written to this machine: name a path.")
    if os.path.isdir(name):
        raise UsageError(f"{option} is the folder {name!r}; name a file in it.")
    if is_device(name):
        raise UsageError(f"{option} is {name!r}, which is no regular file; name one.")
    refuse_inputs(name, inputs, option)


def refuse_inputs(output: str | os.PathLike[str], inputs: Sequence[str], option: str) -> None:
    """Refuse to write over an input, under any name that it has."""
    if not os.path.exists(output):
        return
    for path in inputs:
        if os.path.exists(path) and os.path.samefile(path, output):
            raise UsageError(
                f"{option} {os.fspath(output)!r} would overwrite the input {path!r}; choose another place."
            )


def write_state(path: str | os.PathLike[str], evaluation: Evaluation, scanned: ScanResult) -> None:
    """Write what was evaluated to a file, whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    state = scanned.state
    arrays: dict[str, pa.Array] = {}
    kinds: list[list[str]] = []
    for number, table in enumerate(state.tables):
        kinds.append([])
        for key, coded in enumerate(table.coded_keys()):
            kind, values = _stored_values(coded)
            kinds[-1].append(kind)
            arrays[_column_name(number, "key", key, "codes")] = _stored(coded.codes)
            arrays[_column_name(number, "key", key, "values")] = values
        # Those of a second pass come after these, and are of no use to other logs.
        for spec, column in zip(evaluation.specs, table.columns, strict=False):
            for name, field in column.fields().items():
                arrays[_spec_name(evaluation, number, spec) + f"/{name}"] = _stored(field)
    metadata = {
        "format": FORMAT,
        "fastloss": __version__,
        "formulas": FORMULAS_VERSION,
        "fingerprint": evaluation.fingerprint,
        "request": evaluation.request.to_dict(),
        "asked": evaluation.asked(),
        "types": {name: [t.name, t.is_list, t.epsilon] for name, t in evaluation.types.items()},
        "custom": evaluation.custom(),
        "read": state.ledger.n_read,
        "filtered": state.ledger.n_filtered,
        "dropped": [
            [*cause, count, *state.ledger.first[cause][:3], _hex(state.ledger.first[cause].value)]
            for cause, count in sorted(state.ledger.dropped.items())
        ],
        "inputs": [[name, *found] for name, found in sorted(state.inputs.items())],
        "files": scanned.n_files,
        "skipped": [list(part) for part in scanned.skipped],
        "groupings": kinds,
        **(
            {"edges": {column: [edge.hex() for edge in edges] for column, edges in scanned.edges.items()}}
            if scanned.edges
            else {}
        ),
    }
    lists = [pa.LargeListArray.from_arrays(pa.array([0, len(array)], pa.int64()), array) for array in arrays.values()]
    schema = pa.schema(
        [pa.field(name, array.type, nullable=False) for name, array in zip(arrays, lists, strict=True)],
        # In ASCII, so that names that are no valid UTF-8 survive.
        metadata={_METADATA_KEY: json.dumps(metadata)},
    )
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    # Another process may be writing the same file; to wait is better than to lose what was computed.
    with atomic_file(path, wait=True) as part:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
            writer.write_batch(pa.record_batch(lists, schema=schema))
        with open(part, "r+b") as file:
            _seal(file)


def _column_name(grouping: int, *parts: str | int) -> str:
    return "/".join([str(grouping), *(_plain(str(part)) for part in parts)])


def _spec_name(evaluation: Evaluation, grouping: int, spec: StateSpec) -> str:
    model = evaluation.request.models[spec.rows.model].name
    return _column_name(grouping, "model", model, "+".join(spec.rows.needs), spec.name)


def _plain(part: str) -> str:
    """Return a part of a column's name, without slashes and in valid UTF-8."""
    return part.encode(errors="backslashreplace").decode().replace("%", "%25").replace("/", "%2F")


def _stored(array: NDArray[Any]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    return flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _stored_values(coded: CodedKeys) -> tuple[str, pa.Array]:
    """Return the kind of values, and the values with null as null."""
    values = coded.values
    if not isinstance(values, np.ndarray | Texts):
        return "objects", pa.array([json.dumps(value) for value in values], pa.large_string())
    missing = np.zeros(len(values), dtype=np.bool_)
    if coded.null_code is not None:
        missing[coded.null_code] = True
    if isinstance(values, np.ndarray):
        return "integers", pa.array(values, mask=missing)
    buffers = [
        pa.array(~missing).buffers()[1],
        pa.py_buffer(np.ascontiguousarray(values.offsets)),
        pa.py_buffer(np.ascontiguousarray(values.data)),
    ]
    texts = pa.Array.from_buffers(pa.large_string(), len(values), buffers)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        # Names of folders may be no valid UTF-8.
        texts = pa.Array.from_buffers(pa.large_binary(), len(values), buffers)
    return "texts", texts


def _hex(value: float | None) -> str | None:
    return None if value is None else float(value).hex()


def _seal(file: BinaryIO) -> None:
    """Put the checksum of all that a file holds before its Arrow footer."""
    size = file.seek(0, os.SEEK_END)
    start = size - _END_BYTES - _footer_bytes(file, size)
    file.seek(start)
    footer = file.read()
    checksum = _digest(file, start, footer)
    file.seek(start)
    file.write(_MARK + checksum + footer)


def _footer_bytes(file: BinaryIO, size: int) -> int:
    file.seek(size - _END_BYTES)
    return int.from_bytes(file.read(4), "little")


def _digest(file: BinaryIO, stop: int, footer: bytes) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    while stop > 0:
        chunk = file.read(min(_CHUNK_BYTES, stop))
        if not chunk:
            break
        digest.update(chunk)
        stop -= len(chunk)
    digest.update(footer)
    return digest.digest()


# ---------------------------------------------------------------------------------------------------------------
# Reading


def read_head(path: str | os.PathLike[str]) -> StateHead:
    """Verify the checksum of a state file and return what it says of itself.

    Raises
    ------
    UsageError
        If there is no such file, or a newer version wrote it.
    ReadError
        If it is no state file, or not as it was written.
    """
    name = os.fspath(path)
    if not isinstance(name, str) or not os.path.isfile(name):
        kind = "it is a folder" if os.path.isdir(name) else "there is no such file"
        raise UsageError(f"The state {name!r} cannot be read: {kind}; name a file that state= has written.")
    try:
        with open(name, "rb") as file:
            checksum = _verified(file, name)
        with pa.OSFile(name) as source, pa.ipc.open_file(source) as reader:
            metadata = json.loads((reader.schema.metadata or {})[_METADATA_KEY])
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise _foreign(name) from error
    except OSError as error:
        raise ReadError(f"The state {name!r} cannot be read: {error.strerror or error}.") from error
    if metadata.get("format") != FORMAT:
        raise UsageError(
            f"The state {name!r} was written by fastloss {metadata.get('fastloss')} in format "
            f"{metadata.get('format')}, and fastloss {__version__} reads format {FORMAT}; use the version that wrote "
            "it, or evaluate its log anew."
        )
    try:
        return _head(name, checksum, metadata)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _foreign(name) from error


def _verified(file: BinaryIO, name: str) -> bytes:
    """Return the checksum of a file, which is that of its bytes."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise ReadError(f"The state {name!r} is empty; evaluate its log anew.")
    file.seek(0)
    begins = file.read(len(_ARROW)) == _ARROW
    file.seek(max(0, size - len(_ARROW)))
    ends = file.read() == _ARROW
    damaged = ReadError(f"The state {name!r} is damaged or cut off: its checksum is wrong; evaluate its log anew.")
    if not begins and not ends:
        raise _foreign(name)
    start = size - _END_BYTES - _footer_bytes(file, size) - _SEAL_BYTES
    if not begins or not ends or start < len(_ARROW):
        raise damaged
    file.seek(start)
    seal = file.read(_SEAL_BYTES)
    if seal[: len(_MARK)] != _MARK:
        raise ReadError(
            f"The file {name!r} is an Arrow file without the checksum of a state: it is no state, or damaged; "
            "name a file that state= has written."
        )
    footer = file.read()
    if _digest(file, start, footer) != seal[len(_MARK) :]:
        raise damaged
    return seal[len(_MARK) :]


def _foreign(name: str) -> ReadError:
    return ReadError(f"The file {name!r} is no state of an evaluation; name a file that state= has written.")


def _head(name: str, checksum: bytes, metadata: Mapping[str, Any]) -> StateHead:
    ledger = Ledger(n_read=metadata["read"], n_filtered=metadata.get("filtered", 0))
    for cause, column, role, count, origin, row_group, row, value in metadata["dropped"]:
        found = None if value is None else float.fromhex(value)
        ledger.drop(Cause(cause, column, role), count, Location(origin, row_group, row, found))
    return StateHead(
        path=name,
        checksum=checksum,
        fastloss=metadata["fastloss"],
        formulas=metadata["formulas"],
        fingerprint=metadata["fingerprint"],
        request=Request.from_dict(metadata["request"]),
        asked=dict(metadata["asked"]),
        types={name: ColumnType(*kind) for name, kind in metadata["types"].items()},
        custom=metadata["custom"],
        ledger=ledger,
        inputs={uri: Input(*found) for uri, *found in metadata["inputs"]},
        n_files=metadata["files"],
        skipped=[SkippedTask(*part) for part in metadata["skipped"]],
        kinds=metadata["groupings"],
        edges={column: tuple(map(float.fromhex, edges)) for column, edges in metadata.get("edges", {}).items()},
    )


def resolve_head(head: StateHead) -> Evaluation:
    """Resolve the request of a state as this process understands it.

    Raises
    ------
    UsageError
        If it was evaluated with other formulas, or with a custom loss that this process does not know as it was.
    ReadError
        If the file contradicts itself.
    """
    if head.formulas != FORMULAS_VERSION:
        raise UsageError(
            f"The state {head.path!r} was written by fastloss {head.fastloss} with version {head.formulas} of the "
            f"formulas, and this is version {FORMULAS_VERSION}; evaluate its log anew."
        )
    names = [of_loss[0].partition("(")[0] for of_loss in head.custom]
    advice = "define it as it was before reading the state."
    try:
        evaluation = resolve(head.request, head.types, of_states=True)
    except KeyError as error:
        raise ReadError(f"The state {head.path!r} does not know the type of its column {error}.") from error
    except FastlossError as error:
        if names:
            shown = ", ".join(map(repr, names))
            raise UsageError(f"The state {head.path!r} needs the custom loss {shown}: {error} Or {advice}") from error
        raise ReadError(f"The state {head.path!r} asks for what is not possible: {error}") from error
    if evaluation.fingerprint == head.fingerprint:
        return evaluation
    if evaluation.custom() != head.custom:
        known = evaluation.custom()
        other = next((name for name, of_loss in zip(names, head.custom, strict=True) if of_loss not in known), "")
        raise UsageError(
            f"The state {head.path!r} was computed with another custom loss {other!r} than this process has; {advice}"
        )
    raise UsageError(
        f"The state {head.path!r} was written by fastloss {head.fastloss}, and to fastloss {__version__} the same "
        "words ask for something else; evaluate its log anew."
    )


class StateReader:
    """Reads the arrays of a state, one at a time: no more of them than one is held in memory.

    Parameters
    ----------
    head : StateHead
        What `read_head` returned.
    evaluation : Evaluation
        Its request, resolved.

    Raises
    ------
    ReadError
        If the file has changed since, or, from the methods, if it does not hold what its request asks for.
    """

    def __init__(self, head: StateHead, evaluation: Evaluation) -> None:
        self._head = head
        self._evaluation = evaluation
        with self._reading():
            with open(head.path, "rb") as file:
                changed = _verified(file, head.path) != head.checksum
            if changed:
                raise ReadError(f"The state {head.path!r} was replaced while it was read; read it again.")
            with pa.OSFile(head.path) as source, pa.ipc.open_file(source) as reader:
                self._index_of = {name: index for index, name in enumerate(reader.schema.names)}

    def keys(self, grouping: int) -> list[CodedKeys]:
        """Return the slices of a grouping in each of its key columns."""
        with self._reading():
            kinds = self._head.kinds[grouping]
            keys = [self._key(grouping, key, kind) for key, kind in enumerate(kinds)]
            if len(keys) != len(self._evaluation.groupings[grouping]) or len({len(k.codes) for k in keys}) > 1:
                raise ValueError(f"the keys of grouping {grouping} are not those of its slices")
            return keys

    def _key(self, grouping: int, key: int, kind: str) -> CodedKeys:
        codes = self._array(_column_name(grouping, "key", key, "codes"))
        values, null_code = _read_values(self._list(_column_name(grouping, "key", key, "values")), kind)
        if codes.dtype != np.int64 or (len(codes) and not 0 <= codes.min() <= codes.max() < len(values)):
            raise ValueError(f"a code of key {key} has no value")
        return CodedKeys(codes, values, null_code)

    def column(self, grouping: int, spec: StateSpec, n_slices: int) -> StateColumn:
        """Return the column of a statistic."""
        with self._reading():
            prefix, empty = _spec_name(self._evaluation, grouping, spec), spec.identity()
            fields = {}
            for name, like in empty.fields().items():
                field = fields[name] = self._array(f"{prefix}/{name}")
                if (field.dtype, field.ndim) != (like.dtype, like.ndim):
                    raise ValueError(f"{prefix}/{name} has {field.ndim} dimensions of {field.dtype}")
            column: StateColumn = type(empty).from_fields(fields)
            if column.n_slices != n_slices:
                raise ValueError(f"{prefix} has {column.n_slices} slices, and the keys {n_slices}")
            return column

    def _list(self, name: str) -> pa.Array:
        options = pa.ipc.IpcReadOptions(included_fields=[self._index_of[name]])
        with pa.OSFile(self._head.path) as source, pa.ipc.open_file(source, options=options) as reader:
            batch = reader.get_batch(0)
        batch.validate(full=True)
        column = batch.column(0)
        if len(column) != 1 or not pa.types.is_large_list(column.type):
            raise ValueError(f"{name} is no list in one row")
        return column.flatten()

    def _array(self, name: str) -> NDArray[Any]:
        """Return an array in memory of its own, that may be written: compiled loops take no other."""
        listed, width = self._list(name), None
        if pa.types.is_fixed_size_list(listed.type):
            width, listed = listed.type.list_size, listed.flatten()
        array = np.array(listed.to_numpy(zero_copy_only=True))
        return array if width is None else array.reshape(-1, width)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        name = self._head.path
        try:
            yield
        except (pa.ArrowException, KeyError, ValueError, IndexError, TypeError) as error:
            raise ReadError(
                f"The state {name!r} does not hold what its request asks for ({type(error).__name__}: {error}); "
                "evaluate its log anew."
            ) from error
        except OSError as error:
            raise ReadError(f"The state {name!r} cannot be read: {error.strerror or error}.") from error


def _read_values(stored: pa.Array, kind: str) -> tuple[Values, int | None]:
    if kind == "objects":
        return [_key(json.loads(text)) for text in stored.to_pylist()], None
    nulls = np.flatnonzero(np.asarray(stored.is_null()))
    if len(nulls) > 1:
        raise ValueError("null stands twice among the values of a key")
    null_code = int(nulls[0]) if len(nulls) else None
    if kind == "integers":
        if stored.type not in (pa.int64(), pa.uint64()):
            raise ValueError(f"integers of type {stored.type}")
        return np.array(stored.fill_null(0)), null_code
    if kind != "texts" or stored.type not in (pa.large_string(), pa.large_binary()):
        raise ValueError(f"{kind} of type {stored.type}")
    _, ends, data = stored.buffers()
    first, n_offsets = stored.offset, len(stored) + 1
    offsets = np.zeros(1, dtype=np.int64)
    if len(stored):
        offsets = np.frombuffer(ends, dtype=np.int64)[first : first + n_offsets].copy()
    texts = np.zeros(0, dtype=np.uint8) if data is None else np.frombuffer(data, dtype=np.uint8).copy()
    return Texts(texts, offsets), null_code


def _key(value: Any) -> bool | int | str | None:
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ValueError(f"a key {value!r}")
