"""Calls of the public functions that are cheap to emulate and show a bug at once.

Every path of a kernel has a probe: packs, their tail and what is not aligned; one block and
several; one split and several; large tiles; writing and adding; from y and from z. Products are
computed by FFMA or on tensor cores, as a probe says.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np

from gpugrad.gpu import arguments, bind
from gpugrad.planning import tiles
from gpugrad.testing.algorithms import (
    by_mma,
    by_multiply_adds,
    fused_path,
    fused_path_from_planes,
    on_tensor_cores,
    products_by,
)
from tests.conftest import EmulatedBackend
from tests.support.cases import LAYOUTS, Layer, elementwise_arrays, layer_arrays, random_array
from tests.support.emulator_runtime import bind_in_place
from tests.support.operations import OPERATIONS, expect_right

MAX_GRID_Y = arguments.MAX_GRID_Y
PADDED = "padded rows"
MIDDLE = "middle columns"
OFFSET = "element offset"


@dataclass(frozen=True)
class Probe:
    """One call and what its results must be.

    Attributes
    ----------
    op : str
    shape : tuple of int
        (n, k, m) of a layer, or the shape of dy or z where there is no layer.
    dtype, layout : str
        The layout of all operands that `layouts` does not name.
    layouts : mapping
        By operand, the memory that it is in.
    out : mapping
        By result, the memory of the buffer that is given for it.
    sums : str
        The dtype of the buffers for sums; that of the operands if empty.
    from_z, accumulate : bool
    on_device : bool
        The arrays are taken for a GPU's own: the kernels get them as they are.
    large_tiles : bool
        As though there were enough of them.
    tensor_cores : bool
        Products are computed there, with the fewest planes that `precision` allows.
    fused : bool
        The fused backward kernels compute all gradients of a layer.
    planes : bool
        The same on tensor cores, from planes of float32.
    precision : str
    grid_rows : int
        Rows of blocks that a grid may have.
    changed : mapping
        Operands with values of their own.
    """

    op: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = "C"
    layouts: dict[str, str] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    sums: str = ""
    from_z: bool = False
    accumulate: bool = False
    on_device: bool = False
    large_tiles: bool = False
    tensor_cores: bool = False
    warpgroups: bool = False
    fused: bool = False
    planes: bool = False
    precision: str = "highest"
    grid_rows: int = MAX_GRID_Y
    changed: Mapping[str, Callable[[], np.ndarray] | None] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [f"{self.op} {'x'.join(map(str, self.shape))} {self.dtype}"]
        words += [f"all {self.layout}"] if self.layout != "C" else []
        words += [f"{name} {layout}" for name, layout in (self.layouts | self.out).items()]
        words += [f"sums {self.sums}"] if self.sums else []
        words += [f"changed {name}" for name in self.changed]
        switches = (
            *("from_z", "accumulate", "on_device", "large_tiles"),
            *("tensor_cores", "warpgroups", "fused", "planes"),
        )
        words += [name.replace("_", " ") for name in switches if getattr(self, name)]
        words += [f"precision {self.precision}"] if self.precision != "highest" else []
        words += [f"{self.grid_rows} rows of blocks"] if self.grid_rows != MAX_GRID_Y else []
        return ", ".join(words)

    def run(self) -> None:
        """Call the function on the emulator; AssertionError or EmulatorError for what is wrong."""
        arrays = self._arrays()
        out = {name: self._buffer(name, arrays) for name in self.out}
        takes_precision = OPERATIONS[self.op].takes_precision
        with self._circumstances():
            expect_right(
                EmulatedBackend(),
                self.op,
                arrays,
                from_z=self.from_z,
                out=out,
                accumulate=self.accumulate,
                **({"precision": self.precision} if takes_precision else {}),
            )

    def _arrays(self) -> dict[str, Any]:
        if "w" in OPERATIONS[self.op].operands:
            n, k, m = self.shape
            arrays: dict[str, Any] = layer_arrays(Layer((n,), k, m), self.dtype)
        else:
            arrays = elementwise_arrays(self.shape, self.dtype)
        arrays |= {name: make and make() for name, make in self.changed.items()}
        for name, array in arrays.items():
            layout = self.layouts.get(name, self.layout)
            if layout != "C" and array is not None:
                arrays[name] = LAYOUTS[layout](array)
        return arrays

    def _buffer(self, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        if name == "db":
            shape = arrays["dy"].shape[-1:]
        elif name == "y":
            shape = (
                self.shape
                if OPERATIONS[self.op].takes_any_rank
                else (self.shape[0], self.shape[-1])
            )
        else:
            shape = arrays["dy" if name == "dz" else name[1:]].shape
        sums = self.sums if name in OPERATIONS[self.op].sums else ""
        array = random_array(shape, sums or self.dtype, 9)
        layout = self.out[name]
        return array if layout == "C" else LAYOUTS[layout](array)

    @contextmanager
    def _circumstances(self) -> Iterator[None]:
        plan = import_module("gpugrad.planning.choice")
        exchanged = products_by(by_mma if self.tensor_cores else by_multiply_adds)
        if self.warpgroups:
            exchanged = products_by(on_tensor_cores)
        if self.fused:
            take = fused_path_from_planes if self.planes else fused_path
            exchanged = products_by(take, fused=True)
        with ExitStack() as stack:
            stack.enter_context(mock.patch.multiple(plan, **exchanged))
            if self.on_device:
                stack.enter_context(mock.patch.object(bind, "bind_to_host", bind_in_place))
            if self.large_tiles:
                padding = float("inf")
                large = mock.patch.multiple(
                    tiles, MIN_LARGE_TILES=1, MAX_LARGE_TILE_PADDING=padding
                )
                stack.enter_context(large)
            stack.enter_context(mock.patch.object(arguments, "MAX_GRID_Y", self.grid_rows))
            yield


def _range(lowest: float, highest: float, dtype: str = "float32") -> Callable[[], np.ndarray]:
    return lambda: np.linspace(lowest, highest, 301).astype(dtype)


def _elementwise(op: str, **options: Any) -> list[Probe]:
    """Probe what sigmoid and sigmoid_backward share; the first operand and the result differ."""
    first, *others = OPERATIONS[op].operands
    (result,) = OPERATIONS[op].results
    saved = "z" if options.get("from_z") else (others or [first])[0]

    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe(op, shape, **options, **more)

    return [
        probe((1037,)),
        probe((6, 10), layouts={first: "fortran"}),
        probe((5, 9), layouts={saved: "sliced"}),
        probe((5, 12), layouts={saved: PADDED}),
        probe((5, 6), layout=PADDED, out={result: PADDED}, on_device=True),
        probe((5, 8), layout=PADDED, out={result: MIDDLE}, on_device=True),
        probe((5, 8), layout=MIDDLE, out={result: "sliced"}, on_device=True),
        probe((7, 9), layout=MIDDLE, grid_rows=2),
        probe((7, 12), layout=PADDED, grid_rows=2),
        *(probe((301,), dtype=dtype) for dtype in ("float64", "float16", "bfloat16")),
    ]


def _column_sums(op: str, **options: Any) -> list[Probe]:
    """Probe what bias_backward and sigmoid_bias_backward share."""
    every = OPERATIONS[op].results
    saved = "z" if options.get("from_z") else "y"

    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe(op, shape, **options, **more)

    return [
        probe((5, 3)),
        probe((67, 36)),  # packs, one split
        probe((67, 35)),
        probe((131, 72)),  # packs, three splits of lanes of eight
        probe((70, 70)),  # two splits
        probe((600, 70), out=dict.fromkeys(every, "C"), accumulate=True),  # ten splits
        probe((67, 36), layout=OFFSET),
        probe((20, 34), layout=PADDED, out=dict.fromkeys(every, PADDED), on_device=True),
        probe((20, 11), layout="fortran"),
        probe((20, 11), layouts={"dy": "fortran", saved: "sliced"}),
        probe((20, 12), layouts={"dy": PADDED}),
        probe((20, 12), layouts={saved: PADDED}),
        probe((20, 12), layouts={saved: OFFSET}),
        *(
            probe((20, 12), out=dict.fromkeys(every, layout), accumulate=True)
            for layout in ("C", PADDED, "sliced", OFFSET)
        ),
        probe((70, 70), out={"db": "sliced"}, accumulate=True),
        probe((67, 40), dtype="float16"),
        probe((67, 40), dtype="float16", out=dict.fromkeys(every, "C"), accumulate=True),
        probe((131, 5), dtype="float16", out={"db": "C"}, sums="float32"),
        probe((67, 35), dtype="float64"),
    ]


def _products(op: str, **options: Any) -> list[Probe]:
    """Probe what matmul_backward and dense_sigmoid_backward share."""
    every = OPERATIONS[op].results
    saved = "z" if options.get("from_z") else "y"

    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe(op, shape, **options, **more)

    return [
        probe((5, 3, 2)),
        probe((67, 19, 35)),
        probe((67, 70, 66)),  # several tiles and steps each way
        probe((600, 9, 5)),  # two splits of dw
        probe((1100, 7, 12)),  # three, stored in packs
        probe((67, 20, 36)),  # packs
        probe((67, 20, 36), layout=OFFSET),
        probe((67, 20, 36), layouts={"dy": OFFSET}),
        probe((67, 20, 36), layouts={saved: OFFSET}),
        probe((67, 20, 36), layouts={"w": OFFSET, "x": OFFSET}),
        probe((67, 18, 34), layout=PADDED),
        probe((67, 18, 34), layout="fortran"),
        probe((67, 20, 36), layouts={"w": "fortran", "x": "fortran"}),
        probe((67, 20, 36), layouts={"dy": "fortran", saved: "sliced"}),
        *(
            probe((67, 20, 36), out=dict.fromkeys(every, layout), accumulate=True)
            for layout in ("C", "sliced", OFFSET)
        ),
        probe((20, 18, 34), layout=PADDED, out=dict.fromkeys(every, PADDED), on_device=True),
        probe((600, 9, 5), out=dict.fromkeys(every, PADDED), accumulate=True, on_device=True),
        probe((130, 132, 20), large_tiles=True),
        probe((35, 20, 12), dtype="float16", out=dict.fromkeys(every, "C"), sums="float32"),
        probe((35, 20, 12), dtype="float16", out=dict.fromkeys(every, "C"), accumulate=True),
        probe((35, 18, 14), dtype="float64", layout=PADDED),
    ]


def _dense_sigmoid() -> list[Probe]:
    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe("dense_sigmoid", shape, **more)

    return [
        probe((5, 3, 2)),
        probe((5, 19, 35)),
        probe((67, 70, 66)),
        probe((67, 19, 35), changed={"b": None}),
        probe((67, 20, 36)),
        probe((67, 20, 36), layout=OFFSET),
        probe((67, 20, 36), layouts={"x": OFFSET}),
        probe((67, 20, 36), layouts={"w": OFFSET}),
        probe((67, 20, 36), layouts={"b": OFFSET}),
        probe((67, 20, 36), layouts={"b": "sliced"}),
        probe((67, 18, 34), layout=PADDED, out={"y": PADDED}, on_device=True),
        probe((67, 18, 34), layout="fortran", out={"y": "fortran"}, on_device=True),
        probe((67, 20, 36), out={"y": OFFSET}, on_device=True),
        probe((20, 5, 132), large_tiles=True),
        probe((130, 5, 20), large_tiles=True),
        probe((35, 20, 12), dtype="float16"),
        probe((35, 18, 14), dtype="float64", layout=PADDED),
    ]


def _changed(
    shape: tuple[int, ...], values: Mapping[tuple[Any, ...], float], scale: float = 1.0
) -> Callable[[], np.ndarray]:
    """Return float32 numbers of a magnitude, with some values at places of their own."""

    def make() -> np.ndarray:
        array = random_array(shape, "float32", 7) * np.float32(scale)
        for place, value in values.items():
            array[place] = value
        return array

    return make


def _products_on_tensor_cores(op: str, **options: Any) -> list[Probe]:
    """Probe what matmul_backward and dense_sigmoid_backward share; kinds of planes and layouts."""
    sums = OPERATIONS[op].sums

    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe(op, shape, tensor_cores=True, **options, **more)

    return [
        probe((67, 40, 72), dtype="bfloat16"),  # packs
        probe((67, 41, 35), dtype="float16", layout="fortran"),
        probe((67, 70, 66)),  # several tiles and steps each way
        probe((67, 70, 66), precision="high"),
        probe((67, 70, 66), precision="medium"),
        probe((600, 9, 17), out={"dx": "C", "dw": "sliced"}, accumulate=True),  # 10 rows of tiles
        probe((600, 9, 17), precision="high", layouts={"x": "fortran"}),  # two splits of dw
        probe((1100, 7, 12), dtype="bfloat16", out=dict.fromkeys(sums, "C"), sums="float32"),
        probe((20, 5, 300)),  # more steps than stages
        *(
            probe((37, 20, 33), precision=precision, layouts={name: "fortran"})
            for name, precision in (("dy", "high"), ("x", "high"), ("w", "highest"))
        ),
        probe((37, 20, 33), precision="high", layout="fortran"),
        probe((37, 20, 33), layout=OFFSET, out={"dx": OFFSET, "dw": "sliced"}),
        probe((35, 18, 34), layout=PADDED, out={"dx": PADDED, "dw": PADDED}, on_device=True),
        probe((35, 18, 20), dtype="float16", out=dict.fromkeys(sums, "C"), sums="float32"),
        probe((35, 18, 20), dtype="float16", out={"dw": "C", "dx": "C"}, accumulate=True),
        probe((130, 132, 20), large_tiles=True),
    ]


def _matmul_backward_on_tensor_cores() -> list[Probe]:
    """Probe what only dy of one's own choice shows: numbers that are not finite, large or small."""
    inf, nan = np.inf, np.nan
    places = {(2, 3): inf, (4, 5): -inf, (6, 7): nan, (8, 3): inf, (8, 5): -inf, (9, 32): inf}
    changed = {
        "dy": _changed((37, 33), places),
        "w": _changed((20, 33), {(..., 32): 0.0, (11, 20): inf}),
    }
    large = {"dy": _changed((37, 33), {}, 2.0**114), "w": _changed((20, 33), {}, 2.0**-30)}
    small = {"dy": _changed((37, 33), {}, 2.0**-130), "w": _changed((20, 33), {}, 2.0**20)}

    def probe(**more: Any) -> Probe:
        return Probe("matmul_backward", (37, 20, 33), tensor_cores=True, **more)

    return [
        *_products_on_tensor_cores("matmul_backward"),
        *(probe(changed=changed, precision=one) for one in ("highest", "high", "medium")),
        probe(changed=changed, layout="fortran"),
        *(probe(changed=one, precision="highest") for one in (large, small)),
        *(probe(changed=one, precision="high") for one in (large, small)),
    ]


