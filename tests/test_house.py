"""The rules of the house: which folder may import which, where Numba's flags live, what an import may load."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    path: ast.parse(path.read_text()) for top in ("fastloss", "kernels") for path in sorted((ROOT / top).rglob("*.py"))
}

# Part -> the parts of fastloss that it may import. The order is the layering: each line only names earlier ones.
LAYERS: dict[str, set[str]] = {
    "_version": set(),
    "words": set(),
    "errors": set(),
    "files": {"errors"},
    "executors": {"errors"},
    "maps": {"errors", "files"},
    "expressions": {"errors"},
    "request": {"words", "errors", "expressions", "maps"},
    "budget": {"words", "errors", "request"},
    "columns": {"errors", "expressions", "request", "maps"},
    "shuffle": {"errors", "budget", "columns"},
    "sources": {"errors", "files", "executors", "expressions", "request", "columns"},
    "states": set(),
    "metrics": {"words", "errors", "expressions", "request", "states"},
    "curves": {"states", "metrics"},
    "engine": {"errors", "budget", "columns", "shuffle", "states", "metrics"},
    "plan": {
        "errors",
        "executors",
        "expressions",
        "request",
        "budget",
        "columns",
        "sources",
        "states",
        "metrics",
        "engine",
    },
    "groups": {
        "errors",
        "executors",
        "budget",
        "columns",
        "sources",
        "shuffle",
        "states",
        "metrics",
        "engine",
        "plan",
    },
    "quantiles": {"errors", "executors", "columns", "sources", "states", "plan"},
    "scan": {
        "errors",
        "executors",
        "request",
        "budget",
        "columns",
        "sources",
        "states",
        "metrics",
        "engine",
        "plan",
        "groups",
        "quantiles",
    },
    "many_slices": {
        "errors",
        "budget",
        "executors",
        "columns",
        "sources",
        "shuffle",
        "states",
        "metrics",
        "engine",
        "plan",
        "scan",
    },
    "state_file": {"_version", "errors", "files", "request", "states", "metrics", "scan"},
    "merging": {"errors", "request", "states", "metrics", "scan", "state_file"},
    "report": {"words", "_version", "errors", "columns", "states", "metrics", "curves", "plan", "scan"},
    "result": {"_version", "words", "errors", "states", "metrics", "curves", "groups", "scan", "report"},
    "losses": {"columns"},
    "rankings": {"losses"},
    "objectives": {"errors", "metrics"},
    "scoring": {
        "words",
        "_version",
        "errors",
        "executors",
        "files",
        "request",
        "budget",
        "columns",
        "sources",
        "states",
        "metrics",
        "engine",
        "plan",
        "groups",
        "scan",
        "report",
    },
    "calibration": {
        "words",
        "errors",
        "maps",
        "request",
        "sources",
        "states",
        "metrics",
        "plan",
        "scan",
        "report",
    },
    "features": {
        "words",
        "_version",
        "errors",
        "expressions",
        "request",
        "columns",
        "states",
        "metrics",
        "engine",
        "plan",
        "scan",
        "report",
    },
    "api": {
        "words",
        "budget",
        "request",
        "sources",
        "metrics",
        "plan",
        "scan",
        "many_slices",
        "state_file",
        "merging",
        "result",
        "scoring",
        "calibration",
        "features",
    },
    "demo": {"errors", "api", "plan", "result", "report"},
    "doctor": {"_version", "errors", "budget", "api", "plan", "result", "report"},
    "gates": {"errors", "metrics", "result"},
    "cli": {
        "_version",
        "words",
        "errors",
        "files",
        "expressions",
        "request",
        "budget",
        "gates",
        "sources",
        "api",
        "plan",
        "state_file",
        "merging",
        "metrics",
        "scan",
        "result",
        "report",
        "demo",
        "doctor",
    },
    "__main__": {"cli"},
    "__init__": {
        "_version",
        "errors",
        "request",
        "api",
        "plan",
        "result",
        "scan",
        "scoring",
        "calibration",
        "maps",
        "features",
        "losses",
        "rankings",
        "objectives",
        "cli",
    },
}

# The same for fastloss_kernels: a formula's words and arithmetic, the formulas, the loops, and what calls them.
KERNEL_LAYERS: dict[str, set[str]] = {
    "__init__": set(),
    "jit": set(),
    "domain": set(),
    "elementary": {"jit"},
    "exact_sum": {"jit"},
    "double_double": {"jit", "elementary"},
    "special": {"jit", "elementary", "double_double"},
    "inverse_links": {"jit", "domain", "elementary"},
    "listwise": {"jit", "domain", "elementary", "double_double"},
    "cpu": {"jit", "domain", "elementary", "double_double", "exact_sum", "listwise"},
    "cuda": {"jit", "domain", "exact_sum", "listwise"},
    "arrays": {"domain", "cpu"},
    "losses": {"jit", "domain", "elementary", "special", "double_double", "listwise", "arrays"},
    "calibration": {"jit", "domain", "elementary"},
    "over_lists": {"jit", "domain", "listwise", "losses"},
    "rankings": {"jit", "domain", "double_double", "listwise", "losses"},
    "variants": {"jit", "domain", "elementary", "listwise", "losses"},
    "define": {"jit", "domain", "elementary", "special", "cpu", "losses", "rankings"},
    "elementwise": {"jit"},
    "information": {"jit", "elementary"},
}
OUTSIDE = {
    # Top-level package -> the parts that may import it, at any depth.
    "numba": {"kernels", "doctor"},
    "llvmlite": {"kernels", "doctor"},
    "polars": {"expressions", "columns", "sources", "result", "features"},
    "rich": {"report"},
    "cyclopts": {"cli"},
    "pyarrow": {
        "sources",
        "columns",
        "shuffle",
        "state_file",
        "scoring",
        "features",
        "report",
        "demo",
        "cli",
        "doctor",
    },
}


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return "kernels" if relative.parts[0] == "kernels" else relative.parts[1].removesuffix(".py")


def kernel_part_of(path: Path) -> str:
    relative = path.relative_to(ROOT / "kernels")
    # Tools beside the package may use all of it.
    return relative.parts[1].removesuffix(".py") if len(relative.parts) > 1 else "define"


def without_type_checking(tree: ast.Module) -> list[ast.AST]:
    """Every node but those that only a type checker sees."""
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    return [node for node in ast.walk(tree) if id(node) not in hidden]


def imports(tree: ast.Module, typing: bool = False) -> set[str]:
    """The names that a module imports; with `typing` also those for a type checker alone."""
    names = set()
    for node in ast.walk(tree) if typing else without_type_checking(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer they cross"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(path)
    always = imports(SOURCES[path])
    for name in imports(SOURCES[path], typing=True):
        top, *rest = name.split(".")
        if top == "fastloss":
            target = rest[0] if rest[0] in LAYERS else "__init__"
            assert part != "kernels", f"kernels know nothing of fastloss: {name}"
            assert target == part or target in LAYERS[part], f"{part} may not import {name}"
        elif top == "fastloss_kernels" and part == "kernels":
            kernel_part = kernel_part_of(path)
            assert rest[0] == kernel_part or rest[0] in KERNEL_LAYERS[kernel_part], f"{path} may not import {name}"
        elif top in OUTSIDE and name in always:
            assert part in OUTSIDE[top], f"{part} may not import {name}"


@pytest.mark.parametrize(
    "part",
    [
        "columns",
        "sources",
        "states",
        "metrics",
        "engine",
        "report",
        "executors",
        "scoring",
        "calibration",
        "features",
        "shuffle",
    ],
)
def test_modules_of_a_part_import_in_no_circle(part: str) -> None:
    """No circle, those that only a type checker sees included."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
    }
    inside = {name: path for name, path in names.items() if part_of(path) == part}
    graph = {}
    for name, path in inside.items():
        found = set()
        for node in ast.walk(SOURCES[path]):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found |= {f"{node.module}.{alias.name}", str(node.module)} & (set(inside) - {name})
        graph[name] = found
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_what_an_engine_reads_is_made_of_numpy_alone() -> None:
    base = ROOT / "fastloss" / "columns" / "base.py"
    assert {name.partition(".")[0] for name in imports(SOURCES[base])} == {
        "__future__",
        "collections",
        "typing",
        "numpy",
    }
    assert not imports(SOURCES[base.with_name("__init__.py")])


