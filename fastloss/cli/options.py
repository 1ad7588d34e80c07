"""The options of the commands, as dataclasses that commands share; a docstring here is the text of ``--help``.

Names, defaults and words are those of `fastloss.evaluate` and `fastloss.score`, from `fastloss.words`;
tests/test_options.py holds them to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token, convert

from fastloss.budget import DEFAULT_RETRY_SECONDS
from fastloss.errors import UsageError
from fastloss.expressions import is_name, split_list, unquoted
from fastloss.request import SPACES, split_names
from fastloss.words import (
    CalibrationMethod,
    Compression,
    ExecutorName,
    FormatName,
    GradientSort,
    LabelDomain,
    ListReduction,
    MissingColumns,
    OnBadFile,
    OnBadRow,
    PresetName,
    Reader,
    Reduction,
    Saturation,
    Ties,
)

_COLUMNS = Group("Columns", sort_key=1)
_QUESTION = Group("What to compute", sort_key=2)
_READING = Group("Reading", sort_key=3)
_OUTPUT = Group("Output", sort_key=4)

_Columns = Parameter(group=_COLUMNS)
_Question = Parameter(group=_QUESTION)
_Reading = Parameter(group=_READING)
_Output = Parameter(group=_OUTPUT)


def _word(hint: Any, tokens: Sequence[Token]) -> Any:
    """Read one of the words of an option that may be left out, where "none" would else be a word too."""
    return convert(hint, tokens)


_QuestionWord = Parameter(group=_QUESTION, converter=_word)


class Named:
    """Marks an option whose items may be NAME=VALUE: in a file, they may be a table."""


class NamedNumbers(Named):
    """Marks one whose values are numbers, in a file, too."""


class _Arguments:
    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of the API."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class RowOptions(_Arguments):
    """The options of every command that reads labels and predictions: which rows, and what a label is.

    Parameters
    ----------
    label
        Label column: numbers or booleans; or an expression, such as "rating >= 4". Wherever a column is named,
        event.label is a field of a struct, and candidates.list.label that of a list of structs.
    positive
        The label's value that counts as 1, every other as 0: for labels that are texts or codes.
    where
        Evaluate the rows alone for which this condition holds, such as "country = 'DE' and day >= '2026-03-01'", in
        Polars' SQL. Repeat it for more conditions, which must all hold.
    with_columns
        A further column: NAME = EXPRESSION, such as "hour = date_trunc('hour', ts)". Repeat it for more. Wherever a
        column is named, an expression may stand.
    label_domain
        pm1 for labels -1 and +1.
    on_bad_row
        At a NaN, a value outside its domain or a negative weight: stop, or leave the row out (score: give it nulls)
        and count it.
    """

    label: Annotated[str, _Columns]
    positive: Annotated[str | None, _Columns] = None
    where: Annotated[list[str] | None, Parameter(group=_COLUMNS, negative=())] = None
    with_columns: Annotated[
        list[str] | None, Parameter(name=("--with", "--with-columns"), group=_COLUMNS, negative=()), Named
    ] = None
    label_domain: Annotated[LabelDomain, _Question] = "01"
    on_bad_row: Annotated[OnBadRow, _Reading] = "raise"

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of the API."""
        return {**super().arguments(), "with_columns": self.with_columns and _derived(self.with_columns)}


