"""The protocol of executors, and the bookkeeping that all of them share.

Tasks are handed out in order and finished in any order. Once a task has failed, no further task is handed out, and
those behind it are stopped; those before it go on, since one of them may fail too, and its error is the first. So the
error that is raised does not depend on timing.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from fastloss.errors import FastlossError, UsageError

# How long an interrupted fold waits for work that is under way. A worker that takes longer, as where a stream's
# producer is silent, is left behind: it merges nothing any more.
PATIENCE_S = 2.0


class Task(Protocol):
    """A piece of work."""

    @property
    def origin(self) -> str:
        """The file that it reads, for messages."""


TaskT = TypeVar("TaskT", bound=Task)
ResultT = TypeVar("ResultT")


class Executor(Protocol):
    """Does the same work for many tasks."""

    def fold(
        self, tasks: Iterable[TaskT], work: Callable[[TaskT], ResultT], merge: Callable[[TaskT, ResultT], None]
    ) -> None:
        """Do `work` for each task, and hand each result to `merge`, one at a time and in any order.

        Parameters
        ----------
        tasks : iterable
            Taken one by one, in order, when a worker is free.
        work : callable
            Returns the result of a task. It may be called from several threads at once, or be pickled and called in
            other processes. In long work, call `raise_if_stopped` between its parts.
        merge : callable
            Called in this process, from any thread but never from two at once; not called for a task after the first
            that failed.

        Raises
        ------
        BaseException
            An interrupt, if there was one. Else the error of the first task, in order, that has one; errors that
            fastloss raises on purpose come before others. An error of `tasks` itself counts as one of the task that
            it did not give.
        """


class StoppedError(Exception):
    """Raised in work whose result is not needed any more."""


_thread = threading.local()

_FORKED = (
    "This process was forked while its parent evaluated in other threads, whose locks are left locked here; fork at "
    "another time, or start processes by multiprocessing.set_start_method('spawn')."
)
# A set, since its methods take no lock that a fork could leave locked.
_under_way: set[object] = set()
_was_forked_amid = False


def _note_fork() -> None:
    global _was_forked_amid
    _was_forked_amid = _was_forked_amid or bool(_under_way)
    _under_way.clear()


os.register_at_fork(after_in_child=_note_fork)


@contextlib.contextmanager
def under_way() -> Iterator[None]:
    """Note a fold in threads; a UsageError in a process that was forked during one, where it could wait for ever."""
    if _was_forked_amid:
        raise UsageError(_FORKED)
    fold = object()
    _under_way.add(fold)
    try:
        yield
    finally:
        _under_way.discard(fold)


def raise_if_stopped() -> None:
    """Raise StoppedError if this thread works on a task whose result is not needed any more."""
    is_needed: Callable[[], bool] | None = getattr(_thread, "is_needed", None)
    if is_needed is not None and not is_needed():
        raise StoppedError


class Fold(Generic[TaskT, ResultT]):
    """One fold under way: hands out its tasks, merges their results and keeps their errors; for several threads."""

    def __init__(self, tasks: Iterable[TaskT], merge: Callable[[TaskT, ResultT], None]) -> None:
        self._tasks = iter(tasks)
        self._merge = merge
        self._n_taken = 0
        self._failures: list[tuple[int, BaseException]] = []
        # The index of the last task whose result is needed.
        self._last_needed = float("inf")
        # Two locks: while a thread waits for a stream's next task, the others merge.
        self._taking = threading.Lock()
        self._merging = threading.Lock()
        self._n_running = 0
        self._running_changed = threading.Condition()

    def take(self) -> tuple[int, TaskT] | None:
        """Return the next task with its index; None if there is none, or if none is needed any more."""
        with self._taking:
            if self._last_needed < self._n_taken:
                return None
            index = self._n_taken
            self._n_taken += 1
            try:
                return index, next(self._tasks)
            except StopIteration:
                self._n_taken -= 1
            except BaseException as error:
                self.fail(index, error)
            return None

    def is_needed(self, index: int) -> bool:
        """Say whether the result of a task that was handed out is still needed."""
        return index <= self._last_needed

    def merge(self, index: int, task: TaskT, result: ResultT) -> None:
        """Merge the result of a task, if it is needed."""
        with self._merging:
            if self.is_needed(index):
                self._merge(task, result)

    def fail(self, index: int, error: BaseException) -> None:
        """Keep the error of a task; tasks behind it are not needed any more, and none is after an interrupt."""
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            index = -1
        self._failures.append((index, error))
        self._last_needed = min(self._last_needed, index)

    def run(self, index: int, task: TaskT, work: Callable[[TaskT], ResultT]) -> None:
        """Do the work of a task in this thread, and merge its result."""
        # Counted before it is asked whether the task is needed: so `abandon` waits for it, or it does nothing.
        self._count_running(+1)
        try:
            if self.is_needed(index):
                with self._stoppable(index):
                    result = work(task)
                self.merge(index, task, result)
        except StoppedError:
            pass
        except BaseException as error:
            self.fail(index, error)
        finally:
            self._count_running(-1)

    def run_all(self, work: Callable[[TaskT], ResultT]) -> None:
        """Do the work of every task that is left, in this thread."""
        while (taken := self.take()) is not None:
            self.run(*taken, work)
            # Not held while this thread waits for the next.
            del taken

    def abandon(self) -> None:
        """Stop everything, since no task is needed any more, and wait a while until no thread works on one."""
        self._last_needed = -1
        with self._running_changed:
            self._running_changed.wait_for(lambda: self._n_running == 0, PATIENCE_S)

    def raise_first_error(self) -> None:
        """Raise the error of the first task that has one, if any has."""
        if self._failures:
            expected = [
                failure for failure in self._failures if failure[0] < 0 or isinstance(failure[1], FastlossError)
            ]
            raise min(expected or self._failures, key=lambda failure: failure[0])[1]

    def _count_running(self, change: int) -> None:
        with self._running_changed:
            self._n_running += change
            self._running_changed.notify_all()

    @contextlib.contextmanager
    def _stoppable(self, index: int) -> Iterator[None]:
        _thread.is_needed = lambda: self.is_needed(index)
        try:
            yield
        finally:
            del _thread.is_needed
