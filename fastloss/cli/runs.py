"""Evaluations by name: what a ``fastloss.toml`` says, what a command line says beside it, and a schema for editors.

The keys of an evaluation are the options of ``fastloss eval``, read off the dataclasses in `fastloss.cli.options`: a
new option is a new key by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cyclopts import App, Parameter

from fastloss.cli.options import Named, NamedNumbers, OutputOptions, RequestOptions, ScanOptions
from fastloss.errors import FastlossError, UsageError, nearest_names

if TYPE_CHECKING:
    from fastloss.result import Result

FILE_NAME = "fastloss.toml"

# More is no file of evaluations, and a device has no end.
_MOST_BYTES = 1 << 20

_GROUPS = (RequestOptions, ScanOptions, OutputOptions)


@dataclass(frozen=True)
class Key:
    """A key of an evaluation.

    Attributes
    ----------
    name : str
        As it is written in the file: the option without its two dashes.
    aliases : tuple of str
        What else the option is called, which a file may not call it.
    kinds : tuple
        The types of its value, each str, int, float, bool, Path, list, dict, or a word.
    default : object
        The option's default; `dataclasses.MISSING` where it must be given.
    help : str
        What it means.
    """

    name: str
    aliases: tuple[str, ...]
    kinds: tuple[Any, ...]
    default: Any
    help: str

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are allowed."""
        return tuple(kind for kind in self.kinds if isinstance(kind, str))

    @property
    def lists_numbers(self) -> bool:
        """Whether an item of a list or a table may be a number."""
        return list in self.kinds and float in self.kinds

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        said = [_KINDS[kind] for kind in self.kinds if not isinstance(kind, str)]
        if self.lists_numbers:
            said[said.index(_KINDS[dict])] = "a table of numbers by name"
        return _either([*said, *map(repr, self.words)])

    def read(self, value: object, folder: str) -> Any:
        """Return the option's value, or raise a ValueError that says what was found."""
        if isinstance(value, str):
            _refuse_zero_byte(value)
            if value in self.words or str in self.kinds:
                return value
            if Path in self.kinds:
                return _path_from(folder, value)
            if list in self.kinds:
                return [value]
        elif isinstance(value, list | dict) and type(value) in self.kinds:
            return self._read_all(value)
        elif type(value) in self.kinds or (type(value) is int and float in self.kinds):
            return [str(value)] if self.lists_numbers else value
        raise ValueError(f"is {_shown(value)}")

    def _read_all(self, value: list[Any] | dict[str, Any]) -> Any:
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, str):
                _refuse_zero_byte(item)
            elif not (self.lists_numbers and isinstance(value, dict) and type(item) in (int, float)):
                raise ValueError(f"holds {_shown(item)}")
        if isinstance(value, list) or list not in self.kinds:
            return value
        for name in value:
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"holds the name {name!r}, and a name has a character, and no '='")
        return [f"{name}={text}" for name, text in value.items()]

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the value."""
        either = [_SCHEMAS[kind] for kind in self.kinds if not isinstance(kind, str)]
        if list in self.kinds:
            either.insert(0, _TEXT)
            table = _TABLE_OF_NUMBERS if self.lists_numbers else _TABLE_OF_LIST
            either = [table if kind is _SCHEMAS[dict] else kind for kind in either]
        if self.words:
            either.append({"enum": list(self.words)})
        schema: dict[str, Any] = {"description": self.help, **(either[0] if len(either) == 1 else {"anyOf": either})}
        if self.default not in (None, dataclasses.MISSING):
            schema["default"] = self.default
        return schema


_KINDS: Mapping[Any, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    list: "a string or a list of strings",
    dict: "a table of strings by name",
}
_TEXT = {"type": "string"}
_SCHEMAS: Mapping[Any, dict[str, Any]] = {
    str: _TEXT,
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Path: _TEXT,
    list: {"type": "array", "items": _TEXT},
    dict: {"type": "object", "additionalProperties": _TEXT},
}
# Its items become NAME=VALUE.
_TABLE_OF_LIST = {**_SCHEMAS[dict], "propertyNames": {"pattern": "^[^=]+$"}}
_TABLE_OF_NUMBERS = {**_TABLE_OF_LIST, "additionalProperties": {"anyOf": [_SCHEMAS[float], _TEXT]}}
_LOG = Key(
    "log",
    ("logs", "path", "paths"),
    (list,),
    dataclasses.MISSING,
    "Parquet files, folders (hive partitions become columns), globs, URLs (s3://, ...); @FILE lists them by line. "
    "A path is relative to the folder of this file.",
)


def _options() -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """Yield the options of ``fastloss eval``, each with its type and annotations."""
    for group in _GROUPS:
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            yield field, hints[field.name]


def _given_type() -> type:
    """Make the options of a command line beside a file: each may be left out, and what a file says taken back."""
    made = []
    for field, hint in _options():
        kind, *annotations = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if kind is bool or get_origin(kind) is list or any(get_origin(part) is list for part in get_args(kind)):
            named = next(
                (next(iter(a.name)) for a in annotations if isinstance(a, Parameter) and a.name), f"--{field.name}"
            )
            annotations.append(Parameter(negative=named.replace("--", "--no-", 1).replace("_", "-")))
        if field.default not in (None, dataclasses.MISSING) and not isinstance(field.default, bool):
            annotations.append(Parameter(show_default=str(field.default)))
        made.append((field.name, Annotated[(kind | None, *annotations, Parameter())], None))
    given = dataclasses.make_dataclass(
        "Given", made, bases=_GROUPS, namespace={"__module__": __name__}, kw_only=True, frozen=True
    )
    given.__doc__ = "The options of a command line, each None where it was left out."
    return Parameter(name="*")(given)


if TYPE_CHECKING:

    class Given(RequestOptions, ScanOptions, OutputOptions):
        """The options of a command line, each None where it was left out."""

        def __init__(self) -> None: ...
else:
    Given = _given_type()


@functools.cache
def keys() -> Mapping[str, Key]:
    """Return the keys of an evaluation by the names of the options' fields."""

    def command(*, given: Given = Given()) -> None:  # noqa: B008
        pass

    arguments = App(default_command=command).assemble_argument_collection(parse_docstring=True)
    by_field = {argument.keys[0]: argument for argument in arguments if len(argument.keys) == 1}
    found = {"log": _LOG}
    for field, hint in _options():
        argument = by_field[field.name]
        first, *others = [name.removeprefix("--") for name in argument.names if name.startswith("--")]
        aliases = [other for other in others if not other.startswith("no-")]
        found[field.name] = Key(
            first,
            (field.name, *aliases, field.name.replace("_", "-")),
            _kinds(hint),
            None if field.default_factory is not dataclasses.MISSING else field.default,
            " ".join((argument.parameter.help or "").split()),
        )
    return found


