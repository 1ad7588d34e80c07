"""The gradient by features as table, Markdown and Arrow, from the plain values of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from fastloss.report import arrow
from fastloss.report.content import count_of
from fastloss.report.formats import Format
from fastloss.report.markdown import laid_out as in_markdown
from fastloss.report.table import Section, header, laid_out, printable, six_digits
from fastloss.states.products import MOST_PAIRED_COLUMNS
from fastloss.words import GradientSort

_REASONS = {
    "no_rows": "no rows",
    "infinite_terms": "infinite terms",
    "constant": "constant",
    "varies_too_little": "varies too little",
    "too_small": "too small",
    "no_gradient": "no gradient",
    "infinite_loss": "the mean loss is not finite",
    "no_curvature": "no curvature",
    "negative_curvature": "negative curvature",
}


_REMEDIES = {
    "varies_too_little": "{} varies too little beside its size to have six digits; subtract an offset, as in "
    "--features 'x - 1e9'",
    "too_small": "products of {} underflow; scale it, as in --features 'x * 1e200'",
}


def render(content: Mapping[str, Any]) -> str:
    """Return as text what `FeatureGradient.shown` returns."""
    return laid_out(_header(content), _sections(content))


def render_markdown(content: Mapping[str, Any]) -> str:
    """Return the same in Markdown."""
    return in_markdown(_header(content), _sections(content))


def to_arrow(content: Mapping[str, Any]) -> pa.Table:
    """Return the features as an Arrow table, one a row."""
    features = content["features"]

    def column(name: str, kind: pa.DataType, found: Sequence[Any] | None = None) -> tuple[str, pa.Array]:
        values = [score.get(name) for score in features] if found is None else found
        return name, pa.array(values, kind, from_pandas=False)

    categories = [_text(score["category"]) if "category" in score else None for score in features]
    columns = [
        column("name", pa.string()),
        column("feature", pa.string()),
        column("place", pa.int64()),
        column("category", pa.string(), categories),
        column("n", pa.int64()),
        *(column(name, pa.float64()) for name in _NUMBERS),
        column("reason", pa.string()),
    ]
    return pa.table(dict(columns))


class Ranked(Protocol):
    """The members of `fastloss.FeatureGradient` that reports read."""

    def shown(self, sort: GradientSort, top: int | None) -> dict[str, Any]:
        """Return everything as plain values, the features in an order."""

    def to_json(self, indent: int | None = None, *, sort: GradientSort, top: int | None) -> str:
        """Return everything as one JSON object."""


def write(result: Ranked, format: Format, sort: GradientSort, top: int | None, *, as_file: bool) -> str | bytes:
    """Return a result in a format, for a file or for a pipe."""
    if format.name == "json":
        return result.to_json(indent=2, sort=sort, top=top)
    content = result.shown(sort, top)
    if format.name == "table":
        return render(content)
    if format.name == "markdown":
        return render_markdown(content)
    if format.name == "arrow":
        return arrow.write_table(to_arrow(content), as_file=as_file)
    return format.write_table(to_arrow(content))


_NUMBERS = ("gradient", "gradient_sum", "curvature", "profiled", "z", "step", "improvement", "noise", "joint_step")
_SHOWN = ("gradient", "profiled", "z", "step", "improvement")


def _text(key: Any) -> str | None:
    return None if key is None else str(key)


def _header(content: Mapping[str, Any]) -> str:
    return header({**content, "total": [], "conventions": []})


def _sections(content: Mapping[str, Any]) -> list[Section]:
    loss = content["loss"]
    bias, joint = content["bias"], content["joint"]
    total = [["", loss, "noise alone"], ["mean", _number(content["mean_loss"]), ""]]
    if content["n_saturated"]:
        total.append(["saturated rows", f"{content['n_saturated']:,}", ""])
    improvement = "null" if bias["reason"] is None else f"null ({_REASONS.get(bias['reason'], bias['reason'])})"
    if bias["improvement"] is not None:
        improvement = _number(bias["improvement"])
    total.append(["improvement by the bias", improvement, _noise(bias)])
    notes = []
    if joint["improvement"] is not None:
        total.append(["further, by all numbers", _number(joint["improvement"]), _noise(joint)])
        without = [f"{printable(name)} ({_REASONS.get(why, why)})" for name, why in joint["without"].items()]
        if without:
            notes.append(f"not in the step of all: {', '.join(without)}")
    elif joint["reason"] == "diagonal" and not content["plan"]["diagonal"]:
        total.append(["further, by all numbers", "null (too many numbers)", ""])
        notes.append(
            f"the step of all takes up to {MOST_PAIRED_COLUMNS} numbers, those of lists counted: name fewer, or leave "
            "the step out by --diagonal"
        )
    total += [
        [
            f"further, by {printable(name)}, {group['n_categories']:,} "
            + ("category" if group["n_categories"] == 1 else "categories"),
            _number(group["improvement"]),
            _noise(group),
        ]
        for name, group in content["groups"].items()
        if group["improvement"] is not None
    ]
    if content["mean_loss"] in {bias["improvement"], joint["improvement"]} | {
        group["improvement"] for group in content["groups"].values()
    } - {None}:
        notes.append("an improvement of the whole mean is a Newton step's that goes too far: it promised more")
    if joint["left_out"]:
        notes.append(f"left out of the step of all, since others determine them: {', '.join(joint['left_out'])}")
    sections = [Section("one Newton step", total, 1, notes)]
    features = content["features"]
    if features:
        rows = [["feature", "n", *_SHOWN]]
        rows += [_row(score) for score in [*features]]
        rest = content["n_features"] - len(features)
        notes = [f"… {len(features):,} of {count_of(content['n_features'], 'feature')}"] if rest else []
        notes.append("profiled: the gradient where the bias is at its best, which z, step and improvement are of")
        notes += [
            f"{printable(name)}: {count_of(group['n_without'], 'row')} with no category"
            for name, group in content["groups"].items()
            if group["n_without"]
        ]
        for reason, remedy in _REMEDIES.items():
            names = [printable(score["name"]) for score in features if score["reason"] == reason]
            notes += [remedy.format(", ".join(names))] if names else []
        sections.append(Section("gradient of the mean loss", rows, 1, notes))
    return sections


def _row(score: Mapping[str, Any]) -> list[str]:
    cells = [printable(score["name"]), f"{score['n']:,}"]
    reason = score["reason"]
    for name in _SHOWN:
        value = score[name]
        cells.append(_number(value) if value is not None else "")
    if reason is not None:
        last = len(cells) - 1
        cells[next(i for i in range(2, last + 1) if not cells[i] or i == last)] = (
            f"null ({_REASONS.get(reason, reason)})"
        )
    return cells


def _noise(content: Mapping[str, Any]) -> str:
    return "" if content["noise"] is None else _number(content["noise"])


def _number(value: float | None) -> str:
    return "null" if value is None else six_digits(value)
