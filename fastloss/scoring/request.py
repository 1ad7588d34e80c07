"""Score requests: one model, one loss or the metrics of groups, and the part of the request that an output holds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, get_args

from fastloss.budget import positive
from fastloss.errors import UsageError
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.names import base_name, loss_of, parse_metric
from fastloss.request import LOSS_SPACES, SPACES, Prediction, Request, Space, one_of
from fastloss.words import Compression
from fastloss_kernels.losses import Loss

LOSS_COLUMNS = ("loss", "gradient", "hessian")
PLACE_COLUMNS = ("file", "row_group", "row")
# How many rows a group has.
SIZE_COLUMN = "n"
# What to name in place of metrics of all groups, or of all rows.
_OF_A_GROUP = {
    "gauc": "'list_auc'",
    "roc_auc": "'list_auc'",
    "average_precision": "'map'",
    "precision": "'precision@10'",
    "recall": "'recall@10'",
}
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """A score request, as far as it can change an output.

    Attributes
    ----------
    request : Request
        What to compute: one loss of one model, or metrics of it by one group key; without slices.
    keep : tuple of str
        Columns to write beside, each once.
    top : int or None
        Write only so many rows, those with the largest losses, or so many groups, the worst; None for all.
    compression : str
        The outputs' codec.
    """

    request: Request
    keep: tuple[str, ...] = ()
    top: int | None = None
    compression: Compression = "zstd"

    @classmethod
    def of(
        cls,
        *,
        label: str,
        loss: object,
        keep: Sequence[str] | str = (),
        top: int | None = None,
        compression: str = "zstd",
        **options: Any,
    ) -> ScoreRequest:
        """Check what a caller wrote; a keyword of the prediction's space names its column.

        Raises
        ------
        UsageError
            If a value is none of those allowed.
        """
        of_groups = bool(options.get("group"))
        given: dict[Space, Any] = {space: options.pop(space, None) for space in SPACES}
        prediction = _one_prediction(given, SPACES if of_groups else LOSS_SPACES)
        losses = _losses_of_groups(loss) if of_groups else [_loss_of_rows(loss)]
        request = Request.of(label=label, predictions=prediction, metrics=losses, **options)
        if of_groups:
            _check_groups(request, losses, keep)
        return cls(
            request=request,
            keep=_kept_columns(keep, LOSS_COLUMNS if top is None else LOSS_COLUMNS + PLACE_COLUMNS),
            top=None if top is None else positive("top", top),
            compression=one_of("compression", compression, get_args(Compression)),
        )


def _one_prediction(given: Mapping[Space, Any], spaces: Sequence[Space]) -> dict[str, Prediction]:
    columns = {space: column for space, column in given.items() if column is not None}
    if set(columns) == {"score"} and "score" not in spaces:
        raise UsageError(
            f"score={columns['score']!r} is an order alone, of which a row has no loss; of groups, as by "
            "group='request_id', rankings have values."
        )
    if len(columns) != 1 or not all(isinstance(column, str) for column in columns.values()):
        found = ", ".join(f"{space}={column!r}" for space, column in columns.items()) or "none"
        raise UsageError(
            f"Scoring takes one prediction column, as {' or '.join(f'{s}=' for s in spaces)}; got {found}."
        )
    ((space, column),) = columns.items()
    return {column: Prediction(space, column)}


def _loss_of_rows(given: object) -> Loss:
    if isinstance(given, list | tuple):
        if len(given) != 1:
            raise UsageError(
                f"loss names {len(given)} losses, and of rows one is written at a time; name one, or write those of "
                "groups, as by group='request_id'."
            )
        (given,) = given
    metric = given if isinstance(given, MeanLoss) else parse_metric(given)
    chosen = loss_of(metric)
    if chosen is None:
        if isinstance(metric, MeanLoss):
            raise UsageError(
                f"{metric.name} has no gradient; name a loss: 'fastloss losses' lists them. Of each group it is "
                "written by group='request_id'."
            )
        raise UsageError(f"{metric.name} has no value of a single row; name a loss: 'fastloss losses' lists them.")
    return chosen


def _losses_of_groups(given: object) -> list[Loss]:
    named = list(given) if isinstance(given, list | tuple) else [given]
    if not named:
        raise UsageError("loss names nothing; name one loss or metric of groups, or several.")
    losses = []
    for metric in (each if isinstance(each, MeanLoss) else parse_metric(each) for each in named):
        if not isinstance(metric, MeanLoss):
            near = _OF_A_GROUP.get(base_name(metric), "losses and rankings: 'fastloss losses' lists them")
            raise UsageError(f"{metric.name} has no value of a single group; name {near}.")
        losses.append(metric.loss)
    return losses


def _check_groups(request: Request, losses: Sequence[Loss], keep: Sequence[str] | str) -> None:
    if len(request.group) > 1:
        columns = request.group_columns
        raise UsageError(
            f"group names {len(request.group)} keys, and each has groups of its own; write those of one after the "
            f"other. One key of these columns is group=[{columns!r}], on the command line --group "
            f"{','.join(columns)}."
        )
    if keep:
        raise UsageError("keep writes columns of rows, and with group= the output has groups; leave out keep.")
    taken = (SIZE_COLUMN, *(loss.full_name for loss in losses))
    for column in request.group_columns:
        if column in taken:
            raise UsageError(
                f"group names the column {column!r}, and the output has one of that name already; rename it in the "
                "log, or by with_columns."
            )


def _kept_columns(keep: Sequence[str] | str, taken: Sequence[str]) -> tuple[str, ...]:
    kept = (keep,) if isinstance(keep, str) else tuple(keep)
    for column in kept:
        if not isinstance(column, str):
            raise UsageError(f"keep holds {column!r}; allowed: names of columns.")
        if column in taken:
            raise UsageError(
                f"keep names the column {column!r}, and the output has one of that name already; "
                "keep others, or rename it in the log."
            )
    return tuple(dict.fromkeys(kept))


def refuse_a_column(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function of a log say what a column of scores is, where it is called as `logit` and the like are."""

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if len(args) == 1 and not kwargs:
            raise UsageError(
                "fastloss.score writes the loss of each row of a log and needs out=, label=, loss= and a prediction; "
                f"a column of scores is fastloss.ranking_score({args[0]!r})."
            )
        return function(*args, **kwargs)

    return checked
