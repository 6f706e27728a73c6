"""The layer and its backward passes for JAX: under jit, vmap and grad, to any order.

NumPy arrays and numbers are taken too, as JAX takes them: in float32 unless it has been told to
have 64 bits. One primitive stands for every function here, with a rule for each transformation:

- Concrete arrays are computed as by gpugrad's own functions, on the CPU or the GPU they are on.
- Compiled for the CPU, it is a callback that reads and writes XLA's buffers in place. Compiled for
  any other platform, it is an error. Of arrays on several devices, each device computes the whole;
  parts of them are computed apart within `jax.shard_map`, if its `check_vma` is False.
- Differentiated, it is a `jax.custom_vjp` made of the functions here, so that its gradient can be
  differentiated again. Only what is asked for is computed.
- Mapped over rows with w and b in common, it is one call with one more leading dimension, and so
  is its gradient. Mapped in any other way it makes a call for each element, in one callback.

Every backward pass is dz = dy · s with s = y (1 − y), σ(z) σ(−z) or 1, dx = dz wᵀ, dw = xᵀ dz and
db = Σ dz, for independent dy, y (or z), x and w. With the gradients gz, gx, gw and gb of its
results, the chain rule gives g = gz + gx w + x gw + gb for dz, and

    for dy  g · s                          for x  dz gwᵀ
    for y   g · dy · (1 − 2 y)             for w  gxᵀ dz
    for z   −g · dz · tanh(z / 2)

Those for x and w are a backward pass again, with gx and gw in the place of x and w.
"""

import ctypes
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, reduce
from typing import Any

import numpy as np

import gpugrad
from gpugrad import _kinds
from gpugrad._arrays import Call
from gpugrad._operations import OPERATIONS
from gpugrad.errors import DTypeError
from gpugrad.gradients import DenseGrads, MatmulGrads, SigmoidBiasGrads

try:
    import jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    message = "gpugrad.jax needs JAX (pip install 'gpugrad[jax]')"
    raise ModuleNotFoundError(message, name="jax") from None
if jax.__version_info__ < (0, 7, 2):  # whose XLA ends the process where it compiles some callbacks
    message = "gpugrad.jax needs JAX 0.7.2 or newer (pip install -U 'gpugrad[jax]')"
    raise ImportError(message, name="jax")

import jax.numpy as jnp
from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Array = Any  # of JAX, traced or not, or what it takes for one: a NumPy array, a number
Named = Mapping[str, Any]

SHARED = ("w", "b")  # by all rows
SUMS = ("dw", "db")  # over all rows
IN_PLACE = 1 << 20  # bytes of results that take longer to copy than their buffers to check


def sigmoid(z: Array, *, save_logits: bool = False) -> Array:
    """Logistic function y = σ(z) = 1/(1 + e⁻ᶻ), without overflow for any z.

    Parameters
    ----------
    z : array of any shape
        float64, float32, float16 or bfloat16; 16-bit values are computed in float32.
    save_logits : bool
        Compute the gradient from z rather than from y; see `sigmoid_backward`.

    Returns
    -------
    jax.Array
        y, of the shape and dtype of `z`.

    Raises
    ------
    DTypeError
        When the function is called or traced.
    DeviceError
        When it is called.
    NotImplementedError
        When it is compiled for a GPU.

    Notes
    -----
    The gradient is dz = dy · y · (1 − y), or dy · σ(z) · σ(−z) from the logits.

    Examples
    --------
    >>> import jax, gpugrad.jax
    >>> gpugrad.jax.sigmoid(0.0)
    Array(0.5, dtype=float32)
    >>> jax.grad(gpugrad.jax.sigmoid)(20.0)
    Array(0., dtype=float32)
    >>> jax.grad(lambda z: gpugrad.jax.sigmoid(z, save_logits=True))(20.0)
    Array(2.0611537e-09, dtype=float32)
    """
    arrays, _ = _checked("sigmoid", {"z": z})
    return _apply("sigmoid", arrays, save_logits=save_logits)["y"]


