"""A gated linear unit of the library's calls: a linear branch times a sigmoid branch.

    python examples/gated_linear_unit.py

With u = x v and the gate g = σ(x w + b) the unit is y = u ∘ g, and for dy = ∂E/∂y

    du = dy ∘ g      dv = xᵀ du      dx = du vᵀ + what the gate adds
    dg = dy ∘ u      dw, db and that part of dx: the gradients of a dense sigmoid layer

The gradients are checked against finite differences. Then the unit learns the larger of two
numbers, which no linear function is.
"""

import argparse
import sys

import numpy as np

try:
    import gpugrad
except ImportError as error:
    print(f"gated_linear_unit: {error}; pip install . brings it", file=sys.stderr)
    sys.exit(2)

POINTS, INPUTS, UNITS = 1000, 2, 8
LEARNING_RATE, MOMENTUM = 0.3, 0.9
EPOCHS = 1000
EXPECTED = 0.05  # error of what was learnt, relative to that of the best linear function


def glu(x, v, w, b):
    """Return y = (x v) ∘ σ(x w + b)."""
    return (x @ v) * gpugrad.dense_sigmoid(x, w, b)


def glu_backward(dy, x, v, w, b):
    """Return dx, dv, dw and db; the branches are computed anew."""
    u, g = x @ v, gpugrad.dense_sigmoid(x, w, b)
    dx, dv = gpugrad.matmul_backward(dy * g, x, v)
    _, dw, db = gpugrad.dense_sigmoid_backward(
        dy * u, g, x, w, out=(dx, None, None), accumulate=True
    )  # dx has the linear branch's part, to which the gate's is added
    return dx, dv, dw, db


def check(random):
    """Compare all gradients with finite differences; GradcheckError where one is wrong."""
    sizes = {"x": (7, 5), "v": (5, 3), "w": (5, 3), "b": (3,)}
    found = gpugrad.gradcheck(
        glu, glu_backward, [random.standard_normal(size) for size in sizes.values()]
    )
    print(
        f"gradients of {', '.join(sizes)}: right within {found.error:.1e} in {found.trials} random "
        f"directions ({found.tolerance:.0e} is allowed)"
    )


def learn(random, epochs):
    """Learn max(x₁, x₂); give the mean square of the errors on other points, and a line's."""
    x, unseen = random.standard_normal((2, POINTS, INPUTS))
    target, truth = x.max(axis=1), unseen.max(axis=1)

    v, w = 0.5 * random.standard_normal((2, INPUTS, UNITS))
    parameters = (v, w, np.zeros(UNITS))
    speeds = [np.zeros_like(one) for one in parameters]
    for _ in range(epochs):
        error = glu(x, *parameters).sum(axis=1) - target  # the units are added up
        dy = np.broadcast_to(error[:, None] / POINTS, (POINTS, UNITS))
        _, *gradients = glu_backward(dy, x, *parameters)
        for parameter, gradient, speed in zip(parameters, gradients, speeds, strict=True):
            speed *= MOMENTUM
            speed -= LEARNING_RATE * gradient
            parameter += speed
    learnt = glu(unseen, *parameters).sum(axis=1)

    line, *_ = np.linalg.lstsq(np.c_[x, np.ones(POINTS)], target)
    fitted = np.c_[unseen, np.ones(POINTS)] @ line
    return np.mean((learnt - truth) ** 2), np.mean((fitted - truth) ** 2)


def main():
    """Check, learn, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"over the points ({EPOCHS})")
    parser.add_argument("--seed", type=int, default=0, help="of points and weights (0)")
    options = parser.parse_args()
    if options.epochs < 1 or options.seed < 0:
        parser.error("--epochs has to be at least 1, and --seed at least 0")
    random = np.random.default_rng(options.seed)
    try:
        check(random)
    except gpugrad.GradcheckError as error:
        sys.exit(f"gated_linear_unit: {error}")

    unit, line = learn(random, options.epochs)
    print(
        f"max(x₁, x₂) on unseen points, after {options.epochs} epochs: mean squared error "
        f"{unit:.1e}, by the best linear function {line:.1e}"
    )
    if options.epochs >= EPOCHS and unit > EXPECTED * line:
        sys.exit(f"gated_linear_unit: expected {EXPECTED} of the linear function's error")


if __name__ == "__main__":
    main()
