"""Times the fit of a calibration map to a log beside a bare scan of its columns, and beside scikit-learn on arrays.

fastloss reads the Parquet files a few times; each pass is timed by itself and given as a multiple of the bare scan by
the same decoder. scikit-learn's logistic regression without penalty has its arrays ready, of fewer rows where asked:
its time is then scaled to all rows, since a step of its solver takes time linear in the rows. Coefficients must agree.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import logs
from benchmarks.jobs import LOSS_COLUMNS, scan_pyarrow
from benchmarks.machine import describe_machine, describe_versions, headline, markdown
from benchmarks.workers import Worker

Run = Callable[[], Any]


def fastloss_calibrate(method: str, paths: Sequence[str]) -> Run:
    """Fit, and return the coefficients, and the seconds and CPU seconds of each pass."""
    import fastloss

    def run() -> tuple[list[float], list[tuple[float, float]]]:
        ends = [(time.perf_counter(), time.process_time())]

        def note(done: Any) -> None:
            if done.rows == done.total_rows:
                ends.append((time.perf_counter(), time.process_time()))

        found = fastloss.calibrate(list(paths), label="click", logit="score", method=method, progress=note)
        passes = [(end[0] - start[0], end[1] - start[1]) for start, end in itertools.pairwise(ends)]
        return list(found.map.coefficients), passes

    return run


def scikit_learn(solver: str, paths: Sequence[str]) -> Run:
    """Fit to arrays that are ready, and return the coefficients."""
    import numpy as np
    import pyarrow.parquet as pq
    from sklearn.linear_model import LogisticRegression

    columns = pq.read_table(list(paths), columns=list(LOSS_COLUMNS))
    label, score = columns["click"].to_numpy(), columns["score"].to_numpy().astype(np.float64)[:, None]

    def run() -> tuple[list[float], list[tuple[float, float]]]:
        model = LogisticRegression(C=np.inf, tol=1e-10, solver=solver, max_iter=500).fit(score, label)
        return [float(model.coef_[0, 0]), float(model.intercept_[0])], []

    return run


def measure(rows: int, in_memory: int, repeat: int, method: str) -> dict[str, Any]:
    """Return the report of a run: the best of `repeat` rounds of each job."""
    files = min(8, math.ceil(rows / logs.CHUNK_ROWS))
    paths = logs.write_log(logs.default_folder(rows, files), rows, files)
    fewer = min(rows, in_memory)
    few_files = min(4, math.ceil(fewer / logs.CHUNK_ROWS))
    few_paths = logs.write_log(logs.default_folder(fewer, few_files), fewer, few_files)
    jobs: list[tuple[str, Callable[[], Run], int]] = [
        ("bare scan, pyarrow", functools.partial(scan_pyarrow, LOSS_COLUMNS, False, paths), rows),
        (f"fastloss calibrate, {method}", functools.partial(fastloss_calibrate, method, paths), rows),
    ]
    if method == "platt":
        jobs += [
            (f"scikit-learn, {solver}", functools.partial(scikit_learn, solver, few_paths), fewer)
            for solver in ("newton-cholesky", "lbfgs")
        ]
    workers = [(name, Worker(name, prepare), n) for name, prepare, n in jobs]
    answers = {name: worker.answer()[0] for name, worker, _ in workers}
    passes: list[list[tuple[float, float]]] = []
    for _ in range(repeat):
        for name, worker, _ in workers[:2]:
            worker.time()
            if name.startswith("fastloss"):
                passes.append(worker.answer()[0][1])
    for name, worker, n in workers:
        if name.startswith("scikit-learn"):
            worker.time()
            if n == rows and not _agree(answers[name][0], answers[f"fastloss calibrate, {method}"][0]):
                raise SystemExit(f"{name}: {answers[name][0]}, not {answers[f'fastloss calibrate, {method}'][0]}.")
        worker.end()
    return {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": rows,
        "repeat": repeat,
        "passes": [[min(part) for part in zip(*times, strict=True)] for times in zip(*passes, strict=True)],
        "jobs": [
            {"job": name, "rows": n, "seconds": w.seconds, "cpu_seconds": w.cpu_seconds} for name, w, n in workers
        ],
    }


def _agree(found: Sequence[float], wanted: Sequence[float]) -> bool:
    # lbfgs stops where it cannot see the loss fall any more.
    return all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(found, wanted, strict=True))


def main() -> None:
    """Write the log if it is not there, measure, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--in-memory", type=int, default=4_000_000, help="rows that scikit-learn fits to")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--method", choices=("platt", "temperature", "beta", "isotonic"), default="platt")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    report = measure(given.rows, given.in_memory, given.repeat, given.method)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    bare, ours = report["jobs"][0]["seconds"], report["jobs"][1]["seconds"]
    rows = []
    for entry in report["jobs"]:
        scaled = entry["seconds"] * report["rows"] / entry["rows"]
        said = f"{scaled:.2f}" + ("" if entry["rows"] == report["rows"] else f" (from {entry['rows']:,} rows)")
        rows.append(
            [entry["job"], said, f"{entry['cpu_seconds']:.2f}", f"{scaled / bare:.2f}", f"{scaled / ours:.1f}"]
        )
    print(headline(report["machine"], report["versions"]))
    print(f"\n{report['rows']:,} rows, zstd, best of {report['repeat']} rounds.\n")
    print(markdown(("job", "seconds", "CPU seconds", "of the bare scan", "of fastloss"), rows))
    bare_cpu = report["jobs"][0]["cpu_seconds"]
    passes = [
        [f"{i + 1}", f"{wall:.3f}", f"{wall / bare:.2f}", f"{cpu:.3f}", f"{cpu / bare_cpu:.2f}"]
        for i, (wall, cpu) in enumerate(report["passes"])
    ]
    print(f"\n{markdown(('pass', 'seconds', 'of the bare scan', 'CPU seconds', 'of the bare scan'), passes)}")


if __name__ == "__main__":
    main()
