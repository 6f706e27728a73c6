"""Products by the algorithm that a test asks for, whatever the plan would predict."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

Candidate = tuple[str, int]  # algorithm and planes


def products_by(take: Callable[[Sequence[Candidate]], Candidate]) -> dict[str, Any]:
    """Give what in gpugrad.plan must be exchanged to take one of the candidates.

    Neither predicted times nor the length of a sum, which is short in tests, count any more.
    """
    plan = import_module("gpugrad.plan")  # gpugrad.plan is a function

    def chosen(problem: Any, precision: str, facts: Any) -> Any:
        algorithm, planes = take(plan.candidates(problem, precision, facts.compute_capability))
        return plan.Choice(algorithm, planes, 1e-3, f"products by {algorithm}, because it is told")

    return {"fastest": chosen, "EXACT_TERMS": 0}


def by_multiply_adds(candidates: Sequence[Candidate]) -> Candidate:
    return candidates[0]


def on_tensor_cores(candidates: Sequence[Candidate]) -> Candidate:
    return candidates[min(1, len(candidates) - 1)]  # with the fewest planes
