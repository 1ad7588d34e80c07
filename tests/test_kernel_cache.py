"""The kernel cache: hit by an unchanged package, missed by a changed formula, harmless when it cannot be used."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import numpy as np
from fastloss_kernels.cpu import pointwise, sums
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS
from fastloss_kernels.losses import MeanAbsoluteError
kernel = pointwise.make_value(MeanAbsoluteError.formulas["value"])
out = np.empty(3)
kernel(np.array([1.0, 2.0, 4.0]), np.zeros(3), (), out)
add = sums.make_add_terms()
add(out, np.zeros(ACCUMULATOR_WORDS, dtype=np.int64))
hits = sum(kernel.stats.cache_hits.values()) + sum(add.stats.cache_hits.values())
print(*out, hits)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the kernels that a test may change."""
    shutil.copytree(
        ROOT / "kernels" / "fastloss_kernels",
        tmp_path / "kernels" / "fastloss_kernels",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path / "kernels"


def run(package: Path, cache: Path, **changed: str) -> tuple[list[float], int, str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "PYTHONPATH")}
    environment |= {"PYTHONPATH": str(package), "FASTLOSS_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        [sys.executable, "-W", "default", "-c", PROGRAM],
        env=environment | changed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    *values, hits = finished.stdout.split()
    return [float(value) for value in values], int(hits), finished.stderr


def test_a_changed_formula_in_another_file_is_noticed(package: Path, tmp_path: Path) -> None:
    assert run(package, tmp_path / "cache")[:2] == ([1.0, 2.0, 4.0], 0)
    assert run(package, tmp_path / "cache")[:2] == ([1.0, 2.0, 4.0], 2)
    loss = package / "fastloss_kernels" / "losses" / "mean_absolute_error.py"
    loss.write_text(loss.read_text().replace("return abs(difference)", "return 10.0 * abs(difference)"))
    assert run(package, tmp_path / "cache")[:2] == ([10.0, 20.0, 40.0], 0)


def test_a_read_only_install_uses_the_users_cache(package: Path, tmp_path: Path) -> None:
    for path in [package, *package.rglob("*")]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert run(package, tmp_path / "cache")[:2] == ([1.0, 2.0, 4.0], 0)
        assert run(package, tmp_path / "cache")[:2] == ([1.0, 2.0, 4.0], 2)
        assert not list(package.rglob("*.nbi"))
    finally:
        for path in [package, *package.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_a_damaged_cache_is_compiled_anew(package: Path, tmp_path: Path) -> None:
    run(package, tmp_path / "cache")
    entries = [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".nbi", ".nbc")]
    assert len(entries) >= 4
    for number, path in enumerate(sorted(entries)):
        path.write_bytes(b"" if number % 2 else path.read_bytes()[:40])
    assert run(package, tmp_path / "cache")[0] == [1.0, 2.0, 4.0]
    assert run(package, tmp_path / "cache")[:2] == ([1.0, 2.0, 4.0], 2)


def entries_of(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.suffix in (".nbi", ".nbc"))


@pytest.mark.parametrize("place", [0.3, *(pytest.param(place, marks=pytest.mark.slow) for place in (0.6, 1.0))])
@pytest.mark.parametrize("suffix", [pytest.param(".nbi", marks=pytest.mark.slow), ".nbc"])
def test_a_flipped_bit_is_found_before_anything_is_loaded(
    package: Path, tmp_path: Path, suffix: str, place: float
) -> None:
    cache = tmp_path / "cache"
    run(package, cache)
    for path in (path for path in entries_of(cache) if path.suffix == suffix):
        content = bytearray(path.read_bytes())
        content[round(place * (len(content) - 1))] ^= 4
        path.write_bytes(content)
    assert run(package, cache)[:2] == ([1.0, 2.0, 4.0], 0)
    assert run(package, cache)[:2] == ([1.0, 2.0, 4.0], 2)


def test_a_damaged_kernel_spoils_no_other(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(package, cache)
    data = [path for path in entries_of(cache) if path.suffix == ".nbc"]
    assert len(data) == 2
    data[0].write_bytes(data[0].read_bytes()[:-1])
    assert run(package, cache)[:2] == ([1.0, 2.0, 4.0], 1)
    assert run(package, cache)[:2] == ([1.0, 2.0, 4.0], 2)


def test_a_kernel_under_the_name_of_another_is_not_taken_for_it(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(package, cache)
    first, second = (path for path in entries_of(cache) if path.suffix == ".nbc")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert run(package, cache)[:2] == ([1.0, 2.0, 4.0], 0)
    assert run(package, cache)[:2] == ([1.0, 2.0, 4.0], 2)


def test_the_folder_is_made_for_its_owner_alone(package: Path, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        run(package, tmp_path / "new" / "cache")
    finally:
        os.umask(previous)
    (folder,) = (tmp_path / "new" / "cache").iterdir()
    for made in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o702, *(pytest.param(mode, marks=pytest.mark.slow) for mode in (0o770, 0o777))])
def test_a_folder_that_others_may_write_to_is_not_used(package: Path, tmp_path: Path, mode: int) -> None:
    cache = tmp_path / "cache"
    run(package, cache)
    (folder,) = cache.iterdir()
    folder.chmod(mode)
    before = {path: path.stat().st_mtime_ns for path in entries_of(cache)}
    values, hits, errors = run(package, cache)
    assert (values, hits) == ([1.0, 2.0, 4.0], 0)
    assert errors.count("may be written by others") == 1
    assert f"chmod go-w {folder}" in errors
    assert {path: path.stat().st_mtime_ns for path in entries_of(cache)} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to another user")
def test_a_folder_of_another_user_is_not_used(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(package, cache)
    (folder,) = cache.iterdir()
    os.chown(folder, 12345, 12345)
    values, hits, errors = run(package, cache)
    assert (values, hits) == ([1.0, 2.0, 4.0], 0)
    assert errors.count("belongs to another user") == 1


def test_without_a_writable_folder_it_compiles_and_says_so(package: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    values, hits, errors = run(package, blocked / "cache")
    assert (values, hits) == ([1.0, 2.0, 4.0], 0)
    assert "set FASTLOSS_CACHE_DIR" in errors


def test_a_full_disk_does_not_stop_an_evaluation(package: Path, tmp_path: Path) -> None:
    program = PROGRAM.replace(
        "import numpy as np",
        "import numpy as np\nimport numba.core.caching as caching\n"
        "def full(*arguments):\n    raise OSError(28, 'No space left on device')\n"
        "caching.IndexDataCacheFile.save = full",
    )
    environment = {
        "PYTHONPATH": str(package),
        "FASTLOSS_CACHE_DIR": str(tmp_path / "cache"),
        "PATH": os.environ["PATH"],
    }
    finished = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert finished.stdout.split() == ["1.0", "2.0", "4.0", "0"], finished.stderr
