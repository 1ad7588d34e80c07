"""A result or a plan as plain text for people: the same characters on every terminal, without colour."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from rich.cells import cell_len

from fastloss.columns.buckets import number_text
from fastloss.report.content import count_of
from fastloss.report.view import Reported, View, shown

if TYPE_CHECKING:
    from fastloss.plan import Plan

# Bounds this far from a value, as a part of it, leave its fifth digit in doubt.
_DOUBT = 1e-5
# Why a slice has no value of a metric that is one of the whole log.
_OF_TOTAL = "of_the_total_alone"
# Metrics whose thresholds are shown beside them; the others' are in files.
_OPERATING_POINTS = ("precision(", "recall(", "false_positive_rate(")
# So many edges stand on a line.
_MANY = 20
_NUMBERS = (pa.float64(), pa.int64())
# One number with its evidence, as `Value.to_dict` returns it.
Shown = Mapping[str, Any]


def render(content: Mapping[str, Any]) -> str:
    """Return a result as text: what was read, the total, and one table for each grouping.

    Parameters
    ----------
    content : mapping
        What `Result.shown` returns.

    Returns
    -------
    str
        Numbers have six significant digits. A value that is not defined stands as ``null`` with its reason.
    """
    return laid_out(header(content), sections(content))


def laid_out(heading: str, sections: Iterable[Section]) -> str:
    """Return tables below a heading."""
    blocks = [heading]
    for section in sections:
        table = [_aligned(section.rows, section.sides)] if section.rows else []
        blocks.append("\n".join([section.title, *table, *section.notes]))
    return "\n\n".join(blocks)


def write(result: Reported, view: View, *, as_file: bool) -> str:
    """Return `render` of the slices."""
    return render(shown(result, view))


def write_table(table: pa.Table) -> str:
    """Return a table of data as text: its names, and a line for each row; a null is ``null``."""
    cells = cells_of(table)
    return _aligned(cells, "".join("r" if kind in _NUMBERS else "l" for kind in table.schema.types))


def cells_of(table: pa.Table) -> list[list[str]]:
    """Return the names and the rows of a table of data as cells of text."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        written = _cell if column.type in _NUMBERS else _key
        columns.append([name, *map(written, column.to_pylist())])
    return [list(row) for row in zip(*columns, strict=True)]


def _cell(value: float | None) -> str:
    if value is None:
        return "null"
    return f"{value:,}" if isinstance(value, int) else six_digits(value)


class Section(NamedTuple):
    """A table of a report, as cells of text.

    Attributes
    ----------
    title : str
        What it is of.
    rows : list of list of str
        The cells; the first row names the columns. Empty if there is nothing to show.
    n_texts : int
        How many columns from the left hold text; the others hold numbers.
    notes : list of str
        What is to be said below it.
    """

    title: str
    rows: list[list[str]]
    n_texts: int
    notes: list[str]

    @property
    def sides(self) -> str:
        """The side that each column is set to: l for text, r for numbers."""
        return "l" * self.n_texts + "r" * (len(self.rows[0]) - self.n_texts)


def sections(content: Mapping[str, Any]) -> list[Section]:
    """Lay out the total and the slices of each grouping."""
    weighted = content["plan"]["weight"] is not None
    of_groupings = [_slices(grouping, weighted) for grouping in content["groupings"] if grouping["n_slices"]]
    return [_total(content["total"], weighted), *of_groupings]


