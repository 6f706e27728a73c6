"""The operands and buffers of one call: their checks, and every error message about them."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Never

import numpy as np

from gpugrad.arrays import kinds
from gpugrad.arrays.view import (
    ArrayView,
    DeviceUnavailable,
    Unsupported,
    order_of,
    overlap,
    overlaps_itself,
    same_memory,
    whole_elements,
)
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, GpugradError, ShapeError
from gpugrad.operations import OPERATIONS, SUMS

Array = Any  # a NumPy, CuPy, PyTorch or JAX array, or one that exports its memory by a protocol
Shape = tuple[int, ...]

PRECISIONS = ("highest", "high", "medium", "ieee")


class Call:
    """The arrays of one call of a public function, viewed as NumPy or CuPy arrays.

    As a context manager it makes the arrays' device and stream current. Views and copies are made
    within it.

    Parameters
    ----------
    op : str
        Name of the public function. Every error message starts with it.
    operands : dict
        The inputs by name. b and the logits z may be None, and y may be None if z is given.

    Attributes
    ----------
    arrays : dict
        The inputs as NumPy or CuPy arrays, all of one dtype on one device.
    kind : str
        "NumPy", "CuPy", "PyTorch", "JAX", or a name for arrays of another library.
    device : str
        "cpu" or "gpu:<index>".
    dtype : numpy.dtype
    origin : object
        As in `ArrayView`.
    shapes : dict
        Shapes of all results; this and the following are set by `expect_results`.
    wanted : tuple of str
        The results to compute.
    given, buffers : dict
        The caller's buffers, as they are and as NumPy or CuPy arrays.
    accumulate : tuple of str
        The results that are added to their buffers.
    """

    def __init__(self, op: str, /, **operands: Any) -> None:
        self.op = op
        self.arrays: dict[str, Any] = {}
        self.shapes: dict[str, Shape] = {}
        self.wanted: tuple[str, ...] = ()
        self.given: dict[str, Any] = {}
        self.buffers: dict[str, Any] = {}
        self.accumulate: tuple[str, ...] = ()
        self._waited_for: set[int] = set()  # streams of the arrays' producers
        optional = {"b"} if "dy" not in operands else {"z"}
        if operands.get("z") is not None:
            optional.add("y")
        self._operands = {
            name: value
            for name, value in operands.items()
            if value is not None or name not in optional
        }
        self._first, value = next(iter(self._operands.items()))
        self.kind = self._kind(self._first, value)
        self.device = self._device_of(self._first, value)
        self.origin: Any = None

    def __enter__(self) -> "Call":
        with ExitStack() as stack:
            try:
                stack.enter_context(kinds.device_context(self.kind, self.device))
            except Unsupported as reason:
                self.refuse(self._first, reason)
            self._view_operands()
            self._context = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with self._context:
            if self.kind == "JAX" and self.device != "cpu":
                kinds.hold_until_done(self.arrays.values())

    def _view_operands(self) -> None:
        for name, value in self._operands.items():
            one = self._view(name, value)
            if name == self._first:
                self.dtype, self.origin = one.array.dtype, one.origin
            self._supported(name, one.array.dtype)
            self._addressable(name, one)
            self._expect_origin(name, one)
            if one.array.dtype != self.dtype:
                self.fail(
                    DTypeError,
                    f"{name} has dtype {one.array.dtype}, expected {self.dtype} "
                    f"because {self._first} has dtype {self.dtype}",
                )
            self.arrays[name] = one.array

    # ---- messages

    def fail(self, error: type[GpugradError], text: str) -> Never:
        """Raise `error` with the function's name before the text."""
        raise error(f"{self.op}: {text}")

    def refuse(self, name: str, reason: Unsupported) -> Never:
        """Raise the error that says why an array cannot be used."""
        error = DeviceError if isinstance(reason, DeviceUnavailable) else DTypeError
        self.fail(error, f"{name} {reason}")

    def _kind(self, name: str, value: Any) -> str:
        try:
            kind = kinds.kind_of(value)
        except Unsupported as reason:
            self.refuse(name, reason)
        if kind is None:
            what = "None" if value is None else f"a {type(value).__name__}"
            self.fail(DTypeError, f"{name} is {what}, expected a NumPy, CuPy, PyTorch or JAX array")
        return kind

    def _device_of(self, name: str, value: Any) -> str:
        try:
            return kinds.device_of(value, self.kind)
        except Unsupported as reason:
            self.refuse(name, reason)

    def _view(self, name: str, value: Any) -> ArrayView:
        """View an array; check that it is of the call's kind and on its device."""
        kind = self._kind(name, value)
        if kind != self.kind:
            self.fail(
                DTypeError,
                f"{name} is {kinds.describe(kind, value)}, expected {kinds.describe(self.kind)} "
                f"because {self._first} is one",
            )
        device = self._device_of(name, value)
        if device != self.device:
            self.fail(
                DeviceError,
                f"{name} is on device {device}, expected {self.device} "
                f"because {self._first} is there",
            )
        try:
            one = kinds.view(value, kind)
            if one.stream is not None and one.stream not in self._waited_for:
                kinds.wait_for(one.stream)
                self._waited_for.add(one.stream)
        except Unsupported as reason:
            self.refuse(name, reason)
        return one

    def _expect_origin(self, name: str, one: ArrayView) -> None:
        if one.origin != self.origin:
            self.fail(
                DeviceError,
                f"{name} is on device {one.origin}, expected {self.origin} "
                f"because {self._first} is there",
            )

    def _supported(self, name: str, dtype: Any) -> None:
        if not kinds.is_supported(dtype):
            self.fail(
                DTypeError, f"{name} has dtype {dtype}, expected one of {', '.join(kinds.DTYPES)}"
            )
        if not dtype.isnative:
            self.fail(DTypeError, f"{name} has dtype {dtype.str}, expected native byte order")

    def _addressable(self, name: str, one: ArrayView) -> None:
        if self.device != "cpu" and not whole_elements(one.array):
            self.fail(
                ArgumentError,
                f"{name} starts or strides within an element, expected whole elements on a GPU",
            )

    # ---- shapes

    def expect_shape(self, name: str, expected: Shape, *because: str) -> None:
        """Check an input's shape, which follows from those of the inputs named in `because`."""
        shape = tuple(self.arrays[name].shape)
        if shape != expected:
            why = self._why(because)
            self.fail(ShapeError, f"{name} has shape {shape}, expected {expected}{why}")

    def expect_rank(self, name: str, rank: int, form: str, *, exact: bool = False) -> None:
        """Check that an input has at least (or exactly) `rank` dimensions; `form` shows them."""
        shape = tuple(self.arrays[name].shape)
        if len(shape) < rank or (exact and len(shape) != rank):
            self.fail(ShapeError, f"{name} has shape {shape}, expected {form}")

    def expect_operands(self) -> None:
        """Check the shapes of the inputs against each other."""
        arrays = self.arrays
        if "w" in arrays:
            self.expect_rank("x", 1, "(..., k)")
            self.expect_rank("w", 2, "(k, m)", exact=True)
            x, w = arrays["x"].shape, arrays["w"].shape
            self.expect_shape("w", (x[-1], w[1]), "x")
            if "b" in arrays:
                self.expect_shape("b", (w[1],), "w")
            expected: Shape = (*x[:-1], w[1])
            because: tuple[str, ...] = ("x", "w")
        elif "dy" in arrays:
            if OPERATIONS[self.op].rows:
                self.expect_rank("dy", 1, "(..., m)")
            expected, because = tuple(arrays["dy"].shape), ("dy",)
        else:
            return
        for name in ("dy", "y", "z"):
            if name in arrays:
                self.expect_shape(name, expected, *because)

    def _why(self, names: Sequence[str]) -> str:
        shapes = [f"{name} has shape {tuple(self.arrays[name].shape)}" for name in names]
        return f" because {' and '.join(shapes)}" if shapes else ""

    # ---- options

    def expect_precision(self, precision: object) -> None:
        """Check the precision class."""
        if not isinstance(precision, str) or precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            self.fail(ArgumentError, f"precision is {precision!r}, expected one of {known}")

    def expect_wrt(self, wrt: Iterable[str], allowed: Sequence[str]) -> tuple[str, ...]:
        """Check the names of the inputs to differentiate with respect to."""
        try:
            wanted = set(wrt)
        except TypeError:
            self.fail(DTypeError, f"wrt is {wrt!r}, expected names in a tuple")
        for name in sorted(wanted - set(allowed), key=repr):
            self.fail(ArgumentError, f"wrt names {name!r}, expected some of {', '.join(allowed)}")
        return tuple(name for name in allowed if name in wanted)

    # ---- results

    def expect_results(self, out: Any, accumulate: object, wanted: Sequence[str]) -> None:
        """Check the caller's buffers.

        Parameters
        ----------
        out
            None, the buffer of the only result, or a buffer or None for each result.
        accumulate
            Whether results are added to the buffers.
        wanted : sequence of str
            The results to compute.
        """
        operation = OPERATIONS[self.op]
        names = operation.results
        self.shapes = operation.result_shapes({k: v.shape for k, v in self.arrays.items()})
        self.wanted = tuple(wanted)
        self.given = self._buffers(out, names)
        if not isinstance(accumulate, bool | np.bool_):
            what = type(accumulate).__name__
            self.fail(DTypeError, f"accumulate is a {what}, expected True or False")
        if accumulate and not self.given:
            self.fail(ArgumentError, "accumulate=True needs out, the buffers to add into")
        for name, buffer in self.given.items():
            if name not in wanted:
                self.fail(ArgumentError, f"out has a buffer for {name}, which wrt leaves out")
            label = name if len(names) > 1 else "out"
            self.buffers[name] = self._writable(label, buffer, self.shapes[name], name in SUMS)
        self._no_overlaps(() if accumulate else operation.in_place, single=len(names) == 1)
        self.accumulate = tuple(self.given) if accumulate else ()

    def new_results(self) -> dict[str, tuple[Shape, Any, str]]:
        """Return shape, dtype and memory order of the results without a buffer."""
        return {
            name: (
                self.shapes[name],
                self.dtype,
                order_of(self.arrays["w"]) if name == "dw" else "C",
            )
            for name in OPERATIONS[self.op].results
            if name in self.wanted and name not in self.buffers
        }

    def wrap_result(self, array: Any) -> Any:
        """Convert a result to an array of the inputs' kind, on their device."""
        try:
            return kinds.wrap(array, self.kind, self.origin)
        except Unsupported as reason:
            self.refuse("the result", reason)

    def _buffers(self, out: Any, names: Sequence[str]) -> dict[str, Any]:
        if out is None:
            return {}
        if len(names) == 1:
            return {names[0]: out}
        if not isinstance(out, tuple | list):
            self.fail(
                DTypeError, f"out is a {type(out).__name__}, expected a tuple ({', '.join(names)})"
            )
        if len(out) != len(names):
            self.fail(
                ArgumentError,
                f"out has {len(out)} entries, expected {len(names)}: ({', '.join(names)})",
            )
        return {name: one for name, one in zip(names, out, strict=True) if one is not None}

    def _writable(self, label: str, buffer: Any, shape: Shape, is_sum: bool) -> Any:
        label = "out" if label == "out" else f"out's {label}"
        one = self._view(label, buffer)
        self._expect_origin(label, one)
        if one.array.dtype != self.dtype:
            wide = is_sum and self.dtype.name in kinds.HALVES
            if not wide or one.array.dtype != np.float32:
                allowed = f"{self.dtype} or float32" if wide else f"{self.dtype}"
                self.fail(DTypeError, f"{label} has dtype {one.array.dtype}, expected {allowed}")
        if tuple(one.array.shape) != shape:
            self.fail(ShapeError, f"{label} has shape {tuple(one.array.shape)}, expected {shape}")
        self._addressable(label, one)
        obstacle = "is a scalar" if isinstance(buffer, np.generic) else one.obstacle
        if obstacle:
            self.fail(ArgumentError, f"{label} {obstacle}, expected an array that can be written")
        if overlaps_itself(one.array):
            self.fail(ArgumentError, f"{label} has elements that share memory with each other")
        return one.array

    def _no_overlaps(self, in_place: Sequence[str], *, single: bool) -> None:
        """Check that buffers share no memory; the first result may be computed in place."""
        checked: list[str] = []
        for name, buffer in self.buffers.items():
            label = "out" if single else f"out's {name}"
            allowed = in_place if name == OPERATIONS[self.op].results[0] else ()
            for other, array in self.arrays.items():
                if other in allowed and same_memory(buffer, array):
                    continue
                if overlap(buffer, array):
                    self.fail(ArgumentError, f"{label} shares memory with {other}")
            for other in checked:
                if overlap(buffer, self.buffers[other]):
                    self.fail(ArgumentError, f"{label} shares memory with out's {other}")
            checked.append(name)
