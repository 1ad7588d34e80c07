"""Names of metrics, as a user writes them: ``log_loss``, ``log_loss(label_smoothing=0.1)`` or ``lift@0.1``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, cast

from fastloss.errors import UsageError, nearest_names
from fastloss.metrics.average_precision import AveragePrecision
from fastloss.metrics.base import Metric, PlainMetric
from fastloss.metrics.calibration_error import ExpectedCalibrationError, MaximumCalibrationError
from fastloss.metrics.confusion import F1, FalsePositiveRate, Precision, Recall
from fastloss.metrics.decomposition import Discrimination, Miscalibration, Uncertainty
from fastloss.metrics.field_calibration import FieldCalibrationError
from fastloss.metrics.gauc import GroupedAuc
from fastloss.metrics.ks import KolmogorovSmirnov
from fastloss.metrics.lift import Lift
from fastloss.metrics.means import (
    CALIBRATION,
    COPC,
    CTR,
    MEAN_PREDICTION,
    MeanLoss,
    NormalizedEntropy,
    RootMeanSquaredError,
)
from fastloss.metrics.partial_roc_auc import PartialRocAuc
from fastloss.metrics.roc_auc import Gini, RocAuc
from fastloss_kernels.define import DEFINED
from fastloss_kernels.losses import LOSSES, Loss
from fastloss_kernels.rankings import RANKINGS, Ranking

# Every metric that is no loss, once, as it is without parameters.
METRICS: tuple[Metric, ...] = (
    RootMeanSquaredError(),
    NormalizedEntropy(),
    NormalizedEntropy(complement=True),
    CTR,
    MEAN_PREDICTION,
    CALIBRATION,
    COPC,
    ExpectedCalibrationError(),
    MaximumCalibrationError(),
    FieldCalibrationError(),
    Miscalibration(),
    Discrimination(),
    Uncertainty(),
    RocAuc(),
    Gini(),
    PartialRocAuc(),
    AveragePrecision(),
    Precision(),
    Recall(),
    F1(),
    FalsePositiveRate(),
    KolmogorovSmirnov(),
    Lift(),
    GroupedAuc(),
)
ALIASES = {
    "rmse": "root_mean_squared_error",
    "ne": "normalized_entropy",
    "rig": "relative_information_gain",
    "ece": "expected_calibration_error",
    "mce": "maximum_calibration_error",
    "auc": "roc_auc",
    "auroc": "roc_auc",
    "aucroc": "roc_auc",
    "roc_auc_score": "roc_auc",
    "ap": "average_precision",
    "average_precision_score": "average_precision",
    "precision_score": "precision",
    "recall_score": "recall",
    "true_positive_rate": "recall",
    "tpr": "recall",
    "f1_score": "f1",
    "fpr": "false_positive_rate",
    "ks_statistic": "ks",
    "grouped_auc": "gauc",
    "group_auc": "gauc",
}


def base_name(metric: Metric) -> str:
    """Return the name of a metric without parameters."""
    return str(getattr(metric, "family", metric.name))


# Parameters that are rates, as they are called for short.
_SHORT_PARAMETERS = {"fpr": "false_positive_rate", "tpr": "recall", "true_positive_rate": "recall"}

_LOSSES = {name: loss for loss in (*LOSSES, *RANKINGS) for name in (loss.name, *loss.aliases, loss.__name__)}
# Rankings that are called as metrics of rows are, and told from them by what stands behind an @.
AT_K = {ranking.short_name: ranking for ranking in RANKINGS if ranking.short_name}
_METRICS: dict[str, Any] = {base_name(metric): metric for metric in METRICS}
_METRICS |= {alias: _METRICS[name] for alias, name in ALIASES.items()}

# A metric of the groups of one key of several, as `with_group` writes it.
_OF_GROUP = re.compile(r"(?P<name>[^(]*)\((?:(?P<others>.*),\s*)?group=(?P<group>[^,=]*)\)\s*", re.DOTALL)

# What a user may look for, and what comes near it where it is not there.
_NEAR: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("ace", "adaptive_calibration_error", "calibration_error"), ("expected_calibration_error",)),
    (("uauc", "user_auc"), ("gauc(weighting='uniform')",)),
    (("wuauc", "weighted_user_auc"), ("gauc(weighting='sample_weight')",)),
    (("pr_auc", "prauc", "auprc", "aucpr", "auc_pr"), ("average_precision",)),
    (
        ("brier_decomposition", "murphy_decomposition", "reliability", "resolution", "refinement"),
        (
            "miscalibration(loss='brier_score')",
            "discrimination(loss='brier_score')",
            "uncertainty(loss='brier_score')",
        ),
    ),
    (("accuracy", "accuracy_score", "error_rate", "mcc"), ("zero_one", "f1", "precision", "recall")),
    (("sensitivity", "specificity", "tnr"), ("recall", "false_positive_rate")),
    (("r2", "r2_score"), ("mean_squared_error", "root_mean_squared_error")),
    (("bias", "mean_label", "base_rate"), ("ctr", "mean_prediction", "calibration")),
)
# What a metric of the first k candidates is called besides its names, without underscores.
_AT_RANK = {
    "p": "precision",
    "r": "recall",
    "ap": "map",
    "averageprecision": "map",
    "hit": "hit_rate",
    "success": "hit_rate",
}
_EVIDENCE = {"n": "n", "count": "n", "rows": "n", "weight": "weight", "positives": "n_positive, beside ctr"}


def unknown_metric(name: str) -> str:
    """Say that there is no metric of a name, and what comes near."""
    if name in _EVIDENCE:
        return f"{name!r} is no metric: every value comes with it, as {_EVIDENCE[name]}."
    known = known_names()
    wanted = re.split(r"[@(]", name, maxsplit=1)[0].strip().lower().replace("-", "_")
    for names, near in _NEAR:
        if wanted in names and (there := [_quoted(each) for each in near if each.partition("(")[0] in known]):
            return f"There is no metric {name!r} (yet). What comes near: {', '.join(there)}."
    meant = _at_rank(name) or _in_other_letters(wanted, known)
    hint = f"Did you mean {meant!r}?" if meant else nearest_names(wanted, known)
    return f"No metric or loss is called {name!r}. {hint}"


def _in_other_letters(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is this one but for upper case and underscores."""
    same = [each for each in known if _letters(each) == _letters(name)]
    return min(same, key=lambda each: each != each.lower(), default=None)


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _at_rank(name: str) -> str | None:
    """Return the metric of the first k candidates that ``ndcg10``, ``map_at_10`` or ``HitRate@10`` means."""
    found = re.fullmatch(r"\s*([a-z][\w-]*?)(?:@|[-_]at[-_]?|[-_])?([0-9]+)\s*", name, re.IGNORECASE)
    if found is None:
        return None
    names = [*AT_K, *(known for known, loss in _LOSSES.items() if getattr(loss, "main", None) == "k")]
    stem = _AT_RANK.get(_letters(found[1])) or _in_other_letters(found[1], names)
    return None if stem is None else f"{stem}@{found[2]}"


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else repr(name)


