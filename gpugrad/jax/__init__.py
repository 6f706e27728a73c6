"""The layer and its backward passes for JAX: under jit, vmap and grad, to any order.

NumPy arrays and numbers are converted as in JAX: to float32 unless ``jax_enable_x64`` is set. All
functions share one primitive with a rule for each transformation:

- Concrete arrays are computed as by gpugrad's own functions, on the CPU or the GPU they are on.
- Compiled for a CPU or an NVIDIA GPU, it is a callback that reads and writes XLA's buffers in
  place, on XLA's stream. Within `jax.shard_map` each device computes its part.
- Its tangents are a primitive of their own, linear in the tangents of the operands. Forward mode
  computes them by JAX's own expression; transposed they are one call of a backward pass, made of
  the functions here, so that a gradient can be differentiated again. Only what is asked for is
  computed.
- Mapped over rows with w and b in common, it is one call with one more leading dimension, and so
  is its gradient. Mapped in any other way it is JAX's own expression, which XLA batches.

Every backward pass is dz = dy · s with s = y (1 − y), σ(z) σ(−z) or 1, dx = dz wᵀ, dw = xᵀ dz and
db = Σ dz, for independent dy, y (or z), x and w. With the gradients gz, gx, gw and gb of its
results, the chain rule gives g = gz + gx w + x gw + gb for dz, and

    for dy  g · s                          for x  dz gwᵀ
    for y   g · dy · (1 − 2 y)             for w  gxᵀ dz
    for z   −g · dz · tanh(z / 2)

Those for x and w are a backward pass again, with gx and gw for x and w.
"""

try:
    import jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    message = "gpugrad.jax needs JAX (pip install 'gpugrad[jax]')"
    raise ModuleNotFoundError(message, name="jax") from None
if jax.__version_info__ < (0, 10):
    message = "gpugrad.jax needs JAX 0.10 or newer (pip install -U 'gpugrad[jax]')"
    raise ImportError(message, name="jax")

from gpugrad.jax import lowering as _lowering  # noqa: F401  # registers the primitive's rules
from gpugrad.jax import transformations as _transformations  # noqa: F401
from gpugrad.jax.functions import (
    bias_backward,
    dense_sigmoid,
    dense_sigmoid_backward,
    matmul_backward,
    sigmoid,
    sigmoid_backward,
    sigmoid_bias_backward,
)

__all__ = [
    "bias_backward",
    "dense_sigmoid",
    "dense_sigmoid_backward",
    "matmul_backward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_bias_backward",
]
