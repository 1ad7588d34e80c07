"""Formulas, kernels and exact sums of fastloss: mathematics, NumPy and Numba only."""
