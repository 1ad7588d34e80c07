"""Files on web servers, read by ranges.

The first request asks for the end of a file: its answer has the size, the entity tag and, mostly, the whole footer. A
file is asked for by GET alone, since a signed URL allows no other method.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import re
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from fastloss.errors import ReadError, UsageError
from fastloss.sources.stores.options import FamilyOptions, shown_url
from fastloss.sources.stores.retries import AnswerError

_TAIL_BYTES = 1 << 16
# A server that sends nothing for so long is asked again.
_SILENCE_S = 30.0
# The answer to a request that does not ask for the range of an empty file has no range either.
_NO_BYTES = "bytes */0"


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens http and https alone, through the environment's proxies; a redirection leads nowhere else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


class WebFiles:
    """A web server as a file system: it opens files, and lists none."""

    type_name = "http"

    def __init__(self, options: FamilyOptions) -> None:
        self._opener = _opener()
        self._timeout = float(options.values.get("request_timeout", _SILENCE_S))
        self._authorization = _authorization(options.values)

    def open_input_file(self, path: str) -> WebFile:
        """Open the file of a URL."""
        return WebFile(self, path)

    def get(self, url: str, wanted: str) -> tuple[int, Any, bytes]:
        """Ask for a range of a file; return status, headers and body of the answer."""
        request = urllib.request.Request(
            # A space or a letter of another alphabet may stand in a URL as users write it.
            quote(url, safe="%/:=&?~#+!$,;'@()*[]"),
            headers={"Range": f"bytes={wanted}", "Accept-Encoding": "identity", "User-Agent": "fastloss"},
        )
        if self._authorization is not None:
            # Not for a server that this one redirects to.
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                # A server that does not know ranges sends the whole file, which is not waited for.
                body = answer.read() if answer.status == 206 else b""
                return answer.status, answer.headers, body
        except HTTPError as error:
            with error:
                if error.code == 416 and error.headers.get("Content-Range") == _NO_BYTES:
                    return 200, {"Content-Length": "0"}, b""
                raise AnswerError(error.code, str(error.reason), _retry_after(error.headers)) from None


def _authorization(values: Mapping[str, Any]) -> str | None:
    if "bearer_token" in values:
        return f"Bearer {values['bearer_token']}"
    if "username" in values or "password" in values:
        pair = f"{values.get('username', '')}:{values.get('password', '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    return None


def _retry_after(headers: Any) -> float:
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, float(headers.get("Retry-After", 0)))
    return 0.0


class WebFile:
    """An open file on a web server; it may be read by several threads at once.

    Raises
    ------
    UsageError
        If the server gives whole files only.
    """

    def __init__(self, server: WebFiles, url: str) -> None:
        self._server = server
        self._url = url
        self._size = 0
        self._tag: str | None = None
        self._tail = b""
        self.modified_ns: int | None = None
        status, headers, body = server.get(url, f"-{_TAIL_BYTES}")
        if status == 206:
            first, size = self._range_of(headers, body)
            self._size, self._tag = size, _tag_of(headers)
            if first + len(body) == size:
                self._tail = body
        elif headers.get("Content-Length") != "0":
            raise self._whole_files_only()
        with contextlib.suppress(ValueError, TypeError):
            modified = email.utils.parsedate_to_datetime(headers.get("Last-Modified"))
            self.modified_ns = int(modified.timestamp()) * 10**9

    def __enter__(self) -> WebFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def size(self) -> int:
        """Return the size in bytes."""
        return self._size

    def metadata(self) -> dict[str, bytes]:
        """Return the entity tag, or what tells of a change where the server gives none."""
        return {} if self._tag is None else {"ETag": self._tag.encode()}

    def read_at(self, n_bytes: int, offset: int) -> bytes:
        """Read so many bytes from a place; they lie within the file."""
        start = offset - (self._size - len(self._tail))
        if start >= 0:
            return self._tail[start : start + n_bytes]
        status, headers, body = self._server.get(self._url, f"{offset}-{offset + n_bytes - 1}")
        if status != 206:
            raise self._whole_files_only()
        first, size = self._range_of(headers, body)
        if size != self._size or _tag_of(headers) != self._tag:
            raise ReadError(f"{shown_url(self._url)!r} changed while it was read; read a complete log.")
        if first != offset or len(body) != n_bytes:
            raise http.client.IncompleteRead(body, n_bytes - len(body))
        return body

    def close(self) -> None:
        """Do nothing: no connection is held."""

    def _range_of(self, headers: Any, body: bytes) -> tuple[int, int]:
        """Return the first byte of an answer and the size of the file, after checking that all of it came."""
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", "").strip())
        if found is None or headers.get("Content-Encoding", "identity") != "identity":
            raise self._whole_files_only()
        first, last, size = map(int, found.groups())
        if last - first + 1 != len(body):
            raise http.client.IncompleteRead(body, last - first + 1 - len(body))
        return first, size

    def _whole_files_only(self) -> UsageError:
        return UsageError(
            f"the server of {shown_url(self._url)!r} does not give parts of a file (no range requests); "
            "download the file and name the copy, or use a server that does."
        )


def _tag_of(headers: Any) -> str | None:
    tag = headers.get("ETag") or headers.get("Last-Modified")
    return None if tag is None else str(tag)