def _dense_sigmoid_on_tensor_cores() -> list[Probe]:
    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe("dense_sigmoid", shape, tensor_cores=True, **more)

    changed = {"w": _changed((20, 33), {(3, 2): np.inf, (5, 4): -np.inf, (7, 6): np.nan})}
    return [
        probe((67, 72, 40), dtype="bfloat16"),
        probe((67, 41, 35), dtype="float16"),
        probe((67, 70, 66), precision="high"),
        probe((67, 70, 66)),
        probe((67, 70, 66), precision="medium"),
        probe((67, 20, 33), changed={"b": None}),
        probe((67, 20, 33), layouts={"b": "sliced"}),
        probe((67, 20, 36), layouts={"b": OFFSET}),
        probe((37, 20, 33), precision="high", layout="fortran"),
        probe((37, 20, 33), precision="high", layouts={"x": "fortran"}),
        probe((37, 20, 33), layouts={"w": "fortran"}),
        probe((37, 18, 34), layout=PADDED, out={"y": PADDED}, on_device=True),
        probe((37, 18, 34), layout="fortran", out={"y": "fortran"}, on_device=True),
        probe((37, 20, 36), out={"y": OFFSET}, on_device=True),
        probe((37, 300, 5)),  # more steps than stages
        probe((580, 17, 9)),  # more rows of tiles than are walked together
        probe((37, 20, 33), changed=changed),
        probe((37, 20, 33), changed=changed, precision="high"),
        probe((130, 20, 20), large_tiles=True),
    ]


