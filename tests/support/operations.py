"""The public functions as a table, called on any backend and compared with their reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import gpugrad
from gpugrad.operations import SUMS
from gpugrad.testing import assert_within_bounds, operations
from tests.conftest import Backend


class Operation:
    """A row of the package's table, with the public function."""

    def __init__(self, name: str) -> None:
        row = gpugrad.operations.OPERATIONS[name]
        self.name, self.function = name, getattr(gpugrad, name)
        self.operands, self.results, self.wrt = row.operands, row.results, row.wrt
        self.sums = tuple(one for one in row.results if one in SUMS)
        self.accumulates, self.takes_z = row.accumulates, row.takes_z
        self.takes_precision, self.takes_any_rank = bool(row.products), not row.rows


OPERATIONS = {name: Operation(name) for name in gpugrad.operations.OPERATIONS}

Arrays = Mapping[str, Any]


def compute(
    backend: Backend,
    name: str,
    arrays: Arrays,
    *,
    from_z: bool = False,
    out: Arrays | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Call a function on a backend and return its results as NumPy arrays by name.

    Entries of `arrays` that the function does not take are left alone. `out` has buffers by name.
    """
    if out is not None:
        options["out"] = out = _on(backend, out)
    given = _on(backend, operands(name, arrays, from_z))
    results = backend.call(operations.call, name, given, **options)
    for one, buffer in (out or {}).items():
        assert results[one] is buffer
    return {one: None if got is None else backend.numpy(got) for one, got in results.items()}


def expect_right(
    backend: Backend,
    name: str,
    arrays: Arrays,
    *,
    from_z: bool = False,
    out: Arrays | None = None,
    accumulate: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Compute results and assert that they are within their derived bounds."""
    before = {one: buffer.copy() for one, buffer in (out or {}).items()}
    inputs = operands(name, arrays, from_z)
    planes = backend.call(operations.planes, name, _on(backend, inputs), **options)
    if accumulate:
        options["accumulate"] = True
    results = compute(backend, name, arrays, from_z=from_z, out=out or None, **options)
    assert_within_bounds(
        name,
        results,
        wrt=options.get("wrt"),
        out=before,
        accumulate=accumulate,
        planes=planes,
        **inputs,
    )
    return results


def operands(name: str, arrays: Arrays, from_z: bool = False) -> dict[str, Any]:
    """Return those of a function among arrays, with the logits or with y."""
    wanted = OPERATIONS[name].operands
    if from_z:
        wanted = tuple("z" if one == "y" else one for one in wanted)
    return {one: arrays[one] for one in wanted if arrays.get(one) is not None}


def same_bits(a: Any, b: Any) -> bool:
    """Return whether two arrays hold the same bytes."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(_bits(a), _bits(b))


def _bits(array: Any) -> Any:
    return np.frombuffer(array.tobytes(), np.uint8)


def _on(backend: Backend, arrays: Arrays) -> dict[str, Any]:
    return {one: backend.array(array) for one, array in arrays.items()}
