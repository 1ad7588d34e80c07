"""Every loss, as an object: ``BinaryCrossentropy(label_smoothing=0.1)(label, logit=x)``."""

from __future__ import annotations

from typing import Any

from fastloss_kernels.arrays import register_list_reader as _register_list_reader
from fastloss_kernels.define import define as define
from fastloss_kernels.losses import *  # noqa: F403
from fastloss_kernels.losses import Loss as Loss
from fastloss_kernels.over_lists import OverLists as OverLists


def __dir__() -> list[str]:
    """Return the losses, the lists of them, and what makes one of one's own."""
    losses = [name for name, found in globals().items() if isinstance(found, type) and issubclass(found, Loss)]
    return sorted([*losses, "LISTWISE_LOSSES", "LOSSES", "POINTWISE_LOSSES", "define"])


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


_register_list_reader(_read_column)
