"""Typical bugs, planted one at a time into the kernels that ship: the tests must see each of them.

The kernels are copied with one piece of text replaced, compiled for the emulator, and called
through the public functions, or those that make planes, until something is noticed: an error of the
checker, or a result that is beyond its error bound. `python -m tests.mutants` prints kernel, mutant
and what caught it.
"""

from tests.mutants import (
    column_sums,
    dmma,
    elements,
    elementwise,
    fused,
    mma,
    planes,
    products,
    tiles,
    wgmma,
)
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (
    *elements.MUTANTS,
    *elementwise.MUTANTS,
    *column_sums.MUTANTS,
    *dmma.MUTANTS,
    *fused.MUTANTS,
    *mma.MUTANTS,
    *planes.MUTANTS,
    *products.MUTANTS,
    *tiles.MUTANTS,
    *wgmma.MUTANTS,
)
AT_LEAST = 8  # mutants of every kernel file

__all__ = ["AT_LEAST", "MUTANTS", "Mutant"]
