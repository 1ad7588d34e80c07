"""Gates: conditions on a result under which a command fails.

A gate is ``SIDE > SIDE`` with one of <, <=, > and >=. A side is a number or a metric, with a model before it if only
that one is meant: ``log_loss > 0.5``, ``b.log_loss > a.log_loss``. ``n`` and ``weight`` are those of the rows used.
Before it all and a colon may stand a model, or a slice by its keys: ``a: log_loss > 0.5``,
``country=DE: log_loss > 0.5``, ``country=DE, device=phone: ...``. A value of ``*`` stands for every value. A part that
holds a comma stands in double quotes.

The value decides. Where its bounds would leave the answer open, a gate says so, and nothing else changes.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fastloss.errors import UsageError, nearest_names

if TYPE_CHECKING:
    from fastloss.result import Result, Value

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda value, limit: value <= limit,
    ">=": lambda value, limit: value >= limit,
    "<": lambda value, limit: value < limit,
    ">": lambda value, limit: value > limit,
}
_COUNTS = ("n", "weight")
_FORM = "write METRIC > NUMBER, MODEL.METRIC > MODEL.METRIC or KEY=VALUE: METRIC > NUMBER"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a number, or a metric of every model or of one."""

    number: float | None = None
    metric: str = ""
    model: str | None = None


@dataclass(frozen=True)
class Gate:
    """A condition under which a command fails.

    Attributes
    ----------
    text : str
        As the user wrote it.
    left, right : Side
        What is compared.
    operator : str
        How.
    slice : mapping of str to str
        The keys of the slice that is meant, as texts; empty for the total.
    """

    text: str
    left: Side
    operator: str
    right: Side
    slice: Mapping[str, str]

    @classmethod
    def parse(cls, text: str, asked: Mapping[str, Any]) -> Gate:
        """Read a gate on a result of what was asked, as `Plan.asked` and `Result.asked` return it.

        Raises
        ------
        UsageError
            If it has another form, or names what is not computed.
        """
        where, rest = _split(text)
        model, keys = _read_where(text, where, asked)
        found = re.fullmatch(r"(.*?)(<=|>=|<|>)(.*)", rest, re.DOTALL)
        if found is None:
            raise _refused(text)
        left, right = (_side(text, side, model, asked) for side in (found[1], found[3]))
        if left.number is not None and right.number is not None:
            raise _refused(text)
        return cls(text, left, found[2], right, keys)

    def failures(self, result: Result) -> list[str]:
        """Say where the gate fails: at every model, in every slice that is meant; a null or a NaN fails too."""
        failures: list[str] = []
        compared = list(self._compared(result))
        for place, left, right in compared:
            if any(math.isnan(side.number) for side in (left, right)) or self._holds(left.number, right.number):
                said = [side.said for side in (left, right) if side.said]
                failures.append(f"gate {self.text!r} failed{place}: {', '.join(said)}")
        if not compared:
            failures.append(f"gate {self.text!r} failed: there is no such slice")
        return failures

    def doubt(self, result: Result) -> str | None:
        """Say where the values decide, and their bounds do not; None where they do everywhere."""
        doubts = [
            (place, left, right)
            for place, left, right in self._compared(result)
            if self._holds(left.low, right.high) != self._holds(left.high, right.low)
        ]
        if not doubts:
            return None
        place, *sides = doubts[0]
        said = [f"{s.said}, the exact value from {s.low!r} to {s.high!r}" for s in sides if s.low < s.high]
        more = f"; and so in {len(doubts) - 1:,} more comparisons" if len(doubts) > 1 else ""
        return (
            f"gate {self.text!r} is decided by the value alone{place}, not by its bounds: {', '.join(said)}{more}. "
            "exact=true in the metric leaves nothing open."
        )

    def _holds(self, left: float, right: float) -> bool:
        return _OPERATORS[self.operator](left, right)

    def _compared(self, result: Result) -> Iterator[tuple[str, _Found, _Found]]:
        """Yield what is compared, and where: for every model, in every slice that is meant."""
        for place, values in _places(result, self.slice):
            models = list(dict.fromkeys(value.model for value in values))
            # A side without a model stands for each model in turn.
            of_each = any(side.number is None and side.model is None for side in (self.left, self.right))
            for model in models if of_each else models[:1]:
                yield place, _find(self.left, model, values), _find(self.right, model, values)