def render_plan(description: Mapping[str, Any]) -> str:
    """Return `describe_plan` as text."""
    plan = description["plan"]
    totals = ("files", "row_groups", "rows", "stored_bytes")
    known = [f"{description[name]:,} {name.replace('_', ' ')}" for name in totals if description[name] is not None]
    asked = ("label_domain", "reduction", "list_reduction", "ties", "preset", "saturation", "on_bad_row")
    options = {name: plan[name] for name in asked if name in plan}
    options |= {name: description[name] for name in ("on_bad_file", "missing_columns", "reader")}
    lines = [
        ("log", ", ".join(known) or "a stream"),
        *(("skipped", f"{printable(skipped['file'])}: {skipped['cause']}") for skipped in description["skipped"]),
        *((("pruned", pruned_parts(description["pruned"])),) if "pruned" in description else ()),
        *(("where", _expression(text)) for text in plan.get("where", ())),
        *(("with", f"{name} = {_expression(text)}") for name, text in plan.get("with_columns", {}).items()),
        *(("mapped", f"{printable(name)} = {_mapping(how)}") for name, how in plan.get("mapped", {}).items()),
        *(("differs", printable(f"{found['column']}: {found['shown']}")) for found in description["differences"]),
        ("metrics", ", ".join(plan["metrics"])),
        ("slices", "; ".join(" × ".join(keys) for keys in plan["by"]) or "none"),
        ("options", ", ".join(f"{name} {value}" for name, value in options.items())),
        ("threads", f"{description['threads']}"),
        ("memory", f"at most {description['memory_bound']:,} of {description['memory']:,} bytes"),
        ("tasks", "one for each batch" if description["tasks"] is None else f"{description['tasks']:,}"),
        ("fingerprint", plan["fingerprint"]),
    ]
    columns = [["column", "type", "role"]]
    columns += [[printable(c["name"]), c["type"], ", ".join(c["roles"])] for c in description["columns"]]
    return _aligned([list(line) for line in lines], "ll") + "\n\n" + _aligned(columns, "lll")


def _expression(plain: Any) -> str:
    return printable(plain if isinstance(plain, str) else plain["text"])


def _mapping(how: Mapping[str, Any]) -> str:
    column, space, *rest = how.items()
    return printable(f"{space[1]} {column[1]}, {', '.join(f'{name} {value}' for name, value in rest)}")


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Return what a plan would read and compute, as plain values."""
    request, types = plan.request, plan.evaluation.types
    roles: dict[str, list[str]] = {column: [] for column in request.columns}
    roles[request.label_column].append("label")
    for model in request.models:
        roles[model.column].append(f"{model.space} of {model.name}")
    if request.weight is not None:
        roles[request.weight].append("weight")
    for key in request.keys:
        roles[key].append("slice key")
    for key in request.group_columns:
        roles[key].append("group key")
    for mapped in request.mapped or ():
        roles[mapped.column].append(f"{mapped.space} of {mapped.name}")
    summary, execution = plan.summary, plan.execution
    pruned = {"files": summary.pruned_files, "row_groups": summary.pruned_row_groups}
    streamed = summary.rows is None and not summary.files
    return {
        "plan": {"fingerprint": plan.fingerprint, **plan.asked()},
        "columns": [{"name": name, "type": types[name].name, "roles": roles[name]} for name in request.columns],
        "files": None if streamed else summary.files,
        "row_groups": None if summary.rows is None else summary.row_groups,
        "rows": summary.rows,
        "stored_bytes": summary.stored_bytes,
        "skipped": [{"file": file, "cause": cause} for file, cause in summary.skipped],
        **({"pruned": pruned} if any(pruned.values()) else {}),
        "differences": [
            {
                "column": types.name,
                "types": [
                    {"type": None if kind is None else str(kind), "files": n_files, "first": first}
                    for kind, n_files, first in types.stored
                ],
                "shown": str(types),
            }
            for types in summary.differences
        ],
        "tasks": None if streamed else summary.row_groups,
        "reader": execution.reader,
        "verify_checksums": execution.verify_checksums,
        "on_bad_file": execution.on_bad_file,
        "missing_columns": execution.missing_columns,
        "threads": execution.threads,
        "batch_rows": execution.batch_rows,
        "memory": execution.memory_bytes,
        "memory_bound": plan.memory_bound,
    }


def printable(text: str) -> str:
    """Return a text with control characters written as escapes, so that no file can move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def header(content: Mapping[str, Any]) -> str:
    """Say in lines what was read, what was left out, and by whose conventions losses were summed up."""
    rows, files = content["rows"], content["files"]
    used = rows["used"]
    if isinstance(used, int):
        shown = f"{used:,} used"
    else:
        shown = "used: " + ", ".join(f"{n:,} by {printable(model)}" for model, n in used.items())
    origin = f" from {count_of(files['read'], 'file')}" if files["read"] else ""
    filtered = f", {rows['filtered']:,} left out by where" if "filtered" in rows else ""
    lines = [f"{count_of(rows['read'], 'row')} read{origin}{filtered}, {shown}"]
    if "pruned" in files:
        lines.append(f"not read, since where rules them out: {pruned_parts(files['pruned'])}")
    positives = [value["n_positive"] for value in content["total"] if "n_positive" in value]
    if "positive" in content["plan"] and rows["read"] and positives and not any(positives):
        label = f"{content['plan']['label']} = {content['plan']['positive']}"
        lines.append(f"no row has {printable(label)}: every label counts as 0")
    for cause in rows["dropped"]:
        left_out = "left out of some metrics" if "metrics" in cause else "dropped"
        place = f"{printable(cause['column'])}, the first in {printable(cause['first'])}"
        lines.append(f"{left_out} {cause['rows']:,}: {cause['cause']} in {place}")
    for name, groups in content.get("group_counts", {}).items():
        lines.append(_groups(name, groups))
    for column, edges in content.get("edges", {}).items():
        lines.append(f"quantiles of {printable(column)}: {_listed([number_text(edge) for edge in edges])}")
    if "unchecked_streams" in files:
        streams = count_of(files["unchecked_streams"], "stream")
        lines.append(f"{streams} or frames among what was merged: whether rows count twice cannot be checked")
    for skipped in files["skipped"]:
        part = "" if skipped["row_group"] is None else f", row group {skipped['row_group']}"
        lost = "" if skipped["rows"] is None else f" ({count_of(skipped['rows'], 'row')})"
        lines.append(f"skipped {printable(skipped['file'])}{part}{lost}: {printable(skipped['cause'])}")
    return "\n".join([*lines, *_conventions(content)])


