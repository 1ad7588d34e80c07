"""The CUDA kernels compiled to PTX and to machine code for a device that is not there: what they hold, what they give.

Numba's compiler asks for the current device, which is replaced by a description of one, so this file runs itself in
a process of its own. Nothing is launched.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastloss_kernels import jit
from fastloss_kernels.jit import fma
from fastloss_kernels.rankings import RANKINGS, Ndcg, Ranking
from tests.cuda.ptx import Kernel
from tests.test_cuda_simulator import (
    CASES,
    LIST_CASES,
    SAMPLED,
    SAMPLED_LISTS,
    CasesByProcess,
    bits,
    rows_of,
    run_in_own_process,
    run_kernels,
    run_list_kernels,
    run_list_kernels_of_cpu,
)

COMPUTE_CAPABILITY = (9, 0)
LIST_KERNELS = ("make_list_value", "make_list_value_gradient_hessian", "make_list_flag")
ROUNDED = re.compile(r"(add|sub|mul|div|rcp|sqrt|fma|mad)\.")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None,
    reason="numba-cuda is not installed: pip install '.[cuda12]' runs these tests, with or without a GPU",
)


def compile_in_own_process(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return what `compile_cases` writes."""
    output = folder / "compiled.json"
    # A kernel cache of its own, so that the CPU kernels there are compiled beside the CUDA kernels.
    environment = {"NUMBA_ENABLE_CUDASIM": "0", "FASTLOSS_CACHE_DIR": str(folder / "cache")}
    run_in_own_process("test_cuda_ptx", output, names, **environment)
    return dict(json.loads(output.read_text()))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> CasesByProcess:
    folder = tmp_path_factory.mktemp("cuda")
    return CasesByProcess(lambda names: compile_in_own_process(folder, names)["kernels"], request)


@pytest.fixture(scope="module")
def compiled_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compile_in_own_process(tmp_path_factory.mktemp("cuda"), ())


def every_other(names: Sequence[Any]) -> list[Any]:
    """The same cases, every other of those that are not slow marked so: each takes two seconds to compile."""
    params = [name if isinstance(name, type(pytest.param())) else pytest.param(name) for name in names]
    quick = [param for param in params if not param.marks]
    return [
        pytest.param(*param.values, marks=[pytest.mark.slow]) if param in quick[1::2] else param for param in params
    ]


# Metrics of rankings, which have values alone: in front the one that reads tables.
RANKING_CASES: dict[str, Ranking] = {ranking().full_name: ranking() for ranking in (Ndcg, *RANKINGS)}
SAMPLED_RANKINGS = [pytest.param(name, marks=[pytest.mark.slow] * (name != "ndcg")) for name in RANKING_CASES]
POINTWISE, LISTS = every_other(SAMPLED), every_other(SAMPLED_LISTS)
# The tests of one case stand together, so that no two workers compile it.
any_case = pytest.mark.parametrize("name", [*POINTWISE, *LISTS, *SAMPLED_RANKINGS], scope="module")


def reaches_fma(function: Callable[..., Any]) -> bool:
    """Tell whether a formula calls `fma`, itself or through another formula."""
    used = [function.__globals__.get(name) for name in function.__code__.co_names]
    return any(f is fma or (hasattr(f, "__code__") and f.__module__ != jit.__name__ and reaches_fma(f)) for f in used)


@any_case
def test_ptx_holds_what_the_source_says(name: str, compiled: CasesByProcess) -> None:
    kernels = compiled[name]
    for kernel in kernels.values():
        assert ".target sm_90" in kernel["ptx"]
        # No function is left to call, no array has spilled to local memory, no number is float32.
        assert not re.search(r"\bcall\b|\.local\b|\.f32\b|\.approx|\.ftz", kernel["ptx"])
        for instruction in Kernel(kernel["ptx"]).instructions:
            if instruction.endswith(".f64") and ROUNDED.match(instruction):
                # Without .rn, the assembler may contract a product and a sum (PTX ISA, "mul" and "add").
                assert re.fullmatch(r"\w+\.rn\.f64", instruction)
    if name not in CASES:
        return
    # NVVM writes fma only where the source does.
    found = "fma.rn.f64" in Kernel(kernels["value_gradient_hessian"]["ptx"]).instructions
    assert found == reaches_fma(CASES[name][0])


@any_case
def test_machine_code_is_assembled_from_the_ptx_without_spills(name: str, compiled: CasesByProcess) -> None:
    for kernel in compiled[name].values():
        assert kernel["launches_this_ptx"]
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in kernel["resources"]
        # 65,536 registers on a multiprocessor: three blocks of 256 threads fit with 80 a thread, two with 128.
        most = 80 if name in CASES else 128
        assert int(re.search(r"Used (\d+) registers", kernel["resources"])[1]) <= most


@pytest.mark.parametrize("name", POINTWISE, scope="module")
def test_interpreted_ptx_gives_the_bits_of_the_cpu(name: str, compiled: CasesByProcess) -> None:
    from fastloss_kernels.cpu import pointwise

    def interpret(kernel: Any) -> Callable[..., None]:
        text = compiled[name][kernel]["ptx"]
        return lambda *arguments: Kernel(text).launch(2, 13, arguments)

    names = SimpleNamespace(**{f"make_{kernel}": lambda _, k=kernel: k for kernel in compiled[name]})
    score, label = rows_of(CASES[name][3])
    expected = run_kernels(pointwise, lambda kernel: kernel, name)
    for output, values in run_kernels(names, interpret, name).items():
        other = np.flatnonzero(bits(values) != bits(expected[output]))
        assert not other.size, (
            f"{output}: {other.size} rows differ, first {values[other[0]]!r} for {expected[output][other[0]]!r} "
            f"at ({score[other[0]]!r}, {label[other[0]]!r})"
        )