def known_names() -> list[str]:
    """Return every name and alias that `parse_metric` knows."""
    return [*_LOSSES, *_METRICS, *DEFINED]


def parse_metric(given: object) -> Metric:
    """Return the metric of a name, of a name with parameters, or of a loss object.

    Raises
    ------
    UsageError
        If the name or a parameter is unknown, a parameter is outside its range, or the text is no call.
    """
    if isinstance(given, Loss):
        if given.name in _METRICS:
            raise UsageError(f"The loss {given.name!r} has the name of a metric; define it with another name=.")
        return MeanLoss(_checked(given))
    if isinstance(given, PlainMetric):
        return cast("Metric", given)
    if not isinstance(given, str):
        raise UsageError(f"A metric is {given!r}; allowed: a name such as 'log_loss', or a loss of fastloss.losses.")
    name, parameters, main = _parse_call(given)
    if name in _METRICS and not (main is not None and name in AT_K):
        return _with_parameters(_METRICS[name], name, parameters, main)
    loss = AT_K.get(name) or _LOSSES.get(name) or DEFINED.get(name)
    if loss is None:
        raise UsageError(unknown_metric(name if main is None else f"{name}@{main}"))
    if main is not None:
        parameters = _with_main(loss, name, parameters, main)
    known = [field.name for field in fields(loss)]
    unknown = [parameter for parameter in parameters if parameter not in known]
    if unknown:
        raise UsageError(_no_parameter(name, unknown[0], parameters, known))
    try:
        return MeanLoss(_checked(loss(**parameters)))
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(str(error)) from None


