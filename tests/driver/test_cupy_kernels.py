"""CuPy's kernels on the played driver compute what NumPy does, or say that they are not played."""

import ml_dtypes
import numpy as np
import pytest

from tests import driver
from tests.conftest import ON_A_GPU

DTYPES = ("f8", "f4", "f2", ml_dtypes.bfloat16)
pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played"),
]


def small(dtype):
    """Integers whose sums and products are exact in every dtype."""
    return (np.arange(12).reshape(3, 4) % 5 - 1).astype(dtype)


def same(result, expected):
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(result.get(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_reductions(dtype, axis):
    import cupy

    host = small(dtype)
    for view in (lambda a: a, lambda a: a[::-1, ::2], lambda a: a.T):
        array, expected = view(cupy.asarray(host)), view(host)
        same(array.sum(axis=axis), expected.sum(axis=axis, dtype="f8").astype(dtype))
        same(array.max(axis=axis), expected.max(axis=axis))
    same(cupy.asarray(host[:0]).sum(axis=axis), host[:0].sum(axis=axis))
    same(cupy.isfinite(cupy.asarray(host)).all(axis=axis), np.isfinite(host).all(axis=axis))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ufuncs(dtype):
    import cupy

    host = small(dtype)
    array = cupy.asarray(host)
    same(cupy.square(array), np.square(host))
    same(cupy.sqrt(cupy.square(array)), np.sqrt(np.square(host)))
    same(1 - array[:, ::2] * array[:, 1::2], 1 - host[:, ::2] * host[:, 1::2])
    same(array.astype("f8"), host.astype("f8"))
    same(array.view(f"u{host.itemsize}") << np.uint8(1), host.view(f"u{host.itemsize}") << 1)
    same(cupy.full((2, 3), array[1, 1]), np.full((2, 3), host[1, 1]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_of_callers(dtype):
    """Statements of types of their own, on arrays and on a number."""
    import cupy

    kernel = cupy.ElementwiseKernel(
        "T a, T b, float32 c",
        "T product, float32 scaled",
        "const float wide = a; product = T(wide * b); scaled = c * exp(wide - wide)",
        "caller",
    )
    host = small(dtype)
    product, scaled = kernel(cupy.asarray(host)[::2], cupy.asarray(host)[1], 3)
    same(product, host[::2] * host[1])
    same(scaled, np.full((2, 4), 3, "f4"))


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda cupy, x: x.argmax(), "the reduction cupy_argmax of CuPy is not played"),
        (lambda cupy, x: cupy.where(x > 0, x, 0), "the ufunc where of CuPy is not played"),
        (
            lambda cupy, x: cupy.ElementwiseKernel("T x", "T y", "y = x > 1 ? x : 1", "larger")(x),
            "larger: `y = x > 1 ? x : 1` is not played",
        ),
        (
            lambda cupy, x: cupy.RawKernel('extern "C" __global__ void raw(float *x) {}', "raw")(
                (1,), (1,), (x,)
            ),
            "the kernel raw is none that CuPy generates",
        ),
    ],
)
def test_what_is_not_played_says_so(work, says):
    import cupy

    work(cupy, cupy.ones(3, "f4"))
    try:
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorLaunchFailure"):
            cupy.cuda.Device().synchronize()
        assert says in driver.refusals()
    finally:
        driver.recover()
