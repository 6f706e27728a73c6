"""A check of vector-Jacobian products against finite differences."""

import math
import operator
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from gpugrad.arrays import kinds
from gpugrad.arrays.call import Array
from gpugrad.arrays.view import Unsupported
from gpugrad.errors import ArgumentError, DTypeError, GradcheckError

# The extrapolated difference (4 D(h) - D(2h))/3 errs by O(h⁴) and by rounding, eps/h: h = eps^(1/5)
# balances them at eps^(4/5) = 3e-13 for values and directions of unit size.
STEP = float(np.finfo(np.float64).eps) ** 0.2
TOLERANCE = 1e-8


class _Like(NamedTuple):
    """The kind, device and origin of an input, to make arrays like it."""

    kind: str
    device: str
    origin: Any

    def make(self, values: Any) -> Any:
        """Convert values in host memory to an array like the input."""
        array = np.asarray(values)
        if self.device == "cpu":
            return kinds.wrap(array, self.kind, self.origin)
        with kinds.device_context(self.kind, self.device):
            made, own = kinds.empty(self.kind, self.device, array.shape, array.dtype)
            made.set(array)
            return kinds.wrap(made, self.kind, self.origin) if own is None else own


class Gradcheck(NamedTuple):
    """The result of a successful check.

    Attributes
    ----------
    error : float
        The largest difference of a trial, relative to ‖u‖ ‖J v‖ + ‖Jᵀu‖ ‖v‖.
    tolerance : float
    trials : int
    """

    error: float
    tolerance: float
    trials: int


