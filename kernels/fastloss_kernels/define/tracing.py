"""From a user's Python function of one row to a graph: follow it once along each of its paths.

The function is called with `Number` objects, which note every operation in a `Graph`. Where it asks a comparison for
its truth (``if``, ``and``, ``a < x < b``), it is called again for the other answer, and both results meet in a
selection: a branch of the user becomes what the shipped formulas are made of, so its loop vectorises. Calls of
`math` and NumPy become the formulas of `elementary`, so it gives the same bits on every device. No source text is
needed: lambdas, closures, helper functions and loops of a fixed length work.
"""

from __future__ import annotations

import builtins
import math
import operator
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastloss_kernels import elementary, jit
from fastloss_kernels.define.graph import Graph


def _binary(kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(self: Number, other: Any) -> Any:
        node = self.lift(other)
        return NotImplemented if node is None else self.made(kind, self.node, node)

    def backward(self: Number, other: Any) -> Any:
        node = self.lift(other)
        return NotImplemented if node is None else self.made(kind, node, self.node)

    return forward, backward


def _comparison(kind: str, swapped: bool = False) -> Callable[..., Any]:
    def compare(self: Number, other: Any) -> Any:
        node = self.lift(other)
        if node is None:
            return NotImplemented
        return Condition(self.graph, self.graph.add(kind, *((node, self.node) if swapped else (self.node, node))))

    return compare


class Number:
    """A number of the row that is not known yet; arithmetic and comparisons with it are noted in its graph."""

    # NumPy's scalars leave arithmetic with it to it.
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, graph: Graph, node: int) -> None:
        self.graph = graph
        self.node = node

    def lift(self, other: Any) -> int | None:
        """Return the node of a number beside this one; None of anything else."""
        return node_of(self.graph, other)

    def made(self, kind: str, *nodes: int) -> Number:
        """Return the result of an operation."""
        return Number(self.graph, self.graph.power(*nodes) if kind == "power" else self.graph.add(kind, *nodes))

    __add__, __radd__ = _binary("add")
    __sub__, __rsub__ = _binary("subtract")
    __mul__, __rmul__ = _binary("multiply")
    __truediv__, __rtruediv__ = _binary("divide")
    __pow__, __rpow__ = _binary("power")
    __lt__, __gt__ = _comparison("less"), _comparison("less", swapped=True)
    __le__, __ge__ = _comparison("less_equal"), _comparison("less_equal", swapped=True)
    __eq__, __ne__ = _comparison("equal"), _comparison("not_equal")  # type: ignore[assignment]

    def __neg__(self) -> Number:
        return self.made("negative", self.node)

    def __pos__(self) -> Number:
        return self

    def __abs__(self) -> Number:
        return self.made("absolute", self.node)

    def __bool__(self) -> bool:
        return self.graph.decide(self.graph.add("not_equal", self.node, self.graph.zero))

    def __float__(self) -> float:
        value = self.graph.value_of(self.node)
        if value is None:
            raise TypeError(
                "float(), or a function that cannot be followed, was called with a number of the row; "
                f"allowed: {ALLOWED}"
            )
        return float(value)


class Condition(Number):
    """The truth of a comparison; as a number it is 1 or 0."""

    def __init__(self, graph: Graph, condition: int) -> None:
        super().__init__(graph, graph.add("select", condition, graph.one, graph.zero))
        self.condition = condition

    def __bool__(self) -> bool:
        return self.graph.decide(self.condition)

    def _with(self, kind: str, other: Any) -> Any:
        if isinstance(other, bool):
            other = Condition(self.graph, self.graph.constant(other))
        if not isinstance(other, Condition):
            return NotImplemented
        return Condition(self.graph, self.graph.add(kind, self.condition, other.condition))

    def __and__(self, other: Any) -> Any:
        return self._with("and", other)

    def __or__(self, other: Any) -> Any:
        return self._with("or", other)

    __rand__, __ror__ = __and__, __or__

    def __invert__(self) -> Condition:
        return Condition(self.graph, self.graph.add("not", self.condition))


def node_of(graph: Graph, value: Any) -> int | None:
    """Return the node of a `Number` or of a plain number; None of anything else."""
    if isinstance(value, Number):
        return value.node
    if isinstance(value, (int, float)) or (hasattr(value, "__float__") and getattr(value, "ndim", None) == 0):
        return graph.constant(float(value))
    return None


