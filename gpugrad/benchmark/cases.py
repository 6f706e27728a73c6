"""What is measured: operations, dtypes, precisions and sizes, and the memory that they take."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpugrad import dispatch
from gpugrad.benchmark import environment, sizes, units
from gpugrad.benchmark.peers import Peer
from gpugrad.errors import ArgumentError
from gpugrad.operations import OPERATIONS
from gpugrad.planning.problem import ITEMSIZE, Problem
from gpugrad.testing import operations, verification

REFERENCE_ARRAYS = 6  # of a part in the reference's precision, with its bounds, at one time


@dataclass(frozen=True)
class Case:
    """An operation on a layer of n rows, k inputs and m outputs."""

    op: str
    dtype: str
    precision: str
    size: operations.Size

    @property
    def preset(self) -> str | None:
        """The size's name, if it has one."""
        return sizes.name_of(self.size)

    @property
    def problem(self) -> Problem:
        """The case as the library sees it."""
        operation, (n, k, m) = OPERATIONS[self.op], self.size
        if not operation.rows:
            return Problem(self.op, 1, 0, n * m, self.dtype, reads=operation.reads)
        k = k if OPERATIONS[self.op].products else 0
        return Problem(self.op, n, k, m, self.dtype, operation.wrt, operation.reads)

    @property
    def options(self) -> dict[str, str]:
        """What a call is given beside its operands."""
        return {} if self.precision == "highest" else {"precision": self.precision}

    def __str__(self) -> str:
        words = [self.op, self.dtype, *self.options.values(), " × ".join(map(str, self.size))]
        return " ".join(words) + (f" ({self.preset})" if self.preset else "")


def product(
    ops: Sequence[str],
    dtypes: Sequence[str],
    precisions: Sequence[str],
    sizes: Sequence[operations.Size],
) -> list[Case]:
    """Combine all; precisions only where they mean something: for products of float32 matrices."""
    found = []
    for op, dtype, precision, size in itertools.product(ops, dtypes, precisions, sizes):
        means = dtype == "float32" and OPERATIONS[op].products
        found.append(Case(op, dtype, precision if means else "highest", size))
    return list(dict.fromkeys(found))


def refuse_too_large(case: Case, places: Sequence[str], peers: Sequence[Peer]) -> None:
    """Refuse a case whose arrays will not fit, before anything is allocated.

    Raises
    ------
    ArgumentError
        With what it needs and what there is.
    """
    rooms = {"CPU": (host_bytes(case, peers), environment.free_memory())}
    if "gpu" in places:
        copies = sum(peer.copies for peer in peers)
        needed = _arrays_bytes(case, copies)
        rooms["GPU"] = (needed, dispatch.runtime().facts(None).memory)
    for place, (needed, room) in rooms.items():
        if room is not None and needed > room:
            raise ArgumentError(
                f"{case.op} at {','.join(map(str, case.size))} in {case.dtype} needs about "
                f"{units.size(needed)} of memory, the {place} has {units.size(room)}"
            )


def host_bytes(case: Case, peers: Sequence[Peer]) -> int:
    """Predict the most memory that measuring a case takes on the host."""
    n, k, m = case.size
    wide = np.dtype(np.longdouble if case.dtype == "float64" else np.float64).itemsize
    sampled = verification.SAMPLED
    part = n * sampled * (2 + bool(OPERATIONS[case.op].products)) + sampled * (k + m)
    reference = REFERENCE_ARRAYS * wide * part
    copies = sum(peer.copies for peer in peers)
    return _arrays_bytes(case, copies) + reference


def _arrays_bytes(case: Case, copies: int) -> int:
    """Count operands, results of two calls, three temporaries of dz, and what peers keep."""
    operands = sum(map(math.prod, operations.shapes(case.op, case.size).values()))
    results = sum(map(math.prod, operations.result_shapes(case.op, case.size).values()))
    n, _, m = case.size
    itemsize, wide = ITEMSIZE[case.dtype], max(4, ITEMSIZE[case.dtype])
    need = itemsize * ((1 + copies) * operands + 2 * results) + 3 * wide * n * m
    if itemsize < wide:  # converted to float32 by peers that compute in nothing less
        need += wide * (operands + results)
    return need
