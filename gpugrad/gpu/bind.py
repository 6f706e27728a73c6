"""From a plan to what runs it on a device: the operation's program, with its kernels loaded."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from gpugrad.gpu.launches import ArrayRef, Launches, Program, contiguous, ref_of
from gpugrad.gpu.runtime import Runtime
from gpugrad.operations import OPERATIONS
from gpugrad.planning.plan import Plan


def program(
    plan: Plan,
    inputs: Mapping[str, ArrayRef | None],
    outputs: Mapping[str, ArrayRef],
    accumulate: Collection[str],
    sm_count: int,
) -> Program:
    """Compute what an operation launches.

    Parameters
    ----------
    plan : Plan
    inputs : dict
        The operands in the order of the operation's arguments; None for those that are not read.
    outputs : dict
        The results that are wanted.
    accumulate : collection of str
        The results that are added to what is there.
    sm_count : int
        Multiprocessors of the device.
    """
    operation, launches = OPERATIONS[plan.op], Launches(sm_count)

    def rows(name: str, one: ArrayRef, *, read: bool) -> ArrayRef:
        return launches.rows(one, read=read) if operation.is_flattened(name) else one

    near = {
        name: None if one is None else rows(name, one, read=True) for name, one in inputs.items()
    }
    results = {name: rows(name, one, read=name in accumulate) for name, one in outputs.items()}
    compute = getattr(import_module(f"gpugrad.gpu.{plan.op}"), plan.op)
    compute(launches, plan, **near, **results, accumulate=tuple(accumulate))
    for name, one in outputs.items():
        if results[name].place != one.place:
            strides = contiguous(one.shape, one.dtype.itemsize)
            launches.copy(results[name].view(one.shape, strides), one)
    return launches.program()


def bind(
    runtime: Runtime,
    plan: Plan,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    accumulate: Collection[str] = (),
) -> Callable[[], None]:
    """Return what computes a call on arrays of the device; see `program`."""
    arrays = [one for one in (*inputs.values(), *outputs.values()) if one is not None]
    places = iter(range(len(arrays)))

    def refs(named: Mapping[str, Any]) -> dict[str, Any]:
        return {k: None if one is None else ref_of(next(places), one) for k, one in named.items()}

    sm_count = runtime.facts(None).sm_count
    made = program(plan, refs(inputs), refs(outputs), accumulate, sm_count)
    return partial(runtime.bind(made, len(arrays)), arrays)


def bind_to_host(runtime: Runtime, plan: Plan, accumulate: Collection[str]) -> Callable[..., None]:
    """Return what computes a call on the host's arrays on a GPU, with copies there and back.

    It takes all arguments of the operation and all its results, None for what is not wanted.
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
