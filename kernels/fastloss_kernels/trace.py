"""From a user's Python function of one row to a row formula: follow it once along each path, differentiate, write.

The function is called with `Number` objects, which note every operation in a `Graph`. Where it asks a comparison for
its truth (``if``, ``and``, ``a < x < b``), it is called again for the other answer, and both results meet in a
selection: a branch of the user becomes what the shipped formulas are made of, so its loop vectorises. Calls of
`math` and NumPy become the formulas of `elementary`, so it gives the same bits on every device. No source text is
needed: lambdas, closures, helper functions and loops of a fixed length work.

Derivatives are further nodes of the same graph, by the chain rule on values and first and second derivatives (forward
mode; Griewank and Walther, Evaluating Derivatives, 2008, chapter 3 and 13). What no output needs is never written, and
what the value alone does not need is dropped by the compiler.
"""

from __future__ import annotations

import builtins
import math
import operator
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastloss_kernels import elementary, jit, special
from fastloss_kernels.jit import formula

# A formula that branches more often has a loop whose end depends on the row, or is too large to compile.
MOST_PATHS = 256
MOST_BRANCHES = 64
# Powers up to this one are products.
LARGEST_PRODUCT = 32

FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "exp": elementary.exp,
    "expm1": elementary.expm1,
    "log": elementary.log,
    "log1p": elementary.log1p,
    "tanh": elementary.tanh,
    "sigmoid": elementary.sigmoid,
    "softplus": elementary.softplus,
    "log_sigmoid": elementary.log_sigmoid,
    "lgamma": elementary.lgamma,
    "digamma": special.digamma,
    "trigamma": special.trigamma,
    "sinh": special.sinh,
    "cosh": special.cosh,
    "power": special.power,
    "square_root": jit.square_root,
    "divide": jit.divide,
    "fma": jit.fma,
}
# How an operation is written, and what it computes of constants.
OPERATIONS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "negative": ("-{0}", operator.neg),
    "absolute": ("abs({0})", abs),
    "add": ("{0} + {1}", operator.add),
    "subtract": ("{0} - {1}", operator.sub),
    "multiply": ("{0} * {1}", operator.mul),
    "less": ("{0} < {1}", operator.lt),
    "less_equal": ("{0} <= {1}", operator.le),
    "equal": ("{0} == {1}", operator.eq),
    "not_equal": ("{0} != {1}", operator.ne),
    "and": ("{0} & {1}", operator.and_),
    "or": ("{0} | {1}", operator.or_),
    "not": ("not {0}", operator.not_),
    "select": ("{1} if {0} else {2}", lambda condition, a, b: a if condition else b),
    # As Python's own: of equals the first, and a NaN only where it stands first.
    "maximum": ("{1} if {1} > {0} else {0}", max),
    "minimum": ("{1} if {1} < {0} else {0}", min),
} | {
    name: (f"{name}({', '.join(f'{{{i}}}' for i in range(n))})", FUNCTIONS[name])
    for name, n in (
        *((name, 1) for name in FUNCTIONS if name not in ("power", "divide", "fma")),
        ("power", 2),
        ("divide", 2),
        ("fma", 3),
    )
}
CONDITIONS = ("less", "less_equal", "equal", "not_equal", "and", "or", "not")


