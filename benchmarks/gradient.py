"""Times the gradient by 20 float32 features over Parquet, beside the bare scan of their columns and NumPy in memory.

Every job runs in a process of its own and answers once, untimed; then the jobs run in turn, and each keeps its best
round. NumPy gets its columns in memory as one float64 matrix, and computes the same sums without their exactness.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jobs import Run, scan_pyarrow
from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown
from benchmarks.workers import Worker

FEATURES = tuple(f"f{i}" for i in range(20))
COLUMNS = ("click", "logit", *FEATURES)
ROW_GROUP_ROWS = 1_000_000


def write_log(folder: Path, rows: int, files: int) -> list[str]:
    """Write the log unless it is there: a model that has used half of the features."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, rows_of_file in enumerate(np.diff(np.linspace(0, rows, files + 1).astype(int)).tolist()):
        path = folder / f"{number}.parquet"
        paths.append(str(path))
        if path.exists() and pq.read_metadata(path).num_rows == rows_of_file:
            continue
        random = np.random.default_rng(number)
        features = random.standard_normal((len(FEATURES), rows_of_file), dtype=np.float32)
        logit = 0.2 * features[::2].sum(axis=0) - 2.0
        odds = np.exp(logit + 0.05 * features[1::2].sum(axis=0))
        click = random.random(rows_of_file) * (1.0 + odds) < odds
        columns = {"click": click.astype(np.int8), "logit": logit} | dict(zip(FEATURES, features, strict=True))
        pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP_ROWS)
    return paths


def _fastloss(paths: Sequence[str], threads: int, diagonal: bool) -> Run:
    import fastloss as fl

    def run() -> Any:
        found = fl.feature_gradient(
            list(paths), label="click", logit="logit", features=FEATURES, diagonal=diagonal, threads=threads
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"n": found.n, "gradient": found.gradient.tolist(), "peak": peak}

    return run


def _numpy(paths: Sequence[str]) -> Run:
    import pyarrow.parquet as pq

    table = pq.read_table(list(paths), columns=list(COLUMNS))
    label, logit = (table[name].to_numpy().astype(np.float64) for name in ("click", "logit"))
    features = np.ones((len(FEATURES) + 1, table.num_rows))
    for row, name in enumerate(FEATURES):
        features[row] = table[name].to_numpy()

    def run() -> Any:
        p = 1.0 / (1.0 + np.exp(-logit))
        gradient = features @ (p - label)
        matrix = (features * (p * (1.0 - p))) @ features.T
        squares = (features * (p - label)) ** 2 @ np.ones(len(label))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        mean = (gradient / len(label)).tolist()
        return {"n": len(label), "gradient": mean[:-1], "peak": peak, "other": [matrix[0, 0], squares[0]]}

    return run


def measure(paths: Sequence[str], rows: int, in_memory_files: int, threads: int, repeat: int) -> list[dict[str, Any]]:
    """Check that all find the same, then time them in turn."""
    some = paths[:in_memory_files]
    workers = [
        (Worker("bare scan", functools.partial(scan_pyarrow, COLUMNS, True, paths)), rows),
        (Worker("fastloss", functools.partial(_fastloss, paths, threads, False)), rows),
        (Worker("fastloss, diagonal", functools.partial(_fastloss, paths, threads, True)), rows),
        (Worker("NumPy, in memory", functools.partial(_numpy, some)), rows * len(some) // len(paths)),
    ]
    answers = [worker.answer()[0] for worker, _ in workers]
    check = Worker("fastloss, some files", functools.partial(_fastloss, some, threads, True))
    if not np.allclose(check.answer()[0]["gradient"], answers[3]["gradient"], rtol=1e-9, atol=1e-12):
        raise SystemExit("fastloss and NumPy disagree")
    check.end()
    for _ in range(repeat):
        for worker, _ in workers:
            worker.time()
    measured = []
    for (worker, worker_rows), answer in zip(workers, answers, strict=True):
        worker.end()
        measured.append(
            {
                "name": worker.name,
                "rows": worker_rows,
                "seconds": worker.seconds,
                "cpu_seconds": worker.cpu_seconds,
                "peak": answer["peak"] if isinstance(answer, dict) else None,
            }
        )
    return measured


def render(report: dict[str, Any]) -> str:
    """Return the report as text."""
    lines = [
        (
            job["name"],
            f"{job['rows']:,}",
            f"{job['seconds']:.2f}",
            f"{job['seconds'] / job['rows'] * 1e9:.0f}",
            f"{job['cpu_seconds'] / job['rows'] * 1e9:.0f}",
            "" if job["peak"] is None else f"{job['peak'] / 2**20:.0f}",
        )
        for job in report["jobs"]
    ]
    table = markdown(("", "rows", "seconds", "ns a row", "CPU ns a row", "peak MiB"), lines)
    return "\n\n".join((headline(report["machine"], report["versions"]), table, figures_table(report["figures"])))


def main() -> None:
    """Write the log if it is not there, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradient", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where the log is kept; left out, a temporary folder")
    parser.add_argument("--in-memory-files", type=int, default=1, help="files that NumPy gets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="rounds, of which the best counts")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.gettempdir()) / f"fastloss-gradient-{given.rows}-{given.files}"
    paths = write_log(folder, given.rows, given.files)
    jobs = measure(paths, given.rows, given.in_memory_files, given.threads, given.repeat)
    times = {job["name"]: job["seconds"] / job["rows"] for job in jobs}
    report = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": given.rows,
        "repeat": given.repeat,
        "jobs": jobs,
        "figures": [
            figure(
                "gradient / bare scan by the same decoder", times["fastloss"] / times["bare scan"], "<=", 1.5, " ×"
            ),
            figure("NumPy in memory / gradient, time a row", times["NumPy, in memory"] / times["fastloss"], ">=", 1.0),
        ],
    }
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(render(report))


if __name__ == "__main__":
    main()
