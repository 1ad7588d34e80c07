"""Output of commands: the result to stdout or to a file, everything else as lines on stderr."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from fastloss.errors import FastlossError, UsageError
from fastloss.words import CurveName

if TYPE_CHECKING:
    from fastloss.cli.options import ReadingOptions, ResultOptions
    from fastloss.metrics.choice import Choice
    from fastloss.metrics.resolve import Evaluation
    from fastloss.report.formats import Format
    from fastloss.report.view import View
    from fastloss.result import Result


def complain(message: str) -> None:
    """Write one line to stderr."""
    # Without stderr, as after 2>&-, print would write to stdout.
    if sys.stderr is not None:
        print("fastloss:", " ".join(message.split()), file=sys.stderr)


def complain_of(error: FastlossError) -> None:
    """Write the line of an error to stderr, in the words of a command line."""
    complain(_with_options(str(error)))


def _with_options(message: str) -> str:
    """Replace arguments of the API, as its messages name them, by the options that stand for them here."""
    message = re.sub(
        r"(?<![(\w])(label_domain|saturation|on_bad_row|on_bad_file|missing_columns|reader)='(\w+)'",
        lambda found: f"--{found[1].replace('_', '-')} {found[2]}",
        message,
    )
    message = message.replace("overwrite=True", "--overwrite").replace("that state= has", "that --state has")
    message = re.sub(r"\bwith_columns(?= )", "--with", message).replace("by positive=", "by --positive")
    message = re.sub(r"\bwhere=(?=')", "--where ", message)
    message = re.sub(r"^positive is ", "--positive is ", message)
    message = re.sub(r"^(?:output_)?state (?=is|')", "--state ", message)
    message = re.sub(r"\bcurves='(\w+)'", r"--curve \1=FILE", message)
    message = re.sub(r"^(apply|sampling_rate)(?= is| names|:)", lambda f: "--" + f[1].replace("_", "-"), message)
    message = message.replace("storage_options", "--storage-option").replace("retry_seconds", "--retry-seconds")
    return re.sub(r"\b(logit|prob|logprob|margin|value|score)=(?=[\s.,;]|$)", r"--\1", message)


@contextlib.contextmanager
def guarded_stdout() -> Iterator[None]:
    """Write what is left in the buffer; a reader that left early, such as ``head``, is no error."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes once more at its end, and must not find the same error there.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def emit(text: str, output: Path | None = None, *, is_json: bool = False) -> None:
    """Write a text and a line end to a file, or to stdout."""
    # JSON is UTF-8 by its standard. A terminal that cannot show a character gets its escape.
    encoding = "utf-8" if is_json or output is not None else sys.stdout.encoding
    emit_bytes((text + "\n").encode(encoding, "backslashreplace"), output)


def emit_bytes(content: bytes, output: Path | None) -> None:
    """Write to a file, which appears whole or not at all, or to stdout."""
    if output is not None:
        from fastloss.files import atomic_file

        # A second command may be writing the same file; to wait is better than to lose what was computed.
        with atomic_file(output, wait=True) as part:
            part.write_bytes(content)
        return
    with guarded_stdout():
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


@dataclass(frozen=True)
class CurveTarget:
    """Where a curve goes, and as what.

    Attributes
    ----------
    kind : str
        The kind of curve.
    output : Path
        The file.
    format : Format
        What is written.
    """

    kind: str
    output: Path
    format: Format


@dataclass(frozen=True)
class Target:
    """Where a result and its curves go, and as what.

    Attributes
    ----------
    output : Path or None
        The file; None for stdout.
    format : Format
        What is written.
    view : View
        Which slices.
    curves : tuple of CurveTarget
        Its curves.
    curve_view : View
        The slices that have curves.
    """

    output: Path | None
    format: Format
    view: View
    curves: tuple[CurveTarget, ...]
    curve_view: View

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the curves."""
        return tuple(curve.kind for curve in self.curves)

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The files that are written, each with its option."""
        own = [] if self.output is None else [("--output", self.output)]
        return [*own, *(("--curve", curve.output) for curve in self.curves)]

    def choice(self, evaluation: Evaluation) -> Choice:
        """Return the slices that are written."""
        from fastloss.metrics.choice import Choice
        from fastloss.result import sorting_metric

        view = self.view
        return Choice(view.slices, sorting_metric(view.sort, evaluation.metric_names), view.min_rows)

    def write(self, result: Result) -> None:
        """Write a result, its curves first."""
        for curve in self.curves:
            from fastloss.report.curves import DEFAULT_POINTS, curve_table
            from fastloss.report.view import selected

            of = selected(result, self.curve_view)
            table = curve_table(curve.kind, of.groupings, result.models, of.key_types, DEFAULT_POINTS)
            written = curve.format.write_table(table)
            emit_bytes(written if isinstance(written, bytes) else f"{written}\n".encode(), curve.output)
        if self.output is not None:
            from fastloss.files import atomic_file

            # A second command may be writing the same file; to wait is better than to lose what was computed.
            with atomic_file(self.output, wait=True) as part, part.open("wb") as sink:
                self.format.write_to(result, self.view, sink, as_file=True)
            return
        if self.format.is_binary:
            with guarded_stdout():
                self.format.write_to(result, self.view, sys.stdout.buffer, as_file=False)
            return
        content = self.format.write(result, self.view, as_file=False)
        assert isinstance(content, str)
        emit(content, is_json=self.format.name == "json")


