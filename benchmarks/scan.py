"""Times Parquet scans side by side: bare scans, fastloss, and other tools on the same files in the same run.

Every job runs in a process of its own, which prepares and answers once, untimed; that answer is checked. Then the
jobs run in turn, one at a time, for as many rounds as asked, and each keeps its best round: so none profits from
another's warm threads or freed memory, and a slow moment of the machine meets all of them. Seconds are wall time from
opening the files to the answer, with the files in the page cache; CPU seconds are those of the best round.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import jobs, logs, table
from benchmarks.jobs import JOBS, Job, Run
from benchmarks.machine import describe_machine, describe_versions, figure
from benchmarks.workers import Worker

_ANSWER_GROUPS = (jobs.LOG_LOSS, jobs.SIX_METRICS)
_SCAN_OF = {jobs.LOG_LOSS: jobs.SCAN, jobs.SIX_METRICS: jobs.METRIC_SCAN}


def _prepare(number: int, paths: Sequence[str]) -> Run:
    return JOBS[number].prepare(paths)


@dataclass
class _JobWorker(Worker):
    """A job of `JOBS` in its process."""

    number: int = 0

    @classmethod
    def start(cls, number: int, paths: Sequence[str]) -> _JobWorker:
        job = JOBS[number]
        return cls(f"{job.group}, {job.name}", functools.partial(_prepare, number, paths), number=number)

    @property
    def job(self) -> Job:
        return JOBS[self.number]


def _check(worker: _JobWorker, rows: int, expected: dict[tuple[str, int], Any]) -> float | None:
    """Compare a job's answer with fastloss's on the same rows, or a scan's count with the rows there are."""
    answer, _, _ = worker.answer()
    job = worker.job
    if job.group not in _ANSWER_GROUPS:
        if answer != rows:
            raise SystemExit(f"{job.group}, {job.name}: read {answer} rows of {rows}.")
        return None
    difference = jobs.largest_difference(answer, expected[job.group, rows])
    if not difference <= job.tolerance:
        raise SystemExit(
            f"{job.group}, {job.name}: differs from fastloss by {difference:.2g}, more than {job.tolerance:g}."
        )
    return difference


def measure(paths: Sequence[str], repeat: int, in_memory_rows: int, groups: Sequence[str] | None = None) -> dict:
    """Return the report of a run: machine, versions, log, jobs and figures.

    Parameters
    ----------
    paths : sequence of str
        The files of the log.
    repeat : int
        Rounds; the best counts.
    in_memory_rows : int
        Jobs that hold their rows in memory run on as many files as have this many rows, at least one.
    groups : sequence of str, optional
        Only jobs of these groups.
    """
    import pyarrow.parquet as pq

    file_rows = [pq.read_metadata(path).num_rows for path in paths]
    rows = sum(file_rows)
    fitting = max(1, sum(sum(file_rows[: i + 1]) <= in_memory_rows for i in range(len(paths))))
    fitting_rows = sum(file_rows[:fitting])

    workers, missing = [], []
    for number, job in enumerate(JOBS):
        if groups is not None and job.group not in groups:
            continue
        if job.is_installed:
            workers.append(_JobWorker.start(number, paths[:fitting] if job.in_memory else paths))
        else:
            missing.append({"group": job.group, "name": job.name, "needs": job.needs})

    expected: dict[tuple[str, int], Any] = {}
    for worker in workers:
        own = worker.job.name == "fastloss"
        if own:
            expected[worker.job.group, rows] = worker.answer()[0]
        if own and worker.job.group == jobs.LOG_LOSS and fitting_rows != rows:
            fewer = _JobWorker.start(worker.number, paths[:fitting])
            expected[worker.job.group, fitting_rows] = fewer.answer()[0]
            fewer.end()

    measured = []
    for worker in workers:
        worker_rows = fitting_rows if worker.job.in_memory else rows
        difference = _check(worker, worker_rows, expected)
        measured.append({"rows": worker_rows, "difference": difference})
        _say(f"checked: {worker.job.group}, {worker.job.name}")
    for round_number in range(repeat):
        for worker in workers:
            worker.time()
        _say(f"round {round_number + 1} of {repeat}")
    for worker, entry in zip(workers, measured, strict=True):
        worker.end()
        job = worker.job
        entry |= {"group": job.group, "name": job.name, "decoder": job.decoder, "tolerance": job.tolerance}
        entry |= {"seconds": worker.seconds, "cpu_seconds": worker.cpu_seconds}
        entry["rows_per_second"] = entry["rows"] / worker.seconds
    for entry in measured:
        own_scans = _scans(measured, _SCAN_OF.get(entry["group"], entry["group"]), entry["decoder"])
        entry["ratio_to_scan"] = entry["seconds"] / min(own_scans) if own_scans else None
    return {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": rows,
        "files": len(paths),
        "bytes": sum(os.path.getsize(path) for path in paths),
        "repeat": repeat,
        "jobs": measured,
        "missing": missing,
        "figures": list(_figures(measured)),
    }


def _scans(measured: list[dict[str, Any]], group: str, decoder: str | None = None) -> list[float]:
    return [m["seconds"] for m in measured if m["group"] == group and decoder in (None, m["decoder"])]


def _figures(measured: list[dict[str, Any]]) -> Any:
    time_a_row = {(m["group"], m["name"]): m["seconds"] / m["rows"] for m in measured}
    seconds = {(m["group"], m["name"]): m["seconds"] for m in measured}
    own = (jobs.LOG_LOSS, "fastloss")
    own_polars = (jobs.LOG_LOSS, 'fastloss, reader="polars"')
    scans = _scans(measured, jobs.SCAN)
    if own in seconds and scans:
        same_decoder = min(_scans(measured, jobs.SCAN, "pyarrow"))
        yield figure("log loss / bare scan by the same decoder", seconds[own] / same_decoder, "<=", 1.4, " ×")
        yield figure("log loss / fastest bare scan", seconds[own] / min(scans), "<=", 2.0, " ×")
        yield figure(
            'log loss, reader="polars" / fastest bare scan', seconds[own_polars] / min(scans), "<=", 1.5, " ×"
        )
    for peer, limit in (("Polars expression", 1.7), ("DuckDB SQL", 6.0), ("scikit-learn, from the files", 20.0)):
        if own in seconds and (jobs.LOG_LOSS, peer) in seconds:
            ratio = time_a_row[jobs.LOG_LOSS, peer] / time_a_row[own]
            yield figure(f"{peer} / log loss, time a row", ratio, ">=", limit, " ×")
    for name, decoder in (("fastloss", "pyarrow"), ('fastloss, reader="polars"', "polars")):
        metric_scans = _scans(measured, jobs.METRIC_SCAN, decoder)
        if (jobs.SIX_METRICS, name) in seconds and metric_scans:
            ratio = seconds[jobs.SIX_METRICS, name] / min(metric_scans)
            yield figure(f"six metrics, {name} / bare scan by the same decoder", ratio, "<=", 2.5, " ×")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Write the log if it is not there, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where the log is kept; left out, a temporary folder")
    parser.add_argument("--repeat", type=int, default=5, help="rounds, of which the best counts")
    parser.add_argument("--in-memory-rows", type=int, default=10_000_000, help="for tools that need them in memory")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    paths = logs.write_log(given.folder or logs.default_folder(given.rows, given.files), given.rows, given.files)
    report = measure(paths, given.repeat, given.in_memory_rows)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(table.render(report))


if __name__ == "__main__":
    main()