def _groups(name: str, groups: Mapping[str, Any]) -> str:
    """Say how many groups of a key there are, and why some are left out."""
    parts = [count_of(groups["groups"], "group")]
    names = [cause["cause"] for cause in groups["dropped"]]
    for cause in groups["dropped"]:
        of_some = " of some metrics" if "metrics" in cause else ""
        column = f" in {printable(cause['column'])}" if names.count(cause["cause"]) > 1 else ""
        parts.append(f"{cause['groups']:,} left out{of_some}: {cause['cause']}{column}")
    if "rows_of_null_key" in groups:
        parts.append(f"{count_of(groups['rows_of_null_key'], 'row')} of no group: null")
    return f"by {printable(name)}: {'; '.join(parts)}"


def _listed(texts: Sequence[str]) -> str:
    """List a few texts, and the ends of many."""
    if len(texts) > _MANY:
        texts = [*texts[: _MANY // 2], "…", *texts[-_MANY // 2 :]]
    return ", ".join(texts) or "none, since no two numbers differ"


def pruned_parts(pruned: Mapping[str, int]) -> str:
    """Say what a filter rules out before it is read."""
    named = (("file", pruned["files"]), ("row group", pruned["row_groups"]))
    return " and ".join(count_of(count, name) for name, count in named if count)


def _conventions(content: Mapping[str, Any]) -> list[str]:
    """Say how losses were summed up, and by whose conventions."""

    def found(name: str) -> dict[str, list[str]]:
        metrics: dict[str, list[str]] = {}
        for value in content["total"]:
            if name in value and value["metric"] not in metrics.setdefault(str(value[name]), []):
                metrics[str(value[name])].append(value["metric"])
        return metrics

    lists = found("list_reduction")
    # The mean of a list, or the sum over its candidates: what is done with them is the reduction's matter.
    elements = "the mean over all candidates of all lists" if not found("reduction") else "each candidate by itself"
    said = {"row": "the mean in each list, then over lists", "element": elements}
    preset, said_of = content["plan"].get("preset"), content["conventions"]
    return [
        *([] if preset is None else [f"preset {preset}{': ' * bool(said_of)}{'; '.join(said_of)}"]),
        *(f"reduction {name}: {_REDUCTIONS[name]} ({', '.join(of)})" for name, of in found("reduction").items()),
        *(f"list_reduction {name}: {said[name]}" for name in sorted(lists)),
        *(f"ties {name}: {_TIES[name]} ({', '.join(of)})" for name, of in found("ties").items()),
        *(f"unit {name}: {', '.join(of)}" for name, of in found("unit").items()),
    ]


_TIES = {
    "input": "candidates of equal scores as they come",
    "pessimistic": "of candidates of equal scores the lowest label first",
    "optimistic": "of candidates of equal scores the highest label first",
    "id_desc": "of candidates of equal scores the largest id first",
}
_REDUCTIONS = {
    "sum": "Σw·l",
    "sum_over_batch_size": "Σw·l/n, where n counts rows of weight 0 too",
    "sum_by_nonzero_weights": "Σw·l/n, where n counts rows of another weight than 0",
}


def _total(values: Sequence[Shown], weighted: bool) -> Section:
    """Lay out one row for each metric and one column for each model."""
    models = list(dict.fromkeys(value["model"] for value in values))
    metrics = list(dict.fromkeys(value["metric"] for value in values))
    by_place = {(value["metric"], value["model"]): value for value in values}
    by_model = [[by_place[metric, model] for metric in metrics] for model in models]
    # Metrics of lists may each use rows of their own.
    same_rows = all(map(_same_counts, by_model))
    rows = [["metric", *(printable(model) for model in models)]]
    rows += [[metric, *(_number(by_place[metric, model]) for model in models)] for metric in metrics]
    if same_rows:
        of_models = [_counts(of_model) for of_model in by_model]
        rows += [[name, *(f"{counts[name]:,}" for counts in of_models)] for name in of_models[0]]
        rows += [["positives", *(f"{n:,}" for n in positives)] for positives in _positives(by_model)]
    if same_rows and weighted:
        rows.append(["weight", *(_weight(of_model[0]["weight"]) for of_model in by_model)])
    for name, counts in _saturated(by_model).items():
        rows.append([name, *(f"{n:,}" for n in counts)])
    if len(models) == 2:
        rows[0].append(f"{printable(models[1])} - {printable(models[0])}")
        for row, metric in zip(rows[1:], metrics, strict=False):
            row.append(_difference(by_place[metric, models[1]], by_place[metric, models[0]]))
    rows = [row + [""] * (len(rows[0]) - len(row)) for row in rows]
    if not same_rows:
        names = ["n", "weight"] if weighted else ["n"]
        rows[0] += [name if len(models) == 1 else f"{name} of {printable(m)}" for m in models for name in names]
        for row, metric in zip(rows[1:], metrics, strict=False):
            for model in models:
                value = by_place[metric, model]
                row += [_count(value), *([_weight(value["weight"])] if weighted else [])]
        rows = [row + [""] * (len(rows[0]) - len(row)) for row in rows]
    of_metrics: list[list[str]] = []
    with_threshold = _with_threshold(values)
    for row, metric in zip(rows[1:], metrics, strict=False):
        of_metrics.append(row)
        if metric in with_threshold:
            thresholds = ["threshold", *(_threshold(by_place[metric, model]) for model in models)]
            of_metrics.append(thresholds + [""] * (len(row) - len(thresholds)))
    rows[1 : 1 + len(metrics)] = of_metrics
    return Section("total", rows, 1, [])


def _slices(grouping: Mapping[str, Any], weighted: bool) -> Section:
    """Lay out one row for each slice and model, and one column for each metric."""
    keys, slices = grouping["keys"], grouping["slices"]
    title = f"by {' × '.join(printable(key) for key in keys)}"
    lines: list[tuple[list[Any], str, list[Shown]]] = []
    of_total = {value["metric"] for values in slices for value in values if value.get("reason") == _OF_TOTAL}
    if any(value["metric"] not in of_total for values in slices for value in values):
        slices = [[value for value in values if value["metric"] not in of_total] for values in slices]
    for values in slices:
        for model in dict.fromkeys(value["model"] for value in values):
            of_model = [value for value in values if value["model"] == model]
            lines.append(([values[0]["slice"][key] for key in keys], model, of_model))
    if not lines:
        if grouping["n_of_min_rows"]:
            return Section(title, [], 0, [f"{count_of(grouping['n_slices'], 'slice')}, none shown"])
        return Section(title, [], 0, [f"no slice has rows enough, of {count_of(grouping['n_slices'], 'slice')}"])
    several = len({model for _, model, _ in lines}) > 1
    # Metrics of lists may each use rows of their own; those side by side that use the same have one column of them.
    same_rows = all(_same_counts(found) for _, _, found in lines)
    columns = []
    with_threshold = _with_threshold(value for _, _, found in lines for value in found)
    told = [not same_rows and _differs_from_before(lines, place) for place in range(len(lines[0][2]))]
    for is_told, value in zip(told, lines[0][2], strict=True):
        columns += ["groups" if "group" in value else "n"] if is_told else []
        columns += [value["metric"]]
        columns += ["threshold"] if value["metric"] in with_threshold else []
    saturated = _saturated([found for _, _, found in lines])
    positives = _positives([found for _, _, found in lines]) if same_rows else []
    rows = [
        [
            *(printable(key) for key in keys),
            *(["model"] if several else []),
            *(_counts(lines[0][2]) if same_rows else []),
        ]
    ]
    rows[0] += [*("positives" for _ in positives), *(["weight"] if weighted else []), *columns, *saturated]
    for index, (key, model, found) in enumerate(lines):
        row = [*(_key(part) for part in key), *([printable(model)] if several else [])]
        row += [
            *(f"{n:,}" for n in (_counts(found) if same_rows else {}).values()),
            *(f"{counts[index]:,}" for counts in positives),
        ]
        row += [_weight(found[0]["weight"])] if weighted else []
        for is_told, value in zip(told, found, strict=True):
            row += [*([f"{value['n']:,}"] if is_told else []), _number(value)]
            row += [_threshold(value)] if value["metric"] in with_threshold else []
        rows.append(row + [f"{counts[index]:,}" for counts in saturated.values()])
    notes = []
    more = grouping["n_of_min_rows"] - len(slices)
    if more > 0:
        shown_of = f"{len(slices):,} of {grouping['n_of_min_rows']:,} slices"
        notes.append(f"… {shown_of}; --slices all, files, JSON and Arrow have all of them.")
    small = grouping["n_slices"] - grouping["n_of_min_rows"]
    if small:
        notes.append(f"… {count_of(small, 'slice')} of fewer rows left out.")
    return Section(title, rows, len(keys) + several, notes)


def _positives(rows: Iterable[Sequence[Shown]]) -> list[list[int]]:
    """Return how many rows have a positive label, for each of some lists of values; nothing if that is unknown."""
    counts = [next((int(v["n_positive"]) for v in of_row if "n_positive" in v), None) for of_row in rows]
    return [[n for n in counts if n is not None]] if None not in counts else []


def _difference(value: Shown, other: Shown) -> str:
    if value["value"] is None or other["value"] is None:
        return ""
    difference = value["value"] - other["value"]
    if not math.isfinite(difference):
        return ""
    shown = f"{difference:+#.6g}".removesuffix(".")
    # Each value may be anywhere within its own bounds.
    both = _far(value), _far(other)
    far = sum(map(Fraction, both)) if all(map(math.isfinite, both)) else math.inf
    return f"{shown} ±{_one_digit_up(far)}" if far > _DOUBT * abs(difference) else shown


def _saturated(rows: Iterable[Sequence[Shown]]) -> dict[str, list[int]]:
    """Collect the counts of saturated rows that are above 0, named after the metric where metrics differ."""
    by_metric: dict[str, list[int]] = {}
    for row in rows:
        for value in row:
            by_metric.setdefault(value["metric"], []).append(int(value.get("n_saturated", 0)))
    distinct: dict[tuple[int, ...], str] = {}
    for metric, counts in by_metric.items():
        if any(counts):
            distinct.setdefault(tuple(counts), metric)
    if len(distinct) == 1:
        return {"n_saturated": list(next(iter(distinct)))}
    return {f"n_saturated of {metric}": list(counts) for counts, metric in distinct.items()}


def _number(value: Shown) -> str:
    if value["value"] is None:
        return f"null ({value['reason']})"
    far = _far(value)
    # Bounds that leave the digits in doubt are shown.
    return six_digits(value["value"]) + (f" ±{_one_digit_up(far)}" if far > _DOUBT * abs(value["value"]) else "")


def _far(value: Shown) -> float:
    """Return how far off a value may be: it may be one of its bounds."""
    return max(value["high"] - value["value"], value["value"] - value["low"]) if "low" in value else 0.0


def _with_threshold(values: Iterable[Shown]) -> set[str]:
    """Return the metrics whose thresholds are shown: those of operating points, of which they are half the answer."""
    return {v["metric"] for v in values if "threshold" in v and v["metric"].startswith(_OPERATING_POINTS)}


def _threshold(value: Shown) -> str:
    return six_digits(value["threshold"]) if "threshold" in value else ""


def _one_digit_up(number: float | Fraction) -> str:
    """Return a positive number of one digit that is no less."""
    if not math.isfinite(number):
        return f"{number:g}"
    numerator, denominator = number.as_integer_ratio()
    return f"{float(Context(prec=1, rounding=ROUND_CEILING).divide(Decimal(numerator), Decimal(denominator))):g}"


def _counts(values: Sequence[Shown]) -> dict[str, int]:
    """Return how many rows the metrics of a model use, and how many groups of each key."""
    keys = list(dict.fromkeys(value["group"] for value in values if "group" in value))
    of_rows = [value["n"] for value in values if "group" not in value]
    counts = {"n": of_rows[0]} if of_rows else {}
    for key in keys:
        n_groups = next(value["n"] for value in values if value.get("group") == key)
        counts[f"groups by {printable(key)}" if len(keys) > 1 else "groups"] = n_groups
    return counts


def _same_counts(values: Sequence[Shown]) -> bool:
    """Tell whether all metrics of rows use the same number of rows, and all of the groups of a key as many groups."""
    return len({(value.get("group"), value["n"]) for value in values}) == len({value.get("group") for value in values})


def _differs_from_before(lines: Sequence[tuple[list[Any], str, list[Shown]]], place: int) -> bool:
    """Tell whether a metric uses other rows, or other groups, than the one before it in some line."""
    if place == 0:
        return True
    pairs = [(found[place - 1], found[place]) for _, _, found in lines]
    return any((one["n"], one.get("group")) != (other["n"], other.get("group")) for one, other in pairs)


def _count(value: Shown) -> str:
    """Return how many rows a metric uses, or how many groups."""
    return count_of(value["n"], "group") if "group" in value else f"{value['n']:,}"


def _weight(weight: float) -> str:
    return f"{weight:,.0f}" if weight.is_integer() and weight < 1e15 else six_digits(weight)


def six_digits(number: float) -> str:
    """Return a number with six significant digits."""
    return f"{number:#.6g}".removesuffix(".")


def _key(part: Any) -> str:
    if part is None:
        return "null"
    text = printable(str(part))
    # A text that looks empty, or like the null key, is told apart from it by quotes.
    return f'"{text}"' if isinstance(part, str) and (part in ("", "null") or part != part.strip()) else text


def _aligned(rows: Sequence[Sequence[str]], sides: str) -> str:
    """Pad cells to the width they take on a terminal, where an East Asian character takes two columns."""
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(sides))]
    lines = []
    for row in rows:
        cells = []
        for cell, width, side in zip(row, widths, sides, strict=True):
            gap = " " * (width - cell_len(cell))
            cells.append(gap + cell if side == "r" else cell + gap)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
