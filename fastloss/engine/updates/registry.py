"""The update of every kind of state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastloss.engine.device import Device
from fastloss.engine.updates.base import Update
from fastloss.engine.updates.bins import make_bins_update
from fastloss.engine.updates.categories import make_category_sums_update
from fastloss.engine.updates.counts import make_count_update
from fastloss.engine.updates.histogram import make_histogram_update
from fastloss.engine.updates.products import make_feature_products_update
from fastloss.engine.updates.several_sums import make_several_sums_update
from fastloss.engine.updates.sums import make_sum_update
from fastloss.states.bins import BinnedSums
from fastloss.states.categories import CategorySums
from fastloss.states.counts import Count
from fastloss.states.histogram import ScoreHistogram
from fastloss.states.products import FeatureProducts
from fastloss.states.several_sums import SeveralSums
from fastloss.states.sorted_scores import SortedScores
from fastloss.states.sums import Sum

UPDATES: Mapping[type, Callable[[Any, Device], Update]] = {
    Sum: make_sum_update,
    Count: make_count_update,
    ScoreHistogram: make_histogram_update,
    SortedScores: make_histogram_update,
    BinnedSums: make_bins_update,
    SeveralSums: make_several_sums_update,
    CategorySums: make_category_sums_update,
    FeatureProducts: make_feature_products_update,
}
