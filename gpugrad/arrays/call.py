"""Operands and results of one call: recognised, checked, and the only builder of error messages."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Never

import numpy as np

from gpugrad.arrays import kinds
from gpugrad.arrays.view import OutOfReach, Seen, Unsupported
from gpugrad.errors import ArgumentError, DeviceError, DTypeError, GpugradError, ShapeError
from gpugrad.operations import OPERATIONS

Array = Any  # a NumPy, CuPy, PyTorch or JAX array, or one that shows its memory by a protocol
Shape = tuple[int, ...]

OVERLAP_WORK = 100_000  # candidate solutions: well under a millisecond
PRECISIONS = ("highest", "high", "medium", "ieee")


class Call:
    """The arrays of one call of a public function, viewed as NumPy or CuPy arrays.

    It is entered as a context, in which the arrays' device and stream are current: views, copies
    and kernels belong there.

    Parameters
    ----------
    op : str
        The public function's name, with which every error message starts.
    key
        What calls like this one are known by, if by anything; see `_repeats`.
    operands : dict
        The named inputs. b and the logits z may be None, and y where the logits are given.

    Attributes
    ----------
    arrays : dict
        The inputs as NumPy or CuPy arrays, all of one dtype on one device.
    kind, home, dtype
        What they have in common.
    shapes, results : dict
        The shapes of all results, and the arrays of those that are wanted, once `outputs` has been
        asked for them.
    """

    def __init__(self, op: str, key: Any = None, /, **operands: Any) -> None:
        self.op = op
        self.key = key
        self.shapes: Mapping[str, Shape] = {}
        self.arrays: dict[str, Any] = {}
        self.results: Mapping[str, Any] = {}
        self._waited_for: set[int] = set()  # streams of other libraries
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
        self.home = self._home(self._first, value)
        self._place: Any = None

    def __enter__(self) -> "Call":
        with ExitStack() as stack:
            try:
                stack.enter_context(kinds.working_on(self.kind, self.home))
            except Unsupported as reason:
                self._refuse(self._first, reason)
            self._view_operands()
            self._context = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with self._context:
            if self.kind == "JAX" and self.home != "cpu":
                kinds.hold_until_done(self.arrays.values())

    def _view_operands(self) -> None:
        for name, value in self._operands.items():
            one = self._see(name, value)
            if name == self._first:
                self.dtype, self._place = one.array.dtype, one.place
            self._supported(name, one.array.dtype)
            self._addressable(name, one)
            self._same_place(name, one)
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

    def _refuse(self, name: str, reason: Unsupported) -> Never:
        error = DeviceError if isinstance(reason, OutOfReach) else DTypeError
        self.fail(error, f"{name} {reason}")

    def _kind(self, name: str, value: Any) -> str:
        try:
            kind = kinds.kind_of(value)
        except Unsupported as reason:
            self._refuse(name, reason)
        if kind is None:
            what = "None" if value is None else f"a {type(value).__name__}"
            self.fail(DTypeError, f"{name} is {what}, expected a NumPy, CuPy, PyTorch or JAX array")
        return kind

    def _home(self, name: str, value: Any) -> str:
        try:
            return kinds.home_of(value, self.kind)
        except Unsupported as reason:
            self._refuse(name, reason)

    def _see(self, name: str, value: Any) -> Seen:
        """View an array that must be of this call's kind, on its device."""
        kind = self._kind(name, value)
        if kind != self.kind:
            self.fail(
                DTypeError,
                f"{name} is {kinds.called(kind, value)}, expected {kinds.called(self.kind)} "
                f"because {self._first} is one",
            )
        home = self._home(name, value)
        if home != self.home:
            self.fail(
                DeviceError,
                f"{name} is on device {home}, expected {self.home} because {self._first} is there",
            )
        try:
            one = kinds.see(value, kind)
            if one.stream is not None and one.stream not in self._waited_for:
                kinds.wait_for(one.stream)
                self._waited_for.add(one.stream)
        except Unsupported as reason:
            self._refuse(name, reason)
        return one

    def _same_place(self, name: str, one: Seen) -> None:
        if one.place != self._place:
            self.fail(
                DeviceError,
                f"{name} is on device {one.place}, expected {self._place} "
                f"because {self._first} is there",
            )

    def _supported(self, name: str, dtype: Any) -> None:
        if not kinds.supported(dtype):
            self.fail(
                DTypeError, f"{name} has dtype {dtype}, expected one of {', '.join(kinds.DTYPES)}"
            )
        if not dtype.isnative:
            self.fail(DTypeError, f"{name} has dtype {dtype.str}, expected native byte order")

    def _addressable(self, name: str, one: Seen) -> None:
        if self.home != "cpu" and not whole_elements(one.array):
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
        """Check the shapes of the inputs against each other, by what they are called."""
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
        told = [f"{name} has shape {tuple(self.arrays[name].shape)}" for name in names]
        return f" because {' and '.join(told)}" if told else ""

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

    def outputs(
        self,
        out: Any,
        shapes: Mapping[str, Shape],
        *,
        wanted: Iterable[str] | None = None,
        accumulate: bool = False,
        sums: Sequence[str] = (),
        in_place: Mapping[str, Sequence[str]] | None = None,
    ) -> "Outputs":
        """Check the caller's buffers and allocate those that are missing.

        Parameters
        ----------
        out
            None, one buffer (if there is one result), or one buffer or None for each result.
        shapes
            The results by name, in order.
        wanted
            The results to compute; all if None.
        accumulate
            Whether values are added to the buffers that were given.
        sums
            Results that may be float32 where the inputs have 16 bits.
        in_place
            For a result, the inputs that it may overwrite element by element.
        """
        self.shapes = shapes
        names = tuple(shapes)
        wanted = names if wanted is None else tuple(wanted)
        given = self._buffers(out, names)
        if not isinstance(accumulate, bool | np.bool_):
            what = type(accumulate).__name__
            self.fail(DTypeError, f"accumulate is a {what}, expected True or False")
        if accumulate and not given:
            self.fail(ArgumentError, "accumulate=True needs out, the buffers to add into")
        seen: dict[str, Seen] = {}
        for name, buffer in given.items():
            if name not in wanted:
                self.fail(ArgumentError, f"out has a buffer for {name}, which wrt leaves out")
            label = name if len(names) > 1 else "out"
            seen[name] = self._writable(label, buffer, shapes[name], name in sums)
        self._no_overlaps(seen, in_place or {}, single=len(names) == 1)
        arrays: dict[str, Any] = {}
        made: dict[str, Any] = dict(given)
        for name in wanted:
            if name in seen:
                arrays[name] = seen[name].array
                continue
            order = order_of(self.arrays["w"]) if name == "dw" else "C"
            arrays[name], new = kinds.empty(self.kind, self.home, shapes[name], self.dtype, order)
            if new is not None:
                made[name] = new
        self.results = arrays
        return Outputs(self, names, arrays, given, made, tuple(given) if accumulate else ())

    def give_back(self, array: Any) -> Any:
        """Give a result as an array of the inputs' kind, where they are."""
        try:
            return kinds.wrap(array, self.kind, self._place)
        except Unsupported as reason:
            self._refuse("the result", reason)

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

    def _writable(self, label: str, buffer: Any, shape: Shape, is_sum: bool) -> Seen:
        label = "out" if label == "out" else f"out's {label}"
        one = self._see(label, buffer)
        self._same_place(label, one)
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
        return one

    def _no_overlaps(
        self,
        seen: Mapping[str, Seen],
        in_place: Mapping[str, Sequence[str]],
        *,
        single: bool,
    ) -> None:
        checked: list[str] = []
        for name, one in seen.items():
            label = "out" if single else f"out's {name}"
            for other, array in self.arrays.items():
                if other in in_place.get(name, ()) and same_memory(one.array, array):
                    continue
                if overlap(one.array, array):
                    self.fail(ArgumentError, f"{label} shares memory with {other}")
            for other in checked:
                if overlap(one.array, seen[other].array):
                    self.fail(ArgumentError, f"{label} shares memory with out's {other}")
            checked.append(name)


