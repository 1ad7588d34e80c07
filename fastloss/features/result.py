"""The gradient by features, as numbers, table, Arrow, Polars and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from fastloss._version import __version__
from fastloss.errors import UsageError
from fastloss.features.analysis import Columns, Numbers
from fastloss.report import gradient as report
from fastloss.words import GradientSort

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SCHEMA_VERSION = 1
SORTS = get_args(GradientSort)
DEFAULT_TOP = 50
_KEY_WORDS = {None: "null", True: "true", False: "false"}


@dataclass(frozen=True)
class FeatureScore:
    """What a feature, a place of its lists or one of its categories would still teach the model.

    Attributes
    ----------
    feature : str
        The column.
    place : int or None
        The place in its lists.
    category : tuple
        The category in a tuple, which is empty where the column holds numbers; null is a category.
    n : int
        The rows that have it.
    numbers : Numbers
        Gradient, z, step and improvement.
    """

    feature: str
    place: int | None
    category: tuple[Any, ...]
    n: int
    numbers: Numbers

    @property
    def name(self) -> str:
        """The feature, as reports call it: ``age``, ``embedding[3]`` or ``country=DE``."""
        if self.category:
            (key,) = self.category
            return f"{self.feature}={_KEY_WORDS.get(key, key) if key is None or isinstance(key, bool) else key}"
        return self.feature if self.place is None else f"{self.feature}[{self.place}]"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        category = {"category": self.category[0]} if self.category else {}
        place = {} if self.place is None else {"place": self.place}
        return {"name": self.name, "feature": self.feature, **place, **category, "n": self.n, **asdict(self.numbers)}


@dataclass(frozen=True)
class Group:
    """All categories of a feature together.

    Attributes
    ----------
    n_categories : int
        How many categories have rows.
    improvement : float or None
        By how much one Newton step of all of them lowers the mean loss, beyond a step of the bias alone, on the rows
        that the step is taken from; None where a row has any number of categories.
    noise : float or None
        The improvement to expect where no category differs from the others.
    n_without : int
        The rows with no category: of lists, null and empty ones.
    """

    n_categories: int
    improvement: float | None
    noise: float | None
    n_without: int


@dataclass(frozen=True)
class FeatureGradient:
    """The result of `fastloss.feature_gradient`.

    All numbers are of the mean loss, Σw·loss/Σw, unless they are called sums.

    Attributes
    ----------
    asked : dict
        What was asked.
    fingerprint : str
        A hash of all that can change a number.
    loss : str
        The loss.
    mean_loss : float or None
        Its mean, before any step.
    n_saturated : int
        The rows whose loss is clipped or infinite.
    n, weight : int, float
        The rows used, and their weight.
    names : tuple of str
        The columns of numbers that `gradient` and `gauss_newton` are of: features, and places of lists.
    columns : Columns
        Their numbers, and those of the bias.
    features : list of FeatureScore
        What was found, in the order asked for; categories in the order of their keys.
    groups : dict of str to Group
        The features that are categories, each as a whole.
    rows, files : dict
        What was read, used and left out.
    """

    asked: dict[str, Any]
    fingerprint: str
    loss: str
    mean_loss: float | None
    n_saturated: int
    n: int
    weight: float
    names: tuple[str, ...]
    columns: Columns = field(repr=False)
    features: list[FeatureScore] = field(repr=False)
    groups: dict[str, Group] = field(repr=False)
    rows: dict[str, Any] = field(repr=False)
    files: dict[str, Any] = field(repr=False)

    @property
    def gradient(self) -> NDArray[np.float64]:
        """The derivatives of the mean loss by the weights of `names`, NaN where there is none."""
        return _floats([numbers.gradient for numbers in self.columns.scores])

    @property
    def gradient_sums(self) -> NDArray[np.float64]:
        """The derivatives of the summed loss by the weights of `names`."""
        return _floats([numbers.gradient_sum for numbers in self.columns.scores])

    @property
    def bias_gradient(self) -> float | None:
        """The derivative of the mean loss by the bias."""
        return self.columns.bias.gradient

    @property
    def gauss_newton(self) -> NDArray[np.float64] | None:
        """The Gauss-Newton matrix of the mean loss: k + 1 rows and columns, of the k `names` and, last, the bias.

        None where the curvatures of pairs were not summed.
        """
        return self.columns.gauss_newton

    @property
    def collinear(self) -> list[str]:
        """The names that the joint step leaves out, since those before determine them."""
        return [self.names[column] for column in self.columns.collinear]

    def ranked(self, sort: GradientSort = "z", top: int | None = None) -> list[FeatureScore]:
        """Return the features by |z| or by improvement, the largest first, or as asked for.

        Parameters
        ----------
        sort : {"z", "improvement", "feature"}
            The order; ``"feature"`` is that of the request.
        top : int, optional
            Return only so many.
        """
        if sort not in SORTS:
            raise UsageError(f"sort is {sort!r}; allowed: {', '.join(map(repr, SORTS))}.")
        if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 0):
            raise UsageError(f"top is {top!r}; allowed: a whole number from 0.")
        found = list(self.features)
        if sort != "feature":
            found.sort(key=lambda score: -_size(getattr(score.numbers, sort)))
        return found[:top]

    def shown(self, sort: GradientSort = "z", top: int | None = None) -> dict[str, Any]:
        """Return everything as plain values, the features in an order."""
        ranked = self.ranked(sort, top)
        columns = self.columns
        return {
            "schema_version": SCHEMA_VERSION,
            "fastloss": __version__,
            "plan": {"fingerprint": self.fingerprint, **self.asked},
            "rows": self.rows,
            "files": self.files,
            "loss": self.loss,
            "mean_loss": self.mean_loss,
            "n_saturated": self.n_saturated,
            "n": self.n,
            "weight": self.weight,
            "bias": asdict(columns.bias),
            "joint": {
                "improvement": columns.joint_improvement,
                "noise": columns.joint_noise,
                "reason": columns.joint_reason,
                "left_out": self.collinear,
                "without": {
                    name: numbers.reason
                    for name, numbers in zip(self.names, columns.scores, strict=True)
                    if numbers.reason is not None
                },
            },
            "groups": {name: asdict(group) for name, group in self.groups.items()},
            "n_features": len(self.features),
            "features": [score.to_dict() for score in ranked],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, with the Gauss-Newton matrix."""
        matrix = None if self.gauss_newton is None else self.gauss_newton.tolist()
        return {**self.shown("feature"), "gauss_newton": {"names": [*self.names, "bias"], "matrix": matrix}}

    def to_json(self, indent: int | None = None, *, sort: GradientSort = "z", top: int | None = None) -> str:
        """Return everything as one JSON object; floats read back to the same bits, NaN and ±inf are strings."""
        content = {**self.to_dict(), **self.shown(sort, top)}
        return json.dumps(_jsonable(content), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_arrow(self, *, sort: GradientSort = "z", top: int | None = None) -> pa.Table:
        """Return the features as an Arrow table, one a row; `sort` and `top` as in `ranked`."""
        return report.to_arrow(self.shown(sort, top))

    def to_polars(self, *, sort: GradientSort = "z", top: int | None = None) -> pl.DataFrame:
        """Return the features as a Polars frame, with the columns of `to_arrow`."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow(sort=sort, top=top))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def __str__(self) -> str:
        """Return the result as a text table."""
        return report.render(self.shown(top=DEFAULT_TOP))


def _size(value: float | None) -> float:
    return -1.0 if value is None or math.isnan(value) else abs(value)


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _jsonable(found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(found) for found in value]
    return value
