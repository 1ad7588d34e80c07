"""The gradient with respect to features: what the model has not used of what it saw, or could have seen.

One pass sums the products of features with the loss's derivatives (`fastloss.states.products`); `analysis` makes of
them a score test of each feature, and the improvement of one Newton step.
"""

from __future__ import annotations

from fastloss.features.plan import GradientPlan, make_gradient_plan
from fastloss.features.result import FeatureGradient, FeatureScore
from fastloss.features.run import run_gradient

__all__ = ["FeatureGradient", "FeatureScore", "GradientPlan", "make_gradient_plan", "run_gradient"]
