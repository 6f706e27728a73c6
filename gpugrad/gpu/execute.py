"""One operation on the GPU: bring what is on the host, launch, bring the results back."""

import importlib
from typing import Any

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

    Arrays that are on the host are copied to the device, and the results back.

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
    operation = importlib.import_module(f"gpugrad.gpu.{plan.op}")
    function = getattr(operation, plan.op)
    if not from_host:
        function(runtime, plan, **inputs, **outputs, accumulate=accumulate)
        return
    near = {
        name: None if array is None else runtime.to_device(array) for name, array in inputs.items()
    }
    results = {
        name: runtime.to_device(array)
        if name in accumulate
        else runtime.empty(array.shape, array.dtype)
        for name, array in outputs.items()
    }
    function(runtime, plan, **near, **results, accumulate=accumulate)
    for name, array in outputs.items():
        runtime.to_host(results[name], array)