class Outputs:
    """The arrays that a call writes, and their way back to the caller."""

    def __init__(
        self,
        call: Call,
        names: Sequence[str],
        arrays: dict[str, Any],
        given: Mapping[str, Any],
        made: Mapping[str, Any],
        accumulate: tuple[str, ...],
    ) -> None:
        self.arrays = arrays
        self.accumulate = accumulate
        self._call, self._names, self._given, self._made = call, names, given, made

    @contextmanager
    def writing(self, flattened: str = "") -> Iterator[dict[str, Any]]:
        """Give the arrays to write, by name, with `flattened` as rows; finish them at the end.

        Where the strides of the caller's buffer do not allow a flat view, a copy is written
        first and brought back at the end. If something fails after the checks, memory or a
        kernel's compilation, the error says that the caller's buffers may have been written.
        """
        arrays = dict(self.arrays)
        if flattened in arrays:
            arrays[flattened] = as_rows(arrays[flattened])
        try:
            yield arrays
            if flattened in arrays:
                rows, target = arrays[flattened], self.arrays[flattened]
                if target.size and not overlap(rows, target):
                    target[...] = rows.reshape(target.shape)
        except (ArgumentError, DeviceError):  # of the choice of a device: nothing is written yet
            raise
        except BaseException as error:
            if self._given:
                error.add_note(f"{self._call.op}: out may have been written in part")
            raise
        for buffer in self._given.values():
            kinds.tell_written(buffer, self._call.kind)

    def results(self) -> list[Any]:
        """Give the results in order: the caller's own buffers, new arrays of its kind, or None."""
        return [
            self._made[name]
            if name in self._made
            else self._call.give_back(self.arrays[name])
            if name in self.arrays
            else None
            for name in self._names
        ]


