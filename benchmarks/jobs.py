"""The jobs that `benchmarks.scan` times: bare scans, log loss by fastloss and by other tools, six sliced metrics.

A job is a function of the log's files that prepares and returns ``run() -> answer``. Only `run` is timed; it opens
the files anew. The formulas of other tools are the stable ones a careful user would write: −log p of the true label
as max(x, 0) − x·y + log1p(e^−|x|).
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.machine import available_cores

Answer = Any
Run = Callable[[], Answer]

LOSS_COLUMNS = ("click", "score")
METRIC_COLUMNS = ("click", "score", "score_b", "weight", "country")
MODELS = {"a": "score", "b": "score_b"}
METRICS = ("log_loss", "normalized_entropy", "brier_score", "calibration", "ctr", "mean_prediction")
# Small enough for the buffers of one piece to stay in the cache.
PIECE_ROWS = 65_536


@dataclass(frozen=True)
class Job:
    """Something to time.

    Attributes
    ----------
    group : str
        Jobs of one group give the same answer: rows for scans, the mean log loss, or all values of all slices.
    name : str
        What the table calls it.
    prepare : callable
        Takes the files, returns `run`.
    decoder : str or None
        Who decodes the columns; ratios are taken to the fastest bare scan by the same one.
    tolerance : float
        Largest relative difference from fastloss's answer: 1e-12 where the tool computes in float64, 1e-6 in float32.
    needs : str or None
        The module without which the job is left out.
    in_memory : bool
        Whether it needs its rows in memory, and so runs on as many files as fit.
    """

    group: str
    name: str
    prepare: Callable[[Sequence[str]], Run]
    decoder: str | None = None
    tolerance: float = 1e-12
    needs: str | None = None
    in_memory: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether the module it needs can be imported."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


# ---------------------------------------------------------------------------------------------------------------
# Readers: threads of our own over row groups, as fastloss has them, with nothing else around


def _row_groups(paths: Sequence[str]) -> Iterator[tuple[str, Any, int, int]]:
    import pyarrow.parquet as pq

    for path in paths:
        footer = pq.read_metadata(path)
        first = 0
        for group in range(footer.num_row_groups):
            yield path, footer, group, first
            first += footer.row_group(group).num_rows


def on_threads(paths: Sequence[str], work: Callable[[str, Any, int, int], None]) -> None:
    tasks = _row_groups(paths)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            while True:
                with lock:
                    task = next(tasks, None)
                if task is None:
                    return
                work(*task)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(available_cores())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def read_pyarrow(path: str, footer: Any, group: int, columns: Sequence[str], mapped: bool = False) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = [name for name in columns if name == "country"]
    with (
        pa.memory_map(path) if mapped else pa.OSFile(path) as handle,
        pq.ParquetFile(handle, metadata=footer, pre_buffer=False, read_dictionary=keys) as file,
    ):
        return file.read_row_group(group, columns=list(columns), use_threads=False)


def scan_pyarrow(columns: Sequence[str], mapped: bool, paths: Sequence[str]) -> Run:
    """Decode by pyarrow, one row group at a time on each thread; strings as dictionaries."""

    def run() -> int:
        rows = []

        def work(path: str, footer: Any, group: int, first: int) -> None:
            rows.append(read_pyarrow(path, footer, group, columns, mapped).num_rows)

        on_threads(paths, work)
        return sum(rows)

    return run


def scan_polars_row_groups(columns: Sequence[str], paths: Sequence[str]) -> Run:
    """Decode by Polars, one row group at a time on each thread."""
    import polars as pl

    def run() -> int:
        rows = []

        def work(path: str, footer: Any, group: int, first: int) -> None:
            n = footer.row_group(group).num_rows
            part = pl.scan_parquet(path, parallel="none").select(columns).slice(first, n)
            rows.append(part.collect(engine="in-memory").height)

        on_threads(paths, work)
        return sum(rows)

    return run


def scan_polars(columns: Sequence[str], paths: Sequence[str]) -> Run:
    """Decode by Polars' streaming engine, one call over all files, batches in any order."""
    import polars as pl

    def run() -> int:
        batches = pl.scan_parquet(list(paths)).select(columns).collect_batches(maintain_order=False)
        return sum(batch.height for batch in batches)

    return run


