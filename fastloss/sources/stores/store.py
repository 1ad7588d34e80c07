"""One kind of file system for every store: lists, opens, and reads by ranges, each tried again where that helps."""

from __future__ import annotations

import bisect
import contextlib
import datetime
import functools
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

import pyarrow as pa
from pyarrow import fs

from fastloss.errors import ReadError, UsageError
from fastloss.executors import ThreadExecutor
from fastloss.sources.stores.options import FAMILIES, Family, FamilyOptions, is_option, options_of, shown_url
from fastloss.sources.stores.retries import Retries
from fastloss.sources.stores.web import WebFiles

# One request takes some tens of milliseconds before its first byte, and a connection gives some 100 MB/s.
_PART_BYTES = 8 << 20
_CONNECTIONS = 8
# What lies between two column chunks is read with them if it is shorter.
_LONGEST_HOLE = 64 << 10
_CONNECT_S = 10.0
_SILENCE_S = 30.0


class Recipe(NamedTuple):
    """All that it takes to make a file system, in any process."""

    family: Family
    options: tuple[tuple[str, Any], ...]
    retry_seconds: float

    def __repr__(self) -> str:
        return f"Recipe({self.family})"


@functools.lru_cache(maxsize=16)
def _native_of(recipe: Recipe) -> Any:
    """Return the file system of a recipe: one in each process, since it keeps connections open."""
    options = dict(recipe.options)
    if recipe.family == "s3":
        endpoint = options.get("endpoint_override", "")
        if "://" in endpoint:
            options["scheme"], _, host = endpoint.partition("://")
            options["endpoint_override"] = host.rstrip("/")
        options.setdefault("connect_timeout", _CONNECT_S)
        options.setdefault("request_timeout", _SILENCE_S)
        # One attempt: its own strategy knows a number of attempts and no time, and a Ctrl-C would wait for it.
        return fs.S3FileSystem(**options, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1))
    if recipe.family == "gs":
        endpoint = options.get("endpoint_override", "")
        if "://" in endpoint:
            options["scheme"], _, host = endpoint.partition("://")
            options["endpoint_override"] = host.rstrip("/")
        if "access_token" in options:
            # pyarrow wants to know when it expires, and does not ask for another then.
            options["credential_token_expiration"] = datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC)
        return fs.GcsFileSystem(**options, retry_time_limit=datetime.timedelta(seconds=recipe.retry_seconds))
    if recipe.family == "abfs":
        return fs.AzureFileSystem(**options)
    return WebFiles(FamilyOptions(recipe.family, options))


class Store:
    """The file system of a store, or of a web server; it can be pickled.

    Parameters
    ----------
    native : object
        A pyarrow file system, or what opens files likewise.
    retries : Retries
        How long failures that pass are waited for.
    prefix : str
        What makes a URL of a path.
    dropped : str
        What paths begin with and their URLs do not.
    secrets : sequence of str
        What must not stand in an error.
    """

    def __init__(
        self, native: Any, retries: Retries, prefix: str, *, dropped: str = "", secrets: Sequence[str] = ()
    ) -> None:
        self._native = native
        self._retries = retries
        self._prefix = prefix
        self._dropped = dropped
        self._secrets = tuple(secrets)
        self._recipe: Recipe | None = None

    @classmethod
    def of(cls, recipe: Recipe, prefix: str, dropped: str = "") -> Store:
        """Make a store."""
        options = FamilyOptions(recipe.family, dict(recipe.options))
        # Google's library waits by itself, and as long.
        retries = Retries(recipe.retry_seconds, waits=recipe.family != "gs")
        try:
            native = _native_of(recipe)
        except (ValueError, TypeError, OSError, pa.ArrowException) as error:
            text = options.without_secrets(str(error).rstrip("."))
            raise UsageError(f"{prefix}… cannot be read: {text}; check storage_options.") from None
        store = cls(native, retries, prefix, dropped=dropped, secrets=options.secrets)
        store._recipe = recipe
        return store

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is not None:
            return Store.of, (self._recipe, self._prefix, self._dropped)
        return _store_of_native, (self._native, self._retries, self._prefix, self._dropped, self._secrets)

    @property
    def type_name(self) -> str:
        """What tells this kind of store from others."""
        return str(self._native.type_name)

    def url_of(self, path: str) -> str:
        """Return the URL of a path, as the user may see it."""
        url = self._prefix + path.removeprefix(self._dropped)
        # Of a web server, the path is the URL with its options.
        return shown_url(url) if isinstance(self._native, WebFiles) else url

    def get_file_info(self, wanted: str | Sequence[str] | fs.FileSelector) -> Any:
        """Return what is known of a path, of several, or of what lies in a folder; see `pyarrow.fs.FileSystem`."""
        if isinstance(self._native, WebFiles):
            with StoreFile(self._native, str(wanted), self.url_of(str(wanted)), self._retries, self._secrets) as file:
                modified = file.native.modified_ns
                return fs.FileInfo(str(wanted), fs.FileType.File, size=file.size(), mtime_ns=modified)
        if not isinstance(wanted, (str, fs.FileSelector)):
            # Each is tried again by itself.
            return [self.get_file_info(path) for path in wanted]
        url = self.url_of(wanted.base_dir if isinstance(wanted, fs.FileSelector) else wanted)
        return self._retries.call(url, lambda: self._native.get_file_info(wanted), self._secrets)

    def open_input_file(self, path: str) -> StoreFile | pa.NativeFile:
        """Open a file; one of a library that waits by itself is handed to Arrow as it is."""
        if not self._retries.waits:
            url = self.url_of(path)
            return self._retries.call(url, lambda: self._native.open_input_file(path), self._secrets)
        return StoreFile(self._native, path, self.url_of(path), self._retries, self._secrets)


