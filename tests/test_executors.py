"""Executors: each task's result is merged once, and the error raised is that of the first task that has one."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastloss.errors import DataError, FastlossError, ReadError, UsageError, WorkerError
from fastloss.executors import EXECUTORS, Executor, ProcessExecutor, ThreadExecutor, base, raise_if_stopped

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Number:
    """A task."""

    value: int
    origin: str = "numbers.parquet"


def numbers(n: int) -> Iterator[Number]:
    return map(Number, range(n))


@dataclass
class Collected:
    """A merge that notes what it is given, and whether two threads were ever in it at once."""

    results: dict[int, Any] = field(default_factory=dict)
    inside: int = 0

    def __call__(self, task: Number, result: Any) -> None:
        self.inside += 1
        assert self.inside == 1
        assert task.value not in self.results
        self.results[task.value] = result
        self.inside -= 1


# The work of these tests, in classes that pickle.


@dataclass(frozen=True)
class Square:
    pause_s: float = 0.0

    def __call__(self, task: Number) -> int:
        time.sleep(self.pause_s)
        return task.value**2


@dataclass(frozen=True)
class Fail:
    """Raises for some tasks, and the sooner the later in order the task is; what comes after the last takes long."""

    errors: dict[int, BaseException]

    def __call__(self, task: Number) -> int:
        if task.value in self.errors:
            time.sleep(0.02 * (max(self.errors) - task.value))
            raise self.errors[task.value]
        if task.value > max(self.errors):
            time.sleep(0.05)
        return task.value


class AwkwardError(Exception):
    """An error that pickles and does not come back."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


@pytest.fixture(params=sorted(EXECUTORS))
def make(request: pytest.FixtureRequest) -> Callable[[int], Executor]:
    """Return what makes an executor of each kind."""
    made: Callable[[int], Executor] = EXECUTORS[request.param]
    return made


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("n_tasks", [0, 1, 2, 40])
def test_each_task_is_merged_once(make: Callable[[int], Executor], n_workers: int, n_tasks: int) -> None:
    merged = Collected()
    make(n_workers).fold(numbers(n_tasks), Square(), merged)
    assert merged.results == {i: i * i for i in range(n_tasks)}


def test_the_error_is_that_of_the_first_task(make: Callable[[int], Executor]) -> None:
    errors = {i: DataError(f"task {i}") for i in (2, 3, 4)}
    for _ in range(3):
        with pytest.raises(DataError, match="task 2"):
            make(3).fold(numbers(40), Fail(errors), Collected())


def test_no_task_is_handed_out_after_an_error(make: Callable[[int], Executor]) -> None:
    taken = []

    def tasks() -> Iterator[Number]:
        for task in numbers(1_000):
            taken.append(task.value)
            yield task

    merged = Collected()
    with pytest.raises(DataError, match="task 5"):
        make(2).fold(tasks(), Fail({5: DataError("task 5")}), merged)
    assert max(taken) < 900
    # Those before it were needed to know that it is the first.
    assert set(range(5)) <= set(merged.results)
    assert 5 not in merged.results


def test_tasks_that_break_off(make: Callable[[int], Executor]) -> None:
    def tasks() -> Iterator[Number]:
        yield from numbers(4)
        raise ReadError("the stream broke off")

    merged = Collected()
    with pytest.raises(ReadError, match="broke off"):
        make(2).fold(tasks(), Square(0.01), merged)
    assert sorted(merged.results) == [0, 1, 2, 3]
    with pytest.raises(DataError, match="task 3"):
        make(2).fold(tasks(), Fail({3: DataError("task 3")}), Collected())


