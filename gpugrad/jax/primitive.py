"""The primitive that stands for every function: what is known of a call, and how it is computed."""

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

IN_PLACE = 1 << 20  # bytes of results that take longer to copy than their buffers to check


@dataclass(frozen=True)
class Traced:
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
        """Whether this is a forward pass that has its logits as an operand."""
        return self.op == "dense_sigmoid" and self.save_logits

    @property
    def wrt(self) -> tuple[str, ...]:
        """What a backward pass differentiates with respect to."""
        return tuple(name.removeprefix("d") for name in self.results)

    def shapes(self, operands: Named) -> list[tuple[int, ...]]:
        """Return the shapes of the results, from operands that have one."""
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


primitive = Primitive("gpugrad")
primitive.multiple_results = True


def _shapes_and_dtypes(*operands: Any, traced: Traced) -> list[Any]:
    if any(map(_varies, operands)):
        raise NotImplementedError(
            f"{traced.op}: gpugrad does not tell jax.shard_map which of its results differ between "
            "devices; pass check_vma=False to it"
        )
    shapes = traced.shapes(dict(zip(traced.names, operands, strict=True)))
    return [jax.core.ShapedArray(shape, operands[0].dtype) for shape in shapes]


def _varies(operand: Any) -> bool:
    """Return whether a value is tracked as different on each device, by the names of any JAX."""
    tracked = getattr(operand, "manual_axis_type", None)
    return bool(getattr(operand, "vma", None) or getattr(tracked, "varying", None))


def _compute(*operands: Any, traced: Traced) -> list[Any]:
    """Compute a call on concrete arrays, on the CPU or the GPU that they are on."""
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


def _fill(traced: Traced, operands: Named, buffers: Sequence[Any]) -> None:
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


def _call_back(*operands: Any, traced: Traced) -> list[Any]:
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


def _refuse(_: Any, *operands: Any, traced: Traced) -> None:
    raise NotImplementedError(
        f"{traced.op}: gpugrad's kernels cannot be called from within jit on a GPU yet; call it "
        "outside of jit, where arrays on a GPU go to the kernels without a copy"
    )


primitive.def_impl(_compute)
primitive.def_abstract_eval(_shapes_and_dtypes)
mlir.register_lowering(primitive, _refuse)
mlir.register_lowering(primitive, mlir.lower_fun(_call_back, multiple_results=True), platform="cpu")
