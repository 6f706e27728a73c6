"""The choice of the device of a call, and `plan`, which returns it."""

import functools
import math
import os
from typing import TYPE_CHECKING, Any

from gpugrad.arrays.call import Call
from gpugrad.errors import ArgumentError, DeviceError
from gpugrad.operations import OPERATIONS
from gpugrad.planning.problem import Plan

if TYPE_CHECKING:
    from gpugrad.gpu.bind import Runtime
    from gpugrad.planning.gpu_costs import DeviceFacts
    from gpugrad.planning.problem import Problem

DEVICES = ("auto", "cpu", "gpu")


def problem_of(call: Call, wrt: tuple[str, ...] = ()) -> "Problem":
    """Return the `Problem` of a checked call."""
    from gpugrad.planning.problem import Problem

    arrays, op, dtype = call.arrays, call.op, call.dtype.name
    operation = OPERATIONS[op]
    lead = next(arrays[name] for name in ("x", "dy", "z") if name in arrays)
    if not operation.rows:
        return Problem(op, 1, 0, math.prod(lead.shape), dtype, reads=operation.reads)
    n = math.prod(lead.shape[:-1])
    k, m = arrays["w"].shape if "w" in arrays else (0, lead.shape[-1])
    return Problem(op, n, k, m, dtype, wrt, operation.reads)


def decide(
    call: Call, problem: "Problem", device: str, precision: str, *, predict: bool = False
) -> Plan:
    """Choose the device of a call, then its algorithm.

    Arrays on a GPU are computed there. Arrays in host memory are computed on an explicit `device`,
    or else on that of the environment variable GPUGRAD_DEVICE, or else where the predicted time is
    shorter. Times are predicted if there is a choice or if `predict` is True.
    """
    from gpugrad.planning.choice import choose, gpu_seconds

    source = "device"
    if not isinstance(device, str) or device not in DEVICES:
        call.fail(ArgumentError, f"device is {device!r}, expected one of {', '.join(DEVICES)}")
    if call.device != "cpu":
        if device == "cpu":
            names = ", ".join(call.arrays)
            call.fail(DeviceError, f"device is 'cpu', but {names} are on {call.device}")
        facts = _facts(int(call.device[4:]))
        on_gpu = gpu_seconds(problem, precision, facts, from_host=False) if predict else None
        reason = f"the arrays are on {call.device}"
        return choose(problem, "gpu", precision, reason, on_gpu, facts)
    if device == "auto" and os.environ.get("GPUGRAD_DEVICE"):
        device, source = os.environ["GPUGRAD_DEVICE"], "GPUGRAD_DEVICE"
        if device not in DEVICES:
            call.fail(
                ArgumentError, f"GPUGRAD_DEVICE is {device!r}, expected one of {', '.join(DEVICES)}"
            )
    on_cpu = _cpu_seconds(call, problem) if predict else None
    if device == "cpu":
        return choose(problem, "cpu", precision, f"{source} is 'cpu'", on_cpu)
    missing = gpu_missing()
    if missing is not None:
        if device == "gpu":
            call.fail(DeviceError, f"{source} is 'gpu', but {missing}")
        return choose(problem, "cpu", precision, f"no GPU can be used: {missing}", on_cpu)
    facts = _facts(None)
    if device == "gpu":
        on_gpu = gpu_seconds(problem, precision, facts, from_host=True) if predict else None
        reason = f"{source} is 'gpu'"
        return choose(problem, "gpu", precision, reason, on_gpu, facts, other_seconds=on_cpu)
    on_cpu = _cpu_seconds(call, problem) if on_cpu is None else on_cpu
    on_gpu = gpu_seconds(problem, precision, facts, from_host=True)
    reason = f"predicted {on_cpu:.2g} s on the CPU, {on_gpu:.2g} s on {facts.name} with transfers"
    need = 3 * (problem.bytes_in + problem.bytes_out)  # with the workspace: planes, partial sums
    if need > facts.memory:
        reason = f"it needs about {need:.2g} bytes, the GPU has {facts.memory:.2g}"
    elif on_gpu < on_cpu:
        return choose(problem, "gpu", precision, reason, on_gpu, facts, other_seconds=on_cpu)
    return choose(problem, "cpu", precision, reason, on_cpu, other_seconds=on_gpu)


