"""What a measurement was made on, and how a table of it is printed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

_PACKAGES = ("numba", "llvmlite", "numpy", "pyarrow", "polars", "duckdb", "scikit-learn", "torch", "ranx")


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> dict[str, object]:
    """Return processor, cores, vector width, memory and system."""
    model, flags = platform.processor() or platform.machine(), ""
    memory = None
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                model = value.strip()
            elif name.strip() == "flags":
                flags = value
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    words = set(flags.split())
    vectors = next((name for name in ("avx512f", "avx2", "avx") if name in words), None)
    return {
        "processor": model,
        "cores": available_cores(),
        "vectors": vectors,
        "memory_gib": None if memory is None else round(memory / 2**30, 1),
        "system": platform.system(),
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python, fastloss and the libraries that are installed."""
    import fastloss

    versions = {"python": platform.python_version(), "fastloss": fastloss.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def headline(machine: dict[str, object], versions: dict[str, str]) -> str:
    """Return machine and versions as one line each."""
    vectors = f", {machine['vectors']}" if machine["vectors"] else ""
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    return (
        f"Machine: {machine['processor']}, {machine['cores']} cores{vectors}{memory}, {machine['system']}.\n"
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}."
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = [
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(parts)} |"

    rule = f"|{'|'.join('-' * (w + 2) if column == 0 else '-' * (w + 1) + ':' for column, w in enumerate(widths))}|"
    return "\n".join([line(cells[0]), rule, *[line(row) for row in cells[1:]]])


def figure(name: str, value: float, relation: str, limit: float, unit: str = "") -> dict[str, object]:
    """Return a measured figure beside the one to reach; `relation` is ``"<="`` or ``">="``."""
    reached = value <= limit if relation == "<=" else value >= limit
    return {"figure": name, "value": value, "relation": relation, "limit": limit, "unit": unit, "reached": reached}


def figures_table(figures: Iterable[dict[str, object]]) -> str:
    """Return the figures as a Markdown table."""
    signs = {"<=": "≤", ">=": "≥"}
    rows = [
        [
            str(f["figure"]),
            f"{f['value']:.3g}{f['unit']}",
            f"{signs[str(f['relation'])]} {f['limit']:g}{f['unit']}",
            "yes" if f["reached"] else "no",
        ]
        for f in figures
    ]
    return markdown(("figure", "measured", "to reach", "reached"), rows)
