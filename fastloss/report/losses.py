"""The listing of every loss and metric, as text and as Markdown: ``python -m fastloss.report.losses``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from fastloss.errors import UsageError
from fastloss.metrics.base import Metric
from fastloss.metrics.names import ALIASES, AT_K, METRICS, base_name, unknown_metric
from fastloss_kernels.domain import Interval
from fastloss_kernels.losses import LOSSES, BinaryLoss, ListwiseLoss, Loss
from fastloss_kernels.rankings import RANKINGS

_INTRODUCTION = (
    "As a metric, a loss is its weighted mean over the log, Σw·l / Σw. Predictions are logits x, probabilities p, "
    "log-probabilities, margins s, values ŷ, or scores, of which only the order counts; y is the label and w the "
    "weight. "
    "Parameters are written log_loss(label_smoothing=0.1). "
    "A threshold beside logits, probabilities and log-probabilities is a probability, where it is given and where it "
    "is the answer, as of recall(false_positive_rate=0.01); the map is monotone, so the order is that of the scores. "
    "Listwise losses take list columns: the predictions of the candidates, and a label for each or the index of the "
    "right one. Ranking metrics take lists with a label for each candidate. Pointwise losses take numbers. They also "
    "accept list columns; by default they are averaged within each list (list_reduction)."
)


@dataclass(frozen=True)
class Entry:
    """The listing of one loss or metric; `facts` are pairs of a heading and a text."""

    name: str
    aliases: tuple[str, ...]
    kind: str
    facts: tuple[tuple[str, str], ...]


def entries() -> list[Entry]:
    """Return every loss, then every metric of rankings, then every other metric."""
    return [_loss_entry(loss) for loss in (*LOSSES, *RANKINGS)] + [_metric_entry(metric) for metric in METRICS]


def _listed(name: str | None) -> list[Entry]:
    listed = entries()
    if name is not None:
        # Parameters may be written with it.
        plain = re.split(r"[@(]", name, maxsplit=1)[0].strip()
        plain = f"{plain}@k" if "@" in name and plain in AT_K else plain
        listed = [entry for entry in listed if plain in (entry.name, *entry.aliases)]
        if not listed:
            raise UsageError(unknown_metric(name))
    return listed


def render_short(name: str | None = None) -> str:
    """Return a line for each loss and metric: its name, its kind, and what predictions it reads."""
    lines = [(entry.name, entry.kind, dict(entry.facts)["predictions"]) for entry in _listed(name)]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in lines)


def describe_losses(name: str | None = None) -> list[dict[str, Any]]:
    """Return the listing as plain values: name, aliases, kind, and the text under each heading."""
    return [
        {"name": entry.name, "aliases": list(entry.aliases), "kind": entry.kind, **dict(entry.facts)}
        for entry in _listed(name)
    ]


def render_losses(name: str | None = None) -> str:
    """Return the listing as plain text; with a name or an alias, that entry alone.

    Raises
    ------
    UsageError
        If nothing has that name.
    """
    listed = _listed(name)
    blocks = [] if name is not None else [_INTRODUCTION]
    for entry in listed:
        aliases = f" ({', '.join(entry.aliases)})" if entry.aliases else ""
        facts = [f"  {heading:<11}  {text}" for heading, text in (("kind", entry.kind), *entry.facts)]
        blocks.append("\n".join([entry.name + aliases, *facts]))
    return "\n\n".join(blocks)


def render_markdown() -> str:
    """Return the listing as Markdown."""
    lines = ["# Losses and metrics", "", _INTRODUCTION, "Rendered by `python -m fastloss.report.losses`.", ""]
    for entry in entries():
        lines += [f"## `{entry.name}`", ""]
        if entry.aliases:
            lines.append(f"- also: {', '.join(f'`{alias}`' for alias in entry.aliases)}")
        lines += [f"- {heading}: {text}" for heading, text in (("kind", entry.kind), *entry.facts)]
        lines.append("")
    return "\n".join(lines)


def _loss_entry(loss: type[Loss]) -> Entry:
    facts = [
        ("meaning", _summary(loss)),
        ("formula", loss.definition),
        ("labels", _labels_of(loss())),
        ("predictions", ("lists of " if loss.listwise else "") + ", ".join(loss().formulas)),
    ]
    if parameters := "; ".join(_parameters(loss)):
        facts.append(("parameters", parameters))
    facts.append(("source", loss.source))
    kind = "ranking metric" if loss in RANKINGS else "listwise loss" if loss.listwise else "pointwise loss"
    at_k = tuple(f"{short}@k" for short, ranking in AT_K.items() if ranking is loss)
    return Entry(loss.name, (*at_k, *loss.aliases, loss.__name__), kind, tuple(facts))


def _metric_entry(metric: Metric) -> Entry:
    facts = [
        ("formula", metric.definition),
        ("labels", "; ".join(_labels_by_space(metric))),
        ("predictions", ("lists of " if metric.over_lists() else "") + ", ".join(metric.spaces)),
    ]
    if names := getattr(metric, "parameters", ()):
        allowed = {name: f" ({words})" for name, words in getattr(metric, "allowed", {}).items()}
        listed = (f"{name}={getattr(metric, name)!r}{allowed.get(name, '')}" for name in names)
        facts.append(("parameters", "; ".join(listed)))
    if source := _references(type(metric)):
        facts.append(("source", source))
    aliases = tuple(alias for alias, name in ALIASES.items() if name == base_name(metric))
    return Entry(base_name(metric), aliases, "metric", tuple(facts))


def _labels_by_space(metric: Metric) -> Iterator[str]:
    spaces: dict[Interval, list[str]] = {}
    for space in metric.spaces:
        spaces.setdefault(metric.label_range(space), []).append(space)
    for allowed, listed in spaces.items():
        text = _labels(allowed, binary=allowed == Interval(0.0, 1.0))
        yield text if len(spaces) == 1 else f"{text} ({', '.join(listed)})"


def _labels_of(loss: Loss) -> str:
    if not isinstance(loss, ListwiseLoss):
        return _labels(loss.label_range, binary=isinstance(loss, BinaryLoss))
    if loss.label_kind == "index":
        return "the index of the right candidate, from 0"
    return f"lists of {_labels(loss.label_range, binary=False)}"


def _labels(allowed: Interval, binary: bool) -> str:
    if binary:
        return "0 to 1, soft labels too; −1 to +1 with label_domain pm1"
    return "finite numbers" if allowed.describe("y") == "y is a number" else allowed.describe("y")


def _parameters(loss: type[Loss]) -> Iterator[str]:
    for parameter in fields(loss):
        allowed = loss.ranges.get(parameter.name)
        if words := loss.choices.get(parameter.name):
            others = " or ".join(repr(word) for word in words if word != parameter.default)
            yield f"{parameter.name}={parameter.default!r} (or {others})"
        else:
            within = "" if allowed is None else f" ({allowed.describe(parameter.name)})"
            yield f"{parameter.name}={parameter.default!r}{within}"


def _summary(documented: type) -> str:
    return (inspect.getdoc(documented) or "").partition("\n\n")[0].replace("\n", " ")


def _references(documented: type) -> str:
    """Return the References section of a docstring on one line."""
    found = re.search(r"^References\n-+\n(.+?)(\n\n|\Z)", inspect.getdoc(documented) or "", re.DOTALL | re.MULTILINE)
    return "" if found is None else " ".join(found[1].split())


if __name__ == "__main__":
    print(render_markdown(), end="")