def _cpu_seconds(call: Call, problem: "Problem") -> float:
    """Predict the time of a call on the CPU, by this machine's profile if there is one."""
    from gpugrad.cpu.threads import number_of_workers
    from gpugrad.planning import machine_profile
    from gpugrad.planning.cpu_costs import cpu_seconds

    workers = number_of_workers()
    from_logits = "z" in call.arrays and problem.computes_dz
    rates = machine_profile.cpu_rates(workers)
    return cpu_seconds(problem, rates, workers, from_logits=from_logits)


def _facts(device: int | None) -> "DeviceFacts":
    """Return the facts of a GPU, by default the current one, with the rates of the profile."""
    from gpugrad.planning import machine_profile

    return machine_profile.with_rates(runtime().facts(device))


def plan(
    op: str, *operands: Any, device: str = "auto", precision: str = "highest", **options: Any
) -> Plan:
    """Return the plan of a call without computing it.

    Parameters
    ----------
    op : str
        Name of a function of this package, such as ``"dense_sigmoid_backward"``.
    *operands : array
        Its array arguments, in order. Only shapes, dtypes and devices count:
        ``np.broadcast_to(np.float32(0), (10**6, 64))`` stands for a large array at no cost.
    device : {"auto", "cpu", "gpu"}
    precision : {"highest", "high", "medium", "ieee"}
    **options
        ``z`` and ``wrt``, as for the function.

    Returns
    -------
    Plan
        Device, algorithm, predicted seconds on the CPU and on the GPU, and the reason. Predictions
        use the rates that ``gpugrad tune`` measured on this machine, or default rates.

    Raises
    ------
    ArgumentError
        `op` is no function of this package, or it has no such option.
    ShapeError, DTypeError, DeviceError
        As the function itself would.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> dy = np.broadcast_to(np.float32(0), (10**6, 64))
    >>> plan = gpugrad.plan("bias_backward", dy, device="cpu")
    >>> plan.algorithm, plan.reason
    ('numpy', "device is 'cpu'")
    >>> 0 < plan.predicted_seconds < 1
    True
    """
    if not isinstance(op, str) or op not in OPERATIONS:
        raise ArgumentError(f"plan: op is {op!r}, expected one of {', '.join(OPERATIONS)}")
    operation = OPERATIONS[op]
    names = operation.operands
    if not len(names) - len(operation.optional) <= len(operands) <= len(names):
        raise ArgumentError(f"plan: {op} takes the arrays {', '.join(names)}, not {len(operands)}")
    choices = operation.wrt
    wrt = options.pop("wrt", choices)
    z = options.pop("z", None) if operation.takes_z else None
    if options or (wrt and not choices):
        unknown = ", ".join([*options, *(["wrt"] if wrt and not choices else [])])
        raise ArgumentError(f"plan: {op} has no option {unknown}")
    named: dict[str, Any] = dict(zip(names, operands, strict=False))
    if z is not None:
        named["z"] = z
    with Call(op, **named) as call:
        call.expect_operands()
        call.expect_precision(precision)
        problem = problem_of(call, call.expect_wrt(wrt, choices))
        return decide(call, problem, device, precision, predict=True)


def gpu_missing() -> str | None:
    """Return why no GPU can be used, or None if one can; checked once per process."""
    return _gpu_missing(os.getpid())


@functools.cache
def _gpu_missing(process: int) -> str | None:
    """Check once per process: a CUDA context does not survive a fork."""
    from gpugrad.gpu.availability import missing

    return missing()


@functools.cache
def runtime() -> "Runtime":
    """Return the GPU runtime; requires a usable GPU, or arrays on one."""
    from gpugrad.gpu.cupy_runtime import CupyRuntime

    return CupyRuntime()
