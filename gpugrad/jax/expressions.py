"""The operations as JAX's own expressions: for what vmap and forward mode make of them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gpugrad.jax.traced import Traced


def wide(dtype: Any) -> Any:
    """Return the accumulator's dtype."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def product(a: Any, b: Any) -> Any:
    """Multiply matrices; return the product in the accumulator's dtype."""
    return jnp.matmul(
        a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=wide(a.dtype)
    )


def logits(x: Any, w: Any, b: Any | None = None) -> Any:
    """Return z = x w + b in the accumulator's dtype."""
    z = product(x, w)
    return z if b is None else z + jnp.broadcast_to(b.astype(z.dtype), z.shape)


def _tangent_of_sigmoid(primals: Any, tangents: Any) -> Any:
    (z,), (dz,) = primals, tangents
    return _sigmoid_of_logits(z), dz * slope_at(z)


_sigmoid_of_logits = jax.custom_jvp(jax.nn.sigmoid)
_sigmoid_of_logits.defjvp(_tangent_of_sigmoid)


def slope_at(z: Any) -> Any:
    """Return σ(z) σ(−z), which is right where σ(z) has rounded to 1."""
    return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)


def expression(traced: Traced, operands: Mapping[str, Any]) -> list[Any]:
    """Return the results of a call: computed in the accumulator's dtype and rounded once.

    A forward pass that has its logits as an operand depends on x, w and b, as its gradient does.
    """
    dtype = next(iter(operands.values())).dtype
    known = {name: one.astype(wide(dtype)) for name, one in operands.items()}
    if traced.is_forward:
        sigmoid = _sigmoid_of_logits if traced.save_logits else jax.nn.sigmoid
        if traced.op == "dense_sigmoid":
            z = logits(*(known[name] for name in ("x", "w", "b") if name in known))
            if traced.save_logits:
                z = z.astype(dtype).astype(z.dtype)  # as the operand is
        else:
            z = known["z"]
        known["y"] = sigmoid(z)
    else:
        dz = known["dy"]
        if "z" in known:
            dz = dz * slope_at(known["z"])
        elif "y" in known:
            dz = dz * known["y"] * (1 - known["y"])
        known["dz"] = dz
        rows = dz.reshape(-1, *dz.shape[-1:])
        if "dx" in traced.results:
            known["dx"] = product(dz, known["w"].T)
        if "dw" in traced.results:
            x = known["x"]
            known["dw"] = product(x.reshape(len(rows), x.shape[-1]).T, rows)
        if "db" in traced.results:
            known["db"] = rows.sum(0)
    return [known[name].astype(dtype) for name in traced.results]
