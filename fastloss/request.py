"""Requests: the question to a log, as a value that can be hashed, compared, written as JSON and read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

from fastloss.errors import UsageError
from fastloss.expressions import PolarsExpression, expression_from_plain, expression_of, plain_expression
from fastloss.maps import Mapped, mapped_columns
from fastloss.words import CurveName, LabelDomain, ListReduction, OnBadRow, PresetName, Reduction, Saturation, Ties

Space = Literal["logit", "prob", "logprob", "margin", "value", "score"]
# The spaces that losses read; a score is an order and nothing else.
LOSS_SPACES: tuple[Space, ...] = ("logit", "prob", "logprob", "margin", "value")
SPACES: tuple[Space, ...] = (*LOSS_SPACES, "score")


@dataclass(frozen=True)
class Prediction:
    """A prediction column and the space of its numbers."""

    space: Space
    column: str


def logit(column: str) -> Prediction:
    """Declare a column of logits, log(p / (1 − p))."""
    return Prediction("logit", column)


def prob(column: str) -> Prediction:
    """Declare a column of probabilities in [0, 1]."""
    return Prediction("prob", column)


def logprob(column: str) -> Prediction:
    """Declare a column of natural logarithms of probabilities, at most 0."""
    return Prediction("logprob", column)


def margin(column: str) -> Prediction:
    """Declare a column of decision values, as a support-vector machine gives them."""
    return Prediction("margin", column)


def value(column: str) -> Prediction:
    """Declare a column of predictions in the unit of the label."""
    return Prediction("value", column)


def ranking_score(column: str) -> Prediction:
    """Declare a column of scores of which only the order counts: any numbers, infinite ones too.

    It is not called `score`, which is the function that computes the loss of every row.
    """
    return Prediction("score", column)


@dataclass(frozen=True)
class Model:
    """A named prediction."""

    name: str
    space: Space
    column: str


@dataclass(frozen=True)
class ColumnType:
    """The facts of a column's type that a result may depend on.

    Attributes
    ----------
    name : str
        The type as Arrow writes it.
    is_list : bool
        Whether each row holds a list.
    epsilon : float
        The distance from 1 to the next number of the type; other types than floats count as float64.
    """

    name: str
    is_list: bool
    epsilon: float

    @property
    def is_single(self) -> bool:
        """Whether the numbers are float32 or float16, which other systems compute with in float32."""
        return self.epsilon >= 2.0**-23


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request, as far as it can change a number.

    Attributes
    ----------
    label : str
        The label column, or an expression.
    models : tuple of Model
        The predictions, each with its name.
    weight : str or None
        The column of row weights.
    metrics : tuple of str or Loss, or None
        Metrics by name, or losses. None for the usual ones of the predictions' spaces.
    by : tuple of tuple of str
        The slice keys of each grouping.
    label_domain : {"01", "pm1"}
        Whether binary labels are 0 and 1, or −1 and +1.
    reduction : str or None
        How losses are summed up over rows. None leaves it to the preset, or to the mean.
    list_reduction : str or None
        How a pointwise loss is taken over list columns. None leaves it to the preset, or to the mean in each list.
    preset : str or None
        The name of the system whose conventions hold.
    common_rows : bool
        Whether all metrics of a model use the same lists: those that every one of them can use.
    saturation : {"clip", "exact", "error"}
        What to do where a probability rules out what happened.
    on_bad_row : {"raise", "drop"}
        What to do at a row that holds a value that is not allowed.
    positive : str, int, float, bool or None
        The label's value that counts as 1, every other as 0. None where labels are numbers already.
    where : tuple of str or PolarsExpression, or None
        The conditions that a row must meet to be evaluated.
    with_columns : tuple of (str, str or PolarsExpression), or None
        Derived columns by name.
    mapped : tuple of Mapped, or None
        Predictions through maps; the models that have one read these columns.
    curves : tuple of str
        Kinds of curves whose statistics are kept.
    group : tuple of tuple of str
        The columns of each group key: the rows of a group are a list to the metrics that read lists.
    min_group_size : int
        Groups of fewer rows are left out.
    group_sorted : bool
        Whether the rows of each group are said to be adjacent; it changes no number.
    ties : {"average", "input", "pessimistic", "optimistic", "id_desc"}
        How metrics of rankings order candidates of equal scores.
    id : str or None
        The column that decides between them.
    """

    label: str
    models: tuple[Model, ...]
    weight: str | None = None
    metrics: tuple[Any, ...] | None = None
    by: tuple[tuple[str, ...], ...] = ()
    label_domain: LabelDomain = "01"
    reduction: Reduction | None = None
    list_reduction: ListReduction | None = None
    preset: PresetName | None = None
    common_rows: bool = False
    saturation: Saturation = "clip"
    on_bad_row: OnBadRow = "raise"
    positive: str | int | float | bool | None = None
    where: tuple[str | PolarsExpression, ...] | None = None
    with_columns: tuple[tuple[str, str | PolarsExpression], ...] | None = None
    curves: tuple[str, ...] = ()
    mapped: tuple[Mapped, ...] | None = None
    group: tuple[tuple[str, ...], ...] = ()
    min_group_size: int = 1
    group_sorted: bool = False
    ties: Ties = "average"
    id: str | None = None

    @classmethod
    def of(
        cls,
        *,
        label: str,
        predictions: Mapping[str, Prediction] | None = None,
        weight: str | None = None,
        metrics: Sequence[object] | object | None = None,
        by: Sequence[str | Sequence[str]] | str | None = (),
        positive: str | int | float | bool | None = None,
        where: object = None,
        with_columns: Mapping[str, object] | None = None,
        apply: object = None,
        sampling_rate: object = None,
        curves: Sequence[str] | str = (),
        group: Sequence[str | Sequence[str]] | str | None = (),
        min_group_size: int = 1,
        **options: Any,
    ) -> Request:
        """Check what a caller wrote; besides `predictions`, a keyword of each space names columns.

        Models that `apply` or `sampling_rate` names read a mapped column instead of their own.

        Raises
        ------
        UsageError
            If a value is none of those allowed.
        """
        models = _models(predictions, {space: options.pop(space, None) for space in SPACES})
        for column in (label, weight, *(model.column for model in models)):
            if column is not None and not isinstance(column, str):
                raise UsageError(f"A column is named by {column!r}; allowed: a string.")
        mapped = mapped_columns([(model.name, model.space, model.column) for model in models], apply, sampling_rate)
        models = [_through(mapped[model.name], model) if model.name in mapped else model for model in models]
        given = split_names(metrics) if isinstance(metrics, str) else metrics
        given = given if given is None or isinstance(given, list | tuple) else [given]
        if given is not None and not given:
            raise UsageError("No metric was asked for; name at least one, such as 'log_loss'.")
        for name, words in _WORDS.items():
            if name in options:
                one_of(name, options[name], words)
        for name in ("common_rows", "group_sorted"):
            if name in options:
                options[name] = bool(options[name])
        if options.get("group_sorted") and not group:
            raise UsageError("group_sorted says that the rows of groups are adjacent, and no group= makes groups.")
        _check_ties(options.get("ties", "average"), options.get("id"))
        if "common_rows" in options:
            options["common_rows"] = bool(options["common_rows"])
        return cls(
            label=label,
            models=tuple(models),
            weight=weight,
            metrics=None if given is None else tuple(given),
            by=groupings_of(by),
            positive=_positive(positive),
            where=_conditions(where),
            with_columns=_derived(with_columns),
            curves=_curves(curves),
            group=groupings_of(group, "group"),
            min_group_size=_group_size(min_group_size, group),
            mapped=tuple(dict.fromkeys(mapped.values())) or None,
            **options,
        )

    @property
    def label_column(self) -> str:
        """The column of the labels' numbers: the label itself, or what is made of it where one value is positive."""
        return self.label if self.positive is None else f"{self.label} = {self.positive}"

    @property
    def groupings(self) -> tuple[tuple[str, ...], ...]:
        """The groupings that are summed; without slices the total alone, whose keys are ``()``."""
        return self.by or ((),)

    @property
    def keys(self) -> tuple[str, ...]:
        """The slice columns, each once."""
        return tuple(dict.fromkeys(key for keys in self.by for key in keys))

    @property
    def group_columns(self) -> tuple[str, ...]:
        """The columns of group keys, each once."""
        return tuple(dict.fromkeys(column for keys in self.group for column in keys))

    @property
    def numeric_columns(self) -> tuple[str, ...]:
        """The columns that must hold numbers, or lists of them, each once."""
        weight = () if self.weight is None else (self.weight,)
        return tuple(dict.fromkeys((self.label_column, *(model.column for model in self.models), *weight)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        stored = (mapped.column for mapped in self.mapped or ())
        ids = () if self.id is None else (self.id,)
        return tuple(dict.fromkeys((*self.numeric_columns, *self.keys, *self.group_columns, *ids, *stored)))

    def to_dict(self) -> dict[str, Any]:
        """Return the request as plain values, from which `from_dict` makes an equal one; a loss is its full name."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        names = None if self.metrics is None else [getattr(m, "full_name", m) for m in self.metrics]
        return {
            **plain,
            "models": [[model.name, model.space, model.column] for model in self.models],
            "metrics": names,
            "by": [list(keys) for keys in self.by],
            "group": [list(keys) for keys in self.group],
            "where": self.where and [plain_expression(given) for given in self.where],
            "mapped": self.mapped and [mapped.to_plain() for mapped in self.mapped],
            "with_columns": self.with_columns and [[n, plain_expression(given)] for n, given in self.with_columns],
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Request:
        """Read what `to_dict` wrote."""
        metrics = plain["metrics"]
        return cls(
            **{
                **plain,
                "models": tuple(Model(*model) for model in plain["models"]),
                "metrics": None if metrics is None else tuple(metrics),
                "by": tuple(tuple(keys) for keys in plain["by"]),
                "group": tuple(tuple(keys) for keys in plain.get("group", ())),
                "mapped": tuple(Mapped.from_plain(given) for given in plain.get("mapped") or ()) or None,
                "where": _conditions([expression_from_plain(given) for given in plain["where"] or ()]),
                "with_columns": _derived(
                    {n: expression_from_plain(given) for n, given in plain["with_columns"] or ()}
                ),
                "curves": tuple(plain.get("curves", ())),
            }
        )


def _through(mapped: Mapped, model: Model) -> Model:
    """Return a model that reads its mapped column."""
    return Model(model.name, cast("Space", mapped.mapped_space), mapped.name)


_WORDS: Mapping[str, tuple[str, ...]] = {
    "label_domain": get_args(LabelDomain),
    "saturation": get_args(Saturation),
    "on_bad_row": get_args(OnBadRow),
    "ties": get_args(Ties),
}


def one_of(name: str, given: str, allowed: Sequence[str]) -> Any:
    """Return an option's word, or raise a UsageError that names the allowed ones."""
    if given not in allowed:
        raise UsageError(f"{name} is {given!r}; allowed: {' or '.join(repr(a) for a in allowed)}.")
    return given


def split_names(text: str) -> list[str]:
    """Split a comma-separated list of metrics, leaving commas inside parentheses alone."""
    names, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            names.append(text[start:i])
            start = i + 1
    names.append(text[start:])
    return [name.strip() for name in names if name.strip()]


def _models(
    predictions: Mapping[str, Prediction] | None, spaces: Mapping[Space, str | Mapping[str, str] | None]
) -> list[Model]:
    models = []
    if predictions is not None and not isinstance(predictions, Mapping):
        raise UsageError(f"predictions is {predictions!r}; allowed: predictions by name, such as {{'a': logit('s')}}.")
    for name, prediction in (predictions or {}).items():
        if not isinstance(prediction, Prediction):
            hint = ""
            if getattr(prediction, "__name__", "") == "score":
                hint = " fl.score computes losses of rows; a column that is only an order is ranking_score('c')."
            raise UsageError(
                f"predictions[{name!r}] is {prediction!r}; allowed: logit('column'), prob('column'), ….{hint}"
            )
        models.append(Model(name, prediction.space, prediction.column))
    for space in SPACES:
        given = spaces[space]
        named = {given: given} if isinstance(given, str) else (given or {})
        if not isinstance(named, Mapping):
            raise UsageError(f"{space} is {given!r}; allowed: a column, or columns by the names of their models.")
        models += [Model(name, space, column) for name, column in named.items()]
    if not models:
        raise UsageError(f"No prediction was given; name a column with {', '.join(f'{s}=' for s in SPACES)}.")
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise UsageError(f"Two predictions are called {max(names, key=names.count)!r}; give each a name of its own.")
    return models


def _positive(given: object) -> str | int | float | bool | None:
    if given is None or isinstance(given, str | int | float | bool):
        return given
    raise UsageError(f"positive is {given!r}; allowed: a value of the label column: a string, a number or a boolean.")


def _curves(given: object) -> tuple[str, ...]:
    listed = (given,) if isinstance(given, str) else given
    known = get_args(CurveName)
    if not isinstance(listed, list | tuple) or not all(kind in known for kind in listed):
        raise UsageError(f"curves is {given!r}; allowed: {', '.join(map(repr, known))}, or a list of these.")
    return tuple(kind for kind in known if kind in listed)


def _conditions(given: object) -> tuple[str | PolarsExpression, ...] | None:
    listed = () if given is None else given if isinstance(given, list | tuple) else (given,)
    return tuple(expression_of("where", condition) for condition in listed) or None


def _derived(given: Mapping[str, object] | None) -> tuple[tuple[str, str | PolarsExpression], ...] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(name, str) and name for name in given):
        raise UsageError(f"with_columns is {given!r}; allowed: expressions by the names of the columns they make.")
    derived = ((name, expression_of(f"with_columns[{name!r}]", expression)) for name, expression in given.items())
    return tuple(derived) or None


def _check_ties(ties: str, column: object) -> None:
    if ties == "id_desc" and column is None:
        raise UsageError("ties='id_desc' orders tied candidates by a column; name it by id=, such as id='doc_id'.")
    if ties != "id_desc" and column is not None:
        raise UsageError(
            f"id={column!r} orders tied candidates, and ties is {ties!r}; give ties='id_desc', or leave out id."
        )
    if column is not None and not isinstance(column, str):
        raise UsageError(f"A column is named by {column!r}; allowed: a string.")


def _group_size(given: object, group: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UsageError(f"min_group_size is {given!r}; allowed: a whole number from 1.")
    if given > 1 and not group:
        raise UsageError(
            "min_group_size leaves out small groups, and no group= makes groups; give one, or leave it out."
        )
    return given


def groupings_of(by: Sequence[str | Sequence[str]] | str | None, option: str = "by") -> tuple[tuple[str, ...], ...]:
    """Return the keys of each grouping, as a caller wrote them in an option.

    Raises
    ------
    UsageError
        If a grouping is no string, and no tuple of different strings.
    """
    given = [by] if isinstance(by, str) else () if by is None else by
    groupings = []
    if not isinstance(given, list | tuple):
        raise UsageError(f"{option} is {by!r}; allowed: a column, or a list of columns and of tuples of columns.")
    for keys in given:
        grouping = tuple(keys) if isinstance(keys, list | tuple) else (keys,)
        if not grouping or not all(isinstance(k, str) for k in grouping) or len(set(grouping)) < len(grouping):
            raise UsageError(
                f"{option} holds {keys!r}; allowed: a column, or several different columns for their cross."
            )
        groupings.append(grouping)
    return tuple(dict.fromkeys(groupings))
