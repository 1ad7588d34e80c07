"""Processes of this machine, spawned: each has memory and kernels of its own, and one that dies takes no other along.

A worker imports fastloss and takes its kernels from the cache once, for its first task. Tasks, results and errors
travel pickled. An interrupt is the parent's to handle, which ends the workers; a worker whose parent is gone ends by
itself.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from fastloss.errors import FastlossError, UsageError, WorkerError
from fastloss.executors.base import PATIENCE_S, Fold, ResultT, TaskT

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

# From this protocol on, arrays are not copied once more on their way.
_PROTOCOL = 5


class ProcessExecutor:
    """An executor of spawned processes; `work`, the tasks and the results must be picklable.

    Where the system gives fewer processes than asked for, it makes do with those; with none, the calling thread does
    the work.

    Parameters
    ----------
    n_processes : int
        Most processes to use; no more are started than there are tasks.
    """

    def __init__(self, n_processes: int) -> None:
        self._n_processes = n_processes

    def fold(
        self, tasks: Iterable[TaskT], work: Callable[[TaskT], ResultT], merge: Callable[[TaskT, ResultT], None]
    ) -> None:
        """Do `work` for each task and merge the results: see `Executor`.

        Raises
        ------
        WorkerError
            If a process ends before it has returned a result, as where the system kills it for its memory.
        UsageError
            If something cannot be pickled.
        """
        packed_work = _pack(work)
        fold = Fold(tasks, merge)
        crew: list[_Worker] = []
        try:
            self._fold(fold, work, packed_work, crew)
        except BaseException:
            fold.abandon()
            raise
        finally:
            _end(crew)
        fold.raise_first_error()

    def _fold(
        self,
        fold: Fold[TaskT, ResultT],
        work: Callable[[TaskT], ResultT],
        packed_work: bytes,
        crew: list[_Worker],
    ) -> None:
        n_processes = self._n_processes
        idle: list[_Worker] = []
        busy: dict[Connection, tuple[_Worker, int, TaskT]] = {}
        waiting = fold.take()
        while waiting is not None or busy:
            while waiting is not None and (idle or len(busy) < n_processes):
                if not idle:
                    try:
                        worker = _Worker(packed_work)
                    except OSError:
                        n_processes = len(busy)
                        break
                    crew.append(worker)
                    idle.append(worker)
                index, task = waiting
                worker = idle.pop()
                try:
                    worker.send(task)
                    busy[worker.connection] = worker, index, task
                except FastlossError as error:
                    fold.fail(index, error)
                waiting = fold.take()
            if waiting is not None and not busy:
                fold.run(*waiting, work)
                waiting = fold.take()
            ready = wait(list(busy)) if busy else []
            for connection in [connection for connection in busy if connection in ready]:
                worker, index, task = busy.pop(connection)
                try:
                    fold.merge(index, task, worker.receive(task))
                    idle.append(worker)
                except Exception as error:
                    fold.fail(index, error)
                    if worker.is_alive:
                        idle.append(worker)
            for connection, (_, index, _) in list(busy.items()):
                if not fold.is_needed(index):
                    del busy[connection]
            if waiting is not None and not fold.is_needed(waiting[0]):
                waiting = None


class _Worker:
    """A process that waits for tasks."""

    def __init__(self, packed_work: bytes) -> None:
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(theirs, packed_work), name="fastloss", daemon=True
        )
        self.is_alive = True
        self._has_worked = False
        try:
            with _interrupts_held():
                self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()

    def send(self, task: TaskT) -> None:
        """Give it a task."""
        content = _pack(task)
        # A process that has died is noticed when its answer is awaited.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(content)

    def receive(self, task: TaskT) -> Any:
        """Return the result of the task that it was given, or raise its error."""
        try:
            answer = self.connection.recv_bytes()
        except (EOFError, OSError):
            self.is_alive = False
            raise self._death(task) from None
        self._has_worked = True
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result

    def _death(self, task: TaskT) -> WorkerError:
        self.process.join(PATIENCE_S)
        status = self.process.exitcode
        how = "ended" if status is None else f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        advice = "memory may have run short: lower memory or the number of processes, or use threads"
        if status is not None and status > 0 and not self._has_worked:
            advice = "a script must use processes below a line \"if __name__ == '__main__':\""
        return WorkerError(f"A worker process {how} while it worked on {task.origin!r}; {advice}.")


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold interrupts back from this thread, and from a process that it starts: it has nothing to say of them."""
    from multiprocessing import resource_tracker

    # Started within, it would let interrupts through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(crew: Sequence[_Worker]) -> None:
    """End every process: first the gentle way, so that it removes unfinished files, then the sure one."""
    for worker in crew:
        worker.connection.close()
        worker.process.terminate()
    deadline = time.monotonic() + PATIENCE_S
    for worker in crew:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()


def _pack(content: object) -> bytes:
    try:
        return pickle.dumps(content, protocol=_PROTOCOL)
    except Exception as error:
        raise UsageError(
            f"A {type(content).__name__} cannot be sent to another process ({error}); use threads."
        ) from error


# ---------------------------------------------------------------------------------------------------------------
# In the worker


def _serve(connection: Connection, packed_work: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Leaving by an exception closes and removes what is being written.
    signal.signal(signal.SIGTERM, _leave)
    try:
        _answer(connection, packed_work)
    finally:
        signal.signal(signal.SIGTERM, _stay)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, _stay)
    sys.exit()


def _stay(number: int, frame: FrameType | None) -> None:
    """Do nothing: a process that ends already is not to be interrupted, and an exception there would be printed."""


def _answer(connection: Connection, packed_work: bytes) -> None:
    work: Callable[[Any], Any] | None = None
    while True:
        try:
            content = connection.recv_bytes()
        except EOFError:
            return
        try:
            work = work or pickle.loads(packed_work)
            answer = pickle.dumps((work(pickle.loads(content)), None), protocol=_PROTOCOL)
        except SystemExit:
            raise
        except BaseException as error:
            answer = pickle.dumps((None, _sendable(error)), protocol=_PROTOCOL)
        try:
            connection.send_bytes(answer)
        except BrokenPipeError:
            return


def _sendable(error: BaseException) -> BaseException:
    """Return an error as it can be pickled, with the traceback as a note where it is a bug's."""
    place = "".join(traceback.format_exception(error))
    # Causes and context are not pickled.
    try:
        error = pickle.loads(pickle.dumps(error, protocol=_PROTOCOL))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(error, FastlossError):
        error.add_note(f"In a worker process:\n{place}")
    return error
