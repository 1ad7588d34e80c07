"""The process of the command ``fastloss``, which ``python -m fastloss`` is too: its signals and its exit status."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

# As Python ends a process whose last output is lost.
_NOT_WRITTEN = 120
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run() -> NoReturn:
    """Run the command line of the process, and end it.

    An interrupt, a termination and a hang-up all end the command the same way: it stops, removes what it was writing,
    and the exit status is 128 and the signal's number, whenever the signal comes.
    """
    # A signal that is ignored, as in a background job or under nohup, stays ignored.
    signals = [s for s in _SIGNALS if signal.getsignal(s) in (signal.SIG_DFL, signal.default_int_handler)]
    received: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    def leave(number: int, _: FrameType | None) -> NoReturn:
        if files := sys.modules.get("fastloss.files"):
            files.remove_unfinished()
        os._exit(128 + number)

    def ignore() -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)

    # Called last of all, when Python would restore the default, by which a signal kills.
    atexit.register(ignore)
    try:
        for each in signals:
            signal.signal(each, leave)
        from fastloss.cli import main

        try:
            for each in signals:
                signal.signal(each, interrupt)
            status = main()
        finally:
            for each in signals:
                signal.signal(each, leave)
    except KeyboardInterrupt:
        # Between two of the lines above.
        status = 130
    if not received:
        atexit._run_exitfuncs()
    written = _flush()
    if received:
        # At its usual end, the process would wait for threads that a store has not answered yet.
        leave(received[0], None)
    # The usual end destroys the thread pools of native libraries, and that aborts the process where one of them is
    # just starting a thread: an error found while planning comes soon after they were loaded.
    os._exit(status if written or status else _NOT_WRITTEN)


def _flush() -> bool:
    """Write what is left in the standard streams; return whether it could be written."""
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            pass
        except OSError:
            written = False
    return written


if __name__ == "__main__":
    run()