def test_an_error_of_merging_is_raised(make: Callable[[int], Executor]) -> None:
    merged = []

    def merge(task: Number, result: int) -> None:
        merged.append(result)
        raise UsageError(f"task {task.value}")

    with pytest.raises(UsageError, match="task 0"):
        make(1).fold(numbers(9), Square(), merge)
    assert merged == [0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_comes_before_every_error(make: Callable[[int], Executor], error: type[BaseException]) -> None:
    def merge(task: Number, _: int) -> None:
        if task.value == 3:
            raise error

    merged = []
    with pytest.raises(error):
        make(1).fold(numbers(9), Square(), merge)
    assert merged == []


def test_the_registry_lists_executors() -> None:
    for made in EXECUTORS.values():
        assert callable(made(1).fold)


# ---------------------------------------------------------------------------------------------------------------
# Threads


def test_results_are_used_at_once_and_tasks_taken_when_a_thread_is_free() -> None:
    alive = []
    merged = Collected()

    def tasks() -> Iterator[Number]:
        for task in numbers(30):
            alive.append(len(merged.results))
            yield task

    ThreadExecutor(2).fold(tasks(), Square(), merged)
    assert all(done >= taken - 2 for taken, done in enumerate(alive))


def test_long_work_that_is_not_needed_stops() -> None:
    begun, stopped = threading.Event(), threading.Event()

    def work(task: Number) -> None:
        if task.value == 0:
            begun.wait()
            raise DataError("task 0")
        begun.set()
        try:
            while True:
                time.sleep(0.001)
                raise_if_stopped()
        finally:
            stopped.set()

    with pytest.raises(DataError, match="task 0"):
        ThreadExecutor(2).fold(numbers(2), work, Collected())
    assert stopped.is_set()
    # Outside of a fold nothing stops.
    raise_if_stopped()


def test_expected_errors_come_before_others() -> None:
    failed = threading.Event()

    def work(task: Number) -> None:
        if task.value == 1:
            failed.set()
            raise ReadError("expected")
        failed.wait()
        raise ZeroDivisionError("unexpected")

    with pytest.raises(ReadError, match="expected"):
        ThreadExecutor(2).fold(numbers(2), work, Collected())


def test_an_earlier_task_is_not_stopped() -> None:
    failed = threading.Event()

    def work(task: Number) -> None:
        if task.value == 1:
            failed.set()
            raise DataError("task 1")
        failed.wait()
        raise_if_stopped()
        raise DataError("task 0")

    with pytest.raises(DataError, match="task 0"):
        ThreadExecutor(2).fold(numbers(2), work, Collected())


@pytest.fixture
def interrupts() -> Iterator[None]:
    """An interrupt raises KeyboardInterrupt, although a test runner's worker may ignore it."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


@pytest.mark.usefixtures("interrupts")
def test_a_thread_left_behind_merges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE_S", 0.01)
    go_on, went_on = threading.Event(), threading.Event()

    def work(task: Number) -> int:
        if task.value == 0:
            os.kill(os.getpid(), signal.SIGINT)
            go_on.wait()
        return task.value

    def tasks() -> Iterator[Number]:
        yield Number(0)
        went_on.set()

    merged = Collected()
    with pytest.raises(KeyboardInterrupt):
        ThreadExecutor(1).fold(tasks(), work, merged)
    before = threading.active_count()
    go_on.set()
    while threading.active_count() >= before and any(t.name == "fastloss-0" for t in threading.enumerate()):
        time.sleep(0.001)
    assert merged.results == {}
    assert not went_on.is_set()


def test_an_interrupt_waits_for_work_that_can_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(_: Number) -> None:
        try:
            begun.set()
            while True:
                raise_if_stopped()
                time.sleep(0.001)
        finally:
            time.sleep(0.05)
            ended.set()

    def start(thread: threading.Thread) -> None:
        # The worst moment: the thread runs, and the executor does not know of it.
        real(thread)
        begun.wait()
        raise KeyboardInterrupt

    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        ThreadExecutor(1).fold(numbers(1), work, Collected())
    assert ended.is_set()


@pytest.mark.parametrize("n_allowed", [0, 1])
def test_threads_that_cannot_be_started_are_done_without(monkeypatch: pytest.MonkeyPatch, n_allowed: int) -> None:
    started = []
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if len(started) == n_allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    merged = Collected()
    ThreadExecutor(4).fold(numbers(9), Square(), merged)
    assert len(started) == n_allowed
    assert merged.results == {i: i * i for i in range(9)}
    with pytest.raises(DataError, match="task 2"):
        ThreadExecutor(4).fold(numbers(9), Fail({2: DataError("task 2"), 3: DataError("task 3")}), Collected())


# ---------------------------------------------------------------------------------------------------------------
# Processes


@dataclass(frozen=True)
class Describe:
    """Says where the work is done, and returns an array."""

    def __call__(self, task: Number) -> tuple[int, Any]:
        return os.getpid(), np.full(3, task.value)


@dataclass(frozen=True)
class Die:
    how: str

    def __call__(self, task: Number) -> int:
        if task.value == 1:
            if self.how == "exit":
                os._exit(7)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
        return task.value


def test_the_work_is_done_in_other_processes() -> None:
    merged = Collected()
    ProcessExecutor(2).fold(numbers(20), Describe(), merged)
    processes = {process for process, _ in merged.results.values()}
    assert os.getpid() not in processes
    assert 1 <= len(processes) <= 2
    assert all(array.tolist() == [i] * 3 for i, (_, array) in merged.results.items())
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize(("how", "text"), [("kill", "was ended by SIGKILL"), ("exit", "ended with status 7")])
def test_a_worker_that_dies_is_one_line(how: str, text: str) -> None:
    with pytest.raises(WorkerError, match=rf"A worker process {text} while it worked on 'numbers.parquet'") as caught:
        ProcessExecutor(2).fold(numbers(9), Die(how), Collected())
    assert "\n" not in str(caught.value)


def test_an_error_comes_back_with_its_place() -> None:
    with pytest.raises(ZeroDivisionError, match="bug") as caught:
        ProcessExecutor(1).fold(numbers(1), Fail({0: ZeroDivisionError("bug")}), Collected())
    assert "raise self.errors[task.value]" in "".join(caught.value.__notes__)
    with pytest.raises(RuntimeError, match="AwkwardError: onetwo"):
        ProcessExecutor(1).fold(numbers(1), Raise(), Collected())


@dataclass(frozen=True)
class Raise:
    def __call__(self, task: Number) -> int:
        raise AwkwardError("one", "two")


@dataclass(frozen=True)
class TerminateAtTheEnd:
    """Work that makes its process get one more termination while it ends."""

    def __call__(self, task: Number) -> int:
        atexit.register(os.kill, os.getpid(), signal.SIGTERM)
        return task.value


def test_a_termination_of_a_worker_that_ends_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    merged = Collected()
    ProcessExecutor(1).fold(numbers(2), TerminateAtTheEnd(), merged)
    assert merged.results == {0: 0, 1: 1}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("what", ["work", "task", "result"])
def test_what_cannot_be_pickled(what: str) -> None:
    if what == "work":
        with pytest.raises(UsageError, match=r"A function cannot be sent to another process .*; use threads"):
            ProcessExecutor(1).fold(numbers(1), lambda task: task, Collected())
    elif what == "task":
        tasks = [Number(0), Number(1, origin=lambda: None)]  # type: ignore[arg-type]
        merged = Collected()
        with pytest.raises(UsageError, match="A Number cannot be sent"):
            ProcessExecutor(1).fold(tasks, Square(), merged)
        assert merged.results == {0: 0}
    else:
        with pytest.raises(Exception, match="pickle"):
            ProcessExecutor(1).fold(numbers(1), Unpicklable(), Collected())


@dataclass(frozen=True)
class Unpicklable:
    def __call__(self, task: Number) -> Callable[[], int]:
        return lambda: task.value


@pytest.mark.parametrize("n_allowed", [0, 1])
def test_processes_that_cannot_be_started_are_done_without(monkeypatch: pytest.MonkeyPatch, n_allowed: int) -> None:
    from multiprocessing.context import SpawnProcess

    real, started = SpawnProcess.start, []

    def start(process: SpawnProcess) -> None:
        if len(started) == n_allowed:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(process)
        real(process)

    monkeypatch.setattr(SpawnProcess, "start", start)
    merged = Collected()
    ProcessExecutor(3).fold(numbers(9), Square(), merged)
    assert merged.results == {i: i * i for i in range(9)}
    assert len(started) == n_allowed


INTERRUPTED = """
import os, signal, sys, threading, time
from fastloss.executors import EXECUTORS
class Task:
    origin = "x"
    def __init__(self, value): self.value = value
class Work:
    def __call__(self, task):
        open(f"{sys.argv[2]}/{os.getpid()}", "w").close()
        time.sleep(100 if sys.argv[1] == "processes" else 0.5)
if __name__ == "__main__":
    def interrupt():
        while not os.listdir(sys.argv[2]): time.sleep(0.01)
        os.killpg(os.getpgid(0), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        EXECUTORS[sys.argv[1]](2).fold(map(Task, range(9)), Work(), lambda task, result: None)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("kind", sorted(EXECUTORS))
def test_ctrl_c_ends_every_worker(kind: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(INTERRUPTED)
    (tmp_path / "seen").mkdir()
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", kind, tmp_path / "seen"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")
    for process in os.listdir(tmp_path / "seen"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)


FORKED = """
import os, sys, threading
from fastloss.errors import UsageError
from fastloss.executors import ThreadExecutor
class Task:
    origin = "x"
def in_child():
    child = os.fork()
    if child == 0:
        try:
            ThreadExecutor(2).fold([Task()], lambda task: None, lambda task, result: None)
        except UsageError as error:
            assert "was forked while its parent evaluated" in str(error)
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
begun, go_on = threading.Event(), threading.Event()
def work(task):
    begun.set()
    go_on.wait()
evaluation = threading.Thread(target=ThreadExecutor(1).fold, args=([Task()], work, lambda task, result: None))
before = in_child()
evaluation.start()
begun.wait()
amid = in_child()
go_on.set()
evaluation.join()
print(before, amid, in_child())
"""


def test_a_process_forked_amid_an_evaluation_says_so_and_does_not_hang(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("0 3 0\n", "")


def test_a_script_without_its_guard_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(INTERRUPTED.replace('if __name__ == "__main__":', "if True:"))
    (tmp_path / "seen").mkdir()
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", "processes", tmp_path / "seen"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "WorkerError: A worker process ended with status 1" in done.stderr
    assert "below a line \"if __name__ == '__main__':\"" in done.stderr


def test_errors_of_workers_are_expected() -> None:
    assert issubclass(WorkerError, FastlossError)


STARTING = """
import os, signal, time
# Importing this script is part of a worker's start.
if __name__ == "__mp_main__":
    os.kill(os.getpid(), signal.SIGINT)
class Task:
    origin = "x"
def work(task):
    return 1
if __name__ == "__main__":
    from fastloss.executors import EXECUTORS
    found = []
    EXECUTORS["processes"](2).fold([Task() for _ in range(4)], work, lambda task, result: found.append(result))
    print(found)
"""


def test_a_worker_that_is_interrupted_as_it_starts_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(STARTING)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[1, 1, 1, 1]\n", "")
