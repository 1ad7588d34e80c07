"""Times softmax losses over ragged lists of 5 to 200 candidates, and a whole evaluation of a log of list columns.

On one core, float64: the kernels beside PyTorch on the padded tensor and beside a loop of NumPy calls for each list.
Rates count candidates, never padding. fastloss and NumPy compute value, gradient and hessian, PyTorch value and
gradient (``loss.sum().backward()``). The padded tensor is prepared beforehand; padding holds the lowest finite score,
whose softmax is 0 as that of −∞ is, and which times a label of 0 makes no NaN that a mask would have to mend.

From Parquet to the number: `fastloss.evaluate` beside the bare scan of both columns and other tools, in a process
each. Every answer is checked before it is timed.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jobs import scan_pyarrow
from benchmarks.kernels import best_seconds
from benchmarks.machine import (
    available_cores,
    describe_machine,
    describe_versions,
    figure,
    figures_table,
    headline,
    markdown,
)
from benchmarks.workers import Worker

SHORTEST, LONGEST = 5, 200
LOWEST = float(np.finfo(np.float64).min)
ALPHA, GAMMA = 0.25, 2.0

Outputs = tuple[float, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Ragged:
    """Lists one after the other: `score` and `label` ``(n_candidates,)``, `offsets` ``(n_lists + 1,)``."""

    score: np.ndarray
    label: np.ndarray
    offsets: np.ndarray

    @property
    def n_lists(self) -> int:
        """How many lists there are."""
        return len(self.offsets) - 1


def make_lists(n_candidates: int, labels: str, seed: int = 20_240_229) -> Ragged:
    """Make lists of about so many candidates.

    Parameters
    ----------
    n_candidates : int
        At least so many, with the last list whole.
    labels : {"one-hot", "multi-hot", "distribution", "graded", "index"}
        A clicked candidate drawn from the softmax; that and one in ten others; a distribution; grades 0 to 4; or the
        index of the clicked candidate, one for each list.
    seed : int
        Of the random numbers.
    """
    random = np.random.default_rng(seed)
    lengths = random.integers(SHORTEST, LONGEST + 1, 2 * n_candidates // (SHORTEST + LONGEST) * 2 + 1)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), n_candidates)) + 1]
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    score = random.normal(0.0, 1.5, offsets[-1])
    # The highest of the scores with Gumbel noise is a draw from their softmax.
    noisy = score + random.gumbel(size=len(score))
    clicked = noisy == np.repeat(np.maximum.reduceat(noisy, offsets[:-1]), lengths)
    if labels == "index":
        label = (np.flatnonzero(clicked) - offsets[:-1]).astype(np.float64)
    elif labels == "distribution":
        shares = random.gamma(0.5, size=len(score)) + 1e-6
        label = shares / np.repeat(np.add.reduceat(shares, offsets[:-1]), lengths)
    elif labels == "graded":
        label = random.integers(0, 5, len(score)).astype(np.float64)
    elif labels == "multi-hot":
        label = (clicked | (random.random(len(score)) < 0.1)).astype(np.float64)
        # Some negatives are left in every list.
        label[offsets[:-1]] = 0.0
        label[offsets[1:] - 1] = 1.0
    else:
        label = clicked.astype(np.float64)
    return Ragged(score, label, offsets)


# ---------------------------------------------------------------------------------------------------------------
# NumPy, list by list


def _softmax(score: np.ndarray) -> tuple[np.ndarray, float]:
    highest = score.max()
    e = np.exp(score - highest)
    total = e.sum()
    return e / total, highest + np.log(total)


def _numpy_crossentropy(score: np.ndarray, label: np.ndarray) -> Outputs:
    p, log_total = _softmax(score)
    labels = label.sum()
    scaled = labels * p
    return labels * log_total - label @ score, scaled - label, scaled * (1.0 - p)


def _numpy_sparse(score: np.ndarray, label: np.ndarray) -> Outputs:
    p, log_total = _softmax(score)
    k = int(label[0])
    hessian = p * (1.0 - p)
    p[k] -= 1.0
    return log_total - score[k], p, hessian


def _numpy_mean(score: np.ndarray, label: np.ndarray) -> Outputs:
    return _numpy_crossentropy(score, label / label.sum())


def _numpy_mass(score: np.ndarray, label: np.ndarray) -> Outputs:
    p, log_total = _softmax(score)
    right = label > 0.0
    of_right, log_right = _softmax(score[right])
    gradient, hessian = p.copy(), p * (1.0 - p)
    gradient[right] -= of_right
    hessian[right] -= of_right * (1.0 - of_right)
    return log_total - log_right, gradient, hessian


def _numpy_each(score: np.ndarray, label: np.ndarray) -> Outputs:
    right = label > 0.0
    wrong = ~right
    p, log_negatives = _softmax(score[wrong])
    weight, difference = label[right], log_negatives - score[right]
    e = np.exp(-np.abs(difference))
    likely = 1.0 / (1.0 + e)
    share = np.where(difference > 0.0, likely, e * likely)
    slope = weight * share
    bend = slope * np.where(difference > 0.0, e * likely, likely)
    gradient, hessian = np.empty_like(score), np.empty_like(score)
    gradient[right], hessian[right] = -slope, bend
    gradient[wrong] = p * slope.sum()
    hessian[wrong] = p * (bend.sum() + (1.0 - p) * (slope @ share))
    return weight @ (np.maximum(difference, 0.0) + np.log1p(e)), gradient, hessian


def _numpy_focal(score: np.ndarray, label: np.ndarray) -> Outputs:
    p, log_total = _softmax(score)
    q, cost = 1.0 - p, log_total - score
    weight = ALPHA * label
    least = q ** (GAMMA - 2.0)
    less = least * q
    factor = less * q
    slope = weight * (factor + GAMMA * p * cost * less)
    bend = weight * GAMMA * p * least * ((GAMMA - 1.0) * p * cost - (cost - 2.0) * q)
    slopes = slope.sum()
    gradient = p * slopes - slope
    hessian = bend * (q - p) + p * q * slopes + p * p * bend.sum()
    return (weight * factor) @ cost, gradient, hessian


def _numpy_kl(score: np.ndarray, label: np.ndarray) -> Outputs:
    value, gradient, hessian = _numpy_crossentropy(score, label)
    present = label[label > 0.0]
    return value + present @ np.log(present), gradient, hessian


def _numpy_list_net(score: np.ndarray, label: np.ndarray) -> Outputs:
    return _numpy_crossentropy(score, _softmax(label)[0])


# ---------------------------------------------------------------------------------------------------------------
# PyTorch on the padded tensor: (score, label) -> the value of each list


def _torch_crossentropy(score: Any, label: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(score, label, reduction="none")


def _torch_mean(score: Any, label: Any) -> Any:
    return _torch_crossentropy(score, label) / label.sum(1)


def _torch_mass(score: Any, label: Any) -> Any:
    import torch

    positives = score.masked_fill(label <= 0.0, float("-inf"))
    return torch.logsumexp(score, 1) - torch.logsumexp(positives, 1)


def _torch_each(score: Any, label: Any) -> Any:
    import torch

    negatives = torch.logsumexp(score.masked_fill(label > 0.0, float("-inf")), 1, keepdim=True)
    return (label * torch.nn.functional.softplus(negatives - score)).sum(1)


def _torch_focal(score: Any, label: Any) -> Any:
    import torch

    log_p = torch.log_softmax(score, 1)
    return -ALPHA * (label * (1.0 - log_p.exp()) ** GAMMA * log_p).sum(1)


def _torch_kl(score: Any, label: Any) -> Any:
    import torch

    return torch.nn.functional.kl_div(torch.log_softmax(score, 1), label, reduction="none").sum(1)


def _torch_list_net(score: Any, label: Any) -> Any:
    import torch

    return _torch_crossentropy(score, torch.softmax(label, 1))


@dataclass(frozen=True)
class Family:
    """A softmax loss by its name, with its parameters, its labels (see `make_lists`), and how others compute it."""

    name: str
    labels: str
    by_numpy: Callable[[np.ndarray, np.ndarray], Outputs]
    by_torch: Callable[[Any, Any], Any]
    parameters: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The name, with the parameters that are not the loss's own."""
        changed = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.name}({changed})" if changed else self.name


