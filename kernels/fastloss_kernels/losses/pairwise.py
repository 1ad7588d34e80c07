"""What losses of the pairs of a list have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.losses.form import FINITE, SATURATION_EPSILON, Interval, ListLoss
from fastloss_kernels.pairs import DEFAULT_MOST_PAIRS, MOST_PAIRS, longest_list_of_pairs


@dataclass(frozen=True)
class PairwiseLoss(ListLoss):
    """A loss of the pairs of a list, whose time grows with the square of its length."""

    max_pairs: int = DEFAULT_MOST_PAIRS

    label_range: ClassVar[Interval] = FINITE
    ranges = {"max_pairs": Interval(1, MOST_PAIRS)}

    def __post_init__(self) -> None:
        """Check that the number of pairs is whole."""
        if isinstance(self.max_pairs, bool) or not isinstance(self.max_pairs, int):
            raise ValueError(f"{self.name}: max_pairs is {self.max_pairs!r}; allowed: a whole number.")
        super().__post_init__()

    @property
    def needs(self) -> str:
        """Two candidates with different labels."""
        return "pair"

    @property
    def longest_list(self) -> int:
        """The largest number n of candidates with n·(n − 1)/2 at most `max_pairs`; a longer list has the value NaN."""
        return longest_list_of_pairs(self.max_pairs)

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the length of the longest list."""
        return (float(self.longest_list),)
