"""Fused layers on tensor cores from planes, whose bits must be as in the model.

Both tiles, one block of inputs and two, one split and several, whole steps and less; data that show
a product of planes that is left out and what is truncated; what is not finite, and sums too large.
"""

from dataclasses import dataclass
from unittest import mock

import numpy as np

from gpugrad import dispatch
from gpugrad.testing.product_data import draw
from tests.mutants.mma_probes import not_finite
from tests.support.fused_layers import expect_gradients


@dataclass(frozen=True)
class LayerProbe:
    """The gradients of one layer.

    Attributes
    ----------
    shape : tuple of int
        (n, k, m).
    family : str
        Of data in tests/accuracy/data.py; or "not finite".
    machine : str
        As which tensor cores round.
    """

    shape: tuple[int, int, int]
    family: str = "ordinary"
    machine: str = "hopper"

    def __str__(self) -> str:
        return f"layer {'x'.join(map(str, self.shape))}, {self.family}, {self.machine}"

    def run(self) -> None:
        """Call it on the current runtime; AssertionError or EmulatorError for what is wrong."""
        dz, x, w = self._arrays()
        with mock.patch.object(dispatch.runtime(), "arithmetic", self.machine):
            expect_gradients(dz, x, w, self.machine)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n, k, m = self.shape
        if self.family == "not finite":
            dz, w = not_finite(n, k, m, "float32")
            x, _ = not_finite(k, m, n, "float32")
            return dz, np.ascontiguousarray(x.T), w
        dz, w = draw(self.family, n, k, m, 0)
        x, _ = draw(self.family, n, 1, k, 1)
        return dz, x, w


LAYER_PROBES = {
    "layers from planes": [
        LayerProbe((67, 36, 20)),
        LayerProbe((70, 130, 68)),
        LayerProbe((200, 70, 64)),
        LayerProbe((64, 64, 48), "entries of A", "ampere"),
        LayerProbe((64, 20, 64), "repeated"),
        LayerProbe((40, 24, 128), "positive"),
        LayerProbe((100, 20, 30), "not finite"),
        LayerProbe((70, 130, 100), "not finite"),
        LayerProbe((150, 20, 30), "huge"),
        LayerProbe((40, 20, 30), "subnormal"),
    ],
}
