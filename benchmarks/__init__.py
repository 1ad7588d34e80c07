"""Benchmarks: each checks the answer before it times, and prints ratios within one run.

- ``python -m benchmarks.scan``: Parquet scans beside the bare scan of the same columns and beside other tools;
- ``python -m benchmarks.kernels``: the kernels on one core (``python -m pytest benchmarks/test_kernels.py`` records
  the same cases with pytest-benchmark);
- ``python -m benchmarks.losses``: every pointwise loss beside NumPy expressions;
- ``python -m benchmarks.lists``: softmax losses over ragged lists beside padded PyTorch, and a log of list columns;
- ``python -m benchmarks.slices``: two exact sums and a count by a million keys, beside Polars' group_by;
- ``python -m benchmarks.groups``: metrics of users and of lists beside Polars, DuckDB and ranx;
- ``python -m benchmarks.score``: losses written to Parquet beside Polars that writes as many columns;
- ``python -m benchmarks.accuracy`` and ``python -m benchmarks.ulp``: docs/accuracy.md and docs/elementary.md;
- ``python -m benchmarks.start``: import, ``--help`` and the first answer, with an empty and a warm kernel cache;
- ``python -m benchmarks.memory``: peak memory by the size of the log;
- ``python -m benchmarks.logs``: the logs they read; ``python -m benchmarks.table``: the tables of docs/performance.md.

They need the extra ``benchmark``; tools that are not installed are left out by name. They measure the tree that they
stand in, installed or not.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = (str(ROOT / "kernels"), str(ROOT))

for _root in SOURCE_ROOTS:
    if _root not in sys.path:
        sys.path.insert(0, _root)
