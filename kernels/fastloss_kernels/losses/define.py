"""Own losses: from a Python function of one row to a loss that does everything that a shipped one does."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import itertools
import keyword
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from typing import Any, NamedTuple

from fastloss_kernels.losses.form import FINITE, SATURATION_EPSILON, SPACES, BinaryLoss, Interval, Loss, Row
from fastloss_kernels.trace import Graph, follow

# The losses defined in this process, by name; a definition replaces an earlier one of its name.
DEFINED: dict[str, type[Loss]] = {}


# Half the step of a difference, as a part of the larger of 1 and the prediction, and how far from a boundary of the
# domain its points stay, in half steps.
HALF_STEP = 1e-3
REACH = 24
# Five points at whole steps and at half steps, around a prediction and beside it on either side: a kink lies within
# one of the three at most.
STENCIL = (-4, -2, -1, 0, 1, 2, 4)
CENTRES = (0, -12, 12)
# What a difference may be off, relatively.
DIFFERENCE_TOLERANCE = 1e-5
# What libm's functions may be off from ours in a formula that cancels.
PYTHON_TOLERANCE = 1e-6

FRACTIONS = (0.02, 0.11, 0.27, 0.43, 0.55, 0.68, 0.83, 0.97)
OFFSETS = (0.05, 0.3, 0.9, 1.7, 3.2, 7.4, 19.3)


def define(
    function: Callable[..., float],
    *,
    name: str | None = None,
    space: str | Sequence[str] = "value",
    label_range: Interval | tuple[float, float] | None = None,
    prediction_range: Interval | tuple[float, float] | None = None,
    ranges: Mapping[str, Interval | tuple[float, float]] | None = None,
    gradient: Callable[..., float] | None = None,
    hessian: Callable[..., float] | None = None,
) -> type[Loss]:
    """Make a loss of a Python function of one row: a class as those of this package, with compiled loops.

    It can be evaluated, scored, called with arrays and given by its name wherever a shipped loss can, in this process.

    Parameters
    ----------
    function : callable
        ``function(prediction, label, parameter=default, ...)`` returns the loss of one row, a number, from numbers.
        It may use + - * / ** and comparisons, if and else, loops of a fixed length, abs, max and min, functions of
        math and numpy (exp, exp2, expm1, log, log1p, log2, log10, tanh, sinh, cosh, sqrt, lgamma, where, clip, sign,
        logaddexp), and other Python functions made of these. Its further parameters become the parameters of the loss.
        Global variables and closures count with the value they have now.
    name : str, optional
        How the loss is called in results and texts; the function's own name if left out.
    space : str or sequence of str
        Which predictions it takes: "logit", "prob", "logprob", "margin" or "value". With several, the same formula
        takes each.
    label_range, prediction_range : Interval or (low, high), optional
        Which labels and predictions it is defined for, finite ends included unless an Interval says otherwise. Left
        out: labels 0 to 1 (soft ones included), any finite label beside predictions of the space "value"; predictions
        of the whole space. Labels of 0 to 1 of another space may also be held as −1 to +1, with
        ``label_domain="pm1"``; the function sees 0 to 1.
    ranges : mapping of str to Interval or (low, high), optional
        The allowed values of parameters; any finite number if left out.
    gradient, hessian : callable, optional
        Functions as the first one that return the first and second derivative by the prediction. Left out, they are
        derived from the function (or the hessian from the gradient given), exactly, by the chain rule.

    Returns
    -------
    type of Loss
        A frozen dataclass, to be called with parameters: ``Asymmetric = define(asymmetric)``,
        ``Asymmetric(under=3.0)``. Its objects can be pickled if its module defines it when imported.

    Raises
    ------
    TypeError, ValueError
        If the function cannot be compiled, does not return one finite number on its domain, or a derivative disagrees
        with differences of what it derives; if a name is taken by a shipped loss, or a parameter is no number.

    Notes
    -----
    The function is followed once along each of its paths, so it should depend on its arguments alone. Its results may
    differ from its results as plain Python in the last digits, since they come from this package's own elementary
    functions; division by zero gives an infinity or NaN.

    At a kink the branch that is taken decides the derivatives; where max, min or abs meet a tie, the branch that is
    taken to the right of it, so sums of kinks that are smooth, as ``max(x, 0) + log1p(exp(-abs(x)))``, have their true
    derivatives there.

    Derivatives, given or derived, are compared with differences of fourth order over a grid of the domain, at the
    default parameters and at others. Isolated kinks are allowed for.
    """
    function, inputs, defaults = _signature(function, name)
    name = function.__name__ if name is None else name
    _check_name(name)
    spaces = (space,) if isinstance(space, str) else tuple(space)
    for each in spaces:
        if each not in SPACES:
            raise ValueError(f"{name}: space is {each!r}; allowed: {', '.join(map(repr, SPACES))}.")
    if not spaces:
        raise ValueError(f"{name}: space is empty; allowed: {', '.join(map(repr, SPACES))}.")
    labels = _interval(name, "label_range", label_range)
    if labels is None:
        labels = FINITE if "value" in spaces else Interval(0.0, 1.0)
    labels = labels._replace(
        low_open=labels.low_open or labels.low == -math.inf, high_open=labels.high_open or labels.high == math.inf
    )
    predictions = _interval(name, "prediction_range", prediction_range)
    allowed = dict.fromkeys(defaults, FINITE)
    for parameter, given in (ranges or {}).items():
        if parameter not in defaults:
            raise ValueError(f"{name}: ranges names {parameter!r}; its parameters: {', '.join(defaults) or 'none'}.")
        allowed[parameter] = _interval(name, f"ranges[{parameter!r}]", given) or FINITE
    base = BinaryLoss if labels == Interval(0.0, 1.0) and "value" not in spaces else Loss
    for parameter in defaults:
        if hasattr(base, parameter) or parameter in (
            "name",
            "rows",
            "formula",
            "source",
            "label_domain",
            "label_range",
        ):
            raise ValueError(f"{name}: {parameter!r} cannot be a parameter, since losses use it; rename it.")

    row = _compile(name, function, gradient, hessian, inputs, list(defaults))
    digest = hashlib.sha256(str(row.__doc__).encode()).hexdigest()[:12]
    description = (
        inspect.getdoc(function) or f"{function.__qualname__}({', '.join([*inputs, *defaults])})"
    ).splitlines()

    def parameters(self: Loss, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the parameters in the order of the function's."""
        return tuple(float(getattr(self, parameter)) for parameter in defaults)

    def accepted(self: Loss, space: str) -> Interval:
        """Return which predictions of a space the loss is defined for."""
        return Interval(*SPACES[space]) if predictions is None else predictions

    def reduced(self: Loss) -> tuple[Any, ...]:
        return _restore, (type(self).__module__, name, {f.name: getattr(self, f.name) for f in fields(self)})

    class_name = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    defined = make_dataclass(
        class_name,
        [(parameter, float, field(default=default)) for parameter, default in defaults.items()],
        bases=(base,),
        frozen=True,
        namespace={
            "__doc__": inspect.getdoc(function) or f"The loss {name} of {function.__module__}.",
            "__module__": function.__module__,
            "__reduce__": reduced,
            "name": name,
            "rows": dict.fromkeys(spaces, row),
            "label_range": labels,
            "ranges": allowed,
            "formula": description[0],
            "source": f"{function.__module__}.{function.__qualname__}, compiled as {digest}",
            "parameters": parameters,
            "prediction_range": accepted,
        },
    )
    loss = defined()
    for each in spaces:
        _check(loss, each, function, gradient is not None, hessian is not None)
    DEFINED[name] = defined
    return defined


