"""From what the user names (files, globs, folders, URLs) to a fixed list of files with their partition keys."""

from __future__ import annotations

import functools
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from fastloss.errors import ReadError, UsageError
from fastloss.files import refuse_to_overwrite_inputs
from fastloss.sources.entries import Entry, naming_line
from fastloss.sources.file_formats import ENDINGS, PARQUET
from fastloss.sources.stores.options import FAMILIES, shown_url
from fastloss.sources.stores.store import Store, Stores
from fastloss.sources.table_formats import TABLE_FORMATS, TableFormat, format_of_folder, named_table

SUFFIXES = PARQUET.endings
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a log.

    Attributes
    ----------
    origin : str
        The path as the user gave it, or as a glob or folder of theirs matched it.
    filesystem : pyarrow.fs.FileSystem or Store
        Where it lies.
    path : str
        Its path there.
    keys : tuple of (str, str or None)
        Partition keys of the path, outermost first; None stands for Hive's null.
    """

    origin: str
    filesystem: fs.FileSystem | Store
    path: str
    keys: tuple[tuple[str, str | None], ...]

    @property
    def is_local(self) -> bool:
        """Whether the file lies on this machine's file system."""
        return isinstance(self.filesystem, fs.LocalFileSystem)


def list_files(entries: Iterable[str], stores: Stores | None = None) -> list[LogFile]:
    """List the files that the entries name: in the order of the entries, sorted by path within each.

    A folder means all files below it with the ending of a format (`file_formats`). Names that begin with ``_`` or
    ``.`` are skipped in folders and globs, unless the pattern spells them out or, as in Spark, they are ``key=value``.
    A folder that a glob matches is listed like one that is named directly.

    Every ``key=value`` folder of a path, the part that the user spelled out included, is a Hive partition key; both
    sides are URL-decoded. So ``logs/``, ``logs/day=*/`` and the shell's own expansion of that give the same keys.

    Parameters
    ----------
    entries : iterable of str
        Files, globs, folders, URLs.
    stores : Stores, optional
        How stores are reached.

    Returns
    -------
    list of LogFile
        Never empty.

    Raises
    ------
    UsageError
        If an entry matches nothing, a file is named twice, or a folder is a table whose format says which of its files
        count.
    ReadError, StoreError
        If a file system cannot be reached.
    """
    stores = stores or Stores({})
    found: dict[tuple[str, str], tuple[str, LogFile]] = {}
    origins: dict[str, str] = {}
    for entry in entries:
        with naming_line(entry):
            for file in _expand(entry, stores):
                # A link to a file or a folder is another name of the same rows.
                identity = (file.filesystem.type_name, os.path.realpath(file.path) if file.is_local else file.path)
                if identity in found:
                    earlier = found[identity][0]
                    raise UsageError(
                        f"file {file.origin!r} is found twice, by {shown_url(earlier)!r} and by {shown_url(entry)!r}, "
                        "perhaps through a link; its rows would count twice. Name each file once."
                    )
                if origins.setdefault(file.origin, file.path) != file.path and not file.is_local:
                    raise UsageError(
                        f"two files are called {file.origin!r}, and differ only in what follows the '?', which may be "
                        "secret and is not kept; name URLs that differ before it."
                    )
                found[identity] = (entry, file)
    return [file for _, file in found.values()]


def open_entry(url: str, stores: Stores | None = None) -> bytes:
    """Return the content of a small file in a store."""
    filesystem, path, _ = _locate(url, stores or Stores({}))
    with filesystem.open_input_file(path) as file:
        return bytes(file.read())


def refuse_output_in_log(output: str | os.PathLike[str], entries: Iterable[str]) -> None:
    """Raise if writing a file would replace one of the log's, or make it a part of the log from then on.

    Parameters
    ----------
    output : path
        The file to write.
    entries : iterable of str
        The log: files, globs, folders, URLs.

    Raises
    ------
    UsageError
        If it would, or if an entry matches nothing.
    """
    local = [entry for entry in entries if "://" not in entry or entry.startswith("file://")]
    table = named_table(local)
    if table is not None:
        if os.path.realpath(output).startswith(os.path.realpath(table.folder) + os.sep):
            raise UsageError(
                f"The output {os.fspath(output)!r} lies in the table {table.folder!r}; choose another place."
            )
        return
    if os.path.exists(output):
        lists = {entry.list_path: entry.list_path for entry in local if isinstance(entry, Entry) and entry.list_path}
        inputs = {f.path: f.origin for f in list_files(local) if f.is_local}
        refuse_to_overwrite_inputs([output], {**lists, **inputs})
    for entry in local:
        if _would_list(entry.removeprefix("file://"), os.path.realpath(output)):
            raise UsageError(
                f"The output {os.fspath(output)!r} would be part of the log {entry!r} from then on; "
                "choose another place."
            )