def scan_duckdb(columns: Sequence[str], paths: Sequence[str]) -> Run:
    """Decode by DuckDB: sums of the columns, which no statistics can answer and which add little to the decoding.

    Fetching the rows as record batches instead would time the hand-over to one consumer.
    """
    import duckdb

    sums = ", ".join(f"sum({name})" for name in columns)

    def run() -> int:
        with duckdb.connect() as connection:
            count, *_ = connection.execute(f"SELECT count(*), {sums} FROM {_duckdb_files(paths)}").fetchone()
        return int(count)

    return run


def _duckdb_files(paths: Sequence[str]) -> str:
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{quoted}])"


# ---------------------------------------------------------------------------------------------------------------
# Log loss


def log_loss_fastloss(reader: str, paths: Sequence[str]) -> Run:
    """Evaluate by fastloss: float64, exact sums, checks of every row."""
    import fastloss

    def run() -> float:
        result = fastloss.evaluate(list(paths), label="click", logit="score", metrics=["log_loss"], reader=reader)
        return float(result["log_loss"])

    return run


def _softplus_polars(score: Any, label: Any) -> Any:
    return score.clip(lower_bound=0.0) - score * label + (-score.abs()).exp().log1p()


def log_loss_polars(dtype: str, paths: Sequence[str]) -> Run:
    """Evaluate by a Polars expression on its streaming engine."""
    import polars as pl

    kind = getattr(pl, dtype)
    loss = _softplus_polars(pl.col("score").cast(kind), pl.col("click").cast(kind))

    def run() -> float:
        return float(pl.scan_parquet(list(paths)).select(loss.mean()).collect(engine="streaming").item())

    return run


def _softplus_duckdb(score: str) -> str:
    x = f"{score}::DOUBLE"
    return f"greatest({x}, 0) - {x} * click + ln(1 + exp(-abs({x})))"


def log_loss_duckdb(paths: Sequence[str]) -> Run:
    """Evaluate by DuckDB SQL."""
    import duckdb

    query = f"SELECT avg({_softplus_duckdb('score')}) FROM {_duckdb_files(paths)}"

    def run() -> float:
        with duckdb.connect() as connection:
            return float(connection.execute(query).fetchone()[0])

    return run


def _sum_of_pieces(paths: Sequence[str], loss_sum: Callable[[Any, Any], float]) -> float:
    sums, rows = [], []

    def work(path: str, footer: Any, group: int, first: int) -> None:
        table = read_pyarrow(path, footer, group, LOSS_COLUMNS)
        for batch in table.to_batches(max_chunksize=PIECE_ROWS):
            sums.append(loss_sum(batch.column(1).to_numpy(), batch.column(0).to_numpy()))
            rows.append(batch.num_rows)

    on_threads(paths, work)
    return sum(sums) / sum(rows)


def log_loss_numpy(paths: Sequence[str]) -> Run:
    """Evaluate by NumPy in float64 over pieces of pyarrow's row groups, on the same threads as the bare scan."""
    import numpy as np

    def loss_sum(score: Any, label: Any) -> float:
        x = score.astype(np.float64)
        return float((np.maximum(x, 0.0) - x * label + np.log1p(np.exp(-np.abs(x)))).sum())

    return functools.partial(_sum_of_pieces, paths, loss_sum)


