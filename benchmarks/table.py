"""Renders the report of ``benchmarks.scan`` as Markdown: the tables of docs/performance.md."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.machine import figures_table, headline, markdown


def render(report: dict[str, Any]) -> str:
    """Return the tables of a report, group by group, with what they were measured on."""
    size = report["bytes"] / 2**30
    parts = [
        headline(report["machine"], report["versions"]),
        f"Log: {report['rows']:,} rows in {report['files']} files, {size:.2f} GiB, zstd; best of {report['repeat']} "
        "rounds, one process for each job. Every answer was checked against fastloss's before it was timed.",
    ]
    for group in dict.fromkeys(entry["group"] for entry in report["jobs"]):
        entries = [entry for entry in report["jobs"] if entry["group"] == group]
        rows = [_row(entry, report["rows"]) for entry in entries]
        parts.append(markdown((group, "seconds", "Mrow/s", "CPU seconds", "of its bare scan", "difference"), rows))
    parts += [
        f"Left out: {entry['group']}, {entry['name']} ({entry['needs']} is not installed)."
        for entry in report["missing"]
    ]
    parts.append(figures_table(report["figures"]))
    return "\n\n".join(parts)


def _row(entry: dict[str, Any], rows: int) -> list[str]:
    name = entry["name"] if entry["rows"] == rows else f"{entry['name']} ({entry['rows']:,} rows)"
    # A job on fewer rows has no scan to compare with.
    ratio = entry["ratio_to_scan"] if entry["rows"] == rows else None
    return [
        name,
        f"{entry['seconds']:.3f}",
        f"{entry['rows_per_second'] / 1e6:.1f}",
        f"{entry['cpu_seconds']:.3f}",
        "" if ratio is None else f"{ratio:.2f} ×",
        "" if entry["difference"] is None else f"{entry['difference']:.1g}",
    ]


def main() -> None:
    """Print the table of a report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="what benchmarks.scan wrote")
    print(render(json.loads(parser.parse_args().json.read_text())))


if __name__ == "__main__":
    main()
