"""Products by the algorithm that is asked for, whatever the plan would predict."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

Candidate = tuple[str, int]  # algorithm and planes


def products_by(
    take: Callable[[Sequence[Candidate]], Candidate], *, fused: bool = False
) -> dict[str, Any]:
    """Return what in gpugrad.planning.choice must be exchanged to take one of the candidates.

    Neither predicted times nor the length of a sum, which is short in tests, count any more. All
    gradients of a layer come from the fused kernel wherever there is one and the device has
    the shared memory, or nowhere.
    """
    plan = import_module("gpugrad.planning.choice")

    def chosen(problem: Any, precision: str, facts: Any) -> Any:
        algorithm, planes = take(plan.candidates(problem, precision, facts.compute_capability))
        return plan.Choice(algorithm, planes, 1e-3, f"products by {algorithm}, as asked")

    def layer(problem: Any, algorithm: str, facts: Any) -> Any:
        found = plan.fused_layer(problem, algorithm) if fused else None
        limit = plan.rates_of(facts.compute_capability).shared_kb << 10
        return found if found is not None and found.configuration.shared_bytes <= limit else None

    return {
        "fastest": chosen,
        "EXACT_TERMS": 0,
        "RECOVERED_TERMS": 0,
        "fused_path": layer,
    }


def by_multiply_adds(candidates: Sequence[Candidate]) -> Candidate:
    """Take FFMA."""
    return candidates[0]


def fused_path(candidates: Sequence[Candidate]) -> Candidate:
    """Take what has a kernel for a whole layer: FFMA, tensor cores of 16-bit matrices."""
    return ("mma", 1) if candidates[1:] in ((("mma", 1),), (("wgmma", 1),)) else candidates[0]


def fused_path_from_planes(candidates: Sequence[Candidate]) -> Candidate:
    """Take three planes of float32, where a layer has few outputs; else as `fused_path`."""
    exact = [one for one in candidates if one[1] == 3]
    return ("mma", 3) if exact else fused_path(candidates)


def on_tensor_cores(candidates: Sequence[Candidate]) -> Candidate:
    """Take tensor cores with the fewest planes."""
    return candidates[min(1, len(candidates) - 1)]


def by_mma(candidates: Sequence[Candidate]) -> Candidate:
    """Take what devices have that have no wgmma."""
    algorithm, planes = on_tensor_cores(candidates)
    return "mma" if algorithm == "wgmma" else algorithm, planes