def _matmul_backward_by_warpgroups() -> list[Probe]:
    """Probe the arguments of a launch; tests/mutants/mma_probes.py has the product itself."""

    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe("matmul_backward", shape, warpgroups=True, **more)

    return [
        probe((67, 40, 72), dtype="bfloat16"),  # packs
        probe((67, 41, 35), dtype="float16", layout="fortran"),
        probe((67, 70, 66), precision="high"),
        probe((67, 70, 66)),
        probe((1100, 9, 17), out={"dx": "C", "dw": "sliced"}, accumulate=True),  # splits of dw
        probe((37, 20, 33), layout=OFFSET, out={"dx": OFFSET, "dw": "sliced"}),
        probe((35, 18, 34), layout=PADDED, out={"dx": PADDED, "dw": PADDED}, on_device=True),
        probe((35, 18, 20), dtype="float16", out={"dw": "C", "dx": "C"}, accumulate=True),
        probe((37, 20, 33), changed={"dy": _changed((37, 33), {(2, 3): np.inf, (6, 7): np.nan})}),
    ]


def _dense_sigmoid_by_warpgroups() -> list[Probe]:
    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe("dense_sigmoid", shape, warpgroups=True, **more)

    changed = {"w": _changed((20, 33), {(3, 2): np.inf, (5, 4): -np.inf, (7, 6): np.nan})}
    return [
        probe((67, 72, 40), dtype="bfloat16"),
        probe((67, 41, 35), dtype="float16"),
        probe((67, 70, 66), precision="high"),
        probe((67, 70, 66)),
        probe((67, 20, 33), changed={"b": None}),
        probe((67, 20, 33), layouts={"b": "sliced"}),
        probe((37, 20, 33), precision="high", layout="fortran"),
        probe((37, 18, 34), layout=PADDED, out={"y": PADDED}, on_device=True),
        probe((37, 18, 34), layout="fortran", out={"y": "fortran"}, on_device=True),
        probe((37, 20, 36), out={"y": OFFSET}, on_device=True),
        probe((37, 20, 33), changed=changed),
        probe((37, 20, 33), changed=changed, precision="high"),
    ]


