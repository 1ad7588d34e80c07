"""Threads of this process. They share its memory and its kernels, which hold no lock while they run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from fastloss.executors.base import Fold, ResultT, TaskT, under_way


class ThreadExecutor:
    """An executor of threads.

    Where the system gives fewer threads than asked for, as under a limit on processes, it makes do with those; with
    none, the calling thread does the work.

    Parameters
    ----------
    n_threads : int
        Most threads to use.
    """

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads

    def fold(
        self, tasks: Iterable[TaskT], work: Callable[[TaskT], ResultT], merge: Callable[[TaskT, ResultT], None]
    ) -> None:
        """Do `work` for each task and merge the results: see `Executor`."""
        with under_way():
            self._fold(Fold(tasks, merge), work)

    def _fold(self, fold: Fold[TaskT, ResultT], work: Callable[[TaskT], ResultT]) -> None:
        workers: list[threading.Thread] = []
        try:
            for number in range(self._n_threads):
                worker = threading.Thread(target=fold.run_all, args=(work,), name=f"fastloss-{number}", daemon=True)
                try:
                    worker.start()
                except RuntimeError:
                    break
                workers.append(worker)
            if not workers:
                fold.run_all(work)
            for worker in workers:
                # A join without a time limit would keep Ctrl-C waiting.
                while worker.is_alive():
                    worker.join(0.1)
        except BaseException:
            fold.abandon()
            raise
        fold.raise_first_error()
