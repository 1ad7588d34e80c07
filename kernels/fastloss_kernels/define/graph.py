"""The operations of a custom loss as a graph: noted once each, differentiated by rules, written as a row formula.

Derivatives are further nodes of the same graph, by the chain rule on values and first and second derivatives (forward
mode; Griewank and Walther, Evaluating Derivatives, 2008, chapter 3 and 13). What no output needs is never written, and
what the value alone does not need is dropped by the compiler.
"""

from __future__ import annotations

import math
import operator
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
        # Powers that are written as products and roots: node -> base and exponent.
        self._powers: dict[int, tuple[int, int]] = {}
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
            depth = len(self._answers)
            self._answers[condition] = self._prefix[depth] if depth < len(self._prefix) else True
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
            for depth in reversed(range(len(prefix), len(conditions))):
                result = self.add("select", conditions[depth], result, explore([*answers[:depth], False]))
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
        if i in self._powers:
            # By the rule of powers, since the factors' own derivatives are infinite at 0, times 0.
            x, y = self._powers[i]
            return self._power(i, [x, y], [firsts[x], self.zero], [seconds[x], self.zero])
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
        slope, curvature = self._outer(kind, i, arguments[0])
        du, ddu = first[0], second[0]
        if kind == "square_root":
            return self._still(du, times(slope, du)), plus(
                self._still(du, times(curvature, times(du, du))), times(slope, ddu)
            )
        return times(slope, du), plus(times(curvature, times(du, du)), times(slope, ddu))

    def _still(self, rate: int, term: int) -> int:
        """Return a term of a derivative, 0 where what it is taken of stands still: 0·∞ would be no number."""
        return self.add("select", self.add("equal", rate, self.zero), self.zero, term)

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
            curvature = times(factor, self.power(x, self.add("subtract", less, self.one)))
            # 0·∞ where x is 0 and y is 1 or 0.
            curvature = self.add("select", self.add("equal", factor, self.zero), self.zero, curvature)
            slope = self.add("select", self.add("equal", y, self.zero), self.zero, slope)
            first_term, second_term = times(slope, dx), times(curvature, times(dx, dx))
            exponent = self.value_of(y)
            if exponent is None or exponent < 1.0:
                first_term = self._still(dx, first_term)
            if exponent is None or exponent < 2.0:
                second_term = self._still(dx, second_term)
            return first_term, plus(second_term, times(slope, ddx))
        # xʸ = eᵘ with u = y·log x.
        logarithm = self.add("log", x)
        rate = over(dx, x)
        du = plus(times(dy, logarithm), times(y, rate))
        both = times(dy, rate)
        curvature = self.minus(over(ddx, x), times(rate, rate))
        ddu = plus(plus(times(ddy, logarithm), plus(both, both)), times(y, curvature))
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
        result = result if exponent >= 0 else self.add("divide", self.one, result)
        # That of √x is its own.
        if abs(exponent) != int(abs(exponent)) and exponent != 0.5 and self.value_of(result) is None:
            self._powers[result] = (x, y)
        return result

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
