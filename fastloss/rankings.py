"""Every ranking metric, as an object: ``Ndcg(10)(label, score=s)`` gives that of each list."""

from __future__ import annotations

# It teaches calls to read columns of lists.
from fastloss import losses as _losses
from fastloss_kernels.rankings import *  # noqa: F403
from fastloss_kernels.rankings import Ranking as Ranking

assert _losses


def __dir__() -> list[str]:
    """Return the metrics, and the list of them."""
    rankings = [name for name, found in globals().items() if isinstance(found, type) and issubclass(found, Ranking)]
    return sorted([*rankings, "RANKINGS"])