def _restore(module: str, name: str, parameters: Mapping[str, Any]) -> Loss:
    if name not in DEFINED:
        importlib.import_module(module)
    if name not in DEFINED:
        raise LookupError(f"No loss {name!r} is defined; module {module} must define it when it is imported.")
    return DEFINED[name](**parameters)


def _check_name(name: str) -> None:
    from fastloss_kernels.losses import LOSSES

    if not (name.isidentifier() and not keyword.iskeyword(name)):
        raise ValueError(f"A loss cannot be called {name!r}; allowed: a Python identifier, given as name=.")
    for loss in LOSSES:
        if name in (loss.name, *loss.aliases, loss.__name__):
            raise ValueError(f"{name!r} is the name of a shipped loss, {loss.__name__}; choose another name=.")


def _interval(name: str, what: str, given: Interval | tuple[float, float] | None) -> Interval | None:
    if given is None:
        return None
    try:
        interval = given if isinstance(given, Interval) else Interval(*(float(end) for end in given))
    except (TypeError, ValueError):
        interval = Interval(math.nan, math.nan)
    if not interval.low < interval.high:
        raise ValueError(f"{name}: {what} is {given!r}; allowed: (low, high) with low < high, or an Interval.")
    return interval


def _signature(given: Any, name: str | None, derivative: bool = False) -> tuple[Any, list[str], dict[str, float]]:
    """Return a function in Python, the names of its two first parameters, and the defaults of the others.

    A derivative takes the parameters of the loss, and needs no defaults of its own.
    """
    function = getattr(given, "py_func", given)
    shown = name or getattr(given, "__name__", repr(given))
    if not inspect.isfunction(function):
        raise TypeError(f"A loss is defined by a Python function of one row; got {given!r}.")
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise TypeError(f"{shown}: *arguments and **arguments cannot be parameters of a loss; name each of them.")
    if len(parameters) < 2 or any(p.kind == p.KEYWORD_ONLY for p in parameters[:2]):
        raise TypeError(f"{shown} takes ({', '.join(p.name for p in parameters)}); allowed: (prediction, label, ...).")
    defaults = {}
    for parameter in parameters[2:]:
        default = parameter.default
        if parameter.kind == parameter.POSITIONAL_ONLY:
            raise TypeError(f"{shown}: parameter {parameter.name!r} must be allowed by name; move the / before it.")
        if derivative:
            default = 0.0
        if default is parameter.empty:
            raise TypeError(f"{shown}: parameter {parameter.name!r} has no default; give it one, a number.")
        if isinstance(default, bool) or not isinstance(default, (int, float)) or not math.isfinite(default):
            raise TypeError(f"{shown}: parameter {parameter.name!r} is {default!r}; allowed: a finite number.")
        defaults[parameter.name] = float(default)
    return function, [p.name for p in parameters[:2]], defaults


