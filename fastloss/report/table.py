"""A result or a plan as plain text for people: the same characters on every terminal, without colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

if TYPE_CHECKING:
    from fastloss.plan import Plan
    from fastloss.result import Result, Value

# A longer list of slices is no longer read by a person; JSON and Arrow have them all.
MOST_SLICES = 50


def render(result: Result, most_slices: int = MOST_SLICES) -> str:
    """Return a result as text: what was read, the total, and one table for each grouping.

    Parameters
    ----------
    result : Result
        What to show.
    most_slices : int
        Slice values to show of each grouping; a last line says how many there are beside them.

    Returns
    -------
    str
        Numbers have six significant digits. A value that is not defined stands as ``null`` with its reason.
    """
    groupings: dict[tuple[str, ...], list[Value]] = {}
    for value in result.values:
        groupings.setdefault(tuple(value.slice), []).append(value)
    weighted = result.asked["weight"] is not None
    blocks = [_header(result), "total\n" + _total(groupings.pop((), []), weighted)]
    for keys, values in groupings.items():
        blocks.append(f"by {' × '.join(keys)}\n" + _slices(keys, values, weighted, most_slices))
    return "\n\n".join(blocks)


def render_plan(description: Mapping[str, Any]) -> str:
    """Return `describe_plan` as text."""
    plan = description["plan"]
    totals = ("files", "row_groups", "rows", "stored_bytes")
    known = [f"{description[name]:,} {name.replace('_', ' ')}" for name in totals if description[name] is not None]
    asked = ("label_domain", "reduction", "list_reduction", "preset", "saturation", "on_bad_row")
    options = {name: plan[name] for name in asked if name in plan}
    options |= {name: description[name] for name in ("on_bad_file", "reader")}
    lines = [
        ("log", ", ".join(known) or "a stream"),
        *(("skipped", f"{printable(skipped['file'])}: {skipped['cause']}") for skipped in description["skipped"]),
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


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Return what a plan would read and compute, as plain values."""
    roles: dict[str, list[str]] = {column: [] for column in plan.columns}
    roles[plan.label].append("label")
    for model in plan.models:
        roles[model.column].append(f"{model.space} of {model.name}")
    if plan.weight is not None:
        roles[plan.weight].append("weight")
    for key in plan.keys:
        roles[key].append("slice key")
    summary, execution = plan.summary, plan.execution
    streamed = summary.rows is None
    return {
        "plan": {"fingerprint": plan.fingerprint, **plan.asked()},
        "columns": [{"name": name, "type": plan.types[name], "roles": roles[name]} for name in plan.columns],
        "files": None if streamed else summary.files,
        "row_groups": None if streamed else summary.row_groups,
        "rows": summary.rows,
        "stored_bytes": summary.stored_bytes,
        "skipped": [{"file": file, "cause": cause} for file, cause in summary.skipped],
        "tasks": None if streamed else summary.row_groups,
        "reader": execution.reader,
        "verify_checksums": execution.verify_checksums,
        "on_bad_file": execution.on_bad_file,
        "threads": execution.threads,
        "batch_rows": execution.batch_rows,
        "memory": execution.memory_bytes,
        "memory_bound": plan.memory_bound,
    }