def _store_of_native(native: Any, retries: Retries, prefix: str, dropped: str, secrets: Sequence[str]) -> Store:
    return Store(native, retries, prefix, dropped=dropped, secrets=secrets)


class _Part(NamedTuple):
    """A range that one request reads, and where its bytes go."""

    origin: str
    first: int
    target: memoryview


class StoreFile(io.RawIOBase):
    """An open file of a store, for Arrow: every read is one of a range, tried again where that helps."""

    def __init__(self, native: Any, path: str, url: str, retries: Retries, secrets: Sequence[str]) -> None:
        super().__init__()
        self._filesystem, self._path, self._url = native, path, url
        self._retries, self._secrets = retries, tuple(secrets)
        self._position = 0
        self._ahead: list[tuple[int, memoryview]] = []
        self.native = self._open()
        self._size = int(self.native.size())
        self.content = self._content_of(self.native)

    def _open(self) -> Any:
        return self._retries.call(self._url, lambda: self._filesystem.open_input_file(self._path), self._secrets)

    @staticmethod
    def _content_of(native: Any) -> tuple[int, str | None]:
        known = {str(key).lower(): value for key, value in (native.metadata() or {}).items()}
        tag = known.get("etag") or known.get("last-modified")
        return int(native.size()), tag.decode("utf-8", "replace") if isinstance(tag, bytes) else tag

    def size(self) -> int:
        """Return the size in bytes."""
        return self._size

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any part can be read."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def read(self, n_bytes: int | None = -1) -> Any:
        """Read so many bytes, or those up to the end if there are fewer."""
        left = max(0, self._size - self._position)
        n_bytes = left if n_bytes is None or n_bytes < 0 else min(n_bytes, left)
        fetched = self._fetched(self._position, n_bytes)
        found = self._read_at(self._position, n_bytes) if fetched is None else fetched
        self._position += n_bytes
        return found

    def _fetched(self, first: int, n_bytes: int) -> memoryview | None:
        """Return a range that was fetched ahead, if all of it was."""
        index = bisect.bisect_right(self._ahead, first, key=lambda entry: entry[0]) - 1
        if index < 0:
            return None
        start, content = self._ahead[index]
        return content[first - start : first - start + n_bytes] if first + n_bytes <= start + len(content) else None

    def _read_at(self, first: int, n_bytes: int) -> bytes:
        if n_bytes == 0:
            return b""

        def attempt() -> bytes:
            return bytes(self.native.read_at(n_bytes, first))

        found = self._retries.call(self._url, attempt, self._secrets)
        if len(found) != n_bytes:
            raise self._changed()
        return found

    def fetch_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Read ranges, each its first byte and its size, over several connections at once; they stay in memory."""
        parts: list[_Part] = []
        for first, last in _joined(ranges, self._size):
            content = memoryview(bytearray(last - first))
            self._ahead.append((first, content))
            parts += (
                _Part(self._url, first + start, content[start : start + _PART_BYTES])
                for start in range(0, last - first, _PART_BYTES)
            )
        self._ahead.sort(key=lambda entry: entry[0])
        if len(parts) == 1:
            self._fetch(parts[0])
        elif parts:
            ThreadExecutor(min(_CONNECTIONS, len(parts))).fold(parts, self._fetch, lambda *_: None)

    def _fetch(self, part: _Part) -> None:
        part.target[:] = self._read_at(part.first, len(part.target))

    def check_unchanged(self) -> None:
        """Raise a ReadError if another file has been put under this name since this one was opened."""
        # A web server's answers are compared one by one.
        if isinstance(self._filesystem, WebFiles):
            return
        with contextlib.closing(self._open()) as native:
            if self._content_of(native) != self.content:
                raise self._changed()

    def _changed(self) -> ReadError:
        return ReadError(f"{self._url!r} changed while it was read; read a complete log.")

    def close(self) -> None:
        """Let go of what was fetched ahead, and of the file."""
        if not self.closed:
            self._ahead.clear()
            native = getattr(self, "native", None)
            if native is not None:
                native.close()
        super().close()


def _joined(ranges: Iterable[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return ranges as first bytes and ends, those that lie close together as one."""
    joined: list[tuple[int, int]] = []
    for first, n_bytes in sorted(ranges):
        last = min(first + n_bytes, size)
        if joined and first <= joined[-1][1] + _LONGEST_HOLE:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        elif first < last:
            joined.append((first, last))
    return joined


