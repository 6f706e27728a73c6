"""The program that compute-sanitizer watches: small calls of every operation and dtype."""

import argparse
import itertools
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import gpugrad
from bench.section import write_json
from bench.workload import as_device
from gpugrad._kinds import DTYPES
from gpugrad._operations import OPERATIONS
from gpugrad.cli import operations
from tests.algorithms import (
    in_one_launch,
    in_one_launch_from_planes,
    on_tensor_cores,
    products_by,
)

plan = import_module("gpugrad.plan")  # gpugrad.plan is a function
SIZES = (
    (65, 17, 129),  # edges in every dimension
    (64, 32, 128),  # whole packs of 16 bytes
    (1031, 2, 3),  # the batch is split
)
LARGE_TILES = ((12161, 3, 2), (3, 12161, 2))  # enough of them for the larger tiles
PRODUCTS = ("matmul_backward", "dense_sigmoid_backward", "dense_sigmoid")
ACCUMULATING = ("matmul_backward", "bias_backward", "sigmoid_bias_backward", PRODUCTS[1])


class Call(NamedTuple):
    """One call: from logits or the sigmoid's result, into new arrays or added to old ones.

    With a precision its products are on tensor cores, where there are any for it; without, they are
    multiply-adds.
    """

    op: str
    dtype: str
    size: tuple[int, int, int]
    from_z: bool
    accumulate: bool
    precision: str = ""
    one_launch: str = ""  # for all gradients of a layer: the algorithm


def calls(*, quick: bool) -> list[Call]:
    """List the calls."""
    result: list[Call] = []
    for op, dtype in itertools.product(OPERATIONS, ("float32",) if quick else DTYPES):
        sizes: tuple[tuple[int, int, int], ...] = SIZES[:1] if quick else SIZES
        if op in PRODUCTS and dtype == "float32" and not quick:
            sizes += LARGE_TILES
        for size in sizes:
            for from_z in (False, True) if operations.takes_z(op) else (False,):
                adding = (False, True) if op in ACCUMULATING else (False,)
                result += [Call(op, dtype, size, from_z, accumulate) for accumulate in adding]
                result += [
                    Call(op, dtype, size, from_z, op in ACCUMULATING, precision)
                    for precision in precisions(op, dtype)
                ]
                if op == "dense_sigmoid_backward":
                    call = Call(op, dtype, size, from_z, accumulate=from_z, precision="highest")
                    ways = [algorithm for one, algorithm in plan.FUSED if one == dtype]
                    result += [call._replace(one_launch=one) for one in ways]
    return result


def precisions(op: str, dtype: str) -> tuple[str, ...]:
    """List the classes that tensor cores compute differently."""
    if op not in PRODUCTS:
        return ()
    return ("highest", "high", "medium") if dtype == "float32" else ("highest",)


def make(call: Call) -> None:
    """Make one call on device arrays that are allocations of their own."""
    import cupy

    dtype = operations.dtype_of(call.dtype)
    host = operations.arrays(call.op, call.size, dtype, seed=0, from_z=call.from_z)
    device: dict[str, Any] = {name: as_device(array) for name, array in host.items()}
    options: dict[str, Any] = {}
    if "z" in device and "z" not in OPERATIONS[call.op].operands:
        options["z"] = device["z"]
    if call.op in PRODUCTS:
        options["precision"] = call.precision or "ieee"
    if call.accumulate:
        shapes = operations.result_shapes(call.op, call.size)
        buffers = tuple(as_device(np.ones(shape, dtype)) for shape in shapes.values())
        options |= {"out": buffers if len(buffers) > 1 else buffers[0], "accumulate": True}
    take = {"": on_tensor_cores, "ffma": in_one_launch, "mma": in_one_launch_from_planes}
    exchanged = products_by(take[call.one_launch], one_launch=bool(call.one_launch))
    with mock.patch.multiple(plan, **exchanged):
        getattr(gpugrad, call.op)(
            *(device.get(name) for name in OPERATIONS[call.op].operands), **options
        )
    cupy.cuda.get_current_stream().synchronize()


def main() -> None:
    """Make all calls, counting them in a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="float32 and one size alone")
    parser.add_argument("--progress", type=Path, required=True, help="where to count")
    arguments = parser.parse_args()
    import cupy

    cupy.cuda.set_allocator(None)  # no pool: its neighbours would hide what leaves an array
    for done, call in enumerate(calls(quick=arguments.quick), start=1):
        print(*call, flush=True)
        make(call)
        write_json(arguments.progress, {"done": done})


if __name__ == "__main__":
    main()