@dataclass(frozen=True, kw_only=True)
class LossOptions(RowOptions):
    """The options of every command that computes losses.

    Parameters
    ----------
    apply
        A map that "fastloss calibrate -o" has written, which predictions go through first: FILE for the only model, or
        NAME=FILE.
    sampling_rate
        The rate at which negatives were kept when the model was trained, above 0 and at most 1: predictions are taken
        back to all rows, p/(p + (1 - p)/RATE). RATE for every model, or NAME=RATE.
    list_reduction
        A pointwise loss over list columns: the mean in each list (left out: row), or each candidate by itself: then
        eval takes the mean over all candidates, and score writes the sum of each list.
    preset
        The clipping, divisor and unit of another system, to reproduce its number.
    saturation
        Where a probability rules out what happened: clip it at 1e-12, keep the infinite loss, or stop. It is counted.
    """

    apply: Annotated[list[str] | None, Parameter(group=_COLUMNS, negative=()), Named] = None
    sampling_rate: Annotated[list[str] | None, Parameter(group=_COLUMNS, negative=()), NamedNumbers] = None
    list_reduction: Annotated[ListReduction | None, _QuestionWord] = None
    preset: Annotated[PresetName | None, _QuestionWord] = None
    saturation: Annotated[Saturation, _Question] = "clip"

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of the API."""
        rates = _by_model("--sampling-rate", self.sampling_rate)
        return {
            **super().arguments(),
            "apply": _by_model("--apply", self.apply),
            "sampling_rate": {n: _rate(r) for n, r in rates.items()} if isinstance(rates, dict) else _rate(rates),
        }


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RequestOptions(LossOptions):
    """The options of what `fastloss.evaluate` computes.

    Parameters
    ----------
    logit
        Logits: COLUMN, which names its model, or NAME=COLUMN. Repeat it for more models; a column whose name holds "="
        needs a NAME before it.
    prob
        Probabilities in [0, 1], given like --logit.
    logprob
        Natural logarithms of probabilities.
    margin
        Decision values.
    value
        Predictions in the unit of the label.
    score
        Scores that are only an order, for metrics of ranking; any numbers, infinite ones too.
    weight
        Row weights, at least 0; rows of weight 0 are skipped.
    metric
        Metrics, comma separated or repeated, such as log_loss,normalized_entropy or 'log_loss(label_smoothing=0.1)';
        "fastloss losses" lists them. Left out: the usual ones for the predictions.
    by
        Slice by a column, or by the cross of several: country,device. Repeat it for more groupings. A name that holds
        a comma stands in double quotes: '"a,b",device'. Buckets of a number: "width_bucket(score, 0.1)",
        "cut(price, 0, 10, 100)", "log_bucket(price)" by powers of ten, "qcut(score, 10)" by quantiles.
    group
        Take the rows of each value of a column, such as request_id or user_id, as a list, for metrics that read lists:
        gauc, ndcg@10. They may stand anywhere in the log. Several columns that are one key: day,user_id. Repeat it for
        more keys.
    min_group_size
        Leave out groups of fewer rows.
    group_sorted
        Say that the rows of a group are adjacent in the log, which saves time and memory; it is checked. A log that is
        sorted by the key is recognised without it.
    ties
        The order of candidates of equal scores in metrics at ranks, such as ndcg@10: "average" is the exact mean over
        every order, "input" the order in the list or the log, "optimistic" and "pessimistic" the best and the worst
        one, "id_desc" the largest id first, as trec_eval has it.
    id
        The column of ids: a list of them beside lists, one a row beside --group. Integers are compared as numbers,
        texts as bytes; bools, dates, timestamps and decimals are allowed too, and compared as their texts.
    reduction
        How losses are summed up: the weighted mean (left out: this), the weighted sum, or that sum by the number of
        rows, of all or of those whose weight is not 0. The value of each row is what "fastloss score" writes.
    common_rows
        Evaluate all metrics over the same lists: those that every one of them can use.
    """

    logit: Annotated[list[str] | None, _Columns, Named] = None
    prob: Annotated[list[str] | None, _Columns, Named] = None
    logprob: Annotated[list[str] | None, _Columns, Named] = None
    margin: Annotated[list[str] | None, _Columns, Named] = None
    value: Annotated[list[str] | None, _Columns, Named] = None
    score: Annotated[list[str] | None, _Columns, Named] = None
    weight: Annotated[str | None, _Columns] = None
    metric: Annotated[list[str] | None, Parameter(name=("--metric", "-m"), group=_QUESTION)] = None
    by: Annotated[list[str] | None, _Question] = None
    group: Annotated[list[str] | None, _Question] = None
    min_group_size: Annotated[int, _Question] = 1
    group_sorted: Annotated[bool, Parameter(group=_QUESTION, negative=())] = False
    ties: Annotated[Ties, _QuestionWord] = "average"
    id: Annotated[str | None, _Columns] = None
    reduction: Annotated[Reduction | None, _QuestionWord] = None
    common_rows: Annotated[bool, Parameter(group=_QUESTION, negative=())] = False

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `fastloss.evaluate`."""
        given = super().arguments()
        metric = given.pop("metric")
        return {
            **given,
            **{space: _models(space, given[space] or []) for space in SPACES},
            "metrics": None if metric is None else [name for text in metric for name in split_names(text)],
            "by": [_columns_of("by", text) for text in self.by or []],
            "group": [_columns_of("group", text) for text in self.group or []],
        }


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScoreOptions(LossOptions):
    """The options of what `fastloss.score` computes.

    Parameters
    ----------
    loss
        The loss, such as log_loss or 'log_loss(label_smoothing=0.1)'; "fastloss losses" lists them. With --group,
        several too, comma separated or repeated: losses and rankings, such as ndcg@10,log_loss.
    logit
        Column of logits.
    prob
        Column of probabilities in [0, 1].
    logprob
        Column of natural logarithms of probabilities.
    margin
        Column of decision values.
    value
        Column of predictions in the unit of the label.
    score
        Column of scores that are only an order, for rankings of groups.
    group
        Write a row for each value of this column, such as request_id or user_id, in place of one for each row of the
        log. Several columns that are one key: day,user_id.
    min_group_size
        Leave out groups of fewer rows.
    ties
        The order of candidates of equal scores in metrics at ranks, as "fastloss eval" has it.
    id
        The column of ids, for --ties id_desc.
    keep
        Columns to write beside, comma separated or repeated. A name that holds a comma stands in double quotes.
    top
        Write only the rows with the largest losses of the whole log, this many; with --group, the groups with the
        worst values of the first loss or ranking.
    """

    loss: Annotated[list[str], _Question]
    logit: Annotated[str | None, _Columns] = None
    prob: Annotated[str | None, _Columns] = None
    logprob: Annotated[str | None, _Columns] = None
    margin: Annotated[str | None, _Columns] = None
    value: Annotated[str | None, _Columns] = None
    score: Annotated[str | None, _Columns] = None
    group: Annotated[list[str] | None, _Question] = None
    min_group_size: Annotated[int, _Question] = 1
    ties: Annotated[Ties, _QuestionWord] = "average"
    id: Annotated[str | None, _Columns] = None
    keep: Annotated[list[str] | None, _Columns] = None
    top: Annotated[int | None, _Question] = None

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `fastloss.score`."""
        keep = [column for text in self.keep or [] for column in _columns_of("keep", text)]
        return {
            **super().arguments(),
            "loss": [name for text in self.loss for name in split_names(text)],
            "group": [_columns_of("group", text) for text in self.group or []],
            "keep": keep,
        }


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(RowOptions):
    """The options of what `fastloss.calibrate` fits.

    Parameters
    ----------
    logit
        Column of logits.
    prob
        Column of probabilities in [0, 1].
    logprob
        Column of natural logarithms of probabilities.
    weight
        Row weights, at least 0; rows of weight 0 are skipped.
    method
        The map: platt is a line on the logit, temperature its slope alone, beta has a slope for log p and one for
        log(1 - p), both at least 0, isotonic is the best increasing map of all, linear between knots.
    """

    logit: Annotated[str | None, _Columns] = None
    prob: Annotated[str | None, _Columns] = None
    logprob: Annotated[str | None, _Columns] = None
    weight: Annotated[str | None, _Columns] = None
    method: Annotated[CalibrationMethod, _Question] = "platt"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GradientOptions(RowOptions):
    """The options of what `fastloss.feature_gradient` computes.

    Parameters
    ----------
    features
        Columns of numbers, of lists of numbers of one length (a gradient for each place), of texts or dates or lists
        of these (one for each category), or expressions; comma separated or repeated.
    categorical
        Further features, of which each value is a category, such as integers that are ids, or lists of them.
    logit
        Column of logits.
    prob
        Column of probabilities in [0, 1].
    logprob
        Column of natural logarithms of probabilities.
    margin
        Column of decision values.
    value
        Column of predictions in the unit of the label.
    weight
        Row weights, at least 0; rows of weight 0 are skipped.
    loss
        A pointwise loss; "fastloss losses" lists them. Left out: log_loss, for values mean_squared_error.
    saturation
        Where a probability rules out what happened: clip it at 1e-12, keep the infinite loss, or stop. It is counted.
    diagonal
        Leave out the curvatures of pairs of features, and so the step of all together, which takes up to 64 columns of
        numbers, those of lists counted. It takes less time.
    """

    features: Annotated[list[str] | None, _Columns] = None
    categorical: Annotated[list[str] | None, _Columns] = None
    logit: Annotated[str | None, _Columns] = None
    prob: Annotated[str | None, _Columns] = None
    logprob: Annotated[str | None, _Columns] = None
    margin: Annotated[str | None, _Columns] = None
    value: Annotated[str | None, _Columns] = None
    weight: Annotated[str | None, _Columns] = None
    loss: Annotated[str | None, _Question] = None
    saturation: Annotated[Saturation, _Question] = "clip"
    diagonal: Annotated[bool, Parameter(group=_QUESTION, negative=())] = False

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `fastloss.feature_gradient`."""
        columns = {
            option: [column for text in getattr(self, option) or [] for column in _columns_of(option, text)]
            for option in ("features", "categorical")
        }
        return {**super().arguments(), **columns}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReadingOptions(_Arguments):
    """How a log is read.

    Parameters
    ----------
    missing_columns
        At a file that lacks a column which another file has: stop, or read the column as null there.
    on_bad_file
        At an unreadable file: stop, or leave out what cannot be read and list it.
    reader
        What decodes Parquet; polars is for trusted files alone, since a malformed one may end the process.
    verify_checksums
        Verify the page checksums that files carry.
    storage_option
        An option of the store that a URL names: KEY=VALUE, such as region=eu-central-1, endpoint_url=http://...,
        anonymous=true. Repeat it for more. Keys belong into the environment, such as AWS_SECRET_ACCESS_KEY, since
        others see a command line.
    retry_seconds
        How long a store is asked again when a request fails in a way that may pass, such as a broken connection; 0
        asks once.
    memory
        Most memory that reading and computing may take, such as 1G.
    threads
        Threads; left out, one for each core. No digit depends on it.
    """

    missing_columns: Annotated[MissingColumns, _Reading] = "error"
    on_bad_file: Annotated[OnBadFile, _Reading] = "raise"
    reader: Annotated[Reader, _Reading] = "pyarrow"
    verify_checksums: Annotated[bool, Parameter(group=_READING, negative=())] = False
    storage_option: Annotated[list[str] | None, _Reading, Named] = None
    retry_seconds: Annotated[float, _Reading] = DEFAULT_RETRY_SECONDS
    memory: Annotated[str, _Reading] = "512MiB"
    threads: Annotated[int | None, _Reading] = None

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of the API."""
        given = super().arguments()
        storage = _storage_options(given.pop("storage_option"))
        return {**given, "storage_options": storage}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScanOptions(ReadingOptions):
    """How a log is read that need not be read in one process.

    Parameters
    ----------
    executor
        Whether threads of one process read the log, or processes of their own.
    """

    executor: Annotated[ExecutorName, _Reading] = "threads"


@dataclass(frozen=True, kw_only=True)
class ProgressOptions:
    """The options of every command that reads a log.

    Parameters
    ----------
    progress
        The progress bar on stderr; there is none where stderr is no terminal.
    """

    progress: Annotated[bool, _Output] = True


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Where a result goes, and what becomes of it.

    Parameters
    ----------
    format
        Left out: what the name of --output ends in (.txt, .json, .arrow, .parquet, .csv, .md), else table. arrow is
        an Arrow IPC file, and on stdout an Arrow IPC stream.
    output
        Write the result here instead of to stdout (-); the file appears whole or not at all.
    slices
        How many slices of each grouping: those with the most rows, or the first of --sort. Left out: 50 where a table
        goes to stdout, else all.
    sort
        Order slices by this metric of the first model, the largest first, or by their rows: n. Left out: by their
        keys, or by their rows where --slices (--top) shows only some.
    min_rows
        Leave out slices of fewer rows.
    wide
        In arrow, parquet and csv: a row for each slice and model, and a column for each metric and for the threshold
        of those that have one. Left out: a row for each value, with all that is known of it.
    fail_if
        Exit with status 1 if this holds, or if a value is null: "log_loss > 0.5" for the total of any model;
        "a: log_loss > 0.5" or "b.log_loss > a.log_loss" for models a and b; "country=DE: n < 1000" for a slice, and
        "country=*: ..." for every one. Repeat it for more gates.
    max_dropped
        Exit with status 1 if a model leaves out more rows: a number, or a share such as 1%. Rows of weight 0 do not
        count.
    state
        Write the sums behind the result to this file, so that "fastloss merge" can add those of other logs. What is
        there is replaced.
    curve
        Write a curve of the total and of all slices, whatever --slices says, as a table: roc=FILE,
        precision_recall=FILE, gain=FILE or reliability=FILE, in the format that the name ends in, as of --output.
        Repeat it for more curves.
    """

    format: Annotated[FormatName | None, Parameter(group=_OUTPUT, converter=_word)] = None
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), group=_OUTPUT, allow_leading_hyphen=True)] = None
    slices: Annotated[int | Literal["all"] | None, Parameter(name=("--slices", "--top"), group=_OUTPUT)] = None
    sort: Annotated[str | None, _Output] = None
    min_rows: Annotated[int, _Output] = 0
    wide: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False
    fail_if: Annotated[list[str] | None, _Output] = None
    max_dropped: Annotated[str | None, _Output] = None
    state: Annotated[Path | None, _Output] = None
    curve: Annotated[list[str] | None, _Output, Named] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class OutputOptions(ProgressOptions, ResultOptions):
    """The same, and how far a log is read."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RankingOptions(ProgressOptions):
    """Where a ranking of features goes.

    Parameters
    ----------
    format
        Left out: what the name of --output ends in (.txt, .json, .arrow, .parquet, .csv, .md), else table. arrow is
        an Arrow IPC file, and on stdout an Arrow IPC stream.
    output
        Write the result here instead of to stdout (-); the file appears whole or not at all.
    sort
        The order: by the size of z, by improvement, the largest first, or as asked for.
    top
        How many features and categories: the first of --sort. Left out: 50 where a table goes to stdout, else all.
    """

    format: Annotated[FormatName | None, Parameter(group=_OUTPUT, converter=_word)] = None
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), group=_OUTPUT, allow_leading_hyphen=True)] = None
    sort: Annotated[GradientSort, _Output] = "z"
    top: Annotated[int | None, _Output] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MergeOptions(_Arguments):
    """What `fastloss.merge` makes of states.

    Parameters
    ----------
    by
        Slice by a column, or by the cross of several: country,device; each saved, or made of the columns of one that
        was saved. Repeat it for more groupings; --no-by for the total alone. Left out: those that were saved.
    """

    by: Annotated[list[str] | None, Parameter(group=_QUESTION, negative="--no-by")] = None

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `fastloss.merge`."""
        return {"by": None if self.by is None else [_columns_of("by", text) for text in self.by]}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MapOptions(ProgressOptions):
    """Where a calibration map goes.

    Parameters
    ----------
    output
        Write the map to this file, as JSON; the file appears whole or not at all. eval and score apply it.
    format
        What is printed: the map and what it gains as a table, or all of it as JSON.
    """

    output: Annotated[Path | None, Parameter(name=("--output", "-o"), group=_OUTPUT)] = None
    format: Annotated[Literal["table", "json"], _Output] = "table"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WriteOptions(ProgressOptions):
    """How scores are written.

    Parameters
    ----------
    compression
        The codec of what is written.
    overwrite
        Replace what exists. Left out, what a run with the same request has written stays, and all else is an error.
    """

    compression: Annotated[Compression, _Output] = "zstd"
    overwrite: Annotated[bool, Parameter(group=_OUTPUT, negative=())] = False


