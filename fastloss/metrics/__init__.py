"""Metrics: declarations of which sums they need and how they read them."""
