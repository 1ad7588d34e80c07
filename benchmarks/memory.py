"""Measures peak memory by the size of the log, beyond the imported libraries.

Each evaluation runs in a process of its own, which imports everything, notes its resident memory, evaluates the log
loss and reads the peak that the system kept. A log larger than the first is the first one's files under several
names, as hard links: the same bytes are read as from a log written in full, and as sums are exact the answer must
have the same bits, which is checked. A file whose rows are a single row group stands beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import SOURCE_ROOTS, jobs, logs
from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown

# Imports are the baseline; compiled kernels and columns are not.
_CHILD = """
import json, resource, sys
import numba, numpy, polars, pyarrow, pyarrow.compute, pyarrow.parquet
import fastloss.api, fastloss.engine.engine, fastloss.sources.parquet.source, fastloss.sources.parquet.pyarrow_decoder

def resident(name):
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith(name + ":"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10

baseline = resident("VmRSS")
result = fastloss.api.evaluate(sys.argv[2], label="click", logit="score", metrics=["log_loss"], reader=sys.argv[1])
print(json.dumps([result["log_loss"], result.rows["read"], baseline, resident("VmHWM")]))
"""


def _evaluate(folder: Path, reader: str) -> tuple[float, int, int, int]:
    """Return log loss, rows, baseline and peak, both in bytes."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*SOURCE_ROOTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    arguments = [sys.executable, "-c", _CHILD, reader, str(folder)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"evaluating {folder} failed: {done.stderr.strip()}")
    value, rows, baseline, peak = json.loads(done.stdout)
    return value, rows, baseline, peak


def _repeat_files(paths: list[str], times: int, folder: Path) -> None:
    for turn in range(times):
        for path in paths:
            os.link(path, folder / f"{turn:03d}-{Path(path).name}")


def _measure_log(folder: Path, reader: str, repeat: int) -> dict[str, Any]:
    peaks = []
    for _ in range(repeat):
        value, rows, baseline, peak = _evaluate(folder, reader)
        peaks.append((peak - baseline, baseline, peak))
    growth, baseline, peak = max(peaks)
    return {"value": value, "rows": rows, "growth": growth, "baseline": baseline, "peak": peak}


def measure(sizes: list[int], row_group_rows: int, reader: str, repeat: int) -> dict[str, Any]:
    """Return the report of a run; of each size the largest growth of several runs counts."""
    smallest = min(sizes)
    if any(size % smallest for size in sizes):
        raise SystemExit(f"sizes are {sizes}; allowed: multiples of the smallest, whose files are repeated.")
    files = min(8, math.ceil(smallest / logs.CHUNK_ROWS))
    home = logs.default_folder(smallest, files)
    paths = logs.write_log(home, smallest, files)
    expected = jobs.log_loss_polars("Float64", paths)()
    # Once unmeasured: fills the kernel cache, for the compiler's memory is that of the first run ever.
    _evaluate(home, reader)
    measured = []
    for size in sorted(sizes):
        # Beside the log, since hard links cannot cross file systems.
        with tempfile.TemporaryDirectory(dir=home.parent) as folder:
            _repeat_files(paths, size // smallest, Path(folder))
            entry = _measure_log(Path(folder), reader, repeat)
        if entry["rows"] != size or not math.isclose(entry["value"], expected, rel_tol=1e-12):
            raise SystemExit(f"{size} rows: read {entry['rows']}, log loss {entry['value']!r}, not {expected!r}.")
        expected_bits = measured[0]["value"] if measured else entry["value"]
        if entry["value"] != expected_bits:
            raise SystemExit(f"{size} rows: log loss {entry['value']!r}, and {expected_bits!r} of the same rows once.")
        measured.append({"log": f"{size:,} rows, {files * size // smallest} files"} | entry)
    if row_group_rows:
        folder = home.parent / f"one-row-group-of-{row_group_rows}"
        huge = logs.write_log(folder, row_group_rows, 1, row_group_rows, jobs.LOSS_COLUMNS)
        entry = _measure_log(folder, reader, repeat)
        expected = jobs.log_loss_polars("Float64", huge)()
        if not math.isclose(entry["value"], expected, rel_tol=1e-12):
            raise SystemExit(f"{huge[0]}: log loss {entry['value']!r}, not {expected!r}.")
        measured.append({"log": f"{row_group_rows:,} rows, a single row group"} | entry)

    figures = [
        figure(f"peak beyond the imports: {entry['log']}", entry["growth"] / 2**20, "<=", 512, " MiB")
        for entry in measured
    ]
    ordinary = measured[: len(sizes)]
    if len(ordinary) > 1:
        more = ordinary[-1]["growth"] / ordinary[0]["growth"] - 1.0
        name = f"its growth from {ordinary[0]['rows']:,} to {ordinary[-1]['rows']:,} rows"
        figures.append(figure(name, 100.0 * more, "<=", 5, " %"))
    return {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "reader": reader,
        "logs": measured,
        "figures": figures,
    }


def main() -> None:
    """Write the logs if they are not there, measure, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[40_000_000, 400_000_000])
    parser.add_argument("--row-group-rows", type=int, default=100_000_000, help="of the single row group; 0: none")
    parser.add_argument("--reader", choices=("pyarrow", "polars"), default="pyarrow")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each log, of which the largest counts")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    report = measure(given.rows, given.row_group_rows, given.reader, given.repeat)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    rows = [
        [entry["log"], *(f"{entry[name] / 2**20:.0f}" for name in ("baseline", "peak", "growth"))]
        for entry in report["logs"]
    ]
    note = (
        f'Log loss, reader="{report["reader"]}", largest of {given.repeat} runs. '
        "Logs beyond the smallest list its files again under other names."
    )
    table = markdown(("log", "imported, MiB", "peak, MiB", "beyond, MiB"), rows)
    print(
        "\n\n".join([headline(report["machine"], report["versions"]), note, table, figures_table(report["figures"])])
    )


if __name__ == "__main__":
    main()