def dense_sigmoid(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    precision: str = "highest",
    save_logits: bool = False,
) -> Array:
    """Dense sigmoid layer y = σ(x w + b).

    Parameters
    ----------
    x : array of shape (..., k)
    w : array of shape (k, m)
    b : array of shape (m,), optional
    precision : {"highest", "high", "medium", "ieee"}
        Accuracy that is asked of float32 products; see `gpugrad.matmul_backward`.
    save_logits : bool
        Keep z = x w + b for the gradient, which then is right where y has rounded to 1; see
        `sigmoid_backward`. z is computed by JAX, and rounded to the inputs' dtype.

    Returns
    -------
    jax.Array of shape (..., m)
        y, of the inputs' dtype.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        When the function is called or traced.
    DeviceError
        When it is called.
    NotImplementedError
        When it is compiled for a GPU.

    Notes
    -----
    The gradients are those of `dense_sigmoid_backward`, computed in one call.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, gpugrad.jax
    >>> x, w, b = jnp.ones((4, 2)), jnp.zeros((2, 3)), jnp.zeros(3)
    >>> def loss(w, b):
    ...     return gpugrad.jax.dense_sigmoid(x, w, b).sum()
    >>> dw, db = jax.jit(jax.grad(loss, argnums=(0, 1)))(w, b)
    >>> db
    Array([1., 1., 1.], dtype=float32)
    """
    operands = {"x": x, "w": w, "b": b}
    arrays, _ = _checked("dense_sigmoid", operands, precision=precision)
    if save_logits:
        arrays = {"z": _logits(**arrays), **arrays}
    return _apply("dense_sigmoid", arrays, precision=precision, save_logits=save_logits)["y"]


def matmul_backward(
    dy: Array,
    x: Array,
    w: Array,
    *,
    wrt: Iterable[str] = ("x", "w"),
    precision: str = "highest",
) -> MatmulGrads:
    """Gradients of y = x w: dx = dy wᵀ and dw = xᵀ dy.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    x : array of shape (..., k)
    w : array of shape (k, m)
    wrt : iterable of {"x", "w"}
        What to differentiate with respect to; the rest is None and is not computed.
    precision : {"highest", "high", "medium", "ieee"}
        Accuracy that is asked of float32 products; see `gpugrad.matmul_backward`.

    Returns
    -------
    MatmulGrads
        dx of shape (..., k) and dw of shape (k, m), of the inputs' dtype.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        When the function is called or traced.
    DeviceError
        When it is called.
    NotImplementedError
        When it is compiled for a GPU.

    Notes
    -----
    With the gradients gx and gw of dx and dw, those of dy, x and w are gx w + x gw, dy gwᵀ and
    gxᵀ dy.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> x, w = jnp.array([[1.0, 2.0]]), jnp.array([[3.0], [4.0]])
    >>> gpugrad.jax.matmul_backward(jnp.array([[10.0]]), x, w).dx
    Array([[30., 40.]], dtype=float32)
    """
    operands = {"dy": dy, "x": x, "w": w}
    arrays, names = _checked("matmul_backward", operands, wrt, precision)
    return MatmulGrads(**_apply("matmul_backward", arrays, names, precision))


def bias_backward(dy: Array) -> Array:
    """Gradient of y = z + b with respect to b: db = Σ dy over all but the last dimension.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.

    Returns
    -------
    jax.Array of shape (m,)
        db, of the dtype of `dy`.

    Raises
    ------
    ShapeError, DTypeError
        When the function is called or traced.
    DeviceError
        When it is called.
    NotImplementedError
        When it is compiled for a GPU.

    Notes
    -----
    With the gradient gb of db, that of dy is gb in every row.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> gpugrad.jax.bias_backward(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    Array([4., 6.], dtype=float32)
    """
    arrays, _ = _checked("bias_backward", {"dy": dy})
    return _apply("bias_backward", arrays)["db"]


