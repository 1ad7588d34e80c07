"""Calibration maps as values: what `fastloss calibrate` writes, and what is read back to be applied.

A map is a JSON file of a stated version. Its numbers are the shortest decimals that read back as the same float64.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastloss.errors import UsageError, nearest_names
from fastloss.files import atomic_file

KIND = "fastloss calibration map"
SCHEMA_VERSION = 1
# The coefficients of each method, in the order in which formulas take them.
COEFFICIENTS: Mapping[str, tuple[str, ...]] = {
    "platt": ("a", "b"),
    "temperature": ("a",),
    "beta": ("a", "b", "c"),
    "isotonic": (),
}
MAPPED_SPACES = ("logit", "prob", "logprob")


@dataclass(frozen=True)
class CalibrationMap:
    """A map from predictions of one space to calibrated ones.

    Attributes
    ----------
    method : {"platt", "temperature", "beta", "isotonic"}
        The kind of map.
    space : {"logit", "prob", "logprob"}
        The space of the predictions that it was fitted to.
    coefficients : tuple of float
        As `COEFFICIENTS` names them.
    knots : tuple of (float, float)
        Scores, ascending, and their probabilities, between which the map is linear; for "isotonic" alone.
    fit : dict
        What is known of the fit: rows, weight, log losses, and the fingerprint of the request. It changes no number.
    """

    method: str
    space: str
    coefficients: tuple[float, ...] = ()
    knots: tuple[tuple[float, float], ...] = ()
    fit: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def named_coefficients(self) -> dict[str, float]:
        """The coefficients by name."""
        return dict(zip(COEFFICIENTS[self.method], self.coefficients, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the map as plain values, from which `from_dict` makes an equal one."""
        plain: dict[str, Any] = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "method": self.method,
            "space": self.space,
        }
        if self.method == "isotonic":
            plain["knots"] = {"score": [x for x, _ in self.knots], "probability": [p for _, p in self.knots]}
        else:
            plain["coefficients"] = self.named_coefficients
        return {**plain, "fit": dict(self.fit)}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the map as JSON, whole or not at all."""
        with atomic_file(path, wait=True) as part:
            part.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CalibrationMap:
        """Read what `write` has written.

        Raises
        ------
        UsageError
            If the file cannot be read, is no map, or is one of another version.
        """
        name = repr(os.fspath(path))
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except OSError as error:
            raise UsageError(f"The map {name} cannot be read: {error.strerror or error}.") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{name} is no calibration map: {error}. Name a file of 'fastloss calibrate -o'."
            ) from error
        return cls.from_dict(plain, name)

    @classmethod
    def from_dict(cls, plain: Any, name: str = "The map") -> CalibrationMap:
        """Return the map of plain values.

        Raises
        ------
        UsageError
            If they are no map, or one of another version; `name` is what the message calls them.
        """
        if not isinstance(plain, Mapping) or plain.get("kind") != KIND:
            raise UsageError(f"{name} is no calibration map; name a file of 'fastloss calibrate -o'.")
        if plain.get("schema_version") != SCHEMA_VERSION:
            raise UsageError(
                f"{name} is a calibration map of version {plain.get('schema_version')!r}, and this release reads "
                f"version {SCHEMA_VERSION}; fit it again, or install the release that wrote it."
            )
        method, space, fit = str(plain.get("method")), str(plain.get("space")), plain.get("fit", {})
        if method not in COEFFICIENTS or space not in MAPPED_SPACES or not isinstance(fit, Mapping):
            raise UsageError(f"{name} is damaged: it maps {space!r} by the method {method!r}; fit it again.")
        if method == "isotonic":
            knots = plain.get("knots")
            knots = knots if isinstance(knots, Mapping) else {}
            scores, probabilities = (_numbers(name, key, knots.get(key)) for key in ("score", "probability"))
            _check_knots(name, scores, probabilities)
            return cls(method, space, (), tuple(zip(scores, probabilities, strict=True)), dict(fit))
        given = plain.get("coefficients")
        given = given if isinstance(given, Mapping) else {}
        wanted = COEFFICIENTS[method]
        coefficients = _numbers(name, "coefficients", [given.get(key) for key in wanted])
        return cls(method, space, tuple(coefficients), (), dict(fit))


def map_of(name: str, given: Any) -> CalibrationMap:
    """Return the map that a caller gave: a map, what `fastloss.calibrate` returns, or the path of a file.

    Raises
    ------
    UsageError
        If it is none of these; `name` is the option.
    """
    given = getattr(given, "map", given)
    if isinstance(given, CalibrationMap):
        return given
    if isinstance(given, str | os.PathLike):
        return CalibrationMap.read(given)
    raise UsageError(f"{name} is {given!r}; allowed: a map that calibrate returned, or the path of one.")


@dataclass(frozen=True)
class Mapped:
    """A column of predictions through a map.

    Attributes
    ----------
    name : str
        What the mapped column is called.
    column : str
        The predictions, or an expression.
    space : str
        Their space.
    map : CalibrationMap or float
        The map, or the rate at which negatives were kept in the model's training.
    """

    name: str
    column: str
    space: str
    map: CalibrationMap | float

    @property
    def mapped_space(self) -> str:
        """The space of the mapped column: what the map's formula gives."""
        if isinstance(self.map, float):
            return self.space
        return "prob" if self.map.method == "isotonic" else "logit"

    def to_plain(self) -> list[Any]:
        """Return it as plain values."""
        return [self.name, self.column, self.space, self.map if isinstance(self.map, float) else self.map.to_dict()]

    @classmethod
    def from_plain(cls, plain: Any) -> Mapped:
        """Read what `to_plain` wrote."""
        name, column, space, map = plain
        return cls(name, column, space, map if isinstance(map, float) else CalibrationMap.from_dict(map))

    def described(self) -> dict[str, Any]:
        """Return what of it can change a number, in a few plain values."""
        if isinstance(self.map, float):
            how: dict[str, Any] = {"sampling_rate": self.map}
        elif self.map.method == "isotonic":
            digest = hashlib.sha256(repr(self.map.knots).encode()).hexdigest()[:16]
            how = {"method": self.map.method, "knots": len(self.map.knots), "digest": digest}
        else:
            how = {"method": self.map.method, **self.map.named_coefficients}
        return {"column": self.column, "space": self.space, **how}


