"""Times the state of a million slices: two exact sums and a count by an integer key, beside Polars.

Both get the same columns in memory: an integer key, in random order, and two columns of float64. fastloss does what an
evaluation does, without files and losses: each of two threads takes a task of a million rows, encodes the keys of its
batches, fills a table of its own, and merges it whole into the result's under a lock. In the end everything is read:
both sums rounded, their quotient, and the order of the keys. Polars groups by the key, sums and counts, and sorts; its
sums are rounded at each addition.

Each job runs in a process of its own; rounds alternate, so that both see the same machine.
"""

from __future__ import annotations

import argparse
import functools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown
from benchmarks.workers import Worker

TASK_ROWS = 1 << 20
BATCH_ROWS = 1 << 18
# Of the state at the end, for a million slices.
LIMIT_BYTES_PER_SLICE = 200


@dataclass(frozen=True)
class Column:
    """What is summed or counted."""

    name: str


def make_columns(n_rows: int, n_slices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return keys in random order, weights and losses."""
    random = np.random.default_rng(7)
    keys = random.integers(0, n_slices, n_rows) * 7919
    weight = random.random(n_rows, dtype=np.float32).astype(np.float64)
    loss = random.standard_exponential(n_rows, dtype=np.float32).astype(np.float64)
    return keys, weight, loss


def _fastloss(n_rows: int, n_slices: int, threads: int) -> Callable[[], Any]:
    import pyarrow as pa

    from fastloss.columns.arrow import encode_keys
    from fastloss.states.base import RowSet, SliceRuns
    from fastloss.states.counts import Count
    from fastloss.states.slices import SliceTable
    from fastloss.states.sums import Sum

    keys, weight, loss = make_columns(n_rows, n_slices)
    column = pa.array(keys)
    sums = Sum(RowSet(0), Column("weight")), Sum(RowSet(0), Column("loss"))
    count = Count(RowSet(0), Column("rows"))

    def work(state: SliceTable, lock: threading.Lock, first: int) -> None:
        task = SliceTable(("key",), (*sums, count))
        for start in range(first, min(first + TASK_ROWS, n_rows), BATCH_ROWS):
            rows = slice(start, min(start + BATCH_ROWS, first + TASK_ROWS, n_rows))
            encoded = encode_keys(column[rows], "key")
            runs = SliceRuns(None, None, task.positions([encoded.codes], [encoded]))
            task.column(sums[0]).add(weight[rows], runs)
            task.column(sums[1]).add(loss[rows], runs)
            task.column(count).add_lengths(runs)
        with lock:
            state.merge(task)

    def run() -> Any:
        state = SliceTable(("key",), (*sums, count))
        lock = threading.Lock()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(functools.partial(work, state, lock), range(0, n_rows, TASK_ROWS)))
        state.normalize()
        first, second = (state.column(spec).evaluate() for spec in sums)
        quotient = second / first
        values = (first.to_float(), second.to_float(), state.column(count).evaluate(), quotient)
        order = state.sorted_positions()
        found = [float(np.sum(value[order][:1000])) for value in values]
        return {"slices": state.n_slices, "bytes": state.nbytes, "found": found}

    return run


def _polars(n_rows: int, n_slices: int) -> Callable[[], Any]:
    import polars as pl

    keys, weight, loss = make_columns(n_rows, n_slices)
    frame = pl.DataFrame({"key": keys, "weight": weight, "loss": loss})

    def run() -> Any:
        grouped = frame.group_by("key").agg(pl.col("weight").sum(), pl.col("loss").sum(), pl.len().alias("rows"))
        grouped = grouped.with_columns((pl.col("loss") / pl.col("weight")).alias("quotient")).sort("key")
        head = grouped.head(1000)
        return {
            "slices": len(grouped),
            "found": [float(head[name].sum()) for name in ("weight", "loss", "rows", "quotient")],
        }

    return run


def measure(n_rows: int, n_slices: int, threads: int, repeat: int) -> dict[str, Any]:
    """Check that both find the same, then time them in turn."""
    mine = Worker("fastloss", functools.partial(_fastloss, n_rows, n_slices, threads))
    theirs = Worker("Polars", functools.partial(_polars, n_rows, n_slices))
    answer, peer = mine.answer()[0], theirs.answer()[0]
    if answer["slices"] != peer["slices"] or not np.allclose(answer["found"], peer["found"], rtol=1e-12):
        raise SystemExit(f"fastloss and Polars disagree: {answer} and {peer}")
    for _ in range(repeat):
        mine.time()
        theirs.time()
    for worker in (mine, theirs):
        worker.end()
    return {
        "slices": answer["slices"],
        "bytes": answer["bytes"],
        "fastloss": {"seconds": mine.seconds, "cpu_seconds": mine.cpu_seconds},
        "polars": {"seconds": theirs.seconds, "cpu_seconds": theirs.cpu_seconds},
    }


def render(report: dict[str, Any]) -> str:
    """Return the report as text."""
    found, n_rows = report["measured"], report["rows"]
    table = markdown(
        ("", "seconds", "CPU seconds", "ns a row"),
        [
            (name, f"{times['seconds']:.2f}", f"{times['cpu_seconds']:.2f}", f"{times['seconds'] / n_rows * 1e9:.0f}")
            for name, times in (("fastloss", found["fastloss"]), ("Polars", found["polars"]))
        ],
    )
    return "\n\n".join(
        (
            headline(report["machine"], report["versions"]),
            f"{n_rows:,} rows, {found['slices']:,} slices, state {found['bytes'] / 1e6:.0f} MB",
            table,
            figures_table(report["figures"]),
        )
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slices", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--slices", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3, help="rounds, of which the best counts")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    found = measure(given.rows, given.slices, given.threads, given.repeat)
    report = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": given.rows,
        "repeat": given.repeat,
        "measured": found,
        "figures": [
            figure("time of Polars' group_by", found["fastloss"]["seconds"] / found["polars"]["seconds"], "<=", 1.0),
            figure("bytes of state a slice", found["bytes"] / found["slices"], "<=", LIMIT_BYTES_PER_SLICE),
        ],
    }
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(render(report))


if __name__ == "__main__":
    main()
