"""Times filters, derived keys, wide logs and many small files, beside bare scans and Polars in the same run.

    python -m benchmarks.expressions [--rows 40000000] [--repeat 5] [--small-files 3000]

The log is zstd Parquet in eight files, in row groups of a quarter million rows, sorted by time. All jobs run in one
process, in turn; each keeps its best wall time. A bare scan decodes the same columns by pyarrow, with as many threads,
and computes nothing. What Polars takes for an expression is measured on columns in memory, with the types of the log.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import fastloss as fl
from benchmarks.logs import default_folder
from benchmarks.machine import available_cores, describe_machine

_GROUP_ROWS = 1 << 18
_OTHERS = 200


def write_log(folder: Path, n_rows: int) -> list[str]:
    """Write the log, unless it is there."""
    paths = [folder / f"part-{number}.parquet" for number in range(8)]
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(paths):
            random = np.random.default_rng([7, number])
            n = n_rows // 8
            logit = random.normal(-2.7, 1.2, n).astype(np.float32)
            # A month, cut into eight.
            seconds = np.sort(random.integers(number * 324_000, (number + 1) * 324_000, n))
            table = pa.table(
                {
                    "click": (random.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(np.int8),
                    "score": logit,
                    "position": random.integers(0, 50, n).astype(np.int32),
                    "country": pa.DictionaryArray.from_arrays(
                        pa.array(random.integers(0, 40, n).astype(np.int32)), pa.array(list(map(str, range(40))))
                    ),
                    "ts": pa.array(seconds * 1_000_000, pa.timestamp("us")),
                }
            )
            pq.write_table(table, path, compression="zstd", row_group_size=_GROUP_ROWS)
        (folder / "done").touch()
    return list(map(str, paths))


def write_hours(folder: Path, paths: list[str]) -> list[str]:
    """Write the log with the hour of each row beside."""
    found = [folder / Path(path).name for path in paths]
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for path, to in zip(paths, found, strict=True):
            table = pl.read_parquet(path).with_columns(hour=pl.col("ts").dt.truncate("1h")).to_arrow()
            pq.write_table(table, to, compression="zstd", row_group_size=_GROUP_ROWS)
        (folder / "done").touch()
    return list(map(str, found))


def write_wide(folder: Path, n_rows: int) -> tuple[str, str]:
    """Write a log of three columns, and the same with 200 others."""
    three, wide = folder / "three.parquet", folder / "wide.parquet"
    if not wide.exists():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(8)
        logit = random.normal(-2.7, 1.2, n_rows).astype(np.float32)
        label = (random.random(n_rows) < 0.1).astype(np.int8)
        table = pa.table({"click": label, "score": logit, "weight": random.random(n_rows, dtype=np.float32)})
        pq.write_table(table, three, compression="zstd", row_group_size=1_000_000)
        other = pa.array(random.integers(0, 9, n_rows))
        for number in range(_OTHERS):
            table = table.append_column(f"other_{number}", other)
        pq.write_table(table, wide, compression="zstd", row_group_size=1_000_000)
    return str(three), str(wide)


def write_small(folder: Path, n_files: int) -> str:
    """Write files of 200 rows."""
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(9)
        for number in range(n_files):
            table = pa.table({"click": (random.random(200) < 0.1).astype(np.int8), "score": random.normal(size=200)})
            pq.write_table(table, folder / f"{number:05}.parquet", compression="zstd")
        (folder / "done").touch()
    return str(folder)


def bare_scan(paths: list[str], columns: list[str]) -> Callable[[], None]:
    """Return a job that decodes columns and computes nothing."""
    text = [name for name in columns if name == "country"]

    def read(task: tuple[str, int]) -> None:
        path, number = task
        pq.ParquetFile(path, read_dictionary=text).read_row_group(number, columns=columns, use_threads=False)

    def run() -> None:
        tasks = [(path, number) for path in paths for number in range(pq.ParquetFile(path).num_row_groups)]
        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(read, tasks))

    return run


def in_memory(paths: list[str], column: str, expression: str) -> Callable[[], None]:
    """Return a job in which Polars evaluates an expression of a column that is in memory, with all its threads."""
    frame = pl.read_parquet(paths, columns=[column])
    query = frame.lazy().sql(f"SELECT ({expression}) AS found FROM self")

    def run() -> None:
        query.collect()

    return run


def main() -> None:
    """Print the figures and what is asked of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--small-files", type=int, default=3_000)
    given = parser.parse_args()
    folder = default_folder(given.rows, 8) / "expressions"
    paths = write_log(folder, given.rows)
    by_hour = write_hours(folder / "hours", paths)
    three, wide = write_wide(folder / "wide", min(given.rows // 8, 2_000_000))
    small = write_small(folder / f"small-{given.small_files}", given.small_files)
    small_files = sorted(map(str, Path(small).glob("*.parquet")))
    asked = {"label": "click", "logit": "score", "metrics": ["log_loss"]}

    def evaluate(log: str | list[str], **more: object) -> Callable[[], None]:
        return lambda: print(end="" if fl.evaluate(log, **{**asked, **more}).rows["read"] else " ")

    def polars_loss() -> None:
        x, y = pl.col("score").cast(pl.Float64), pl.col("click").cast(pl.Float64)
        loss = pl.max_horizontal(x, 0.0) - x * y + (1 + (-x.abs()).exp()).log()
        pl.scan_parquet(small_files).select(loss.mean()).collect()

    # One per cent of the month, at its end.
    last = "ts >= '1970-01-30 16:48:00'"
    hour = "date_trunc('hour', ts)"
    jobs: dict[str, Callable[[], None]] = {
        "log loss": evaluate(paths),
        "log loss where ts is in the last 1 %": evaluate(paths, where=last),
        "log loss where position < 5": evaluate(paths, where="position < 5"),
        "bare scan of click, score, position": bare_scan(paths, ["click", "score", "position"]),
        "Polars: position < 5, in memory": in_memory(paths, "position", "position < 5"),
        "log loss where country = '7'": evaluate(paths, where="country = '7'"),
        "bare scan of click, score, country": bare_scan(paths, ["click", "score", "country"]),
        "Polars: country = '7', in memory": in_memory(paths, "country", "country = '7'"),
        "log loss by the hour, as it is stored": evaluate(by_hour, by="hour"),
        "log loss by date_trunc('hour', ts)": evaluate(paths, by=[hour]),
        "Polars: date_trunc('hour', ts), in memory": in_memory(paths, "ts", hour),
        "bare scan of click, score, hour": bare_scan(by_hour, ["click", "score", "hour"]),
        "bare scan of click, score, ts": bare_scan(paths, ["click", "score", "ts"]),
        "three columns": evaluate(three, weight="weight"),
        "three columns beside 200 others": evaluate(wide, weight="weight"),
        f"{given.small_files:,} files of 200 rows": evaluate(small),
        f"Polars: {given.small_files:,} files of 200 rows": polars_loss,
    }
    best = dict.fromkeys(jobs, float("inf"))
    for turn in range(given.repeat + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    print(json.dumps(describe_machine(), indent=1))
    for name, seconds in best.items():
        print(f"{name:45} {seconds:8.3f} s")
    found = list(best.values())
    whole, sorted_where, where, scan, predicate, text_where, text_scan, text_predicate = found[:8]
    stored, derived, truncation, scan_hour, scan_ts, alone, beside, many, polars = found[8:]
    print()
    for name, ratio, bound in (
        ("where on the sorted column / whole", sorted_where / whole, 0.05),
        ("where on a number / (1.2 × bare scan + Polars)", where / (1.2 * scan + predicate), 1.0),
        ("where on a text / (1.2 × bare scan + Polars)", text_where / (1.2 * text_scan + text_predicate), 1.0),
        (
            "derived key beyond a stored one and its scan / Polars",
            (derived - stored - scan_ts + scan_hour) / truncation,
            1.15,
        ),
        ("200 columns beside 3 / the 3 alone", beside / alone, 1.0),
        ("small files / Polars", many / polars, 1.5),
    ):
        print(f"{name:54} {ratio:6.2f}   asked: at most {bound}")


if __name__ == "__main__":
    main()
