"""Loops of the CPU."""
