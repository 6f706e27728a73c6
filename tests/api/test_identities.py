"""The element-wise Jacobians behind every rule, entry by entry, and their contraction with B.

In the notation of the derivation: A is the output, D the input, W the weights, b the bias and
B = ∂E/∂A. Each ∂A_ij/∂(…)_kl is a product of Kronecker deltas, found here by differences of the
function itself, and Σ_ij B_ij ∂A_ij/∂(…)_kl is what the library must return.
"""

import numpy as np
import pytest

import gpugrad
from tests.support.cases import random_array
from tests.support.operations import compute

I, K, J = 4, 3, 5  # rows of D, columns of D, columns of A
STEP = 2.0**-12


def jacobian(f, at):
    """∂f_i…/∂at_k…, by central differences extrapolated once: exact for what is bilinear."""
    columns = []
    for index in np.ndindex(at.shape):
        unit = np.zeros_like(at)
        unit[index] = 1
        near, far = ((f(at + h * unit) - f(at - h * unit)) / (2 * h) for h in (STEP, 2 * STEP))
        columns.append((4 * near - far) / 3)
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *at.shape)


def assert_same(result, expected):
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-10)


@pytest.fixture
def arrays():
    shapes = {"D": (I, K), "W": (K, J), "b": (J,), "B": (I, J), "Z": (I, J)}
    return {
        name: np.clip(random_array(shape, "float64", seed), -3, 3)
        for seed, (name, shape) in enumerate(shapes.items())
    }


def test_product_by_the_weights(backend, arrays):
    """∂A_ij/∂W_kl = D_ik δ_jl, so that ∂E/∂W = Dᵀ B."""
    D, W, B = arrays["D"], arrays["W"], arrays["B"]  # noqa: N806  (the derivation's names)
    entries = np.einsum("ik,jl->ijkl", D, np.eye(J))
    assert_same(jacobian(lambda w: D @ w, W), entries)
    result = compute(backend, "matmul_backward", {"dy": B, "x": D, "w": W})["dw"]
    assert_same(result, np.einsum("ij,ijkl->kl", B, entries))


def test_product_by_the_input(backend, arrays):
    """∂A_ij/∂D_kl = δ_ik W_lj, so that ∂E/∂D = B Wᵀ."""
    D, W, B = arrays["D"], arrays["W"], arrays["B"]  # noqa: N806
    entries = np.einsum("ik,lj->ijkl", np.eye(I), W)
    assert_same(jacobian(lambda x: x @ W, D), entries)
    result = compute(backend, "matmul_backward", {"dy": B, "x": D, "w": W})["dx"]
    assert_same(result, np.einsum("ij,ijkl->kl", B, entries))


def test_bias_by_the_input(arrays):
    """∂A_ij/∂D_kl = δ_ik δ_jl, so that ∂E/∂D = B: no function computes it."""
    Z, b, B = arrays["Z"], arrays["b"], arrays["B"]  # noqa: N806
    entries = np.einsum("ik,jl->ijkl", np.eye(I), np.eye(J))
    assert_same(jacobian(lambda z: z + b, Z), entries)
    assert_same(B, np.einsum("ij,ijkl->kl", B, entries))


def test_bias_by_the_bias(backend, arrays):
    """∂A_ij/∂b_k = δ_jk for every i, so that ∂E/∂b_k = Σ_i B_ik."""
    Z, b, B = arrays["Z"], arrays["b"], arrays["B"]  # noqa: N806
    entries = np.broadcast_to(np.eye(J), (I, J, J))
    assert_same(jacobian(lambda c: Z + c, b), entries)
    result = compute(backend, "bias_backward", {"dy": B})["db"]
    assert_same(result, np.einsum("ij,ijk->k", B, entries))


def test_derivative_of_the_sigmoid(backend):
    """σ'(t) = σ(t)(1 − σ(t)) = σ(t) σ(−t)."""
    t = np.linspace(-6, 6, 49)

    def sigmoid(z):
        return compute(backend, "sigmoid", {"z": z})["y"]

    derivative = np.diagonal(jacobian(sigmoid, t))
    assert_same(derivative, sigmoid(t) * (1 - sigmoid(t)))
    assert_same(derivative, sigmoid(t) * sigmoid(-t))
    ones = np.ones_like(t)
    for from_z in (False, True):
        arrays = {"dy": ones, "y": sigmoid(t), "z": t}
        assert_same(compute(backend, "sigmoid_backward", arrays, from_z=from_z)["dz"], derivative)


