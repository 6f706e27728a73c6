"""The program that compute-sanitizer watches: small calls that launch every instantiation."""

import argparse
import contextlib
import itertools
import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import gpugrad
from bench.section import write_json
from bench.workload import as_device
from gpugrad import dispatch
from gpugrad.arrays.kinds import DTYPES
from gpugrad.calls import cache
from gpugrad.gpu import compiler
from gpugrad.operations import OPERATIONS
from gpugrad.planning import configurations, tiles
from gpugrad.planning.instantiations import exists_for
from gpugrad.testing import operations
from gpugrad.testing.algorithms import products_by

plan = import_module("gpugrad.planning.choice")
SMALL_TILE = configurations.FFMA["float32"][0].BLOCK_N
SIZES = (
    (65, 17, 129),  # edges in every dimension
    (64, 32, 128),  # whole packs of 16 bytes
    (1031, 2, 3),  # the batch is split
)
PRODUCTS = tuple(op for op, one in OPERATIONS.items() if one.products)
HALVES = ("float16", "bfloat16")
ORDERS = {  # operands that are transposed in memory: each of a product's two, and both
    "matmul_backward": ((), ("dy",), ("x", "w"), ("dy", "x", "w")),
    "dense_sigmoid": ((), ("x",), ("w",), ("x", "w")),
}
PLANES = {"float32": (3, 2, 1), "float16": (1,), "bfloat16": (1,), "float64": (0,)}


class Call(NamedTuple):
    """One call: from logits or the sigmoid's result, into new arrays or added to old ones."""

    op: str
    dtype: str
    size: tuple[int, int, int]
    from_z: bool = False
    accumulate: bool = False
    wide_sums: bool = False  # dw and db in float32
    algorithm: str = "ffma"  # of its products
    planes: int = 0
    tile: int = SMALL_TILE
    transposed: tuple[str, ...] = ()  # operands
    fused: bool = False  # for all gradients of a layer


def calls(capability: tuple[int, int], *, quick: bool) -> list[Call]:
    """List the calls on a device: with `quick` those of float32, of one size and small tiles."""
    every = [*by_multiply_adds(), *on_tensor_cores(capability), *fused_path(capability)]
    if quick:
        wanted = ("float32", SIZES[0], SMALL_TILE)
        every = [one for one in every if (one.dtype, one.size, one.tile) == wanted]
    return list(dict.fromkeys(every))


def by_multiply_adds() -> Iterator[Call]:
    """List calls without tensor cores: every size, then what else there are kernels for."""
    for op, dtype in itertools.product(OPERATIONS, DTYPES):
        adds = OPERATIONS[op].accumulates
        for from_z in (False, True) if OPERATIONS[op].takes_z else (False,):
            for size, accumulate in itertools.product(SIZES, (False, True) if adds else (False,)):
                yield Call(op, dtype, size, from_z, accumulate)
            widths = configurations.FFMA[dtype] if op in PRODUCTS else ()
            for tile in [one.BLOCK_N for one in widths] or [SMALL_TILE]:
                for wide in (False, True) if adds and dtype in HALVES else (False,):
                    size = SIZES[2 * wide]  # of sums that are split
                    yield Call(op, dtype, size, from_z, adds, wide, tile=tile)


def on_tensor_cores(capability: tuple[int, int]) -> Iterator[Call]:
    """List calls with every kernel of products; sizes go round."""
    sizes = itertools.cycle(SIZES)
    for dtype, algorithm in itertools.product(DTYPES, ("mma", "wgmma", "dmma")):
        if (algorithm == "dmma") != (dtype == "float64"):
            continue
        for op, planes in itertools.product(PRODUCTS, PLANES[dtype]):
            if not available(f"matmul_backward_{algorithm}", capability):
                continue
            if op == "dense_sigmoid_backward":  # whose products are those of matmul_backward
                for from_z, size in itertools.product((False, True), SIZES):
                    yield Call(op, dtype, size, from_z, from_z, False, algorithm, planes)
                continue
            widths = [one.BLOCK_N for one in configurations.tiles(algorithm, dtype, planes)]
            adds = op == "matmul_backward"
            for tile, order in itertools.product(widths, ORDERS[op]):
                for wide in (False, True) if adds and dtype in HALVES else (False,):
                    how = (wide, algorithm, planes, tile, order)
                    yield Call(op, dtype, next(sizes), False, adds, *how)


def fused_path(capability: tuple[int, int]) -> Iterator[Call]:
    """List calls of the kernels for a whole layer."""
    op = "dense_sigmoid_backward"
    for (dtype, algorithm), size, from_z in itertools.product(
        configurations.FUSED, SIZES, (False, True)
    ):
        if available(f"{op}_fused_{algorithm}", capability):
            planes = PLANES[dtype][0] if algorithm == "mma" else 0
            call = Call(op, dtype, size, from_z, from_z, False, algorithm, planes)
            yield call._replace(fused=True)


def available(stem: str, capability: tuple[int, int]) -> bool:
    """Return whether a kernel is compiled for devices of a compute capability."""
    return exists_for(stem, compiler.architecture(stem, "{}{}".format(*capability)))


def make(call: Call) -> None:
    """Make one call on device arrays that are allocations of their own."""
    dtype = operations.dtype_of(call.dtype)
    host = operations.random_operands(call.op, call.size, dtype, seed=0, from_z=call.from_z)
    device: dict[str, Any] = {
        name: as_device(array.T).T if name in call.transposed else as_device(array)
        for name, array in host.items()
    }
    options: dict[str, Any] = {}
    if "z" in device and "z" not in OPERATIONS[call.op].operands:
        options["z"] = device["z"]
    if call.accumulate:
        shapes = operations.result_shapes(call.op, call.size)
        buffers = tuple(
            as_device(np.ones(shape, "f4" if call.wide_sums and name in ("dw", "db") else dtype))
            for name, shape in shapes.items()
        )
        options |= {"out": buffers if len(buffers) > 1 else buffers[0], "accumulate": True}
    cache.clear()  # a call like one before would be by the algorithm of that one
    with planned(call):
        getattr(gpugrad, call.op)(
            *(device.get(name) for name in OPERATIONS[call.op].operands), **options
        )


@contextlib.contextmanager
def planned(call: Call) -> Iterator[None]:
    """Have products planned with the algorithm and the tile of a call."""
    choice = products_by(lambda _: (call.algorithm, call.planes), fused=call.fused)
    from_ = 1 if call.tile > SMALL_TILE else math.inf
    of_planes = configurations.WGMMA.get(call.planes, ())
    only = {call.planes: tuple(one for one in of_planes if call.tile == one.BLOCK_N)}
    with (
        mock.patch.multiple(plan, **choice),
        mock.patch.multiple(tiles, MIN_LARGE_TILES=from_, MAX_LARGE_TILE_PADDING=math.inf),
        mock.patch.object(configurations, "WGMMA", only),
    ):
        yield


def main() -> None:
    """Make all calls, counting them in a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="float32 and one size alone")
    parser.add_argument("--progress", type=Path, required=True, help="where to count")
    arguments = parser.parse_args()
    import cupy

    cupy.cuda.set_allocator(None)  # no pool: its neighbours would hide what leaves an array
    capability = dispatch.runtime().facts(None).compute_capability
    wanted = calls(capability, quick=arguments.quick)
    for done, call in enumerate(wanted):
        write_json(arguments.progress, {"done": done, "planned": len(wanted)})
        print(*call, flush=True)
        make(call)
        cupy.cuda.get_current_stream().synchronize()
    write_json(arguments.progress, {"done": len(wanted), "planned": len(wanted)})


if __name__ == "__main__":
    main()