_FOCUS = {"alpha": ALPHA, "gamma": GAMMA}
_MULTI = "multi_positive_crossentropy"

FAMILIES = (
    Family("categorical_crossentropy", "one-hot", _numpy_crossentropy, _torch_crossentropy, {}),
    Family("sparse_categorical_crossentropy", "index", _numpy_sparse, _torch_crossentropy, {}),
    Family(_MULTI, "multi-hot", _numpy_mean, _torch_mean, {"form": "mean"}),
    Family(_MULTI, "multi-hot", _numpy_crossentropy, _torch_crossentropy, {"form": "sum"}),
    Family(_MULTI, "multi-hot", _numpy_mass, _torch_mass, {"form": "mass"}),
    Family(_MULTI, "multi-hot", _numpy_each, _torch_each, {"form": "each_vs_negatives"}),
    Family("categorical_focal_crossentropy", "one-hot", _numpy_focal, _torch_focal, _FOCUS),
    Family("kl_divergence", "distribution", _numpy_kl, _torch_kl, {}),
    Family("list_net", "graded", _numpy_list_net, _torch_list_net, {}),
)


# ---------------------------------------------------------------------------------------------------------------
# Kernels


def _label_offsets(data: Ragged) -> np.ndarray:
    return data.offsets if len(data.label) == len(data.score) else np.arange(data.n_lists + 1)


