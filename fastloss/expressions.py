"""Expressions as they are written: words, lists of them, and what no expression may hold.

The language is Polars' SQL, which Polars itself reads (`fastloss.columns.expressions`). Here an expression is only
split into words, to find its end in a list, the columns that it may name, and what would read more than the log.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastloss.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")*"|`[^`]*`)"""
    r"""|(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)|(?P<other>\S)"""
)
# Functions around an expression that put its numbers into buckets.
BUCKETS = frozenset({"cut", "qcut", "width_bucket", "log_bucket"})
# Words that begin a query of its own, or join two.
_QUERIES = frozenset({"select", "union", "intersect", "except", "table", "values", "with"})
_READS_FILES = re.compile(r"(?:read|scan)_\w+")


@dataclass(frozen=True)
class Token:
    """A word of an expression.

    Attributes
    ----------
    kind : str
        ``"text"``, ``"quoted"`` (a name in quotes), ``"name"`` (with its dots), or ``"other"`` (one character).
    word : str
        The word, with its quotes.
    first : int
        Where it begins.
    """

    kind: str
    word: str
    first: int

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.first + len(self.word)

    @property
    def unquoted(self) -> str:
        """The word without its quotes."""
        if self.kind not in ("text", "quoted"):
            return self.word
        return self.word[1:-1].replace(2 * self.word[0], self.word[0])


@dataclass(frozen=True)
class PolarsExpression:
    """A Polars expression as a value that can be hashed and stored.

    Attributes
    ----------
    text : str
        What Polars prints for it.
    serialized : bytes
        What Polars writes for it.
    """

    text: str
    serialized: bytes

    @classmethod
    def of(cls, expression: pl.Expr) -> PolarsExpression:
        """Return an expression as a value; one that calls Python cannot be stored.

        Raises
        ------
        UsageError
            If Polars cannot write it.
        """
        try:
            return cls(str(expression), expression.meta.serialize())
        except Exception as error:
            raise UsageError(
                f"The expression {expression} cannot be stored: {error}; use one without Python."
            ) from error

    def to_plain(self) -> dict[str, str]:
        """Return it as plain values."""
        return {"text": self.text, "polars": base64.b64encode(self.serialized).decode()}


def expression_of(name: str, given: Any) -> str | PolarsExpression:
    """Return an expression that a caller gave: SQL, or a Polars expression.

    Raises
    ------
    UsageError
        If it is neither.
    """
    if isinstance(given, str):
        if not given.strip():
            raise UsageError(f"{name} is empty; write an expression such as country = 'DE'.")
        return given
    if isinstance(given, PolarsExpression):
        return given
    if type(given).__name__ == "Expr" and type(given).__module__.startswith("polars."):
        return PolarsExpression.of(given)
    raise UsageError(f"{name} is {given!r}; allowed: Polars' SQL as a string, or a Polars expression.")


def plain_expression(given: str | PolarsExpression) -> Any:
    """Return an expression as plain values."""
    return given if isinstance(given, str) else given.to_plain()


def expression_from_plain(plain: Any) -> str | PolarsExpression:
    """Read what `PolarsExpression.to_plain` wrote, or a string."""
    return plain if isinstance(plain, str) else PolarsExpression(plain["text"], base64.b64decode(plain["polars"]))


def tokens_of(text: str) -> list[Token]:
    """Split an expression into words."""
    return [Token(str(match.lastgroup), match.group(), match.start()) for match in _TOKEN.finditer(text)]


def is_name(text: str) -> bool:
    """Tell whether a text is one name, plain or with dots, and no expression."""
    tokens = tokens_of(text)
    return len(tokens) == 1 and tokens[0].kind in ("name", "quoted")


def split_list(text: str) -> list[str]:
    """Split a list at the commas that stand in no quotes and no parentheses; an entry in double quotes loses them."""
    return [unquoted(entry) for entry in _entries(text)]


def _entries(text: str) -> list[str]:
    entries, depth, first = [], 0, 0
    for token in tokens_of(text):
        depth += (token.word in "([") - (token.word in ")]")
        if token.word == "," and depth <= 0:
            entries.append(text[first : token.first])
            first = token.stop
    entries.append(text[first:])
    return [entry.strip() for entry in entries]


