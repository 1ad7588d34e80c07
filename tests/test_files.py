"""Files that appear whole or not at all, their locks, and what tells one version of an input from another."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pyarrow import fs

from fastloss.errors import UsageError
from fastloss.files import Stamp, atomic_file, lock, part_of, refuse_to_overwrite_inputs, stamp
from fastloss.sources.listing import LogFile, list_files

ROOT = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with atomic_file(path) as part:
        part.write_bytes(b"content")
        assert not path.exists()
        assert part == part_of(path)
    assert path.read_bytes() == b"content"
    assert names(tmp_path / "new") == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_goes_wrong_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_file(path) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_error_of_the_system_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught, atomic_file(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "elsewhere")
    assert caught.value.filename == str(tmp_path / "file")
    assert names(tmp_path) == []


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    with atomic_file(tmp_path / "link") as part:
        part.write_bytes(b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").read_bytes() == b"content"
    assert names(tmp_path / "folder") == ["file"]


def test_a_device_is_written_in_place() -> None:
    with atomic_file("/dev/null") as part:
        part.write_bytes(b"content")
    assert not os.path.isfile("/dev/null")


def test_nothing_is_written_through_a_link_under_the_hidden_name(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    part_of(tmp_path / "file").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic links"), atomic_file(tmp_path / "file"):
        pytest.fail("written")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    part_of(tmp_path / "file").write_bytes(b"much longer than the new content")
    with atomic_file(tmp_path / "file") as part:
        part.write_bytes(b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert names(tmp_path) == ["file"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_file(path) as part:
        with pytest.raises(UsageError, match="is being written by another process"), atomic_file(path):
            pytest.fail("two writers")
        part.write_bytes(b"content")
    assert path.read_bytes() == b"content"


def test_a_writer_that_waits_comes_after(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write() -> None:
        with atomic_file(path, wait=True) as part:
            part.write_bytes(b"second")

    with atomic_file(path) as part:
        part.write_bytes(b"first")
        second = threading.Thread(target=write)
        second.start()
    second.join()
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["file"]


def test_a_lock_is_let_go_of(tmp_path: Path) -> None:
    for _ in range(2):
        with lock(tmp_path / "file"):
            pass
    with pytest.raises(KeyError), lock(tmp_path / "file"):
        raise KeyError
    with lock(tmp_path / "file"):
        pass


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with atomic_file(tmp_path / "file") as part:
        part.write_bytes(b"content")
    assert names(tmp_path) == ["file"]


ENDED = """
import os, signal, sys, threading
from fastloss.files import atomic_file
def write(path):
    with atomic_file(path) as part:
        part.write_bytes(b"half")
        begun.set()
        threading.Event().wait()
begun = threading.Event()
threading.Thread(target=write, args=[sys.argv[1]], daemon=True).start()
begun.wait()
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
print(os.path.exists(os.path.dirname(sys.argv[1]) + "/.file.part"))
"""


def test_a_thread_left_behind_leaves_no_hidden_file_and_a_forked_child_does_not_remove_it(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENDED, tmp_path / "file"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr
    assert names(tmp_path) == []


def test_inputs_are_known_under_every_name(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"rows")
    os.link(log, tmp_path / "hard")
    (tmp_path / "symbolic").symlink_to(log)
    inputs = {str(log): "the log", str(tmp_path / "gone"): "a file that was removed"}
    refuse_to_overwrite_inputs([tmp_path / "new", tmp_path], inputs)
    for name in ("log", "hard", "symbolic"):
        with pytest.raises(UsageError, match=rf"{name}' is the log's own file 'the log'"):
            refuse_to_overwrite_inputs([tmp_path / "new", tmp_path / name], inputs)
    with pytest.raises(UsageError, match="is the log's own file"):
        refuse_to_overwrite_inputs([tmp_path / "other"], {str(log): "x"} | {str(_hidden_log(tmp_path)): "y"})


def _hidden_log(folder: Path) -> Path:
    path = part_of(folder / "other")
    path.write_bytes(b"rows")
    return path


def test_a_stamp_tells_a_change_of_content_from_a_move(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"rows")
    (file,) = list_files([str(path)])
    first = stamp(file)
    assert first == stamp(file) == Stamp(str(path), 4, path.stat().st_mtime_ns)
    (tmp_path / "link").symlink_to(tmp_path)
    assert stamp(list_files([str(tmp_path / "link" / "a.parquet")])[0]) == first
    path.rename(tmp_path / "b.parquet")
    with pytest.raises(FileNotFoundError):
        stamp(file)
    moved = stamp(list_files([str(tmp_path / "b.parquet")])[0])
    assert moved != first
    assert moved.content == first.content
    os.utime(tmp_path / "b.parquet", ns=(0, 1))
    assert stamp(list_files([str(tmp_path / "b.parquet")])[0]).content != first.content


def test_a_stamp_of_a_store_is_what_the_store_tells(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"rows")
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    file = LogFile("s3://bucket/a.parquet", store, "a.parquet", ())
    assert not file.is_local
    assert stamp(file) == Stamp("s3://bucket/a.parquet", 4, (tmp_path / "a.parquet").stat().st_mtime_ns)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="s3://bucket/a"):
        stamp(file)
