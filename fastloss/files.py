"""Files of this machine: written whole or not at all, by one process at a time, and never over the log.

A file is written under a hidden name in its folder and renamed when it is complete. However the process stops, the
files under their own names are whole. (Renaming protects from everything that ends the process, not from a power cut.)
The hidden file is locked while it is written, and removed when writing fails or is interrupted.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fastloss.errors import UsageError

# Hidden files that this process is writing, each with the process: a forked child must not remove its parent's.
_unfinished: dict[Path, int] = {}


class StoredFile(Protocol):
    """A file of a log, on this machine or in a store."""

    @property
    def origin(self) -> str:
        """The name that the user knows."""

    @property
    def path(self) -> str:
        """The path on its file system."""

    @property
    def filesystem(self) -> Any:
        """Where it lies: a pyarrow file system."""

    @property
    def is_local(self) -> bool:
        """Whether that is this machine's file system."""


class Stamp(NamedTuple):
    """The identity of an input and of its content.

    Attributes
    ----------
    path : str
        Where it lies: the real path of a local file, else its URL.
    size : int
        Bytes.
    mtime_ns : int or None
        Time of change; None where the store does not tell it.
    """

    path: str
    size: int
    mtime_ns: int | None

    @property
    def content(self) -> tuple[int, int | None]:
        """The part that stays when the file is moved and changes when it is written."""
        return self.size, self.mtime_ns


def stamp(file: StoredFile) -> Stamp:
    """Return the identity of a file as it is now; an OSError if it is not there any more."""
    if file.is_local:
        status = os.stat(file.path)
        return Stamp(os.path.realpath(file.path), status.st_size, status.st_mtime_ns)
    info = file.filesystem.get_file_info(file.path)
    if not info.is_file:
        raise FileNotFoundError(f"{file.origin!r} is not there any more")
    return Stamp(file.origin, info.size, info.mtime_ns)


def refuse_to_overwrite_inputs(outputs: Iterable[str | os.PathLike[str]], inputs: Mapping[str, str]) -> None:
    """Raise if an output is a file of the log under any name: its own, a hard link's or a symbolic link's.

    Parameters
    ----------
    outputs : iterable of path
        The files to write; most of them need not exist.
    inputs : mapping of str to str
        The log's local files: from the path to the name that the user knows.

    Raises
    ------
    UsageError
        For the first output that is an input.
    """
    existing = [(path, output) for output in outputs for path in (output, part_of(output)) if os.path.exists(path)]
    if not existing:
        return
    origins = {_identity(path): origin for path, origin in inputs.items() if os.path.exists(path)}
    for path, output in existing:
        if (origin := origins.get(_identity(path))) is not None:
            raise UsageError(
                f"The output {os.fspath(output)!r} is the log's own file {origin!r}; choose another place."
            )


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def part_of(path: str | os.PathLike[str]) -> Path:
    """Return the hidden name under which a file is written."""
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.name}.part")


def is_device(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is no regular file, such as /dev/stdout or a named pipe: it is written in place."""
    return os.path.exists(path) and not os.path.isfile(path)


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], *, wait: bool = False) -> Iterator[Path]:
    """Give a path to write to; the file takes its own name when the block ends well, and is removed if it does not.

    Parameters
    ----------
    path : path
        The file to write. Folders are made; a symbolic link is followed; a device is written in place.
    wait : bool
        Wait while another process writes the same file, instead of raising.

    Raises
    ------
    UsageError
        If another process writes the same file, unless `wait`.
    OSError
        If the file cannot be written; it names `path`.
    """
    if is_device(path):
        yield Path(path)
        return
    target, part = Path(os.path.realpath(path)), part_of(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(part, wait=wait):
            _unfinished[part] = os.getpid()
            try:
                yield part
                os.replace(part, target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            finally:
                del _unfinished[part]
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno, reason, str(path)) from error


@atexit.register
def remove_unfinished() -> None:
    """Remove what threads were still writing when the process was told to end."""
    for part, process in list(_unfinished.items()):
        if process == os.getpid():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Hold the only lock of a file, which is made; the system lets go of it when the process ends, however it ends.

    Parameters
    ----------
    path : path
        The file, which may be renamed or removed while it is locked.
    wait : bool
        Wait for the lock, instead of raising.

    Raises
    ------
    UsageError
        If another process holds the lock, unless `wait`.
    """
    handle = _lock(path, wait)
    while handle is None:
        handle = _lock(path, wait)
    try:
        yield
    finally:
        os.close(handle)


def _lock(path: str | os.PathLike[str], wait: bool) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        raise UsageError(f"{os.fspath(path)!r} is being written by another process; wait for it to end.") from None
    except OSError:
        # A file system without locks is still good to write to.
        return handle
    except BaseException:
        os.close(handle)
        raise
    # Whoever held the lock may have renamed or removed the file since it was opened here.
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.lstat(path), os.fstat(handle)):
            return handle
    os.close(handle)
    return None
