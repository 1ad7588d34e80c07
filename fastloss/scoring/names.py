"""The places of outputs: the file or folder that the user names, and each output's name below a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Sequence
from pathlib import Path

from fastloss.errors import UsageError
from fastloss.files import is_device
from fastloss.sources.file_formats import as_parquet
from fastloss.sources.listing import SUFFIXES, LogFile, is_hidden

# What the user named, with the files found there.
Listed = Sequence[tuple[str, Sequence[LogFile]]]


def check_target(out: str | os.PathLike[str]) -> Path:
    """Return the file or folder to write to; a UsageError if nothing can be written there."""
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


def check_file_target(target: Path) -> None:
    """Raise a UsageError if the target cannot be a file."""
    if target.is_dir():
        raise UsageError(f"The output {str(target)!r} is a folder, and there is one file to write; name the file.")
    if not target.absolute().parent.is_dir():
        raise UsageError(f"The output {str(target)!r} lies in a folder that does not exist; create it.")
    if target.suffix.lower() not in SUFFIXES and not is_device(target):
        raise UsageError(f"The output {str(target)!r} would hold Parquet; give it a name in {' or '.join(SUFFIXES)}.")


def refuse_target_in_log(target: Path, entries: Sequence[str]) -> None:
    """Raise a UsageError if the target lies in a folder of the log, whose next reader would find the outputs."""
    for entry in entries:
        if not os.path.isdir(os.path.expanduser(entry)):
            continue
        folder = os.path.realpath(os.path.expanduser(entry))
        segments = os.path.relpath(os.path.realpath(target), folder).split(os.sep)
        if segments[0] != os.pardir and not any(is_hidden(s) for s in segments if s != os.curdir):
            raise UsageError(
                f"The output {str(target)!r} lies in the log's folder {entry!r}, and would be part of the "
                "log from then on; choose another place."
            )


def output_paths(listed: Listed, origins: Container[str], target: Path) -> dict[str, Path]:
    """Return the path of each file's output, by the file's origin.

    Parameters
    ----------
    listed : sequence of (str, sequence of LogFile)
        What the user named, with the files found there.
    origins : container of str
        The files that get an output.
    target : Path
        A folder; or, for a single file that the user named directly, a file.

    Raises
    ------
    UsageError
        If the target is a file and must be a folder, or if two files would have one output.
    """
    looks_like_a_file = target.suffix.lower() in SUFFIXES
    if len(listed) == 1 and named_directly(*listed[0]) and looks_like_a_file and not target.is_dir():
        check_file_target(target)
        return {file.origin: target for _, files in listed for file in files if file.origin in origins}
    if target.exists() and not target.is_dir():
        raise UsageError(f"The output {str(target)!r} is a file; for this log name a folder.")
    if looks_like_a_file and not target.exists():
        raise UsageError(
            f"The output {str(target)!r} looks like a file, and each file of this log gets one of its own; "
            "name a folder."
        )
    paths = {origin: target / name for origin, name in relative_names(listed).items() if origin in origins}
    by_path: dict[Path, str] = {}
    for origin, path in paths.items():
        if path in by_path:
            raise UsageError(
                f"{by_path[path]!r} and {origin!r} would both be written to {str(path)!r}; "
                "score them into different folders."
            )
        by_path[path] = origin
    return paths


def relative_names(listed: Listed) -> dict[str, str]:
    """Return each file's path below the output folder, by its origin.

    A file's name is relative to the folder, or to the fixed part of the glob, that found it. Files named directly are
    relative to the deepest folder that holds all of them, so that the shell's expansion of a glob gives the names that
    the glob gives. ``key=value`` folders are kept in any case. The ending of another format becomes Parquet's.
    """
    names: dict[str, str] = {}
    direct: list[LogFile] = []
    for entry, files in listed:
        if named_directly(entry, files):
            direct += files
            continue
        plain = _without_options(entry)
        wildcard = re.search(r"[*?\[]", plain)
        is_folder = os.path.isdir(plain) or wildcard is None
        base = (
            plain.rstrip("/") if is_folder else plain[: plain.rfind("/", 0, wildcard.start() if wildcard else 0) + 1]
        )
        for file in files:
            names[file.origin] = _below(_absolute(file.origin), _absolute(base or "."))
    if direct:
        base = os.path.commonpath([os.path.dirname(_absolute(file.origin)) for file in direct])
        names |= {file.origin: _below(_absolute(file.origin), base) for file in direct}
    return {
        origin: as_parquet(_encode_keys(max(name, _from_first_key(origin), key=lambda n: n.count("/"))))
        for origin, name in names.items()
    }


def named_directly(entry: str, files: Sequence[LogFile]) -> bool:
    """Tell whether an entry is a file's own path, not a folder or a glob that found it."""
    return [file.origin for file in files] == [_without_options(entry)]


def _encode_keys(name: str) -> str:
    """Percent-encode partition keys that are no plain names, such as ``k=..``; readers decode them."""
    *folders, file = name.split("/")
    for i, folder in enumerate(folders):
        key, equals, value = folder.partition("=")
        if equals:
            value = value.replace(".", "%2E") if value in (os.curdir, os.pardir) else value
            folders[i] = re.sub(r"[\x00-\x1f\x7f\\]", lambda found: f"%{ord(found[0]):02X}", f"{key}={value}")
    return "/".join((*folders, file))


def _without_options(entry: str) -> str:
    return entry.partition("?")[0] if "://" in entry else os.path.expanduser(entry)


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
