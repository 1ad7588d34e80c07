"""The public functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from fastloss.budget import DEFAULT_MEMORY, DEFAULT_RETRY_SECONDS
from fastloss.calibration.calibrate import plan_calibration, run_calibration
from fastloss.calibration.result import Calibration
from fastloss.features import FeatureGradient, make_gradient_plan, run_gradient
from fastloss.many_slices import run_any_scan
from fastloss.merging import MergePlan, plan_merge, run_merge
from fastloss.metrics.choice import Choice
from fastloss.plan import Plan, make_plan
from fastloss.request import Prediction
from fastloss.result import Result, result_of
from fastloss.scan import Progress
from fastloss.scoring import ScoreResult, make_score_plan, refuse_a_column, run_score
from fastloss.sources.file_lists import entries_of
from fastloss.sources.listing import refuse_output_in_log
from fastloss.state_file import check_state_output, inputs_of, refuse_groups, write_state
from fastloss.words import (
    CalibrationMethod,
    Compression,
    DeviceName,
    ExecutorName,
    LabelDomain,
    ListReduction,
    MissingColumns,
    OnBadFile,
    OnBadRow,
    PresetName,
    Reader,
    Reduction,
    Saturation,
    Ties,
)
from fastloss_kernels.losses import Loss


def evaluate(
    log: object,
    *,
    label: str,
    predictions: Mapping[str, Prediction] | None = None,
    logit: str | Mapping[str, str] | None = None,
    prob: str | Mapping[str, str] | None = None,
    logprob: str | Mapping[str, str] | None = None,
    margin: str | Mapping[str, str] | None = None,
    value: str | Mapping[str, str] | None = None,
    score: str | Mapping[str, str] | None = None,
    weight: str | None = None,
    metrics: Sequence[object] | Loss | str | None = None,
    by: Sequence[str | Sequence[str]] | str | None = (),
    group: Sequence[str | Sequence[str]] | str | None = (),
    min_group_size: int = 1,
    group_sorted: bool = False,
    ties: Ties = "average",
    id: str | None = None,
    curves: Sequence[str] | str = (),
    where: object = None,
    with_columns: Mapping[str, object] | None = None,
    apply: object = None,
    sampling_rate: object = None,
    positive: str | int | float | bool | None = None,
    label_domain: LabelDomain = "01",
    reduction: Reduction | None = None,
    list_reduction: ListReduction | None = None,
    preset: PresetName | None = None,
    common_rows: bool = False,
    saturation: Saturation = "clip",
    on_bad_row: OnBadRow = "raise",
    on_bad_file: OnBadFile = "raise",
    missing_columns: MissingColumns = "error",
    reader: Reader = "pyarrow",
    verify_checksums: bool = False,
    storage_options: Mapping[str, object] | None = None,
    retry_seconds: float = DEFAULT_RETRY_SECONDS,
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    batch_rows: int | None = None,
    executor: ExecutorName = "threads",
    device: DeviceName = "cpu",
    state: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Evaluate predictions over a log in one pass.

    Parameters
    ----------
    log : path, list of paths, or object with ``__arrow_c_stream__``
        A file (Parquet, Arrow IPC, CSV, JSON lines), a glob, a folder (hive partitions become columns), a list of
        these, a URL (``s3://``, ``gs://``, ``abfs://``, ``https://``), ``@files.txt`` for a list of them by line; the
        folder of a Delta Lake or Iceberg table; an Arrow table, reader or dataset, a table of deltalake or pyiceberg,
        a Polars frame or lazy frame, a list or generator of record batches.
    label : str
        The label column: numbers or booleans; beside lists of predictions, lists of labels or the index of the right
        candidate, from 0. Here as wherever a column is named, ``"event.label"`` is a field of a struct, and
        ``"candidates.list.label"`` that of a list of structs, as a list column.
    predictions : mapping of str to Prediction, optional
        Models by name, each a column with its space: ``{"a": fastloss.logit("score_a")}``.
    logit, prob, logprob, margin, value, score : str or mapping of str to str, optional
        Short forms: a column, which names its model, or columns by model name. A score is an order and nothing else:
        metrics of ranking read it, such as ``"roc_auc"``; among `predictions` it is ``fastloss.ranking_score``.
    weight : str, optional
        The column of row weights, finite and at least 0. Rows of weight 0 are skipped.
    metrics : sequence of str or Loss, optional
        Names such as ``"log_loss"`` or ``"log_loss(label_smoothing=0.1)"``, or losses of `fastloss.losses`. Left out,
        the usual ones for the predictions' spaces.
    by : sequence of str or of sequences of str
        Slices: a column, or several columns for their cross. A null key is a slice of its own. Slices that outgrow the
        memory, such as those of millions of users, are evaluated some at a time; see Notes.
    group : str, sequence of str or of sequences of str
        The column whose value makes a list of rows, such as a request or a user: their rows may stand anywhere in the
        log. Metrics that read lists are then of these groups (``"gauc"``, ``"ndcg@10"``, list losses), the others of
        rows. A key of several columns is a tuple of them; several keys each give their own values. A group weighs as
        much as its rows do on average, and belongs to the slice of its first row. Rows whose key is null are in no
        group; `Result.groups` counts them, and the groups.
    min_group_size : int
        Leave out groups of fewer rows.
    group_sorted : bool
        Say that the rows of a group are adjacent in the log, in the order of its files: then few rows wait for others,
        and it takes less time and memory. It is checked. A log whose row groups hold ranges of the key, as one sorted
        by it does, is recognised without a word.
    ties : {"average", "input", "pessimistic", "optimistic", "id_desc"}
        The order of candidates of equal scores in metrics at ranks, such as ``"ndcg@10"``: the exact mean over every
        order, the order in the list or the log, the worst and the best one for the metric, or the largest id first,
        as trec_eval has it. Areas below curves count a tie as one half with any of them.
    id : str, optional
        The column of ids: a list of them for each list, or one a row beside `group`. Integers are compared as numbers,
        texts as bytes; bools, dates, timestamps and decimals are allowed too, and compared as their texts.
    curves : sequence of {"roc", "precision_recall", "gain", "reliability"}, or one of them
        Keep what these are drawn from, where no metric does, for `Result.curve`.
    where : str, polars.Expr, or list of them, optional
        Evaluate the rows alone for which this condition holds, or each of these: ``"country = 'DE'"``. Null is no.
        Partitions and row groups that cannot hold such a row are not read. See Notes.
    with_columns : mapping of str to str or polars.Expr, optional
        Further columns by name: ``{"hour": "date_trunc('hour', ts)"}``. Each may read those before it.
    apply : path, CalibrationMap, Calibration, or mapping of str to one of these, optional
        The map that predictions go through before they are evaluated, as `calibrate` returns or writes it: of the only
        model, or maps by the names of models.
    sampling_rate : float or mapping of str to float, optional
        The rate in (0, 1] at which negatives were kept when a model was trained, where it was not told so: p becomes
        p/(p + (1 − p)/rate), a logit x + log(rate). For all models, or rates by the names of models.
    positive : str, int, float or bool, optional
        The label's value that counts as 1, every other as 0, null as null: for labels that are texts or codes.
    label_domain : {"01", "pm1"}
        ``"pm1"`` for labels −1 and +1: they count as 0 and 1 in every metric.
    reduction : {"mean", "sum", "sum_over_batch_size", "sum_by_nonzero_weights"}, optional
        How a loss is summed up. Metrics that are no losses keep their own formula; `score` writes each row's value.

        - ``"mean"``, the default: Σw·l/Σw;
        - ``"sum"``: Σw·l;
        - ``"sum_over_batch_size"``: Σw·l/n, where n counts the used rows and those of weight 0;
        - ``"sum_by_nonzero_weights"``: Σw·l/n, where n counts the used rows.
    list_reduction : {"row", "element"}, optional
        How a pointwise loss is taken over list columns. ``"row"``, the default, averages in each list, then over
        lists. ``"element"`` takes each candidate by itself, and the divisor counts the candidates of all lists. The
        result's n and weight are of lists in both cases.
    preset : {"keras", "torch", "sklearn", "xgboost", "lightgbm", "torchrec"}, optional
        The clipping, divisor and unit of another system, so that its number can be reproduced. A `reduction` or
        `list_reduction` given beside it comes first, and any `saturation` but ``"clip"`` turns its clipping off.
        Logits are never clipped. Which rows are used does not change: a probability outside [0, 1] is still a bad
        row, although some of these systems clip it silently. A value over no rows, or over weights of sum 0, is None,
        where Keras has 0.
    common_rows : bool
        Evaluate all metrics over the same lists: those that every one of them can use. Otherwise, a list without a
        positive label, or without a pair, is left out of the metrics that need one. `n` says how many each used.
    saturation : {"clip", "exact", "error"}
        What to do where a probability rules out an outcome that happened. ``"clip"`` clips it at 1e-12, or where the
        preset does; ``"exact"`` keeps the infinite loss; ``"error"`` stops. Infinite logits are not clipped: their
        loss stays infinite. The result says how many rows this concerns.
    on_bad_row : {"raise", "drop"}
        Stop at a NaN, a value outside its domain or a negative weight; or leave the row out and count it.
    on_bad_file : {"raise", "skip"}
        Stop at a file that cannot be read; or leave out its unreadable row groups and list them.
    missing_columns : {"error", "null"}
        Stop at a file that lacks a column which another file of the log has, or at an item of an iterable that lacks
        one of the first; or read it as null there: the rows are left out and counted as such with a null label,
        prediction or weight, and have the slice of a null key.
    reader : {"pyarrow", "polars"}
        What decodes Parquet. Polars is for logs that you trust: a malformed file may end the process, or be read
        without an error.
    verify_checksums : bool
        Verify the page checksums that a file carries (pyarrow reader). It costs about 1 ns for each row.
    storage_options : mapping of str to object, optional
        Options of the stores that URLs name, such as ``{"region": "eu-central-1", "anonymous": True}``, under the
        names of pyarrow.fs, object_store or fsspec. Left out, the environment says what is needed, such as
        ``AWS_ACCESS_KEY_ID``. They change no number, and are neither shown nor stored.
    retry_seconds : float
        How long a store is asked again when a request fails in a way that may pass: a broken connection, a silence,
        HTTP 429 or 5xx. 0 asks once. A damaged file, a refusal and a missing file are not asked for again.
    memory : int or str
        Bound of the memory that the scan may take beyond the imported libraries: bytes, or ``"512MiB"``.
    threads : int, optional
        Reader threads; left out, one for each available core, as far as the memory goes. No digit depends on it.
    batch_rows : int, optional
        Rows evaluated at a time; left out, as many as suit the memory, up to 262,144. No digit depends on it.
    executor : {"threads", "processes"}
        Whether threads of this process read the log, or processes of their own, as many as `threads` says. No digit
        depends on it.
    device : {"cpu"}
        Where the kernels run.
    state : path, optional
        Write the sums behind the result to this file, whole or not at all, so that `merge` can add those of other
        logs. What is there is replaced.
    progress : callable, optional
        Called with a `Progress` after each part of the log.

    Returns
    -------
    Result

    Raises
    ------
    UsageError
        If the request is not possible as asked.
    SchemaError
        If a column is missing or has a type that its role does not allow.
    DataError
        If a row is bad, or saturated, and the request says to stop there.
    ReadError
        If a file cannot be read, or delivers other rows than it promises.
    StoreError
        If a store gives no answer in time, or refuses access.
    OSError
        If `state` cannot be written.

    Notes
    -----
    Wherever a column is named, an expression may stand: ``label="rating >= 4"``, ``prob="p / 2"``, ``by="hour(ts)"``.
    The language is Polars' SQL. Names with other characters than letters, digits and ``_`` stand in double quotes,
    texts in single ones. NaN is above every number, as Polars has it, and categories are compared as texts. Each row
    is evaluated by itself: an aggregate, a window or a shift is refused.

    Around an expression of numbers, four functions give the bucket that a number is in, as a text such as
    ``"[0.1, 0.2)"``, which holds its lower edge: ``width_bucket(x, 0.1)`` of equal width, ``cut(x, 0, 10, 100)``
    between edges, ``log_bucket(x, 10)`` between powers, ``qcut(x, 10)`` between quantiles. Quantiles are those of all
    rows that `where` keeps, each counted once; they take a pass of their own, and `Result.edges` has them. NaN is a
    bucket of its own, and null stays null.

    Every sum is exact and rounded once, so that the result is the same to the last bit for any number of threads,
    batch size, order of files and layout of row groups.

    Where slices outgrow the memory, the log is read again, its rows are gathered by their key, and the values of all
    slices are kept, some 50 bytes each for two metrics. A temporary file takes the rows that the memory does not hold.
    This needs a log that can be read again, metrics without a histogram, and no `state`; else it is a UsageError.

    A process that was forked while another thread evaluated cannot evaluate, and one that was forked after Polars was
    used cannot use `reader` "polars": start processes by the method "spawn".
    """
    plan = make_plan(
        log,
        label=label,
        predictions=predictions,
        logit=logit,
        prob=prob,
        logprob=logprob,
        margin=margin,
        value=value,
        score=score,
        weight=weight,
        metrics=metrics,
        by=by,
        group=group,
        min_group_size=min_group_size,
        group_sorted=group_sorted,
        ties=ties,
        id=id,
        curves=curves,
        where=where,
        with_columns=with_columns,
        apply=apply,
        sampling_rate=sampling_rate,
        positive=positive,
        label_domain=label_domain,
        reduction=reduction,
        list_reduction=list_reduction,
        preset=preset,
        common_rows=common_rows,
        saturation=saturation,
        on_bad_row=on_bad_row,
        on_bad_file=on_bad_file,
        missing_columns=missing_columns,
        reader=reader,
        verify_checksums=verify_checksums,
        storage_options=storage_options,
        retry_seconds=retry_seconds,
        memory=memory,
        threads=threads,
        batch_rows=batch_rows,
        executor=executor,
        device=device,
    )
    if state is not None:
        check_state_output(state, ())
        refuse_output_in_log(state, entries_of(log, plan.read_options.stores) or [])
    return run_plan(plan, progress, state)