def _kinds(hint: Any) -> tuple[Any, ...]:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        named = (dict,) if any(part in (Named, NamedNumbers) for part in parts[1:]) else ()
        numbers = (float,) if any(part is NamedNumbers for part in parts[1:]) else ()
        return (*_kinds(parts[0]), *named, *numbers)
    if origin in (Union, types.UnionType):
        return tuple(kind for part in parts if part is not types.NoneType for kind in _kinds(part))
    if origin is Literal:
        return parts
    kind = origin or hint
    if kind not in _KINDS or any(part is not str for part in parts):
        raise TypeError(f"no value of a file has the type {hint}")
    return (kind,)


@dataclass(frozen=True)
class Evaluation:
    """A named evaluation of a file.

    Attributes
    ----------
    name : str
        Its name.
    file : str
        The file.
    given : mapping of str to object
        What the file says, by the names of the options' fields; ``log`` is the log.
    fault : UsageError or None
        The first mistake in its table, which stops those alone who choose it.
    """

    name: str
    file: str
    given: Mapping[str, Any]
    fault: UsageError | None = None

    @property
    def log(self) -> list[str]:
        """The log, as paths from the current folder."""
        if not self.given.get("log"):
            raise self._missing("log")
        return list(self.given["log"])

    def _missing(self, name: str) -> UsageError:
        return UsageError(f"{name} is missing; write it in {_table(self.name)} or in [defaults], or add --{name}.")

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Say in an error which evaluation it was."""
        try:
            yield
        except FastlossError as error:
            raise type(error)(f"{self.name} of {self.file}: {error}") from error

    def options(self, given: Given | None = None) -> tuple[RequestOptions, ScanOptions, OutputOptions]:
        """Return the options, those of the command line in place of the file's.

        Raises
        ------
        UsageError
            If one that must be given is not.
        """
        both = {**self.given, **({} if given is None else given_of(given))}
        for field, key in keys().items():
            if key.default is dataclasses.MISSING and field not in both and field != "log":
                raise self._missing(key.name)
        request, scan, output = (_make(group, both) for group in _GROUPS)
        return request, scan, output


def _make(group: type, given: Mapping[str, Any]) -> Any:
    # An empty list is what --no-by and the like leave.
    return group(**{f.name: given[f.name] for f in fields(group) if f.name in given and given[f.name] != []})


def given_of(given: Given) -> dict[str, Any]:
    """Return the options that a command line has."""
    found = {field.name: getattr(given, field.name) for field in fields(given)}
    return {name: value for name, value in found.items() if value is not None}


def options_of(given: Given) -> tuple[RequestOptions, ScanOptions, OutputOptions]:
    """Return the options of a command line that completes no file."""
    found = given_of(given)
    if "label" not in found:
        raise UsageError(
            f"No label was named; add --label COLUMN, or name an evaluation of a {FILE_NAME}, "
            "with --file where a path has its name."
        )
    request, scan, output = (_make(group, found) for group in _GROUPS)
    return request, scan, output


def is_path(word: str) -> bool:
    """Tell whether a word of a command line is a path, and cannot be the name of an evaluation."""
    return re.search(r"[/*?\[]|^[@~]", word) is not None or os.path.lexists(word)


def find_file() -> str | None:
    """Return the nearest file: in the current folder, or above it up to the root of the repository."""
    steps = len(Path.cwd().parents)
    for n in range(steps + 1):
        folder = "../" * n
        if os.path.isfile(folder + FILE_NAME):
            return folder + FILE_NAME
        if os.path.exists(folder + ".git"):
            return None
    return None


def read_evaluations(file: str | os.PathLike[str] | None = None) -> dict[str, Evaluation]:
    """Read the evaluations of a file, by their names; left out, of the nearest ``fastloss.toml``.

    A mistake in the table of one is its own `fault`.

    Raises
    ------
    UsageError
        If there is no file, it is no TOML, or it holds what is not allowed outside of the evaluations' tables.
    """
    path = find_file() if file is None else os.fspath(file)
    if path is None:
        raise UsageError(
            f"No {FILE_NAME} was found in this folder or above it in its repository; write one, or add --file FILE."
        )
    content = _parse(path)
    folder = path[: path.rfind("/") + 1]
    _check_names(path, "", content, ("defaults", "evaluations"))
    defaults = _read_table(path, "[defaults]", content.get("defaults", {}), folder)
    tables = content.get("evaluations", {})
    if not isinstance(tables, dict) or not tables:
        found = "is missing or empty" if tables in ({}, []) else f"is {_shown(tables)}"
        raise UsageError(f"{path}: evaluations {found}; write a table for each, such as [evaluations.nightly].")
    evaluations = {}
    for name, table in tables.items():
        if not name or name.startswith("-"):
            raise UsageError(f"{path}: an evaluation is called {name!r}; allowed: a name that begins without '-'.")
        try:
            given = _read_table(path, _table(name), table, folder)
            evaluations[name] = Evaluation(name, path, {**defaults, **given})
        except UsageError as error:
            evaluations[name] = Evaluation(name, path, {}, error)
    return evaluations


def choose(evaluations: Mapping[str, Evaluation], names: Sequence[str]) -> list[Evaluation]:
    """Return the evaluations that are named, each once.

    Raises
    ------
    UsageError
        If there is none of a name, or a table of these holds a mistake.
    """
    for name in names:
        if name not in evaluations:
            file = next(iter(evaluations.values())).file
            raise UsageError(f"There is no evaluation {name!r} in {file}. {nearest_names(name, evaluations)}")
    chosen = [evaluations[name] for name in dict.fromkeys(names)]
    for evaluation in chosen:
        if evaluation.fault is not None:
            raise evaluation.fault
    return chosen


def _parse(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise UsageError(f"{path!r} cannot be read: {said}; name a file of evaluations.") from error
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than 1 MiB; name a file of evaluations.")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: line {line} is not UTF-8 text, as TOML must be; save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {str(error).rstrip('.')}; mend it there.") from error
    except RecursionError as error:
        raise UsageError(f"{path} nests values too deeply; allowed: strings, lists of them, and tables.") from error
    except ValueError as error:
        # A number of thousands of digits.
        raise UsageError(f"{path} holds a value that cannot be read: {error}; mend it.") from error


def _read_table(path: str, place: str, table: object, folder: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {place} is {_shown(table)}; allowed: a table of options.")
    by_name = {key.name: (field, key) for field, key in keys().items()}
    _check_names(path, place, table, tuple(by_name))
    given = {}
    for name, value in table.items():
        field, key = by_name[name]
        try:
            given[field] = key.read(value, folder)
        except ValueError as error:
            write = ""
            if isinstance(value, bool | int | float) and {str, list} & set(key.kinds) and not key.lists_numbers:
                write = f"; write '{str(value).lower()}'"
            raise UsageError(f"{path}: {place} {name} {error}; allowed: {key.allowed}{write}.") from None
        if field == "log":
            given[field] = [_log_from(folder, text) for text in given[field]]
        if field == "curve":
            given[field] = [_curve_from(folder, text) for text in given[field]]
        if field == "apply":
            given[field] = [_map_from(folder, text) for text in given[field]]
    return given


def _check_names(path: str, place: str, table: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in table:
        if name not in known:
            meant = [key.name for key in keys().values() if name in key.aliases and key.name in known]
            hint = f"Write {meant[0]!r}." if meant else nearest_names(name, known)
            raise UsageError(f"{path}: {place + ' has' if place else 'there is'} an unknown key {name!r}. {hint}")


def _log_from(folder: str, text: str) -> str:
    """Return a path of a log, written beside the file, from the current folder."""
    at, text = ("@", text[1:]) if text.startswith("@") else ("", text)
    if not text or "://" in text or text.startswith(("/", "~")):
        return at + text
    if not at and any(c in text for c in "*?["):
        folder = glob.escape(folder)
    return at + folder + text.removeprefix("./") if folder else at + text


def _curve_from(folder: str, text: str) -> str:
    kind, equals, name = text.partition("=")
    return f"{kind}={_path_from(folder, name)}" if equals and name else text


def _map_from(folder: str, text: str) -> str:
    name, equals, path = text.partition("=")
    return f"{name}={_path_from(folder, path.strip())}" if equals else str(_path_from(folder, text))


def _path_from(folder: str, text: str) -> Path:
    return Path(text) if text == "-" else Path(folder, os.path.expanduser(text))


def _refuse_zero_byte(text: str) -> None:
    if "\0" in text:
        raise ValueError("holds a zero byte")


def _table(name: str) -> str:
    return f"[evaluations.{name if re.fullmatch(r'[A-Za-z0-9_-]+', name) else repr(name)}]"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return ("an empty " if not value else "a ") + ("table" if isinstance(value, dict) else "list")
    text = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def make_schema() -> dict[str, Any]:
    """Return the JSON schema of a file of evaluations.

    Every draft from the fourth on reads it alike, but for the rules on names: editors for TOML may know no later one.
    """
    properties = {key.name: key.schema() for key in keys().values()}
    options = {"type": "object", "properties": properties, "additionalProperties": False}
    reference = {"$ref": "#/$defs/options"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": FILE_NAME,
        "description": "Named evaluations, which fastloss run NAME carries out.",
        "type": "object",
        "properties": {
            "defaults": {"description": "What every evaluation starts from.", "allOf": [reference]},
            "evaluations": {
                "description": "Evaluations by name.",
                "type": "object",
                "additionalProperties": reference,
                "minProperties": 1,
                "propertyNames": {"pattern": "^[^-]"},
            },
        },
        "required": ["evaluations"],
        "additionalProperties": False,
        "$defs": {"options": options},
    }


def run(name: str, file: str | os.PathLike[str] | None = None, **overrides: Any) -> Result:
    """Carry out a named evaluation of a ``fastloss.toml``, and return its result.

    Parameters
    ----------
    name : str
        The evaluation.
    file : path, optional
        The file; left out, ``fastloss.toml`` in the current folder or above it, up to the root of the repository.
    **overrides
        Arguments of `evaluate`, each in place of what the file says.

    Returns
    -------
    Result

    Raises
    ------
    UsageError
        If the file holds a mistake, or no such evaluation; and as in `evaluate`.

    Notes
    -----
    What the file says of output, state and gates is for ``fastloss run``; here the caller has the result, with the
    curves that the file names.
    """
    from fastloss.api import evaluate
    from fastloss.cli.output import curve_files

    (evaluation,) = choose(read_evaluations(file), [name])
    with evaluation.naming():
        request, scan, output = evaluation.options()
        asked = {"log": evaluation.log, "curves": [kind for kind, _ in curve_files(output)]}
        arguments = {**asked, **request.arguments(), **scan.arguments(), **overrides}
        return evaluate(**arguments)
