"""Carrying out a plan for the gradient by features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from fastloss.engine.features import unequal_lengths
from fastloss.features.analysis import analyse_categories, analyse_columns, cap_improvements
from fastloss.features.plan import GradientPlan
from fastloss.features.result import FeatureGradient, FeatureScore, Group
from fastloss.metrics.base import SliceStates
from fastloss.metrics.evaluate import slice_states
from fastloss.metrics.feature_scores import FeatureScores
from fastloss.report.content import dropped_rows, skipped_parts
from fastloss.scan import Progress, run_scan
from fastloss.states.products import FeatureProducts, FeatureProductsColumn
from fastloss.states.slices import SliceTable
from fastloss_kernels.losses import Loss


def run_gradient(gradient_plan: GradientPlan, report: Callable[[Progress], None] | None = None) -> FeatureGradient:
    """Read the log and return the gradient.

    Raises
    ------
    FastlossError
        The error of the first task that has one; DataError if the lists of a feature are not of one length.
    """
    plan, scores = gradient_plan.plan, gradient_plan.scores
    (model,) = plan.evaluation.models
    scanned = run_scan(plan, report)
    total = next(table for table in scanned.state.tables if not table.keys)
    states = slice_states(plan.evaluation, total, scanned.specs)[0]
    column = total.columns[scanned.specs.index(scores.products(model))]
    assert isinstance(column, FeatureProductsColumn)
    if column.conflict is not None:
        feature, length, other = column.conflict
        raise unequal_lengths("the log", scores.features[feature], length, other)
    products = states[scores.products(model)]
    rows = scores.rows(model)
    n, weight = int(states.count(rows)[0]), states.weight(rows)[0]
    mean = gradient_plan.mean_loss.evaluate(states)
    mean_loss = None if mean.undefined[0] else float(mean.value[0])
    most = _most_improvement(gradient_plan.loss, mean_loss)
    # Of a log that can be read twice, features far from 0 are summed less their means, too.
    centred = next((spec for spec in scanned.specs if isinstance(spec, FeatureProducts) and spec.offsets), None)
    columns = (
        analyse_columns(products, weight, n)
        if centred is None
        else analyse_columns(products, weight, n, states[centred], centred.offsets)
    )
    cap_improvements(columns, most)
    found: dict[str, list[FeatureScore]] = {}
    names: list[str] = []
    first = 0
    for name, width in zip(scores.features, products.widths, strict=True):
        places: Iterable[int | None] = range(int(width)) if name in scores.lists else (None,)
        for place in places:
            numbers = columns.scores[first]
            found.setdefault(name, []).append(FeatureScore(name, place, (), n - int(products.n_null[first]), numbers))
            names.append(found[name][-1].name)
            first += 1
        found.setdefault(name, [])
    groups: dict[str, Group] = {}
    for table in scanned.state.tables:
        if table.keys:
            (name,) = table.keys
            groups[name], found[name] = _categories(
                name, table, slice_states(plan.evaluation, table, scanned.specs)[0], states, scores, most
            )
    whole = [states[spec][0] for spec in (scores.gradient(model), scores.curvature(model), scores.square(model))]
    for name in scores.sets:
        sums = states[scores.categories(model, name)]
        gradients, curvatures, squares = sums.sums
        categories = analyse_categories(gradients, curvatures, squares, whole, weight)
        cap_improvements(categories, most)
        groups[name] = Group(len(sums.keys), None, None, n - sums.n_rows)
        found[name] = [
            FeatureScore(name, None, (key,), int(sums.n[i]), categories.numbers(i)) for i, key in enumerate(sums.keys)
        ]
    ledger = scanned.state.ledger
    return FeatureGradient(
        asked=_asked(gradient_plan),
        fingerprint=plan.fingerprint,
        loss=gradient_plan.loss.full_name,
        mean_loss=mean_loss,
        n_saturated=int(mean.evidence["n_saturated"][0]) if "n_saturated" in mean.evidence else 0,
        n=n,
        weight=float(weight),
        names=tuple(names),
        columns=columns,
        features=[score for name in gradient_plan.features for score in found[name]],
        groups=groups,
        rows={
            "read": ledger.n_read,
            **({"filtered": ledger.n_filtered} if plan.request.where else {}),
            "used": n,
            "dropped": dropped_rows(ledger),
        },
        files={"read": scanned.n_files, "skipped": skipped_parts(scanned.skipped)},
    )


def _most_improvement(loss: Loss, mean: float | None) -> float | None:
    """Return the largest improvement that can be: the mean of a loss from 0 up; None if the mean is not finite."""
    if mean is None:
        return math.inf
    if not math.isfinite(mean):
        return None
    return mean if loss.is_nonnegative else math.inf


def _categories(
    name: str,
    table: SliceTable,
    of_slices: SliceStates,
    total: SliceStates,
    scores: FeatureScores,
    most: float | None,
) -> tuple[Group, list[FeatureScore]]:
    model, rows = total.model, scores.rows(total.model)
    n = of_slices.count(rows)
    order = table.sorted_positions()
    order = order[n[order] > 0]
    specs = (scores.gradient(model), scores.curvature(model), scores.square(model))
    gradients, curvatures, squares = (of_slices[spec].take(order) for spec in specs)
    whole = [total[spec][0] for spec in specs]
    categories = analyse_categories(gradients, curvatures, squares, whole, total.weight(rows)[0])
    cap_improvements(categories, most)
    keys = table.key_columns()[0].to_list()
    found = [
        FeatureScore(name, None, (keys[position],), int(n[position]), categories.numbers(i))
        for i, position in enumerate(order.tolist())
    ]
    return Group(len(found), categories.joint_improvement, categories.joint_noise, 0), found


def _asked(gradient_plan: GradientPlan) -> dict[str, object]:
    asked = gradient_plan.plan.asked()
    for name in ("metrics", "by"):
        del asked[name]
    scores = gradient_plan.scores
    return {
        **asked,
        "loss": gradient_plan.loss.full_name,
        "features": list(gradient_plan.features),
        "categorical": [name for name in gradient_plan.features if name not in scores.features],
        "diagonal": scores.diagonal,
    }
