"""Train layers of SigmoidLinear on handwritten digits, with an optimizer of PyTorch's.

    python examples/digits_torch.py [--check] [--save-logits]

A SigmoidLinear takes the place of a torch.nn.Linear with a torch.nn.Sigmoid behind it. --check
trains those too, from the same weights and in the same order, and compares what was learnt: the
same bits, for layers this small are left to PyTorch's own functions. With --save-logits they are
not, and weights differ by rounding errors.
"""

import argparse
import functools
import sys

try:
    import torch
    from sklearn.datasets import load_digits

    from gpugrad.torch import SigmoidLinear
except ImportError as error:
    print(f"digits_torch: {error}; pip install '.[demo,torch]' brings it", file=sys.stderr)
    sys.exit(2)

PIXELS, HIDDEN, DIGITS = 64, 64, 10
LEARNT = 1347  # of the 1797 digits that scikit-learn has; three quarters
BATCH = 32
LEARNING_RATE = 0.01
EPOCHS = 30
EXPECTED = 0.95  # of the unseen digits are read after that many epochs
TOLERANCE = 1e-3  # of weights: rounding errors grow in training, from 1e-7 to 1e-4


def network(layer):
    """Return 64 pixels → 64 → 10 numbers between 0 and 1, one for each digit."""
    return torch.nn.Sequential(layer(PIXELS, HIDDEN), layer(HIDDEN, DIGITS))


def linear_and_sigmoid(k, m):
    """Return the layer that PyTorch's users write."""
    return torch.nn.Sequential(torch.nn.Linear(k, m), torch.nn.Sigmoid())


def train(layer, seed, epochs):
    """Return a network that has learnt, and its accuracy on digits that it has not seen."""
    x, labels = load_digits(return_X_y=True)
    x = torch.tensor(x / 8 - 1, dtype=torch.float32)  # pixels are 0 to 16
    target = torch.nn.functional.one_hot(torch.tensor(labels), DIGITS).float()

    torch.manual_seed(seed)
    order = torch.randperm(len(x))
    learnt, unseen = order[:LEARNT], order[LEARNT:]
    model = network(layer)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        for batch in learnt[torch.randperm(LEARNT)].split(BATCH):
            optimizer.zero_grad()
            loss = 0.5 * (model(x[batch]) - target[batch]).square().sum(1).mean()
            loss.backward()
            optimizer.step()

    with torch.no_grad():
        read = model(x[unseen]).argmax(1)
    return model, (read == target[unseen].argmax(1)).float().mean().item()


def difference(one, other):
    """Return the largest difference of a weight or a bias between two networks."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def main():
    """Train, and print what was learnt."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"over the digits ({EPOCHS})")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (0)")
    parser.add_argument(
        "--save-logits",
        action="store_true",
        help="compute gradients from the logits, which are right where a sigmoid is saturated",
    )
    parser.add_argument("--check", action="store_true", help="compare with torch.nn's layers")
    options = parser.parse_args()
    if options.epochs < 1 or options.seed < 0:
        parser.error("--epochs has to be at least 1, and --seed at least 0")
    torch.set_num_threads(1)  # in layers this small threads only wait for each other

    layer = functools.partial(SigmoidLinear, save_logits=options.save_logits)
    model, accuracy = train(layer, options.seed, options.epochs)
    print(model)
    print(f"{accuracy:.1%} of the unseen digits are read, after {options.epochs} epochs")
    if options.epochs >= EPOCHS and accuracy < EXPECTED:
        sys.exit(f"digits_torch: expected at least {EXPECTED:.0%}")

    if options.check:
        plain, accuracy = train(linear_and_sigmoid, options.seed, options.epochs)
        apart = difference(model, plain)
        print(f"{accuracy:.1%} by torch.nn's layers; largest difference of a weight: {apart:.1e}")
        if apart > TOLERANCE:
            sys.exit(f"digits_torch: expected a difference of at most {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
