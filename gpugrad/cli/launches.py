"""The launches of a call on a GPU as text; needs no GPU."""

from typing import Any

from gpugrad import dispatch
from gpugrad.gpu.launches import new_ref, program_of
from gpugrad.operations import OPERATIONS, shape_of
from gpugrad.planning.choice import choose
from gpugrad.planning.gpu_costs import DeviceFacts
from gpugrad.planning.problem import Problem
from gpugrad.testing import operations

H200 = DeviceFacts("H200", (9, 0), 132, 1.98e9, 4.8e12, 141 << 30)  # NVIDIA's data sheet


def launches(op: str, size: operations.Size, dtype: str, precision: str) -> dict[str, Any]:
    """Return the launches of a call on contiguous arrays; for an H200 if there is no GPU."""
    operation = OPERATIONS[op]
    facts, where = H200, "as on an H200, because there is no GPU here"
    if dispatch.gpu_missing() is None:
        facts = dispatch.runtime().facts(None)
        where = f"on {facts.name}"
    n, k, m = size if operation.rows else (1, 0, size[0] * size[2])
    problem = Problem(op, n, k, m, dtype, operation.wrt, operation.reads)
    plan = choose(problem, "gpu", precision, where, None, facts)
    names = (*operation.operands, *operation.results)
    kind = operations.dtype_of(dtype)
    refs = {
        name: new_ref(index, shape_of(name, size), kind, "C") for index, name in enumerate(names)
    }
    program = program_of(
        plan,
        {name: refs.get(name) for name in operation.arguments},
        {name: refs[name] for name in operation.results},
        (),
        facts.sm_count,
    )
    return {
        "op": op,
        "size": list(size),
        "dtype": dtype,
        "precision": precision,
        "reason": plan.reason,
        "steps": [str(step) for step in program.steps],
        "workspace_bytes": program.offsets[-1],
    }
