"""A network of two dense sigmoid layers that is trained to read digits with this library."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpugrad
from gpugrad.benchmark.stopwatch import Stopwatch

PIXELS, HIDDEN, DIGITS = 64, 64, 10
BATCH = 32
LEARNING_RATE = 0.02  # from 0.05 some seeds lose whole digits to saturated outputs
NOISE = 0.25  # standard deviation, where pixels lie in [-1, 1]; worth about 0.2 % on unseen digits


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: rows of 64 pixels in [-1, 1], and their labels."""

    x: Any
    labels: Any


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch: mean loss per digit, accuracy on unseen digits."""

    loss: float
    accuracy: float


def load(seed: int) -> tuple[Digits, Digits]:
    """Load the digits of scikit-learn, three quarters for training and one quarter for tests.

    The split is stratified. x is float32 in host memory.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, labels = load_digits(return_X_y=True)
    x = (x / 8 - 1).astype(np.float32)  # pixels are 0 to 16
    parts = train_test_split(x, labels, test_size=0.25, stratify=labels, random_state=seed)
    learn_x, test_x, learn_labels, test_labels = parts
    return Digits(learn_x, learn_labels), Digits(test_x, test_labels)


class Adam:
    """Adam (Kingma and Ba, 2015); updates parameters in place."""

    def __init__(self, numpy: Any, parameters: list[Any]) -> None:
        self.numpy, self.parameters, self.steps = numpy, parameters, 0
        self.moments = [(numpy.zeros_like(one), numpy.zeros_like(one)) for one in parameters]

    def step(self, gradients: list[Any], rate: float) -> None:
        """Move the parameters against their gradients."""
        self.steps += 1
        rate *= (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
        for parameter, gradient, (mean, square) in zip(
            self.parameters, gradients, self.moments, strict=True
        ):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            parameter -= rate * mean / (self.numpy.sqrt(square) + 1e-8)


class Network:
    """y = σ(σ(x w1 + b1) w2 + b2), trained with the squared error ½ Σ (y − t)².

    Arrays are NumPy or CuPy arrays on the computing device. 16-bit layers use rounded copies of
    float32 parameters.

    Parameters
    ----------
    device : {"cpu", "gpu"}
    dtype : dtype
        Of the layers.
    seed : int
    epochs : int
        Epochs, over which the learning rate falls to zero.

    Attributes
    ----------
    gradient_time : Stopwatch
        Of the backward calls.
    """

    def __init__(self, device: str, dtype: np.dtype[Any], *, seed: int, epochs: int) -> None:
        self.device, self.dtype, self.epochs = device, dtype, epochs
        self.numpy: Any = np
        if device == "gpu":
            import cupy

            self.numpy = cupy
        self.gradient_time = Stopwatch(device)
        self.random = np.random.default_rng(seed)  # on the host: the same digits on any device
        wide = np.float64 if dtype == np.float64 else np.float32
        layers = ((PIXELS, HIDDEN), (HIDDEN, DIGITS))
        self.parameters = []
        for k, m in layers:
            w = self.random.standard_normal((k, m)) / k**0.5
            self.parameters += [self.numpy.asarray(one, wide) for one in (w, np.zeros(m))]
        self.adam = Adam(self.numpy, self.parameters)

    def learn(self, digits: Digits, unseen: Digits) -> Iterator[Epoch]:
        """Train; yield the results of each epoch."""
        count = len(digits.labels)
        targets = np.eye(DIGITS)[digits.labels]
        steps = self.epochs * -(-count // BATCH)
        for _ in range(self.epochs):
            order = self.random.permutation(count)
            loss = 0.0
            for start in range(0, count, BATCH):
                chosen = order[start : start + BATCH]
                noise = NOISE * self.random.standard_normal((len(chosen), PIXELS))
                rate = LEARNING_RATE * (1 - self.adam.steps / steps)
                loss += self._step(digits.x[chosen] + noise, targets[chosen], rate)
            accuracy = float(np.mean(self.read(unseen.x) == unseen.labels))
            yield Epoch(loss / count, accuracy)

    def read(self, x: Any) -> Any:
        """Return the predicted labels in host memory."""
        _, y = self._forward(self._to_device(x), *self._layers())
        return np.argmax(self._to_host(y), axis=1)

    def _step(self, x: Any, target: Any, rate: float) -> Any:
        """Train on a batch; return its summed loss."""
        x, target = self._to_device(x), self._to_device(target)
        w1, b1, w2, b2 = self._layers()
        h, y = self._forward(x, w1, b1, w2, b2)
        # The squared error's gradient, y − t, is finite everywhere. Cross-entropy's would be
        # (y − t) / (y (1 − y)): it divides by what the layer's own gradient multiplies with, and
        # is 0/0 where an output has rounded to 0 or 1.
        dy = y - target
        with self.gradient_time:
            dh, dw2, db2 = gpugrad.dense_sigmoid_backward(dy, y, h, w2, device=self.device)
            _, dw1, db1 = gpugrad.dense_sigmoid_backward(
                dh, h, x, w1, wrt=("w", "b"), device=self.device
            )
        wide = self.parameters[0].dtype
        self.adam.step([one.astype(wide) / len(x) for one in (dw1, db1, dw2, db2)], rate)
        return 0.5 * float((dy.astype(wide) ** 2).sum())

    def _forward(self, x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> tuple[Any, Any]:
        h = gpugrad.dense_sigmoid(x, w1, b1, device=self.device)
        return h, gpugrad.dense_sigmoid(h, w2, b2, device=self.device)

    def _layers(self) -> list[Any]:
        return [one.astype(self.dtype, copy=False) for one in self.parameters]

    def _to_device(self, array: Any) -> Any:
        return self.numpy.asarray(array.astype(self.dtype))

    def _to_host(self, array: Any) -> Any:
        return array if isinstance(array, np.ndarray) else array.get()