def _would_list(entry: str, path: str) -> bool:
    """Say whether a folder or glob would find a file of this absolute path, if it were there."""
    entry = os.path.expanduser(entry)
    if os.path.isdir(entry):
        return _is_listed_below(os.path.realpath(entry), path)
    wildcard = re.search(r"[*?\[]", entry)
    if wildcard is None:
        return False
    fixed = entry[: entry.rfind("/", 0, wildcard.start()) + 1]
    pattern = os.path.join(glob.escape(os.path.realpath(fixed)), entry[len(fixed) :])
    expression = re.compile(_glob_expression(pattern))
    if expression.fullmatch(path):
        return _spells_out(pattern, path)
    folders = itertools.accumulate(path.split("/")[:-1], "{}/{}".format)
    return any(expression.fullmatch(folder) and _is_listed_below(folder, path) for folder in folders)


def _is_listed_below(folder: str, path: str) -> bool:
    segments = os.path.relpath(path, folder).split("/")
    return segments[0] != os.pardir and path.lower().endswith(ENDINGS) and not any(map(is_hidden, segments))


def _expand(entry: str, stores: Stores) -> list[LogFile]:
    filesystem, path, to_origin = _locate(entry, stores)
    shown = shown_url(entry)
    if filesystem.type_name == "http":
        # It lists nothing; whether the file is there is seen when it is opened.
        return [LogFile(to_origin(path), filesystem, path, _partition_keys(to_origin(path)))]
    try:
        kind = filesystem.get_file_info(path).type
        if kind == fs.FileType.File:
            paths = [path]
        elif kind == fs.FileType.Directory:
            paths = _walk(filesystem, path)
            if not paths:
                raise UsageError(
                    f"folder {shown!r} holds no file ending in {', '.join(ENDINGS)}; "
                    "name another folder, or name its files by a glob."
                )
        elif any(c in path for c in "*?["):
            paths = _glob(filesystem, path)
            if not paths:
                raise UsageError(f"no file matches {shown!r}; check the pattern (** crosses folders).")
        else:
            raise UsageError(f"there is no file or folder {shown!r}; check the path.")
        _refuse_tables(filesystem, paths, _fixed_part(path), to_origin)
    except (OSError, pa.ArrowException) as error:
        raise ReadError(f"cannot list {shown!r}: {one_line(error)}") from error
    return [
        LogFile(origin=to_origin(p), filesystem=filesystem, path=p, keys=_partition_keys(to_origin(p)))
        for p in sorted(paths)
    ]


def _locate(entry: str, stores: Stores) -> tuple[fs.FileSystem | Store, str, Callable[[str], str]]:
    """Return the file system, the path or pattern on it, and the way back from a path to what the user would write."""
    scheme, separator, rest = entry.partition("://")
    if not separator:
        return fs.LocalFileSystem(), os.path.expanduser(entry), str
    if scheme in FAMILIES:
        store, path = stores.locate(entry)
        return store, path, store.url_of
    # A pattern is no valid URL: cut it off at its first wildcard. "?" begins the URL's options, such as ?region=…
    rest, _, query = rest.partition("?")
    if query and "=" not in query:
        raise UsageError(
            f"the URL {shown_url(entry)!r} has a '?', which begins a URL's options; as a wildcard use * or []."
        )
    wildcard = re.search(r"[*\[]", rest)
    cut = rest.rfind("/", 0, wildcard.start()) if wildcard else len(rest)
    if cut < 0:
        raise UsageError(f"the URL {shown_url(entry)!r} has a wildcard in its host; name one host.")
    url = f"{scheme}://{rest[:cut]}" + (f"?{query}" if query else "")
    try:
        filesystem, base = fs.FileSystem.from_uri(url)
    except (ValueError, NotImplementedError) as error:
        cause = one_line(error).replace(url, shown_url(url))
        raise UsageError(
            f"the URL {shown_url(entry)!r} cannot be read: {cause}; "
            f"use {', '.join(f'{known}://' for known in FAMILIES)} or a path."
        ) from None
    except OSError as error:
        cause = one_line(error).replace(url, shown_url(url))
        raise ReadError(f"cannot reach {shown_url(entry)!r}: {cause}") from None
    return filesystem, base + rest[cut:], functools.partial(_join_scheme, scheme)


def _join_scheme(scheme: str, path: str) -> str:
    return f"{scheme}://{path}"