def _derived(given: Sequence[str]) -> dict[str, str]:
    derived: dict[str, str] = {}
    for text in given:
        name, equals, expression = (part.strip() for part in text.partition("="))
        if not (name and equals and expression and is_name(name)):
            raise UsageError(
                f"--with is {text!r}; write NAME = EXPRESSION, such as \"hour = date_trunc('hour', ts)\"."
            )
        name = unquoted(name)
        if name in derived:
            raise UsageError(f"--with makes two columns called {name!r}; give each a name of its own.")
        derived[name] = expression
    return derived


def _models(space: str, given: Sequence[str]) -> dict[str, str]:
    models: dict[str, str] = {}
    for text in given:
        name, equals, column = (part.strip() for part in text.partition("="))
        if not (name and (column or not equals)):
            raise UsageError(f"--{space} is {text!r}; write COLUMN or NAME=COLUMN.")
        if name in models:
            raise UsageError(f"Two predictions are called {name!r}; give each a name of its own: NAME=COLUMN.")
        models[name] = column if equals else name
    return models


def _by_model(option: str, given: Sequence[str] | None) -> str | dict[str, str] | None:
    """Return the only item, or items by the names of models."""
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    found: dict[str, str] = {}
    for text in given:
        name, equals, item = (part.strip() for part in text.partition("="))
        if not (name and equals and item):
            raise UsageError(f"{option} is {text!r}, one of {len(given)}; write NAME=..., for each model one.")
        if name in found:
            raise UsageError(f"{option} names the model {name!r} twice; give it once.")
        found[name] = item
    return found


def _rate(given: str | None) -> float | str | None:
    try:
        return None if given is None else float(given)
    except ValueError:
        return given


def _storage_options(given: Sequence[str] | None) -> dict[str, str] | None:
    if given is None:
        return None
    options: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals):
            # What was given may be a secret.
            raise UsageError("a --storage-option has no '='; write KEY=VALUE, such as region=eu-central-1.")
        if key in options:
            raise UsageError(f"--storage-option gives {key!r} twice; give it once.")
        options[key] = value
    return options


def _columns_of(option: str, text: str) -> tuple[str, ...]:
    """Split columns at commas, which expressions may hold in parentheses and names in double quotes."""
    columns = tuple(split_list(text))
    if not all(columns) or text.count('"') % 2:
        raise UsageError(f'--{option} is {text!r}; write COLUMN, COLUMN,COLUMN or "A,B",COLUMN.')
    return columns
