"""The operations as the commands run them: their arrays, their calls, and the same in NumPy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

import gpugrad
from gpugrad.arrays import kinds
from gpugrad.arrays.view import Unsupported
from gpugrad.exits import Unusable
from gpugrad.operations import OPERATIONS, shape_of

Arrays = dict[str, Any]
Size = tuple[int, int, int]  # n, k, m


def dtype_of(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of a name that the library supports."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        return kinds.bfloat16()
    except Unsupported as reason:
        raise Unusable(f"the dtype {reason}") from None


def shapes(op: str, size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an operation's operands for a layer of n rows, k inputs, m outputs."""
    return {name: shape_of(name, size) for name in OPERATIONS[op].operands}


def result_shapes(op: str, size: Size) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an operation's results."""
    return {name: shape_of(name, size) for name in OPERATIONS[op].results}


def arrays(
    op: str,
    size: Size,
    dtype: np.dtype[Any],
    *,
    seed: int,
    spread: float = 1.0,
    from_z: bool = False,
    without: tuple[str, ...] = (),
) -> Arrays:
    """Draw an operation's operands.

    Parameters
    ----------
    op : str
    size : tuple of int
        n, k, m.
    dtype : dtype
    seed : int
    spread : float
        Standard deviation of the logits: from about 20 most of them are saturated.
    from_z : bool
        Draw the logits z in place of the sigmoid's result y.
    without : tuple of str
        Operands to leave out.
    """
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

    y is the sigmoid of the layer's own x w, or else of logits, which come with it under "z": those
    who go backwards through a forward pass of their own then have the same gradients.
    """
    if not OPERATIONS[op].takes_z:
        return arrays(op, size, dtype, seed=seed)
    if "x" in OPERATIONS[op].operands:
        result = arrays(op, size, dtype, seed=seed, without=("y",))
        y = gpugrad.dense_sigmoid(result["x"], result["w"], device="cpu")
    else:
        result = arrays(op, size, dtype, seed=seed, from_z=True)
        y = gpugrad.sigmoid(result["z"], device="cpu")
    return {**result, "y": y}


def call(op: str, operands: Mapping[str, Any], *, device: str, **options: Any) -> Arrays:
    """Call an operation of the library; its results by name. Logits z are an option."""
    positional = [operands.get(name) for name in OPERATIONS[op].operands]
    if "z" in operands and OPERATIONS[op].takes_z:
        options["z"] = operands["z"]
    results = getattr(gpugrad, op)(*positional, device=device, **options)
    return dict(
        zip(
            OPERATIONS[op].results,
            results if isinstance(results, tuple) else (results,),
            strict=True,
        )
    )


def planes(op: str, operands: Mapping[str, Any], *, device: str, **options: Any) -> dict[str, int]:
    """Return how many planes the operands of a call's products have, by result."""
    positional = [operands.get(name) for name in OPERATIONS[op].operands]
    if "z" in operands and OPERATIONS[op].takes_z:
        options["z"] = operands["z"]
    return gpugrad.plan(op, *positional, device=device, **options).planes


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