def _walk(filesystem: fs.FileSystem | Store, folder: str) -> list[str]:
    folder = folder.rstrip("/") or "/"
    paths = []
    for info in filesystem.get_file_info(fs.FileSelector(folder, recursive=True)):
        segments = info.path[len(folder) :].strip("/").split("/")
        if info.type == fs.FileType.File and info.path.lower().endswith(ENDINGS) and not any(map(is_hidden, segments)):
            paths.append(info.path)
    return paths


def _glob(filesystem: fs.FileSystem | Store, pattern: str) -> list[str]:
    if isinstance(filesystem, fs.LocalFileSystem):
        matches = glob.glob(pattern, recursive=True, include_hidden=True)
    else:
        base = _fixed_part(pattern)
        expression = re.compile(_glob_expression(pattern))
        below = filesystem.get_file_info(fs.FileSelector(base, recursive=True))
        matches = [info.path for info in below if expression.fullmatch(info.path)]

    paths: set[str] = set()
    for match in matches:
        if not _spells_out(pattern, match):
            continue
        kind = filesystem.get_file_info(match).type
        if kind == fs.FileType.File:
            paths.add(match)
        elif kind == fs.FileType.Directory:
            paths.update(_walk(filesystem, match))
    return list(paths)


def _spells_out(pattern: str, match: str) -> bool:
    """Say whether a pattern spells out the hidden names of a path that it matches."""
    spelled = set(pattern.split("/"))
    first = pattern.rpartition("/")[2][:1]
    unspelled = [s for s in match.strip("/").split("/") if s not in spelled and is_hidden(s)]
    return all(s[0] == first for s in unspelled)


def _refuse_tables(
    filesystem: fs.FileSystem | Store, paths: Iterable[str], base: str, to_origin: Callable[[str], str]
) -> None:
    """Raise if a folder in which one of these files lies, at any depth, is a table whose format has its own list.

    A store answers a question about a folder after some tens of milliseconds, and has told all that lies below `base`
    in one answer; so only the folders above it are asked for one by one.
    """
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    folders = {path.rpartition("/")[0] for path in paths}
    found: dict[str, TableFormat] = {}
    if is_local:
        folders = {os.path.realpath(folder or ".") for folder in folders}
    elif filesystem.get_file_info(base).type == fs.FileType.Directory:
        for info in filesystem.get_file_info(fs.FileSelector(base, recursive=True)):
            for table_format in TABLE_FORMATS:
                table, marker, _ = f"{info.path}/".partition(f"/{table_format.folder}/")
                if marker and info.path.endswith(table_format.suffix):
                    found[table] = table_format
    seen = {""}
    for folder in sorted(folders):
        while folder not in seen:
            seen.add(folder)
            is_told = not is_local and f"{folder}/".startswith(f"{base}/")
            kind = found.get(folder) if is_told else format_of_folder(filesystem, folder)
            if kind is not None:
                shown = _as_named(folder) if is_local else to_origin(folder)
                raise UsageError(
                    f"folder {shown!r} is {kind.name} table, and not all of its files belong to its present "
                    f"state; {kind.way_out.format(repr(shown))}."
                )
            folder = folder.rpartition("/")[0]


def _as_named(folder: str) -> str:
    near = os.path.relpath(folder)
    return folder if near.startswith(os.pardir) else near


def _fixed_part(pattern: str) -> str:
    """Return the folder above a pattern's first wildcard, or the whole path where it has none."""
    wildcard = re.search(r"[*?\[]", pattern)
    return pattern.rstrip("/") if wildcard is None else pattern[: wildcard.start()].rpartition("/")[0]


def _glob_expression(pattern: str) -> str:
    """Return the regular expression of a glob, in which ``**`` alone crosses folders."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", pattern)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}

    def set_of(part: str) -> str:
        # A bracket in a set is a character of a glob, and a warning of a regular expression.
        return "[" + re.sub(r"[\[\\&~|]", r"\\\g<0>", part[1:-1].replace("!", "^", 1)) + "]"

    return "".join(meaning.get(part) or (set_of(part) if part[:1] == "[" else re.escape(part)) for part in parts)


def is_hidden(segment: str) -> bool:
    """Tell whether files of this name, or below a folder of this name, are left out of folders and globs."""
    return segment.startswith(".") or (segment.startswith("_") and "=" not in segment)


def _partition_keys(origin: str) -> tuple[tuple[str, str | None], ...]:
    keys: dict[str, str | None] = {}
    for segment in origin.split("/")[:-1]:
        key, separator, value = segment.partition("=")
        if separator and key:
            keys[unquote(key)] = None if value == _NULL_PARTITION else unquote(value)
    return tuple(keys.items())


def one_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type where it has none, cut to a readable length."""
    text = " ".join((str(error).strip().splitlines() or [""])[0].split())
    if isinstance(error, UnicodeDecodeError):
        text = f"text that is not UTF-8 ({error.reason})"
    text = text or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