# ---------------------------------------------------------------------------------------------------------------
# The functions that a formula may call. Each takes and returns `Number` objects.


def _square(x: Any) -> Any:
    return x * x


def _sign(x: Any) -> Any:
    return (x > 0.0) - (x < 0.0)


def _where(condition: Any, a: Any, b: Any) -> Any:
    chosen = condition if isinstance(condition, Condition) else condition != 0.0
    return Number(a.graph, a.graph.add("select", chosen.condition, a.node, b.node))


def _extreme(kind: str) -> Callable[..., Any]:
    def extreme(first: Any, *others: Any) -> Any:
        for other in others:
            first = first.made(kind, first.node, other.node)
        return first

    return extreme


def _call(kind: str) -> Callable[..., Any]:
    return lambda first, *others: first.made(kind, *(number.node for number in (first, *others)))


_exp, _log, _log1p = _call("exp"), _call("log"), _call("log1p")
_maximum, _minimum = _extreme("maximum"), _extreme("minimum")


def _logaddexp(a: Any, b: Any) -> Any:
    return _maximum(a, b) + _log1p(_exp(-abs(a - b)))


SHARED: Mapping[str, Callable[..., Any]] = {
    "exp": _exp,
    "exp2": lambda x: 2.0**x,
    "expm1": _call("expm1"),
    "log": lambda x, base=None: _log(x) if base is None else _log(x) / _log(base),
    "log1p": _log1p,
    "log2": lambda x: _log(x) * (1.0 / elementary.log(2.0)),
    "log10": lambda x: _log(x) * (1.0 / elementary.log(10.0)),
    "tanh": _call("tanh"),
    "sinh": _call("sinh"),
    "cosh": _call("cosh"),
    "sqrt": _call("square_root"),
    "fabs": abs,
    "pow": operator.pow,
}
MATH: Mapping[str, Callable[..., Any]] = {**SHARED, "lgamma": _call("lgamma")}
NUMPY: Mapping[str, Callable[..., Any]] = {
    **SHARED,
    "abs": abs,
    "power": operator.pow,
    "float_power": operator.pow,
    "square": _square,
    "sign": _sign,
    "maximum": _maximum,
    "minimum": _minimum,
    "where": _where,
    "clip": lambda x, low, high: _minimum(_maximum(x, low), high),
    "logaddexp": _logaddexp,
}
BUILTINS: Mapping[str, Callable[..., Any]] = {"max": _maximum, "min": _minimum, "pow": operator.pow}
OWN: Mapping[str, Callable[..., Any]] = {
    name: _call(name)
    for name in ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "log_sigmoid", "lgamma")
} | {"log1p_unit": _log1p}
PRIMITIVES: Mapping[str, Callable[..., Any]] = {
    "fma": _call("fma"),
    "divide": _call("divide"),
    "square_root": _call("square_root"),
    "exact_add": operator.add,
}
ALLOWED = (
    f"+ - * / **, comparisons, abs, max, min, Python functions of these, "
    f"and of math or numpy {', '.join(sorted({*MATH, *NUMPY} - {'abs', 'pow', 'float_power'}))}"
)


