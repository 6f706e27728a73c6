"""One operation on the GPU: bring what is on the host, launch, bring the results back."""

import importlib
from typing import Any

import numpy as np

from gpugrad.gpu.launch import addressable
from gpugrad.gpu.runtime import Runtime


def execute(
    runtime: Runtime,
    plan: Any,
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    accumulate: tuple[str, ...],
    *,
    from_host: bool,
) -> None:
    """Run an operation's module on device arrays.

    Arrays that are on the host are copied to the device and the results back. Device arrays
    that are not made of whole elements (an address or stride off by some bytes) are copied on
    the device.

    Parameters
    ----------
    runtime : Runtime
    plan : Plan
    inputs, outputs : dict
        Arrays by name; an input may be None.
    accumulate : tuple of str
        Outputs that are added to.
    from_host : bool
        Whether the arrays are NumPy arrays that have to travel.
    """
    near = {
        name: array if array is None else _near(runtime, array, from_host)
        for name, array in inputs.items()
    }
    results = {
        name: _near(runtime, array, from_host)
        if name in accumulate or not from_host
        else runtime.empty(array.shape, array.dtype)
        for name, array in outputs.items()
    }
    operation = importlib.import_module(f"gpugrad.gpu.{plan.op}")
    getattr(operation, plan.op)(runtime, plan, **near, **results, accumulate=accumulate)
    for name, array in outputs.items():
        if from_host:
            runtime.to_host(results[name], array)
        elif results[name] is not array:
            array[...] = results[name]


def _near(runtime: Runtime, array: Any, from_host: bool) -> Any:
    if from_host:
        assert isinstance(array, np.ndarray)
        array = runtime.to_device(array)
    return array if addressable(array) else runtime.compact(array)
