"""Times metrics of groups beside Polars, DuckDB and ranx: from shuffled Parquet, from grouped Parquet, on lists.

    python -m benchmarks.groups [--parts users growth grouped lists slices memory] [--rows 40000000]

- users: GAUC by impressions and NDCG@10 of each user, from a shuffled log of 25 impressions a user on average. The
  peers rank the rows of each user and break ties as they come, as a good user would write it to be fast; one job of
  Polars has average ranks. Their NDCG@10 and fastloss's differ at most by such ties.
- growth: the same by fastloss on five times the rows; its time a row beside that of `users`.
- grouped: the same by fastloss where the rows of a user are adjacent, beside the bare scan of the three columns.
- lists: six metrics of lists of 100 candidates in memory, beside ranx on its own data, which it has sorted before.
- slices: log loss and calibration of five million values of a key, to a Parquet file, beside Polars' group_by.
- memory: the peak where one user has a tenth of the rows, where there are 20 million groups, and where the key is a
  text of 200 bytes.

Each job runs in a process of its own: the first answer is checked, and the most memory that the process has had by
then counts, imports and all; the best of further rounds gives the times.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import math
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import jobs, logs
from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline, markdown
from benchmarks.workers import Worker

Answer = dict[str, float]
Run = Callable[[], Answer]
COLUMNS = ("user_id", "click", "score")
ROWS_OF_A_USER = 25
TOP = 10
SCAN, FASTLOSS = "bare scan", "fastloss"
LIST_METRICS = ("ndcg@10", "map@10", "mrr@10", "precision@10", "recall@10", "hit_rate@10")
CANDIDATES = 100
# The bound of what comes on top of the imported libraries. It is not reached where tasks are small.
MEMORY = "800MiB"
_DISCOUNTS = 1.0 / np.log2(np.arange(TOP) + 2.0)
# DCG@10 of a list whose first n candidates are its positives, for n from 0.
_IDEAL = [0.0, *np.cumsum(_DISCOUNTS).tolist()]


@dataclass(frozen=True)
class Job:
    """Something to time.

    Attributes
    ----------
    name : str
        What the table calls it.
    prepare : callable
        Takes the files, returns `run`.
    tolerance : float
        Largest difference from the answer of the first job that has one.
    needs : str or None
        The module without which the job is left out.
    """

    name: str
    prepare: Callable[[Sequence[str]], Run]
    tolerance: float = 0.0
    needs: str | None = None

    @property
    def is_installed(self) -> bool:
        """Whether the module it needs can be imported."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


# ---------------------------------------------------------------------------------------------------------------
# By user, from Parquet


def bare_scan(paths: Sequence[str]) -> Run:
    scan = jobs.scan_pyarrow(COLUMNS, False, paths)

    def run() -> Answer:
        scan()
        return {}

    return run


def fastloss_users(paths: Sequence[str], group: str = "user_id", **options: Any) -> Run:
    import fastloss as fl

    def run() -> Answer:
        metrics = ["gauc", "ndcg@10"]
        found = fl.evaluate(list(paths), label="click", logit="score", group=group, metrics=metrics, **options)
        return {name: found[name] for name in metrics}

    return run


def _finish_polars(users: Any) -> Any:
    """Return GAUC and NDCG@10 from n, p, the positives' places from 0, and DCG@10 of each user."""
    import polars as pl

    n, p = pl.col("n"), pl.col("p")
    # Of all pairs of a positive with any other row, those in which the positive stands before.
    auc = (p * n - pl.col("places") - p * (p + 1) / 2) / (p * (n - p))
    both = (p > 0) & (p < n)
    ideal = p.clip(0, TOP).replace_strict(range(TOP + 1), _IDEAL, return_dtype=pl.Float64)
    return users.select(
        (auc * n).filter(both).sum() / n.filter(both).sum(), (pl.col("dcg") / ideal).filter(p > 0).mean()
    )


def _rank_over(log: Any) -> Any:
    """Rank by a window over the user, then sum by user."""
    import polars as pl

    place = pl.col("score").rank("ordinal", descending=True).over("user_id").cast(pl.Int64) - 1
    return _sum_by_user(log.with_columns(place=place))


def _sort(log: Any) -> Any:
    """Sort by user and score; a row's place is its number less that of its user's first row."""
    import polars as pl

    place = pl.int_ranges(pl.col("user_id").rle().struct.field("len")).explode()
    return _sum_by_user(log.sort("user_id", "score", descending=[False, True]).with_columns(place=place))


