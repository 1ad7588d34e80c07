"""The engine: the only place where columns, kernels and states meet."""
