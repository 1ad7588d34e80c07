"""Times `fastloss.score` beside Polars: read label, logit and a key, write three float64 columns and the key.

For a log of several files and the same rows in a single file, and for two codecs, each job writes one output for each
input, in a process of its own. Polars reads and writes file by file, by ``scan_parquet`` and ``sink_parquet`` and by
``read_parquet`` and ``write_parquet``, with the codec's level that fastloss has; the faster counts. Its float columns
are once the same loss, gradient and hessian, by expressions, and once cheap products of the same entropy: about what
writing three columns costs when nothing need be computed.

What every job writes is read back and compared before anything is timed. The outputs of a round are removed before the
next one, untimed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import logs
from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown
from benchmarks.workers import Worker

CODECS = ("zstd", "snappy")
OUTPUTS = ("loss", "gradient", "hessian")
# pyarrow's, and so fastloss's; that of Polars is 3.
_ZSTD_LEVEL = 1

LIMIT = 1.5

Run = Callable[[], None]


def _fastloss(paths: Sequence[str], target: str, codec: str, key: str, reader: str) -> Run:
    import fastloss

    def run() -> None:
        fastloss.score(
            list(paths),
            target,
            label="click",
            logit="score",
            loss="log_loss",
            keep=key,
            compression=codec,
            reader=reader,
        )

    return run


def _same_values() -> list[Any]:
    import polars as pl

    x, y = pl.col("score").cast(pl.Float64), pl.col("click").cast(pl.Float64)
    e = (-x.abs()).exp()
    likely = 1.0 / (1.0 + e)
    unlikely = e * likely
    loss = x.clip(lower_bound=0.0) - x * y + e.log1p()
    gradient = pl.when(x > 0.0).then(likely).otherwise(unlikely) - y
    return [loss.alias("loss"), gradient.alias("gradient"), (likely * unlikely).alias("hessian")]


def _cheap_values() -> list[Any]:
    """Multiply by irrational numbers, which fill the mantissa with digits as incompressible as those of the losses."""
    import polars as pl

    x = pl.col("score").cast(pl.Float64)
    return [(x * factor).alias(name) for factor, name in zip((math.pi, math.e, math.sqrt(2.0)), OUTPUTS, strict=True)]


def _polars(
    expressions: Callable[[], list[Any]], streaming: bool, paths: Sequence[str], target: str, codec: str, key: str
) -> Run:
    import polars as pl

    columns = ["click", "score", key]
    written = {"compression": codec, "compression_level": _ZSTD_LEVEL if codec == "zstd" else None}
    selected = [pl.col(key), *expressions()]

    def run() -> None:
        Path(target).mkdir(parents=True, exist_ok=True)
        for path in paths:
            out = str(Path(target, Path(path).name))
            if streaming:
                pl.scan_parquet(path).select(selected).sink_parquet(out, **written)
            else:
                pl.read_parquet(path, columns=columns).select(selected).write_parquet(out, **written)

    return run


@dataclass(frozen=True)
class Job:
    """Something to time: ``prepare(paths, target, codec, key)`` returns what is timed; `values` tells what it writes.

    `values` is "own" for fastloss, "same" for what must agree with it, and "cheap" for columns that only cost as much
    to write.
    """

    name: str
    values: str
    prepare: Callable[[Sequence[str], str, str, str], Run]


_partial = functools.partial

# The first job is fastloss's own, with which the others are compared.
JOBS = (
    Job("fastloss", "own", _partial(_fastloss, reader="pyarrow")),
    Job('fastloss, reader="polars"', "same", _partial(_fastloss, reader="polars")),
    Job("Polars: the same values, scan and sink", "same", _partial(_polars, _same_values, True)),
    Job("Polars: the same values, read and write", "same", _partial(_polars, _same_values, False)),
    Job("Polars: cheap values, scan and sink", "cheap", _partial(_polars, _cheap_values, True)),
    Job("Polars: cheap values, read and write", "cheap", _partial(_polars, _cheap_values, False)),
)


def _compare(name: str, values: str, paths: Sequence[str], target: Path, own: Path, key: str) -> None:
    """Compare what a job wrote with what fastloss did; its own with the input's key."""
    import pyarrow.parquet as pq

    for path in paths:
        found = pq.read_table(target / Path(path).name)
        columns = [key, *OUTPUTS]
        if sorted(found.column_names) != sorted(columns):
            raise SystemExit(f"{name}: wrote the columns {found.column_names}.")
        if not found[key].equals(pq.read_table(path, columns=[key])[key]):
            raise SystemExit(f"{name}: the column {key!r} of {path!r} differs from the log's.")
        if values == "own":
            _check_values(name, found, path)
        if values != "same":
            continue
        expected = pq.read_table(own / Path(path).name)
        for column in OUTPUTS:
            _check_close(f"{name}: {column} of {path!r}", found[column].to_numpy(), expected[column].to_numpy())


def _check_values(name: str, found: Any, path: str) -> None:
    """Compare fastloss's own columns with NumPy's."""
    import pyarrow.parquet as pq

    log = pq.read_table(path, columns=["click", "score"])
    x, y = (log[column].to_numpy().astype(np.float64) for column in ("score", "click"))
    e = np.exp(-np.abs(x))
    p = np.where(x > 0.0, 1.0, e) / (1.0 + e)
    of_numpy = (np.maximum(x, 0.0) - x * y + np.log1p(e), p - y, e / (1.0 + e) ** 2)
    for column, expected in zip(OUTPUTS, of_numpy, strict=True):
        _check_close(f"{name}: {column} of {path!r}", found[column].to_numpy(), expected)


