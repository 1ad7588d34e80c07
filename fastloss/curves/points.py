"""The points of curves of many slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
# Why a slice has no curve; nothing where it has one.
REASONS = ("", "no_rows", "one_class", "no_positive")


@dataclass(frozen=True)
class CurvePoints:
    """The points of curves of many slices.

    Attributes
    ----------
    slices : ndarray of int64, (n_points,)
        The slice of each point, ascending.
    columns : mapping of str to ndarray, (n_points,)
        The coordinates; NaN where there is none.
    reasons : ndarray of int64, (n_slices,)
        Why a slice has no curve, as a position in `REASONS`. It has one point then, without coordinates.
    area_error : ndarray of float64, (n_slices,), or None
        The most area that lies between the points of a slice and its whole curve; None where there is no area.
    """

    slices: Integers
    columns: Mapping[str, NDArray[np.generic]]
    reasons: Integers
    area_error: Floats | None = None
