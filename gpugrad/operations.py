"""The table of operations: operands, results, matrix products, and the plain expression.

All code that depends on the properties of an operation reads them here.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Dimensions of operands and results: n rows, k inputs, m outputs. n stands for any leading
# dimensions. Arrays of element-wise operations have any shape.
DIMENSIONS = {
    "x": "nk",
    "w": "km",
    "b": "m",
    **dict.fromkeys(("z", "y", "dy", "dz"), "nm"),
    "dx": "nk",
    "dw": "km",
    "db": "m",
}
SUMS = ("dw", "db")  # over rows: their buffers may be float32 if the inputs have 16 bits
# M, N and K of every matrix product, and whether split-K is allowed: rows of dx and y must not
# depend on the number of rows.
PRODUCTS = {"dx": ("n", "k", "m", False), "dw": ("k", "m", "n", True), "y": ("n", "m", "k", False)}


@dataclass(frozen=True)
class Operation:
    """One public function.

    Attributes
    ----------
    operands : tuple of str
        Its array arguments, in order. Logits z may replace y.
    results : tuple of str
        Its results, in order.
    plain : function
        The plain expression: results from a namespace such as NumPy and the operands.
    wrt : tuple of str
        The inputs that it can differentiate with respect to, if there is a choice.
    products : tuple of str
        The results that are matrix products.
    reads : int
        Matrices (n, m) that its element-wise part reads.
    rows : bool
        Whether its arrays are (..., m); element-wise functions take any shape.
    accumulates : bool
        Whether results can be added to the caller's buffers.
    in_place : tuple of str
        The operands that its first, element-wise result may overwrite.
    optional : tuple of str
        The operands that may be None.
    """

    operands: tuple[str, ...]
    results: tuple[str, ...]
    plain: Callable[..., tuple[Any, ...]]
    wrt: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    reads: int = 0
    rows: bool = True
    accumulates: bool = True
    in_place: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def takes_z(self) -> bool:
        """Whether logits may replace y."""
        return "y" in self.operands

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the backends: the operands, with z after y."""
        if not self.takes_z:
            return self.operands
        after_y = self.operands.index("y") + 1
        return (*self.operands[:after_y], "z", *self.operands[after_y:])

    def wanted(self, wrt: Iterable[str]) -> tuple[str, ...]:
        """Return the results to compute."""
        return tuple(f"d{name}" for name in wrt) if self.wrt else self.results

    def is_flattened(self, name: str) -> bool:
        """Return whether leading dimensions of an operand or a result are flattened to rows."""
        return self.rows and DIMENSIONS[name][0] == "n"

    def result_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all results."""
        if not self.rows:
            return {name: tuple(shapes[self.operands[0]]) for name in self.results}
        lead, extents = extents_of(shapes)
        return {
            name: (*(lead if DIMENSIONS[name][0] == "n" else ()), *extents_in(name, extents))
            for name in self.results
        }


def extents_of(
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[tuple[int, ...], dict[str, int]]:
    """Return the leading dimensions, k and m of a call."""
    lead = next(shapes[name] for name in ("x", "dy", "z") if name in shapes)
    k, m = shapes["w"] if "w" in shapes else (0, lead[-1])
    return lead[:-1], {"k": k, "m": m}


def extents_in(name: str, extents: Mapping[str, int]) -> tuple[int, ...]:
    """Return the extents of an array after its leading dimensions."""
    return tuple(extents[one] for one in DIMENSIONS[name] if one in extents)


def _matmul_backward(numpy: Any, dy: Any, x: Any, w: Any) -> tuple[Any, ...]:
    return dy @ w.T, x.T @ dy


def _bias_backward(numpy: Any, dy: Any) -> tuple[Any, ...]:
    return (dy.sum(axis=0),)


def _sigmoid_backward(numpy: Any, dy: Any, y: Any) -> tuple[Any, ...]:
    return (dy * y * (1 - y),)


def _sigmoid_bias_backward(numpy: Any, dy: Any, y: Any) -> tuple[Any, ...]:
    dz = dy * y * (1 - y)
    return dz, dz.sum(axis=0)


def _dense_sigmoid_backward(numpy: Any, dy: Any, y: Any, x: Any, w: Any) -> tuple[Any, ...]:
    dz = dy * y * (1 - y)
    return dz @ w.T, x.T @ dz, dz.sum(axis=0)


def _sigmoid(numpy: Any, z: Any) -> tuple[Any, ...]:
    return (1 / (1 + numpy.exp(-z)),)


def _dense_sigmoid(numpy: Any, x: Any, w: Any, b: Any) -> tuple[Any, ...]:
    return (1 / (1 + numpy.exp(-(x @ w + b))),)


OPERATIONS = {
    "matmul_backward": Operation(
        ("dy", "x", "w"),
        ("dx", "dw"),
        _matmul_backward,
        wrt=("x", "w"),
        products=("dx", "dw"),
        reads=1,
    ),
    "bias_backward": Operation(("dy",), ("db",), _bias_backward, reads=1),
    "sigmoid_backward": Operation(
        ("dy", "y"),
        ("dz",),
        _sigmoid_backward,
        reads=2,
        rows=False,
        accumulates=False,
        in_place=("dy", "y", "z"),
    ),
    "sigmoid_bias_backward": Operation(
        ("dy", "y"), ("dz", "db"), _sigmoid_bias_backward, reads=2, in_place=("dy", "y", "z")
    ),
    "dense_sigmoid_backward": Operation(
        ("dy", "y", "x", "w"),
        ("dx", "dw", "db"),
        _dense_sigmoid_backward,
        wrt=("x", "w", "b"),
        products=("dx", "dw"),
        reads=2,
    ),
    "sigmoid": Operation(
        ("z",), ("y",), _sigmoid, reads=1, rows=False, accumulates=False, in_place=("z",)
    ),
    "dense_sigmoid": Operation(
        ("x", "w", "b"),
        ("y",),
        _dense_sigmoid,
        products=("y",),
        accumulates=False,
        optional=("b",),
    ),
}


def shape_of(name: str, size: tuple[int, int, int]) -> tuple[int, ...]:
    """Return the shape of an operand or a result of a layer of n rows, k inputs and m outputs."""
    extents = dict(zip("nkm", size, strict=True))
    return tuple(extents[one] for one in DIMENSIONS[name])


def elements(names: Iterable[str], size: tuple[int, int, int]) -> int:
    """Count the elements of operands or results of a layer."""
    return sum(math.prod(shape_of(name, size)) for name in names)
