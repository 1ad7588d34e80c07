"""Curves of models, as points, from what metrics keep of every slice."""
