"""Building blocks of listwise formulas."""
