"""Calibration: maps that mend predictions, fitted to a log in a few passes."""