def as_rows(array: Any) -> Any:
    """Flatten the leading dimensions, (..., m) -> (n, m), without a copy where strides allow it."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def address(array: Any) -> int:
    """Give the address of an array's first element."""
    if isinstance(array, np.ndarray):
        return int(array.ctypes.data)
    return int(array.data.ptr)


def order_of(matrix: Any) -> str:
    """Give the memory order of a matrix: "F" where only its columns are contiguous, or else "C"."""
    flags = matrix.flags
    return "F" if flags.f_contiguous and not flags.c_contiguous else "C"


def whole_elements(array: Any) -> bool:
    """Say whether an array's address and strides are multiples of its element size."""
    size = array.dtype.itemsize
    return address(array) % size == 0 and all(stride % size == 0 for stride in array.strides)


def same_memory(a: Any, b: Any) -> bool:
    """Say whether two arrays are the same elements in the same order."""
    return address(a) == address(b) and a.shape == b.shape and a.strides == b.strides


def overlap(a: Any, b: Any) -> bool:
    """Say whether two arrays share an element (True where that is too hard to decide)."""
    if a.size == 0 or b.size == 0:
        return False
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and not np.may_share_memory(a, b):
        return False  # the ranges of their addresses are disjoint: known in a tenth of the time
    try:
        shares: Any = np.shares_memory  # its stub knows only some values of max_work
        return bool(shares(_Extent(a).array(), _Extent(b).array(), max_work=OVERLAP_WORK))
    except np.exceptions.TooHardError:
        return True


def overlaps_itself(array: Any) -> bool:
    """Say whether two elements of an array may share memory: strides that do not nest."""
    if array.size == 0:
        return False
    reach = int(array.dtype.itemsize)
    for stride, extent in sorted(
        (abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1
    ):
        if stride < reach:
            return True
        reach += stride * (extent - 1)
    return False


class _Extent:
    """The memory of an array on any device, for arithmetic on addresses; never read."""

    def __init__(self, array: Any) -> None:
        self.__array_interface__ = {
            "version": 3,
            "data": (address(array), True),
            "shape": tuple(array.shape),
            "strides": tuple(array.strides),
            "typestr": f"|V{array.dtype.itemsize}",
        }

    def array(self) -> np.ndarray[Any, Any]:
        return np.asarray(self)
