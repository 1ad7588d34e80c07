"""What reports are made from: the plain values that `Result.shown` returns, also those of a stored result."""

from __future__ import annotations

# A longer list of slices is no longer read by a person.
DEFAULT_SLICES = 50