def sigmoid_backward(dy: Array, y: Array | None, *, z: Array | None = None) -> Array:
    """Gradient of y = σ(z): dz = dy · y · (1 − y), element by element.

    Parameters
    ----------
    dy : array of any shape
        Gradient of the loss with respect to y.
    y : array of the same shape
        The sigmoid's result. May be None where `z` is given, which then is all that is read.
    z : array of the same shape, optional
        The logits. With them dz = dy · σ(z) · σ(−z), which is right where y has rounded to 1
        (float64 from z = 36.8, float32 from 16.7, float16 from 8.4, bfloat16 from 6.3).

    Returns
    -------
    jax.Array
        dz, of the shape and dtype of `dy`.

    Raises
    ------
    ShapeError, DTypeError
        When the function is called or traced.
    DeviceError
        When it is called.
    NotImplementedError
        When it is compiled for a GPU.

    Notes
    -----
    With the gradient g of dz, that of dy is g · y · (1 − y), and that of y is g · dy · (1 − 2 y);
    with the logits, g · σ(z) · σ(−z), and −g · dz · tanh(z / 2) of z.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> gpugrad.jax.sigmoid_backward(jnp.array([1.0, 2.0]), jnp.array([0.5, 0.75]))
    Array([0.25 , 0.375], dtype=float32)
    """
    arrays, _ = _checked("sigmoid_backward", {"dy": dy, "y": y, "z": z})
    return _apply("sigmoid_backward", arrays)["dz"]


def sigmoid_bias_backward(
    dy: Array, y: Array | None, *, z: Array | None = None
) -> SigmoidBiasGrads:
    """Gradients of y = σ(v + b) in one pass: dz = dy · y · (1 − y) and db = Σ dz.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    y : array of shape (..., m)
        The sigmoid's result. May be None where `z` is given.
    z : array of shape (..., m), optional
        The logits z = v + b; see `sigmoid_backward`.

    Returns
    -------
    SigmoidBiasGrads
        dz of shape (..., m), which is also the gradient with respect to v, and db of shape (m,).

    Raises
    ------
    ShapeError, DTypeError
        When the function is called or traced.
    DeviceError
        When it is called.
    NotImplementedError
        When it is compiled for a GPU.

    Notes
    -----
    With the gradients gz and gb of dz and db, those of dy and of y or z are as for
    `sigmoid_backward`, with g = gz + gb.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> gpugrad.jax.sigmoid_bias_backward(jnp.ones((2, 1)), jnp.array([[0.5], [0.75]])).db
    Array([0.4375], dtype=float32)
    """
    arrays, _ = _checked("sigmoid_bias_backward", {"dy": dy, "y": y, "z": z})
    return SigmoidBiasGrads(**_apply("sigmoid_bias_backward", arrays))


def dense_sigmoid_backward(
    dy: Array,
    y: Array | None,
    x: Array,
    w: Array,
    *,
    z: Array | None = None,
    wrt: Iterable[str] = ("x", "w", "b"),
    precision: str = "highest",
) -> DenseGrads:
    """Gradients of a dense sigmoid layer y = σ(x w + b) in one call.

    Parameters
    ----------
    dy : array of shape (..., m)
        Gradient of the loss with respect to y.
    y : array of shape (..., m)
        The layer's result. May be None where `z` is given.
    x : array of shape (..., k)
        The layer's input.
    w : array of shape (k, m)
    z : array of shape (..., m), optional
        The logits x w + b; see `sigmoid_backward`.
    wrt : iterable of {"x", "w", "b"}
        What to differentiate with respect to; the rest is None and is not computed.
    precision : {"highest", "high", "medium", "ieee"}
        Accuracy that is asked of float32 products; see `gpugrad.matmul_backward`.

    Returns
    -------
    DenseGrads
        dx of shape (..., k), dw of shape (k, m) and db of shape (m,), of the inputs' dtype.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError
        When the function is called or traced.
    DeviceError
        When it is called.
    NotImplementedError
        When it is compiled for a GPU.

    Notes
    -----
    With dz = dy · y · (1 − y): dx = dz wᵀ, dw = xᵀ dz, db = Σ dz. With the gradients gx, gw and gb
    of these, those of dy and of y or z are as for `sigmoid_backward`, with g = gx w + x gw + gb,
    and those of x and w are dz gwᵀ and gxᵀ dz. y (or z) and x are independent here.

    Examples
    --------
    >>> import jax.numpy as jnp, gpugrad.jax
    >>> x, w = jnp.ones((4, 2)), jnp.zeros((2, 3))
    >>> y = gpugrad.jax.dense_sigmoid(x, w)
    >>> gpugrad.jax.dense_sigmoid_backward(jnp.ones_like(y), y, x, w, wrt=("b",)).db
    Array([1., 1., 1.], dtype=float32)
    """
    operands = {"dy": dy, "y": y, "x": x, "w": w, "z": z}
    arrays, names = _checked("dense_sigmoid_backward", operands, wrt, precision)
    return DenseGrads(**_apply("dense_sigmoid_backward", arrays, names, precision))