def test_sigmoid_by_the_input(backend, arrays):
    """∂A_ij/∂D_kl = δ_ik δ_jl A_ij (1 − A_ij), so that ∂E/∂D_kl = B_kl A_kl (1 − A_kl)."""
    Z, B = arrays["Z"], arrays["B"]  # noqa: N806
    A = compute(backend, "sigmoid", {"z": Z})["y"]  # noqa: N806
    entries = np.einsum("ik,jl,ij->ijkl", np.eye(I), np.eye(J), A * (1 - A))
    assert_same(jacobian(lambda z: compute(backend, "sigmoid", {"z": z})["y"], Z), entries)
    for from_z in (False, True):
        result = compute(backend, "sigmoid_backward", {"dy": B, "y": A, "z": Z}, from_z=from_z)
        assert_same(result["dz"], np.einsum("ij,ijkl->kl", B, entries))


def test_the_whole_layer(backend, arrays):
    """The three together: the layer's own Jacobians contracted with B."""
    at = {"x": arrays["D"], "w": arrays["W"], "b": arrays["b"]}

    def layer(**changed):
        return compute(backend, "dense_sigmoid", at | changed)["y"]

    for from_z in (False, True):
        logits = at["x"] @ at["w"] + at["b"]
        operands = {"dy": arrays["B"], "y": layer(), "z": logits, **at}
        grads = compute(backend, "dense_sigmoid_backward", operands, from_z=from_z)
        for name, value in at.items():
            entries = jacobian(lambda one, name=name: layer(**{name: one}), value)
            expected = np.tensordot(arrays["B"], entries, axes=2)
            assert_same(grads[f"d{name}"], expected)


def test_dz_and_db_in_one_pass(backend, arrays):
    at = {"z": arrays["Z"], "b": arrays["b"]}

    def layer(**changed):
        both = at | changed
        return compute(backend, "sigmoid", {"z": both["z"] + both["b"]})["y"]

    grads = compute(backend, "sigmoid_bias_backward", {"dy": arrays["B"], "y": layer()})
    for name, value in at.items():
        entries = jacobian(lambda one, name=name: layer(**{name: one}), value)
        assert_same(grads[f"d{name}"], np.tensordot(arrays["B"], entries, axes=2))


def test_gradcheck_of_every_function(backend, arrays):
    """The same by random directions: the check that users have for their own functions."""

    def check(f, vjp, *inputs):
        found = gpugrad.gradcheck(f, vjp, [backend.array(one) for one in inputs])
        assert found.error <= found.tolerance

    call = backend.call
    D, W, b, Z = (arrays[name] for name in "DWbZ")  # noqa: N806

    def product(x, w):  # CuPy's own needs cuBLAS
        return (x[:, :, None] * w).sum(axis=1)

    check(product, lambda u, x, w: call(gpugrad.matmul_backward, u, x, w), D, W)
    check(
        lambda z, b: z + b,
        lambda u, z, b: (u, call(gpugrad.bias_backward, u)),
        Z,
        b,
    )
    check(
        lambda z: call(gpugrad.sigmoid, z),
        lambda u, z: call(gpugrad.sigmoid_backward, u, call(gpugrad.sigmoid, z)),
        Z,
    )
    check(
        lambda z, b: call(gpugrad.sigmoid, z + b),
        lambda u, z, b: call(gpugrad.sigmoid_bias_backward, u, None, z=z + b),
        Z,
        b,
    )
    check(
        lambda x, w, b: call(gpugrad.dense_sigmoid, x, w, b),
        lambda u, x, w, b: call(
            gpugrad.dense_sigmoid_backward, u, call(gpugrad.dense_sigmoid, x, w, b), x, w
        ),
        D,
        W,
        b,
    )


@pytest.mark.parametrize("from_logits", [False, True])
def test_the_gradients_of_the_gradients(arrays, from_logits):
    """∂F/∂dy, ∂F/∂y (or ∂F/∂z), ∂F/∂x and ∂F/∂w of any F that depends on dx, dw and db."""
    D, W, B, Z = (arrays[name] for name in "DWBZ")  # noqa: N806

    def gradients(dy, y_or_z, x, w):
        y, z = (None, y_or_z) if from_logits else (y_or_z, None)
        return tuple(gpugrad.dense_sigmoid_backward(dy, y, x, w, z=z))

    def vjp(u, dy, y_or_z, x, w):
        gx, gw, gb = u
        y, z = (None, y_or_z) if from_logits else (y_or_z, None)
        g = gx @ w + x @ gw + gb
        dz = gpugrad.sigmoid_backward(dy, y, z=z)
        by_y_or_z = -g * dz * np.tanh(z / 2) if from_logits else g * dy * (1 - 2 * y)
        by_x, by_w = gpugrad.matmul_backward(dz, gx, gw)
        return gpugrad.sigmoid_backward(g, y, z=z), by_y_or_z, by_x, by_w

    gpugrad.gradcheck(gradients, vjp, [B, Z if from_logits else gpugrad.sigmoid(Z), D, W])