def choose_target(options: ResultOptions, log: Sequence[str], reading: ReadingOptions | None = None) -> Target:
    """Check where a result is to go, and choose its format, before the log is read.

    Raises
    ------
    UsageError
        If the file cannot or must not be written, or its name ends in what no format does.
    """
    output, format = choose_format(options.format, options.output, log, reading)
    check_output(options.state, log, reading, "--state")
    curves = curve_files(options)
    for _, path in curves:
        check_output(path, log, reading, "--curve")
    places: dict[str, str] = {}
    written = [("--output", output), *((f"--curve {kind}", path) for kind, path in curves), ("--state", options.state)]
    for option, given in written:
        if given is None:
            continue
        if (place := os.path.realpath(given)) in places:
            raise UsageError(f"{places[place]} and {option} are both {str(given)!r}; name two files.")
        places[place] = option

    from fastloss.report.content import DEFAULT_SLICES
    from fastloss.report.view import View

    if isinstance(options.slices, int) and options.slices < 0:
        raise UsageError(f"--slices is {options.slices}; allowed: a whole number from 0, or all.")
    if options.wide and not format.is_table:
        raise UsageError(f"--wide is given, and the format is {format.name}; it is for arrow, parquet and csv.")
    slices = DEFAULT_SLICES if options.slices is None and format.is_read and output is None else options.slices
    view = View(None if slices == "all" else slices, options.sort, options.min_rows, options.wide)
    # Slices that are left out of what is read would not be missed in a file of curves.
    curve_view = View(None, options.sort, options.min_rows)
    return Target(output, format, view, tuple(_curve_target(kind, path) for kind, path in curves), curve_view)


def curve_files(options: ResultOptions) -> list[tuple[str, Path]]:
    """Return the kinds of curves that are asked for, each with its file."""
    found = []
    for text in options.curve or []:
        kind, _, name = text.partition("=")
        if kind not in get_args(CurveName) or name in ("", "-"):
            known = ", ".join(f"{kind}=FILE" for kind in get_args(CurveName))
            raise UsageError(f"--curve is {text!r}; allowed: {known}.")
        found.append((kind, Path(name)))
    return found


def _curve_target(kind: str, path: Path) -> CurveTarget:
    from fastloss.report.formats import FORMATS

    by_ending = {ending: known for known in FORMATS.values() for ending in known.endings}
    if path.suffix.lower() not in by_ending:
        raise UsageError(f"--curve {kind} ends in {path.suffix or 'nothing'}; allowed: {', '.join(by_ending)}.")
    return CurveTarget(kind, path, by_ending[path.suffix.lower()])


def choose_format(
    format_name: str | None, output: Path | None, log: Sequence[str], reading: ReadingOptions | None = None
) -> tuple[Path | None, Format]:
    """Check where a result is to go, and return the file, None for stdout, and the format.

    Raises
    ------
    UsageError
        If the file cannot or must not be written, or its name ends in what no format does.
    """
    output = None if output == Path("-") else output
    check_output(output, log, reading)

    from fastloss.files import is_device
    from fastloss.report.formats import format_of

    # The name of a device, or of a pipe, says nothing of a format.
    ending = None if output is None or is_device(output) else output.suffix.lower()
    format = format_of(format_name, ending)
    if format.is_binary and output is None and sys.stdout.isatty():
        raise UsageError(f"--format {format.name} is binary and stdout is a terminal; add -o FILE, or a pipe.")
    return output, format


def check_output(
    output: Path | None, log: Sequence[str], reading: ReadingOptions | None = None, option: str = "--output"
) -> None:
    """Refuse a file that cannot or must not be written before the log is read."""
    if output is None:
        return
    from fastloss.budget import DEFAULT_RETRY_SECONDS
    from fastloss.files import is_device
    from fastloss.sources.file_lists import entries_of
    from fastloss.sources.listing import refuse_output_in_log
    from fastloss.sources.stores.store import Stores

    folder = Path(os.path.realpath(output)).parent
    if output.is_dir():
        raise UsageError(f"{option} {str(output)!r} is a folder; name a file in it.")
    if not is_device(output):
        if not folder.is_dir():
            raise UsageError(f"{option} {str(output)!r} lies in a folder that does not exist; create {str(folder)!r}.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(f"{option} {str(output)!r} lies in a folder that you may not write to; choose another.")
    given = {} if reading is None else reading.arguments()
    stores = Stores(given.get("storage_options") or {}, given.get("retry_seconds", DEFAULT_RETRY_SECONDS))
    refuse_output_in_log(output, (entries_of(log, stores) if log else None) or [])
