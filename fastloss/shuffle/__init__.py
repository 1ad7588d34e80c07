"""Bringing the rows of a key together: by partitions, in memory and beyond it on disk."""
