"""Errors of every operation and dtype against a more precise reference, beside cuBLAS's.

Before that, those of matrix products in every precision class: bench/products.py.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench import products, section, workload
from bench.sticky_errors import is_sticky
from gpugrad.arrays.kinds import DTYPES
from gpugrad.benchmark.peers import cupy_cublas, pytorch
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations, random_operands, reference, worst_element
from gpugrad.testing.bounds import FORMATS, Answer
from gpugrad.testing.product_data import SATURATED
from gpugrad.testing.product_errors import Errors, by_component

SIZES = ((257, 131, 67), (1031, 2, 3), (2048, 96, 128))
LONG = (16384, 96, 128)  # a long batch; not in float64, whose reference takes no BLAS
DATA = ("ordinary", "saturated", "graded")
GRADES = 6  # graded entries are multiplied by powers of two up to this one
PRODUCTS_SHARE = 0.4  # of the section's time, at most

Array = np.ndarray[Any, Any]


@dataclass
class Finding:
    """What was found of an operation in a dtype: err/bound, and by library its scaled errors."""

    op: str
    dtype: str
    ratio: float = 0.0
    where: str = ""
    errors: dict[str, list[Array]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the finding for JSON."""
        found = {name: Errors(one) for name, one in self.errors.items()}
        errors = {name: {"largest": one.largest, "rms": one.rms} for name, one in found.items()}
        return {**vars(self), "ok": self.ratio <= 1, "errors": errors}


def work(section_: section.Section) -> None:
    """Compare products in every precision class, then every operation in every dtype."""
    products_left_out = products.compare(section_, PRODUCTS_SHARE)
    found: list[dict[str, Any]] = []
    section_.data["findings"] = found
    pairs = [(op, dtype) for dtype in DTYPES for op in OPERATIONS]
    left_out = 0
    for op, dtype in pairs:
        if section_.left() < 1:
            left_out += 1
            continue
        section_.begin(f"{op} {dtype}")
        try:
            finding = compare(op, dtype, quick=section_.quick)
        except Exception as error:
            section_.failed(f"{op} {dtype}", error)
            continue
        found.append(finding.document())
        if not finding.ratio <= 1:
            what = f"{op} {dtype}: {finding.where} is {finding.ratio:.3g} times its bound away"
            section_.failures.append(what)
        section_.summary = summarize(found)
        section_.save()
    unfinished = [f"{left_out} of {len(pairs)}"] * (left_out > 0)
    unfinished += [f"{products_left_out} products"] * (products_left_out > 0)
    if unfinished:
        section_.unfinished = f"no time for {' and '.join(unfinished)}"


def summarize(found: list[dict[str, Any]]) -> str:
    """Return a line on how many were right and how near to its bound the worst one was."""
    worst = max(found, key=lambda one: float(one["ratio"]))
    right = sum(one["ok"] for one in found)
    return (
        f"{right} of {len(found)} within bounds, "
        f"worst {worst['ratio']:.2f} of its bound ({worst['op']} {worst['dtype']})"
    )


def compare(op: str, dtype: str, *, quick: bool) -> Finding:
    """Compute an operation on data of all kinds and keep the worst errors."""
    finding = Finding(op, dtype)
    others = competitors()
    sizes = SIZES[:1] if quick else SIZES if dtype == "float64" else (*SIZES, LONG)
    with_z = (False, True) if OPERATIONS[op].takes_z and not quick else (False,)
    for size, kind, from_z in itertools.product(sizes, DATA, with_z):
        operands = draw(op, size, dtype, kind, from_z)
        _compare(finding, operands, kind, {} if from_z else others)
    return finding


def competitors() -> dict[str, Callable[[str, Any], Any]]:
    """Return the libraries whose errors are shown beside ours, by name."""
    found: dict[str, Callable[[str, Any], Any]] = {"CuPy": cupy_cublas.calls}
    if pytorch.no_gpu() is None:
        found["PyTorch"] = lambda op, sets: pytorch.eager(op, list(map(pytorch.tensors, sets)))
    return found


def draw(op: str, size: operations.Size, dtype: str, kind: str, from_z: bool) -> dict[str, Array]:
    """Make operands in host memory: ordinary, with saturated logits, or of graded magnitudes."""
    spread = SATURATED if kind == "saturated" else 1.0
    operands: dict[str, Array] = random_operands(
        op, size, dtype, seed=1, spread=spread, from_z=from_z
    )
    random = np.random.default_rng(2)
    for name in ("dy", "x", "w") if kind == "graded" else ():
        if name in operands:
            array = operands[name]
            powers = np.exp2(random.integers(-GRADES, GRADES + 1, array.shape))
            operands[name] = (array.astype(np.float64) * powers).astype(array.dtype)
    return operands


def _compare(
    finding: Finding,
    host: dict[str, Any],
    kind: str,
    others: Mapping[str, Callable[[str, Any], Any]],
) -> None:
    import cupy

    op = finding.op
    device = {name: workload.as_device(array) for name, array in host.items()}
    planes = operations.planes(op, device, device="auto")
    answers = reference(op, planes=planes, **host)
    results = operations.call(op, device, device="auto")
    ours = {name: cupy.asnumpy(one) for name, one in results.items()}
    for name, answer in answers.items():
        ratio = worst_element(ours[name], answer).ratio
        if not ratio <= finding.ratio:
            extents = "x".join(str(array.shape) for array in host.values())
            finding.ratio, finding.where = ratio, f"{name} of {kind} {extents}"

    def keep(library: str, found: Mapping[str, Array]) -> None:
        errors = [scaled_errors(found[name], one, finding.dtype) for name, one in answers.items()]
        finding.errors[library] = finding.errors.get(library, []) + errors

    keep("gpugrad from z" if {"dy", "z"} <= host.keys() else "gpugrad", ours)
    for library, calls in others.items():
        try:
            set_ieee(library)
            raw = calls(op, [device])[0]()
            several = raw if isinstance(raw, tuple) else (raw,)
            theirs = {
                name: cupy.asnumpy(workload.as_cupy(one))
                for name, one in zip(OPERATIONS[op].results, several, strict=True)
            }
        except Exception as error:
            if is_sticky(error):
                raise
            finding.left_out[library] = f"{type(error).__name__}: {error}"[:300]
            continue
        keep(library, theirs)


def set_ieee(library: str) -> None:
    """Make a library compute float32 products in IEEE arithmetic."""
    if library == "PyTorch":
        pytorch.set_float32_products("highest")


def scaled_errors(result: Array, answer: Answer, dtype: str) -> Array:
    """Return |result - exact| / (u Σ|terms|) where neither leaves the dtype's range.

    u is the unit roundoff of the result, and the terms are those of the sum that an entry is.
    """
    inside = np.isfinite(answer.exact) & (answer.magnitude < FORMATS[dtype].largest)
    return by_component(result[inside], answer.exact[inside], answer.magnitude[inside], dtype)


if __name__ == "__main__":
    section.main(work)
