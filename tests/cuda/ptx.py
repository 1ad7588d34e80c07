"""A slow interpreter of the PTX that the kernels compile to, to see their bits where there is no GPU.

It follows the PTX ISA (https://docs.nvidia.com/cuda/parallel-thread-execution/) for one-dimensional grids: registers
hold bit patterns, float64 arithmetic is IEEE 754 round to nearest even, and an instruction that it does not know is
an error.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastloss_kernels.jit import divide, float64_bits, float64_from_bits, fma, square_root

FIRST_ADDRESS = 0x1000
ARITHMETIC = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "shl": lambda a, b: a << b if b < 64 else 0,
    "shr": lambda a, b: a >> b,
    "min": min,
    "max": max,
    "neg": operator.neg,
    "abs": abs,
    "not": operator.invert,
    "mov": lambda a: a,
    "cvt": lambda a: a,
    "cvta": lambda a: a,
    "selp": lambda a, b, chosen: a if chosen else b,
    "mad": lambda a, b, c: a * b + c,
}


def largest(a: float, b: float) -> float:
    """The maximum as PTX has it: of NaN and a number the number, of two zeros +0."""
    if a != a or b != b:
        return b if a != a else a
    return max(a, b, key=lambda x: (x, math.copysign(1.0, x)))


FLOAT_ARITHMETIC = {**ARITHMETIC, "fma": fma, "div": divide, "rcp": lambda a: divide(1.0, a), "sqrt": square_root}
FLOAT_ARITHMETIC |= {"max": largest, "min": lambda a, b: -largest(-a, -b)}
# Ordered comparisons are false for NaN, as Python's are; those ending in u are true for it.
COMPARISONS = {
    "eq": operator.eq,
    "ne": lambda a, b: a < b or a > b,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "neu": operator.ne,
    "equ": lambda a, b: not (a < b or a > b),
    "ltu": lambda a, b: not a >= b,
    "leu": lambda a, b: not a > b,
    "gtu": lambda a, b: not a <= b,
    "geu": lambda a, b: not a < b,
    "num": lambda a, b: a == a and b == b,
    "nan": lambda a, b: a != a or b != b,
}
COMPARISONS |= {"lo": operator.lt, "ls": operator.le, "hi": operator.gt, "hs": operator.ge}


class Kernel:
    """The one kernel of a PTX text."""

    def __init__(self, ptx: str) -> None:
        header, body = re.split(r"^\{", ptx[ptx.index(".entry") :], maxsplit=1, flags=re.MULTILINE)
        self._parameters = re.findall(r"\.param \.\w+ (\S+?)[,\s)]", header)
        self._labels: dict[str, int] = {}
        self._code: list[tuple[str, str, list[str]]] = []
        for line in body.splitlines():
            if label := re.match(r"(\$\w+):", line):
                self._labels[label[1]] = len(self._code)
            elif found := re.match(r"\s+(?:@(!?%p\d+)\s+)?([a-z][\w.]*)\s*(.*);", line):
                self._code.append((found[1] or "", found[2], re.split(r",\s*", found[3])))

    @property
    def instructions(self) -> list[str]:
        """The names of the instructions, in order."""
        return [name for _, name, _ in self._code]

    def launch(self, blocks: int, threads: int, arguments: Sequence[Any]) -> None:
        """Run every thread of a grid, one after the other; arrays are changed in place."""
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        memory = bytearray(b"".join(a.tobytes() for a in arrays))
        given: list[int] = []
        address = FIRST_ADDRESS
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                # Numba's array: owner, parent, items, bytes of an item, data, shape, strides.
                given += [0, 0, argument.size, argument.itemsize, address, *argument.shape, *argument.strides]
                address += argument.nbytes
            else:
                given += [float64_bits(number) for number in argument]
        parameters = dict(zip(self._parameters, given, strict=True))
        for block in range(blocks):
            for thread in range(threads):
                special = {"%tid.x": thread, "%ntid.x": threads, "%ctaid.x": block, "%nctaid.x": blocks}
                self._run({**special, **parameters}, memory)
        offset = 0
        for array in arrays:
            array[:] = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
            offset += array.nbytes

    def _run(self, known: dict[str, Any], memory: bytearray) -> None:
        def read(operand: str, kind: str) -> Any:
            if operand[0] == "%":
                pattern = known[operand]
            elif operand.startswith("0d"):
                pattern = int(operand[2:], 16)
            else:
                pattern = int(operand, 0)
            if kind == "f64":
                return float64_from_bits(pattern)
            if kind == "pred":
                return bool(pattern)
            width = int(kind[1:])
            pattern &= (1 << width) - 1
            return pattern - (1 << width) if kind[0] == "s" and pattern >> (width - 1) else pattern

        def write(register: str, value: Any, kind: str) -> None:
            if kind == "f64":
                known[register] = float64_bits(value)
            else:
                known[register] = int(value) & (1 if kind == "pred" else 0xFFFF_FFFF_FFFF_FFFF)

        at = 0
        while True:
            guard, name, operands = self._code[at]
            at += 1
            if guard and bool(known[guard.lstrip("!")]) == guard.startswith("!"):
                continue
            operation, *modifiers = name.split(".")
            kind = modifiers[-1] if modifiers else ""
            if operation == "ret":
                return
            if operation == "bra":
                at = self._labels[operands[0]]
            elif operation in ("ld", "st"):
                place = operands[operation == "ld"].strip("[]")
                if modifiers[0] == "param":
                    known[operands[0]] = known[place]
                    continue
                register, _, displacement = place.partition("+")
                start = known[register] + int(displacement or 0) - FIRST_ADDRESS
                size = int(kind[1:]) // 8
                assert 0 <= start <= len(memory) - size, f"{name} outside the arrays"
                if operation == "ld":
                    known[operands[0]] = int.from_bytes(memory[start : start + size], "little")
                else:
                    stored = float64_bits(read(operands[1], kind)) if kind == "f64" else read(operands[1], kind)
                    memory[start : start + size] = struct.pack("<Q", stored & 0xFFFF_FFFF_FFFF_FFFF)[:size]
            elif operation == "setp":
                known[operands[0]] = COMPARISONS[modifiers[0]](*(read(operand, kind) for operand in operands[1:]))
            elif operation == "cvt":
                write(operands[0], read(operands[1], kind), modifiers[-2])
            elif kind == "f64":
                kinds = [kind, kind, "pred"] if operation == "selp" else [kind] * 3
                values = [read(operand, k) for operand, k in zip(operands[1:], kinds, strict=False)]
                write(operands[0], FLOAT_ARITHMETIC[operation](*values), kind)
            else:
                kinds = [kind, kind, "pred"] if operation == "selp" else [kind] * 3
                if operation in ("shl", "shr"):
                    kinds[1] = "u32"
                values = [read(operand, k) for operand, k in zip(operands[1:], kinds, strict=False)]
                if operation in ("div", "rem"):
                    quotient = abs(values[0]) // abs(values[1]) * (1 if (values[0] < 0) == (values[1] < 0) else -1)
                    result = quotient if operation == "div" else values[0] - quotient * values[1]
                elif operation == "mul" and modifiers[0] == "hi":
                    result = values[0] * values[1] >> int(kind[1:])
                else:
                    result = ARITHMETIC[operation](*values)
                write(operands[0], result, kind)
