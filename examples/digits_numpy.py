"""Train two dense sigmoid layers on handwritten digits, by the calls for NumPy arrays alone.

    python examples/digits_numpy.py [--device gpu]

A batch is computed in parts, whose gradients are added up in buffers: what does not fit into memory
at once is trained so. With --device gpu the same lines compute CuPy arrays on a GPU.
"""

import argparse
import sys

import numpy as np

try:
    from sklearn.datasets import load_digits

    import gpugrad
except ImportError as error:
    print(f"digits_numpy: {error}; pip install '.[demo]' brings it", file=sys.stderr)
    sys.exit(2)

PIXELS, HIDDEN, DIGITS = 64, 64, 10
LEARNT = 1347  # of the 1797 digits that scikit-learn has; three quarters
BATCH, PART = 32, 16
LEARNING_RATE = 0.01
EPOCHS = 30
EXPECTED = 0.95  # of the unseen digits are read after that many epochs


def arrays_on(device):
    """Return the module whose arrays live there: NumPy or CuPy."""
    if device == "cpu":
        return np
    gpugrad.sigmoid(np.zeros(1), device="gpu")  # a DeviceError says what is missing
    import cupy

    return cupy


def gradients(x, target, parameters, sums):
    """Set `sums` to the gradients of the squared error ½ Σ (y − t)² of a batch."""
    w1, b1, w2, b2 = parameters
    dw1, db1, dw2, db2 = sums
    for start in range(0, len(x), PART):
        part = slice(start, start + PART)
        h = gpugrad.dense_sigmoid(x[part], w1, b1)
        y = gpugrad.dense_sigmoid(h, w2, b2)
        add = start > 0  # the first part overwrites what the last batch has left
        dh, _, _ = gpugrad.dense_sigmoid_backward(
            y - target[part], y, h, w2, out=(None, dw2, db2), accumulate=add
        )
        gpugrad.dense_sigmoid_backward(
            dh, h, x[part], w1, wrt=("w", "b"), out=(None, dw1, db1), accumulate=add
        )


def train(xp, seed, epochs):
    """Learn with arrays of NumPy or CuPy; give the accuracy on digits that were not seen."""
    x, labels = load_digits(return_X_y=True)
    x = xp.asarray(x / 8 - 1, dtype=np.float32)  # pixels are 0 to 16
    target = xp.asarray(np.eye(DIGITS)[labels], dtype=np.float32)

    random = np.random.default_rng(seed)
    order = random.permutation(len(x))
    learnt, unseen = order[:LEARNT], order[LEARNT:]
    parameters = []
    for k, m in ((PIXELS, HIDDEN), (HIDDEN, DIGITS)):
        w = random.standard_normal((k, m)) / k**0.5
        parameters += [xp.asarray(one, dtype=np.float32) for one in (w, np.zeros(m))]
    sums = [xp.empty_like(one) for one in parameters]
    means, squares = ([xp.zeros_like(one) for one in parameters] for _ in range(2))  # of Adam
    steps = 0

    for _ in range(epochs):
        random.shuffle(learnt)
        for start in range(0, LEARNT, BATCH):
            batch = xp.asarray(learnt[start : start + BATCH])
            gradients(x[batch], target[batch], parameters, sums)
            steps += 1
            rate = LEARNING_RATE * (1 - 0.999**steps) ** 0.5 / (1 - 0.9**steps)
            for one, total, mean, square in zip(parameters, sums, means, squares, strict=True):
                gradient = total / len(batch)
                mean += 0.1 * (gradient - mean)
                square += 0.001 * (gradient**2 - square)
                one -= rate * mean / (xp.sqrt(square) + 1e-8)

    w1, b1, w2, b2 = parameters
    h = gpugrad.dense_sigmoid(x[xp.asarray(unseen)], w1, b1)
    read = gpugrad.dense_sigmoid(h, w2, b2).argmax(axis=1)
    return float((read == xp.asarray(labels[unseen])).mean())


def main():
    """Train, and print what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"over the digits ({EPOCHS})")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (0)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="(cpu)")
    options = parser.parse_args()
    if options.epochs < 1 or options.seed < 0:
        parser.error("--epochs has to be at least 1, and --seed at least 0")
    try:
        xp = arrays_on(options.device)
    except gpugrad.DeviceError as error:
        print(f"digits_numpy: {error}", file=sys.stderr)
        sys.exit(2)

    accuracy = train(xp, options.seed, options.epochs)
    print(f"64 → 64 → 10 sigmoids by {xp.__name__}, batches of {BATCH} in parts of {PART}")
    print(f"{accuracy:.1%} of the unseen digits are read, after {options.epochs} epochs")
    if options.epochs >= EPOCHS and accuracy < EXPECTED:
        sys.exit(f"digits_numpy: expected at least {EXPECTED:.0%}")


if __name__ == "__main__":
    main()
