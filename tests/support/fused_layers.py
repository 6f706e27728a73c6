"""Layers of the fused kernels on tensor cores, compared bit by bit with a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from unittest import mock

import numpy as np

import gpugrad
from gpugrad.testing.algorithms import products_by
from tests.accuracy import table
from tests.accuracy.arithmetic import FUSED, by_tensor_cores

EXACT = 3  # planes


@contextmanager
def fused_from(planes: int, *, of_short_sums: bool = True) -> Iterator[None]:
    """Plan fused layers from so many planes of float32, or by FFMA for 0."""
    choice = ("mma", planes) if planes else ("ffma", 0)
    exchanged = products_by(lambda _: choice, fused=True)
    if not of_short_sums:
        del exchanged["RECOVERED_TERMS"]
    with mock.patch.multiple(import_module("gpugrad.planning.choice"), **exchanged):
        yield


def upstream(dz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return dy and y from which dz comes without a rounding."""
    return dz * np.float32(4), np.full(dz.shape, 0.5, np.float32)


@np.errstate(all="ignore")  # of infinities and NaNs
def expect_gradients(dz: np.ndarray, x: np.ndarray, w: np.ndarray, machine: str) -> None:
    """Compute dx and dw on tensor cores that round as a machine's, and compare with the model.

    Parameters
    ----------
    dz, x, w : arrays of shapes (n, m), (n, k) and (k, m)
        float32.
    machine : {"hopper", "ampere"}
        As which the emulator's tensor cores round.
    """
    with fused_from(EXACT):
        found = gpugrad.dense_sigmoid_backward(*upstream(dz), x, w, device="gpu")
    dx = by_tensor_cores(dz, w, EXACT, machine, algorithm=FUSED)
    dw = table.fused_path(machine)(np.ascontiguousarray(x.T), np.ascontiguousarray(dz.T))
    np.testing.assert_array_equal(found.dx, dx)
    np.testing.assert_array_equal(found.dw, dw)
