"""Loops of the GPU, twins of those in `cpu`."""
