"""The layer and its backward passes for JAX: under jit, vmap and grad, to any order.

NumPy arrays and numbers are converted as in JAX: to float32 unless ``jax_enable_x64`` is set. All
functions share one primitive with a rule for each transformation:

- Concrete arrays are computed as by gpugrad's own functions, on their device.
- Compiled for the CPU, it is a callback that reads and writes XLA's buffers in place. Compiled for
  any other platform, it is an error. Arrays on several devices are computed as a whole on each;
  `jax.shard_map` with ``check_vma=False`` computes their parts separately.
- Differentiated, it is a `jax.custom_vjp` of the functions here, which can be differentiated again.
  Only the wanted gradients are computed.
- Mapped by `vmap` with unmapped w and b, it is one call with one more leading dimension, and so is
  its gradient. Otherwise it is a call per element, in one callback.

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
if jax.__version_info__ < (0, 7, 2):  # its XLA crashes when it compiles some callbacks
    message = "gpugrad.jax needs JAX 0.7.2 or newer (pip install -U 'gpugrad[jax]')"
    raise ImportError(message, name="jax")

from gpugrad.jax import transformations as _transformations  # noqa: F401  # registers the rules
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