def _compare(title: str, tool: str, found: Sequence[Any], expected: Sequence[Any]) -> None:
    for part, theirs, own in zip(("value", "gradient", "hessian"), found, expected, strict=False):
        # Others take 1 − p, and differences of logarithms, whose errors are those of numbers near 1.
        close = np.isclose(theirs, own, rtol=1e-12, atol=1e-13)
        if not close.all():
            i = int(np.argmin(close))
            raise SystemExit(f"{title}: the {part} by {tool} is {theirs[i]!r}, by fastloss {own[i]!r}.")


def _make_fastloss(loss: Any, data: Ragged) -> tuple[Callable[[], None], Callable[[], None], tuple[np.ndarray, ...]]:
    from fastloss_kernels.cpu.lists import make_list_value, make_list_value_gradient_hessian, make_scratch

    given = (data.score, data.offsets, data.label, _label_offsets(data), np.arange(data.n_lists))
    outputs = (np.empty(data.n_lists), np.empty(len(data.score)), np.empty(len(data.score)))
    value, scratch = np.empty(data.n_lists), make_scratch(loss.n_scratch, LONGEST)
    parameters = loss.parameters("logit")
    all_kernel = make_list_value_gradient_hessian(loss.formulas["logit"])
    value_kernel = make_list_value(loss.formulas["logit"])

    def run() -> None:
        all_kernel(*given, parameters, scratch, *outputs)

    def run_value() -> None:
        value_kernel(*given, parameters, scratch, value)

    run()
    run_value()
    np.testing.assert_array_equal(value, outputs[0])
    return run, run_value, outputs


