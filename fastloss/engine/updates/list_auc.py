"""The AUC of each list of a batch, computed once for all sums and counts that read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.engine.device import Device
from fastloss.engine.inputs import ListInputs
from fastloss.engine.slices import UsedRows
from fastloss.engine.workspace import read_only
from fastloss.metrics.conventions import RankOrder
from fastloss.metrics.gauc import WEIGHTINGS
from fastloss.metrics.quantities import AucChoice, ListAuc, ListAucCandidates, ListAucWeight, ListsOfKind
from fastloss_kernels.cpu.list_auc import CONSTANT, NO_NEGATIVE, NO_POSITIVE

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_KINDS = {"no positive": NO_POSITIVE, "no negative": NO_NEGATIVE, "constant": CONSTANT}
# To which power the weight of a list, which is that of each of its candidates, stands in what the list weighs.
_POWERS = {"positives": 1, "sample_weight": 1, "pairs": 2}
_NO_WEIGHTS = read_only(np.empty(0))


class ListAucs(NamedTuple):
    """The AUCs of the lists of a batch.

    Attributes
    ----------
    kind : numpy.ndarray of int8, shape (n_lists,)
        What each list holds (`fastloss_kernels.cpu.list_auc`).
    weight : numpy.ndarray of float64, shape (n_weightings, n_lists)
        What it weighs, by the positions of `WEIGHTINGS`.
    value : numpy.ndarray of float64, shape (n_weightings, n_lists)
        That, times the AUC; 0 where there is none.
    """

    kind: NDArray[np.int8]
    weight: Floats
    value: Floats


def list_aucs(rows: UsedRows) -> ListAucs:
    """Return the AUCs of the lists that are used."""
    inputs = rows.inputs
    assert isinstance(inputs, ListInputs)

    def compute() -> ListAucs:
        ranked = inputs.ranked(RankOrder(), rows.device)
        found = ListAucs(
            np.empty(rows.n_rows, dtype=np.int8),
            np.empty((len(WEIGHTINGS), rows.n_rows)),
            np.empty((len(WEIGHTINGS), rows.n_rows)),
        )
        weight = _NO_WEIGHTS if ranked.weight is None else ranked.weight
        loop = rows.device.list_auc.make_list_auc()
        loop(ranked.score, ranked.score_offsets, ranked.label, weight, ranked.rows, *found)
        if ranked.weight is None and rows.weight is not None:
            for weighting, power in _POWERS.items():
                at = WEIGHTINGS.index(weighting)
                for _ in range(power):
                    np.multiply(found.weight[at], rows.weight, out=found.weight[at])
                    np.multiply(found.value[at], rows.weight, out=found.value[at])
        return found

    return rows.once("AUCs of lists", compute)


def auc_terms(quantity: ListAuc) -> Callable[[UsedRows], Floats]:
    """Make what gives each list's AUC times what the list weighs."""
    choice, at = quantity.choice, WEIGHTINGS.index(quantity.choice.weighting)

    def terms_of(rows: UsedRows) -> Floats:
        found = list_aucs(rows)
        terms = rows.terms
        np.copyto(terms, found.value[at])
        if choice.one_class is not None:
            np.multiply(found.weight[at], choice.one_class, out=terms, where=_of_one_class(found))
        terms[~_used(found, choice)] = 0.0
        return terms

    return terms_of


def weight_terms(quantity: ListAucWeight) -> Callable[[UsedRows], Floats]:
    """Make what gives what each list weighs, 0 where it is left out."""
    choice, at = quantity.choice, WEIGHTINGS.index(quantity.choice.weighting)

    def terms_of(rows: UsedRows) -> Floats:
        found = list_aucs(rows)
        terms = rows.terms
        np.copyto(terms, found.weight[at])
        terms[~_used(found, choice)] = 0.0
        return terms

    return terms_of


def count_kind(quantity: ListsOfKind, device: Device) -> Callable[[UsedRows], NDArray[Any]]:
    """Make what tells which lists are of a kind."""
    kind = _KINDS[quantity.kind]
    return lambda rows: list_aucs(rows).kind == kind


def count_candidates(quantity: ListAucCandidates, device: Device) -> Callable[[UsedRows], NDArray[Any]]:
    """Make what counts the candidates of the lists that are used."""
    return lambda rows: rows.inputs.candidates() * _used(list_aucs(rows), quantity.choice)


def _of_one_class(found: ListAucs) -> Mask:
    one_class: Mask = (found.kind == NO_POSITIVE) | (found.kind == NO_NEGATIVE)
    return one_class


def _used(found: ListAucs, choice: AucChoice) -> Mask:
    used = np.ones(len(found.kind), dtype=np.bool_)
    if choice.one_class is None:
        used &= ~_of_one_class(found)
    if choice.drop_constant:
        used &= found.kind != CONSTANT
    return used
