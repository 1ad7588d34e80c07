"""A result as a JSON object."""

from __future__ import annotations

from fastloss.report.view import Reported, View, selected


def write(result: Reported, view: View, *, as_file: bool) -> str:
    """Return all that a result says of the slices."""
    return selected(result, view).to_json(indent=2)
