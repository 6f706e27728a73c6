"""The primitive of all functions: its static parameters, evaluation and lowering."""

import ctypes
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from jax.extend.core import Primitive
from jax.interpreters import mlir

import gpugrad
from gpugrad.arrays import kinds
from gpugrad.arrays.call import Call
from gpugrad.operations import OPERATIONS

Named = Mapping[str, Any]

IN_PLACE = 1 << 20  # bytes of results from which on `out` is faster than a copy


@dataclass(frozen=True)
class Traced:
    """The static parameters of a traced call.

    Attributes
    ----------
    op : str
    names, results : tuple of str
        The operands that are read and the results that are wanted, in order.
    precision : str
    save_logits : bool
        Whether the gradient of a forward pass is computed from the logits. `dense_sigmoid` then has
        the logits as an operand and computes its result from them; its gradients are those of x, w
        and b.
    batch : int
        Number of leading dimensions that `vmap` added. Their extent is 1 in operands that are not
        mapped.
    """

    op: str
    names: tuple[str, ...]
    results: tuple[str, ...]
    precision: str
    save_logits: bool = False
    batch: int = 0

    @property
    def is_layer_of_logits(self) -> bool:
        """Whether this is `dense_sigmoid` with its logits as an operand."""
        return self.op == "dense_sigmoid" and self.save_logits

    @property
    def wrt(self) -> tuple[str, ...]:
        """The inputs that a backward pass differentiates with respect to."""
        return tuple(name.removeprefix("d") for name in self.results)

    def shapes(self, operands: Named) -> list[tuple[int, ...]]:
        """Return the shapes of the results."""
        shapes = {name: tuple(one.shape) for name, one in operands.items()}
        batch = np.broadcast_shapes(*(shape[: self.batch] for shape in shapes.values()))
        own = {name: shape[self.batch :] for name, shape in shapes.items()}
        found = OPERATIONS[self.op].result_shapes(own)
        return [(*batch, *found[name]) for name in self.results]

    def compute(self, operands: dict[str, Any], out: Sequence[Any] | None) -> tuple[Any, ...]:
        """Call gpugrad's function, with results in new arrays or in `out`."""
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


primitive = Primitive("gpugrad")
primitive.multiple_results = True


def _shapes_and_dtypes(*operands: Any, traced: Traced) -> list[Any]:
    if any(map(_varies, operands)):
        raise NotImplementedError(
            f"{traced.op}: gpugrad does not support check_vma in jax.shard_map; "
            "pass check_vma=False to it"
        )
    shapes = traced.shapes(dict(zip(traced.names, operands, strict=True)))
    return [jax.core.ShapedArray(shape, operands[0].dtype) for shape in shapes]


def _varies(operand: Any) -> bool:
    """Return whether shard_map tracks a value as varying over devices, in any version of JAX."""
    tracked = getattr(operand, "manual_axis_type", None)
    return bool(getattr(operand, "vma", None) or getattr(tracked, "varying", None))


def _compute(*operands: Any, traced: Traced) -> list[Any]:
    """Compute a call on concrete arrays, on their device."""
    arrays = [one if isinstance(one, jax.Array) else jnp.asarray(one) for one in operands]
    arrays = _on_one_device(arrays)
    committed = any(one.committed for one in arrays)
    with Call(traced.op, **dict(zip(traced.names, arrays, strict=True))) as call:
        shapes = traced.shapes(call.arrays)
        buffers = [kinds.empty("JAX", call.device, shape, call.dtype)[0] for shape in shapes]
        _fill(traced, call.arrays, buffers)
        if call.device != "cpu":
            return [call.wrap_result(one) for one in buffers]
    (device,) = arrays[0].devices()
    with jax.default_device(device):  # uncommitted results of uncommitted operands
        results: list[Any] = jax.device_put(buffers, device if committed else None)
    return results


def _on_one_device(arrays: list[Any]) -> list[Any]:
    """Move uncommitted arrays to the device of the committed ones, as JAX does."""
    if all(one.devices() == arrays[0].devices() for one in arrays):
        return arrays
    placed = next((one for one in arrays if one.committed), arrays[0])
    if len(placed.devices()) > 1:  # rejected by Call, with its name
        return arrays
    return [one if one.committed else jax.device_put(one, placed.sharding) for one in arrays]


def _fill(traced: Traced, operands: Named, buffers: Sequence[Any]) -> None:
    """Compute results into buffers, with a call per element of the batch."""
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
    """Return the index of an element in the batch dimensions, some of extent 1."""
    return (*(min(i, extent - 1) for i, extent in zip(index, shape, strict=False)), ...)


def _call_back(*operands: Any, traced: Traced) -> list[Any]:
    """Compute a call on the CPU in a compiled function."""

    def callback(_: Any, results: Sequence[Any], *operands: Any) -> None:
        # Do not use JAX here: it could wait for this thread.
        arrays = dict(zip(traced.names, map(np.asarray, operands), strict=True))
        with _subnormal_numbers():
            _fill(traced, arrays, [np.asarray(one) for one in results])

    results: list[Any] = buffer_callback(callback, _shapes_and_dtypes(*operands, traced=traced))(
        *operands
    )
    return results


@contextmanager
def _subnormal_numbers() -> Iterator[None]:
    """Enable subnormal numbers, which XLA's threads flush to zero.

    Threads started meanwhile, such as gpugrad's workers, inherit the setting.
    """
    if sys.platform != "linux":
        yield
        return
    library, before = _c_library(), ctypes.create_string_buffer(64)  # fenv_t has at most 32 bytes
    library.fegetenv(before)
    library.fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
    try:
        yield
    finally:
        library.fesetenv(before)


@cache
def _c_library() -> ctypes.PyDLL:
    return ctypes.PyDLL(None)


def _refuse(_: Any, *operands: Any, traced: Traced) -> None:
    raise NotImplementedError(
        f"{traced.op}: gpugrad's kernels cannot be called from within jit on a GPU yet; call it "
        "outside of jit, where arrays on a GPU go to the kernels without a copy"
    )


primitive.def_impl(_compute)
primitive.def_abstract_eval(_shapes_and_dtypes)
mlir.register_lowering(primitive, _refuse)
mlir.register_lowering(primitive, mlir.lower_fun(_call_back, multiple_results=True), platform="cpu")