class Graph:
    """Operations on scalars, each noted once; a node is its index, and its arguments are earlier nodes."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self._nodes: list[tuple[Any, ...]] = []
        self._index: dict[tuple[Any, ...], int] = {}
        self._answers: dict[int, bool] = {}
        self._prefix: list[bool] = []
        self.inputs = {name: self._note(("input", name)) for name in inputs}
        self.zero = self.constant(0.0)
        self.one = self.constant(1.0)

    def _note(self, node: tuple[Any, ...]) -> int:
        if node not in self._index:
            self._index[node] = len(self._nodes)
            self._nodes.append(node)
        return self._index[node]

    def constant(self, value: float | bool) -> int:
        """Return the node of a constant; zeros of either sign and booleans are different ones."""
        return self._note(("constant", value if isinstance(value, bool) else value.hex()))

    def value_of(self, node: int) -> float | bool | None:
        """Return the value of a constant node, and None of any other."""
        kind, *arguments = self._nodes[node]
        if kind != "constant":
            return None
        return arguments[0] if isinstance(arguments[0], bool) else float.fromhex(arguments[0])

    def add(self, kind: str, *arguments: int) -> int:
        """Return the node of an operation; of constants, their result."""
        values = [self.value_of(argument) for argument in arguments]
        if all(value is not None for value in values):
            return self.constant(OPERATIONS[kind][1](*values))
        if kind == "select":
            if values[0] is not None:
                return arguments[1] if values[0] else arguments[2]
            if arguments[1] == arguments[2]:
                return arguments[1]
        if kind in ("and", "or"):
            for value, other in zip(values, reversed(arguments), strict=True):
                if value is not None:
                    return other if value is (kind == "and") else self.constant(value)
        return self._note((kind, *arguments))

    # What derivatives are built of: terms that are zero or one by the rules are left out.

    def plus(self, a: int, b: int) -> int:
        """Return a + b."""
        if self.zero in (a, b):
            return b if a == self.zero else a
        return self.add("add", a, b)

    def minus(self, a: int, b: int) -> int:
        """Return a − b."""
        if b == self.zero:
            return a
        return self.add("negative", b) if a == self.zero else self.add("subtract", a, b)

    def times(self, a: int, b: int) -> int:
        """Return a·b."""
        if self.zero in (a, b):
            return self.zero
        if self.one in (a, b):
            return b if a == self.one else a
        return self.add("multiply", a, b)

    def over(self, a: int, b: int) -> int:
        """Return a/b."""
        return a if a == self.zero or b == self.one else self.add("divide", a, b)

    # Following a function.

    def decide(self, condition: int) -> bool:
        """Answer a condition for the path being followed."""
        known = self.value_of(condition)
        if known is not None:
            return bool(known)
        if condition not in self._answers:
            if len(self._answers) >= MOST_BRANCHES:
                raise ValueError(
                    f"it branches more than {MOST_BRANCHES} times on one row; a loop must have a fixed number of turns"
                )
            turn = len(self._answers)
            self._answers[condition] = self._prefix[turn] if turn < len(self._prefix) else True
        return self._answers[condition]

    def follow(self, run: Callable[[], int]) -> int:
        """Return the node of what a function of `Number` objects returns, with a selection for every branch."""
        n_paths = 0

        def explore(prefix: list[bool]) -> int:
            nonlocal n_paths
            n_paths += 1
            if n_paths > MOST_PATHS:
                raise ValueError(
                    f"it has more than {MOST_PATHS} paths; write min, max or numpy.where for some branches"
                )
            self._answers, self._prefix = {}, prefix
            result = run()
            conditions, answers = list(self._answers), list(self._answers.values())
            for turn in reversed(range(len(prefix), len(conditions))):
                result = self.add("select", conditions[turn], result, explore([*answers[:turn], False]))
            return result

        return explore([])

    # Differentiation.

    def differentiate(self, node: int, by: int) -> tuple[int, int]:
        """Return the first and the second derivative of a node by an input."""
        firsts: dict[int, int] = {}
        seconds: dict[int, int] = {}
        for i in self._reached([node]):
            firsts[i], seconds[i] = self._derivatives(i, by, firsts, seconds)
        return firsts[node], seconds[node]

    def _reached(self, roots: Sequence[int]) -> list[int]:
        reached: set[int] = set()
        waiting = list(roots)
        while waiting:
            node = waiting.pop()
            if node not in reached:
                reached.add(node)
                kind, *arguments = self._nodes[node]
                waiting += arguments if kind in OPERATIONS else []
        return sorted(reached)

    def _derivatives(self, i: int, by: int, firsts: Mapping[int, int], seconds: Mapping[int, int]) -> tuple[int, int]:
        kind, *arguments = self._nodes[i]
        plus, minus, times, over = self.plus, self.minus, self.times, self.over
        if kind in ("input", "constant", *CONDITIONS):
            return (self.one if i == by else self.zero), self.zero
        first, second = [firsts[a] for a in arguments], [seconds[a] for a in arguments]
        if all(d == self.zero for d in first):
            return self.zero, self.zero
        if kind == "negative":
            return minus(self.zero, first[0]), minus(self.zero, second[0])
        if kind == "add":
            return plus(*first), plus(*second)
        if kind == "subtract":
            return minus(*first), minus(*second)
        if kind in ("multiply", "fma"):
            a, b = arguments[:2]
            value = plus(times(first[0], b), times(a, first[1]))
            both = times(first[0], first[1])
            curve = plus(plus(times(second[0], b), times(a, second[1])), plus(both, both))
            return (value, curve) if kind == "multiply" else (plus(value, first[2]), plus(curve, second[2]))
        if kind == "divide":
            b = arguments[1]
            slope = over(minus(first[0], times(i, first[1])), b)
            both = times(slope, first[1])
            return slope, over(minus(minus(second[0], plus(both, both)), times(i, second[1])), b)
        if kind == "select":
            condition = arguments[0]
            return self.add("select", condition, *first[1:]), self.add("select", condition, *second[1:])
        if kind in ("maximum", "minimum", "absolute"):
            a, da, dda = arguments[0], first[0], second[0]
            if kind == "absolute":
                b, db, ddb = self.add("negative", a), minus(self.zero, da), minus(self.zero, dda)
            else:
                b, db, ddb = arguments[1], first[1], second[1]
            pair = ((a, da, dda), (b, db, ddb)) if kind == "minimum" else ((b, db, ddb), (a, da, dda))
            takes_b = self._above_on_the_right(*pair)
            return self.add("select", takes_b, db, da), self.add("select", takes_b, ddb, dda)
        if kind == "power":
            return self._power(i, arguments, first, second)
        slope, bend = self._outer(kind, i, arguments[0])
        du, ddu = first[0], second[0]
        return times(slope, du), plus(times(bend, times(du, du)), times(slope, ddu))

    def _above_on_the_right(self, one: tuple[int, int, int], other: tuple[int, int, int]) -> int:
        """Return whether one is above the other, and where they meet, whether it rises above it to the right.

        Derivatives from one side obey the chain rule. So a sum of kinks that is smooth keeps its true derivatives at
        them, as log loss does at 0 where it is written with max and abs.
        """
        above = self.constant(False)
        for a, b in reversed(list(zip(one, other, strict=True))):
            above = self.add("or", self.add("less", b, a), self.add("and", self.add("equal", a, b), above))
        return above

    def _power(self, i: int, arguments: list[int], first: list[int], second: list[int]) -> tuple[int, int]:
        """Differentiate xʸ; y may depend on the row too."""
        x, y = arguments
        (dx, dy), (ddx, ddy) = first, second
        times, plus, over = self.times, self.plus, self.over
        if dy == self.zero and ddy == self.zero:
            less = self.add("subtract", y, self.one)
            slope = times(y, self.power(x, less))
            factor = times(y, less)
            bend = times(factor, self.power(x, self.add("subtract", less, self.one)))
            # 0·∞ where x is 0 and y is 1 or 0.
            bend = self.add("select", self.add("equal", factor, self.zero), self.zero, bend)
            slope = self.add("select", self.add("equal", y, self.zero), self.zero, slope)
            return times(slope, dx), plus(times(bend, times(dx, dx)), times(slope, ddx))
        # xʸ = eᵘ with u = y·log x.
        logarithm = self.add("log", x)
        rate = over(dx, x)
        du = plus(times(dy, logarithm), times(y, rate))
        both = times(dy, rate)
        bend = self.minus(over(ddx, x), times(rate, rate))
        ddu = plus(plus(times(ddy, logarithm), plus(both, both)), times(y, bend))
        return times(i, du), times(i, plus(times(du, du), ddu))

    def _outer(self, kind: str, i: int, u: int) -> tuple[int, int]:
        """Return f′(u) and f″(u) of a function of one number, whose value is node i; no tail of them cancels."""
        add, times, one = self.add, self.times, self.one
        half, two = self.constant(0.5), self.constant(2.0)
        if kind in ("exp", "expm1"):
            grown = add("exp", u)
            return grown, grown
        if kind in ("log", "log1p"):
            rate = self.over(one, u if kind == "log" else add("add", one, u))
            return rate, add("negative", times(rate, rate))
        if kind == "square_root":
            slope = self.over(half, i)
            return slope, add("negative", self.over(times(half, slope), u))
        if kind == "lgamma":
            return add("digamma", u), add("trigamma", u)
        if kind in ("sinh", "cosh"):
            return add("cosh" if kind == "sinh" else "sinh", u), i
        if kind == "tanh":
            twice = times(two, u)
            slope = times(self.constant(4.0), times(add("sigmoid", twice), add("sigmoid", add("negative", twice))))
            return slope, times(self.constant(-2.0), times(i, slope))
        likely, unlikely = add("sigmoid", u), add("sigmoid", add("negative", u))
        both = times(likely, unlikely)
        if kind == "sigmoid":
            return both, add("negative", times(both, add("tanh", times(half, u))))
        if kind == "softplus":
            return likely, both
        if kind == "log_sigmoid":
            return unlikely, add("negative", both)
        raise ValueError(f"{kind} has no derivative here; give gradient= and hessian=")

    def power(self, x: int, y: int) -> int:
        """Return xʸ: by products and roots where y is a small whole or half number."""
        exponent = self.value_of(y)
        if exponent is None or exponent * 2 != round(exponent * 2 if abs(exponent) <= LARGEST_PRODUCT else 0.0):
            return self.add("power", x, y)
        whole = int(abs(exponent))
        result = self.one if abs(exponent) == whole else self.add("square_root", x)
        square = x
        while whole:
            result = self.times(result, square) if whole & 1 else result
            whole >>= 1
            square = self.add("multiply", square, square) if whole else square
        return result if exponent >= 0 else self.add("divide", self.one, result)

    # Writing.

    def write(self, parameters: Sequence[str], outputs: Sequence[int], module: str) -> Callable[..., Any]:
        """Make the row formula ``row(score, label, parameters)`` that returns some nodes; NaN where an input is NaN.

        The two first inputs are score and label. The formula says that it is of `module`.
        """
        names = {node: f"v{node}" for node in range(len(self._nodes))}
        score, label = list(self.inputs.values())[:2]
        names |= {score: "score", label: "label"}
        lines = ["def row(score, label, parameters):"]
        used = self._reached(outputs)
        for position, parameter in enumerate(parameters):
            if self.inputs[parameter] in used:
                lines.append(f"    {names[self.inputs[parameter]]} = parameters[{position}]")
        for node in used:
            kind, *arguments = self._nodes[node]
            if kind == "constant":
                value = self.value_of(node)
                plain = isinstance(value, bool) or (value is not None and math.isfinite(value))
                names[node] = (
                    f"({value!r})" if plain else {"inf": "INFINITY", "-inf": "(-INFINITY)"}.get(str(value), "NAN")
                )
            elif kind in OPERATIONS:
                lines.append(f"    {names[node]} = " + OPERATIONS[kind][0].format(*(names[a] for a in arguments)))
        # A branch or a maximum would swallow a NaN.
        lines.append("    known = (score == score) & (label == label)")
        lines.append("    return " + ", ".join(f"{names[node]} if known else NAN" for node in outputs))
        text = "\n".join(lines) + "\n"
        space = {**FUNCTIONS, "INFINITY": math.inf, "NAN": math.nan, "__name__": module}
        exec(compile(text, f"<row formula of {module}>", "exec"), space)
        row = space["row"]
        row.__doc__ = text
        return formula(row)


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
# What a formula may call. Each takes and returns `Number` objects.


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
