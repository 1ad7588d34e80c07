"""Engines: the only place where columns, kernels and states meet."""
