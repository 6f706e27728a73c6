"""Whether large results are right, seen from a part of them that is cheap to compute."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpugrad import _reference
from gpugrad.cli import operations
from gpugrad.cli.exits import Failed

SAMPLED = 8  # rows, inputs or outputs of a part, the first and the last among them
AXES = {"x": "nk", "dx": "nk", "w": "km", "dw": "km", "b": "m", "db": "m"}  # the others are "nm"


@dataclass(frozen=True)
class Part:
    """A smaller problem whose results are a part of the whole one's.

    It has all of what its results sum over, and a sample of the rest: `sampled` are letters of
    n, k and m. `wrt` is what it differentiates with respect to.
    """

    sampled: str
    wrt: tuple[str, ...] = ()

    def take(self, arrays: operations.Arrays) -> operations.Arrays:
        """Cut arrays, known by their names, to this part."""
        taken = {}
        for name, array in arrays.items():
            for axis, letter in enumerate(AXES.get(name, "nm")):
                if letter in self.sampled:
                    array = array.take(_sample(array.shape[axis]), axis)
            taken[name] = array
        return taken


PARTS = {
    "matmul_backward": (Part("nk", ("x",)), Part("km", ("w",))),
    "bias_backward": (Part("m"),),
    "sigmoid_backward": (Part("m"),),
    "sigmoid_bias_backward": (Part("m"),),
    "dense_sigmoid_backward": (Part("nk", ("x",)), Part("km", ("w", "b"))),
    "sigmoid": (Part("m"),),
    "dense_sigmoid": (Part("nm"),),
}


def verify(
    op: str,
    operands: operations.Arrays,
    results: operations.Arrays,
    device: str,
    planes: Mapping[str, int],
) -> None:
    """Compare parts of an operation's results with the reference.

    Parameters
    ----------
    op : str
    operands, results : dict of NumPy arrays
    device : str
        Where they were computed, for the message.
    planes : mapping
        Of the operands of products on tensor cores, by result.

    Raises
    ------
    Failed
        An element is outside its bound.
    """
    dtype = next(iter(operands.values())).dtype
    for part in PARTS[op]:
        answers = _reference.reference(op, wrt=part.wrt, planes=planes, **part.take(operands))
        taken = part.take(results)
        for name, answer in answers.items():
            ratio = _reference.check(taken[name], *answer)
            if ratio > 1:
                raise Failed(
                    f"{op} is wrong in {dtype} on the {device}: "
                    f"{name} is {ratio:.3g} times its bound away"
                )


def _sample(extent: int) -> Any:
    return np.unique(np.linspace(0, extent - 1, SAMPLED).astype(np.int64))
