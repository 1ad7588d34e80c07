"""The progress bar on stderr: rows, rows a second, bytes and the time left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastloss.scan import Progress


@contextlib.contextmanager
def progress_bar(wanted: bool = True) -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar while the block runs, and erase it afterwards.

    Parameters
    ----------
    wanted : bool
        False for no bar. There is none either where stderr is no terminal.

    Yields
    ------
    callable or None
        What `fastloss.evaluate` takes as `progress`.
    """
    if not (wanted and sys.stderr is not None and sys.stderr.isatty()):
        yield None
        return
    from rich import progress as rich
    from rich.console import Console
    from rich.filesize import decimal

    columns = (
        rich.TextColumn("{task.fields[rows]}"),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TextColumn("{task.fields[bytes]}"),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rows="opening the log", rate="", bytes="")

        def report(done: Progress) -> None:
            elapsed = bar.tasks[task].elapsed or 0.0
            size = decimal(done.stored_bytes)
            bar.update(
                task,
                completed=done.rows,
                total=done.total_rows,
                rows=f"{done.rows:,} rows",
                rate=f"{done.rows / elapsed / 1e6:,.1f} million rows/s" if elapsed > 0.0 else "",
                bytes=size if done.total_bytes is None else f"{size} of {decimal(done.total_bytes)}",
            )

        yield report
