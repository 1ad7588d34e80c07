"""Runs each job in a process of its own, so that none profits from another's warm threads or freed memory."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any


def _serve(connection: Connection, prepare: Callable[[], Callable[[], Any]]) -> None:
    try:
        run = prepare()
        while connection.recv():
            gc.collect()
            cpu, start = time.process_time(), time.perf_counter()
            answer = run()
            connection.send((answer, time.perf_counter() - start, time.process_time() - cpu))
    except EOFError:
        return
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


@dataclass
class Worker:
    """A job in its process.

    Attributes
    ----------
    name : str
        What messages call it.
    prepare : callable
        Called once in the process; returns ``run() -> answer``, which is timed. It is pickled to get there.
    seconds, cpu_seconds : float
        Of the best of the rounds that `time` has run.
    """

    name: str
    prepare: Callable[[], Callable[[], Any]]
    seconds: float = float("inf")
    cpu_seconds: float = float("inf")
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self.connection, end = context.Pipe()
        self.process = context.Process(target=_serve, args=(end, self.prepare), daemon=True)
        self.process.start()
        end.close()

    def answer(self) -> tuple[Any, float, float]:
        """Run once; return the answer, the wall time and the CPU time."""
        self.connection.send(True)
        try:
            reply = self.connection.recv()
        except EOFError:
            reply = "its process ended"
        if isinstance(reply, str):
            raise SystemExit(f"{self.name}: {reply}")
        return reply

    def time(self) -> None:
        """Run once and keep the times if they are the best."""
        _, seconds, cpu_seconds = self.answer()
        if seconds < self.seconds:
            self.seconds, self.cpu_seconds = seconds, cpu_seconds

    def end(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()