def _checked(loss: Loss) -> Loss:
    """Return a loss that says all that it needs."""
    if getattr(loss, "needs_k", False) and getattr(loss, "k", 0) is None:
        name = getattr(loss, "short_name", "") or loss.name
        raise UsageError(f"{loss.name} needs the last rank that counts; write it behind @, as in {name}@10.")
    return loss


def with_group(metric: str, group: str) -> str:
    """Return the name of a metric that is of the groups of one key of several."""
    return f"{metric[:-1]}, group={group})" if metric.endswith(")") else f"{metric}(group={group})"


def name_among(given: str, computed: Sequence[str]) -> str:
    """Return the name under which a metric was computed, however it is written.

    Raises
    ------
    UsageError
        If there is no such metric; one that there is may still not be among those computed.
    """
    if given in computed:
        return given
    found = _OF_GROUP.fullmatch(given)
    if found is None:
        return parse_metric(given).name
    others = f"({found['others']})" if found["others"] else ""
    return with_group(parse_metric(found["name"] + others).name, found["group"])


def loss_of(metric: Metric) -> Loss | None:
    """Return the loss whose mean a metric is; None where it is another metric, and so has no gradient."""
    return metric.loss if isinstance(metric, MeanLoss) and not isinstance(metric.loss, Ranking) else None


def _no_parameter(name: str, unknown: str, parameters: Mapping[str, object], known: Sequence[str]) -> str:
    """Say that a metric has no parameter of a name, and which it has."""
    if unknown == "group":
        key = parameters["group"]
        return (
            f"{name} has no parameter 'group': where there are several group keys, a result calls its metrics so. "
            f"Name the metric {name!r}, and the key by group={key!r}, on the command line --group {key}."
        )
    return f"{name} has no parameter {unknown!r}; its parameters: {', '.join(known) or 'none'}."


def _no_main(metric: object, name: str) -> str:
    """Say that nothing of a metric is written behind @, and what is written."""
    if short := _AT_RANK.get(_letters(base_name(cast("Metric", metric)))):
        return f"{name} has no k behind @: it is of rows. Of the first k of each list it is {short + '@k'!r}."
    known = getattr(metric, "parameters", None) if isinstance(metric, PlainMetric) else _fields_of(metric)
    if not known:
        return f"{name} takes no parameters, and none behind @; write {name!r}."
    return f"{name} has no parameter that is written behind @; its parameters are in parentheses: {', '.join(known)}."


def _fields_of(loss: Any) -> list[str]:
    return [field.name for field in fields(loss)]


def _with_main(metric: object, name: str, parameters: dict[str, object], main: object) -> dict[str, object]:
    """Return the parameters with what stands behind an @."""
    written = getattr(metric, "main", None)
    if written is None:
        raise UsageError(_no_main(metric, name))
    if written in parameters:
        raise UsageError(f"{name} is given {written} twice, behind @ and in parentheses.")
    if written == "k" and not isinstance(main, int):
        k = int(main) if isinstance(main, float) and main.is_integer() else 10
        near = f"; a threshold is written {name}(threshold={main})" if name in _METRICS else ""
        raise UsageError(f"{name}@{main}: k, behind @, is a whole number, such as {name}@{k}{near}.")
    return {written: main, **parameters}