def gradcheck(
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    inputs: Iterable[Array],
    *,
    trials: int = 4,
    step: float = STEP,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Gradcheck:
    """Check ⟨u, J v⟩ = ⟨Jᵀu, v⟩ in random directions u and v.

    Parameters
    ----------
    f : callable
        ``f(*inputs)`` returns an array or a tuple of arrays.
    vjp : callable
        ``vjp(u, *inputs)`` returns Jᵀu: one array for each input (None stands for zero), or the
        bare array for a single input. u has the shape of the result of `f`.
    inputs : sequence of float64 arrays
        Where to differentiate; of any supported kind.
    trials : int
        Number of random directions.
    step : float
        Step of the central differences, for inputs of about unit size.
    tolerance : float
        Largest accepted error, relative to ‖u‖ ‖J v‖ + ‖Jᵀu‖ ‖v‖.
    seed : int
        Seed of the random directions.

    Returns
    -------
    Gradcheck
        The largest error, the tolerance and the number of trials.

    Raises
    ------
    GradcheckError
        The two sides differ by more than the tolerance, or one of them is not finite.
    DTypeError
        An input is no float64 array, `trials` is no integer, or a result is no array of reals.
    ArgumentError
        There are no inputs or no trials, `step` or `tolerance` is no positive finite number, or
        `vjp` returns the wrong number or shape of gradients.

    Notes
    -----
    J v is a central difference along v, extrapolated once (Richardson). A trial costs four
    evaluations of `f` at any size. A random direction finds a wrong entry of Jᵀu almost surely.
    HIPS autograd's ``check_grads`` tests the same identity.

    Examples
    --------
    >>> import numpy as np, gpugrad
    >>> z = np.linspace(-3.0, 3.0, 7)
    >>> def vjp(u, z):
    ...     return gpugrad.sigmoid_backward(u, gpugrad.sigmoid(z))
    >>> gpugrad.gradcheck(gpugrad.sigmoid, vjp, [z]).trials
    4
    """
    arrays = _listed(inputs)
    trials = _count(trials)
    for name, number in (("step", step), ("tolerance", tolerance)):
        if not (isinstance(number, Real) and 0 < number < math.inf):
            raise ArgumentError(
                f"gradcheck: {name} is {number!r}, expected a positive finite number"
            )
    likes = [_like(index, value) for index, value in enumerate(arrays)]
    points = [_host(value, f"inputs[{index}]") for index, value in enumerate(arrays)]
    random = np.random.default_rng(seed)

    def value_at(v: list[Any], t: float) -> list[Any]:
        moved = [
            like.make(point + t * direction)
            for point, direction, like in zip(points, v, likes, strict=True)
        ]
        return [_host(one, "f's result") for one in _as_tuple(f(*moved))]

    def slope(v: list[Any], h: float) -> list[Any]:
        pairs = zip(value_at(v, h), value_at(v, -h), strict=True)
        with np.errstate(over="ignore", invalid="ignore"):  # reported below as not finite
            return [(a - b) / (2 * h) for a, b in pairs]

    worst = 0.0
    for trial in range(trials):
        v = [np.asarray(random.standard_normal(point.shape)) for point in points]
        wide, narrow = slope(v, 2 * step), slope(v, step)
        with np.errstate(over="ignore", invalid="ignore"):
            jv = [(4 * near - far) / 3 for near, far in zip(narrow, wide, strict=True)]
        u = [np.asarray(random.standard_normal(one.shape)) for one in jv]
        direction = [likes[0].make(one.copy()) for one in u]  # vjp may overwrite it
        grads = _as_tuple(vjp(direction[0] if len(u) == 1 else tuple(direction), *arrays))
        jtu = _gradients(grads, points)
        for what, derivative in (("f's finite difference", jv), ("vjp's gradient", jtu)):
            if not all(np.isfinite(one).all() for one in derivative):
                raise GradcheckError(f"gradcheck: trial {trial}: {what} is not finite")
        # One scale for both sides: their squares neither overflow nor vanish.
        scale = max((float(np.max(np.abs(one), initial=0)) for one in (*jv, *jtu)), default=0.0)
        if not scale:  # both derivatives are zero
            continue
        jv, jtu = ([one / scale for one in side] for side in (jv, jtu))
        left, right = _inner(u, jv), _inner(jtu, v)
        size = _norm(u) * _norm(jv) + _norm(jtu) * _norm(v)
        error = abs(left - right) / size
        if not error <= tolerance:
            raise GradcheckError(
                f"gradcheck: trial {trial}: <u, Jv> = {left * scale:.12g} but "
                f"<J'u, v> = {right * scale:.12g}, "
                f"a relative difference of {error:.2g}, more than {tolerance:.2g}"
            )
        worst = max(worst, error)
    return Gradcheck(worst, tolerance, trials)


def _listed(inputs: Any) -> list[Any]:
    if _is_array(inputs):
        raise DTypeError("gradcheck: inputs is an array, expected a sequence of arrays")
    try:
        arrays = list(inputs)
    except TypeError:
        raise DTypeError(
            f"gradcheck: inputs is a {type(inputs).__name__}, expected a sequence of arrays"
        ) from None
    if not arrays:
        raise ArgumentError("gradcheck: inputs is empty, expected at least one array")
    return arrays


def _count(trials: Any) -> int:
    try:
        count = operator.index(trials)
    except TypeError:
        raise DTypeError(
            f"gradcheck: trials is a {type(trials).__name__}, expected an integer"
        ) from None
    if count < 1:
        raise ArgumentError(f"gradcheck: trials is {count}, expected at least 1")
    return count


def _is_array(value: Any) -> bool:
    try:
        return kinds.kind_of(value) is not None
    except Unsupported:
        return True


def _like(index: int, value: Any) -> _Like:
    what = f"is a {type(value).__name__}"
    try:
        kind = kinds.kind_of(value)
        if kind is not None:
            device, view = kinds.device_of(value, kind), kinds.view(value, kind)
            if view.array.dtype == np.float64:
                return _Like(kind, device, view.origin)
            what = f"has dtype {view.array.dtype}"
    except Unsupported as reason:
        raise DTypeError(f"gradcheck: inputs[{index}] {reason}") from None
    raise DTypeError(f"gradcheck: inputs[{index}] {what}, expected a float64 array")


def _host(value: Any, what: str) -> Any:
    """Copy values to the host in float64: a function may reuse the memory of its result."""
    try:
        kind = kinds.kind_of(value)
        if kind is None:
            return np.array(value, np.float64)
        with kinds.device_context(kind, kinds.device_of(value, kind)):
            array = kinds.view(value, kind).array
            host = array if isinstance(array, np.ndarray) else array.get()
        return host.astype(np.float64, casting="same_kind", copy=True)
    except (Unsupported, TypeError, ValueError) as reason:
        raise DTypeError(f"gradcheck: {what} is no array of real numbers ({reason})") from None


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _gradients(grads: tuple[Any, ...], points: list[Any]) -> list[Any]:
    if len(grads) != len(points):
        raise ArgumentError(f"gradcheck: vjp gave {len(grads)} gradients for {len(points)} inputs")
    result = []
    for index, (grad, point) in enumerate(zip(grads, points, strict=True)):
        one = np.zeros(point.shape) if grad is None else _host(grad, "vjp's gradient")
        if one.shape != point.shape:
            raise ArgumentError(
                f"gradcheck: vjp's gradient {index} has shape {one.shape}, expected {point.shape}"
            )
        result.append(one)
    return result


def _inner(a: list[Any], b: list[Any]) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


def _norm(a: list[Any]) -> float:
    return float(np.sqrt(_inner(a, a)))
