"""The primitive of all functions: how a call is traced, and computed on concrete arrays."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive

from gpugrad.jax.traced import Traced

primitive = Primitive("gpugrad")
primitive.multiple_results = True


def bind(traced: Traced, *operands: Any) -> list[Any]:
    """Trace a call, or compute it where nothing is traced.

    Within `jax.shard_map` all operands vary over the same axes of its mesh: where one is the same
    on all devices, its gradient is their sum.
    """
    varying = [axes_that_vary(one) for one in operands]
    every = frozenset().union(*varying)
    same = [
        jax.lax.pcast(one, tuple(every - axes), to="varying") if every - axes else one
        for one, axes in zip(operands, varying, strict=True)
    ]
    results: list[Any] = primitive.bind(*same, traced=traced)
    return results


def axes_that_vary(value: Any) -> frozenset[Any]:
    """Return the axes of a mesh over which `jax.shard_map` knows that a value varies."""
    return frozenset(getattr(jax.typeof(value).manual_axis_type, "varying", ()))


def types_of_results(traced: Traced, *operands: Any) -> list[Any]:
    """Return the abstract values of the results."""
    shapes = traced.shapes(dict(zip(traced.names, operands, strict=True)))
    return [operands[0].update(shape=shape, weak_type=False) for shape in shapes]


def _compute(*operands: Any, traced: Traced) -> Sequence[Any]:
    """Compute a call on concrete arrays, on their device."""
    arrays = [jnp.asarray(one) for one in operands]
    placed = [one for one in arrays if one.committed]
    if any(len(one.devices()) > 1 for one in placed):
        results: Sequence[Any] = jax.jit(lambda *some: bind(traced, *some))(*arrays)
        return results
    if placed:  # the others follow, as JAX has them do
        arrays = [
            one if one.committed else jax.device_put(one, placed[0].sharding) for one in arrays
        ]
    (device,) = arrays[0].devices()
    if device.platform != "cpu" or any(one.devices() != {device} for one in arrays):
        return traced.compute(dict(zip(traced.names, arrays, strict=True)))
    made = traced.compute(dict(zip(traced.names, map(np.asarray, arrays), strict=True)))
    with jax.default_device(device):  # uncommitted results of uncommitted operands
        put: Sequence[Any] = jax.device_put(made, device if placed else None)
    return put


primitive.def_impl(_compute)
primitive.def_abstract_eval(lambda *operands, traced: types_of_results(traced, *operands))