def _fused_path() -> list[Probe]:
    """Probe layers of one block of inputs and of several, of one split and of several."""
    every = OPERATIONS["dense_sigmoid_backward"].results

    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe("dense_sigmoid_backward", shape, fused=True, **more)

    return [
        probe((67, 36, 20)),  # two steps of the small tile, in packs
        probe((300, 70, 33)),  # two blocks of inputs, three splits
        probe((70, 130, 68)),  # the same with the large tile, two splits
        probe((35, 64, 128)),
        probe((5, 3, 2), from_z=True),
        probe((67, 40, 24), dtype="bfloat16"),  # two steps, in packs
        probe((300, 70, 33), dtype="float16"),  # two blocks of inputs, three splits
        probe((70, 130, 68), dtype="bfloat16"),
        probe((70, 70, 130), dtype="float16"),
        probe((37, 20, 33), dtype="bfloat16", from_z=True),
        probe((67, 41, 35), dtype="float16", layout="fortran"),
        probe((67, 24, 40), dtype="float16", out=dict.fromkeys(every, "C"), sums="float32"),
        probe((67, 24, 40), dtype="bfloat16", out=dict.fromkeys(every, OFFSET), accumulate=True),
        *(probe((67, 36, 20), layouts={name: OFFSET}) for name in ("dy", "y", "x", "w")),
        *(probe((67, 36, 20), layouts={name: "fortran"}) for name in ("dy", "y", "x", "w")),
        probe((67, 33, 35), layout=PADDED, out=dict.fromkeys(every, PADDED), on_device=True),
        *(
            probe((67, 36, 20), out=dict.fromkeys(every, layout), accumulate=True)
            for layout in ("C", "sliced", OFFSET)
        ),
        *(probe((300, 36, 20), out={name: "sliced"}, accumulate=True) for name in every),
        *(probe((67, 36, 20), out={name: "sliced"}, accumulate=True) for name in every),
    ]