class Stores(NamedTuple):
    """What the user says of stores, and how long their failures are waited for."""

    options: Mapping[str, object]
    retry_seconds: float = 60.0

    def __repr__(self) -> str:
        return f"Stores({', '.join(self.options)})"

    def locate(self, url: str) -> tuple[Store, str]:
        """Return the store of a URL, and the path or pattern there.

        Raises
        ------
        UsageError
            If the URL or an option is not as it must be.
        StoreError
            If the store gives no answer where it must be asked for the region of a bucket.
        """
        scheme, _, rest = url.partition("://")
        family = FAMILIES[scheme]
        if family == "http":
            return self._locate_web(url)
        rest, _, query = rest.partition("?")
        if query and "=" not in query:
            raise UsageError(f"the URL {url!r} has a '?', which begins a URL's options; as a wildcard use * or [].")
        host, _, _ = rest.partition("/")
        user, at, host = host.rpartition("@")
        bucket_path = rest[len(user) + 1 :] if at else rest
        shown = shown_url(url)
        if re.search(r"[*\[]", host):
            raise UsageError(f"the URL {shown!r} has a wildcard in its bucket; name one bucket.")
        if not host:
            raise UsageError(f"the URL {shown!r} has no bucket; write {scheme}://BUCKET/PATH.")
        given = dict(parse_qsl(query, keep_blank_values=True))
        for word in given:
            if not is_option(family, word):
                raise UsageError(f"the URL {shown!r} has the option {word!r}; allowed are those of storage_options.")
        prefix, dropped = f"{scheme}://", ""
        if family == "s3" and at:
            key, _, secret = user.partition(":")
            given |= {"access_key": unquote(key), "secret_key": unquote(secret)}
        elif family == "gs" and user == "anonymous":
            given["anonymous"] = "true"
        elif family == "abfs" and (at or host.endswith(".core.windows.net")):
            # CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, or ACCOUNT.blob.core.windows.net/CONTAINER/PATH
            given["account_name"] = host.partition(".")[0]
            below = rest.partition("/")[2]
            container = user.partition(":")[0]
            bucket_path = f"{container}/{below}" if at else below
            prefix, dropped = (
                (f"{scheme}://{container}@{host}/", f"{container}/") if at else (f"{scheme}://{host}/", "")
            )
        values = {**options_of(family, given).values, **options_of(family, self.options).values}
        if family == "abfs" and "account_name" not in values:
            raise UsageError(
                f"the URL {shown!r} names no account; give account_name in storage_options, or write "
                f"{scheme}://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH."
            )
        if family == "s3" and not {"region", "endpoint_override"} & set(values) and not _endpoint_of_environment():
            values["region"] = Retries(self.retry_seconds).call(shown, lambda: fs.resolve_s3_region(host))
        recipe = Recipe(family, tuple(sorted(values.items())), self.retry_seconds)
        return Store.of(recipe, prefix, dropped), bucket_path

    def _locate_web(self, url: str) -> tuple[Store, str]:
        scheme, _, rest = url.partition("#")[0].partition("://")
        host, slash, path = rest.partition("/")
        user, at, host = host.rpartition("@")
        shown = shown_url(url)
        if "*" in path.partition("?")[0] or path.partition("?")[0].endswith("/") or not path:
            raise UsageError(f"the URL {shown!r} names no single file, and a web server lists none; name each file.")
        given: dict[str, object] = {}
        if at:
            name, _, password = user.partition(":")
            given = {"username": unquote(name), "password": unquote(password)}
        values = {**given, **options_of("http", self.options).values}
        recipe = Recipe("http", tuple(sorted(values.items())), self.retry_seconds)
        # The path is the whole URL, with options that may be a signature: `url_of` shows it without them.
        return Store.of(recipe, ""), f"{scheme}://{host}{slash}{path}"


def _endpoint_of_environment() -> bool:
    return "AWS_ENDPOINT_URL_S3" in os.environ or "AWS_ENDPOINT_URL" in os.environ
