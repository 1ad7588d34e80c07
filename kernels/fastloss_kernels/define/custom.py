"""Definition of custom losses: from a Python function of one row to a loss class with compiled loops."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import keyword
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, make_dataclass
from typing import Any

from fastloss_kernels.define.checks import check_loss, derivatives_on_grid
from fastloss_kernels.define.graph import Graph
from fastloss_kernels.define.tracing import follow
from fastloss_kernels.domain import FINITE, LOSS_SPACES, SATURATION_EPSILON, SPACES, Interval, Row
from fastloss_kernels.losses import LOSSES
from fastloss_kernels.losses.base import BinaryLoss, Loss
from fastloss_kernels.rankings import RANKINGS

# What the first two arguments of a function may be called: they are told apart by their names, since a label that is
# taken for the prediction gives numbers that look right.
PREDICTION_NAMES = {"prediction", "pred", "predicted", "y_pred", "y_hat", "score", "raw_score", "p", "x", "z", *SPACES}
LABEL_NAMES = {"label", "y", "y_true", "true", "truth", "target", "t", "actual", "observed"}

# The losses defined in this process, by name; a definition replaces an earlier one of its name.
DEFINED: dict[str, type[Loss]] = {}


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
        The first two are told apart by their names, in either order: "prediction", "y_pred", "score", "p" or "x", and
        "label", "y_true", "target" or "y"; one known name is enough.
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
        with differences of what it derives; if a name is taken by a shipped loss, or a parameter is not a number.

    Notes
    -----
    The function is followed once along each of its paths, so it should depend on its arguments alone. Its results may
    differ from its results as plain Python in the last digits, since they come from this package's own elementary
    functions; division by zero gives an infinity or NaN.

    At a kink the branch that is taken decides the derivatives; where max, min or abs meet a tie, the branch that is
    taken to the right of it, so sums of kinks that are smooth, as ``max(x, 0) + log1p(exp(-abs(x)))``, have their true
    derivatives there.

    Derivatives, given or derived, are compared with differences of fourth order over a grid of the domain, at the
    default parameters and at others. Isolated kinks are allowed for. A warning says where a derivative is no number at
    a single point, or is decided there by a branch that is taken at that point alone.
    """
    function, inputs, defaults, label_first = _signature(function, name)
    name = function.__name__ if name is None else name
    _check_name(name)
    spaces = (space,) if isinstance(space, str) else tuple(space)
    for each in spaces:
        if each not in LOSS_SPACES:
            raise ValueError(f"{name}: space is {each!r}; allowed: {', '.join(map(repr, LOSS_SPACES))}.")
    if not spaces:
        raise ValueError(f"{name}: space is empty; allowed: {', '.join(map(repr, LOSS_SPACES))}.")
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
        if hasattr(base, parameter) or parameter in ("name", "definition", "source", "label_range"):
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
            "formulas": dict.fromkeys(spaces, row),
            "label_range": labels,
            "ranges": allowed,
            "definition": description[0],
            "source": f"{function.__module__}.{function.__qualname__}, compiled as {digest}",
            "parameters": parameters,
            "prediction_range": accepted,
            "differentiable": property(lambda self: derivatives_on_grid(self, spaces[0])[0].any()),
            "hessian": property(lambda self: "exact" if derivatives_on_grid(self, spaces[0])[1].any() else "zero"),
        },
    )
    loss = defined()
    for each in spaces:
        check_loss(
            loss,
            each,
            _prediction_first(function) if label_first else function,
            gradient is not None,
            hessian is not None,
        )
    DEFINED[name] = defined
    return defined


def _restore(module: str, name: str, parameters: Mapping[str, Any]) -> Loss:
    if name not in DEFINED:
        importlib.import_module(module)
    if name not in DEFINED:
        raise LookupError(f"No loss {name!r} is defined; module {module} must define it when it is imported.")
    return DEFINED[name](**parameters)


def _check_name(name: str) -> None:
    if not (name.isidentifier() and not keyword.iskeyword(name)):
        raise ValueError(f"A loss cannot be called {name!r}; allowed: a Python identifier, given as name=.")
    for loss in (*LOSSES, *RANKINGS):
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


def _prediction_first(function: Callable[..., float]) -> Callable[..., float]:
    return lambda prediction, label, **parameters: function(label, prediction, **parameters)


def _takes_label_first(shown: str, first: str, second: str) -> bool:
    """Tell from the names of two arguments whether the first one is the label."""
    in_order = (first in PREDICTION_NAMES) + (second in LABEL_NAMES)
    turned = (first in LABEL_NAMES) + (second in PREDICTION_NAMES)
    if (in_order > 0) == (turned > 0):
        raise TypeError(
            f"{shown} takes ({first}, {second}), and which of them is the label cannot be told; "
            "allowed: prediction or y_pred or score, and label or y_true, in either order; rename them."
        )
    return turned > 0


def _signature(
    given: Any, name: str | None, derivative: bool = False
) -> tuple[Any, list[str], dict[str, float], bool]:
    """Return a function in Python, its names of prediction and label, the defaults of the others, and the order.

    The order is whether the label stands first. A derivative takes the parameters of the loss, and needs no defaults
    of its own.
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
    inputs = [p.name for p in parameters[:2]]
    label_first = _takes_label_first(shown, *inputs)
    return function, inputs[::-1] if label_first else inputs, defaults, label_first


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
        own, _, named, label_first = _signature(given, f"{name}: {role}" if role else name, derivative=bool(role))
        if unknown := [parameter for parameter in named if parameter not in parameters]:
            raise TypeError(f"{name}: {role} has a parameter {unknown[0]!r} that the function does not have.")
        try:
            return follow(graph, own, inputs[::-1] if label_first else inputs, list(named))
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