def _fused_path_from_planes() -> list[Probe]:
    """Probe what the model of its arithmetic has no part in: how arrays lie, buffers, z, edges."""
    every = OPERATIONS["dense_sigmoid_backward"].results

    def probe(shape: tuple[int, ...], **more: Any) -> Probe:
        return Probe("dense_sigmoid_backward", shape, fused=True, planes=True, **more)

    return [
        probe((67, 36, 20)),
        probe((300, 70, 33)),
        probe((70, 130, 68)),
        probe((37, 20, 33), from_z=True),
        probe((67, 41, 35), layout="fortran"),
        probe((67, 36, 20), out=dict.fromkeys(every, "C"), accumulate=True),
        probe((67, 36, 20), out=dict.fromkeys(every, OFFSET), accumulate=True),
        probe((300, 36, 20), out=dict.fromkeys(every, "sliced"), accumulate=True),
        probe((67, 33, 35), layout=PADDED, out=dict.fromkeys(every, PADDED), on_device=True),
    ]


def _gradients_from_far_logits() -> Iterator[Probe]:
    ones = {"dy": lambda: np.ones(301, np.float32)}
    for far in (20.0, 100.0):
        changed = ones | {"z": _range(-far, far)}
        yield Probe("sigmoid_backward", (301,), from_z=True, changed=changed)