def run_plan(
    plan: Plan,
    progress: Callable[[Progress], None] | None = None,
    state: str | os.PathLike[str] | None = None,
    choice: Choice | None = None,
) -> Result:
    """Carry out a plan that `make_plan` returned, and write the state behind the result if a path is given.

    `choice` says which slices are wanted: of slices that are evaluated by parts, no others are kept.
    """
    inputs = {}
    if state is not None:
        refuse_groups(plan.evaluation)
        # As they are planned: a file that changes while it is read is an error of the scan.
        inputs = inputs_of(plan.source.inputs(plan.columns))
        check_state_output(state, list(inputs))
    scanned = run_any_scan(plan, progress, sharpens=state is None, keeps_state=state is not None, choice=choice)
    if state is not None:
        scanned.state.inputs = inputs
        write_state(state, plan.evaluation, scanned)
    return result_of(plan.evaluation, scanned)


def merge(
    states: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    *,
    by: Sequence[str | Sequence[str]] | str | None = None,
    output_state: str | os.PathLike[str] | None = None,
) -> Result:
    """Merge the states that `evaluate` has written: the result of one evaluation over all their logs, bit for bit.

    Parameters
    ----------
    states : list of path
        The files, in any order; they must be of the same request and have no input in common.
    by : sequence of str or of sequences of str, optional
        The slices to report, each saved or made of the columns of one that was saved; ``()`` is the total alone.
        Left out, those that were saved.
    output_state : path, optional
        Write the merged state to this file, with the slices of `by`; it can be merged in turn.

    Returns
    -------
    Result

    Raises
    ------
    UsageError
        If two states differ in what was asked, in the formulas or in a column's type; if a file of the log is in two
        of them, or was changed; or if the slices cannot be made of those that were saved.
    ReadError
        If a file is no state, or not as it was written.
    OSError
        If `output_state` cannot be written.

    Notes
    -----
    Files of a log are told apart by path, size and time of change. Streams and frames are not: their states are
    merged, and ``files["unchecked_streams"]`` says how many there are.
    """
    plan = plan_merge(states, by)
    return run_merge_plan(plan, output_state)