def test_layers_are_in_order() -> None:
    for layers in (LAYERS, KERNEL_LAYERS):
        seen: set[str] = set()
        for part, below in layers.items():
            assert below <= seen, f"{part} names what comes after it: {below - seen}"
            seen.add(part)


def module_of(path: Path) -> str:
    names = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[names[0] == "kernels" :]).removesuffix(".__init__")


def test_modules_stand_in_no_circle() -> None:
    modules = {module_of(path): path for path in SOURCES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for name in imports(SOURCES[path], typing=True):
            target = name if name in modules else name.rpartition(".")[0]
            # A package's own names are found through it.
            if target in modules and target != module:
                graph[module].add(target)
    # Raises CycleError, which names the modules of a circle.
    graphlib.TopologicalSorter(graph).prepare()


def loops_of(device: str) -> dict[str, list[str]]:
    """What the loops of a device take, by "file:maker": the arguments of the functions that a maker compiles."""
    found = {}
    for path in sorted((ROOT / "kernels" / "fastloss_kernels" / device).glob("*.py")):
        for maker in SOURCES[path].body:
            if not isinstance(maker, ast.FunctionDef) or maker.name.startswith("_"):
                continue
            loops = [node for node in maker.body if isinstance(node, ast.FunctionDef) and not node.decorator_list]
            arguments = {tuple(argument.arg for argument in loop.args.args) for loop in loops}
            assert len(arguments) <= 1, f"{device}/{path.name}: {maker.name} compiles two signatures"
            found[f"{path.name}:{maker.name}"] = list(*arguments)
    return found


@pytest.mark.parametrize("maker", loops_of("cuda"))
def test_twins_take_the_same_arguments(maker: str) -> None:
    assert loops_of("cuda")[maker] == loops_of("cpu")[maker] != []


def test_numba_is_decorated_in_one_place() -> None:
    for path, tree in SOURCES.items():
        if path.name == "jit.py":
            continue
        for name in imports(tree):
            assert not re.fullmatch(r"numba\.(njit|jit|vectorize|guvectorize|cuda\.jit)", name), path
        assert not re.search(r"fastmath|@(numba|cuda)\.", path.read_text()), path


def test_formulas_call_no_libm() -> None:
    for path, tree in SOURCES.items():
        if part_of(path) != "kernels" or path.name == "derive_coefficients.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                assert not re.fullmatch(r"(math|np|numpy)\.(exp|expm1|log|log1p|log2|tanh|lgamma|pow|fma)", called), (
                    path
                )


