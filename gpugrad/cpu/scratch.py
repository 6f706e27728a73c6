"""Buffers of one worker, which its tasks use again and again while they are in cache."""

import math
from typing import Any

import numpy as np

Array = Any  # np.ndarray; NumPy's own annotations turn many expressions into scalars


class Scratch:
    """Arrays by name. The same name gives the same memory, which the next request overwrites."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Give an array with whatever is in it. A name has one dtype."""
        buffer = self._buffers.get(name)
        if buffer is not None and buffer.shape == shape:
            return buffer
        if buffer is None or buffer.size < math.prod(shape):
            buffer = self._buffers[name] = np.empty(shape, dtype)
            return buffer
        return buffer.reshape(-1)[: math.prod(shape)].reshape(shape)