def run_merge_plan(plan: MergePlan, output_state: str | os.PathLike[str] | None = None) -> Result:
    """Carry out a plan that `plan_merge` returned, and write the merged state if a path is given."""
    if output_state is not None:
        check_state_output(output_state, plan.inputs, "output_state")
    merged = run_merge(plan)
    if output_state is not None:
        write_state(output_state, plan.evaluation, merged)
    return result_of(plan.evaluation, merged)


@refuse_a_column
def score(
    log: object,
    out: str | os.PathLike[str],
    *,
    label: str,
    loss: object,
    logit: str | None = None,
    prob: str | None = None,
    logprob: str | None = None,
    margin: str | None = None,
    value: str | None = None,
    score: str | None = None,
    group: str | Sequence[str | Sequence[str]] | None = (),
    min_group_size: int = 1,
    ties: Ties = "average",
    id: str | None = None,
    keep: Sequence[str] | str = (),
    top: int | None = None,
    compression: Compression = "zstd",
    overwrite: bool = False,
    where: object = None,
    with_columns: Mapping[str, object] | None = None,
    apply: object = None,
    sampling_rate: object = None,
    positive: str | int | float | bool | None = None,
    label_domain: LabelDomain = "01",
    list_reduction: ListReduction | None = None,
    preset: PresetName | None = None,
    saturation: Saturation = "clip",
    on_bad_row: OnBadRow = "raise",
    on_bad_file: OnBadFile = "raise",
    missing_columns: MissingColumns = "error",
    reader: Reader = "pyarrow",
    verify_checksums: bool = False,
    storage_options: Mapping[str, object] | None = None,
    retry_seconds: float = DEFAULT_RETRY_SECONDS,
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    batch_rows: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ScoreResult:
    """Write the loss, gradient and hessian of every row to Parquet, or the losses and rankings of every group.

    The outputs have the kept columns, then ``loss``, ``gradient`` and ``hessian`` (by the prediction, in its own
    space), float64; beside lists of predictions the derivatives are lists as long, the hessian its diagonal. Row i of
    an output belongs to row i of its input; it is null where the row has no loss, as where the label is null.

    With `group`, the one output has a row for each value of the key: the key's columns in their own types, ``n``, the
    rows that count, and a column for each loss or ranking, named as that. It is null where a group has no value. Rows
    are sorted by key, or stand in no order if the memory has no room to sort them, as the account says.

    Parameters
    ----------
    log : path, list of paths, or object with ``__arrow_c_stream__``
        As in `evaluate`.
    out : path
        A folder, in which each input file has an output of the same relative name, ``key=value`` folders included; or
        a file ending in .parquet for a single input file, a frame or a stream, and with `top`.
    label : str
        The label column: numbers or booleans.
    loss : str, Loss, or sequence of these
        A name such as ``"log_loss"`` or ``"log_loss(label_smoothing=0.1)"``, or a loss of `fastloss.losses`. With
        `group`, also rankings such as ``"ndcg@10"``, and several: a pointwise loss is the mean over a group's rows.
    logit, prob, logprob, margin, value, score : str, optional
        The prediction column, named by one of these, its space; a score has rankings of groups alone.
    group : str, or sequence of one str or tuple of str
        The column whose values name the groups, or the columns of one key together. Rows may stand anywhere in the
        log. A row whose key is null is in no group.
    min_group_size : int
        Leave out groups of fewer rows.
    ties, id
        As in `evaluate`.
    keep : str or sequence of str
        Columns of any type to write beside.
    top : int, optional
        With `group`, write only the groups with the worst values of the first loss or ranking, the worst first, and of
        equal values the least key first: the smallest values of a ranking, the largest of a loss. Else
        write only the rows with the largest losses of the whole log, this many, the largest first, and of equal losses
        the earlier row first. Columns ``file``, ``row_group`` and ``row`` (from 0 in its row group; in a stream, from
        its beginning) say where each stands.
    compression : {"zstd", "snappy", "lz4", "gzip", "brotli", "none"}
        The outputs' codec.
    overwrite : bool
        Replace files that exist. Left out, complete outputs of the same request for the same input are kept as they
        are, so that a run that was stopped goes on where it was; any other file in the way is an error. With `group`,
        every file is.
    where, with_columns, positive
        As in `evaluate`. The rows that `where` leaves out are not written.
    apply, sampling_rate
        As in `evaluate`. Derivatives are those by the mapped prediction.
    label_domain, saturation
        As in `evaluate`; a clipped loss is clipped in its row.
    list_reduction : {"row", "element"}, optional
        A pointwise loss over list columns: the mean in each list, unless the preset says otherwise; or the sum,
        whose derivatives are those of each candidate alone.
    preset : {"keras", "torch", "sklearn", "xgboost", "lightgbm", "torchrec"}, optional
        The clipping and the unit of another system, as in `evaluate`; derivatives are those at the clipped prediction.
    on_bad_row : {"raise", "drop"}
        Stop at a NaN or a value outside its domain; or give the row nulls and count it.
    on_bad_file : {"raise", "skip"}
        Stop at a file that cannot be read; or write no output for it (with `top`: leave out its unreadable row
        groups) and list it.
    missing_columns, reader, verify_checksums, storage_options, retry_seconds, memory, threads, batch_rows, progress
        As in `evaluate`. A thread works on one file at a time.

    Returns
    -------
    ScoreResult
        The counts of rows and of groups, and the files written, already complete and skipped.

    Raises
    ------
    UsageError, SchemaError, DataError, ReadError, StoreError
        As in `evaluate`; UsageError too where a file is in the way of an output.
    OSError
        If an output cannot be written, as on a full disk.

    Notes
    -----
    An output appears under its name when it is complete: what is there after an error, an interruption or a kill is
    right. No value depends on threads, batch size or memory.
    """
    score_plan = make_score_plan(
        log,
        out,
        label=label,
        loss=loss,
        logit=logit,
        prob=prob,
        logprob=logprob,
        margin=margin,
        value=value,
        score=score,
        group=group,
        min_group_size=min_group_size,
        ties=ties,
        id=id,
        keep=keep,
        top=top,
        compression=compression,
        overwrite=overwrite,
        where=where,
        with_columns=with_columns,
        apply=apply,
        sampling_rate=sampling_rate,
        positive=positive,
        label_domain=label_domain,
        list_reduction=list_reduction,
        preset=preset,
        saturation=saturation,
        on_bad_row=on_bad_row,
        on_bad_file=on_bad_file,
        missing_columns=missing_columns,
        reader=reader,
        verify_checksums=verify_checksums,
        storage_options=storage_options,
        retry_seconds=retry_seconds,
        memory=memory,
        threads=threads,
        batch_rows=batch_rows,
    )
    return run_score(score_plan, progress)


def calibrate(
    log: object,
    *,
    label: str,
    logit: str | None = None,
    prob: str | None = None,
    logprob: str | None = None,
    weight: str | None = None,
    method: CalibrationMethod = "platt",
    where: object = None,
    with_columns: Mapping[str, object] | None = None,
    positive: str | int | float | bool | None = None,
    label_domain: LabelDomain = "01",
    on_bad_row: OnBadRow = "raise",
    on_bad_file: OnBadFile = "raise",
    missing_columns: MissingColumns = "error",
    reader: Reader = "pyarrow",
    verify_checksums: bool = False,
    storage_options: Mapping[str, object] | None = None,
    retry_seconds: float = DEFAULT_RETRY_SECONDS,
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    batch_rows: int | None = None,
    executor: ExecutorName = "threads",
    device: DeviceName = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> Calibration:
    """Fit a calibration map to a log, which is read a few times.

    Parameters
    ----------
    log : path, list of paths, or object with ``__arrow_c_stream__``
        As in `evaluate`, but none that gives its rows once.
    label : str
        The label column: numbers or booleans. A label y between 0 and 1 counts as a positive of weight y and a
        negative of weight 1 − y.
    logit, prob, logprob : str, optional
        The prediction column, named by one of these, its space. Probabilities are clipped at 1e-12. An infinite logit
        is a bad row: no map moves it.
    weight : str, optional
        The column of row weights, finite and at least 0. Rows of weight 0 are skipped.
    method : {"platt", "temperature", "beta", "isotonic"}
        The map.

        - ``"platt"``: σ(a·x + b) of the logit x;
        - ``"temperature"``: σ(a·x), where a = 1/T;
        - ``"beta"``: σ(a·log p − b·log(1 − p) + c) of the probability p, with a and b at least 0: where one of them
          would be negative, its feature is left out;
        - ``"isotonic"``: the best of all increasing maps of the score's buckets, linear between its at most 5,000
          steps.
    where, with_columns, positive, label_domain, on_bad_row, on_bad_file, missing_columns
        As in `evaluate`.
    reader, verify_checksums, storage_options, retry_seconds, memory, threads, batch_rows, executor, device
        As in `evaluate`.
    progress : callable, optional
        Called with a `Progress` after each part of the log; each pass begins from 0.

    Returns
    -------
    Calibration
        The map, which `Calibration.write` writes as JSON, and the log loss before and after. `log_loss_isotonic` is
        that of isotonic regression on the score's buckets, which are single scores up to 131,072 of them: as far as
        any increasing map could come on these rows.

    Raises
    ------
    UsageError, SchemaError, ReadError, StoreError
        As in `evaluate`.
    DataError
        If a row is bad, or the rows determine no map: there is none, one outcome alone, one score alone, or the score
        separates the outcomes, so that the loss falls for as long as the map grows steeper.

    Notes
    -----
    A map with coefficients has the smallest log loss of its kind: a logistic regression without penalty, by Newton's
    method from a start that a histogram of the scores gives. Each pass sums loss and gradient exactly, so that the
    coefficients are the same to the last bit for any number of threads, batch size, order and layout. An isotonic map
    needs no pass beyond that of the histogram.
    """
    calibration = plan_calibration(
        log,
        label=label,
        logit=logit,
        prob=prob,
        logprob=logprob,
        weight=weight,
        method=method,
        where=where,
        with_columns=with_columns,
        positive=positive,
        label_domain=label_domain,
        on_bad_row=on_bad_row,
        on_bad_file=on_bad_file,
        missing_columns=missing_columns,
        reader=reader,
        verify_checksums=verify_checksums,
        storage_options=storage_options,
        retry_seconds=retry_seconds,
        memory=memory,
        threads=threads,
        batch_rows=batch_rows,
        executor=executor,
        device=device,
    )
    return run_calibration(calibration, progress)


def feature_gradient(
    log: object,
    *,
    label: str,
    features: Sequence[str] | str,
    categorical: Sequence[str] | str = (),
    logit: str | None = None,
    prob: str | None = None,
    logprob: str | None = None,
    margin: str | None = None,
    value: str | None = None,
    weight: str | None = None,
    loss: object = None,
    diagonal: bool = False,
    where: object = None,
    with_columns: Mapping[str, object] | None = None,
    positive: str | int | float | bool | None = None,
    label_domain: LabelDomain = "01",
    saturation: Saturation = "clip",
    on_bad_row: OnBadRow = "raise",
    on_bad_file: OnBadFile = "raise",
    missing_columns: MissingColumns = "error",
    reader: Reader = "pyarrow",
    verify_checksums: bool = False,
    storage_options: Mapping[str, object] | None = None,
    retry_seconds: float = DEFAULT_RETRY_SECONDS,
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    batch_rows: int | None = None,
    executor: ExecutorName = "threads",
    progress: Callable[[Progress], None] | None = None,
) -> FeatureGradient:
    """Compute the gradient of a loss with respect to features: what a model has not used of them.

    The stored prediction z is taken as the output of a linear layer over the features, z = w·x + b. Where the mean
    loss has a gradient in w, the feature holds signal that the model has not used, whatever model it is.

    Parameters
    ----------
    log : path, list of paths, or object with ``__arrow_c_stream__``
        As in `evaluate`.
    label : str
        The label column: numbers or booleans.
    features : str or sequence of str
        Columns of numbers (one gradient), of lists of numbers of one length (one for each place), of texts or dates
        or lists of these (one for each category), or expressions. A null number counts as 0, also in a list; a null
        category is one of its own; a null list has none. A category that a list names twice counts once.
    categorical : str or sequence of str
        Further features, of which each value is a category, such as integers that are ids, or lists of them.
    logit, prob, logprob, margin, value : str, optional
        The prediction column, named by one of these, its space. The gradient is by the prediction as it is stored,
        of prob and logprob by the logit of it.
    weight : str, optional
        The column of row weights, finite and at least 0. Rows of weight 0 are skipped.
    loss : str or Loss, optional
        A pointwise loss by name, or one of `fastloss.losses`. Left out, the first of the usual metrics of the space:
        log loss, for values squared error.
    diagonal : bool
        Leave out the curvatures of pairs of features, and so the step of all together. More than 64 columns of
        numbers have none.
    where, with_columns, positive, label_domain, saturation, on_bad_row, on_bad_file, missing_columns
        As in `evaluate`. A feature that is NaN or infinite makes its row bad.
    reader, verify_checksums, storage_options, retry_seconds, memory, threads, batch_rows, executor, progress
        As in `evaluate`.

    Returns
    -------
    FeatureGradient

    Raises
    ------
    UsageError, SchemaError, DataError, ReadError, StoreError
        As in `evaluate`; DataError too where the lists of a feature have different lengths.

    Notes
    -----
    z is the robust score statistic of the feature: its gradient, with the bias profiled out, over its standard error
    if the true gradient is 0. |z| above 4 is no chance, whatever the loss and the weights. ``improvement`` is what one
    Newton step of the feature and the bias takes off the mean loss, by the Gauss-Newton matrix Σw·h·x·xᵀ, and
    ``noise`` what it takes off on average where there is nothing to learn. ``profiled`` is the gradient with the bias
    profiled out. ``joint_step`` is the weight after one Newton step of all numbers together.

    Terms are rounded and every sum is exact, so that no digit depends on threads, batch size, order or layout. A
    feature that varies by less than 1/30,000 of its size is summed less its mean in a second pass, unless the log is a
    stream.
    """
    gradient_plan = make_gradient_plan(
        log,
        label=label,
        features=features,
        categorical=categorical,
        logit=logit,
        prob=prob,
        logprob=logprob,
        margin=margin,
        value=value,
        weight=weight,
        loss=loss,
        diagonal=diagonal,
        where=where,
        with_columns=with_columns,
        positive=positive,
        label_domain=label_domain,
        saturation=saturation,
        on_bad_row=on_bad_row,
        on_bad_file=on_bad_file,
        missing_columns=missing_columns,
        reader=reader,
        verify_checksums=verify_checksums,
        storage_options=storage_options,
        retry_seconds=retry_seconds,
        memory=memory,
        threads=threads,
        batch_rows=batch_rows,
        executor=executor,
    )
    return run_gradient(gradient_plan, progress)
