"""The GPU runtime for tests without a GPU: NumPy arrays, and kernels on the emulator."""

import functools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpugrad.arrays.view import whole_elements
from gpugrad.gpu import bind, launches, source
from gpugrad.gpu.launches import ArrayRef, Copy, Launch, Program
from gpugrad.operations import OPERATIONS
from gpugrad.planning.gpu_costs import DeviceFacts
from gpugrad.planning.problem import Plan
from tests.emulator import Module, TensorMap, uninitialised

BLANK = bytes(128)  # a tensor map of nothing
FACTS = DeviceFacts(
    name="emulator",
    compute_capability=(9, 0),
    sm_count=132,
    clock_hz=1.98e9,
    bandwidth=4.8e12,
    memory=141 << 30,
)


class EmulatorRuntime:
    """Runs the kernels under the checker, with everything else as on a GPU.

    Parameters
    ----------
    schedule : {"ascending", "descending", "random"}
        The order in which threads run between barriers.
    kernels : Path, optional
        The folder of the kernels; without it, that of the package.
    arithmetic : {"exact", "hopper", "ampere"}
        How tensor cores round.
    """

    def __init__(
        self,
        schedule: str = "ascending",
        kernels: Path | None = None,
        arithmetic: str = "exact",
    ) -> None:
        self.schedule = schedule
        self.kernels = kernels or source.directory()
        self.arithmetic = arithmetic

    def facts(self, device: int | None) -> DeviceFacts:
        return FACTS

    def bind(self, program: Program, arrays: int) -> Callable[[Sequence[Any]], None]:
        """Return what runs a program; each part of the workspace is memory of its own."""

        def run(given: Sequence[Any]) -> None:
            parts = [uninitialised(one.shape, one.dtype) for one in program.parts]

            def array(ref: ArrayRef) -> Any:
                base = given[ref.index] if ref.index >= 0 else parts[~ref.index]
                if (base.shape, base.strides) == (ref.shape, ref.strides):
                    return base
                return np.lib.stride_tricks.as_strided(base, ref.shape, ref.strides)

            def argument(one: Any) -> Any:
                if isinstance(one, ArrayRef):
                    return array(one)
                if not isinstance(one, launches.TensorMap):
                    return one
                return (
                    TensorMap(array(one.array), one.box, one.swizzle) if one.array.size else BLANK
                )

            for step in program.steps:
                if isinstance(step, Launch):
                    self.launch(step, tuple(map(argument, step.args)))
                elif isinstance(step, Copy):
                    array(step.target)[...] = array(step.source)
                else:
                    array(step.target).fill(0)

        return run

    def launch(self, step: Launch, args: tuple[Any, ...]) -> None:
        """Launch a kernel on NumPy arrays."""
        kernel = module(self.path(step.stem), step.macros).get_function(step.function)
        kernel(
            step.grid,
            step.block,
            args,
            shared_mem=step.shared_bytes,
            policy=self.schedule,
            arithmetic=self.arithmetic,
        )

    def path(self, stem: str) -> Path:
        """Find the kernel file."""
        return self.kernels / f"{stem}.cu"

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return uninitialised(shape, dtype)

    def to_device(self, array: Any) -> Any:
        """Return the array itself, for its strides and alignment are what a test wants to see.

        Only what no copy to a device could be, an array within others' elements, is copied.
        """
        return array if whole_elements(array) else array.copy(order="C")

    def to_host(self, array: Any, out: Any) -> None:
        out[...] = array


@functools.cache
def module(path: Path, defines: tuple[str, ...]) -> Module:
    return Module(path, defines=defines)


def bind_in_place(
    runtime: EmulatorRuntime, plan: Plan, accumulate: Collection[str]
) -> Callable[..., None]:
    """Let kernels write buffers on the host where they are, in the place of `bind_to_host`."""
    operation = OPERATIONS[plan.op]

    def compute(*arrays: Any) -> None:
        count = len(operation.arguments)
        inputs = dict(zip(operation.arguments, arrays[:count], strict=True))
        results = zip(operation.results, arrays[count:], strict=True)
        outputs = {name: one for name, one in results if one is not None}
        bind.bind(runtime, plan, inputs, outputs, accumulate)()

    return compute
