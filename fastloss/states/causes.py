"""The causes for which a row is left out, each once."""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """Why a row was left out, the column that made it so, and what that column was read as."""

    name: str
    column: str
    role: str


NULL_LABEL = "null_label"
NULL_PREDICTION = "null_prediction"
NULL_WEIGHT = "null_weight"
ZERO_WEIGHT = "zero_weight"
NEGATIVE_WEIGHT = "negative_weight"
INFINITE_WEIGHT = "infinite_weight"
NAN = "nan"
OUTSIDE_DOMAIN = "outside_domain"
EMPTY_LIST = "empty_list"
ALL_MASKED = "all_masked"
NO_POSITIVE = "no_positive"
NO_PAIR = "no_pair"
MISSING_POSITIVE = "missing_positive"
MISSING_PAIR = "missing_pair"
IGNORED_CLASS = "ignored_class"
DIFFERENT_LENGTHS = "different_lengths"
TWO_INFINITE_PREDICTIONS = "two_infinite_predictions"
LIST_TOO_LONG = "list_too_long"
SMALL_GROUP = "small_group"

# What is wrong with a list as a whole.
LIST_FAULTS = {
    DIFFERENT_LENGTHS: "has a list of another length than the label's; allowed: a label for each candidate",
    TWO_INFINITE_PREDICTIONS: "has two candidates at infinity; allowed: one, whose probability then is 1",
    MISSING_POSITIVE: "has a list without a label above 0, which empty='error' refuses; allowed: skip, zero, one",
    MISSING_PAIR: "has a list without two labels to compare, which empty='error' refuses; allowed: skip, zero, one",
    LIST_TOO_LONG: "has a list of more candidates than max_pairs allows; raise max_pairs or shorten the lists",
}

# A bad row stops the evaluation unless the user chose to drop it; other causes are counted and skipped.
BAD_CAUSES = (NAN, OUTSIDE_DOMAIN, NEGATIVE_WEIGHT, INFINITE_WEIGHT, *LIST_FAULTS)

# What some metrics of lists need and others do not.
OF_SOME_METRICS = (NO_POSITIVE, NO_PAIR)
