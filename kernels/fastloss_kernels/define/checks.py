"""Numerical checks of a custom loss when it is defined: finite values, and derivatives that agree with differences."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from fastloss_kernels.domain import Interval, Row
from fastloss_kernels.losses.base import Loss

# Half the step of a difference, as a part of the larger of 1 and the prediction, and how far from a boundary of the
# domain its points stay, in half steps.
HALF_STEP = 1e-3
REACH = 24
# Five points at whole steps and at half steps, around a prediction and beside it on either side: a kink lies within
# one of the three at most.
STENCIL = (-4, -2, -1, 0, 1, 2, 4)
CENTRES = (0, -12, 12)
# The relative error that a difference may have.
DIFFERENCE_TOLERANCE = 1e-5
# The difference that libm's functions may make where a formula cancels.
PYTHON_TOLERANCE = 1e-6

FRACTIONS = (0.02, 0.11, 0.27, 0.43, 0.55, 0.68, 0.83, 0.97)
OFFSETS = (0.05, 0.3, 0.9, 1.7, 3.2, 7.4, 19.3)


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


def derivatives_on_grid(loss: Loss, space: str) -> Any:
    """Return gradient and hessian over a grid of the loss's domain, shape (2, n_points)."""
    return _evaluate(loss.formulas[space], _grid(loss, space), loss.parameters(space))[1:]


def check_loss(loss: Loss, space: str, function: Callable[..., float], gradient: bool, hessian: bool) -> None:
    """Raise a ValueError where the loss is not finite, or a derivative is not what differences say."""
    import numpy as np

    points, parameters = _grid(loss, space), loss.parameters(space)
    found = _evaluate(loss.formulas[space], points, parameters)
    named = [f.name for f in fields(loss) if f.name != "label_domain"]
    for x, y, column in zip(points.predictions.tolist(), points.labels.tolist(), found.T, strict=True):
        if not math.isfinite(column[0]):
            raise ValueError(
                f"{loss.name} is {float(column[0])!r} at prediction {x:g}, label {y:g}; allowed: a finite number; "
                "narrow prediction_range or label_range, or mend the formula."
            )
        plain = np.array(loss.formulas[space](x, y, parameters))
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
    found = _evaluate(loss.formulas[space], spread, parameters).reshape(3, *rows.shape)
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
        single = np.flatnonzero(_at_a_single_point(found[order - 1][0], found[order][0]))
        if single.size:
            i = int(single[0])
            at = f"at prediction {x[i]:g}, label {y[i]:g}" + _shown(loss, parameters)
            warnings.warn(
                f"{loss.name}: the {role} {'given' if given else 'derived'} is {float(stated[0, i])!r} {at} alone, "
                f"where differences give {float(fine[0, i])!r}; a branch or a pole at a single point decides it: "
                f"give {role}=, or mend the formula.",
                UserWarning,
                stacklevel=4,
            )


def _at_a_single_point(below: Any, derivative: Any) -> Any:
    """Tell where a derivative over a stencil is not what both sides lead to, or no finite number unless they do.

    Where what it derives, `below`, has a kink or a step, the sides say nothing.
    """
    import numpy as np

    stated = derivative[STENCIL.index(0)]
    with np.errstate(all="ignore"):
        smooth = _lead(below)[0]
        continues, limit, size = _lead(derivative)
        differs = ~(abs(stated - limit) <= 1000.0 * DIFFERENCE_TOLERANCE * size)
        # As that of |ŷ − y|^1.5, whose limit is what is stated.
        grows = np.isinf(stated)
        for far, middle, near in _sides(derivative):
            grows &= (abs(near) > abs(middle)) & (abs(middle) > abs(far)) & (near * stated > 0.0)
    return np.isfinite(size) & ~grows & (~np.isfinite(stated) | (smooth & continues & differs))


def _sides(values: Any) -> tuple[Any, Any]:
    """Return the points of a stencil left and right of its midst, the farthest first."""
    return values[:3], values[:3:-1]


def _lead(values: Any) -> tuple[Any, Any, Any]:
    """Return whether both sides of a stencil lead to the same number in its midst, the number, and their size."""
    import numpy as np

    size = np.max([abs(side).max(axis=0) for side in _sides(values)], axis=0)
    # Through two and through three points on either side; at a cusp they lead to different places.
    lines = [2.0 * near - middle for _, middle, near in _sides(values)]
    curves = [far / 3.0 - 2.0 * middle + 8.0 / 3.0 * near for far, middle, near in _sides(values)]
    continues = abs(curves[0] - curves[1]) <= DIFFERENCE_TOLERANCE * size
    for line, curve in zip(lines, curves, strict=True):
        continues &= abs(line - curve) <= 100.0 * DIFFERENCE_TOLERANCE * size
    return continues, curves[0], size


def _shown(loss: Loss, parameters: tuple[float, ...]) -> str:
    named = [f.name for f in fields(loss) if f.name != "label_domain"]
    return "".join(f", {name}={value:g}" for name, value in zip(named, parameters, strict=True))
