"""Calls like one that went before: what was checked and planned for it is not decided again.

A layer of 64 × 64 × 64 takes NumPy about 16 µs, and checking and planning a call takes several
times as long. So a call on NumPy arrays that was right, and was computed on the CPU, leaves a
recipe for all calls with the same options on arrays of the same shapes and dtypes. Calls on CuPy
arrays leave one of another kind, see gpugrad/gpu/replay.py.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from numpy import empty, may_share_memory, ndarray

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
        results = [None if one is None else empty(*one) for one in self.results]
        self._write(operands, results)
        return results

    def into(self, op: str, buffers: tuple[Any, ...], *operands: Any) -> list[Any]:
        """Compute the results into the caller's buffers, and new arrays where there is none."""
        results = [
            None if one is None else empty(*one) if buffer is None else buffer
            for one, buffer in zip(self.results, buffers, strict=True)
        ]
        try:
            self._write(operands, results)
        except BaseException as error:
            error.add_note(f"{op}: out may have been written in part")
            raise
        return results

    def _write(self, operands: tuple[Any, ...], results: list[Any]) -> None:
        if self.rows is None:
            self.compute(*operands, *results)
        else:
            arrays = zip((*operands, *results), self.rows, strict=True)
            self.compute(*(one if flat is None else one.reshape(flat) for one, flat in arrays))


# A call's key and what computes its results from its operands, each None where there is none.
Found = tuple[Key | None, Callable[..., Any] | None]
NOTHING: Found = (None, None)

recipes = Recipes()
find_on_gpu: Callable[..., Found] | None = None  # from the first use of a GPU on


def find(
    op: str, options: tuple[Any, ...], out: Any, accumulate: Any, *arrays: Any, w: Any = None
) -> Found:
    """Find the recipe for a call: the call's key, and the recipe where there is one.

    `w` is the one of the arrays whose memory order a result takes over.

    A call with arrays of other libraries than NumPy and CuPy, or with buffers that are not
    contiguous, has no key, and is checked each time.
    """
    if find_on_gpu is not None and type(arrays[0]) is not ndarray:
        return find_on_gpu(op, options, out, accumulate, arrays)
    for one in arrays:
        if type(one) is not ndarray and one is not None:
            return NOTHING
    key = (
        op,
        options,
        _environment.raw("GPUGRAD_DEVICE"),
        w is not None and w.flags.fnc,  # Fortran's order, and not C's as well
        *[
            None if one is None else (one.shape, one.strides, one.dtype, one.flags.aligned)
            for one in arrays
        ],
    )
    try:
        if out is not None:
            return _find_with_buffers(key, out, accumulate, arrays)
        if accumulate is not False:
            return NOTHING
        return key, recipes.get(key, MOST)
    except TypeError:  # an option that has no hash
        return NOTHING


def _find_with_buffers(key: Key, out: Any, accumulate: Any, arrays: Sequence[Any]) -> Found:
    """Find the recipe for a call with buffers of the caller's, by those too."""
    several = isinstance(out, tuple | list)
    buffers = tuple(out) if several else (out,)
    seen: list[Hashable] = []
    for one in buffers:
        if one is None:
            seen.append(None)
            continue
        if type(one) is not ndarray:
            return NOTHING
        flags = one.flags
        if not flags.behaved or not flags.forc:  # aligned and writeable; in Fortran's order or C's
            return NOTHING
        seen.append((one.shape, one.dtype, flags.fnc))
    operands = [one for one in arrays if one is not None]
    given = [one for one in buffers if one is not None]
    who = [id(one) for one in (*operands, *given)]
    if len(set(who)) < len(who):  # an array twice: calls of a kind of their own
        seen.append(tuple(map(who.index, who)))
    if type(accumulate) is not bool:
        return NOTHING
    key = (*key, several, accumulate, *seen)
    recipe = recipes.get(key, MOST)
    if recipe is None:
        return key, None
    return (
        NOTHING if _may_overlap(given, operands) else (key, partial(recipe.into, key[0], buffers))
    )


def _may_overlap(buffers: Sequence[Any], operands: Sequence[Any]) -> bool:
    """Say whether buffers may share memory with another array, by the ranges of their addresses.

    Arrays that own their memory share none, which is quicker to see. Of an array that is there
    twice the key knows.
    """
    arrays = (*operands, *buffers)
    views = [one for one in arrays if not one.flags.owndata]
    return bool(views) and any(
        other is not one and may_share_memory(one, other)
        for one in buffers
        for other in (views if one.flags.owndata else arrays)
    )


def remember(
    key: Key | None,
    compute: Callable[..., None],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    operands: Mapping[str, Any],
    results: Mapping[str, Any],
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
    operands, results : dict
        The arrays of the call itself, not as rows.
    shapes : dict
        The shapes of the call's results in order, also of those that were not wanted.
    """
    if key is None or not plain(key):
        return
    if any(one.size and not may_share_memory(one, results[name]) for name, one in outputs.items()):
        return  # a buffer whose rows are a copy
    taken = {name: None if one is None else operands[name].shape for name, one in inputs.items()}
    given = {name: shape if name in outputs else None for name, shape in shapes.items()}
    rows = tuple(
        None if shape is None or arrays[name].shape == shape else arrays[name].shape
        for arrays, known in ((inputs, taken), (outputs, given))
        for name, shape in known.items()
    )
    dtype = next(iter(operands.values())).dtype
    wanted = tuple(
        None if shape is None else (shape, dtype, "F" if name == "dw" and key[3] else "C")
        for name, shape in given.items()
    )
    recipe = Recipe(compute, wanted, rows if any(one is not None for one in rows) else None)
    recipes.keep(key, recipe, MOST)


def forget() -> None:
    """Drop all recipes: for tests that change what decides."""
    recipes.clear()


def plain(key: Key) -> bool:
    """Say whether equal keys are of equal calls: no iterator that is used up."""
    options = key[1]
    assert isinstance(options, tuple)
    return all(type(option) in (str, tuple) for option in options)
