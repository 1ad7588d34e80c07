"""The version, in the one place that Python reads it from; packaging reads this file."""

__version__ = "0.1.0"