def mapped_columns(models: Sequence[tuple[str, str, str]], apply: Any, sampling_rate: Any) -> dict[str, Mapped]:
    """Return the mapped column of each model that has a map or a sampling rate, by the models' names.

    Parameters
    ----------
    models : sequence of (str, str, str)
        Name, space and column of each.
    apply : object
        The map of the only model, or maps by the names of models; None for none.
    sampling_rate : object
        The rate of all models, or rates by the names of models; None for none.

    Raises
    ------
    UsageError
        If one of these is none, or does not fit its model.
    """
    known = [name for name, *_ in models]
    if apply is not None and not isinstance(apply, Mapping):
        if len(models) > 1:
            raise UsageError(
                f"apply names no model, and there are {len(models)}; name it, such as {known[0]}=map.json."
            )
        apply = {known[0]: apply}
    if sampling_rate is not None and not isinstance(sampling_rate, Mapping):
        sampling_rate = dict.fromkeys(known, sampling_rate)
    for option, given in (("apply", apply or {}), ("sampling_rate", sampling_rate or {})):
        for name in given:
            if name not in known:
                raise UsageError(f"{option} names a model {name!r}, which is not there. {nearest_names(name, known)}")
    found: dict[str, Mapped] = {}
    for name, space, column in models:
        map: CalibrationMap | float
        if apply is not None and name in apply:
            map, what = map_of("apply", apply[name]), ""
            if sampling_rate is not None and name in sampling_rate:
                raise UsageError(f"{name!r} has a map and a sampling rate; give one: a map fitted to it mends both.")
            if space not in MAPPED_SPACES:
                raise UsageError(
                    f"apply is for {' or '.join(f'{s}=' for s in MAPPED_SPACES)}; {name!r} was declared {space}=. "
                    "Declare the column as what it is, if it is one of these, or leave out the map."
                )
            if map.method == "isotonic" and map.space != space:
                raise UsageError(
                    f"apply: the map is of {map.space}= by {map.method}, and {name!r} was declared {space}=; "
                    "calibrate the column as it was declared."
                )
            what = map.method
        elif sampling_rate is not None and name in sampling_rate:
            map, what = _rate_of(sampling_rate[name]), "sampling_rate"
            if space not in MAPPED_SPACES:
                raise UsageError(
                    f"sampling_rate is for {' or '.join(f'{s}=' for s in MAPPED_SPACES)}; {name!r} was declared "
                    f"{space}=."
                )
        else:
            continue
        called = f"{what}({column})"
        if any(other.name == called and other.map != map for other in found.values()):
            called = f"{called} of {name}"
        found[name] = Mapped(called, column, space, map)
    return found


def _rate_of(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0.0 < given <= 1.0:
        raise UsageError(
            f"sampling_rate is {given!r}; allowed: the rate at which negatives were kept in training, above 0 and at "
            "most 1."
        )
    return float(given)


def _refuse_constant(word: str) -> float:
    raise ValueError(f"it holds {word}")


def _numbers(name: str, key: str, given: Any) -> list[float]:
    """Return finite numbers, or raise a UsageError."""
    listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [None]
    for number in listed:
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not math.isfinite(_as_float(number)):
            raise UsageError(f"{name} is damaged: {key} holds {number!r}, which is no finite number; fit it again.")
    return [_as_float(number) for number in listed]


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _check_knots(name: str, scores: Sequence[float], probabilities: Sequence[float]) -> None:
    rising = all(a < b for a, b in pairwise(scores)) and all(a <= b for a, b in pairwise(probabilities))
    inside = all(0.0 <= p <= 1.0 for p in probabilities)
    if not scores or len(scores) != len(probabilities) or not rising or not inside:
        raise UsageError(
            f"{name} is damaged: its knots are {len(scores):,} scores and {len(probabilities):,} probabilities, which "
            "must be as many, ascend and lie in [0, 1]; fit it again."
        )