def _with_parameters(metric: Any, name: str, parameters: dict[str, object], main: object) -> Metric:
    allowed = metric.parameters
    for short, long in _SHORT_PARAMETERS.items():
        if short in parameters and short not in allowed and long in allowed:
            if long in parameters:
                raise UsageError(f"{name} is given {long} twice, as {short} too.")
            parameters = {long if given == short else given: value for given, value in parameters.items()}
    if main is not None:
        parameters = _with_main(metric, name, parameters, main)
    unknown = [parameter for parameter in parameters if parameter not in allowed]
    if unknown and not allowed and unknown[0] != "group":
        raise UsageError(f"{name} takes no parameters; got {', '.join(parameters)}.")
    if unknown:
        raise UsageError(_no_parameter(name, unknown[0], parameters, allowed))
    try:
        changed: Metric = replace(metric, **parameters)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    return changed


def _parse_call(text: str) -> tuple[str, dict[str, object], object]:
    """Return the name, the parameters, and what stands behind an @, or None."""
    main: object = None
    try:
        if found := re.fullmatch(r"\s*(\w+)@([^(\s]+)\s*(\(.*\))?\s*", text, re.DOTALL):
            main = _behind_at(found[2], text)
            text = found[1] + (found[3] or "")
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}, main
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
            parameters = {k.arg: _parameter(k.value) for k in node.keywords if k.arg}
            if len(parameters) == len(node.keywords):
                return node.func.id, parameters, main
    except (SyntaxError, ValueError):
        pass
    raise UsageError(
        f"Cannot read the metric {text!r}; write one name, or name(parameter=value, …), each parameter once."
    )


def _behind_at(written: str, text: str) -> object:
    """Return what stands behind an @, which is a number."""
    try:
        found: object = ast.literal_eval(written)
    except (SyntaxError, ValueError):
        found = None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise UsageError(f"Cannot read the metric {text!r}: behind @ stands a number, such as lift@0.05 or mrr@10.")
    return found


def _parameter(node: ast.expr) -> object:
    """Return a parameter's value; a bare word is a text, as a shell leaves it, except true and false."""
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None}.get(node.id.lower(), node.id)
    return ast.literal_eval(node)


# What is added to them where rows have groups.
DEFAULT_OF_GROUPS = ("reciprocal_rank",)


def default_metrics(spaces: Iterable[str], shape: Literal["row", "list", "index"] = "row") -> list[Metric]:
    """Return what a user of these prediction spaces most likely wants to see.

    Predictions are one number a row, or lists beside lists of labels, or lists beside an index.
    """
    given = set(spaces)
    if shape == "index":
        names = ["sparse_categorical_crossentropy"]
    elif shape == "list" and given <= {"logit", "prob", "logprob"}:
        names = ["categorical_crossentropy"]
    elif shape == "list" and given == {"value"}:
        names = ["mean_squared_error", "mean_absolute_error"]
    elif given <= {"logit", "prob", "logprob"}:
        names = ["log_loss", "normalized_entropy", "brier_score", "calibration", "ctr", "mean_prediction"]
    elif given == {"value"}:
        names = ["mean_squared_error", "root_mean_squared_error", "mean_absolute_error", "mean_prediction"]
    elif given == {"margin"}:
        names = ["hinge"]
    elif "score" in given and "value" not in given:
        names = ["reciprocal_rank"] if shape == "list" else ["roc_auc", "average_precision"]
    else:
        raise UsageError(f"Models of the kinds {', '.join(sorted(given))} share no default metrics; name the metrics.")
    return [parse_metric(name) for name in names]