def _make_numpy(
    family: Family, data: Ragged, n_lists: int, expected: tuple[np.ndarray, ...]
) -> tuple[Callable[[], None], int]:
    offsets, label_offsets = data.offsets[: n_lists + 1].tolist(), _label_offsets(data)[: n_lists + 1].tolist()
    n_candidates = offsets[-1]
    value, gradient, hessian = np.empty(n_lists), np.empty(n_candidates), np.empty(n_candidates)

    def run() -> None:
        for k in range(n_lists):
            start, stop = offsets[k], offsets[k + 1]
            value[k], gradient[start:stop], hessian[start:stop] = family.by_numpy(
                data.score[start:stop], data.label[label_offsets[k] : label_offsets[k + 1]]
            )

    run()
    own = (expected[0][:n_lists], expected[1][:n_candidates], expected[2][:n_candidates])
    _compare(family.title, "NumPy", (value, gradient, hessian), own)
    return run, n_candidates


def _padded(data: Ragged, values: np.ndarray, padding: float) -> np.ndarray:
    lengths = np.diff(data.offsets)
    rows = np.repeat(np.arange(data.n_lists), lengths)
    columns = np.arange(len(values)) - np.repeat(data.offsets[:-1], lengths)
    out = np.full((data.n_lists, int(lengths.max())), padding)
    out[rows, columns] = values
    return out


def _make_torch(
    family: Family, data: Ragged, expected: tuple[np.ndarray, ...]
) -> tuple[Callable[[], None], Callable[[], None]]:
    import torch

    torch.set_num_threads(1)
    score = torch.from_numpy(_padded(data, data.score, LOWEST)).requires_grad_()
    if family.labels == "index":
        label = torch.from_numpy(data.label.astype(np.int64))
    else:
        label = torch.from_numpy(_padded(data, data.label, LOWEST if family.labels == "graded" else 0.0))

    def run() -> Any:
        score.grad = None
        value = family.by_torch(score, label)
        value.sum().backward()
        return value

    def run_value() -> Any:
        with torch.no_grad():
            return family.by_torch(score, label)

    value = run().detach().numpy()
    inside = _padded(data, np.ones(len(data.score)), 0.0) > 0.0
    _compare(family.title, "PyTorch", (value, score.grad.numpy()[inside]), expected)
    _compare(family.title, "PyTorch", (run_value().numpy(),), expected)
    return run, run_value


