"""PyTorch's tensors and JAX's arrays on a GPU, as far as this package looks at them.

The CPU builds of both have no CUDA. These classes carry memory of the played driver, and do what
the files named below do with streams and allocators, no more.
"""

import functools
import math
import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace
from typing import Any

import cupy
import numpy as np

from tests.support.cases import dtype_of

ITEMSIZE = {  # by names of dtypes
    f"torch.{name}": np.dtype(kind).itemsize
    for name, kind in [
        *((one, one) for one in ("uint8", "int16", "float64", "float32", "float16")),
        ("bfloat16", "uint16"),
    ]
}


class Tensor:
    """torch.Tensor with a device of CUDA's (torch/_tensor.py)."""

    layout, is_quantized, requires_grad = "strided", False, False
    device = SimpleNamespace(type="cuda", index=0)

    def __init__(
        self, address: int, shape: tuple[int, ...], steps: tuple[int, ...], dtype: str, owner: Any
    ) -> None:
        self.address, self.shape, self.steps = address, shape, steps  # steps in elements
        self.dtype, self.owner = dtype, owner

    @functools.cached_property
    def array(self) -> Any:
        """The same memory as a CuPy array."""
        kind = dtype_of(self.dtype.removeprefix("torch."))
        memory = cupy.cuda.UnownedMemory(self.address, self.numel() * kind.itemsize, self.owner, 0)
        pointer = cupy.cuda.MemoryPointer(memory, 0)
        strides = tuple(step * kind.itemsize for step in self.steps)
        return cupy.ndarray(self.shape, kind, pointer, strides)

    def stride(self) -> tuple[int, ...]:
        return self.steps

    def get_device(self) -> int:
        return 0

    def numel(self) -> int:
        return math.prod(self.shape)

    def data_ptr(self) -> int:
        return self.address

    def is_neg(self) -> bool:
        return False

    def detach(self) -> "Tensor":
        return self

    def resolve_neg(self) -> "Tensor":
        return self

    def t(self) -> "Tensor":
        return Tensor(self.address, self.shape[::-1], self.steps[::-1], self.dtype, self.owner)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: int, **options: Any) -> Any:
        """The consumer's stream waits for PyTorch's, but where both are the default stream."""
        torch: Any = sys.modules["torch"]
        if (stream, torch.stream.ptr) != (1, 0):
            event = torch.stream.record()
            cupy.cuda.runtime.streamWaitEvent(stream, event.ptr)
        return self.array.__dlpack__(stream=stream, **options)

    def view(self, dtype: str) -> "Tensor":
        assert dtype_of(dtype.removeprefix("torch.")).itemsize == self.array.itemsize
        return Tensor(self.address, self.shape, self.steps, dtype, self.owner)


class Torch(ModuleType):
    """The module torch; `torch.cuda.graph` is a capture in mode "global" (torch/cuda/graphs.py).

    Memory is cut from what was reserved before, as by the caching allocator: a capture must not
    call cudaMalloc (c10/cuda/CUDACachingAllocator.cpp changes the mode where it has to).
    """

    def __init__(self, reserve: int = 1 << 22) -> None:
        super().__init__("torch")
        self.Tensor, self.strided = Tensor, "strided"
        for name in ("uint8", "int16", "float64", "float32", "float16", "bfloat16"):
            setattr(self, name, f"torch.{name}")
        self.reserved = cupy.cuda.Memory(reserve)
        self.taken: list[int] = []  # bytes, of each allocation
        self._end = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)  # offsets, by size
        self.stream: Any = cupy.cuda.Stream(non_blocking=True)
        self.cuda = SimpleNamespace(current_stream=lambda index: _Stream(self.stream))
        self.autograd = SimpleNamespace(
            graph=SimpleNamespace(increment_version=lambda tensor: None)
        )

    def empty(self, shape: Any, *, dtype: str, device: str) -> Tensor:
        assert device == "cuda:0"
        shape = shape if isinstance(shape, tuple) else (shape,)
        size = math.prod(shape) * ITEMSIZE[dtype]
        self.taken.append(size)
        rounded = -(-size // 512) * 512
        free = self._free[rounded]
        if not free:
            free.append(self._end)
            self._end += rounded
            assert self._end <= self.reserved.size
        block = _Block(free)
        steps = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return Tensor(self.reserved.ptr + block.offset, shape, steps, dtype, block)

    def tensor(self, array: np.ndarray) -> Tensor:
        """Make a tensor with the values of a NumPy array."""
        made = self.empty(array.shape, dtype=f"torch.{array.dtype.name}", device="cuda:0")
        made.array.data.copy_from_host(np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return made


class _Block:
    """Memory of the reserve, which goes back to those of its size: on one stream, in its order."""

    def __init__(self, free: list[int]) -> None:
        self.free, self.offset = free, free.pop()

    def __del__(self) -> None:
        self.free.append(self.offset)


class _Stream:
    """torch.cuda.Stream (torch/cuda/streams.py)."""

    def __init__(self, stream: Any) -> None:
        self.cuda_stream = stream.ptr

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.cuda_stream


class Jax(ModuleType):
    """The module jax; arrays come and go by DLPack (jax/_src/array.py, jax/_src/dlpack.py).

    Memory of an array that is dropped is written by XLA's next computation, which runs on a stream
    of its own and waits for no other.
    """

    def __init__(self) -> None:
        super().__init__("jax")
        jax = self
        self.stream = cupy.cuda.Stream(non_blocking=True)

        class Array:
            def __init__(self, array: Any) -> None:
                self.array = array

            shape = property(lambda self: self.array.shape)
            dtype = property(lambda self: self.array.dtype)

            def devices(self) -> set[Any]:
                return {jax.device}

            def __dlpack_device__(self) -> tuple[int, int]:
                return (2, 0)

            def __dlpack__(self, **options: Any) -> Any:
                return _Owned(self).view.__dlpack__(**options)

            def __del__(self) -> None:
                with jax.stream:
                    self.array.fill(np.nan)
                jax.stream.synchronize()

        self.Array = Array
        self.device = _Device()
        self.config = SimpleNamespace(jax_enable_x64=True)
        self.core = SimpleNamespace(Tracer=type("Tracer", (), {}))
        self.numpy = SimpleNamespace(from_dlpack=lambda array: array)


class _Device(SimpleNamespace):
    """A device of jax.devices()."""

    platform, local_hardware_id = "gpu", 0
    __hash__ = object.__hash__


class _Owned:
    """A view of an array's memory that holds the array."""

    def __init__(self, owner: Any) -> None:
        array = owner.array
        memory = cupy.cuda.UnownedMemory(array.data.ptr, array.nbytes, owner, 0)
        pointer = cupy.cuda.MemoryPointer(memory, 0)
        self.view = cupy.ndarray(array.shape, array.dtype, pointer, array.strides)