def _compile(
    name: str,
    function: Callable[..., float],
    gradient: Callable[..., float] | None,
    hessian: Callable[..., float] | None,
    inputs: list[str],
    parameters: list[str],
) -> Row:
    graph = Graph([*inputs, *parameters])
    by = graph.inputs[inputs[0]]

    def followed(role: str, given: Callable[..., float]) -> int:
        own, _, named = _signature(given, f"{name}: {role}" if role else name, derivative=bool(role))
        if unknown := [parameter for parameter in named if parameter not in parameters]:
            raise TypeError(f"{name}: {role} has a parameter {unknown[0]!r} that the function does not have.")
        try:
            return follow(graph, own, inputs, list(named))
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raised = "" if isinstance(error, (TypeError, ValueError)) else f"it raises {type(error).__name__}: "
            raise kind(f"{name}: {role or own.__name__} cannot be compiled: {raised}{said}.") from error

    value = followed("", function)
    if gradient is None:
        first, second = graph.differentiate(value, by)
    else:
        first = followed("gradient", gradient)
        second = graph.differentiate(first, by)[0] if hessian is None else graph.zero
    second = second if hessian is None else followed("hessian", hessian)
    return graph.write(parameters, (value, first, second), function.__module__)


# ---------------------------------------------------------------------------------------------------------------
# Checks at registration


class _Points(NamedTuple):
    """Rows at which a loss is checked."""

    predictions: Any
    labels: Any


def _inside(allowed: Interval) -> list[float]:
    """Return points in the interior of a range, spread over what is likely to be met."""
    low, high = allowed.low, allowed.high
    if high - low <= 2 * OFFSETS[-1]:
        found = [low + (high - low) * fraction for fraction in FRACTIONS]
    else:
        found = [0.0, *(sign * offset for offset in OFFSETS for sign in (1.0, -1.0))]
        found += [end for offset in OFFSETS for end in (low + offset, high - offset) if math.isfinite(end)]
    return sorted({x for x in found if low < x < high and x in allowed})


def _grid(loss: Loss, space: str) -> _Points:
    import numpy as np

    allowed, label_range = loss.prediction_range(space), loss.label_range
    labels = _inside(label_range)[::2]
    labels += [end for end in (label_range.low, label_range.high) if math.isfinite(end) and end in label_range]
    predictions = _inside(allowed)
    # Where prediction and label meet, many losses have a joint.
    near = [
        (y + d, y) for y in labels for d in (-0.2, 0.0, 0.2) if allowed.low < y + d < allowed.high and y + d in allowed
    ]
    # The simplest first: an error shows the first that is wrong.
    rows = sorted([*itertools.product(predictions, labels), *near], key=lambda row: abs(row[0]) + abs(row[1]))
    return _Points(*np.array(rows).T.copy())


def _evaluate(row: Row, points: _Points, parameters: tuple[float, ...]) -> Any:
    """Return value, gradient and hessian, shape (3, n_rows), from the compiled loop."""
    import numpy as np

    from fastloss_kernels.cpu.pointwise import make_value_gradient_hessian

    found = np.empty((3, len(points.labels)))
    make_value_gradient_hessian(row)(points.predictions, points.labels, parameters, *found)
    return found