# ---- from a call to the primitive


@dataclass(frozen=True)
class _Traced:
    """What is known of a call when it is traced: everything but its arrays.

    Attributes
    ----------
    op : str
    names, results : tuple of str
        The operands that are read and the results that are wanted, in order.
    precision : str
    save_logits : bool
        Whether a forward pass has its gradient computed from the logits. `dense_sigmoid` then has
        them as an operand, which its result is computed from, and its gradient is that with
        respect to x, w and b.
    batch : int
        So many first dimensions of every array are those of `vmap`: of the whole extent, or of 1
        in an operand that is the same for all.
    """

    op: str
    names: tuple[str, ...]
    results: tuple[str, ...]
    precision: str
    save_logits: bool = False
    batch: int = 0

    @property
    def is_layer_of_logits(self) -> bool:
        return self.op == "dense_sigmoid" and self.save_logits

    @property
    def wrt(self) -> tuple[str, ...]:
        """What a backward pass differentiates with respect to."""
        return tuple(name.removeprefix("d") for name in self.results)

    def shapes(self, operands: Named) -> list[tuple[int, ...]]:
        """Give the shapes of the results, from operands that have one."""
        shapes = {name: tuple(one.shape) for name, one in operands.items()}
        batch = np.broadcast_shapes(*(shape[: self.batch] for shape in shapes.values()))
        own = {name: shape[self.batch :] for name, shape in shapes.items()}
        known = {"dx": own.get("x"), "dw": own.get("w"), "dz": own.get("dy")}
        if "dy" in own:
            known["db"] = own["dy"][-1:]
        elif "z" in own:
            known["y"] = own["z"]
        else:
            known["y"] = (*own["x"][:-1], own["w"][-1])
        return [(*batch, *(known[name] or ())) for name in self.results]

    def compute(self, operands: dict[str, Any], out: Sequence[Any] | None) -> tuple[Any, ...]:
        """Call the function of gpugrad's, for results in new arrays or in given ones."""
        if self.is_layer_of_logits:
            return (gpugrad.sigmoid(operands["z"], out=None if out is None else out[0]),)
        operation = OPERATIONS[self.op]
        options: dict[str, Any] = {}
        if operation.wrt:
            options["wrt"] = self.wrt
        if "w" in operation.operands:
            options["precision"] = self.precision
        if out is not None:
            buffers = dict(zip(self.results, out, strict=True))
            given = tuple(buffers.get(name) for name in operation.results)
            options["out"] = given if len(given) > 1 else given[0]
        operands = dict.fromkeys(operation.operands) | operands
        results = getattr(gpugrad, self.op)(**operands, **options)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(one for one in results if one is not None)


