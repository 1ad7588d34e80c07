"""Formulas, kernels and exact sums of fastloss: mathematics, NumPy and Numba only."""

# Raised when a formula gives other digits than before, so that no stored result is taken for one of them.
FORMULAS_VERSION = 1
