"""The words that options allow, each list once.

What a word does is registered elsewhere: `PRESETS`, `REDUCTIONS`, `DECODERS`, `EXECUTORS`, `DEVICES`, `FORMATS`. Most
of these load libraries, and a command line must know the words without them; tests/test_options.py holds them to each
other.
"""

from __future__ import annotations

from typing import Literal

LabelDomain = Literal["01", "pm1"]
Reduction = Literal["mean", "sum", "sum_over_batch_size", "sum_by_nonzero_weights"]
ListReduction = Literal["row", "element"]
PresetName = Literal["keras", "torch", "sklearn", "xgboost", "lightgbm", "torchrec"]
Saturation = Literal["clip", "exact", "error"]
OnBadRow = Literal["raise", "drop"]
OnBadFile = Literal["raise", "skip"]
MissingColumns = Literal["error", "null"]
Reader = Literal["pyarrow", "polars"]
ExecutorName = Literal["threads", "processes"]
DeviceName = Literal["cpu"]
FormatName = Literal["table", "json", "arrow", "parquet", "csv", "markdown"]
CalibrationMethod = Literal["platt", "temperature", "beta", "isotonic"]
CurveName = Literal["roc", "precision_recall", "gain", "reliability"]
Compression = Literal["zstd", "snappy", "lz4", "gzip", "brotli", "none"]
Ties = Literal["average", "input", "pessimistic", "optimistic", "id_desc"]
GradientSort = Literal["z", "improvement", "feature"]