def unquoted(entry: str) -> str:
    """Return an entry without its quotes, if it is a quoted name."""
    tokens = tokens_of(entry)
    return tokens[0].unquoted if len(tokens) == 1 and tokens[0].kind == "quoted" else entry


def bucket_call(text: str) -> tuple[str, list[str]] | None:
    """Return the function and the arguments of a text that is one call of a function of `BUCKETS`; else None."""
    tokens = tokens_of(text)
    if len(tokens) < 3 or tokens[0].word.lower() not in BUCKETS or tokens[1].word != "(":
        return None
    depth = 0
    for number, token in enumerate(tokens):
        depth += (token.word == "(") - (token.word == ")")
        if number and depth == 0:
            break
    if token is not tokens[-1] or token.word != ")":
        return None
    return tokens[0].word.lower(), _entries(text[tokens[1].stop : token.first])


def refuse_buckets(text: str) -> None:
    """Refuse functions of `BUCKETS` inside an expression: Polars does not know them."""
    tokens = tokens_of(text)
    for token, following in itertools.pairwise(tokens):
        if token.kind == "name" and token.word.lower() in BUCKETS and following.word == "(":
            raise refusal(
                text,
                f"{token.word} stands inside of it, and buckets are made around a whole expression; name them first, "
                f"--with 'bucket = {token.word.lower()}(…)', and write the name",
            )


def possible_columns(given: str | PolarsExpression) -> set[str]:
    """Return the text itself and every name in it; some may be those of functions, or beginnings of dotted names."""
    if isinstance(given, PolarsExpression):
        import polars as pl

        return set(pl.Expr.deserialize(given.serialized).meta.root_names())
    found = {given}
    for token in tokens_of(given):
        if token.kind == "quoted":
            found.add(token.unquoted)
        elif token.kind == "name":
            parts = token.word.split(".")
            found.update(".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return found


def quote_dotted(text: str, columns: Sequence[str]) -> str:
    """Return an expression with double quotes around each dotted name that is a column."""
    known = set(columns)
    parts, first = [], 0
    for token in tokens_of(text):
        if token.kind == "name" and "." in token.word and token.word in known:
            parts += [text[first : token.first], f'"{token.word}"']
            first = token.stop
    return "".join([*parts, text[first:]])


def refusal(text: str, reason: str) -> UsageError:
    """Return the error of an expression."""
    return UsageError(f"Expression {text!r}: {reason}.")


def refuse_queries(text: str) -> None:
    """Refuse whatever could make Polars read something else than the log's columns: it opens files as it parses.

    Raises
    ------
    UsageError
        If the text holds a query, a comment or a second statement, or its quotes or parentheses do not match.
    """
    tokens = tokens_of(text)
    depth = 0
    for number, token in enumerate(tokens):
        word = token.word.lower()
        previous = tokens[number - 1] if number else Token("other", "", 0)
        adjoining = number > 0 and previous.stop == token.first
        following = tokens[number + 1].word if number + 1 < len(tokens) else ""
        if token.kind == "text" and adjoining and previous.kind == "name":
            raise refusal(text, f"a text is prefixed with {previous.word!r}; write it in single quotes alone")
        if token.kind == "name" and (
            word in _QUERIES
            or (word == "from" and previous.word == "(")
            or (following == "(" and _READS_FILES.fullmatch(word))
        ):
            hint = f'; a column of that name stands in double quotes: "{token.word}"' if word in _QUERIES else ""
            raise refusal(text, f"{token.word!r} belongs to a query; allowed: columns of the row{hint}")
        if token.word in ("'", '"', "`"):
            raise refusal(text, f"a quote {token.word} is not closed")
        if token.word in (";", "$", "\\", "#") or (adjoining and previous.word + token.word in ("--", "/*")):
            raise refusal(text, f"{token.word!r} stands outside of quotes; allowed: one expression without comments")
        depth += (token.word == "(") - (token.word == ")")
        if depth < 0:
            break
    if depth:
        raise refusal(text, "its parentheses do not match")