def log_loss_torch(paths: Sequence[str]) -> Run:
    """Evaluate by PyTorch in float64 over pieces of pyarrow's row groups, on the same threads as the bare scan."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    function = torch.nn.functional.binary_cross_entropy_with_logits

    def loss_sum(score: Any, label: Any) -> float:
        x = torch.from_numpy(score.astype(np.float64))
        return float(function(x, torch.from_numpy(label.astype(np.float64)), reduction="sum"))

    return functools.partial(_sum_of_pieces, paths, loss_sum)


def _read_probabilities(paths: Sequence[str]) -> tuple[Any, Any]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from scipy.special import expit

    table = pa.concat_tables([pq.read_table(path, columns=list(LOSS_COLUMNS)) for path in paths])
    return table["click"].to_numpy(), expit(table["score"].to_numpy().astype(np.float64))


def log_loss_sklearn(paths: Sequence[str]) -> Run:
    """Evaluate by scikit-learn from the files: read, probabilities by expit, log_loss."""
    from sklearn.metrics import log_loss

    return lambda: float(log_loss(*_read_probabilities(paths)))


def log_loss_sklearn_arrays(paths: Sequence[str]) -> Run:
    """Evaluate by scikit-learn alone: labels and probabilities are arrays in memory already."""
    from sklearn.metrics import log_loss

    label, probability = _read_probabilities(paths)
    return lambda: float(log_loss(label, probability))


# ---------------------------------------------------------------------------------------------------------------
# Six metrics of two models, weighted, by country: the values of all countries, in order, as one flat list


def metrics_fastloss(reader: str, paths: Sequence[str]) -> Run:
    """Evaluate everything by fastloss in one pass."""
    import fastloss

    def run() -> list[float]:
        result = fastloss.evaluate(
            list(paths),
            label="click",
            logit=MODELS,
            weight="weight",
            metrics=list(METRICS),
            by=["country"],
            reader=reader,
        )
        return flatten_metrics(result.to_dict()["values"])

    return run


def flatten_metrics(values: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the values of all countries, in order, from those of a result as plain values."""
    found = {(v["slice"]["country"], v["model"], v["metric"]): v["value"] for v in values if v["slice"]}
    countries = sorted({country for country, _, _ in found})
    return [found[country, model, name] for country in countries for model in MODELS for name in METRICS]


def largest_difference(found: Any, expected: Any) -> float:
    """Return the largest relative difference of two numbers or two lists of numbers."""
    if not isinstance(expected, list):
        found, expected = [found], [expected]
    if len(found) != len(expected):
        return float("inf")
    return max(abs(f - e) / abs(e) for f, e in zip(found, expected, strict=True))


def _finish_metrics(rows: Iterable[Sequence[Any]]) -> list[float]:
    """Turn (country, Σw, Σwy, then for each model Σwl, Σwp, Σw(p − y)²) into the list of values."""
    import math

    values = []
    for _, weight, clicks, *sums in sorted(rows):
        rate = clicks / weight
        entropy = -(rate * math.log(rate) + (1.0 - rate) * math.log1p(-rate))
        for model in range(len(MODELS)):
            loss, predicted, squared = sums[3 * model : 3 * model + 3]
            mean = loss / weight
            values += [mean, mean / entropy, squared / weight, predicted / clicks, rate, predicted / weight]
    return values


def metrics_polars(paths: Sequence[str]) -> Run:
    """Evaluate everything by Polars expressions in float64 on its streaming engine."""
    import polars as pl

    weight, label = pl.col("weight").cast(pl.Float64), pl.col("click").cast(pl.Float64)
    sums = [weight.sum().alias("weight"), (weight * label).sum().alias("clicks")]
    for model, column in MODELS.items():
        score = pl.col(column).cast(pl.Float64)
        probability = 1.0 / (1.0 + (-score).exp())
        sums += [
            (weight * _softplus_polars(score, label)).sum().alias(f"loss_{model}"),
            (weight * probability).sum().alias(f"predicted_{model}"),
            (weight * (probability - label) ** 2).sum().alias(f"squared_{model}"),
        ]

    def run() -> list[float]:
        frame = pl.scan_parquet(list(paths)).group_by("country").agg(sums).collect(engine="streaming")
        return _finish_metrics(frame.iter_rows())

    return run