def _check(loss: Loss, space: str, function: Callable[..., float], gradient: bool, hessian: bool) -> None:
    """Raise a ValueError where the loss is not finite, or a derivative is not what differences say."""
    import numpy as np

    points, parameters = _grid(loss, space), loss.parameters(space)
    found = _evaluate(loss.rows[space], points, parameters)
    named = [f.name for f in fields(loss) if f.name != "label_domain"]
    for x, y, column in zip(points.predictions.tolist(), points.labels.tolist(), found.T, strict=True):
        if not math.isfinite(column[0]):
            raise ValueError(
                f"{loss.name} is {float(column[0])!r} at prediction {x:g}, label {y:g}; allowed: a finite number; "
                "narrow prediction_range or label_range, or mend the formula."
            )
        plain = np.array(loss.rows[space](x, y, parameters))
        if not np.array_equal(plain, column, equal_nan=True):
            raise RuntimeError(f"{loss.name} gives {plain} in Python and {column} compiled at ({x!r}, {y!r}).")
        _check_direct(loss.name, function, (x, y, *parameters), named, float(column[0]))
    _check_derivatives(loss, space, points, parameters, gradient, hessian)
    for position, parameter in enumerate(named):
        # A gradient may leave out a parameter that is 1 by default.
        given = parameters[position]
        other = 0.9375 * given if given else 0.0625
        if other in loss.ranges[parameter]:
            changed = (*parameters[:position], other, *parameters[position + 1 :])
            _check_derivatives(loss, space, points, changed, gradient, hessian)


def _check_direct(
    name: str, function: Callable[..., float], row: tuple[float, ...], named: Sequence[str], compiled: float
) -> None:
    """Raise a ValueError where the function itself gives another number than what was compiled of it."""
    import numpy as np

    try:
        with np.errstate(all="ignore"):
            direct = float(function(*row[:2], **dict(zip(named, row[2:], strict=True))))
    except (ArithmeticError, ValueError, TypeError):
        # Python raises where compiled arithmetic goes on: 1/0, exp(1000), log(0), a root that is complex.
        return
    if abs(direct - compiled) > PYTHON_TOLERANCE * max(1.0, abs(direct)):
        raise ValueError(
            f"{name} is {direct!r} called as it is and {compiled!r} compiled, at prediction {row[0]:g}, "
            f"label {row[1]:g}; allowed: a function of its arguments alone, that does not ask for their types."
        )


def _check_derivatives(
    loss: Loss, space: str, points: _Points, parameters: tuple[float, ...], gradient: bool, hessian: bool
) -> None:
    import numpy as np

    allowed = loss.prediction_range(space)
    x, y = points
    room = np.minimum(x - allowed.low, allowed.high - x)
    step = np.minimum(HALF_STEP * np.maximum(1.0, abs(x)), room / REACH)
    rows = x + step * np.add.outer(CENTRES, STENCIL)[..., None]
    spread = _Points(
        np.ascontiguousarray(rows).reshape(-1), np.ascontiguousarray(np.broadcast_to(y, rows.shape)).reshape(-1)
    )
    found = _evaluate(loss.rows[space], spread, parameters).reshape(3, *rows.shape)
    for order, role, given in ((1, "gradient", gradient), (2, "hessian", hessian)):
        below, stated = found[order - 1], found[order][:, STENCIL.index(0)]
        with np.errstate(all="ignore"):
            far, middle, near = below[:, 6] - below[:, 0], below[:, 5] - below[:, 1], below[:, 4] - below[:, 2]
            coarse, fine = (8.0 * middle - far) / (24.0 * step), (8.0 * near - middle) / (12.0 * step)
            size = np.maximum(np.maximum(1.0, abs(below).max(axis=1)), abs(stated * x))
            tolerance = DIFFERENCE_TOLERANCE * np.maximum(abs(fine), abs(stated))
            tolerance += 4.0 * abs(coarse - fine) + 64.0 * np.finfo(float).eps * size / step
            wrong = ~(abs(stated - fine) <= tolerance) & np.isfinite(below).all(axis=1)
        refused = np.flatnonzero(wrong[0] & (wrong[1] | wrong[2]))
        if refused.size:
            i = int(refused[0])
            at = f"at prediction {x[i]:g}, label {y[i]:g}" + _shown(loss, parameters)
            below_name = "the function" if order == 1 else "the gradient"
            numbers = f"is {float(stated[0, i])!r} {at}, where differences of {below_name} give {float(fine[0, i])!r}"
            advice = f"correct {role}=, or leave it out" if given else f"give {role}=, or mend the formula"
            raise ValueError(f"{loss.name}: the {role} {'given' if given else 'derived'} {numbers}; {advice}.")


def _shown(loss: Loss, parameters: tuple[float, ...]) -> str:
    named = [f.name for f in fields(loss) if f.name != "label_domain"]
    return "".join(f", {name}={value:g}" for name, value in zip(named, parameters, strict=True))
