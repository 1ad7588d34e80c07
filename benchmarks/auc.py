"""Times ROC AUC of one log beside scikit-learn and Polars: from the Parquet files to the number.

The bare scan decodes the two columns by pyarrow, one row group at a time on each thread, and does nothing else.
fastloss reads the log in pieces, once with bounds and once exactly. The others hold the two columns: `roc_auc_score`
of scikit-learn on NumPy arrays that pyarrow has read, and Polars' average ranks, from which
AUC = (Σ ranks of positives − P·(P + 1)/2) / (P·N). Every answer is compared with the exact one. Each job runs in a
process of its own, whose peak of resident memory counts, imports and all.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import jobs, logs
from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown
from benchmarks.workers import Worker

Run = Callable[[], tuple[float, float, float]]
COLUMNS = ("click", "score")
SCAN = "bare scan"
BOUNDS, EXACT = "fastloss roc_auc", "fastloss roc_auc(exact=true)"


def fastloss_auc(paths: Sequence[str], metric: str, with_log_loss: bool = False) -> Run:
    import fastloss

    def run() -> tuple[float, float, float]:
        metrics = [metric, "log_loss"] if with_log_loss else [metric]
        found = fastloss.evaluate(list(paths), label="click", logit="score", metrics=metrics, memory="2GiB").values[0]
        return found.value, found.evidence["low"], found.evidence["high"]

    return run


def log_loss(paths: Sequence[str]) -> Run:
    import fastloss

    def run() -> tuple[float, float, float]:
        fastloss.evaluate(list(paths), label="click", logit="score", metrics=["log_loss"])
        return math.nan, math.nan, math.nan

    return run


def bare_scan(paths: Sequence[str]) -> Run:
    scan = jobs.scan_pyarrow(COLUMNS, False, paths)

    def run() -> tuple[float, float, float]:
        scan()
        return math.nan, math.nan, math.nan

    return run


def scikit_learn(paths: Sequence[str]) -> Run:
    import pyarrow.parquet as pq
    from sklearn.metrics import roc_auc_score

    def run() -> tuple[float, float, float]:
        columns = pq.read_table(list(paths), columns=list(COLUMNS))
        found = float(roc_auc_score(columns["click"].to_numpy(), columns["score"].to_numpy()))
        return found, found, found

    return run


def polars(paths: Sequence[str]) -> Run:
    import polars as pl

    def run() -> tuple[float, float, float]:
        rank = pl.col("score").rank("average")
        positive, rows, ranks = (
            pl.scan_parquet(list(paths))
            .select(
                pl.col("click").cast(pl.Int64).sum().alias("positive"),
                pl.len().alias("rows"),
                rank.filter(pl.col("click") == 1).sum().alias("ranks"),
            )
            .collect()
            .row(0)
        )
        found = (ranks - positive * (positive + 1) / 2) / (positive * (rows - positive))
        return found, found, found

    return run


JOBS: dict[str, Callable[[Sequence[str]], Run]] = {
    SCAN: bare_scan,
    BOUNDS: functools.partial(fastloss_auc, metric="roc_auc"),
    EXACT: functools.partial(fastloss_auc, metric="roc_auc(exact=true, most_scores=100000000)"),
    "fastloss log_loss": log_loss,
    "fastloss roc_auc and log_loss": functools.partial(fastloss_auc, metric="roc_auc", with_log_loss=True),
    "scikit-learn": scikit_learn,
    "Polars": polars,
}


def _with_peak(name: str, paths: Sequence[str]) -> Callable[[], tuple[float, float, float, int]]:
    """Prepare a job whose answer ends in the most memory that its process has had."""
    run = JOBS[name](paths)

    def run_and_look() -> tuple[float, float, float, int]:
        value, low, high = run()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return value, low, high, peak if sys.platform == "darwin" else peak << 10

    return run_and_look


def measure(rows: int, repeat: int, names: Sequence[str]) -> dict[str, Any]:
    """Return the report of a run: the best of `repeat` rounds of each job."""
    files = min(8, math.ceil(rows / logs.CHUNK_ROWS))
    paths = logs.write_log(logs.default_folder(rows, files), rows, files)
    exact = None
    measured = []
    for name in names:
        worker = Worker(name, functools.partial(_with_peak, name, paths))
        # Compiles, and fills the system's cache of the files.
        (value, low, high, peak), _, _ = worker.answer()
        for _ in range(repeat):
            worker.time()
        worker.end()
        measured.append({"job": name, "value": value, "low": low, "high": high, "seconds": worker.seconds})
        measured[-1] |= {"cpu_seconds": worker.cpu_seconds, "peak": peak}
        if "exact" in name:
            exact = value
    for entry in measured:
        if exact is not None and not math.isnan(entry["value"]):
            # Ranks add up to more than float64 tells apart; scikit-learn adds rounded trapezoids.
            if entry["low"] < entry["high"]:
                agrees = entry["low"] <= exact <= entry["high"]
            else:
                agrees = math.isclose(entry["value"], exact, rel_tol=1e-9)
            if not agrees:
                raise SystemExit(f"{entry['job']}: {entry['value']!r}, not {exact!r}.")
    return {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": rows,
        "jobs": measured,
        "figures": list(_figures({entry["job"]: entry for entry in measured})),
    }


def _figures(by_name: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, limit in ((BOUNDS, 1.6), (EXACT, 3.0)):
        if name in by_name and SCAN in by_name:
            ratio = by_name[name]["seconds"] / by_name[SCAN]["seconds"]
            yield figure(f"{name} / bare scan", ratio, "<=", limit, " ×")
    if BOUNDS not in by_name:
        return
    found = by_name[BOUNDS]
    yield figure("high − low, in millionths", 1e6 * (found["high"] - found["low"]), "<=", 10, "")
    for peer, least in (("scikit-learn", 40), ("Polars", 12)):
        if peer in by_name:
            yield figure(f"{peer} / {BOUNDS}", by_name[peer]["seconds"] / found["seconds"], ">=", least, " ×")


def main() -> None:
    """Write the log if it is not there, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auc", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    report = measure(given.rows, given.repeat, given.jobs)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    first = report["jobs"][0]["seconds"]
    rows = [
        [
            entry["job"],
            f"{entry['seconds']:.2f}",
            f"{entry['cpu_seconds']:.2f}",
            f"{entry['seconds'] / first:.1f}",
            repr(entry["value"]),
            f"{entry['high'] - entry['low']:.1e}",
            f"{entry['peak'] / 2**20:,.0f}",
        ]
        for entry in report["jobs"]
    ]
    print(headline(report["machine"], report["versions"]))
    print(f"\n{report['rows']:,} rows, zstd, best of {given.repeat} rounds.\n")
    print(markdown(("job", "seconds", "CPU seconds", "ratio", "ROC AUC", "high − low", "peak, MiB"), rows))
    print("\n" + figures_table(report["figures"]))


if __name__ == "__main__":
    main()
