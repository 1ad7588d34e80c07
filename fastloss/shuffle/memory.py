"""Memory in large regions that are used anew, so that it is bounded and only its first use costs page faults."""

from __future__ import annotations

import mmap

import numpy as np

from fastloss.shuffle.narrowing import Bytes

_LARGEST_REGION = 32 << 20
_SMALLEST_REGION = 64 << 10
_CACHE_LINE = 64


class Regions:
    """Pieces of memory up to a bound; all are given back at once.

    The regions come from the system and go back to it, so what is given back is not kept by an allocator.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._region_bytes = min(_LARGEST_REGION, max(_SMALLEST_REGION, most_bytes // 8))
        self._filled: list[Bytes] = []
        self._free: list[Bytes] = []
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all regions."""
        return sum(region.size for region in (*self._filled, *self._free))

    def take(self, n_bytes: int) -> Bytes | None:
        """Return memory, or None if the bound would be passed; the first piece is given whatever its size."""
        n_bytes = -(-n_bytes // _CACHE_LINE) * _CACHE_LINE
        if not self._filled or self._used + n_bytes > self._filled[-1].size:
            region = self._next_region(n_bytes)
            if region is None:
                return None
            self._filled.append(region)
            self._used = 0
        piece = self._filled[-1][self._used : self._used + n_bytes]
        self._used += n_bytes
        return piece

    def _next_region(self, n_bytes: int) -> Bytes | None:
        for i, region in enumerate(self._free):
            if region.size >= n_bytes:
                return self._free.pop(i)
        size = max(n_bytes, self._region_bytes)
        while self._free and self.nbytes + size > self._most_bytes:
            self._free.pop()
        if self._filled and self.nbytes + size > self._most_bytes:
            return None
        return _region(size)

    def reset(self) -> None:
        """Take all pieces back; the regions stay."""
        self._free += self._filled
        self._filled = []

    def release(self) -> None:
        """Take all pieces back and give the regions to the system, once nobody reads them any more."""
        self._free, self._filled = [], []


def _region(size: int) -> Bytes:
    size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # A page fault for 2 MiB in place of 512.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint8)
