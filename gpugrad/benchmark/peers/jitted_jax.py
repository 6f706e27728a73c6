"""JAX: the gradient function of the layer's own forward pass, compiled by jit.

The forward pass is made once; what it keeps for the gradients is an argument of what is compiled.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpugrad.benchmark.peers import Implementation


def facts() -> dict[str, Any]:
    """Return the version; how many threads it has JAX does not say."""
    import jax

    return {"version": jax.__version__}


def implementations(op: str, operands: Mapping[str, Any], device: str) -> list[Implementation]:
    """Return the compiled function; its time is taken on the host, until the results are there."""
    import jax

    try:
        place = jax.devices("cpu" if device == "cpu" else "gpu")[0]
    except RuntimeError:  # it has no such device
        return []
    with _float64():
        given = {name: jax.device_put(_host(one), place) for name, one in operands.items()}
        call = _compiled(op, given)
    name = "JAX GPU" if device == "gpu" else "JAX"
    finished = functools.partial(_finished, call)
    return [Implementation(name, finished, np.asarray, "cpu", _float64)]


@contextmanager
def _float64() -> Iterator[None]:
    """Let JAX make float64 arrays, and multiply float32 ones by IEEE arithmetic."""
    import jax

    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


def _finished(call: Callable[[], Any]) -> Any:
    import jax

    return jax.block_until_ready(call())


def _host(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else array


def _compiled(op: str, one: Mapping[str, Any]) -> Callable[[], Any]:
    import jax

    sigma, numpy = jax.nn.sigmoid, jax.numpy

    def dense(x: Any, w: Any, b: Any) -> Any:
        return sigma(x @ w + b)

    if op == "sigmoid":
        return functools.partial(jax.jit(sigma), one["z"])
    if op == "dense_sigmoid":
        return functools.partial(jax.jit(dense), one["x"], one["w"], one["b"])
    dy = one["dy"]
    b = numpy.zeros_like(dy[0])
    layers: dict[str, tuple[Any, tuple[str, ...]]] = {
        "matmul_backward": (lambda x, w: x @ w, ("x", "w")),
        "bias_backward": (lambda b: numpy.broadcast_to(b, dy.shape), ("b",)),
        "sigmoid_backward": (sigma, ("z",)),
        "sigmoid_bias_backward": (lambda z, b: sigma(z + b), ("z", "b")),
        "dense_sigmoid_backward": (dense, ("x", "w", "b")),
    }
    layer, names = layers[op]
    _, gradient = jax.vjp(layer, *({**one, "b": b}[name] for name in names))
    return functools.partial(jax.jit(lambda gradient, dy: gradient(dy)), gradient, dy)
