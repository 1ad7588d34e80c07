"""Times two versions of fastloss side by side: the same jobs on the same files, in one run.

    python -m benchmarks.versions OLD_CHECKOUT [--rows 40000000] [--repeat 5]

The checkout that the command runs in is the new version. Each job and version has a process of its own, which runs
once, untimed; rounds then alternate between the versions, so that a slow moment of the machine meets both, and
each keeps its best round. Peak memory is what the process holds at most beyond the imported libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.lists import write_log as write_lists
from benchmarks.logs import default_folder, write_log
from benchmarks.machine import describe_machine

# What a process of either version runs: it says "ready" and answers each line of stdin with a round's figures.
_SERVER = """
import json, resource, sys, time
import numpy, pyarrow.parquet, numba, polars
import fastloss as fl
job, paths, out = json.loads(sys.argv[1])

def log_loss():
    return fl.evaluate(paths, label="click", logit="score", metrics=["log_loss"])["log_loss"]

def six_metrics():
    metrics = ["log_loss", "normalized_entropy", "brier_score", "calibration", "ctr", "mean_prediction"]
    predictions = {"a": fl.logit("score"), "b": fl.logit("score_b")}
    result = fl.evaluate(paths, label="click", predictions=predictions, weight="weight", metrics=metrics, by="country")
    return result["log_loss"]["b"]

def lists():
    return fl.evaluate(paths, label="clicked", logit="score", metrics=["categorical_crossentropy"])

def score():
    return fl.score(paths, out, label="click", logit="score", loss="log_loss", keep=["country"], overwrite=True)

def answer(found):
    return found if isinstance(found, float) else found["categorical_crossentropy"] if job == "lists" else 0.0

run = globals()[job]
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
value = answer(run())
print(json.dumps({"value": value}), flush=True)
for _ in sys.stdin:
    before, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": (after.ru_maxrss - base) / 1024}), flush=True)
"""
JOBS = ("log_loss", "six_metrics", "lists", "score")


class _Version:
    """A process of one version for one job."""

    def __init__(self, checkout: Path, job: str, paths: list[str], out: str) -> None:
        path = os.pathsep.join([str(checkout), str(checkout / "kernels")])
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, json.dumps([job, paths, out])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            cwd=out,
        )
        self.value = self._read()["value"]
        self.rounds: list[dict[str, float]] = []

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a version ended before it answered")
        found: dict[str, Any] = json.loads(line)
        return found

    def round(self) -> None:
        """Run the job once more."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.rounds.append(self._read())

    def best(self, name: str) -> float:
        """Return the least of a figure over all rounds."""
        return min(found[name] for found in self.rounds)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Print a table of both versions' figures, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=JOBS)
    given = parser.parse_args()
    new = Path(__file__).parents[1]
    folder = default_folder(given.rows, 8)
    rows = [str(path) for path in write_log(folder, given.rows, 8)]
    lists = write_lists(folder / "lists", given.rows // 2, 8)
    out = folder / "out"
    print(json.dumps(describe_machine(), indent=1))
    print(
        f"{'job':12} {'old wall':>9} {'new wall':>9} {'ratio':>6} {'old CPU':>9} {'new CPU':>9} {'ratio':>6}", end=""
    )
    print(f" {'old MiB':>8} {'new MiB':>8}")
    for job in given.jobs:
        paths = lists if job == "lists" else rows[:2] if job == "score" else rows
        versions = []
        for checkout in (given.old.resolve(), new):
            own = out / str(len(versions))
            own.mkdir(parents=True, exist_ok=True)
            versions.append(_Version(checkout, job, list(map(str, paths)), str(own)))
        before, after = versions
        if before.value != after.value:
            raise SystemExit(f"{job}: {before.value!r} in the old version, {after.value!r} in the new one.")
        for _ in range(given.repeat):
            before.round()
            after.round()
        figures = [f"{job:12}"]
        for name in ("wall", "cpu"):
            pair = before.best(name), after.best(name)
            figures.append(f"{pair[0]:9.3f} {pair[1]:9.3f} {pair[1] / pair[0]:6.3f}")
        figures.append(f"{before.best('peak'):8.0f} {after.best('peak'):8.0f}")
        print(" ".join(figures), flush=True)
        before.close()
        after.close()


if __name__ == "__main__":
    main()
