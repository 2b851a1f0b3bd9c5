"""Memory that is used again: to be given new pages by the system costs as much as to convert a picture to RGB."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


class Room:
    """Gives arrays, and takes their memory back when the last view of them is gone; any thread may ask."""

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = {}

    def __reduce__(self) -> tuple[type[Room], tuple[()]]:
        return Room, ()

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        """An array whose numbers are whatever was there before."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        # In powers of two, so that batches of slightly different sizes share; pages that nobody touches cost nothing.
        rounded = 1 << max(size - 1, 1).bit_length()
        free = self._free.setdefault(rounded, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(rounded, np.uint8)
        return np.asarray(_Lent(memory, free))[:size].view(dtype).reshape(shape)


class _Lent:
    def __init__(self, memory: np.ndarray, back: list[np.ndarray]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._back = memory, back

    def __del__(self) -> None:
        self._back.append(self._memory)
