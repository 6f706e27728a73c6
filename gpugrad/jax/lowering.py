"""How a call is compiled: a callback on XLA's own buffers, on any number of devices."""

import ctypes
import itertools
import string
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jax._src import dispatch
from jax.experimental.buffer_callback import buffer_callback
from jax.experimental.custom_partitioning import custom_partitioning
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec

from gpugrad.arrays import kinds, view
from gpugrad.jax.primitive import primitive, types_of_results
from gpugrad.jax.traced import Traced
from gpugrad.operations import DIMENSIONS, OPERATIONS

IN_PLACE = 1 << 20  # bytes of results from which on `out` is faster than a copy
ON_THE_HOST = 1  # DLPack's kDLCPU
TARGETS = {"cpu": "xla_buffer_python_cpu_callback", "cuda": "xla_buffer_python_gpu_callback"}


# ---- the callback


def fill(traced: Traced, context: Any, results: Sequence[Any], operands: Sequence[Any]) -> None:
    """Compute a call into XLA's buffers, without JAX: it could wait for this thread."""
    if results[0].__dlpack_device__()[0] == ON_THE_HOST:
        _fill_on_the_host(traced, results, operands)
    else:
        _fill_on_a_gpu(traced, context.stream, results, operands)


def _fill_on_the_host(traced: Traced, results: Sequence[Any], operands: Sequence[Any]) -> None:
    arrays = dict(zip(traced.names, map(np.asarray, operands), strict=True))
    buffers = [np.asarray(one) for one in results]
    with _subnormal_numbers():
        if sum(one.nbytes for one in buffers) >= IN_PLACE:
            traced.compute(arrays, buffers)
            return
        for buffer, made in zip(buffers, traced.compute(arrays), strict=True):
            buffer[...] = made


def _fill_on_a_gpu(
    traced: Traced, stream: int, results: Sequence[Any], operands: Sequence[Any]
) -> None:
    """Launch on XLA's stream, which orders what comes before and after."""
    cupy = view.imported_cupy()
    _, device = results[0].__dlpack_device__()
    with cupy.cuda.Device(device), kinds.on_stream(stream):
        arrays = dict(zip(traced.names, map(cupy.from_dlpack, operands), strict=True))
        traced.compute(arrays, [cupy.from_dlpack(one) for one in results])


@contextmanager
def _subnormal_numbers() -> Iterator[None]:
    """Enable subnormal numbers, which XLA's threads flush to zero.

    Threads started meanwhile, such as gpugrad's workers, inherit the setting.
    """
    if sys.platform != "linux":
        yield
        return
    library, before = _c_library(), ctypes.create_string_buffer(64)  # fenv_t has at most 32 bytes
    library.fegetenv(before)
    library.fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
    try:
        yield
    finally:
        library.fesetenv(before)


@cache
def _c_library() -> ctypes.PyDLL:
    return ctypes.PyDLL(None)


# ---- one device, or a part of the devices' common work


def _call_back(*operands: Any, traced: Traced) -> list[Any]:
    def callback(context: Any, results: Sequence[Any], *operands: Any) -> None:
        fill(traced, context, results, operands)

    results: list[Any] = buffer_callback(callback, types_of_results(traced, *operands))(*operands)
    return results


def _lower(ctx: Any, *operands: Any, traced: Traced, platform: str) -> Any:
    if getattr(ctx.module_context.axis_context, "num_devices", 1) == 1:
        function: Any = partial(_call_back, traced=traced)
    else:
        function = _partitioned(traced, ctx, platform)
    return mlir.lower_fun(function, multiple_results=True)(ctx, *operands)


def _refuse(_: Any, *operands: Any, traced: Traced) -> None:
    raise NotImplementedError(f"{traced.op}: gpugrad computes on CPUs and NVIDIA GPUs alone")


dispatch.prim_requires_devices_during_lowering.add(primitive)  # as custom_partitioning does
mlir.register_lowering(primitive, _refuse)
for _platform in TARGETS:
    mlir.register_lowering(primitive, partial(_lower, platform=_platform), platform=_platform)


# ---- several devices


def factors(traced: Traced, operands: Sequence[Any]) -> list[tuple[str, ...]]:
    """Name the dimensions of every operand and result: k, m, and letters for the rows' own."""
    rows = OPERATIONS[traced.op].rows  # or any shape, all of one
    rank = next(
        len(one.shape)
        for name, one in zip(traced.names, operands, strict=True)
        if "n" in DIMENSIONS[name]
    )
    lead = tuple(letter for letter in string.ascii_letters if letter not in "km")[: rank - rows]
    return [
        (*(lead if DIMENSIONS[name][0] == "n" else ()), *DIMENSIONS[name].strip("n"))
        if rows
        else lead
        for name in (*traced.names, *traced.results)
    ]


def _partitioned(traced: Traced, ctx: Any, platform: str) -> Any:
    """Return the call as XLA's partitioner takes it: rows and columns may be on any device.

    What the partitioner compiles has no callbacks of its own: it names one of the whole module's.
    """
    count = len(traced.names)

    def callback(context: Any, *buffers: Any) -> tuple[()]:
        fill(traced, context, buffers[count:], buffers[:count])
        return ()

    ctx.module_context.add_host_callback(callback)
    index = np.uint64(len(ctx.module_context.host_callbacks) - 1)

    def call(*operands: Any) -> list[Any]:
        types = types_of_results(traced, *operands)
        results: list[Any] = jax.ffi.ffi_call(TARGETS[platform], types)(*operands, index=index)
        return results

    def partition(mesh: Any, operands: Any, results: Any) -> Any:
        names = factors(traced, operands)
        axes: dict[str, tuple[Any, ...]] = {}  # of the mesh, each for one factor: the first
        for factor, one in zip(names, operands, strict=False):
            for name, axis in zip(factor, one.sharding.spec, strict=False):
                some = axis if isinstance(axis, tuple) else (axis,)
                taken = {None, *itertools.chain(*axes.values())}
                whole = traced.is_forward and name == "k"  # its sum is the sigmoid's argument
                if not (whole or name in axes or taken.intersection(some)):
                    axes[name] = some
        given = names[:count]
        rows = tuple(itertools.chain(*(axes[name] for name in axes if name not in "km")))
        columns = axes.get("m", ())
        over = {"dw": rows, "db": rows, "dx": columns}
        sums = [over.get(name, ()) for name in traced.results]

        def part(*operands: Any) -> tuple[Any, ...]:
            made = call(*operands)
            for every in filter(None, dict.fromkeys(sums)):  # in one order in all processes
                at = [i for i, one in enumerate(sums) if one == every]
                added = jax.lax.psum([made[i] for i in at], every)
                for i, one in zip(at, added, strict=True):
                    made[i] = one
            return tuple(made)

        def sharding(factor: tuple[str, ...]) -> Any:
            return NamedSharding(mesh, PartitionSpec(*map(axes.get, factor)))

        return (
            mesh,
            part,
            tuple(map(sharding, names[count:])),
            tuple(map(sharding, given)),
        )

    def rule(mesh: Any, operands: Any, results: Any) -> Any:
        names = [" ".join(one) for one in factors(traced, operands)]
        text = f"{', '.join(names[:count])} -> {', '.join(names[count:])}"
        whole = ("k",) if traced.op == "dense_sigmoid" else ()
        return text, {"need_replication_factors": whole}

    function = custom_partitioning(lambda *operands: tuple(call(*operands)))
    function.def_partition(partition=partition, sharding_rule=rule)
    return function
