"""The result of a calibration as a text table, from its plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastloss.report.content import count_of
from fastloss.report.table import Section, header, laid_out, printable, six_digits

_FORMULAS: Mapping[str, str] = {
    "platt": "p = σ(a·x + b)",
    "temperature": "p = σ(a·x), a = 1/T",
    "beta": "p = σ(a·log p − b·log(1 − p) + c)",
    "isotonic": "p increases with the score, linear between knots",
}


def render(content: Mapping[str, Any]) -> str:
    """Return as text what `Calibration.to_dict` returns."""
    top = header({**content, "plan": {}, "total": [], "conventions": []})
    return laid_out(top, [_map(content), _losses(content)])


def _map(content: Mapping[str, Any]) -> Section:
    method, fit, notes = content["method"], content["fit"], []
    if method == "isotonic":
        knots = content["knots"]
        rows = [["", "score", "probability"]]
        n = len(knots["score"])
        for name, k in (("first knot", 0), ("last knot", n - 1))[: min(n, 2)]:
            rows.append(
                [name if n > 1 else "knot", six_digits(knots["score"][k]), six_digits(knots["probability"][k])]
            )
        notes.append(f"{count_of(n, 'knot')}; the map is constant before the first and after the last")
    else:
        coefficients = dict(content["coefficients"])
        if method == "temperature":
            coefficients["T"] = 1.0 / coefficients["a"] if coefficients["a"] else float("inf")
        rows = [["coefficient", "value"], *([name, repr(value)] for name, value in coefficients.items())]
        if coefficients["a"] < 0.0:
            notes.append("the map decreases: the higher the score, the fewer positives")
        if clipped := fit.get("n_clipped", 0):
            notes.append(
                f"{count_of(clipped, 'row')} with a prediction within 1e-12 of 0 or 1, which the fit clips there"
            )
    return Section(f"{method}: {_FORMULAS[method]}", rows, 1, notes)


def _losses(content: Mapping[str, Any]) -> Section:
    fit = content["fit"]
    before, after, best = fit["log_loss_before"], fit["log_loss_after"], fit["log_loss_isotonic"]
    rows = [
        ["", "log_loss"],
        ["before", six_digits(before)],
        ["after", six_digits(after)],
        ["mended by this map", six_digits(before - after)],
        [
            "best of all increasing maps" if fit.get("scores_are_exact", True) else "best increasing map of buckets",
            six_digits(best),
        ],
    ]
    share = 100.0 * (before - after) / before if before else 0.0
    return Section(
        f"log loss of {printable(fit['column'])}", rows, 1, [f"{share:.3g} % of the log loss is mended by this map"]
    )
