"""Errors of float32 products in every precision class beside cuBLAS, on data of many kinds."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np

import gpugrad
from bench import section, workload
from bench.sticky_errors import is_sticky
from gpugrad.benchmark.peers import cupy_cublas, pytorch
from gpugrad.calls import cache
from gpugrad.testing import algorithms
from gpugrad.testing.product_data import FAMILIES, draw
from gpugrad.testing.product_errors import PLANES, ProductErrors, exact

CONTRACTIONS = (1, 16, 256, 4096, 65536)
QUICK_CONTRACTION = 256
OUTER = 64  # rows and columns of a product


@dataclass
class Finding:
    """What was found of products of one kind.

    Attributes
    ----------
    data : str
        The family of operands.
    contraction : int
    errors : dict
        Ours by precision class, and other libraries': "largest" and "rms" by component, "norm"
        the largest in norm, all as gpugrad.testing.product_errors measures them.
    broken : list of str
        Classes that do not keep what they promise.
    left_out : dict
        By library, why it is missing.
    """

    data: str
    contraction: int
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def compare(section_: section.Section, share: float) -> int:
    """Compare products of all kinds in a share of the time; return how many were left out."""
    found: list[dict[str, Any]] = []
    section_.data["products"] = found
    reserved = (1 - share) * section_.left()
    lengths = (QUICK_CONTRACTION,) if section_.quick else CONTRACTIONS
    jobs = [(family, length) for length in lengths for family in FAMILIES]
    for family, length in jobs:
        if section_.left() < reserved:
            break
        finding = Finding(family, length)
        step = f"{family} products of {length} terms"
        section_.begin(step)
        try:
            measure(finding)
        except Exception as error:
            section_.failed(step, error)
        for precision in finding.broken:
            section_.failures.append(f"{precision} breaks its promise: {step}")
        found.append(asdict(finding))
    section_.save()
    return len(jobs) - len(found)


def measure(finding: Finding) -> None:
    """Compute a product in every precision class, and by others."""
    import cupy

    length = finding.contraction
    operands = draw(finding.data, OUTER, OUTER, length, seed=0)
    answer = exact(*operands)
    left, right = (workload.as_device(one) for one in operands)

    def keep(library: str, result: Any) -> ProductErrors:
        errors = ProductErrors([(cupy.asnumpy(workload.as_cupy(result)), answer)], length)
        finding.errors[library] = {
            "largest": errors.components.largest,
            "rms": errors.components.rms,
            "norm": errors.norms.largest,
        }
        return errors

    ieee = keep("ieee", ours(left, right, "ieee"))
    for precision, planes in PLANES.items():
        if not keep(precision, ours(left, right, precision)).keep_promise(planes, ieee):
            finding.broken.append(precision)
    for library, product in competitors().items():
        try:
            keep(library, product(left, right))
        except Exception as error:
            if is_sticky(error):
                raise
            finding.left_out[library] = f"{type(error).__name__}: {error}"[:300]


def ours(left: Any, right: Any, precision: str) -> Any:
    """Compute left rightᵀ as dw, whose contraction is the batch."""
    w = workload.as_device(np.zeros((len(left), len(right)), np.float32))
    with on_tensor_cores():
        found = gpugrad.matmul_backward(right.T, left.T, w, wrt=("w",), precision=precision)
    return found.dw


@contextlib.contextmanager
def on_tensor_cores() -> Iterator[None]:
    """Take tensor cores, with the planes of the class, wherever the device has them, fast or not.

    The plan would take more planes or FFMA where these are faster.
    """
    exchanged = algorithms.products_by(algorithms.on_tensor_cores)
    cache.clear()  # calls that were planned otherwise
    try:
        with mock.patch.multiple(import_module("gpugrad.planning.choice"), **exchanged):
            yield
    finally:
        cache.clear()


def competitors() -> dict[str, Callable[[Any, Any], Any]]:
    """Return the other libraries' products: cuBLAS in float32, and in TF32 through PyTorch."""
    found: dict[str, Callable[[Any, Any], Any]] = {"cuBLAS": cupy_cublas.product}
    if pytorch.no_gpu() is None:
        found["TF32"] = tf32_product
    return found


def tf32_product(left: Any, right: Any) -> Any:
    """Multiply CuPy arrays by PyTorch, which is allowed TF32."""
    one = pytorch.tensors({"left": left, "right": right})
    pytorch.set_float32_products("high")
    try:
        return one["left"] @ one["right"].T
    finally:
        pytorch.set_float32_products("highest")
