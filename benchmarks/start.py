"""Times what people feel: import, ``--help``, and the first answer with an empty and a warm kernel cache.

Every time is that of a whole process, started anew, the best of several. Bytecode is compiled first, as pip does it:
without it, importing the libraries alone takes longer than everything measured here.
"""

from __future__ import annotations

import argparse
import compileall
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import SOURCE_ROOTS, jobs, logs
from benchmarks.machine import describe_machine, describe_versions, figure, figures_table, headline

ROWS = 1_000_000
_LIGHT_IMPORT = (
    "import sys, fastloss; "
    "heavy = {'numba', 'numpy', 'pyarrow', 'polars'} & set(sys.modules); "
    "sys.exit(f'import fastloss imports {sorted(heavy)}' if heavy else 0)"
)


def _run(arguments: list[str], cache: str) -> tuple[float, str]:
    """Run Python with these arguments; return seconds and stdout."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*SOURCE_ROOTS, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "FASTLOSS_CACHE_DIR": cache,
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"python {' '.join(arguments)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return seconds, done.stdout


def _check(output: str, expected: float | list[float]) -> None:
    values = json.loads(output)["values"]
    found = jobs.flatten_metrics(values) if isinstance(expected, list) else values[0]["value"]
    if not (difference := jobs.largest_difference(found, expected)) <= 1e-12:
        raise SystemExit(f"the first answer differs from the Polars expression's by {difference:.2g}.")


def measure(repeat: int) -> dict[str, Any]:
    """Return the report of a run: machine, versions, seconds and figures."""
    for root, package in zip(SOURCE_ROOTS, ("fastloss_kernels", "fastloss"), strict=True):
        compileall.compile_dir(str(Path(root) / package), quiet=1)
    paths = logs.write_log(logs.default_folder(ROWS, 1), ROWS, files=1)
    log_loss = ["-m", "fastloss", "eval", *paths, "--label", "click", "--logit", "score", "-m", "log_loss"]
    weighted = [*log_loss[:4], "--label", "click", "--weight", "weight", "--by", "country"]
    weighted += ["--logit", "a=score", "--logit", "b=score_b", "-m", ",".join(jobs.METRICS)]
    # Each with what it must give.
    answers = {
        "log loss": ([*log_loss, "--format", "json"], jobs.log_loss_polars("Float64", paths)()),
        "six metrics, two models, weight, slices": ([*weighted, "--format", "json"], jobs.metrics_polars(paths)()),
    }

    seconds: dict[str, float] = {}

    def keep(name: str, arguments: list[str], cache: str) -> str:
        taken, output = _run(arguments, cache)
        seconds[name] = min(taken, seconds.get(name, math.inf))
        return output

    with tempfile.TemporaryDirectory() as warm:
        # Once untimed: writes the bytecode of libraries that came without it, fills the caches.
        for arguments, expected in answers.values():
            _check(_run(arguments, warm)[1], expected)
        for _ in range(repeat):
            keep("python", ["-c", "pass"], warm)
            keep("import", ["-c", _LIGHT_IMPORT], warm)
            keep("help", ["-m", "fastloss", "--help"], warm)
            for name, (arguments, _) in answers.items():
                keep(f"{name}, warm", arguments, warm)
    for _ in range(max(1, repeat // 3)):
        for name, (arguments, expected) in answers.items():
            with tempfile.TemporaryDirectory() as empty:
                _check(keep(f"{name}, empty", arguments, empty), expected)
    figures = [
        figure("import fastloss, beyond Python itself", seconds["import"] - seconds["python"], "<=", 0.15, " s"),
        figure("fastloss --help", seconds["help"], "<=", 0.5, " s"),
    ]
    for state, limit in (("empty", 10.0), ("warm", 3.0)):
        figures += [
            figure(
                f"first answer on a million rows, {state} kernel cache: {n}",
                seconds[f"{n}, {state}"],
                "<=",
                limit,
                " s",
            )
            for n in answers
        ]
    return {"machine": describe_machine(), "versions": describe_versions(), "seconds": seconds, "figures": figures}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9, help="processes of each kind; a third as many compile anew")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    report = measure(given.repeat)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    bare = report["seconds"]["python"]
    note = f"Whole processes, best of {given.repeat}; Python itself: {bare:.3f} s. `import fastloss` imports no Numba."
    print("\n\n".join([headline(report["machine"], report["versions"]), note, figures_table(report["figures"])]))


if __name__ == "__main__":
    main()
