"""Every loss, as an object: ``BinaryCrossentropy(label_smoothing=0.1)(label, logit=x)``."""

from __future__ import annotations

from typing import Any

from fastloss_kernels.losses import *  # noqa: F403
from fastloss_kernels.losses.form import LIST_READERS as _LIST_READERS


def _read_column(given: Any) -> tuple[Any, ...] | None:
    import numpy as np

    from fastloss.columns.arrow import lists_like, read_lists

    lists = read_lists(given)
    if lists is None:
        return None
    values = lists.values
    void = lists.lists_with(np.isnan(values))
    if lists.valid is not None:
        void |= ~lists.valid
    if lists.elements_valid is not None:
        values = np.where(lists.elements_valid, values, np.nan)
    return values, lists.offsets, void, lambda found: lists_like(given, lists, found)


_LIST_READERS.append(_read_column)
