"""Recorded runs of Vowpal Wabbit: its labels and predictions give the average losses that it printed.

Its progress lines have the average since the start, and since the last line, after 1, 2, 4, … examples. Predictions
were written with six digits, as the losses were.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

import fastloss as fl


class Run(NamedTuple):
    """A run: its files, and its loss under the name that it has here."""

    examples: str
    predictions: str
    log: str
    metric: str
    space: str = "value"
    label_domain: Any = "01"


RUNS = {
    "squared": Run("train-sets/0002.dat", "0002b.predict", "test-sets/ref/0002b.stderr", "mean_squared_error"),
    "squared, all right": Run(
        "train-sets/0001.dat", "0001.predict", "test-sets/ref/0001.stderr", "mean_squared_error"
    ),
    "quantile": Run(
        "train-sets/0002_25.dat", "quantile_loss.predict", "train-sets/ref/t537.stderr", "pinball(quantile=0.5)"
    ),
    # Both sides weigh one half.
    "expectile": Run(
        "train-sets/0002_25.dat", "expectile_loss.predict", "train-sets/ref/t539.stderr", "expectile(expectile=0.5)"
    ),
    # Labels are used as they are, between −1 and +1.
    "hinge": Run(
        "train-sets/0002_25.dat", "hinge_loss.predict", "train-sets/ref/hinge_loss.stderr", "hinge", "margin", "pm1"
    ),
}


class Recorded(NamedTuple):
    """A run as it was recorded, and what it printed of its losses."""

    log: pa.Table
    average: float
    weight: float
    progress: list[tuple[int, float, float]]


def read(folder: Path, run: Run) -> Recorded:
    labels, weights = [], []
    for line in (folder / run.examples).read_text().splitlines():
        numbers = line.partition("|")[0].split()
        labels.append(float(numbers[0]))
        weights.append(float(numbers[1]) if len(numbers) > 1 else 1.0)
    lines = (folder / "pred-sets/ref" / run.predictions).read_text().splitlines()
    predictions = [float(line.split()[0]) for line in lines]
    text = (folder / run.log).read_text()

    def printed(name: str) -> float:
        found = re.search(rf"^{name} = (\S+)$", text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    rows = re.findall(r"^(\d\.\d+) (\d\.\d+) +(\d+) +\d+\.\d ", text, re.MULTILINE)
    progress = [(int(count), float(average), float(since)) for average, since, count in rows]
    return Recorded(
        pa.table({"y": labels, "s": predictions, "w": weights}),
        printed("average loss"),
        printed("weighted example sum"),
        progress,
    )


def mean(run: Run, log: pa.Table) -> fl.Value:
    result = fl.evaluate(
        log, label="y", **{run.space: "s"}, weight="w", metrics=[run.metric], label_domain=run.label_domain
    )
    return result.values[0]


@pytest.mark.parametrize("name", RUNS)
def test_recorded_average_loss(shared_data: Path, name: str) -> None:
    run = RUNS[name]
    recorded = read(shared_data / "vowpal_wabbit" / "test", run)
    value = mean(run, recorded.log)
    assert value.value is not None
    assert f"{value.value:.6f}" == f"{recorded.average:.6f}"
    assert (value.n, value.weight) == (recorded.log.num_rows, recorded.weight)


@pytest.mark.parametrize("name", ["squared", "quantile", "expectile", "hinge"])
def test_recorded_progress(shared_data: Path, name: str) -> None:
    run = RUNS[name]
    recorded = read(shared_data / "vowpal_wabbit" / "test", run)
    before = 0
    assert len(recorded.progress) >= 5
    for count, average, since in recorded.progress:
        # The sixth digit is its own rounding, and that of the predictions in front of it.
        assert mean(run, recorded.log.slice(0, count)).value == pytest.approx(average, abs=1.5e-6)
        assert mean(run, recorded.log.slice(before, count - before)).value == pytest.approx(since, abs=1.5e-6)
        before = count


@pytest.mark.parametrize(
    ("name", "metric", "space", "label_domain"),
    [
        ("hinge", "hinge", "margin", "01"),
        ("squared", "half_squared_error", "value", "01"),
        ("quantile", "mean_absolute_error", "value", "01"),
        ("expectile", "mean_squared_error", "value", "01"),
    ],
)
def test_the_neighbouring_definition_gives_another_number(
    shared_data: Path, name: str, metric: str, space: str, label_domain: str
) -> None:
    run = RUNS[name]
    recorded = read(shared_data / "vowpal_wabbit" / "test", run)
    other = mean(run._replace(metric=metric, space=space, label_domain=label_domain), recorded.log)
    assert other.value != pytest.approx(recorded.average, abs=1e-4)