def metrics_duckdb(paths: Sequence[str]) -> Run:
    """Evaluate everything by DuckDB SQL."""
    import duckdb

    sums = ["sum(weight::DOUBLE)", "sum(weight::DOUBLE * click)"]
    for column in MODELS.values():
        probability = f"1 / (1 + exp(-{column}::DOUBLE))"
        sums += [
            f"sum(weight::DOUBLE * ({_softplus_duckdb(column)}))",
            f"sum(weight::DOUBLE * ({probability}))",
            f"sum(weight::DOUBLE * ({probability} - click) ** 2)",
        ]
    query = f"SELECT country, {', '.join(sums)} FROM {_duckdb_files(paths)} GROUP BY country"

    def run() -> list[float]:
        with duckdb.connect() as connection:
            return _finish_metrics(connection.execute(query).fetchall())

    return run


SCAN = "bare scan of click, score"
LOG_LOSS = "log loss"
METRIC_SCAN = "bare scan of click, score, score_b, weight, country"
SIX_METRICS = "six metrics × two models × 40 countries, weighted"

_partial = functools.partial

# The first job of a group of answers is fastloss's own, with which the others are compared.
JOBS = (
    Job(SCAN, "pyarrow, by row group", _partial(scan_pyarrow, LOSS_COLUMNS, False), "pyarrow"),
    Job(SCAN, "pyarrow, by row group, mapped", _partial(scan_pyarrow, LOSS_COLUMNS, True), "pyarrow"),
    Job(SCAN, "Polars, by row group", _partial(scan_polars_row_groups, LOSS_COLUMNS), "polars"),
    Job(SCAN, "Polars, streaming", _partial(scan_polars, LOSS_COLUMNS), "polars"),
    Job(SCAN, "DuckDB", _partial(scan_duckdb, LOSS_COLUMNS), "duckdb", needs="duckdb"),
    Job(LOG_LOSS, "fastloss", _partial(log_loss_fastloss, "pyarrow"), "pyarrow"),
    Job(LOG_LOSS, 'fastloss, reader="polars"', _partial(log_loss_fastloss, "polars"), "polars", tolerance=0.0),
    Job(LOG_LOSS, "Polars expression", _partial(log_loss_polars, "Float64"), "polars"),
    Job(LOG_LOSS, "Polars expression, float32", _partial(log_loss_polars, "Float32"), "polars", 1e-6),
    Job(LOG_LOSS, "NumPy over pyarrow batches", log_loss_numpy, "pyarrow"),
    Job(LOG_LOSS, "PyTorch over pyarrow batches", log_loss_torch, "pyarrow", needs="torch"),
    Job(LOG_LOSS, "DuckDB SQL", log_loss_duckdb, "duckdb", needs="duckdb"),
    Job(LOG_LOSS, "scikit-learn, from the files", log_loss_sklearn, needs="sklearn", in_memory=True),
    Job(LOG_LOSS, "scikit-learn, arrays ready", log_loss_sklearn_arrays, needs="sklearn", in_memory=True),
    Job(METRIC_SCAN, "pyarrow, by row group", _partial(scan_pyarrow, METRIC_COLUMNS, False), "pyarrow"),
    Job(METRIC_SCAN, "pyarrow, by row group, mapped", _partial(scan_pyarrow, METRIC_COLUMNS, True), "pyarrow"),
    Job(METRIC_SCAN, "Polars, by row group", _partial(scan_polars_row_groups, METRIC_COLUMNS), "polars"),
    Job(METRIC_SCAN, "Polars, streaming", _partial(scan_polars, METRIC_COLUMNS), "polars"),
    Job(SIX_METRICS, "fastloss", _partial(metrics_fastloss, "pyarrow"), "pyarrow"),
    Job(SIX_METRICS, 'fastloss, reader="polars"', _partial(metrics_fastloss, "polars"), "polars", tolerance=0.0),
    Job(SIX_METRICS, "Polars expressions", metrics_polars, "polars"),
    Job(SIX_METRICS, "DuckDB SQL", metrics_duckdb, needs="duckdb"),
)