def printable(text: str) -> str:
    """Return a text with control characters written as escapes, so that no file can move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _header(result: Result) -> str:
    rows, files = result.rows, result.files
    used = rows["used"]
    if isinstance(used, int):
        shown = f"{used:,} used"
    else:
        shown = "used: " + ", ".join(f"{n:,} by {printable(model)}" for model, n in used.items())
    origin = f" from {_count(files['read'], 'file')}" if files["read"] else ""
    lines = [f"{_count(rows['read'], 'row')} read{origin}, {shown}"]
    lines += [
        f"dropped {cause['rows']:,}: {cause['cause']} in {printable(cause['column'])}, "
        f"the first in {printable(cause['first'])}"
        for cause in rows["dropped"]
    ]
    for skipped in files["skipped"]:
        part = "" if skipped["row_group"] is None else f", row group {skipped['row_group']}"
        lost = "" if skipped["rows"] is None else f" ({_count(skipped['rows'], 'row')})"
        lines.append(f"skipped {printable(skipped['file'])}{part}{lost}: {printable(skipped['cause'])}")
    return "\n".join([*lines, *_conventions(result)])


def _conventions(result: Result) -> list[str]:
    """Say how losses were summed up, and by whose conventions."""

    def found(name: str) -> dict[str, list[str]]:
        metrics: dict[str, list[str]] = {}
        for value in result.values:
            if name in value.evidence and value.metric not in metrics.setdefault(str(value.evidence[name]), []):
                metrics[str(value.evidence[name])].append(value.metric)
        return metrics

    lists = found("list_reduction")
    # The mean of a list, or the sum over its candidates: what is done with them is the reduction's matter.
    elements = "the mean over all candidates of all lists" if not found("reduction") else "each candidate by itself"
    said = {"row": "the mean in each list, then over lists", "element": elements}
    preset, said_of = result.asked.get("preset"), result.conventions
    return [
        *([] if preset is None else [f"preset {preset}{': ' * bool(said_of)}{'; '.join(said_of)}"]),
        *(f"reduction {name}: {_REDUCTIONS[name]} ({', '.join(of)})" for name, of in found("reduction").items()),
        *(f"list_reduction {name}: {said[name]}" for name in sorted(lists)),
        *(f"unit {name}: {', '.join(of)}" for name, of in found("unit").items()),
    ]


_REDUCTIONS = {
    "sum": "Σw·l",
    "sum_over_batch_size": "Σw·l/n, where n counts rows of weight 0 too",
    "sum_by_nonzero_weights": "Σw·l/n, where n counts rows of another weight than 0",
}


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _total(values: Sequence[Value], weighted: bool) -> str:
    """Lay out one row for each metric and one column for each model."""
    models = list(dict.fromkeys(value.model for value in values))
    metrics = list(dict.fromkeys(value.metric for value in values))
    by_place = {(value.metric, value.model): value for value in values}
    firsts = [by_place[metrics[0], model] for model in models]
    rows = [["metric", *(printable(model) for model in models)]]
    rows += [[metric, *(_number(by_place[metric, model]) for model in models)] for metric in metrics]
    rows.append(["n", *(f"{value.n:,}" for value in firsts)])
    if weighted:
        rows.append(["weight", *(_weight(value) for value in firsts)])
    for name, counts in _saturated([[by_place[metric, model] for metric in metrics] for model in models]).items():
        rows.append([name, *(f"{n:,}" for n in counts)])
    return _aligned(rows, "l" + "r" * len(models))


def _slices(keys: tuple[str, ...], values: Sequence[Value], weighted: bool, most: int) -> str:
    """Lay out one row for each slice and model, and one column for each metric."""
    slices: dict[tuple[Any, ...], dict[str, list[Value]]] = {}
    for value in values:
        slices.setdefault(tuple(value.slice.values()), {}).setdefault(value.model, []).append(value)
    lines = [(key, model, found) for key, models in list(slices.items())[:most] for model, found in models.items()]
    several = len({value.model for value in values}) > 1
    metrics = [value.metric for value in lines[0][2]]
    saturated = _saturated([found for _, _, found in lines])
    rows = [[*(printable(key) for key in keys), *(["model"] if several else []), "n"]]
    rows[0] += [*(["weight"] if weighted else []), *metrics, *saturated]
    for index, (key, model, found) in enumerate(lines):
        row = [*(_key(part) for part in key), *([printable(model)] if several else []), f"{found[0].n:,}"]
        row += [*([_weight(found[0])] if weighted else []), *(_number(value) for value in found)]
        rows.append(row + [f"{counts[index]:,}" for counts in saturated.values()])
    n_texts = len(keys) + several
    table = _aligned(rows, "l" * n_texts + "r" * (len(rows[0]) - n_texts))
    more = len(slices) - most
    if more > 0:
        table += f"\n… and {_count(more, 'slice')} more; JSON (--format json, Result.to_json) has all of them."
    return table


def _saturated(rows: Iterable[Sequence[Value]]) -> dict[str, list[int]]:
    """Collect the counts of saturated rows that are above 0, named after the metric where metrics differ."""
    by_metric: dict[str, list[int]] = {}
    for row in rows:
        for value in row:
            by_metric.setdefault(value.metric, []).append(int(value.evidence.get("n_saturated", 0)))
    distinct: dict[tuple[int, ...], str] = {}
    for metric, counts in by_metric.items():
        if any(counts):
            distinct.setdefault(tuple(counts), metric)
    if len(distinct) == 1:
        return {"n_saturated": list(next(iter(distinct)))}
    return {f"n_saturated of {metric}": list(counts) for counts, metric in distinct.items()}


def _number(value: Value) -> str:
    return f"null ({value.reason})" if value.value is None else _six_digits(value.value)


def _weight(value: Value) -> str:
    return f"{value.weight:,.0f}" if value.weight.is_integer() and value.weight < 1e15 else _six_digits(value.weight)


def _six_digits(number: float) -> str:
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
