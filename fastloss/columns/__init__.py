"""Columns of a batch as NumPy arrays: `base` says what they are, `arrow` makes them from Arrow."""
