"""NumPy: the expressions that one writes without a library."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpugrad import host
from gpugrad.benchmark.peers import Implementation
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations


def facts() -> dict[str, Any]:
    """Return the version, and the BLAS that multiplies: its kernels and its threads."""
    blas = host.blas()
    if blas is None:
        return {"version": np.__version__}
    return {"version": np.__version__, "blas": str(blas), "threads": blas.threads}


def implementations(op: str, operands: Mapping[str, Any], device: str) -> list[Implementation]:
    """Return the expressions, on the CPU alone."""
    if device != "cpu":
        return []
    given = {name: operands[name] for name in OPERATIONS[op].operands}
    call = functools.partial(operations.plain, op, np, given)
    silent = functools.partial(np.errstate, all="ignore")
    return [Implementation("NumPy", call, np.asarray, "cpu", silent)]