def _sum_by_user(ranked: Any) -> Any:
    import polars as pl

    positive, place = pl.col("click") == 1, pl.col("place")
    discount = 1.0 / (place + 2).cast(pl.Float64).log(2)
    return ranked.group_by("user_id").agg(
        n=pl.len().cast(pl.Int64),
        p=pl.col("click").cast(pl.Int64).sum(),
        places=place.filter(positive).sum(),
        dcg=pl.when(positive & (place < TOP)).then(discount).otherwise(0.0).sum(),
    )


def _rank_within(log: Any) -> Any:
    """Rank and sort inside the aggregation of each user; the positives' ranks are average ranks."""
    import polars as pl

    clicks = pl.col("click").cast(pl.Int64)
    clicked = (pl.col("click").sort_by("score", descending=True) == 1).arg_true()
    ranks = pl.col("score").rank("average").filter(pl.col("click") == 1).sum()
    return log.group_by("user_id").agg(
        n=pl.len().cast(pl.Int64),
        p=clicks.sum(),
        places=pl.len().cast(pl.Int64) * clicks.sum() - ranks,
        dcg=(1.0 / (clicked.filter(clicked < TOP) + 2).cast(pl.Float64).log(2)).sum(),
    )


_POLARS = {"over": _rank_over, "sort": _sort, "average ranks in group_by": _rank_within}


def polars_users(paths: Sequence[str], form: str, engine: str) -> Run:
    import polars as pl

    def run() -> Answer:
        gauc, ndcg = _finish_polars(_POLARS[form](pl.scan_parquet(list(paths)))).collect(engine=engine).row(0)
        return {"gauc": gauc, "ndcg@10": ndcg}

    return run


def duckdb_users(paths: Sequence[str]) -> Run:
    import duckdb

    files = ", ".join(f"'{path}'" for path in paths)
    query = f"""
        WITH ranked AS (
            SELECT user_id, click, row_number() OVER (PARTITION BY user_id ORDER BY score DESC) - 1 AS place
            FROM read_parquet([{files}])
        ), users AS (
            SELECT count(*) AS n, sum(click)::BIGINT AS p, sum(place) FILTER (click = 1) AS places,
                coalesce(sum(1 / log2(place + 2)) FILTER (click = 1 AND place < {TOP}), 0) AS dcg
            FROM ranked GROUP BY user_id
        )
        SELECT
            sum(n * ((p * n - places - p * (p + 1) / 2) / (p * (n - p)))) FILTER (p > 0 AND p < n)
                / sum(n) FILTER (p > 0 AND p < n),
            avg(dcg / ({_IDEAL})[least(p, {TOP}) + 1]) FILTER (p > 0)
        FROM users"""

    def run() -> Answer:
        with duckdb.connect() as connection:
            connection.execute("SET preserve_insertion_order = false")
            gauc, ndcg = connection.execute(query).fetchall()[0]
        return {"gauc": gauc, "ndcg@10": ndcg}

    return run


# A tie of a positive and a negative moves the value of one user among many.
_TIES = 1e-7
USERS = (
    Job(SCAN, bare_scan),
    Job(FASTLOSS, functools.partial(fastloss_users, memory=MEMORY)),
    Job("fastloss, default memory", fastloss_users),
    *(
        Job(f"Polars, {form}, {engine}", functools.partial(polars_users, form=form, engine=engine), tolerance)
        for form, tolerance in (("over", _TIES), ("sort", _TIES), ("average ranks in group_by", 1e-9))
        for engine in ("streaming", "in-memory")
    ),
    Job("DuckDB", duckdb_users, _TIES, needs="duckdb"),
)
GROWTH = (Job(SCAN, bare_scan), Job(FASTLOSS, functools.partial(fastloss_users, memory=MEMORY)))
GROUPED = (
    Job(SCAN, bare_scan),
    Job("fastloss, recognised", fastloss_users),
    Job("fastloss, promised", functools.partial(fastloss_users, group_sorted=True)),
)


# ---------------------------------------------------------------------------------------------------------------
# Lists in memory


