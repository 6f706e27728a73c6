"""Calls like one that went before: what was checked and planned for it is not decided again.

A layer of 64 × 64 × 64 takes NumPy about 16 µs, and checking and planning a call takes several
times as long. So a call on NumPy arrays that was right, and was computed on the CPU, leaves a
recipe for all calls with the same options on arrays of the same shapes and dtypes. Calls on CuPy
arrays leave one of another kind, see gpugrad/gpu/replay.py.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from numpy import empty, ndarray

from gpugrad import _environment
from gpugrad._recipes import Recipes

Key = tuple[Hashable, ...]
Shape = tuple[int, ...]

MOST = 4096  # recipes that are kept: a few hundred bytes each


class Recipe(NamedTuple):
    """How calls of one kind are computed on the CPU.

    Attributes
    ----------
    compute : function
        The backend's, of the operands and results in its order.
    results : tuple of (tuple or None)
        Shape, dtype and memory order of the results, in order; None for what is not wanted.
    rows : tuple of (shape or None), optional
        The shapes that operands and results are flattened to, None for those that are not; None
        where none is.
    """

    compute: Callable[..., None]
    results: tuple[tuple[Any, ...] | None, ...]
    rows: tuple[Shape | None, ...] | None

    def __call__(self, *operands: Any) -> list[Any]:
        """Compute the results of the operands; None is in the place of those not wanted."""
        compute, wanted, rows = self
        results = [None if one is None else empty(*one) for one in wanted]
        if rows is None:
            compute(*operands, *results)
        else:
            arrays = zip((*operands, *results), rows, strict=True)
            compute(*(one if flat is None else one.reshape(flat) for one, flat in arrays))
        return results


# A call's key and what computes its results from its operands, each None where there is none.
Found = tuple[Key | None, Callable[..., Any] | None]

recipes = Recipes()
find_on_gpu: Callable[..., Found] | None = None  # from the first use of a GPU on


def find(
    op: str, options: tuple[Any, ...], out: Any, accumulate: Any, *arrays: Any, w: Any = None
) -> Found:
    """Find the recipe for a call: the call's key, and the recipe where there is one.

    `w` is the one of the arrays whose memory order a result takes over.

    NumPy buffers, and arrays of other libraries than NumPy and CuPy, have to be checked in every
    call, so that one with them has no key.
    """
    if find_on_gpu is not None and type(arrays[0]) is not ndarray:
        return find_on_gpu(op, options, out, accumulate, arrays)
    if out is not None or accumulate is not False:
        return None, None
    for one in arrays:
        if type(one) is not ndarray and one is not None:
            return None, None
    key = (
        op,
        options,
        _environment.raw("GPUGRAD_DEVICE"),
        w is not None and w.flags.fnc,  # Fortran's order, and not C's as well
        *[None if one is None else (one.shape, one.dtype) for one in arrays],
    )
    try:
        return key, recipes.get(key, MOST)
    except TypeError:  # an option that has no hash
        return None, None


def remember(
    key: Key | None,
    compute: Callable[..., None],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    operands: Mapping[str, Any],
    shapes: Mapping[str, Shape],
) -> None:
    """Keep the recipe of a call that the CPU has computed, if its options were plain.

    Parameters
    ----------
    key
        The call's, or None.
    compute : function
        The backend's.
    inputs, outputs : dict
        What it was given, in its order: arrays flattened to rows, None for an operand that it does
        not read. Results that are not wanted are missing.
    operands : dict
        The arrays of the call itself.
    shapes : dict
        The shapes of the call's results in order, also of those that were not wanted.
    """
    if key is None or not plain(key):
        return
    taken = {name: None if one is None else operands[name].shape for name, one in inputs.items()}
    given = {name: shape if name in outputs else None for name, shape in shapes.items()}
    rows = tuple(
        None if shape is None or arrays[name].shape == shape else arrays[name].shape
        for arrays, known in ((inputs, taken), (outputs, given))
        for name, shape in known.items()
    )
    dtype = next(iter(operands.values())).dtype
    results = tuple(
        None if shape is None else (shape, dtype, "F" if name == "dw" and key[3] else "C")
        for name, shape in given.items()
    )
    recipe = Recipe(compute, results, rows if any(one is not None for one in rows) else None)
    recipes.keep(key, recipe, MOST)


def forget() -> None:
    """Drop all recipes: for tests that change what decides."""
    recipes.clear()


def plain(key: Key) -> bool:
    """Say whether equal keys are of equal calls: no iterator that is used up."""
    options = key[1]
    assert isinstance(options, tuple)
    return all(type(option) in (str, tuple) for option in options)
