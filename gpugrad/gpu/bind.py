"""From a plan to a function that runs it on a GPU, and what that needs of the GPU.

CuPy provides the runtime; the tests provide one that emulates kernels.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from gpugrad.gpu.launches import Program, program_of, ref_of
from gpugrad.operations import OPERATIONS
from gpugrad.planning.gpu_costs import DeviceFacts
from gpugrad.planning.problem import Plan


class Runtime(Protocol):
    """A GPU: arrays, copies and bound programs."""

    def facts(self, device: int | None) -> DeviceFacts:
        """Return the facts of a device; of the current one if None."""

    def bind(self, program: Program, arrays: int) -> Callable[[Sequence[Any]], None]:
        """Compile and load a program's kernels; return a function of its arrays that runs it."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array on the current device."""

    def to_device(self, array: Any) -> Any:
        """Copy a NumPy array to the current device."""

    def to_host(self, array: Any, out: Any) -> None:
        """Copy a device array into a NumPy array of the same shape and dtype."""


def bind(
    runtime: Runtime,
    plan: Plan,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    accumulate: Collection[str] = (),
) -> Callable[[], None]:
    """Return a function that computes a call on arrays of the device; see `program_of`."""
    arrays = [one for one in (*inputs.values(), *outputs.values()) if one is not None]
    indices = iter(range(len(arrays)))

    def refs(named: Mapping[str, Any]) -> dict[str, Any]:
        return {k: None if one is None else ref_of(next(indices), one) for k, one in named.items()}

    sm_count = runtime.facts(None).sm_count
    program = program_of(plan, refs(inputs), refs(outputs), accumulate, sm_count)
    return partial(runtime.bind(program, len(arrays)), arrays)


def bind_to_host(runtime: Runtime, plan: Plan, accumulate: Collection[str]) -> Callable[..., None]:
    """Return a function that computes a call on NumPy arrays on a GPU, with both transfers.

    It takes all arguments of the operation and all its results; None for those not wanted.
    """
    operation = OPERATIONS[plan.op]

    def compute(*arrays: Any) -> None:
        count = len(operation.arguments)
        inputs = {
            name: None if one is None else runtime.to_device(one)
            for name, one in zip(operation.arguments, arrays[:count], strict=True)
        }
        targets = {
            name: one
            for name, one in zip(operation.results, arrays[count:], strict=True)
            if one is not None
        }
        outputs = {
            name: runtime.to_device(one)
            if name in accumulate
            else runtime.empty(one.shape, one.dtype)
            for name, one in targets.items()
        }
        bind(runtime, plan, inputs, outputs, accumulate)()
        for name, one in targets.items():
            runtime.to_host(outputs[name], one)

    return compute
