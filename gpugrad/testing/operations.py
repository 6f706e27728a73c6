"""Operands of the operations, their calls, and the same in NumPy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import gpugrad
from gpugrad.arrays import kinds
from gpugrad.arrays.view import Unsupported
from gpugrad.errors import ArgumentError
from gpugrad.operations import OPERATIONS, shape_of

Arrays = dict[str, Any]
Size = tuple[int, int, int]  # n, k, m


def dtype_of(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of a name that the library supports.

    Raises
    ------
    ArgumentError
        It is bfloat16, and ml_dtypes is missing.
    """
    if name != "bfloat16":
        return np.dtype(name)
    try:
        return kinds.bfloat16()
    except Unsupported as reason:
        raise ArgumentError(f"the dtype {reason}") from None


def shapes(op: str, size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an operation's operands for a layer of n rows, k inputs, m outputs."""
    return {name: shape_of(name, size) for name in OPERATIONS[op].operands}


def result_shapes(op: str, size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an operation's results."""
    return {name: shape_of(name, size) for name in OPERATIONS[op].results}


def random_operands(
    op: str,
    size: Size,
    dtype: str | np.dtype[Any] = "float32",
    *,
    seed: int = 0,
    spread: float = 1.0,
    from_z: bool = False,
    without: tuple[str, ...] = (),
) -> Arrays:
    """Draw an operation's operands: normally distributed, y the sigmoid of such logits.

    Parameters
    ----------
    op : str
        Name of a function of this package.
    size : tuple of int
        Of a layer of n rows, k inputs and m outputs: n, k, m. Not every operation has all three.
    dtype : str or dtype
        "float64", "float32", "float16" or "bfloat16".
    seed : int
        The same one draws the same operands.
    spread : float
        Standard deviation of the logits: from about 20 most of them are saturated.
    from_z : bool
        Draw the logits z in place of the sigmoid's result y.
    without : tuple of str
        Operands to leave out.

    Returns
    -------
    dict
        NumPy arrays by the names of the function's parameters.

    Raises
    ------
    ArgumentError
        `op` is no function of this package, or dtype is bfloat16 and ml_dtypes is missing.

    Examples
    --------
    >>> from gpugrad.testing import random_operands
    >>> operands = random_operands("matmul_backward", (32, 8, 4), "float16", seed=1)
    >>> {name: array.shape for name, array in operands.items()}
    {'dy': (32, 4), 'x': (32, 8), 'w': (8, 4)}
    """
    if op not in OPERATIONS:
        names = ", ".join(OPERATIONS)
        raise ArgumentError(f"random_operands: op is {op!r}, expected one of {names}")
    if isinstance(dtype, str):
        dtype = dtype_of(dtype)
    random = np.random.default_rng(seed)

    def normal(shape: tuple[int, ...], scale: float = 1.0) -> Any:
        values = random.standard_normal(shape, np.float64 if dtype == np.float64 else np.float32)
        values *= values.dtype.type(scale)
        return values.astype(dtype, copy=False)

    result: Arrays = {}
    for name, shape in shapes(op, size).items():
        if name in without:
            continue
        if name == "y" and from_z:
            result["z"] = normal(shape, spread)
        elif name == "y":
            result[name] = gpugrad.sigmoid(normal(shape, spread), device="cpu")
        elif name == "w":  # keeps x w at the spread of the logits
            result[name] = normal(shape, spread / max(1, shape[0]) ** 0.5)
        else:
            result[name] = normal(shape, spread if name == "z" else 1.0)
    return result


def consistent_arrays(op: str, size: Size, dtype: np.dtype[Any], *, seed: int) -> Arrays:
    """Draw an operation's operands as a layer's forward pass leaves them.

    y is the sigmoid of the layer's own x w, or else of logits, which come with it under "z", so
    that libraries that go backwards through a forward pass of their own have the same gradients.
    """
    if not OPERATIONS[op].takes_z:
        return random_operands(op, size, dtype, seed=seed)
    if "x" in OPERATIONS[op].operands:
        result = random_operands(op, size, dtype, seed=seed, without=("y",))
        y = gpugrad.dense_sigmoid(result["x"], result["w"], device="cpu")
    else:
        result = random_operands(op, size, dtype, seed=seed, from_z=True)
        y = gpugrad.sigmoid(result["z"], device="cpu")
    return {**result, "y": y}


def call(
    op: str,
    operands: Mapping[str, Any],
    *,
    device: str = "auto",
    out: Any = None,
    **options: Any,
) -> Arrays:
    """Call an operation of the library; operands, buffers `out` and results are by name."""
    positional, options = _arguments(op, operands, options)
    names = OPERATIONS[op].results
    if out is not None:
        buffers = tuple(map(out.get, names))
        options["out"] = buffers if len(names) > 1 else buffers[0]
    results = getattr(gpugrad, op)(*positional, device=device, **options)
    return dict(zip(names, results if isinstance(results, tuple) else (results,), strict=True))


def planes(
    op: str, operands: Mapping[str, Any], *, device: str = "auto", **options: Any
) -> dict[str, int]:
    """Return how many planes the operands of a call's products have, by result."""
    positional, options = _arguments(op, operands, options)
    return gpugrad.plan(op, *positional, device=device, **options).planes


def _arguments(
    op: str, operands: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[list[Any], Arrays]:
    """Return a call's arrays in order, and its options, of which logits z are one."""
    operation = OPERATIONS[op]
    names = [one for one in operation.operands if one in operands or one not in operation.optional]
    logits = {"z": operands["z"]} if operation.takes_z and "z" in operands else {}
    return [operands.get(name) for name in names], {**options, **logits}


# ---- what one writes without the library, for NumPy and CuPy alike


def plain(op: str, numpy: Any, operands: Mapping[str, Any]) -> Arrays:
    """Compute an operation by plain expressions; 16-bit operands in float32, as one does."""
    dtype = next(iter(operands.values())).dtype
    half = dtype.name in kinds.HALVES
    wide = {name: one.astype(np.float32) if half else one for name, one in operands.items()}
    results = OPERATIONS[op].plain(numpy, **wide)
    if half:
        results = tuple(one.astype(dtype) for one in results)
    return dict(zip(OPERATIONS[op].results, results, strict=True))
