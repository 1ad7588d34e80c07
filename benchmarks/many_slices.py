"""Times two metrics by a key of a million values, from Parquet to sorted values, beside Polars' group_by.

    python -m benchmarks.many_slices [--rows 40000000] [--slices 1000000] [--repeat 3]

Both read the same files (zstd; an int8 label, a float32 logit, an int64 key in random order) and answer with the mean
loss and the mean label of every key, sorted by key. fastloss's sums are exact. Each job runs in processes of its own,
in turn; peak memory is what a process holds at most beyond what it holds after its imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.logs import default_folder
from benchmarks.machine import describe_machine

_GROUP_ROWS = 1_000_000


def write_log(folder: Path, n_rows: int, n_slices: int) -> None:
    """Write the log in eight files, unless it is there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = folder / "done"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(8):
        random = np.random.default_rng([3, number])
        n = n_rows // 8
        logit = random.normal(-2.7, 1.2, n).astype(np.float32)
        label = (random.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(np.int8)
        table = pa.table({"click": label, "score": logit, "user_id": random.integers(0, n_slices, n)})
        pq.write_table(table, folder / f"part-{number}.parquet", compression="zstd", row_group_size=_GROUP_ROWS)
    done.touch()


def _fastloss(paths: str, memory: str) -> Callable[[], tuple[int, float]]:
    import fastloss as fl

    def run() -> tuple[int, float]:
        metrics = ["log_loss", "ctr"]
        result = fl.evaluate(paths, label="click", logit="score", metrics=metrics, by="user_id", memory=memory)
        values = result.to_arrow()
        return (len(values) - 2) // 2, float(result.values[0].value or 0.0)

    return run


def _polars(paths: str, memory: str) -> Callable[[], tuple[int, float]]:
    import polars as pl

    def run() -> tuple[int, float]:
        x, y = pl.col("score").cast(pl.Float64), pl.col("click").cast(pl.Float64)
        loss = pl.max_horizontal(x, 0.0) - x * y + (1 + (-x.abs()).exp()).log()
        sums = (
            pl.scan_parquet(paths).group_by("user_id").agg(loss.sum().alias("loss"), y.sum().alias("clicks"), pl.len())
        )
        means = sums.with_columns(mean=pl.col("loss") / pl.col("len"), ctr=pl.col("clicks") / pl.col("len"))
        found = means.sort("user_id").collect(engine="streaming")
        return len(found), found["loss"].sum() / found["len"].sum()

    return run


_JOBS: dict[str, Callable[[str, str], Callable[[], tuple[int, float]]]] = {"fastloss": _fastloss, "polars": _polars}


def _child(job: str, paths: str, memory: str) -> None:
    run = _JOBS[job](paths, memory)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    n_slices, mean = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
    print(json.dumps({"slices": n_slices, "mean": mean, "wall": wall, "cpu": cpu, "peak": peak}))


def main() -> None:
    """Print a line for each job, and the ratio of their wall times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--slices", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--job", choices=_JOBS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = default_folder(given.rows, 8) / f"slices-{given.slices}"
    paths = str(folder / "*.parquet")
    if given.job:
        _child(given.job, paths, given.memory)
        return
    write_log(folder, given.rows, given.slices)
    print(json.dumps(describe_machine(), indent=1))
    best: dict[str, dict[str, Any]] = {}
    # The first round compiles and fills the page cache; it does not count.
    for number in range(given.repeat + 1):
        for job in _JOBS:
            command = [sys.executable, "-m", "benchmarks.many_slices", "--job", job, "--memory", given.memory]
            command += ["--rows", str(given.rows), "--slices", str(given.slices)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            if number and (job not in best or found["wall"] < best[job]["wall"]):
                best[job] = found
    means = [found["mean"] for found in best.values()]
    if not np.allclose(means, means[0], rtol=1e-9):
        raise SystemExit(f"the answers differ: {means}")
    for job, found in best.items():
        print(f"{job:9} {found['wall']:6.2f} s wall {found['cpu']:6.2f} s CPU {found['peak']:6.0f} MiB", end="")
        print(f" {found['slices']:,} slices")
    print(f"fastloss / Polars, wall: {best['fastloss']['wall'] / best['polars']['wall']:.2f}")


if __name__ == "__main__":
    main()