def make_lists(queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels of lists of 100 candidates, each with a positive; no two scores are equal."""
    random = np.random.default_rng(5)
    score = random.standard_normal((queries, CANDIDATES))
    label = random.random((queries, CANDIDATES)) < 1.0 / (1.0 + np.exp(2.7 - score))
    label[:, 0] |= ~label.any(axis=1)
    return score, label.astype(np.int8)


def fastloss_lists(queries: Sequence[int]) -> Run:
    import pyarrow as pa

    import fastloss as fl

    score, label = make_lists(queries[0])
    offsets = pa.array(np.arange(queries[0] + 1, dtype=np.int32) * CANDIDATES)
    columns = {"score": score, "label": label}
    table = pa.table({k: pa.ListArray.from_arrays(offsets, pa.array(v.ravel())) for k, v in columns.items()})

    def run() -> Answer:
        found = fl.evaluate(table, label="label", logit="score", metrics=list(LIST_METRICS))
        return {name: found[name] for name in LIST_METRICS}

    return run


def ranx_lists(queries: Sequence[int], converted: bool) -> Run:
    import warnings

    import ranx

    warnings.simplefilter("ignore")
    score, label = make_lists(queries[0])
    names = [f"d{i}" for i in range(CANDIDATES)]
    positives = ({names[j]: 1 for j in np.flatnonzero(row)} for row in label)
    qrels = ranx.Qrels({f"q{i:08d}": found for i, found in enumerate(positives)})
    given = ranx.Run({f"q{i:08d}": dict(zip(names, row.tolist(), strict=True)) for i, row in enumerate(score)})
    inputs = (qrels.to_typed_list(), given.to_typed_list()) if converted else (qrels, given)

    def run() -> Answer:
        found = ranx.evaluate(*inputs, list(LIST_METRICS), save_results_in_run=False)
        return {name: float(found[name]) for name in LIST_METRICS}

    return run


LISTS = (
    Job(FASTLOSS, fastloss_lists),
    Job("ranx, Qrels and Run", functools.partial(ranx_lists, converted=False), 1e-12, needs="ranx"),
    Job("ranx, its sorted arrays ready", functools.partial(ranx_lists, converted=True), 1e-12, needs="ranx"),
)


# ---------------------------------------------------------------------------------------------------------------
# Slices of a key with millions of values


def fastloss_slices(paths: Sequence[str], memory: str) -> Run:
    import polars as pl

    from fastloss.cli import main

    def run() -> Answer:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            words = ["eval", *paths, "--label", "click", "--logit", "score", "-m", "log_loss,calibration"]
            words += ["--by", "user_id", "--wide", "--memory", memory, "--output", file.name]
            if main(words) != 0:
                raise SystemExit("fastloss eval failed")
            # The total stands first.
            return _sum_up(
                pl.scan_parquet(file.name).filter(pl.col("slice.user_id").is_not_null()).rename({"n": "len"})
            )

    return run


def polars_slices(paths: Sequence[str], engine: str) -> Run:
    import polars as pl

    def run() -> Answer:
        x, y = pl.col("score").cast(pl.Float64), pl.col("click").cast(pl.Float64)
        loss = pl.max_horizontal(x, 0.0) - x * y + (-x.abs()).exp().log1p()
        sums = (
            pl.scan_parquet(list(paths))
            .group_by("user_id")
            .agg(pl.len(), loss=loss.sum(), predicted=(1.0 / (1.0 + (-x).exp())).sum(), clicks=y.sum())
        )
        means = sums.select(
            "user_id",
            "len",
            log_loss=pl.col("loss") / pl.col("len"),
            calibration=pl.col("predicted") / pl.col("clicks"),
        )
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            if engine == "streaming":
                means.sink_parquet(file.name)
            else:
                means.collect(engine=engine).write_parquet(file.name)
            return _sum_up(pl.scan_parquet(file.name))

    return run


def _sum_up(written: Any) -> Answer:
    """Return what tells a file of values by slice from a wrong one."""
    import polars as pl

    names = ("rows", "log_loss", "calibration")
    weight = pl.col("len")
    calibrated = pl.col("calibration").is_finite()
    found = written.select(
        pl.len(),
        (pl.col("log_loss") * weight).sum() / weight.sum(),
        pl.col("calibration").filter(calibrated).mean(),
    )
    return dict(zip(names, map(float, found.collect().row(0)), strict=True))


SLICES = (
    Job(FASTLOSS, functools.partial(fastloss_slices, memory="840MiB"), 1e-9),
    Job("Polars, streaming", functools.partial(polars_slices, engine="streaming"), 1e-9),
    Job("Polars, in-memory", functools.partial(polars_slices, engine="in-memory"), 1e-9),
)


# ---------------------------------------------------------------------------------------------------------------
# Measuring


def _with_peak(job: Job, paths: Sequence[Any]) -> Callable[[], tuple[Answer, int]]:
    """Prepare a job whose answer ends in the most memory that its process has had."""
    run = job.prepare(paths)

    def run_and_look() -> tuple[Answer, int]:
        answer = run()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return answer, peak if sys.platform == "darwin" else peak << 10

    return run_and_look


def measure(some: Sequence[Job], paths: Sequence[Any], repeat: int) -> list[dict[str, Any]]:
    """Return each job's times, peak and answer, which is compared with the first."""
    measured: list[dict[str, Any]] = []
    expected: Answer = {}
    tolerance = 0.0
    for job in some:
        if not job.is_installed:
            print(f"left out: {job.name} ({job.needs} is not installed)", file=sys.stderr)
            continue
        worker = Worker(job.name, functools.partial(_with_peak, job, paths))
        # Compiles, and fills the system's cache of the files.
        (answer, peak), worker.seconds, worker.cpu_seconds = worker.answer()
        if repeat:
            worker.seconds = math.inf
        for _ in range(repeat):
            worker.time()
        worker.end()
        if answer and not expected:
            expected, tolerance = answer, job.tolerance
        for name, value in answer.items():
            if not math.isclose(value, expected[name], rel_tol=max(job.tolerance, tolerance)):
                raise SystemExit(f"{job.name}: {name} is {value!r}, not {expected[name]!r}.")
        measured.append({"job": job.name, "answer": answer, "seconds": worker.seconds})
        measured[-1] |= {"cpu_seconds": worker.cpu_seconds, "peak": peak}
        print(f"measured: {job.name}", file=sys.stderr, flush=True)
    return measured


def _paths(name: str, log: logs.Impressions) -> list[str]:
    files = min(8, math.ceil(log.rows / logs.CHUNK_ROWS))
    return logs.write_impressions(logs.default_folder(log.rows, files) / name, log, files)


def _by_user(rows: int, grouped: bool = False) -> list[str]:
    log = logs.Impressions(rows, rows // ROWS_OF_A_USER, COLUMNS, grouped)
    return _paths("impressions-grouped" if grouped else "impressions", log)


def _seconds(entries: Sequence[dict[str, Any]], start: str) -> float | None:
    """Return the least time of the jobs whose names start so, None where there is none."""
    return min((entry["seconds"] for entry in entries if entry["job"].startswith(start)), default=None)


def _ratio(
    name: str, above: float | None, below: float | None, relation: str, limit: float
) -> Iterator[dict[str, Any]]:
    if above is not None and below is not None:
        yield figure(name, above / below, relation, limit, " ×")


def _peak(name: str, entries: Sequence[dict[str, Any]], limit: int) -> Iterator[dict[str, Any]]:
    for entry in entries:
        if entry["job"].startswith(FASTLOSS):
            yield figure(f"{name}: peak of {entry['job']}", entry["peak"] / 2**20, "<=", limit, " MiB")


@dataclass(frozen=True)
class Part:
    """A table and its figures."""

    title: str
    entries: list[dict[str, Any]]
    figures: list[dict[str, Any]]


def users(given: argparse.Namespace) -> Part:
    entries = measure(_named(USERS, given), _by_user(given.rows), given.repeat)
    own = _seconds(entries, FASTLOSS)
    figures = [
        *_ratio("users: best of Polars / fastloss", _seconds(entries, "Polars"), own, ">=", 5),
        *_ratio("users: DuckDB / fastloss", _seconds(entries, "DuckDB"), own, ">=", 8),
        *_peak("users", entries, 700),
    ]
    return Part(f"{given.rows:,} rows of {given.rows // ROWS_OF_A_USER:,} users, shuffled", entries, figures)


def growth(given: argparse.Namespace) -> Part:
    sizes = (given.rows, given.growth * given.rows)
    entries: list[dict[str, Any]] = []
    for rows in sizes:
        measured = measure(_named(GROWTH, given), _by_user(rows), given.repeat)
        entries += [entry | {"job": f"{entry['job']}, {rows:,} rows"} for entry in measured]
    few, many = (_seconds(entries, f"{FASTLOSS}, {rows:,} rows") for rows in sizes)
    many_as_few = None if many is None else many / given.growth
    name = f"growth: time a row, {sizes[1]:,} rows / {sizes[0]:,}"
    figures = [*_ratio(name, many_as_few, few, "<=", 1.3), *_peak("growth", entries, 1024)]
    return Part(f"Shuffled, by user, memory={MEMORY!r}", entries, figures)


def grouped(given: argparse.Namespace) -> Part:
    entries = measure(_named(GROUPED, given), _by_user(given.rows, grouped=True), given.repeat)
    scan = _seconds(entries, SCAN)
    figures: list[dict[str, Any]] = []
    for how in ("recognised", "promised"):
        name = f"{FASTLOSS}, {how}"
        figures += _ratio(f"grouped: {name} / {SCAN}", _seconds(entries, name), scan, "<=", 2)
    return Part(f"{given.rows:,} rows, those of a user adjacent", entries, figures)


def lists(given: argparse.Namespace) -> Part:
    entries = measure(_named(LISTS, given), [given.queries], given.repeat)
    own = _seconds(entries, FASTLOSS)
    figures = [*_ratio("lists: ranx / fastloss", _seconds(entries, "ranx, Qrels and Run"), own, ">=", 3)]
    return Part(f"{given.queries:,} lists of {CANDIDATES} candidates: {', '.join(LIST_METRICS)}", entries, figures)


def slices(given: argparse.Namespace) -> Part:
    log = logs.Impressions(given.rows, given.rows // 8, COLUMNS)
    entries = measure(_named(SLICES, given), _paths("impressions-many-users", log), given.repeat)
    ratio = _ratio(
        "slices: best of Polars / fastloss", _seconds(entries, "Polars"), _seconds(entries, FASTLOSS), ">=", 2
    )
    title = f"{given.rows:,} rows, log loss and calibration of {log.users:,} users, to Parquet"
    return Part(title, entries, [*ratio, *_peak("slices", entries, 1024)])


def memory(given: argparse.Namespace) -> Part:
    rows, users = given.rows, given.rows // ROWS_OF_A_USER
    of_request = functools.partial(fastloss_users, group="request_id")
    cases = {
        "a user with a tenth of the rows": (
            "impressions-skewed",
            logs.Impressions(rows, users, COLUMNS, first_share=0.1),
            fastloss_users,
        ),
        "half as many users as rows": (
            "impressions-few-of-a-user",
            logs.Impressions(rows, rows // 2, COLUMNS),
            fastloss_users,
        ),
        "a key of 200 bytes": (
            "impressions-long-keys",
            logs.Impressions(rows // 4, users, ("request_id", "click", "score"), request_bytes=200),
            of_request,
        ),
    }
    entries: list[dict[str, Any]] = []
    for name, (folder, log, prepare) in cases.items():
        some = _named([Job(f"{FASTLOSS}, {name}, {log.rows:,} rows", prepare)], given)
        entries += measure(some, _paths(folder, log), 0) if some else []
    return Part("Peaks", entries, list(_peak("memory", entries, 1024)))


PARTS: dict[str, Callable[[argparse.Namespace], Part]] = {
    part.__name__: part for part in (users, growth, grouped, lists, slices, memory)
}


def _named(some: Sequence[Job], given: argparse.Namespace) -> list[Job]:
    return [job for job in some if given.jobs is None or any(name in job.name for name in given.jobs)]


def _table(part: Part) -> str:
    first = part.entries[0]["seconds"]
    names = list(dict.fromkeys(name for entry in part.entries for name in entry["answer"]))
    rows = [
        [
            entry["job"],
            f"{entry['seconds']:.2f}",
            f"{entry['cpu_seconds']:.2f}",
            f"{entry['seconds'] / first:.2f}",
            f"{entry['peak'] / 2**20:,.0f}",
            *(f"{entry['answer'][name]:.12g}" if name in entry["answer"] else "" for name in names[:3]),
        ]
        for entry in part.entries
    ]
    return markdown(("job", "seconds", "CPU seconds", "ratio", "peak, MiB", *names[:3]), rows)


def main() -> None:
    """Write the logs that are not there, measure, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups", description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--growth", type=int, default=5, help="times as many rows for the part of that name")
    parser.add_argument("--queries", type=int, default=20_000, help="lists in memory")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--jobs", nargs="+", help="only jobs with one of these in their names")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    machine, versions = describe_machine(), describe_versions()
    measured = {name: PARTS[name](given) for name in given.parts}
    measured = {name: part for name, part in measured.items() if part.entries}
    if given.json:
        parts = {name: {"jobs": part.entries, "figures": part.figures} for name, part in measured.items()}
        report = {"machine": machine, "versions": versions, "rows": given.rows, "parts": parts}
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(headline(machine, versions))
    for part in measured.values():
        print(f"\n{part.title}; best of {given.repeat} rounds.\n\n{_table(part)}")
    figures = [found for part in measured.values() for found in part.figures]
    if figures:
        print("\n" + figures_table(figures))


if __name__ == "__main__":
    main()
