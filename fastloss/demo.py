"""A small, realistic click log, and its evaluation: what ``fastloss demo`` shows."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastloss.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

DAYS = ("2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04")
ROW_GROUPS_PER_FILE = 3
OPTIONS = ("--label", "click", "--logit", "a=score_a", "--logit", "b=score_b", "--weight", "weight", "--by", "country")

_SEED = 20260301
# Impressions without a click are kept at this rate and weigh its inverse, as training logs are thinned out.
_KEPT_WITHOUT_CLICK = 0.25
_COUNTRIES = {"DE": 0.18, "FR": 0.13, "GB": 0.15, "IN": 0.24, "JP": 0.10, "US": 0.20}
_DEVICES = {"desktop": 0.3, "phone": 0.6, "tablet": 0.1}


def run_demo(folder: Path | None, rows: int) -> str:
    """Write the log, evaluate it, and return what to print.

    Parameters
    ----------
    folder : Path or None
        Where the log is kept; None for a temporary folder.
    rows : int
        How many rows it has, at least 1.

    Raises
    ------
    UsageError
        If the folder is not empty, or there are no rows to write.
    """
    if rows < 1:
        raise UsageError(f"--rows is {rows}; allowed: a whole number from 1.")
    if folder is not None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"--folder {str(folder)!r} is not an empty folder; name a new one.")
        return _write_and_evaluate(folder, rows)
    with tempfile.TemporaryDirectory(prefix="fastloss-demo-") as temporary:
        shown = _write_and_evaluate(Path(temporary), rows)
    return f"{shown}\n\nThe folder was temporary and is gone; fastloss demo --folder FOLDER keeps one."


def _write_and_evaluate(folder: Path, rows: int) -> str:
    from fastloss.api import evaluate

    files = write_log(folder, rows)
    command = shlex.join(["fastloss", "eval", str(folder), *OPTIONS])
    result = evaluate(
        str(folder), label="click", logit={"a": "score_a", "b": "score_b"}, weight="weight", by=["country"]
    )
    return (
        f"Wrote a click log of {rows:,} rows in {len(files)} Parquet files below {folder}.\n"
        f"This command evaluates it as follows:\n\n  {command}\n\n{result}"
    )


def write_log(folder: Path, rows: int) -> list[Path]:
    """Write the log as a hive folder, one file of several row groups for each day.

    Parameters
    ----------
    folder : Path
        Created where it does not exist.
    rows : int
        Over all files; the same number gives the same rows.

    Returns
    -------
    list of Path
        The files.
    """
    import pyarrow.parquet as pq

    log = make_log(rows)
    files = []
    bounds = np.linspace(0, rows, len(DAYS) + 1).astype(int).tolist()
    for day, start, stop in zip(DAYS, bounds[:-1], bounds[1:], strict=True):
        path = folder / f"day={day}" / "part-0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        row_group_size = max(1, -(-(stop - start) // ROW_GROUPS_PER_FILE))
        pq.write_table(log.slice(start, stop - start), path, row_group_size=row_group_size, compression="zstd")
        files.append(path)
    return files


def make_log(rows: int) -> pa.Table:
    """Make the log's rows.

    Returns
    -------
    pyarrow.Table
        ``click`` int8; ``score_a``, ``score_b`` float32, logits of a model that claims too much and of a calibrated
        one; ``p_a``, ``p_b`` float32, their probabilities; ``weight`` float32; ``country``, ``device`` string;
        ``user_id`` int64. A few clicks, scores and countries are null.
    """
    import pyarrow as pa

    random = np.random.default_rng(_SEED)

    def nulls(share: float) -> Any:
        return random.random(rows) < share

    country = random.choice(len(_COUNTRIES), rows, p=list(_COUNTRIES.values()))
    device = random.choice(len(_DEVICES), rows, p=list(_DEVICES.values()))
    # Few users bring most impressions.
    user = (random.random(rows) ** 3 * (rows / 5 + 1)).astype(np.int64)
    known = -3.4 + 0.25 * (country - 2.5) + np.array([0.0, 0.5, -0.3])[device] + 0.7 * random.standard_normal(rows)
    unknown = 0.3 * random.standard_normal(rows)
    kept_odds = np.exp(known + unknown) / _KEPT_WITHOUT_CLICK
    click = random.random(rows) < kept_odds / (1.0 + kept_odds)
    score_a = 1.3 * (known + 0.4 * random.standard_normal(rows)) + 0.9
    score_b = known + 0.2 * random.standard_normal(rows)
    weight = np.where(click, 1.0, 1.0 / _KEPT_WITHOUT_CLICK)
    no_click, no_a, no_b = nulls(0.001), nulls(0.002), nulls(0.002)
    return pa.table(
        {
            "click": pa.array(click.astype(np.int8), mask=no_click),
            "score_a": pa.array(score_a.astype(np.float32), mask=no_a),
            "score_b": pa.array(score_b.astype(np.float32), mask=no_b),
            "p_a": pa.array((1.0 / (1.0 + np.exp(-score_a))).astype(np.float32), mask=no_a),
            "p_b": pa.array((1.0 / (1.0 + np.exp(-score_b))).astype(np.float32), mask=no_b),
            "weight": pa.array(weight.astype(np.float32)),
            "country": pa.array(np.array(list(_COUNTRIES))[country], mask=nulls(0.01)),
            "device": pa.array(np.array(list(_DEVICES))[device]),
            "user_id": pa.array(user),
        }
    )
