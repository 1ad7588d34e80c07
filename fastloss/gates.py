"""Gates: conditions on a result under which a command fails, such as ``log_loss > 0.5``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastloss.errors import UsageError

if TYPE_CHECKING:
    from fastloss.result import Result

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda value, limit: value <= limit,
    ">=": lambda value, limit: value >= limit,
    "<": lambda value, limit: value < limit,
    ">": lambda value, limit: value > limit,
}


@dataclass(frozen=True)
class Gate:
    """A condition on the total of every model under which the command fails, such as ``log_loss > 0.5``."""

    text: str
    metric: str
    operator: str
    limit: float

    @classmethod
    def parse(cls, text: str, asked: Sequence[str]) -> Gate:
        """Read a gate on one of the metrics that were asked for."""
        from fastloss.metrics.names import parse_metric

        # <= and >= are tried first, because they begin like < and >.
        operator = next((operator for operator in _OPERATORS if operator in text), "")
        name, _, number = text.rpartition(operator) if operator else ("", "", "")
        try:
            limit = float(number)
        except ValueError:
            limit = float("nan")
        if not name.strip() or limit != limit:
            raise UsageError(f"--fail-if is {text!r}; write METRIC > NUMBER, with one of {', '.join(_OPERATORS)}.")
        metric = parse_metric(name.strip()).name
        if metric not in asked:
            raise UsageError(f"--fail-if names {metric}, which is not computed; computed are {', '.join(asked)}.")
        return cls(text, metric, operator, limit)

    def failures(self, result: Result) -> list[str]:
        """Say for which models the gate fails; a value that is null or NaN fails too."""
        failures = []
        for value in result.values:
            if value.slice or value.metric != self.metric:
                continue
            number = value.value
            if number is None:
                failures.append(f"gate {self.text!r} failed: {self.metric} of {value.model} is null ({value.reason})")
            elif number != number or _OPERATORS[self.operator](number, self.limit):
                failures.append(f"gate {self.text!r} failed: {self.metric} of {value.model} is {number!r}")
        return failures
