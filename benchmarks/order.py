"""Times metrics of order and of calibration for two models by 40 countries, weighted, beside a bare scan.

Each job runs in a process of its own. The bare scan reads the same five columns by the same decoder.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import logs
from benchmarks.jobs import METRIC_COLUMNS, MODELS, scan_pyarrow
from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown
from benchmarks.workers import Worker

SUMS = "log_loss,normalized_entropy,calibration"
ALL = f"roc_auc,average_precision,{SUMS},ece"
MOST = 2.5


def evaluate(metrics: str, paths: Sequence[str]) -> Callable[[], Any]:
    """Return ``run() -> values``."""
    import fastloss

    def run() -> list[float | None]:
        found = fastloss.evaluate(
            list(paths), label="click", logit=MODELS, weight="weight", by="country", metrics=metrics
        )
        return [value.value for value in found.values]

    return run


JOBS: dict[str, Callable[[Sequence[str]], Callable[[], Any]]] = {
    "bare scan": functools.partial(scan_pyarrow, METRIC_COLUMNS, False),
    SUMS: functools.partial(evaluate, SUMS),
    f"{SUMS},ece": functools.partial(evaluate, f"{SUMS},ece"),
    "roc_auc": functools.partial(evaluate, "roc_auc"),
    ALL: functools.partial(evaluate, ALL),
}


def main() -> None:
    """Write the log if it is not there, measure, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.order", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--repeat", type=int, default=2)
    given = parser.parse_args()
    files = min(8, math.ceil(given.rows / logs.CHUNK_ROWS))
    paths = logs.write_log(logs.default_folder(given.rows, files), given.rows, files)
    workers = []
    for name, prepare in JOBS.items():
        worker = Worker(name, functools.partial(prepare, paths))
        # Compiles, and fills the system's cache of the files.
        worker.answer()
        for _ in range(given.repeat):
            worker.time()
        worker.end()
        workers.append(worker)
    scan = workers[0]
    rows = [[w.name, f"{w.seconds:.2f}", f"{w.cpu_seconds:.2f}", f"{w.seconds / scan.seconds:.2f}"] for w in workers]
    print(headline(describe_machine(), describe_versions()))
    print(f"\n{given.rows:,} rows, two models, weighted, by 40 countries; best of {given.repeat} rounds.\n")
    print(markdown(("job", "seconds", "CPU seconds", "of the bare scan"), rows))
    print("\n" + figures_table([figure("all of them / bare scan", workers[-1].seconds / scan.seconds, "<=", MOST)]))


if __name__ == "__main__":
    main()
