"""The operations as a table: what each takes, gives and reads."""

from typing import NamedTuple


class Operation(NamedTuple):
    """One public function.

    Attributes
    ----------
    operands : tuple of str
        Its array arguments, in order.
    results : tuple of str
        What it returns, in order.
    wrt : tuple of str
        What it can differentiate with respect to, where there is a choice.
    reads : int
        Matrices of n × m that its element-wise part reads.
    rows : bool
        Whether its arrays are rows (..., m); element-wise functions take any rank.
    """

    operands: tuple[str, ...]
    results: tuple[str, ...]
    wrt: tuple[str, ...] = ()
    reads: int = 0
    rows: bool = True


OPERATIONS = {
    "matmul_backward": Operation(("dy", "x", "w"), ("dx", "dw"), wrt=("x", "w"), reads=1),
    "bias_backward": Operation(("dy",), ("db",), reads=1),
    "sigmoid_backward": Operation(("dy", "y"), ("dz",), reads=2, rows=False),
    "sigmoid_bias_backward": Operation(("dy", "y"), ("dz", "db"), reads=2),
    "dense_sigmoid_backward": Operation(
        ("dy", "y", "x", "w"), ("dx", "dw", "db"), wrt=("x", "w", "b"), reads=2
    ),
    "sigmoid": Operation(("z",), ("y",), reads=1, rows=False),
    "dense_sigmoid": Operation(("x", "w", "b"), ("y",)),
}
