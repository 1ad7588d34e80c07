"""Every Numba flag, the kernel cache and the primitives that need an LLVM instruction.

Importing this module imports neither Numba nor NumPy. Formulas are plain Python functions marked with
`formula`; Numba hears of them when the first kernel is built. Run as plain Python they give the same bits as
the compiled code, because every primitive here has an exact Python definition beside its instruction.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import math
import os
import pickle
import stat
import struct
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

# `error_model="numpy"`: a possible ZeroDivisionError keeps unused gradients alive and differs from the GPU.
# `nogil=True`: kernels run inside reader threads. No fastmath: it deletes NaN checks and moves bits.
KERNEL_FLAGS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False, "boundscheck": False}

_formulas: list[Callable[..., Any]] = []
_lock = threading.RLock()
_numba_knows = 0


def formula(function: Function) -> Function:
    """Mark a scalar function that kernels of every device may call; it stays callable as plain Python."""
    _formulas.append(function)
    return function


# ---------------------------------------------------------------------------------------------------------------
# Primitives: an exact Python definition here, one instruction in compiled code.


def fma(a: float, b: float, c: float) -> float:
    """Compute a·b + c rounded once (IEEE 754 fusedMultiplyAdd, round to nearest even)."""
    product = a * b
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        return product + c
    if a == 0.0 or b == 0.0:
        return product + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        # An exact cancellation is +0 in this rounding mode; a c of zero is handled by the sign of the product.
        return product + c if c == 0.0 and product == 0.0 else 0.0
    try:
        rounded = exact.numerator / exact.denominator
    except OverflowError:
        return math.inf if exact > 0 else -math.inf
    return rounded if rounded != 0.0 or exact > 0 else -0.0


def float64_bits(x: float) -> int:
    """Return the bit pattern of a float64 as a signed 64-bit integer."""
    return int(struct.unpack("<q", struct.pack("<d", x))[0])


def float64_from_bits(bits: int) -> float:
    """Return the float64 with this bit pattern, given as a 64-bit integer (two's complement)."""
    return float(struct.unpack("<d", struct.pack("<Q", bits & 0xFFFF_FFFF_FFFF_FFFF))[0])


def divide(a: float, b: float) -> float:
    """Compute a / b in IEEE 754: x/0 is infinite, 0/0 is NaN."""
    if b != 0.0:
        return a / b
    if a == 0.0 or a != a:
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def square_root(a: float) -> float:
    """Compute √a rounded once (IEEE 754 squareRoot); NaN below 0."""
    return math.nan if a < 0.0 else math.sqrt(a)


def exact_add(a: float, b: float) -> float:
    """Add two numbers whose sum is known to be exact, so that compiled loops may add in any order."""
    return a + b


def prefetch(array: Any, position: int) -> None:
    """Ask for the memory of ``array[position]`` ahead of its use, on a CPU; plain Python has nothing to ask."""


def word_at(data: Any, position: int) -> Any:
    """Return the eight bytes from ``data[position]`` on, uint8, as a little-endian uint64."""
    return data[position : position + 8].view("<u8")[0]


def float64_at(address: int, n: int) -> Any:
    """Return the float64 array of `n` numbers at an address, which its owner must keep alive."""
    return _array_at(address, n, "float64")


def float32_at(address: int, n: int) -> Any:
    """Return the float32 array of `n` numbers at an address, which its owner must keep alive."""
    return _array_at(address, n, "float32")


def int8_at(address: int, n: int) -> Any:
    """Return the int8 array of `n` numbers at an address, which its owner must keep alive."""
    return _array_at(address, n, "int8")


def uint8_at(address: int, n: int) -> Any:
    """Return the uint8 array of `n` numbers at an address, which its owner must keep alive."""
    return _array_at(address, n, "uint8")


def uint16_at(address: int, n: int) -> Any:
    """Return the uint16 array of `n` numbers at an address, which its owner must keep alive."""
    return _array_at(address, n, "uint16")


def uint32_at(address: int, n: int) -> Any:
    """Return the uint32 array of `n` numbers at an address, which its owner must keep alive."""
    return _array_at(address, n, "uint32")


def uint64_at(address: int, n: int) -> Any:
    """Return the uint64 array of `n` numbers at an address, which its owner must keep alive."""
    return _array_at(address, n, "uint64")


def _array_at(address: int, n: int, kind: str) -> Any:
    import ctypes

    import numpy as np

    dtype = np.dtype(kind)
    return np.frombuffer((ctypes.c_char * (n * dtype.itemsize)).from_address(int(address)), dtype)


# ---------------------------------------------------------------------------------------------------------------
# Numba


def _register_primitives() -> None:
    import numpy as np
    from numba import carray, types
    from numba.extending import intrinsic, overload

    @intrinsic
    def fma_instruction(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.fma(*arguments)

        return types.float64(types.float64, types.float64, types.float64), codegen

    @overload(fma, jit_options={"forceinline": True})
    def fma_overload(a, b, c):
        return lambda a, b, c: fma_instruction(np.float64(a), np.float64(b), np.float64(c))

    @intrinsic
    def reassociable_add(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            # The only relaxed flags in the project: they let a sum of exact terms become a vector sum. Both
            # operands are multiples of one unit and the sum stays below 2^53 units, so no order can round.
            return builder.fadd(*arguments, flags=("reassoc", "nsz"))

        return types.float64(types.float64, types.float64), codegen

    @overload(exact_add, jit_options={"forceinline": True})
    def exact_add_overload(a, b):
        return lambda a, b: reassociable_add(np.float64(a), np.float64(b))

    @intrinsic
    def prefetch_instruction(typingctx: Any, array: Any, position: Any) -> Any:
        from llvmlite import ir

        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            view = context.make_array(signature.args[0])(context, builder, arguments[0])
            offset = builder.mul(arguments[1], builder.extract_value(view.strides, 0))
            address = builder.add(builder.ptrtoint(view.data, offset.type), offset)
            of_kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
            instruction = builder.module.declare_intrinsic("llvm.prefetch", [byte], of_kind)
            # To be written, to all caches, data: the arguments of the instruction.
            builder.call(instruction, [builder.inttoptr(address, byte), word(1), word(3), word(1)])
            return context.get_dummy_value()

        return types.void(array, types.int64), codegen

    @overload(prefetch, jit_options={"forceinline": True})
    def prefetch_overload(array, position):
        return lambda array, position: prefetch_instruction(array, np.int64(position))

    @intrinsic
    def load_word(typingctx: Any, array: Any, position: Any) -> Any:
        from llvmlite import ir

        word = ir.IntType(64)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            view = context.make_array(signature.args[0])(context, builder, arguments[0])
            address = builder.add(builder.ptrtoint(view.data, word), arguments[1])
            loaded = builder.load(builder.inttoptr(address, word.as_pointer()))
            loaded.align = 1
            return loaded

        return types.uint64(array, types.int64), codegen

    @overload(word_at, jit_options={"forceinline": True})
    def word_at_overload(data, position):
        return lambda data, position: load_word(data, np.int64(position))

    def register_array_at(function: Callable[..., Any], kind: Any) -> None:
        @intrinsic
        def pointer(typingctx: Any, address: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

            return types.CPointer(kind)(types.int64), codegen

        @overload(function, jit_options={"forceinline": True})
        def array_at(address, n):
            return lambda address, n: carray(pointer(np.int64(address)), n)

    for function, kind in (
        (float64_at, types.float64),
        (float32_at, types.float32),
        (int8_at, types.int8),
        (uint8_at, types.uint8),
        (uint16_at, types.uint16),
        (uint32_at, types.uint32),
        (uint64_at, types.uint64),
    ):
        register_array_at(function, kind)

    @overload(float64_bits, jit_options={"forceinline": True})
    def float64_bits_overload(x):
        return lambda x: np.float64(x).view(np.int64)

    @overload(float64_from_bits, jit_options={"forceinline": True})
    def float64_from_bits_overload(bits):
        return lambda bits: np.int64(bits).view(np.float64)

    @overload(divide, jit_options={"forceinline": True})
    def divide_overload(a, b):
        return lambda a, b: a / b

    @overload(square_root, jit_options={"forceinline": True})
    def square_root_overload(a):
        return lambda a: math.sqrt(a)


def tell_numba() -> None:
    """Make every formula and primitive known to Numba's compilers (CPU and CUDA); cheap when nothing is new."""
    global _numba_knows
    with _lock:
        if _numba_knows == len(_formulas):
            return
        from numba.extending import register_jitable

        if _numba_knows == 0:
            _register_primitives()
        for function in _formulas[_numba_knows:]:
            # Large formulas must be inlined too: a call inside a loop keeps it scalar.
            register_jitable(forceinline=True)(function)
        _numba_knows = len(_formulas)


# ---------------------------------------------------------------------------------------------------------------
# The kernel cache


def source_fingerprint() -> str:
    """Hash the sources of this package: a formula edited in any file gets a kernel cache of its own.

    Numba keys its cache on the file of the kernel alone, so without this an edited formula in another file keeps
    returning the old number (https://github.com/numba/numba/issues/3588).
    """
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _user_cache_root() -> Path:
    if given := os.environ.get("FASTLOSS_CACHE_DIR") or os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~\\AppData\\Local")).expanduser() / "fastloss"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/fastloss").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "fastloss"


@functools.cache
def cache_folder() -> Path | None:
    """Return the writable folder that keeps compiled kernels between runs; None when there is none.

    It holds code that will be executed. So it is made for its owner alone, and not used if others may write to it.
    """
    folder = _user_cache_root() / f"kernels-{source_fingerprint()}"
    trouble, advice = "is not writable", "set FASTLOSS_CACHE_DIR to a writable folder"
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            trouble, advice = "belongs to another user", "set FASTLOSS_CACHE_DIR to a folder of your own"
        elif hasattr(os, "geteuid") and status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            trouble, advice = "may be written by others", f"run chmod go-w {folder}"
        elif os.access(folder, os.W_OK | os.X_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    warnings.warn(
        f"The kernel cache folder {folder} {trouble}, so kernels are compiled anew in every run; {advice}.",
        stacklevel=2,
    )
    return None


def compile_cpu(
    function: Function, *, parallel: bool = False, formulas: tuple[Callable[..., Any], ...] = ()
) -> Function:
    """Make a lazily compiled CPU kernel of a function whose formulas are closed over.

    It is cached on disk if its `formulas` are all of this package, whose sources name the cache.
    """
    import numba

    tell_numba()
    own = all((formula.__module__ or "").partition(".")[0] == __package__ for formula in formulas)
    folder = cache_folder() if own else None
    with _lock:
        kept = numba.config.CACHE_DIR
        # Read by Numba while it decorates; other users of Numba in this process keep their own setting.
        numba.config.CACHE_DIR = "" if folder is None else str(folder)
        try:
            dispatcher: Function = numba.njit(cache=folder is not None, parallel=parallel, **KERNEL_FLAGS)(function)
        finally:
            numba.config.CACHE_DIR = kept
    if folder is not None:
        _check_cache_files(dispatcher)
        _forgive_cache_errors(dispatcher)
    return dispatcher


_CHECKSUM_BYTES = 16


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()


def _check_cache_files(dispatcher: Any) -> None:
    """Give a dispatcher's cache files checksums, which are verified before anything is loaded.

    Numba executes what it finds: a flipped bit was another number, or the end of the process.
    """
    from numba.core.caching import IndexDataCacheFile

    class CheckedCacheFile(IndexDataCacheFile):  # type: ignore[misc]
        def load(self, key: Any) -> Any:
            found = super().load(key)
            # Two processes that save at once may choose one name for two kernels.
            return found[1] if found is not None and found[0] == repr(key) else None

        def save(self, key: Any, data: Any) -> None:
            super().save(key, (repr(key), data))

        def _load_index(self) -> Any:
            return super()._load_index() if _is_whole(self._index_path) else {}

        def _load_data(self, name: str) -> Any:
            path = self._data_path(name)
            if not _is_whole(path):
                raise FileNotFoundError(path)
            return super()._load_data(name)

        @contextlib.contextmanager
        def _open_for_write(self, path: str) -> Iterator[io.BytesIO]:
            with super()._open_for_write(path) as file:
                content = io.BytesIO()
                yield content
                # Behind the pickle, where whoever reads that never looks.
                file.write(content.getvalue() + _checksum(content.getvalue()))

    cache = dispatcher._cache
    plain = cache._cache_file
    cache._cache_file = CheckedCacheFile(cache.cache_path, cache._impl.filename_base, plain._source_stamp)


def _is_whole(path: str) -> bool:
    """Say whether a cache file is there and undamaged; a damaged one is removed."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return False
    if _checksum(content[:-_CHECKSUM_BYTES]) == content[-_CHECKSUM_BYTES:]:
        return True
    with contextlib.suppress(OSError):
        os.unlink(path)
    return False


def _forgive_cache_errors(dispatcher: Any) -> None:
    """Compile where a cache entry is damaged or cannot be written: a full disk must not stop an evaluation.

    Numba raises there, on every run until somebody deletes the entry (https://github.com/numba/numba/issues/9348).
    """
    cache = dispatcher._cache
    load, save = cache.load_overload, cache.save_overload

    def load_overload(signature: Any, target: Any) -> Any:
        try:
            return load(signature, target)
        except Exception:
            # A damaged pickle may raise anything; without its index the entry is compiled and written anew.
            with contextlib.suppress(OSError):
                cache.flush()
            return None

    def save_overload(signature: Any, compiled: Any) -> None:
        with contextlib.suppress(OSError, EOFError, pickle.PickleError):
            save(signature, compiled)

    cache.load_overload, cache.save_overload = load_overload, save_overload


def compile_cuda(function: Function) -> Any:
    """Make a lazily compiled CUDA kernel of a function; in Numba's simulator, a simulated kernel.

    NVVM contracts a·b + c into one rounding unless told otherwise, and `numba.cuda.jit` has no word for it
    (https://github.com/NVIDIA/numba-cuda/issues/118), so the option is given to NVVM while the kernel compiles.

    Raises
    ------
    ImportError
        If numba-cuda is not installed and the simulator is not in use.
    """
    from importlib.util import find_spec

    import numba
    from numba import cuda

    tell_numba()
    if numba.config.ENABLE_CUDASIM:
        return cuda.jit(function)
    if find_spec("numba_cuda") is None:
        raise ImportError("CUDA kernels need numba-cuda; install fastloss[cuda12] or fastloss[cuda13].")
    # `lto=False`: link-time optimisation compiles once more, and contracts whatever was asked for before. The function
    # goes in with the flags: numba-cuda 0.30 forgets `lto` where `jit` is called with flags alone.
    kernel = cuda.jit(function, fastmath=False, opt=True, lto=False)
    compile_kernel = kernel.compile

    def compile_as_written(signature: Any) -> Any:
        from numba.cuda import dispatcher

        with _lock:
            kept = dispatcher.compile_cuda
            # The option stays with the compiled kernel, so every device that it is later linked for sees it.
            dispatcher.compile_cuda = lambda *arguments, nvvm_options, **others: kept(
                *arguments, nvvm_options={**nvvm_options, "fma": False}, **others
            )
            try:
                return compile_kernel(signature)
            finally:
                dispatcher.compile_cuda = kept

    kernel.compile = compile_as_written
    return kernel