def _check_close(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    # An absolute error of 1e-15 is what p − y and x − x·y leave where the result is small.
    close = np.isclose(found, expected, rtol=1e-12, atol=1e-15)
    if not close.all():
        i = int(np.argmin(close))
        raise SystemExit(f"{what}, row {i}: {found[i]!r}, expected {expected[i]!r}.")


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n} files"


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.rglob("*.parquet"))


def measure_log(
    paths: Sequence[str], folder: Path, codecs: Sequence[str], key: str, repeat: int
) -> list[dict[str, Any]]:
    """Return the times of all jobs over a log, codec by codec."""
    has_polars = importlib.util.find_spec("polars") is not None
    jobs = [job for job in JOBS if has_polars or job.name == "fastloss"]
    entries = []
    for codec in codecs:
        own = folder / "own"
        workers, sizes, targets = [], [], []
        for number, job in enumerate(jobs):
            target = own if number == 0 else folder / f"job-{number}"
            worker = Worker(f"{job.name}, {codec}", _partial(job.prepare, paths, str(target), codec, key))
            worker.answer()
            _compare(worker.name, job.values, paths, target, own, key)
            sizes.append(_size(target))
            if number > 0:
                shutil.rmtree(target)
            workers.append(worker)
            targets.append(target)
            _say(f"checked: {_files(len(paths))}, {worker.name}")
        shutil.rmtree(own)
        for round_number in range(repeat):
            for worker, target in zip(workers, targets, strict=True):
                worker.time()
                shutil.rmtree(target)
            _say(f"{_files(len(paths))}, {codec}, round {round_number + 1} of {repeat}")
        for job, worker, size in zip(jobs, workers, sizes, strict=True):
            worker.end()
            entries.append(
                {
                    "files": len(paths),
                    "codec": codec,
                    "name": job.name,
                    "values": job.values,
                    "seconds": worker.seconds,
                    "cpu_seconds": worker.cpu_seconds,
                    "bytes": size,
                }
            )
    return entries


def _figures(entries: list[dict[str, Any]]) -> Any:
    for files, codec in dict.fromkeys((entry["files"], entry["codec"]) for entry in entries):
        here = [entry for entry in entries if (entry["files"], entry["codec"]) == (files, codec)]
        for values, said in (("same", "the same values"), ("cheap", "cheap values")):
            peers = [e["seconds"] for e in here if e["name"].startswith("Polars") and e["values"] == values]
            if peers:
                name = f"score / Polars, {said}: {_files(files)}, {codec}"
                yield figure(name, here[0]["seconds"] / min(peers), "<=", LIMIT, " ×")


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown tables."""
    parts = [
        headline(report["machine"], report["versions"]),
        f"{report['rows']:,} rows; log loss, gradient and hessian as float64 beside the key {report['key']!r}.",
    ]
    for files, codec in dict.fromkeys((entry["files"], entry["codec"]) for entry in report["jobs"]):
        here = [entry for entry in report["jobs"] if (entry["files"], entry["codec"]) == (files, codec)]
        rows = [
            [
                entry["name"],
                f"{entry['seconds']:.3f}",
                f"{entry['cpu_seconds']:.3f}",
                f"{report['rows'] / entry['seconds'] / 1e6:.1f}",
                f"{entry['bytes'] / 2**20:.0f}",
                f"{here[0]['seconds'] / entry['seconds']:.2f} ×",
            ]
            for entry in here
        ]
        title = f"{_files(files)}, {codec}"
        header = (title, "seconds", "CPU seconds", "Mrow/s", "MiB written", "fastloss's time to it")
        parts.append(markdown(header, rows))
    if report["missing"]:
        parts.append(f"Left out: {', '.join(report['missing'])} (not installed).")
    parts.append(figures_table(report["figures"]))
    return "\n\n".join(parts)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Write the logs if they are not there, measure, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16_000_000)
    parser.add_argument("--files", type=int, default=4, help="of the log of several files")
    parser.add_argument("--key", default="user_id", choices=("user_id", "country", "device"), help="column to keep")
    parser.add_argument("--codec", action="append", choices=CODECS, help="left out, all")
    parser.add_argument("--folder", type=Path, help="where outputs are written; left out, a temporary folder")
    parser.add_argument("--repeat", type=int, default=5, help="rounds, of which the best counts")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    entries = []
    with tempfile.TemporaryDirectory(prefix="fastloss-score-", dir=given.folder) as folder:
        for files in dict.fromkeys((given.files, 1)):
            paths = logs.write_log(logs.default_folder(given.rows, files), given.rows, files)
            entries += measure_log(paths, Path(folder), given.codec or CODECS, given.key, given.repeat)
    report = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "rows": given.rows,
        "key": given.key,
        "repeat": given.repeat,
        "jobs": entries,
        "missing": [] if importlib.util.find_spec("polars") else ["Polars"],
        "figures": list(_figures(entries)),
    }
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(render(report))


if __name__ == "__main__":
    main()