PROBES: dict[str, list[Probe]] = {
    "sigmoid": [
        *_elementwise("sigmoid"),
        Probe("sigmoid", (301,), changed={"z": _range(-120, 60)}),
        Probe("sigmoid", (301,), dtype="float64", changed={"z": _range(-740, 60, "float64")}),
    ],
    "sigmoid_backward": [
        *_elementwise("sigmoid_backward"),
        *_elementwise("sigmoid_backward", from_z=True),
        *_gradients_from_far_logits(),
    ],
    "bias_backward": _column_sums("bias_backward"),
    "sigmoid_bias_backward": [
        *_column_sums("sigmoid_bias_backward"),
        Probe("sigmoid_bias_backward", (67, 36), out={"dz": "C"}, accumulate=True),
        Probe("sigmoid_bias_backward", (67, 36), out={"db": "C"}, accumulate=True),
        *_column_sums("sigmoid_bias_backward", from_z=True)[:8],
    ],
    "matmul_backward": _products("matmul_backward"),
    "dense_sigmoid": _dense_sigmoid(),
    "dense_sigmoid_backward": [
        *_products("dense_sigmoid_backward"),
        *_products("dense_sigmoid_backward", from_z=True)[:6],
    ],
}

FUSED_PROBES = {
    "dense_sigmoid_backward fused": _fused_path(),
    "dense_sigmoid_backward fused from planes": _fused_path_from_planes(),
}

TENSOR_CORE_PROBES: dict[str, list[Probe]] = {
    "matmul_backward on tensor cores": _matmul_backward_on_tensor_cores(),
    "dense_sigmoid on tensor cores": _dense_sigmoid_on_tensor_cores(),
    "dense_sigmoid_backward on tensor cores": [
        *_products_on_tensor_cores("dense_sigmoid_backward"),
        *_products_on_tensor_cores("dense_sigmoid_backward", from_z=True)[:5],
    ],
    "matmul_backward by warpgroups": _matmul_backward_by_warpgroups(),
    "dense_sigmoid by warpgroups": _dense_sigmoid_by_warpgroups(),
}