def _followed(graph: Graph, function: Callable[..., Any], given: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Make the stand-in of a known function: plain numbers become constants, sequences their members."""

    def call(*arguments: Any, **named: Any) -> Any:
        if len(arguments) == 1 and not named and given in (max, min):
            arguments = tuple(arguments[0])
        nodes = [node_of(graph, argument) for argument in (*arguments, *named.values())]
        if None in nodes:
            return given(*arguments, **named)
        numbers = [
            argument if isinstance(argument, Number) else Number(graph, node)  # type: ignore[arg-type]
            for argument, node in zip((*arguments, *named.values()), nodes, strict=True)
        ]
        return function(*numbers[: len(arguments)], **dict(zip(named, numbers[len(arguments) :], strict=True)))

    call.__name__ = name
    return call


def _refused(given: Callable[..., Any]) -> Callable[..., Any]:
    """Make the stand-in of a function that cannot be followed: it may still be called with constants."""
    home = getattr(given, "__module__", None) or ("numpy" if type(given).__name__ == "ufunc" else None)
    name = f"{home}.{given.__name__}" if home and home != "builtins" else given.__name__

    def call(*arguments: Any, **named: Any) -> Any:
        if any(isinstance(argument, Number) for argument in (*arguments, *named.values())):
            raise TypeError(f"{name} of a number of the row cannot be compiled; allowed: {ALLOWED}")
        return given(*arguments, **named)

    return call


class _ModuleView:
    """A module as a followed function sees it."""

    def __init__(self, module: types.ModuleType, replace: Callable[[Any], Any]) -> None:
        self._module = module
        self._replace = replace

    def __getattr__(self, name: str) -> Any:
        return self._replace(getattr(self._module, name))


class _Rebinder:
    """Makes copies of functions whose calls of known functions lead to their stand-ins; helpers are copied too."""

    def __init__(self, graph: Graph) -> None:
        # By identity, and kept beside what stands in, so that no other object can take the identity.
        self._known: dict[int, tuple[Any, Any]] = {}
        self._copies: dict[int, tuple[Any, types.FunctionType]] = {}
        homes: list[tuple[Any, Mapping[str, Callable[..., Any]]]] = [
            (math, MATH),
            (builtins, BUILTINS),
            (elementary, OWN),
            (jit, PRIMITIVES),
        ]
        if "numpy" in sys.modules:
            homes.append((sys.modules["numpy"], NUMPY))
        for home, stand_ins in homes:
            for name, stand_in in stand_ins.items():
                # NumPy 2.0 has no numpy.pow.
                if (given := getattr(home, name, None)) is not None:
                    self._known[id(given)] = (given, _followed(graph, stand_in, given, name))
        kept = {name: self._known[id(getattr(builtins, name))][1] for name in BUILTINS}
        self._builtins = {**vars(builtins), **kept, "__import__": self._import}

    def _import(self, *arguments: Any, **named: Any) -> Any:
        return self(builtins.__import__(*arguments, **named))

    def __call__(self, value: Any) -> Any:
        """Return the stand-in of a value that a function reads."""
        if id(value) in self._known:
            return self._known[id(value)][1]
        if isinstance(value, types.ModuleType):
            return _ModuleView(value, self)
        # A function compiled with Numba is followed in Python.
        function = getattr(value, "py_func", value)
        if isinstance(function, types.FunctionType):
            # Copied when it is called: it may know half a library.
            return lambda *arguments, **named: self._copy(function)(*arguments, **named)
        is_ufunc = type(value).__name__ == "ufunc"
        return _refused(value) if is_ufunc or isinstance(value, types.BuiltinFunctionType) else value

    def _copy(self, function: types.FunctionType) -> types.FunctionType:
        if id(function) in self._copies:
            return self._copies[id(function)][1]
        code = function.__code__
        space: dict[str, Any] = {"__builtins__": self._builtins, "__name__": function.__module__}
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        copy = types.FunctionType(code, space, function.__name__, function.__defaults__, cells)
        copy.__kwdefaults__ = function.__kwdefaults__
        self._copies[id(function)] = (function, copy)
        for name in _names_of(code):
            if name in function.__globals__:
                space[name] = self(function.__globals__[name])
        for cell, own in zip(cells, function.__closure__ or (), strict=True):
            cell.cell_contents = self(own.cell_contents)
        return copy


def _names_of(code: types.CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*(_names_of(each) for each in inner))


def follow(graph: Graph, function: Callable[..., Any], positional: Sequence[str], named: Sequence[str]) -> int:
    """Return the node of what a Python function gives for inputs of the graph.

    Raises
    ------
    TypeError, ValueError
        If the function does something that cannot be compiled, raises, or does not return one number.
    """
    copy = _Rebinder(graph)(function)

    def run() -> int:
        numbers = {name: Number(graph, graph.inputs[name]) for name in (*positional, *named)}
        result = copy(*(numbers[name] for name in positional), **{name: numbers[name] for name in named})
        node = None if isinstance(result, (bool, Condition)) else node_of(graph, result)
        if node is None:
            found = "a comparison" if isinstance(result, (bool, Condition)) else f"a {type(result).__name__}"
            raise TypeError(f"it returns {found}; a loss of one row is one number")
        return node

    return graph.follow(run)