def measure_kernels(n_candidates: int, loop_lists: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return cases of all families and what is not measured."""
    from fastloss_kernels.losses import LISTWISE_LOSSES

    kinds = {kind.name: kind for kind in LISTWISE_LOSSES}
    has_torch = importlib.util.find_spec("torch") is not None
    cases, missing = [], [] if has_torch else ["PyTorch (torch is not installed)"]
    for family in FAMILIES:
        if family.name not in kinds:
            missing.append(f"{family.title} (no loss of that name)")
            continue
        data = make_lists(n_candidates, family.labels)
        loss = kinds[family.name](**family.parameters)
        run, run_value, expected = _make_fastloss(loss, data)
        loop, loop_candidates = _make_numpy(family, data, min(loop_lists, data.n_lists), expected)
        runs = {"fastloss": run, "fastloss_value": run_value, "numpy_loop": loop}
        if has_torch:
            runs["torch"], runs["torch_value"] = _make_torch(family, data, expected)
        best = dict(zip(runs, best_seconds(list(runs.values()), rounds, seconds), strict=True))
        counts = {name: loop_candidates if name == "numpy_loop" else len(data.score) for name in runs}
        rates = {f"{name}_candidates_per_second": counts[name] / best[name] for name in runs}
        cases.append({"loss": family.title, "candidates": len(data.score), "lists": data.n_lists, **rates})
        _say(f"measured: {family.title}")
    known = {family.name for family in FAMILIES}
    others = [kind.name for kind in LISTWISE_LOSSES if kind.name not in known and "logit" in kind().formulas]
    return {"cases": cases, "missing": missing, "other_losses": others}


# ---------------------------------------------------------------------------------------------------------------
# From Parquet to the number


COLUMNS = ("clicked", "score")
_CHUNK_CANDIDATES = 4_000_000

SCAN = "bare scan of clicked, score"
EVALUATION = "categorical cross-entropy"


def write_log(folder: Path, candidates: int, files: int) -> list[str]:
    """Write a log of list columns, ``clicked`` int8 one-hot and ``score`` float32, zstd; return its files.

    A chunk of four million candidates is a row group, made from the chunk's number alone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    sizes = [min(_CHUNK_CANDIDATES, candidates - start) for start in range(0, candidates, _CHUNK_CANDIDATES)]
    files = min(files, len(sizes))
    bounds = [len(sizes) * i // files for i in range(files + 1)]

    def write(i: int) -> str:
        path = folder / f"part-{i:02d}.parquet"
        kinds = {"clicked": pa.list_(pa.int8()), "score": pa.list_(pa.float32())}
        with pq.ParquetWriter(path, pa.schema(kinds), compression="zstd") as writer:
            for chunk in range(bounds[i], bounds[i + 1]):
                data = make_lists(sizes[chunk], "one-hot", seed=chunk)
                offsets = data.offsets.astype(np.int32)
                columns = (data.label.astype(np.int8), data.score.astype(np.float32))
                lists = [pa.ListArray.from_arrays(offsets, column) for column in columns]
                writer.write_table(pa.table(lists, names=list(COLUMNS)), row_group_size=data.n_lists)
        return str(path)

    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(write, range(files)))


def _evaluate_fastloss(reader: str, paths: Sequence[str]) -> Callable[[], float]:
    import fastloss

    def run() -> float:
        name = "categorical_crossentropy"
        result = fastloss.evaluate(list(paths), label="clicked", logit="score", metrics=[name], reader=reader)
        return float(result[name])

    return run


def _evaluate_polars(paths: Sequence[str]) -> Callable[[], float]:
    """Explode both columns, one file after the other, and put the lists together again by their number."""
    import polars as pl

    score, label = pl.col("score"), pl.col("clicked")
    log_total = score.max() + (score - score.max()).exp().sum().log()
    loss = (label.sum() * log_total - (label * score).sum()).alias("loss")

    def run() -> float:
        total, n = 0.0, 0
        for path in paths:
            rows = pl.scan_parquet(path).select(*COLUMNS).with_row_index("list").explode(*COLUMNS)
            rows = rows.with_columns(pl.col(*COLUMNS).cast(pl.Float64))
            losses = rows.group_by("list").agg(loss).select(pl.col("loss").sum(), pl.len().alias("n"))
            found = losses.collect(engine="streaming")
            total += float(found["loss"][0])
            n += int(found["n"][0])
        return total / n

    return run


def _evaluate_duckdb(paths: Sequence[str]) -> Callable[[], float]:
    """Transform each list by a lambda."""
    import duckdb

    files = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    total = "list_sum(list_transform(score, lambda x: exp(x - highest)))"
    columns = "score::DOUBLE[] AS score, clicked::DOUBLE[] AS clicked, list_max(score)::DOUBLE AS highest"
    query = (
        f"SELECT avg(list_sum(clicked) * (ln({total}) + highest) - list_inner_product(score, clicked)) "
        f"FROM (SELECT {columns} FROM read_parquet([{files}]))"
    )

    def run() -> float:
        with duckdb.connect() as connection:
            return float(connection.execute(query).fetchone()[0])

    return run


def _evaluate_numpy(paths: Sequence[str]) -> Callable[[], float]:
    """Reduce all lists of a row group at once, by `reduceat`, on the same threads as the bare scan."""
    from benchmarks.jobs import on_threads, read_pyarrow

    def run() -> float:
        sums: list[tuple[float, int]] = []

        def work(path: str, footer: Any, group: int, first: int) -> None:
            table = read_pyarrow(path, footer, group, COLUMNS).combine_chunks()
            clicked, lists = table["clicked"].chunk(0), table["score"].chunk(0)
            offsets = lists.offsets.to_numpy()
            lengths, starts = np.diff(offsets), offsets[:-1]
            score = lists.values.to_numpy().astype(np.float64)
            label = clicked.values.to_numpy().astype(np.float64)
            highest = np.maximum.reduceat(score, starts)
            exponentials = np.exp(score - np.repeat(highest, lengths))
            log_total = highest + np.log(np.add.reduceat(exponentials, starts))
            sums.append((float(np.add.reduceat(label, starts) @ log_total - label @ score), len(starts)))

        on_threads(paths, work)
        return sum(total for total, _ in sums) / sum(n for _, n in sums)

    return run


# The first job of the evaluations is fastloss's own, with which the others are compared.
_JOBS: tuple[tuple[str, str, Callable[[Sequence[str]], Callable[[], Any]], str | None], ...] = (
    (SCAN, "pyarrow, by row group", functools.partial(scan_pyarrow, COLUMNS, False), None),
    (EVALUATION, "fastloss", functools.partial(_evaluate_fastloss, "pyarrow"), None),
    (EVALUATION, 'fastloss, reader="polars"', functools.partial(_evaluate_fastloss, "polars"), None),
    (EVALUATION, "NumPy, reduceat over pyarrow row groups", _evaluate_numpy, None),
    (EVALUATION, "Polars, explode and group_by", _evaluate_polars, None),
    (EVALUATION, "DuckDB, list functions", _evaluate_duckdb, "duckdb"),
)


def measure_log(paths: Sequence[str], repeat: int) -> dict[str, Any]:
    """Return the times of the jobs over a log."""
    import pyarrow.parquet as pq

    lists = sum(pq.read_metadata(path).num_rows for path in paths)
    jobs = [job for job in _JOBS if job[3] is None or importlib.util.find_spec(job[3])]
    workers = [Worker(f"{group}, {name}", functools.partial(prepare, paths)) for group, name, prepare, _ in jobs]
    expected = None
    for (group, name, _, _), worker in zip(jobs, workers, strict=True):
        answer = worker.answer()[0]
        if group == SCAN:
            if answer != lists:
                raise SystemExit(f"{name}: read {answer} lists of {lists}.")
            continue
        expected = answer if expected is None else expected
        if not abs(answer - expected) <= 1e-12 * abs(expected):
            raise SystemExit(f"{name}: {answer!r}, fastloss {expected!r}.")
        _say(f"checked: {name}")
    for _ in range(repeat):
        for worker in workers:
            worker.time()
    entries = []
    for (group, name, _, _), worker in zip(jobs, workers, strict=True):
        worker.end()
        times = {"seconds": worker.seconds, "cpu_seconds": worker.cpu_seconds}
        entries.append({"group": group, "name": name, **times})
    scan = min(entry["seconds"] for entry in entries if entry["group"] == SCAN)
    for entry in entries:
        entry["ratio_to_scan"] = entry["seconds"] / scan
    return {
        "lists": lists,
        "bytes": sum(os.path.getsize(path) for path in paths),
        "files": len(paths),
        "jobs": entries,
        "missing": [name for _, name, _, needs in _JOBS if needs and not importlib.util.find_spec(needs)],
    }


# ---------------------------------------------------------------------------------------------------------------
# The report


def _figures(cases: list[dict[str, Any]]) -> Any:
    rate, torch, loop = (f"{name}_candidates_per_second" for name in ("fastloss", "torch", "numpy_loop"))
    if not cases:
        return
    slowest = min(cases, key=lambda case: case[rate])
    yield figure(f"smallest rate: {slowest['loss']}, million candidates/s", slowest[rate] / 1e6, ">=", 100)
    for tool, name, limit in (("PyTorch, padded", torch, 3), ("a NumPy loop", loop, 10)):
        compared = [case for case in cases if name in case]
        if compared:
            least = min(compared, key=lambda case: case[rate] / case[name])
            yield figure(f"smallest ratio to {tool}: {least['loss']}", least[rate] / least[name], ">=", limit, " ×")


def _kernel_parts(report: dict[str, Any]) -> list[str]:
    def rate(case: dict[str, Any], name: str) -> str:
        found = case.get(f"{name}_candidates_per_second")
        return "—" if found is None else f"{found / 1e6:.1f}"

    def ratio(case: dict[str, Any], own: str, other: str) -> str:
        found = case.get(f"{other}_candidates_per_second")
        return "—" if found is None else f"{case[f'{own}_candidates_per_second'] / found:.1f} ×"

    columns = ("fastloss", "torch", "numpy_loop", "fastloss_value", "torch_value")
    rows = [
        [
            case["loss"],
            *(rate(case, name) for name in columns),
            ratio(case, "fastloss", "torch"),
            ratio(case, "fastloss", "numpy_loop"),
            ratio(case, "fastloss_value", "torch_value"),
        ]
        for case in report["cases"]
    ]
    header = (
        "million candidates/s",
        "fastloss: all",
        "PyTorch: value, gradient",
        "NumPy loop: all",
        "fastloss: value",
        "PyTorch: value",
        "to PyTorch",
        "to the loop",
        "values, to PyTorch",
    )
    largest = max((case["candidates"] for case in report["cases"]), default=0)
    lists = max((case["lists"] for case in report["cases"]), default=0)
    parts = [
        f"One core, float64, {lists:,} lists of {SHORTEST} to {LONGEST} candidates, {largest:,} in all; "
        "all is value, gradient and hessian.",
        markdown(header, rows),
    ]
    if report["missing"]:
        parts.append(f"Left out: {', '.join(report['missing'])}.")
    if report["other_losses"]:
        parts.append(f"Losses of lists of logits that are not measured here: {', '.join(report['other_losses'])}.")
    return parts


def _log_parts(log: dict[str, Any]) -> list[str]:
    rows = [
        [
            f"{entry['group']}: {entry['name']}",
            f"{entry['seconds']:.3f}",
            f"{entry['cpu_seconds']:.3f}",
            f"{entry['ratio_to_scan']:.2f} ×",
        ]
        for entry in log["jobs"]
    ]
    parts = [
        f"A log of {log['lists']:,} lists in {log['files']} files, {log['bytes'] / 2**20:.0f} MiB.",
        markdown(("job", "seconds", "CPU seconds", "to the bare scan"), rows),
    ]
    if log["missing"]:
        parts.append(f"Left out: {', '.join(log['missing'])} (not installed).")
    return parts


def render(report: dict[str, Any]) -> str:
    """Return the report as Markdown tables."""
    parts = [headline(report["machine"], report["versions"])]
    if report["kernels"]:
        parts += _kernel_parts(report["kernels"])
    if report["log"]:
        parts += _log_parts(report["log"])
    if report["figures"]:
        parts.append(figures_table(report["figures"]))
    return "\n\n".join(parts)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=2_000_000, help="of the kernels' lists")
    parser.add_argument("--loop-lists", type=int, default=1_000, help="over which the NumPy loop is timed")
    parser.add_argument("--rounds", type=int, default=7, help="of the kernels, of which the best counts")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each case in each round")
    parser.add_argument("--log-candidates", type=int, default=100_000_000, help="of the log; 0 for no log")
    parser.add_argument("--files", type=int, default=4, help="of the log")
    parser.add_argument("--folder", type=Path, help="where the log is written; left out, a temporary folder")
    parser.add_argument("--repeat", type=int, default=5, help="rounds over the log, of which the best counts")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    kernels = (
        measure_kernels(given.candidates, given.loop_lists, given.rounds, given.seconds) if given.candidates else None
    )
    log = None
    if given.log_candidates:
        with tempfile.TemporaryDirectory(prefix="fastloss-lists-", dir=given.folder) as folder:
            paths = write_log(Path(folder), given.log_candidates, given.files)
            log = measure_log(paths, given.repeat)
    report = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "kernels": kernels,
        "log": log,
        "figures": list(_figures(kernels["cases"] if kernels else [])),
    }
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(render(report))


if __name__ == "__main__":
    main()
