"""The result of a calibration as a text table, from its plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastloss.report.table import Section, header, laid_out, printable, six_digits

_FORMULAS: Mapping[str, str] = {
    "platt": "p = σ(a·x + b)",
    "temperature": "p = σ(a·x), a = 1/T",
    "beta": "p = σ(a·log p − b·log(1 − p) + c)",
    "isotonic": "p rises with the score in steps",
}


def render(content: Mapping[str, Any]) -> str:
    """Return as text what `Calibration.to_dict` returns."""
    top = header({**content, "plan": {}, "total": [], "conventions": []})
    return laid_out(top, [_map(content), _losses(content)])


def _map(content: Mapping[str, Any]) -> Section:
    method, notes = content["method"], []
    if method == "isotonic":
        knots = content["knots"]
        rows = [["", "score", "probability"]]
        for name, k in (("first knot", 0), ("last knot", -1)):
            rows.append([name, six_digits(knots["score"][k]), six_digits(knots["probability"][k])])
        notes.append(f"{len(knots['score']):,} knots, between which it is linear")
    else:
        coefficients = dict(content["coefficients"])
        if method == "temperature":
            coefficients["T"] = 1.0 / coefficients["a"] if coefficients["a"] else float("inf")
        rows = [["coefficient", "value"], *([name, repr(value)] for name, value in coefficients.items())]
        if coefficients["a"] < 0.0:
            notes.append("the map falls: the higher the score, the fewer positives")
    return Section(f"{method}: {_FORMULAS[method]}", rows, 1, notes)


def _losses(content: Mapping[str, Any]) -> Section:
    fit = content["fit"]
    before, after, best = fit["log_loss_before"], fit["log_loss_after"], fit["log_loss_isotonic"]
    rows = [
        ["", "log_loss"],
        ["before", six_digits(before)],
        ["after", six_digits(after)],
        ["miscalibration", six_digits(before - after)],
        ["best of all rising maps", six_digits(best)],
    ]
    share = 100.0 * (before - after) / before if before else 0.0
    return Section(
        f"log loss of {printable(fit['column'])}", rows, 1, [f"{share:.3g} % of the log loss is miscalibration"]
    )
