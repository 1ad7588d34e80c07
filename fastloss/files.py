"""Files of this machine: what a command may write without loss."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from fastloss.errors import UsageError


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
    existing = [path for path in outputs if os.path.exists(path)]
    if not existing:
        return
    origins = {_identity(path): origin for path, origin in inputs.items() if os.path.exists(path)}
    for path in existing:
        if (origin := origins.get(_identity(path))) is not None:
            raise UsageError(f"The output {os.fspath(path)!r} is the log's own file {origin!r}; choose another place.")


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
