"""Columns of a batch as NumPy arrays: `base` says what they are, `arrow` makes them from Arrow.

`nested` finds fields of structs by name, and `types` checks a schema against a request.
"""
