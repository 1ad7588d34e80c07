"""Which failures of a store pass, and how long they are waited for."""

from __future__ import annotations

import errno
import http.client
import itertools
import random
import re
import socket
import ssl
import threading
import time
import urllib.error
from collections.abc import Callable, Collection
from typing import Literal, NamedTuple, TypeVar

from fastloss.errors import FastlossError, ReadError, StoreError
from fastloss.executors import raise_if_stopped
from fastloss.sources.stores.options import without_secrets

T = TypeVar("T")

# What to make of a failure: it passes, access is refused, there is no such file, the bucket is elsewhere, or unknown.
Kind = Literal["passing", "denied", "missing", "elsewhere", "other"]

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0
# An interrupt, or the error of another task, ends a wait after this time at the latest.
_LOOK_UP_S = 0.1

# What pyarrow says of an answer, in the order in which it is looked for.
_STATUS = re.compile(r"HTTP status (\d{3})|Azure Error: \[\w*\] (\d{3})")
_AWS_PASSING = re.compile(
    r"AWS Error (?:SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|REQUEST_TIMEOUT|REQUEST_TIMED_OUT"
    r"|NETWORK_CONNECTION)\b"
)
_GOOGLE_PASSING = re.compile(
    r"\b(?:UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL)\b|Retry policy exhausted"
)
_DENIED = re.compile(
    r"AWS Error (?:ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID"
    r"|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|EXPIRED_TOKEN)\b"
    r"|\b(?:PERMISSION_DENIED|UNAUTHENTICATED)\b|\[(?:AuthenticationFailed|AuthorizationFailure)\]"
)
_MISSING = re.compile(r"AWS Error (?:RESOURCE_NOT_FOUND|NO_SUCH_KEY|NO_SUCH_BUCKET)\b")
# Of libcurl: a malformed URL, a host that does not exist, a certificate that does not convince.
_CURL_LASTING = re.compile(r"curlCode: (?:1|3|6|51|60|77)\b")


class AnswerError(OSError):
    """An answer of a web server that is not what was asked for."""

    def __init__(self, status: int, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(f"HTTP status {status} {reason}".rstrip())
        self.status = status
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return AnswerError, (self.status, "", self.retry_after)


def kind_of(error: BaseException) -> Kind:
    """Say what to make of a failure."""
    if isinstance(error, AnswerError):
        return _kind_of_status(error.status)
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return kind_of(error.reason)
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, ssl.SSLError):
        return "passing" if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) else "other"
    if isinstance(error, socket.gaierror):
        return "passing" if error.errno == socket.EAI_AGAIN else "other"
    passing = (TimeoutError, ConnectionError, http.client.IncompleteRead, http.client.BadStatusLine)
    if isinstance(error, passing):
        return "passing"
    if isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        return "passing"
    return _kind_of_text(str(error))


def _kind_of_status(status: int) -> Kind:
    if status in _PASSING_STATUS:
        return "passing"
    if status in (401, 403):
        return "denied"
    if status in (404, 410):
        return "missing"
    return "elsewhere" if status in (301, 307) else "other"


def _kind_of_text(text: str) -> Kind:
    if _CURL_LASTING.search(text):
        return "other"
    if status := _STATUS.search(text):
        return _kind_of_status(int(status[1] or status[2]))
    if _AWS_PASSING.search(text) or _GOOGLE_PASSING.search(text):
        return "passing"
    if _DENIED.search(text):
        return "denied"
    return "missing" if _MISSING.search(text) else "other"


class Retries(NamedTuple):
    """How long failures that pass are waited for.

    Attributes
    ----------
    seconds : float
        From the first attempt; 0 for one attempt alone.
    waits : bool
        Whether the waiting is done here, or by the library that is called.
    """

    seconds: float
    waits: bool = True

    def call(self, url: str, attempt: Callable[[], T], secrets: Collection[str] = ()) -> T:
        """Do something with a store, again and again while it fails in a way that passes.

        The waits grow exponentially and are drawn at random, so that many readers do not come back at once. What is
        done in the main thread can be interrupted.

        Parameters
        ----------
        url : str
            What is read, as the user may see it.
        attempt : callable
            What to do; once it has failed, it can be called again.
        secrets : collection of str
            What must not stand in an error.

        Raises
        ------
        StoreError
            If the store did not answer in time, or refuses access.
        ReadError
            If there is no such file.
        OSError
            If it fails in another way.
        """
        deadline = time.monotonic() + (self.seconds if self.waits else 0)
        for number in itertools.count():
            try:
                return _interruptible(attempt)
            except FastlossError:
                raise
            except (OSError, http.client.HTTPException) as error:
                failure: Exception = error
            kind = kind_of(failure)
            if kind != "passing":
                raise _said(kind, url, failure, secrets) from None
            wait = random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(number, 32)))
            wait = max(wait, failure.retry_after if isinstance(failure, AnswerError) else 0)
            if time.monotonic() + wait > deadline:
                tried = f"tried for {self.seconds:g} s" if self.seconds else "tried once"
                raise StoreError(
                    f"{url!r} gives no answer ({tried}): {_line(failure, secrets)}; try later, or raise retry_seconds."
                ) from None
            _sleep(wait)
        raise AssertionError("the count of attempts has no end")


def _said(kind: Kind, url: str, failure: Exception, secrets: Collection[str]) -> Exception:
    line = _line(failure, secrets)
    if kind == "denied":
        return StoreError(
            f"access to {url!r} is refused: {line}; check the credentials (storage_options, or the environment) "
            "and what they allow."
        )
    if kind == "missing":
        return ReadError(f"there is no {url!r} ({line}).")
    if kind == "elsewhere":
        return StoreError(
            f"{url!r} is in another region or under another address: {line}; "
            "give region, or endpoint_override, in storage_options."
        )
    return OSError(line)


def _line(failure: Exception, secrets: Collection[str]) -> str:
    text = " ".join(without_secrets(str(failure), secrets).split()).rstrip(".") or type(failure).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        raise_if_stopped()
        time.sleep(min(left, _LOOK_UP_S))
    raise_if_stopped()


def _interruptible(attempt: Callable[[], T]) -> T:
    """Do something in another thread, where this one is the main thread: what waits in C++ hears no Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        return attempt()
    done: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(attempt())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="fastloss-store", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return attempt()
    while thread.is_alive():
        # A join without a time limit would keep Ctrl-C waiting.
        thread.join(_LOOK_UP_S)
    if failed:
        raise failed[0]
    return done[0]
