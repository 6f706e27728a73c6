"""The public functions as a table, called on any backend and compared with their reference."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import gpugrad
from gpugrad.operations import SUMS
from gpugrad.testing.reference import check, reference
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
    """Call a function on a backend and give its results as NumPy arrays by name.

    Entries of `arrays` that the function does not take are left alone. `out` has buffers by name.
    """
    operation = OPERATIONS[name]
    operands = [_on(backend, arrays.get(one)) for one in operation.operands]
    if from_z:
        operands[operation.operands.index("y")] = None
        options["z"] = backend.array(arrays["z"])
    buffers: list[Any] = [None] * len(operation.results)
    if out is not None:
        buffers = [_on(backend, out.get(one)) for one in operation.results]
        options["out"] = tuple(buffers) if len(buffers) > 1 else buffers[0]
    results = backend.call(operation.function, *operands, **options)
    results = results if isinstance(results, tuple) else (results,)
    for buffer, result in zip(buffers, results, strict=True):
        assert buffer is None or result is buffer
    return {
        one: None if result is None else backend.numpy(result)
        for one, result in zip(operation.results, results, strict=True)
    }


def expect_right(
    backend: Backend,
    name: str,
    arrays: Arrays,
    *,
    from_z: bool = False,
    out: Arrays | None = None,
    wrt: Iterable[str] | None = None,
    accumulate: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Compute results and assert that they are within their derived bounds."""
    operation = OPERATIONS[name]
    out = out or {}
    old = {one: buffer.copy() for one, buffer in out.items()} if accumulate else {}
    inputs = {one: arrays[one] for one in operation.operands if arrays.get(one) is not None}
    if from_z:
        inputs = {one: array for one, array in inputs.items() if one != "y"} | {"z": arrays["z"]}
    if wrt is not None:
        options["wrt"] = wrt
    answers = reference(
        name,
        planes=planes(backend, name, arrays, from_z=from_z, **options),
        **inputs,
        wrt=operation.wrt if wrt is None else wrt,
        out=old,
        dtypes={one: buffer.dtype for one, buffer in out.items()},
    )
    if accumulate:
        options["accumulate"] = True
    results = compute(backend, name, arrays, from_z=from_z, out=out or None, **options)
    dtype = next(iter(inputs.values())).dtype
    for one in operation.results:
        if one not in answers:
            assert results[one] is None, f"{one} is left out by wrt"
            continue
        assert results[one].dtype == (out[one].dtype if one in out else dtype)
        ratio = check(results[one], *answers[one])
        assert ratio <= 1, f"{name}: {one} is {ratio:.3g} times its bound away"
    return results


def planes(
    backend: Backend, name: str, arrays: Arrays, *, from_z: bool = False, **options: Any
) -> dict[str, int]:
    """Return how many planes the operands of a call's products have, by result."""
    operation = OPERATIONS[name]
    operands = [arrays.get(one) for one in operation.operands]
    if from_z:
        operands[operation.operands.index("y")] = None
        options["z"] = backend.array(arrays["z"])
    if name == "dense_sigmoid" and operands[-1] is None:
        operands.pop()
    asked = {one: options[one] for one in ("z", "wrt", "precision", "device") if one in options}
    on_backend = [_on(backend, one) for one in operands]
    plan: gpugrad.Plan = backend.call(gpugrad.plan, name, *on_backend, **asked)
    return plan.planes


def same_bits(a: Any, b: Any) -> bool:
    """Return whether two arrays hold the same bytes."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(_bits(a), _bits(b))


def _bits(array: Any) -> Any:
    return np.frombuffer(array.tobytes(), np.uint8)


def _on(backend: Backend, array: Any) -> Any:
    return None if array is None else backend.array(array)
