"""Executors: where tasks are worked on. To add one, write a file that does what `base.Executor` says, and list it."""

from __future__ import annotations

from collections.abc import Callable

from fastloss.executors.base import Executor, raise_if_stopped
from fastloss.executors.processes import ProcessExecutor
from fastloss.executors.threads import ThreadExecutor

__all__ = ["EXECUTORS", "Executor", "ProcessExecutor", "ThreadExecutor", "raise_if_stopped"]

# Name -> what makes the executor from its number of workers.
EXECUTORS: dict[str, Callable[[int], Executor]] = {
    "threads": ThreadExecutor,
    "processes": ProcessExecutor,
}
