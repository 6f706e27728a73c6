"""Results beside what they should be."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gpugrad.arrays import kinds
from gpugrad.arrays.view import Unsupported
from gpugrad.errors import AccuracyError, ArgumentError, DTypeError
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations
from gpugrad.testing.bounds import Answer, Array, reference


class Element(NamedTuple):
    """An element of a result beside its exact value.

    Attributes
    ----------
    at : tuple of int
        Its index.
    value, exact : float
        What the result is there and what it should be.
    error, bound, ratio : float
        |value - exact|, what is allowed of it, and their quotient. An infinite ratio stands for
        what no bound allows: a NaN or an infinity in the wrong place, or another shape.
    """

    at: tuple[int, ...] = ()
    value: float = math.nan
    exact: float = math.nan
    error: float = 0.0
    bound: float = 0.0
    ratio: float = 0.0


def worst_element(result: Array, answer: Answer) -> Element:
    """Return the element of a result whose error is the largest part of its bound.

    NaN matches NaN and an infinity itself.

    Parameters
    ----------
    result : NumPy array
    answer : Answer

    Returns
    -------
    Element
        With a ratio not above 1 if the result is right.

    Examples
    --------
    >>> import numpy as np
    >>> from gpugrad.testing import reference, worst_element
    >>> z = np.float32([0, 1])
    >>> worst_element(np.float32([0.5, 0.75]), reference("sigmoid", z=z)["y"]).at
    (1,)
    """
    exact, bound, _ = answer
    if result.shape != exact.shape:
        return Element(error=math.inf, ratio=math.inf)
    if not result.size:
        return Element()
    value = result.astype(exact.dtype)
    with np.errstate(all="ignore"):
        same = (value == exact) | (np.isnan(value) & np.isnan(exact))
        error = np.where(same, 0, np.abs(value - exact))
        ratio = np.where(same | np.isposinf(bound), 0, error / bound)
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    index = np.unravel_index(np.argmax(ratio), ratio.shape)
    numbers = (float(one[index]) for one in (value, exact, error, bound, ratio))
    return Element(tuple(map(int, index)), *numbers)


def assert_within_bounds(
    op: str,
    results: Any,
    *,
    wrt: Iterable[str] | None = None,
    out: Mapping[str, Any] | None = None,
    accumulate: bool = False,
    precision: str = "highest",
    device: str = "auto",
    planes: Mapping[str, int] | None = None,
    **operands: Any,
) -> None:
    """Assert that results of a function of this package are within their error bounds.

    Parameters
    ----------
    op : str
        Name of the function.
    results : array, tuple of arrays or mapping
        What the function has returned, or something else that computes the same; a mapping has
        arrays by result. Of any kind that this package takes.
    wrt : iterable of {"x", "w", "b"}, optional
        As in the call: other results have to be None.
    out : mapping, optional
        By result, copies of the buffers as they were before the call. A result has the dtype of
        its buffer, or else the inputs'.
    accumulate : bool
        As in the call: whether results were added to the buffers.
    precision, device : str
        As in the call: `plan` then knows how products are computed, on which their bounds depend.
    planes : mapping, optional
        By result, the planes of each operand of its product, where that is known; ``{}`` demands
        the bounds of IEEE arithmetic, whatever the precision.
    **operands : array
        The operands of the call by name; z takes precedence over y.

    Raises
    ------
    AccuracyError
        A result is missing, has another shape or dtype, or an element outside its bound. It is
        an AssertionError, and names the result, the element, its error, bound and exact value.
    ArgumentError
        `op` is no function of this package, an operand is missing, or there are too few or too
        many results.
    ShapeError, DTypeError, DeviceError
        The operands are none that the function takes.

    Notes
    -----
    Bounds hold for every order of summation and are derived (gpugrad/testing/bounds.py), from the
    dtype, the lengths of sums and the magnitudes of their terms.

    Examples
    --------
    >>> import gpugrad
    >>> from gpugrad.testing import assert_within_bounds, random_operands
    >>> operands = random_operands("matmul_backward", (31, 17, 8), "float32", seed=0)
    >>> grads = gpugrad.matmul_backward(**operands)
    >>> assert_within_bounds("matmul_backward", grads, **operands)
    >>> grads.dw[3, 5] *= 1.001
    >>> try:
    ...     assert_within_bounds("matmul_backward", grads, **operands)
    ... except AssertionError as error:
    ...     print(str(error).partition(" is ")[0])
    matmul_backward: dw[3, 5]
    """
    if op not in OPERATIONS:
        names = ", ".join(OPERATIONS)
        raise ArgumentError(f"assert_within_bounds: op is {op!r}, expected one of {names}")
    given = {name: one for name, one in operands.items() if one is not None}
    if planes is None:
        asked = {} if wrt is None else {"wrt": wrt}
        planes = operations.planes(op, given, device=device, precision=precision, **asked)
    host = {name: _on_host(name, one) for name, one in given.items()}
    buffers = {name: _on_host(f"out {name}", one) for name, one in (out or {}).items()}
    dtypes = {name: one.dtype for name, one in buffers.items()}
    old = buffers if accumulate else None
    answers = reference(op, wrt=wrt, out=old, dtypes=dtypes, planes=planes, **host)
    dtype = next(iter(host.values())).dtype
    for name, result in _by_name(op, results).items():
        if name not in answers:
            _expect(result is None, f"{op}: {name} is an array, expected None as wrt leaves it out")
            continue
        _expect(result is not None, f"{op}: {name} is None, expected an array")
        assert_result(op, name, _on_host(name, result), answers[name], dtypes.get(name, dtype))


def assert_result(op: str, name: str, result: Array, answer: Answer, dtype: Any) -> None:
    """Assert that one result of an operation, a NumPy array, is what it should be.

    Raises
    ------
    AccuracyError
        It has another shape or dtype, or an element outside its bound.
    """
    shape = answer.exact.shape
    _expect(
        result.shape == shape, f"{op}: {name} has shape {result.shape}, the exact result {shape}"
    )
    _expect(result.dtype == dtype, f"{op}: {name} has dtype {result.dtype}, expected {dtype}")
    worst = worst_element(result, answer)
    element = f"{name}[{', '.join(map(str, worst.at))}]" if worst.at else name
    _expect(
        worst.ratio <= 1,
        f"{op}: {element} is {worst.value:.9g}, exactly {worst.exact:.9g}: "
        f"its error {worst.error:.3g} is {worst.ratio:.3g} times its bound {worst.bound:.3g}",
    )


def _expect(met: bool, otherwise: str) -> None:
    if not met:
        raise AccuracyError(otherwise)


def _by_name(op: str, results: Any) -> dict[str, Any]:
    names = OPERATIONS[op].results
    if isinstance(results, Mapping):
        return {name: results.get(name) for name in names}
    several = results if isinstance(results, tuple | list) else (results,)
    if len(several) != len(names):
        expected = ", ".join(names)
        raise ArgumentError(
            f"assert_within_bounds: results are {len(several)}, expected {expected}"
        )
    return dict(zip(names, several, strict=True))


def _on_host(name: str, value: Any) -> Array:
    """View an array of any kind as NumPy's, or copy it from a GPU."""
    try:
        kind = kinds.kind_of(value)
        if kind is None:
            raise Unsupported(f"is a {type(value).__name__}, expected an array")
        with kinds.device_context(kind, kinds.device_of(value, kind)):
            array = kinds.view(value, kind).array
            return array if isinstance(array, np.ndarray) else np.asarray(array.get())
    except Unsupported as reason:
        raise DTypeError(f"assert_within_bounds: {name} {reason}") from None