def parse_dropped(text: str) -> tuple[float, bool]:
    """Read how many rows may be left out: a number, or a share such as 1%; return it, and whether it is a share."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not 0.0 <= limit < math.inf:
        raise UsageError(f"--max-dropped is {text!r}; allowed: a number of rows such as 1000, or a share such as 1%.")
    return (limit / 100.0, True) if percent else (limit, False)


def dropped_failures(result: Result, text: str) -> list[str]:
    """Say of which models more rows were left out than allowed; those of weight 0 do not count."""
    limit, is_share = parse_dropped(text)
    rows = result.rows
    n_rows = rows["read"] - rows.get("filtered", 0)
    of_weight_0 = sum(cause["rows"] for cause in rows["dropped"] if cause["cause"] == "zero_weight")
    used = {"": rows["used"]} if isinstance(rows["used"], int) else rows["used"]
    failures = []
    for model, n_used in used.items():
        dropped = max(0, n_rows - n_used - of_weight_0)
        if dropped > (limit * n_rows if is_share else limit):
            of_model = f" of {model}" if model else ""
            failures.append(f"gate --max-dropped {text} failed: {dropped:,} of {n_rows:,} rows{of_model}")
    return failures


def _split(text: str) -> tuple[str, str]:
    """Split what is meant from the condition, at the last colon outside of parentheses and quotes."""
    depth, quote = 0, ""
    at = -1
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character == '"' or (character == "'" and depth):
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == ":" and depth == 0:
            at = i
    return (text[:at], text[at + 1 :]) if at >= 0 else ("", text)


def _read_where(text: str, where: str, asked: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
    """Return the model and the slice that stand before the colon."""
    model: str | None = None
    keys: dict[str, str] = {}
    try:
        parts = [part for row in csv.reader([where], skipinitialspace=True, strict=True) for part in row]
    except csv.Error:
        raise _refused(text) from None
    for part in map(str.strip, parts):
        key, equals, value = part.partition("=")
        if part in asked["models"] and model is None:
            model = part
        elif equals:
            keys[key.strip()] = value.strip()
        else:
            raise UsageError(f"--fail-if {text!r} names {part!r}. {nearest_names(part, asked['models'])}")
    if keys and not any(set(keys) == set(grouping) for grouping in asked["by"]):
        known = "; ".join(",".join(grouping) for grouping in asked["by"]) or "none"
        raise UsageError(f"--fail-if {text!r} names a slice by {','.join(keys)}; there are slices by: {known}.")
    return model, keys


def _side(text: str, side: str, model: str | None, asked: Mapping[str, Any]) -> Side:
    side = side.strip()
    try:
        number = float(side)
    except ValueError:
        number = None
    if not side or (number is not None and math.isnan(number)):
        raise _refused(text)
    if number is not None:
        return Side(number=number)
    for name in sorted(asked["models"], key=len, reverse=True):
        for written in (name, f'"{name}"'):
            if side.startswith(f"{written}.") and model is None:
                return Side(metric=_metric(text, side.removeprefix(f"{written}."), asked), model=name)
    return Side(metric=_metric(text, side, asked), model=model)


def _metric(text: str, name: str, asked: Mapping[str, Any]) -> str:
    from fastloss.metrics.names import name_among

    if name in _COUNTS:
        return name
    if re.fullmatch(r"[\w.]+(@[\w.+-]+)?(\(.*\))?", name, re.DOTALL) is None or name[0].isdigit():
        raise _refused(text)
    metric = name_among(name, asked["metrics"])
    if metric not in asked["metrics"]:
        known = ", ".join(asked["metrics"])
        raise UsageError(f"--fail-if names {metric}, which is not computed; computed are {known}.")
    return metric


def _refused(text: str) -> UsageError:
    return UsageError(f"--fail-if is {text!r}; {_FORM}, with one of {', '.join(_OPERATORS)}.")


def _places(result: Result, keys: Mapping[str, str]) -> Iterator[tuple[str, list[Value]]]:
    """Yield where a gate looks, in words, and the values there."""
    from fastloss.result import value_at

    for grouping in result.groupings:
        if set(grouping.keys) != set(keys):
            continue
        for position in grouping.order.tolist() if keys else [0]:
            found = grouping.key_at(position)
            if all(wanted in ("*", _as_text(found[key])) for key, wanted in keys.items()):
                words = ", ".join(f"{key} {_as_text(found[key])}" for key in grouping.keys)
                place = f" at {words}" if words else ""
                yield place, [value_at(grouping, position, column) for column in grouping.columns]


def _as_text(key: Any) -> str:
    return "null" if key is None else str(key).lower() if isinstance(key, bool) else str(key)


class _Found(NamedTuple):
    """A side's number, NaN where it is null, with its bounds, and what is to be said of it."""

    number: float
    low: float
    high: float
    said: str

    @classmethod
    def exact(cls, number: float, said: str) -> _Found:
        """Return a number that is its own bounds."""
        return cls(number, number, number, said)


def _find(side: Side, model: str, values: Sequence[Value]) -> _Found:
    if side.number is not None:
        return _Found.exact(side.number, "")
    model = side.model if side.model is not None else model
    of_model = [value for value in values if value.model == model]
    if side.metric in _COUNTS:
        number = max((float(getattr(value, side.metric)) for value in of_model), default=0.0)
        shown = f"{number:,.0f}" if side.metric == "n" else repr(number)
        return _Found.exact(number, f"{side.metric} of {model} is {shown}")
    value = next(value for value in of_model if value.metric == side.metric)
    if value.value is None:
        return _Found.exact(math.nan, f"{side.metric} of {model} is null ({value.reason})")
    low, high = (float(value.evidence.get(name, value.value)) for name in ("low", "high"))
    return _Found(value.value, low, high, f"{side.metric} of {model} is {value.value!r}")
