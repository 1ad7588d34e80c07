"""The command ``fastloss``: a thin caller of the API.

stdout carries the result alone; progress and warnings go to stderr. Exit status: 0 fine, 1 a gate failed, 2 usage,
data or I/O error (one line on stderr), 130 interrupted, 143 terminated, 129 hung up.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError

from fastloss.cli.commands import FAILED, INTERRUPTED, app
from fastloss.cli.output import complain, complain_of, guarded_stdout
from fastloss.errors import FastlossError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``fastloss``; left out, those of the process.
    """
    if sys.stdout is None:
        complain("stdout is closed; redirect it to a file or to /dev/null.")
        return FAILED
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            command, bound, _ = app.parse_args(
                sys.argv[1:] if argv is None else list(argv), print_error=False, exit_on_error=False
            )
            if not isinstance(getattr(command, "__self__", None), App):
                return int(command(*bound.args, **bound.kwargs))
            # --help and --version, printed by Rich, which ends the process where stdout was closed early.
            with guarded_stdout(), contextlib.suppress(SystemExit):
                command(*bound.args, **bound.kwargs)
            return 0
        except CycloptsError as error:
            of_label = isinstance(error, MissingArgumentError) and error.argument and error.argument.name == "--label"
            said = "A label column is needed: --label COLUMN." if of_label else f"{error}"
            complain(f"{said} See {' '.join(('fastloss', *(error.command_chain or ())))} --help.")
        except FastlossError as error:
            complain_of(error)
        except MemoryError:
            complain("Out of memory; lower --memory or --threads, or slice by fewer values.")
        except OSError as error:
            complain(f"{error.strerror or error}{'' if error.filename is None else f': {error.filename!r}'}")
        except KeyboardInterrupt:
            complain("interrupted")
            return INTERRUPTED
        except Exception as error:
            _complain_of_bug(error)
        except BaseException as error:
            # Rust libraries raise their panics past Exception.
            if type(error).__name__ != "PanicException":
                raise
            _complain_of_bug(error)
        return FAILED


def _complain_of_bug(error: BaseException) -> None:
    if os.environ.get("FASTLOSS_DEBUG") == "1":
        traceback.print_exception(error)
    complain(
        f"Unexpected {type(error).__name__}: {error}. This is a bug; "
        "set FASTLOSS_DEBUG=1 to see where it happened, and report it."
    )


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(f"warning: {message}")
