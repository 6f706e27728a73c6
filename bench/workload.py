"""What is measured: operations on layers of given extents, and their operands on the GPU."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpugrad
from gpugrad.arrays import kinds
from gpugrad.benchmark.peers import cupy_cublas
from gpugrad.operations import OPERATIONS
from gpugrad.planning.problem import ITEMSIZE
from gpugrad.testing import operations

POOL = 4_194_301  # random numbers that all operands are cut from: prime, so that no rows repeat
NAN_BYTE = 0xFF  # a value of such bytes is a NaN in every dtype
TOLERANCES = {  # ‖result − exact‖ / ‖exact‖ of a right result: a few roundings
    "float64": 1e-12,
    "float32": 5e-5,
    "float16": 3e-3,
    "bfloat16": 1.5e-2,
    "tf32": 3e-3,
}

Set = dict[str, Any]  # operands by name, CuPy arrays


@dataclass(frozen=True)
class Workload:
    """One operation on a layer of n rows, k inputs and m outputs in one dtype."""

    op: str
    size: tuple[int, int, int]
    dtype: str

    def __str__(self) -> str:
        return f"{self.op} {'x'.join(map(str, self.size))} {self.dtype}"

    @property
    def bytes_in(self) -> int:
        """Bytes of the operands."""
        return self._bytes(operations.shapes(self.op, self.size))

    @property
    def bytes_moved(self) -> int:
        """Fewest bytes that pass the device's memory: operands read once, results written once."""
        return self.bytes_in + self._bytes(operations.result_shapes(self.op, self.size))

    @property
    def flops(self) -> int:
        """Floating-point operations of the products."""
        n, k, m = self.size
        products = {"dense_sigmoid": 1, "matmul_backward": 2, "dense_sigmoid_backward": 2}
        return products.get(self.op, 0) * 2 * n * k * m

    def _bytes(self, shapes: dict[str, tuple[int, ...]]) -> int:
        return ITEMSIZE[self.dtype] * sum(math.prod(shape) for shape in shapes.values())


def copies(set_bytes: int, cache_bytes: int, limit_bytes: int) -> tuple[int, bool]:
    """Choose how many sets of operands to rotate over.

    Between two uses of a set, the others put at least twice the cache's size through it.

    Parameters
    ----------
    set_bytes : int
        Of one set.
    cache_bytes : int
        Of the device's L2 cache.
    limit_bytes : int
        That all sets may take.

    Returns
    -------
    tuple
        The number of sets, at least 1, and whether the cache holds none of the next one.
    """
    wanted = 1 + math.ceil(2 * cache_bytes / max(1, set_bytes))
    possible = max(1, limit_bytes // max(1, set_bytes))
    return min(wanted, possible), possible >= wanted


def draw(workload: Workload, count: int, seed: int = 0) -> list[Set]:
    """Make sets of operands on the GPU, each name's in one slab of memory.

    y is the sigmoid of the layer's own x w, or of logits z, which the set then has too.
    """
    import cupy

    dtype = operations.dtype_of(workload.dtype)
    shapes = dict(operations.shapes(workload.op, workload.size))
    if "y" in shapes and "x" not in shapes:
        shapes["z"] = shapes["y"]
    random = np.random.default_rng(seed)
    slabs: dict[str, Any] = {}
    for index, (name, shape) in enumerate(shapes.items()):
        if name == "y":
            slabs[name] = cupy.empty((count, *shape), dtype)
            continue
        scale = max(1, shape[0]) ** -0.5 if name == "w" else 1.0
        pool = (random.standard_normal(POOL, np.float32) * np.float32(scale)).astype(dtype)
        slabs[name] = spread(pool, (count, *shape), index)
    sets = [{name: slab[i] for name, slab in slabs.items()} for i in range(count)]
    if "y" in shapes:
        for one in sets:
            if "z" in one:
                gpugrad.sigmoid(one["z"], out=one["y"])
            else:
                gpugrad.dense_sigmoid(one["x"], one["w"], out=one["y"])
    return sets


def spread(pool: Any, shape: tuple[int, ...], offset: int) -> Any:
    """Fill a new device array with the pool, again and again."""
    import cupy

    size = math.prod(shape)
    bits = f"u{pool.dtype.itemsize}"  # moved as integers, whatever the dtype
    result = cupy.empty(size, bits)
    start = (offset * 65_537) % len(pool)
    device = cupy.asarray(np.roll(pool.view(bits), -start))
    for first in range(0, size, len(pool)):
        part = result[first : first + len(pool)]
        part[...] = device[: len(part)]
    return result.view(pool.dtype).reshape(shape)


def poisoned(workload: Workload) -> dict[str, Any]:
    """Make buffers for the results that hold nothing but NaN."""
    import cupy

    dtype = operations.dtype_of(workload.dtype)
    buffers = {}
    for name, shape in operations.result_shapes(workload.op, workload.size).items():
        memory = cupy.full(math.prod(shape) * dtype.itemsize, NAN_BYTE, np.uint8)
        buffers[name] = memory.view(dtype).reshape(shape)
    return buffers


def exact(workload: Workload, operands: Set) -> dict[str, Any]:
    """Compute the results in float64 on the GPU; products on the host where cuBLAS is missing."""
    import cupy

    names = OPERATIONS[workload.op].operands
    wide = {name: widen(operands[name]) for name in names}
    if not OPERATIONS[workload.op].products or cupy_cublas.no_cublas() is None:
        return operations.plain(workload.op, cupy, wide)
    host = {name: cupy.asnumpy(one) for name, one in wide.items()}
    results = operations.plain(workload.op, np, host)
    return {name: cupy.asarray(one) for name, one in results.items()}


def widen(array: Any) -> Any:
    """Convert a CuPy array to float64."""
    if array.dtype.name == "bfloat16":  # the upper half of a float32
        array = (array.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float64)


def distance(results: dict[str, Any], answers: dict[str, Any]) -> float:
    """Return the largest ‖result − exact‖ / ‖exact‖ of the results; NaN where one has a NaN."""
    import cupy

    worst = 0.0
    for name, answer in answers.items():
        norm = float(cupy.sqrt(cupy.square(answer).sum()))
        off = float(cupy.sqrt(cupy.square(widen(results[name]) - answer).sum()))
        one = off / norm if norm else off
        if not one <= worst:  # NaN too
            worst = one
    return worst


def as_cupy(result: Any) -> Any:
    """View a result of any framework as a CuPy array."""
    kind = kinds.kind_of(result)
    return kinds.view(result, kind).array if kind is not None else result


def as_device(array: Any) -> Any:
    """Copy a NumPy array to the GPU, of whatever dtype."""
    import cupy

    array = np.ascontiguousarray(array)
    result = cupy.empty(array.shape, array.dtype)
    if array.size:
        result.data.copy_from_host(array.ctypes.data, array.nbytes)
    return result
