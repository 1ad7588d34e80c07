"""Logs to measure on: the same rows on every machine, written in constant memory.

Each chunk of a million rows has a generator of its own, seeded by the chunk's number, so that a row does not depend
on how many files the log is cut into. A latent logit x is normal; `score` is x in float32 and a click happens with
probability σ(x), so `score` is calibrated; `score_b` adds noise and an offset, as an older model would.

`write_log` writes clicks without an order. `write_impressions` writes impressions of users in their requests, shuffled
or user by user: how often a user comes is lognormal, so that most come a few times and some very often.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import available_cores

# Takes the chunk's number and how many of its rows are wanted.
MakeChunk = Callable[[int, int], pa.Table]

CHUNK_ROWS = 1_000_000
COLUMNS = ("click", "score", "score_b", "weight", "country", "user_id", "device")
IMPRESSION_COLUMNS = ("request_id", "user_id", "item_id", "click", "score", "score_b")
# Mean of σ(x) is 0.1.
_LOGIT_MEAN = -2.703
_LOGIT_DEVIATION = 1.2
_WEIGHTS = np.array([0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0], dtype=np.float32)
# fmt: off
_COUNTRIES = (
    "US", "IN", "BR", "ID", "MX", "PH", "VN", "TH", "JP", "GB", "TR", "DE", "FR", "EG", "PK", "IT", "ES", "KR", "CA",
    "CO", "AR", "BD", "NG", "PL", "AU", "MY", "ZA", "SA", "PE", "MA", "CL", "NL", "UA", "RO", "KE", "BE", "SE", "PT",
    "CZ", "GR",
)
# fmt: on
_DEVICES = ("android", "ios", "web", "tablet", "tv")
_USERS = 5_000_000
_ITEMS = 300_000
_REQUESTS_OF_A_USER = 4
# Odd, so that products with it modulo 2⁶⁴ are as many as the numbers.
_SPREAD = np.uint64(0x9E37_79B9_7F4A_7C15)
_HEX_DIGITS = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint8).reshape(256, 2)
# pyarrow cuts row groups there (pyarrow.parquet.ParquetWriter.write_table).
_PYARROW_ROW_GROUP_ROWS = 64 << 20


def make_chunk(chunk: int, rows: int = CHUNK_ROWS, columns: tuple[str, ...] = COLUMNS) -> pa.Table:
    """Return the first `rows` rows of a chunk."""
    random = np.random.default_rng([20_240_229, chunk])
    values: dict[str, pa.Array] = _clicks(random) | {
        "weight": pa.array(_WEIGHTS[_skewed(random, len(_WEIGHTS), 0.5)]),
        "country": _names(_skewed(random, len(_COUNTRIES), 1.0), _COUNTRIES),
        # A few users come very often.
        "user_id": pa.array((random.random(CHUNK_ROWS) ** 3 * _USERS).astype(np.int64)),
        "device": _names(_skewed(random, len(_DEVICES), 1.0), _DEVICES),
    }
    return pa.table({name: values[name] for name in columns}).slice(0, rows)


def _clicks(random: np.random.Generator) -> dict[str, pa.Array]:
    latent = random.standard_normal(CHUNK_ROWS, dtype=np.float32) * np.float32(_LOGIT_DEVIATION)
    score = latent + np.float32(_LOGIT_MEAN)
    click = random.random(CHUNK_ROWS, dtype=np.float32) < 1.0 / (1.0 + np.exp(-score))
    noise = random.standard_normal(CHUNK_ROWS, dtype=np.float32) * np.float32(0.5)
    return {
        "click": pa.array(click.view(np.int8)),
        "score": pa.array(score),
        "score_b": pa.array(np.float32(0.9) * score + noise),
    }


def _skewed(random: np.random.Generator, n: int, exponent: float) -> np.ndarray:
    """Draw codes with probabilities that fall as 1 / rank**exponent."""
    shares = np.arange(1, n + 1) ** -exponent
    bounds = np.cumsum(shares / shares.sum())[:-1]
    return np.searchsorted(bounds, random.random(CHUNK_ROWS)).astype(np.int8)


def _names(codes: np.ndarray, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes, pa.array(names)).cast(pa.string())


@dataclass(frozen=True)
class Impressions:
    """What the rows of a log of impressions are like.

    Attributes
    ----------
    rows, users : int
        Of the whole log; a user who would come less than once may be missing.
    columns : tuple of str
        Which of `IMPRESSION_COLUMNS` there are.
    grouped : bool
        Whether the rows of a user are adjacent, users by ascending id. Otherwise each row's user is drawn by itself.
    first_share : float
        The part of the rows that one user has, the first.
    request_bytes : int
        The length of a request's id, at least 16.
    """

    rows: int
    users: int
    columns: tuple[str, ...] = IMPRESSION_COLUMNS
    grouped: bool = False
    first_share: float = 0.0
    request_bytes: int = 16

    def make_chunk(self, chunk: int, rows: int = CHUNK_ROWS) -> pa.Table:
        """Return the first `rows` rows of a chunk."""
        random = np.random.default_rng([20_240_301, chunk])
        values = _clicks(random)
        place = random.random(CHUNK_ROWS)
        if self.grouped:
            place = (chunk * CHUNK_ROWS + np.arange(CHUNK_ROWS) + 0.5) / max(self.rows, 1)
        user = np.searchsorted(_user_bounds(self.users, self.first_share), place)
        values["user_id"] = pa.array((user + 1) * (2**62 // self.users | 1))
        # Items are as skewed as users: some are shown to nearly everybody.
        values["item_id"] = pa.array((random.random(CHUNK_ROWS) ** 4 * _ITEMS).astype(np.int64))
        if "request_id" in self.columns:
            request = user * _REQUESTS_OF_A_USER + random.integers(0, _REQUESTS_OF_A_USER, CHUNK_ROWS)
            values["request_id"] = _texts(request, self.request_bytes)
        return pa.table({name: values[name] for name in self.columns}).slice(0, rows)


@functools.lru_cache(maxsize=1)
def _user_bounds(users: int, first_share: float) -> np.ndarray:
    """Return where in [0, 1) the rows of each user but the last end."""
    often = np.exp(np.random.default_rng(20_240_302).standard_normal(users))
    if first_share:
        often[0] = often[1:].sum() * first_share / (1.0 - first_share)
    return np.cumsum(often / often.sum())[:-1]


def _texts(numbers: np.ndarray, length: int) -> pa.Array:
    """Return a text for each number, another for another number: hexadecimal digits behind zeros."""
    with np.errstate(over="ignore"):
        spread = numbers.astype(np.uint64) * _SPREAD
    text = np.full((len(numbers), length), ord("0"), dtype=np.uint8)
    text[:, -16:] = _HEX_DIGITS[spread.astype(">u8").view(np.uint8).reshape(-1, 8)].reshape(-1, 16)
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * np.int32(length)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(offsets), pa.py_buffer(text))


def write_impressions(
    folder: str | Path, log: Impressions, files: int = 8, row_group_rows: int = CHUNK_ROWS
) -> list[str]:
    """Write a log of impressions, or keep the one that is there with as many rows; return its files."""
    return _write_files(Path(folder), log.rows, files, row_group_rows, log.columns, log.make_chunk)


def write_log(
    folder: str | Path,
    rows: int,
    files: int = 8,
    row_group_rows: int = CHUNK_ROWS,
    columns: tuple[str, ...] = COLUMNS,
) -> list[str]:
    """Write a log, or keep the one that is there with the same rows; return its files.

    Parameters
    ----------
    folder : path
        Receives ``part-00.parquet`` and so on, zstd.
    rows, files : int
        Files hold equal numbers of rows, give or take one chunk.
    row_group_rows : int
        Rows in a row group. Above a million, a row group is put together in memory.
    columns : tuple of str
        Which of `COLUMNS` to write.
    """
    return _write_files(
        Path(folder), rows, files, row_group_rows, columns, functools.partial(make_chunk, columns=columns)
    )


def _write_files(
    folder: Path, rows: int, files: int, row_group_rows: int, columns: tuple[str, ...], make: MakeChunk
) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [(i, min(CHUNK_ROWS, rows - start)) for i, start in enumerate(range(0, rows, CHUNK_ROWS))]
    if not 1 <= files <= len(chunks):
        raise SystemExit(f"{files} files of {rows} rows; allowed: 1 to {len(chunks)} files, of whole millions.")
    bounds = [len(chunks) * i // files for i in range(files + 1)]
    parts = [chunks[start:stop] for start, stop in itertools.pairwise(bounds)]
    paths = [folder / f"part-{i:02d}.parquet" for i in range(files)]
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(lambda path, part: _write_file(path, part, row_group_rows, columns, make), paths, parts))
    return [str(path) for path in paths]


def _write_file(
    path: Path, part: list[tuple[int, int]], row_group_rows: int, columns: tuple[str, ...], make: MakeChunk
) -> None:
    rows = sum(n for _, n in part)
    if _is_written(path, rows, row_group_rows, columns):
        return
    # A file that an interrupted run left behind never bears the final name.
    unfinished = path.with_suffix(".unfinished")
    if row_group_rows > _PYARROW_ROW_GROUP_ROWS:
        _write_huge(unfinished, part, row_group_rows, make)
    else:
        schema = make(0, 0).schema
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            waiting: list[pa.Table] = []
            for chunk, n in part:
                waiting.append(make(chunk, n))
                if sum(map(len, waiting)) >= row_group_rows:
                    waiting = _write_full(writer, waiting, row_group_rows)
            if waiting:
                writer.write_table(pa.concat_tables(waiting), row_group_size=row_group_rows)
    os.replace(unfinished, path)


def _write_full(writer: pq.ParquetWriter, waiting: list[pa.Table], row_group_rows: int) -> list[pa.Table]:
    table = pa.concat_tables(waiting)
    full = len(table) // row_group_rows * row_group_rows
    writer.write_table(table.slice(0, full), row_group_size=row_group_rows)
    return [table.slice(full)] if full < len(table) else []


def _write_huge(path: Path, part: list[tuple[int, int]], row_group_rows: int, make: MakeChunk) -> None:
    import polars as pl

    table = pa.concat_tables([make(chunk, n) for chunk, n in part])
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.write_parquet(path, compression="zstd", row_group_size=row_group_rows)


def _is_written(path: Path, rows: int, row_group_rows: int, columns: tuple[str, ...]) -> bool:
    if not path.exists():
        return False
    footer = pq.read_metadata(path)
    same_columns = tuple(footer.schema.to_arrow_schema().names) == columns
    return same_columns and footer.num_rows == rows and footer.row_group(0).num_rows == min(rows, row_group_rows)


def default_folder(rows: int, files: int) -> Path:
    """Return where a log of this size is kept between runs."""
    return Path(tempfile.gettempdir()) / "fastloss-benchmark-logs" / f"{rows}-rows-{files}-files"


def main() -> None:
    """Write a log."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logs", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--row-group-rows", type=int, default=CHUNK_ROWS)
    parser.add_argument("--columns", help="comma-separated choice of columns; left out, all")
    parser.add_argument("--impressions", action="store_true", help="impressions of users in their requests")
    parser.add_argument("--users", type=int, help="of impressions; left out, one for 25 rows")
    parser.add_argument("--grouped", action="store_true", help="impressions of a user one after another")
    given = parser.parse_args()
    known = IMPRESSION_COLUMNS if given.impressions else COLUMNS
    columns = tuple(given.columns.split(",")) if given.columns else known
    if unknown := sorted(set(columns) - set(known)):
        parser.error(f"no column {unknown[0]!r}; known: {', '.join(known)}")
    if given.impressions:
        log = Impressions(given.rows, given.users or max(1, given.rows // 25), columns, given.grouped)
        paths = write_impressions(given.folder, log, given.files, given.row_group_rows)
    elif given.users or given.grouped:
        parser.error("--users and --grouped are of --impressions.")
    else:
        paths = write_log(given.folder, given.rows, given.files, given.row_group_rows, columns)
    size = sum(os.path.getsize(path) for path in paths)
    print(f"{given.rows:,} rows in {len(paths)} files, {size / 2**30:.2f} GiB, in {given.folder}")


if __name__ == "__main__":
    main()