def child() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}


@pytest.mark.parametrize("statement", ["import fastloss", "import fastloss.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print(*sorted({{'numba','numpy','pyarrow','polars','rich'}} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=child()
    )
    assert run.stdout.split() == []


def test_planning_needs_no_compiler(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"y": [1, 0], "x": [0.1, 0.2]}), tmp_path / "log.parquet")
    code = (
        "import sys, fastloss as fl\n"
        f"fl.make_plan({str(tmp_path / 'log.parquet')!r}, label='y', logit='x')\n"
        "print('numba' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=child()
    )
    assert run.stdout.split() == ["False"]


def test_every_package_is_shipped() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for top, home in (("fastloss", ROOT / "fastloss"), ("fastloss_kernels", ROOT / "kernels" / "fastloss_kernels")):
        for init in home.rglob("__init__.py"):
            found.add(".".join((top, *init.parent.relative_to(home).parts)))
    assert set(settings["packages"]) == found
    for home in (ROOT / "fastloss", ROOT / "kernels" / "fastloss_kernels"):
        assert (home / "py.typed").exists()


def test_public_names_exist() -> None:
    import fastloss

    for name in fastloss.__all__:
        assert getattr(fastloss, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastloss.nothing


def run_tool(*arguments: str) -> None:
    run = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_lint() -> None:
    run_tool("ruff", "check", "--no-cache", ".")


def test_format() -> None:
    run_tool("ruff", "format", "--no-cache", "--check", ".")


def test_types(tmp_path: Path) -> None:
    run_tool("mypy", "--cache-dir", str(tmp_path))
