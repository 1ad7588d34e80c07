"""Options of stores: each under one name, whichever library's word the user knows it by; values are never shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fastloss.errors import UsageError

Family = Literal["s3", "gs", "abfs", "http"]

# The scheme of a URL -> its family.
FAMILIES: Mapping[str, Family] = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "abfs",
    "abfss": "abfs",
    "az": "abfs",
    "http": "http",
    "https": "http",
}


class _Option(NamedTuple):
    """An option: what other libraries call it, whether its value must stay unseen, and what its value is."""

    aliases: tuple[str, ...] = ()
    is_secret: bool = False
    kind: Literal["text", "switch", "seconds"] = "text"


# By family; names are those of pyarrow.fs, aliases those of object_store (Polars, delta-rs) and fsspec.
_OPTIONS: Mapping[Family, Mapping[str, _Option]] = {
    "s3": {
        "access_key": _Option(("aws_access_key_id", "access_key_id", "key"), is_secret=True),
        "secret_key": _Option(("aws_secret_access_key", "secret_access_key", "secret"), is_secret=True),
        "session_token": _Option(("aws_session_token", "token"), is_secret=True),
        "anonymous": _Option(("anon", "skip_signature", "aws_skip_signature"), kind="switch"),
        "region": _Option(("aws_region", "region_name")),
        "endpoint_override": _Option(("endpoint_url", "aws_endpoint_url", "endpoint", "aws_endpoint")),
        "scheme": _Option(),
        "force_virtual_addressing": _Option(
            ("virtual_hosted_style_request", "aws_virtual_hosted_style_request"), kind="switch"
        ),
        "role_arn": _Option(("aws_role_arn",)),
        "session_name": _Option(),
        "external_id": _Option(is_secret=True),
        "proxy_options": _Option(("proxy_url",), is_secret=True),
        "tls_ca_file_path": _Option(),
        "connect_timeout": _Option(kind="seconds"),
        "request_timeout": _Option(("timeout",), kind="seconds"),
    },
    "gs": {
        "anonymous": _Option(("anon", "skip_signature", "google_skip_signature"), kind="switch"),
        "access_token": _Option(("token",), is_secret=True),
        "target_service_account": _Option(),
        "endpoint_override": _Option(("endpoint_url",)),
        "scheme": _Option(),
        "project_id": _Option(("project",)),
    },
    "abfs": {
        "account_name": _Option(("azure_storage_account_name",)),
        "account_key": _Option(("azure_storage_account_key", "access_key"), is_secret=True),
        "sas_token": _Option(("azure_storage_sas_token", "sas_key"), is_secret=True),
        "tenant_id": _Option(("azure_storage_tenant_id",)),
        "client_id": _Option(("azure_storage_client_id",)),
        "client_secret": _Option(("azure_storage_client_secret",), is_secret=True),
        "blob_storage_authority": _Option(),
        "blob_storage_scheme": _Option(),
        "dfs_storage_authority": _Option(),
        "dfs_storage_scheme": _Option(),
    },
    "http": {
        "username": _Option(),
        "password": _Option(is_secret=True),
        "bearer_token": _Option(("token",), is_secret=True),
        "request_timeout": _Option(("timeout",), kind="seconds"),
    },
}
_NAMES: Mapping[Family, Mapping[str, str]] = {
    family: {word: name for name, option in options.items() for word in (name, *option.aliases)}
    for family, options in _OPTIONS.items()
}
_SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class FamilyOptions:
    """The options of one kind of store, under the names of pyarrow.fs, each with a value of its type."""

    family: Family
    values: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"FamilyOptions({self.family}: {', '.join(self.values)})"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must not be shown, the longest first."""
        options = _OPTIONS[self.family]
        found = {str(value) for name, value in self.values.items() if options[name].is_secret}
        # A shorter one is no secret, and may be a part of any word.
        return tuple(sorted((value for value in found if len(value) >= 4), key=len, reverse=True))

    def without_secrets(self, text: str) -> str:
        """Return a text in which none of the secrets stands."""
        return without_secrets(text, self.secrets)


def check_storage_options(given: object) -> None:
    """Raise a UsageError if something is no option of any store."""
    if given is None:
        return
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise UsageError(
            f"storage_options is a {type(given).__name__}; allowed: a mapping of names to values, such as "
            "{'region': 'eu-central-1'}."
        )
    for key in given:
        if not any(key in names for names in _NAMES.values()):
            raise _unknown(key, tuple(_OPTIONS))


def check_families(given: Mapping[str, object] | None, families: Collection[Family]) -> None:
    """Raise a UsageError if an option concerns none of these kinds of store."""
    for key in given or {}:
        if not families:
            raise UsageError(
                f"storage_options has {key!r}, and no part of the log is a URL; "
                "leave it out, or name a log such as s3://bucket/folder."
            )
        if not any(key in _NAMES[family] for family in families):
            raise _unknown(key, sorted(families))


def options_of(family: Family, given: Mapping[str, object]) -> FamilyOptions:
    """Return those of the options that concern one kind of store.

    Raises
    ------
    UsageError
        If one is given twice, under two names, or has a value of another type.
    """
    values: dict[str, Any] = {}
    words: dict[str, str] = {}
    for word, value in given.items():
        name = _NAMES[family].get(word)
        if name is None or value is None:
            continue
        if name in words:
            raise UsageError(f"storage_options has {words[name]!r} and {word!r}, which are the same; give one.")
        words[name] = word
        values[name] = _value_of(word, value, _OPTIONS[family][name])
    return FamilyOptions(family, values)


def _value_of(word: str, value: object, option: _Option) -> Any:
    # What was given is not shown: a value that is no switch may be a key in the wrong place.
    if option.kind == "switch":
        switch = value if isinstance(value, bool) else _SWITCHES.get(str(value).lower())
        if switch is None:
            raise UsageError(f"storage_options has a value for {word!r} that is none of those allowed: true, false.")
        return switch
    if option.kind == "seconds":
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise UsageError(f"storage_options has a value for {word!r} that is no number of seconds above 0.")
        return seconds
    if not isinstance(value, str):
        raise UsageError(f"storage_options has a {type(value).__name__} for {word!r}; allowed: a text.")
    return value


def _unknown(key: str, families: Collection[Family]) -> UsageError:
    allowed = "; ".join(f"for {family}://: {', '.join(_OPTIONS[family])}" for family in families)
    return UsageError(f"storage_options has {key!r}; allowed are {allowed}.")


def is_option(family: Family, word: str) -> bool:
    """Say whether a kind of store has an option of this name."""
    return word in _NAMES[family]


def without_secrets(text: str, secrets: Collection[str]) -> str:
    """Return a text in which no secret stands."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


def shown_url(url: str) -> str:
    """Return a URL without its user, password and options, any of which may be a secret."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest, _, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    # In abfs://container@account the first part is a name; a password in it is not shown.
    kept = f"{user.partition(':')[0]}@" if at and FAMILIES.get(scheme) == "abfs" else ""
    # A "?" without options is a wildcard's mistake, which the user must see; of a web server's URL it may be a key.
    is_pattern = query and "=" not in query and FAMILIES.get(scheme) != "http"
    return f"{scheme}://{kept}{host}{slash}{path}" + (f"?{query}" if is_pattern else "")