def _checked(
    op: str, operands: Named, wrt: Iterable[str] = (), precision: str = "highest"
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check a call as gpugrad's function would; give its arrays as JAX's, and what wrt names."""
    arrays = {name: _array(op, name, value) for name, value in operands.items()}
    like = {name: None if one is None else _stand_in(one) for name, one in arrays.items()}
    with Call(op, **like) as call:
        call.expect_operands()
        call.expect_precision(precision)
        names = call.expect_wrt(wrt, OPERATIONS[op].wrt)
    if arrays.get("z") is not None:
        arrays.pop("y", None)  # which is not read then
    return {name: one for name, one in arrays.items() if one is not None}, names


def _array(op: str, name: str, value: Any) -> Any:
    if value is None or isinstance(value, jax.Array):
        return value
    if isinstance(value, (jax.typing.ArrayLike, np.generic)):
        return jnp.asarray(value)
    raise DTypeError(
        f"{op}: {name} is a {type(value).__name__}, expected a JAX array, a NumPy array or a number"
    )


def _stand_in(array: Any) -> Any:
    """Give an array of NumPy's that has the shape and dtype of one of JAX's, traced or not."""
    if jnp.issubdtype(array.dtype, jax.dtypes.extended):  # of random keys: no dtype of NumPy's
        return array
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _apply(
    op: str,
    arrays: Named,
    wrt: tuple[str, ...] = (),
    precision: str = "highest",
    *,
    save_logits: bool = False,
) -> dict[str, Any]:
    """Give the results of a call that has been checked, by name, None for those not wanted."""
    operation = OPERATIONS[op]
    wanted = tuple(f"d{name}" for name in wrt) if operation.wrt else operation.results
    results: dict[str, Any] = dict.fromkeys(operation.results)
    if wanted:
        traced = _Traced(op, tuple(arrays), wanted, precision, save_logits)
        made = _primitive.bind(*arrays.values(), traced=traced)
        results |= dict(zip(wanted, made, strict=True))
    return results


def _logits(x: Any, w: Any, b: Any | None = None) -> Any:
    z = _product(x, w)
    return (z if b is None else z + b).astype(x.dtype)


def _product(a: Any, b: Any) -> Any:
    """Multiply matrices in the accumulator's dtype, which 16-bit ones are not yet rounded from."""
    return jnp.matmul(
        a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=_wide(a.dtype)
    )


def _wide(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


# ---- the primitive: computed at once, or compiled


_primitive = Primitive("gpugrad")
_primitive.multiple_results = True


def _shapes_and_dtypes(*operands: Any, traced: _Traced) -> list[Any]:
    if any(map(_varies, operands)):
        raise NotImplementedError(
            f"{traced.op}: gpugrad does not tell jax.shard_map which of its results differ between "
            "devices; pass check_vma=False to it"
        )
    shapes = traced.shapes(dict(zip(traced.names, operands, strict=True)))
    return [jax.core.ShapedArray(shape, operands[0].dtype) for shape in shapes]


def _varies(operand: Any) -> bool:
    """Say whether a value is tracked as different on each device, by the names of any JAX."""
    tracked = getattr(operand, "manual_axis_type", None)
    return bool(getattr(operand, "vma", None) or getattr(tracked, "varying", None))


def _compute(*operands: Any, traced: _Traced) -> list[Any]:
    """Compute a call on concrete arrays, on the CPU or the GPU that they are on."""
    arrays = [one if isinstance(one, jax.Array) else jnp.asarray(one) for one in operands]
    arrays = _on_one_device(arrays)
    committed = any(one.committed for one in arrays)
    with Call(traced.op, **dict(zip(traced.names, arrays, strict=True))) as call:
        shapes = traced.shapes(call.arrays)
        buffers = [_kinds.empty("JAX", call.home, shape, call.dtype)[0] for shape in shapes]
        _fill(traced, call.arrays, buffers)
        if call.home != "cpu":
            return [call.give_back(one) for one in buffers]
    (device,) = arrays[0].devices()
    with jax.default_device(device):  # where results are free to be moved if their operands were
        results: list[Any] = jax.device_put(buffers, device if committed else None)
    return results


def _on_one_device(arrays: list[Any]) -> list[Any]:
    """Move arrays that nobody has placed to where the others are, as JAX does."""
    if all(one.devices() == arrays[0].devices() for one in arrays):
        return arrays
    placed = next((one for one in arrays if one.committed), arrays[0])
    if len(placed.devices()) > 1:  # which is refused, by its name
        return arrays
    return [one if one.committed else jax.device_put(one, placed.sharding) for one in arrays]


def _fill(traced: _Traced, operands: Named, buffers: Sequence[Any]) -> None:
    """Compute results into buffers, one call for each element of the batch."""
    batch = buffers[0].shape[: traced.batch]
    large = sum(one.nbytes for one in buffers) >= IN_PLACE * math.prod(batch)
    for index in np.ndindex(batch):
        some = {name: one[_element(index, one.shape)] for name, one in operands.items()}
        out = [one[(*index, ...)] for one in buffers]
        results = traced.compute(some, out if large else None)
        if not large:
            for buffer, result in zip(out, results, strict=True):
                buffer[...] = result


def _element(index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Index the first dimensions, of which some have an extent of 1 for every index."""
    return (*(min(i, extent - 1) for i, extent in zip(index, shape, strict=False)), ...)


def _call_back(*operands: Any, traced: _Traced) -> list[Any]:
    """Compute a call on the CPU, from within a compiled function."""

    def callback(_: Any, results: Sequence[Any], *operands: Any) -> None:
        # JAX must not be used here: it may wait for the thread that this runs on.
        arrays = dict(zip(traced.names, map(np.asarray, operands), strict=True))
        with _subnormal_numbers():
            _fill(traced, arrays, [np.asarray(one) for one in results])

    results: list[Any] = buffer_callback(callback, _shapes_and_dtypes(*operands, traced=traced))(
        *operands
    )
    return results


@contextmanager
def _subnormal_numbers() -> Iterator[None]:
    """Compute with subnormal numbers, which XLA turns to zeros on its threads.

    Threads that are started meanwhile, as gpugrad's workers may be, would do so ever after.
    """
    if sys.platform != "linux":
        yield
        return
    library, before = _c_library(), ctypes.create_string_buffer(64)  # fenv_t has 32 at most
    library.fegetenv(before)
    library.fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
    try:
        yield
    finally:
        library.fesetenv(before)


@cache
def _c_library() -> ctypes.PyDLL:
    return ctypes.PyDLL(None)


def _refuse(_: Any, *operands: Any, traced: _Traced) -> None:
    raise NotImplementedError(
        f"{traced.op}: gpugrad's kernels cannot be called from within jit on a GPU yet; call it "
        "outside of jit, where arrays on a GPU go to the kernels without a copy"
    )


_primitive.def_impl(_compute)
_primitive.def_abstract_eval(_shapes_and_dtypes)
mlir.register_lowering(_primitive, _refuse)
mlir.register_lowering(
    _primitive, mlir.lower_fun(_call_back, multiple_results=True), platform="cpu"
)


# ---- vmap


def _map(
    operands: Sequence[Any], axes: Sequence[int | None], *, traced: _Traced
) -> tuple[list[Any], list[int]]:
    """Map a call over an axis of some operands: as more rows where it can be."""
    named = list(zip(traced.names, operands, axes, strict=True))
    size = next(one.shape[axis] for _, one, axis in named if axis is not None)
    shared = all(axis is None for name, _, axis in named if name in SHARED)
    as_rows = shared and not any(name in SUMS for name in traced.results)
    at = traced.batch if as_rows else 0  # before the rows' own leading dimensions, or before all
    arrays = []
    for name, one, axis in named:
        array = one
        if axis is not None:
            array = jnp.moveaxis(one, axis, at)
        elif not as_rows:
            array = jnp.expand_dims(one, at)
        elif name not in SHARED:
            shape = (*one.shape[:at], size, *one.shape[at:])
            array = jnp.broadcast_to(jnp.expand_dims(one, at), shape)
        arrays.append(array)
    mapped = traced if as_rows else replace(traced, batch=traced.batch + 1)
    results = _primitive.bind(*arrays, traced=mapped)
    return results, [at] * len(results)


batching.primitive_batchers[_primitive] = _map


# ---- grad


def _differentiate(primals: Sequence[Any], tangents: Sequence[Any], *, traced: _Traced) -> Any:
    """Give results, and their tangents as a linear map that JAX transposes: its custom_vjp's."""
    moving = [i for i, one in enumerate(tangents) if type(one) is not ad.Zero]
    if traced.is_layer_of_logits:
        moving = [i for i in moving if traced.names[i] != "z"]  # whose gradient is that of x, w, b
    wanted = [traced.names[i] for i in moving]

    def forward(*_: Any) -> Any:
        results = _primitive.bind(*primals, traced=traced)
        return results, (primals, results)

    def backward(saved: Any, grads: Any) -> Any:
        operands, results = saved
        return tuple(_mapped_gradients(traced, wanted, operands, results, grads))

    function = jax.custom_vjp(lambda *_: _primitive.bind(*primals, traced=traced))
    function.defvjp(forward, backward)
    return jax.jvp(function, [primals[i] for i in moving], [tangents[i] for i in moving])


ad.primitive_jvps[_primitive] = _differentiate


def _mapped_gradients(
    traced: _Traced,
    wanted: Sequence[str],
    operands: Sequence[Any],
    results: Sequence[Any],
    grads: Sequence[Any],
) -> list[Any]:
    """Give the gradients of the operands that are wanted, in order, None for those that are 0."""

    def rule(operands: Any, results: Any, grads: Any) -> list[Any]:
        found = _gradients(
            replace(traced, batch=0),
            wanted,
            dict(zip(traced.names, operands, strict=True)),
            dict(zip(traced.results, results, strict=True)),
            dict(zip(traced.results, grads, strict=True)),
        )
        return [found.get(name) for name in wanted]

    axes = range(traced.batch)
    single = [tuple(axis for axis in axes if one.shape[axis] == 1) for one in operands]
    for axis in reversed(axes):
        rule = jax.vmap(rule, ([None if axis in ones else 0 for ones in single], 0, 0))
    once = [jnp.squeeze(one, ones) for one, ones in zip(operands, single, strict=True)]
    found = dict(zip(wanted, rule(once, results, grads), strict=True))
    for name, ones in zip(traced.names, single, strict=True):
        if ones and found.get(name) is not None:
            found[name] = found[name].sum(ones, keepdims=True)
    return [found[name] for name in wanted]


def _gradients(
    traced: _Traced, wanted: Sequence[str], operands: Named, results: Named, grads: Named
) -> dict[str, Any]:
    """Give the gradients of operands by functions that have gradients themselves."""
    precision = traced.precision
    if traced.op == "sigmoid":
        logits = operands["z"] if traced.save_logits else None
        return {"z": sigmoid_backward(grads["y"], results["y"], z=logits)}
    if traced.op == "dense_sigmoid":
        dy, x, w = grads["y"], operands["x"], operands["w"]
        layer = dense_sigmoid_backward(
            dy, results["y"], x, w, z=operands.get("z"), wrt=wanted, precision=precision
        )
        return {name: getattr(layer, f"d{name}") for name in wanted}
    found: dict[str, Any] = {}
    dy, y, z = operands["dy"], operands.get("y"), operands.get("z")
    is_linear = y is None and z is None  # dz = dy
    if {"dy", "y", "z"} & set(wanted):
        g, wide = _gradient_of_dz(operands, grads), _wide(dy.dtype)
        if "dy" in wanted:
            found["dy"] = g if is_linear else sigmoid_backward(g, y, z=z)
        if "y" in wanted:
            slope = 1 - 2 * operands["y"].astype(wide)
            found["y"] = (g.astype(wide) * dy.astype(wide) * slope).astype(dy.dtype)
        if "z" in wanted:
            dz = sigmoid_backward(dy, None, z=z)
            slope = -jnp.tanh(operands["z"].astype(wide) / 2)
            found["z"] = (g.astype(wide) * dz.astype(wide) * slope).astype(dy.dtype)
    # With gx and gw in the place of x and w; where there is none, x or w for its shape alone.
    x, w = grads.get("dx", operands.get("x")), grads.get("dw", operands.get("w"))
    wrt = [name for name, of in (("x", "dw"), ("w", "dx")) if name in wanted and of in grads]
    if wrt:
        pair: Any
        if is_linear:
            pair = matmul_backward(dy, x, w, wrt=wrt, precision=precision)
        else:
            pair = dense_sigmoid_backward(dy, y, x, w, z=z, wrt=wrt, precision=precision)
        found |= {name: getattr(pair, f"d{name}") for name in wrt}
    return found


def _gradient_of_dz(operands: Named, grads: Named) -> Any:
    """Add up g = gz + gx w + x gw + gb, of what there is."""
    dy = operands["dy"]
    terms = [grads[name].astype(_wide(dy.dtype)) for name in ("dz", "db") if name in grads]
    if "dx" in grads:
        terms.append(_product(grads["dx"], operands["w"]))
    if "dw" in grads:
        terms.append(_product(operands["x"], grads["dw"]))
    return jnp.broadcast_to(reduce(jnp.add, terms), dy.shape).astype(dy.dtype)