@pytest.mark.parametrize("name", LISTS, scope="module")
def test_interpreted_ptx_of_lists_gives_the_bits_of_the_cpu(name: str, compiled: CasesByProcess) -> None:
    def interpret(kernel: Any) -> Callable[..., None]:
        text = compiled[name][kernel]["ptx"]
        return lambda *arguments: Kernel(text).launch(2, 13, arguments)

    names = SimpleNamespace(**{maker: lambda _, k=maker: k for maker in LIST_KERNELS})
    expected = run_list_kernels_of_cpu(name)
    for output, values in run_list_kernels(names, interpret, name).items():
        assert np.array_equal(bits(values), bits(expected[output])), output


def test_contraction_is_off_by_our_flag_alone(compiled_alone: dict[str, Any]) -> None:
    # a·b + c: what `numba.cuda.jit` makes of it, and what our kernels do.
    assert "fma.rn.f64" in Kernel(compiled_alone["contracting"]).instructions
    as_written = Kernel(compiled_alone["as_written"]).instructions
    assert "fma.rn.f64" not in as_written
    assert {"mul.rn.f64", "add.rn.f64"} <= set(as_written)


def test_cpu_kernels_compile_beside_cuda_kernels(compiled_alone: dict[str, Any]) -> None:
    from fastloss_kernels.cpu import pointwise

    for output, values in run_kernels(pointwise, lambda kernel: kernel, "log_loss-logit").items():
        assert bits(values).tolist() == compiled_alone["cpu"][output]


def pretend_device() -> None:
    """Describe a device to Numba's compiler; the only place that knows names of its inside."""
    from numba.cuda.cudadrv import devices

    module = SimpleNamespace(initialized=True)
    module.get_function = lambda name: SimpleNamespace(module=module)
    context = SimpleNamespace(
        device=SimpleNamespace(id=0, compute_capability=COMPUTE_CAPABILITY),
        create_module_image=lambda machine_code, setup, teardown: module,
    )
    devices._runtime = SimpleNamespace(get_or_create_context=lambda number: context)


def compile_for_launch(kernel: Any, arguments: tuple[Any, ...]) -> Any:
    """Compile as a launch with these arguments would, down to the machine code; return the compiled kernel."""
    return kernel._compile_for_args(*arguments)


def compile_cases(output: str, names: Sequence[str]) -> None:
    """Compile every kernel of some cases, and write its PTX and the resources that its machine code takes.

    Beside them stand two kernels that are the same but for contraction, and the results of one for the CPU.
    """
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda

    from fastloss_kernels.cpu import pointwise as cpu_pointwise
    from fastloss_kernels.cuda import lists, pointwise

    pretend_device()

    def compile_one(kernel: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        made = compile_for_launch(kernel, arguments).library
        ptx = made.get_asm_str()
        target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)[1]
        code = ObjectCode.from_ptx(ptx.encode())
        assembled = Linker(code, options=LinkerOptions(arch=target)).link("cubin").code
        # The assembler notes its options in what it writes, so it is asked for its report separately.
        reporting = Linker(code, options=LinkerOptions(arch=target, ptxas_options=["-v"]))
        reporting.link("cubin")
        return {
            "ptx": ptx,
            "resources": reporting.get_info_log(),
            # Link-time optimisation would launch something else than this PTX.
            "launches_this_ptx": assembled == made.get_cubin().code,
        }

    kernels: dict[str, dict[str, Any]] = {}
    for name in filter(CASES.__contains__, names):
        kernels[name] = {}

        def launch(kernel: Any, made: dict[str, Any] = kernels[name]) -> Callable[..., None]:
            def compile_into(*arguments: Any) -> None:
                made[kernel.py_func.__name__] = compile_one(kernel, arguments)

            return compile_into

        run_kernels(pointwise, launch, name)

    for name in filter(LIST_CASES.__contains__, names):
        made = kernels[name] = {}
        # Two of the kernels have one name, so they are told apart by what makes them.
        makers = {maker: lambda row, maker=maker: (maker, getattr(lists, maker)(row)) for maker in LIST_KERNELS}

        def launch_lists(pair: tuple[str, Any], made: dict[str, Any] = made) -> Callable[..., None]:
            def compile_into(*arguments: Any) -> None:
                made[pair[0]] = compile_one(pair[1], arguments)

            return compile_into

        run_list_kernels(SimpleNamespace(**makers), launch_lists, name)

    for name in filter(RANKING_CASES.__contains__, names):
        ranking = RANKING_CASES[name]
        # One list of three candidates, in the order of their scores.
        score, offsets = np.array([3.0, 2.0, 2.0]), np.array([0, 3])
        arguments = (score, offsets, np.array([0.0, 1.0, 0.0]), offsets, np.zeros(1, np.int64))
        scratch = np.zeros((ranking.n_scratch + 2, 3))
        kernel = lists.make_list_value(ranking.formulas["score"])
        kernels[name] = {"value": compile_one(kernel, (*arguments, ranking.parameters("score"), scratch, np.zeros(1)))}

    def multiply_add(a, b, c, out):
        out[0] = a[0] * b[0] + c[0]

    numbers = tuple(np.zeros((4, 1)))
    contracting = cuda.jit(multiply_add)
    cpu = run_kernels(cpu_pointwise, lambda kernel: kernel, "log_loss-logit")
    results = {
        "kernels": kernels,
        "as_written": compile_one(jit.compile_cuda(multiply_add), numbers)["ptx"],
        "contracting": compile_one(contracting, numbers)["ptx"],
        "cpu": {key: bits(values).tolist() for key, values in cpu.items()},
    }
    Path(output).write_text(json.dumps(results))


if __name__ == "__main__":
    compile_cases(sys.argv[1], sys.argv[2:])
