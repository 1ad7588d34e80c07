"""A temporary file without a name: however the process ends, the system frees it and nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator

from fastloss.budget import format_bytes
from fastloss.errors import ReadError, TemporaryFileError
from fastloss.shuffle.narrowing import Bytes

_ELSEWHERE = "set FASTLOSS_TMPDIR to another folder, or raise memory"


class TemporaryFile:
    """A file that this process alone can reach; several threads may read and write it.

    Parameters
    ----------
    folder : str or None
        Where it lies; by default the folder that FASTLOSS_TMPDIR names, else the system's, which TMPDIR names.

    Raises
    ------
    TemporaryFileError
        If it cannot be made.
    """

    def __init__(self, folder: str | None = None) -> None:
        try:
            self.folder = folder or os.environ.get("FASTLOSS_TMPDIR") or tempfile.gettempdir()
            self._handle = _open_nameless(self.folder)
        except OSError as error:
            raise TemporaryFileError(f"No temporary file can be made: {_reason(error)}; {_ELSEWHERE}.") from error
        self._finalize = weakref.finalize(self, os.close, self._handle)
        self._lock = threading.Lock()
        self._n_users = 0
        self._closed = False

    def close(self) -> None:
        """Give the file up: now, or when the last thread that reads or writes it is done.

        The number of a file that is closed too early may already be that of another one.
        """
        with self._lock:
            self._closed = True
            if self._n_users == 0:
                self._finalize()

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        with self._lock:
            if self._closed:
                raise ValueError("the temporary file is closed")
            self._n_users += 1
        try:
            yield self._handle
        finally:
            with self._lock:
                self._n_users -= 1
                if self._closed and self._n_users == 0:
                    self._finalize()

    def need(self, n_bytes: int) -> None:
        """Raise a TemporaryFileError if the file system has no room for so much more."""
        with self._open() as handle:
            free = shutil.disk_usage(handle).free
        if free < n_bytes:
            raise TemporaryFileError(
                f"A temporary file in {self.folder!r} needs {format_bytes(n_bytes)} more, and there are "
                f"{format_bytes(free)}; {_ELSEWHERE}."
            )

    def write(self, content: Bytes, offset: int) -> None:
        """Write all of an array at an offset."""
        with self._open() as handle:
            self._write(handle, content, offset)

    def _write(self, handle: int, content: Bytes, offset: int) -> None:
        view = memoryview(content.data)
        while view:
            try:
                written = os.pwrite(handle, view, offset)
                if written == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise TemporaryFileError(
                    f"A temporary file in {self.folder!r} cannot be written: {_reason(error)}; {_ELSEWHERE}."
                ) from error
            view, offset = view[written:], offset + written

    def read(self, content: Bytes, offset: int) -> None:
        """Fill an array with what stands at an offset."""
        with self._open() as handle:
            self._read(handle, content, offset)

    def _read(self, handle: int, content: Bytes, offset: int) -> None:
        view = memoryview(content.data)
        while view:
            try:
                n_read = os.preadv(handle, [view], offset)
            except OSError as error:
                raise ReadError(
                    f"A temporary file in {self.folder!r} cannot be read: {_reason(error)}; {_ELSEWHERE}."
                ) from error
            if n_read == 0:
                raise self.damaged()
            view, offset = view[n_read:], offset + n_read

    def damaged(self) -> ReadError:
        """Return the error of a file that does not hold what was written."""
        return ReadError(f"A temporary file in {self.folder!r} is damaged; {_ELSEWHERE}.")


def _open_nameless(folder: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, flags | os.O_TMPFILE | os.O_EXCL, 0o600)
        except OSError as error:
            # What file systems without such files answer.
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
    handle, path = tempfile.mkstemp(prefix=".fastloss-", dir=folder)
    try:
        os.unlink(path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _reason(error: OSError) -> str:
    where = "" if error.filename is None else f" ({error.filename!r})"
    return f"{os.strerror(error.errno) if error.errno else error}{where}"
