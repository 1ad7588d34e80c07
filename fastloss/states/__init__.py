"""Mergeable sufficient statistics; they know no file and no column."""
