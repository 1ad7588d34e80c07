"""Score requests: one model and one loss, and the part of the request that an output holds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, get_args

from fastloss.budget import positive
from fastloss.errors import UsageError
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.names import loss_of, parse_metric
from fastloss.request import LOSS_SPACES, Prediction, Request, Space, one_of
from fastloss.words import Compression

LOSS_COLUMNS = ("loss", "gradient", "hessian")
PLACE_COLUMNS = ("file", "row_group", "row")
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """A score request, as far as it can change an output.

    Attributes
    ----------
    request : Request
        What to compute: one loss of one model, without slices.
    keep : tuple of str
        Columns to write beside, each once.
    top : int or None
        Write only so many rows, those with the largest losses; None for every row.
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
        prediction = _one_prediction({space: options.pop(space, None) for space in LOSS_SPACES})
        metric = loss if isinstance(loss, MeanLoss) else parse_metric(loss)
        chosen = loss_of(metric)
        if chosen is None:
            lacking = "gradient" if isinstance(metric, MeanLoss) else "value of a single row"
            raise UsageError(f"{metric.name} has no {lacking}; name a loss: 'fastloss losses' lists them.")
        return cls(
            request=Request.of(label=label, predictions=prediction, metrics=[chosen], **options),
            keep=_kept_columns(keep, LOSS_COLUMNS if top is None else LOSS_COLUMNS + PLACE_COLUMNS),
            top=None if top is None else positive("top", top),
            compression=one_of("compression", compression, get_args(Compression)),
        )


def _one_prediction(given: Mapping[Space, Any]) -> dict[str, Prediction]:
    columns = {space: column for space, column in given.items() if column is not None}
    if len(columns) != 1 or not all(isinstance(column, str) for column in columns.values()):
        found = ", ".join(f"{space}={column!r}" for space, column in columns.items()) or "none"
        raise UsageError(
            f"Scoring takes one prediction column, as {' or '.join(f'{s}=' for s in LOSS_SPACES)}; got {found}."
        )
    ((space, column),) = columns.items()
    return {column: Prediction(space, column)}


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
