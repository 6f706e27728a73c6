"""The path of every call: a signature, the bound call cached under it, its computation.

The signature holds the options and the kinds, shapes, strides, dtypes and alignment of the arrays.
Checks and the plan depend on nothing else. The first call of a signature is checked, planned and
bound; later calls run the same bound call. A bound call checks what may still differ from one call
to the next: overlapping buffers; on a GPU the current device, the stream and a capture
(gpu/bound.py); on the CPU operands that share memory and the threads of the BLAS.

Arrays of unknown types have no signature. Their calls are checked, planned and bound each time.
"""

import os
import sys
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy import ndarray

from gpugrad import dispatch
from gpugrad.arrays import kinds
from gpugrad.arrays.call import Call
from gpugrad.arrays.host import HostCall
from gpugrad.arrays.view import Unsupported
from gpugrad.host import variable
from gpugrad.operations import OPERATIONS
from gpugrad.planning.problem import Plan

if TYPE_CHECKING:
    from gpugrad.gpu import bound

MAX_CALLS = 4096  # in the cache; 5 KB each, 9 KB on a GPU (dense_sigmoid_backward)
MISALIGNED = 15  # bits of an address that are not 0 if 16-byte accesses are impossible

Bound = Any  # HostCall or gpu.bound.GpuCall


class Cache:
    """Bound calls by signature: an approximate LRU cache of two generations.

    A full young generation becomes the old one, and replaces it. A hit in the old one moves the
    call to the young one. A hit in the young one changes nothing: an exact LRU would hash the key
    twice.
    """

    def __init__(self) -> None:
        self._young: dict[Hashable, Bound] = {}
        self._old: dict[Hashable, Bound] = {}

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: Hashable) -> Bound | None:
        """Return a bound call, or None; raise TypeError if the key is not hashable."""
        bound = self._young.get(key)
        if bound is None and self._old:
            bound = self._old.get(key)
            if bound is not None:
                self.keep(key, bound)
        return bound

    def keep(self, key: Hashable, bound: Bound) -> None:
        """Insert a bound call; the cache holds at most MAX_CALLS.

        It has no lock, which a signal handler might wait for: an entry that is lost is bound again.
        """
        if len(self._young) >= MAX_CALLS // 2:
            self._young, self._old = {}, self._young
        self._young[key] = bound

    def clear(self) -> None:
        """Drop all entries."""
        self._young, self._old = {}, {}


cache = Cache()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cache.clear)  # CUDA does not survive a fork


def call(
    op: str,
    operands: tuple[Any, ...],
    out: Any = None,
    accumulate: Any = False,
    device: str = "auto",
    precision: str = "highest",
    wrt: Any = (),
) -> list[Any]:
    """Compute an operation.

    Parameters
    ----------
    op : str
    operands : tuple
        In the order of the operation's arguments; None for missing ones.
    out, accumulate, device, precision, wrt
        As the caller passed them.

    Returns
    -------
    list
        The results in order; None for those that are not wanted.
    """
    key = bound = None
    sign = _signers.get(type(operands[0])) or _signer(type(operands[0]))
    signed = None if sign is None else sign(operands, out)
    if signed is not None and (accumulate is False or accumulate is True):
        layout, args = signed
        where: Hashable = device
        threads = None
        if sign is not _sign_cupy:
            threads = variable("GPUGRAD_NUM_THREADS")
            if type(device) is str and device == "auto":
                where = variable("GPUGRAD_DEVICE") or device
        key = (op, where, threads, precision, wrt, accumulate, *layout)
        try:
            bound = cache.get(key)
        except TypeError:  # an option is not hashable
            key = None
    if bound is not None:
        results: list[Any] | None = bound(*args)
        if results is not None:
            return results
        key = None  # buffers may overlap: check this call by itself
    return _bind_and_compute(op, operands, out, accumulate, (device, precision, wrt), key)


def _bind_and_compute(
    op: str,
    operands: tuple[Any, ...],
    out: Any,
    accumulate: Any,
    options: tuple[Any, ...],
    key: Hashable,
) -> list[Any]:
    """Check, plan, bind and compute a call; cache it under its key unless that is None."""
    operation, (device, precision, wrt) = OPERATIONS[op], options
    named = dict(zip(operation.arguments, operands, strict=True))
    in_order = (*operation.operands, *(["z"] if operation.takes_z else []))
    with Call(op, **{name: named[name] for name in in_order}) as checked:
        checked.expect_operands()
        if operation.products:
            checked.expect_precision(precision)
        names = checked.expect_wrt(wrt, operation.wrt) if operation.wrt else ()
        checked.expect_results(out, accumulate, operation.wanted(names))
        problem = dispatch.problem_of(checked, names)
        plan = dispatch.decide(checked, problem, device, precision)
        bound, args = (_bind_on_cpu if checked.device == "cpu" else _bind_on_gpu)(checked, plan)
        try:
            computed: list[Any] = bound.compute(*args)
        except Unsupported as reason:
            checked.refuse("the result", reason)
        if key is not None and all(type(one) in (str, tuple) for one in options):
            cache.keep(key, bound)
    return computed


def _bind_on_cpu(checked: Call, plan: Plan) -> tuple[HostCall, tuple[Any, ...]]:
    """Bind a call on arrays in host memory; return it and its arguments."""
    op, accumulate = plan.op, checked.accumulate
    operation, kind = OPERATIONS[op], checked.kind
    if plan.device == "cpu":
        from gpugrad.cpu.threads import number_of_workers

        number_of_workers()  # refuses a wrong setting before anything is written
        bind: Any = partial(import_module(f"gpugrad.cpu.{op}").bind, accumulate=accumulate)
    else:
        from gpugrad.gpu.bind import bind_to_host

        def bind(inputs: Any, outputs: Any) -> Callable[..., None]:
            return bind_to_host(dispatch.runtime(), plan, accumulate)

    inputs = _operands_read(checked)
    bound = HostCall(
        op,
        inputs,
        checked.new_results(),
        checked.buffers,
        bind,
        flatten=plan.device == "cpu",
        empty=kinds.empty_for_jax if kind == "JAX" else np.empty,
        wrap=_wrap(checked),
        mark_written=partial(kinds.mark_written, kind=kind) if kind == "PyTorch" else None,
    )
    operands = tuple(inputs.values())
    if not checked.given:
        return bound, (operands,)
    given, buffers = (
        [arrays.get(name) for name in operation.results]
        for arrays in (checked.given, checked.buffers)
    )
    return bound, (operands, given, buffers)


def _bind_on_gpu(checked: Call, plan: Plan) -> tuple[Any, tuple[Any, ...]]:
    """Bind a call on arrays of the current GPU; return it and its arguments."""
    from gpugrad.gpu import bound, launches
    from gpugrad.gpu.memory import CupyMemory, TorchMemory

    operation, device = OPERATIONS[plan.op], int(checked.device[4:])
    is_torch = checked.kind == "PyTorch"
    inputs, new = _operands_read(checked), checked.new_results()
    known = [
        *(checked.arrays[name] for name in operation.arguments if name in checked.arrays),
        *(checked.buffers[name] for name in operation.results if name in checked.buffers),
    ]
    runtime = dispatch.runtime()
    indices = {id(one): index for index, one in enumerate(known)}
    outputs = {
        name: launches.ref_of(indices[id(checked.buffers[name])], checked.buffers[name])
        if name in checked.buffers
        else launches.new_ref(len(known) + list(new).index(name), *new[name])
        for name in operation.results
        if name in checked.wanted
    }
    program = launches.program_of(
        plan,
        {
            name: None if one is None else launches.ref_of(indices[id(one)], one)
            for name, one in inputs.items()
        },
        outputs,
        checked.accumulate,
        runtime.facts(device).sm_count,
    )
    addresses = [one.data.ptr for one in known]
    made = bound.GpuCall(
        plan.op,
        device,
        cast("bound.BoundProgram", runtime.bind(program, len(known) + len(new))),
        TorchMemory(device) if is_torch else CupyMemory(),
        tuple((operation.results.index(name), *spec) for name, spec in new.items()),
        len(operation.results),
        bound.extents_of(known, addresses),
        wrap=None if is_torch else _wrap(checked),
        mark_written=partial(kinds.mark_written, kind="PyTorch") if is_torch else None,
    )
    given = [checked.given.get(name) for name in operation.results] if checked.given else None
    return made, (addresses, given)


def _operands_read(checked: Call) -> dict[str, Any]:
    """Return the operands in the order of the arguments; None for those that are not read."""
    inputs = {name: checked.arrays.get(name) for name in OPERATIONS[checked.op].arguments}
    if inputs.get("z") is not None and "y" in inputs:
        inputs["y"] = None
    return inputs


def _wrap(checked: Call) -> Callable[[Any], Any] | None:
    """Return a function that converts a result to the caller's kind; None if it is of that kind."""
    if checked.kind in ("NumPy", "CuPy") and checked.origin is None:
        return None
    return partial(kinds.wrap, kind=checked.kind, origin=checked.origin)


# ---- signatures: the layout that a bound call depends on, and its arguments

Signature = tuple[list[Hashable], tuple[Any, ...]] | None


def _sign_numpy(operands: Sequence[Any], out: Any) -> Signature:
    layout: list[Hashable] = []
    for one in operands:
        if type(one) is ndarray:
            layout += (one.shape, one.strides, one.dtype, one.flags.aligned)
        elif one is None:
            layout.append(None)
        else:
            return None
    if out is None:
        return layout, (operands,)
    several = isinstance(out, tuple | list)
    buffers = tuple(out) if several else (out,)
    layout.append(several)
    for one in buffers:
        if one is None:
            layout.append(None)
        elif type(one) is ndarray and one.flags.behaved:  # aligned and writeable
            layout += (one.shape, one.strides, one.dtype)
        else:
            return None
    layout.append(_duplicates([id(one) for one in (*operands, *buffers) if one is not None]))
    return layout, (operands, buffers, buffers)


def _sign_cupy(operands: Sequence[Any], out: Any) -> Signature:
    kind: Any = type(operands[0])
    device = operands[0].data.device_id
    layout: list[Hashable] = [kind, device]
    arrays, given = (operands, None) if out is None else _with_buffers(layout, operands, out)
    addresses: list[int] = []
    for one in arrays:
        if one is None:
            layout.append(None)
            continue
        if type(one) is not kind or one.data.device_id != device:
            return None
        at = one.data.ptr
        addresses.append(at)
        layout += (one.shape, one.strides, one.dtype, at & MISALIGNED)
    if len(set(addresses)) < len(addresses):
        layout.append(_duplicates(addresses))
    return layout, (addresses, given)


def _sign_torch(operands: Sequence[Any], out: Any) -> Signature:
    device = operands[0].get_device()
    if device < 0:
        return _sign_views("PyTorch", operands, out)
    layout: list[Hashable] = ["PyTorch", device]
    arrays, given = (operands, None) if out is None else _with_buffers(layout, operands, out)
    addresses: list[int] = []
    try:
        for index, one in enumerate(arrays):
            if one is None:
                layout.append(None)
                continue
            if _signer(type(one)) is not _sign_torch or one.get_device() != device or one.is_neg():
                return None
            if index >= len(operands) and one.requires_grad:
                return None
            at = one.data_ptr()
            addresses.append(at)
            layout += (one.shape, one.stride(), one.dtype, at & MISALIGNED)
    except RuntimeError:  # a tensor without strides or memory
        return None
    if len(set(addresses)) < len(addresses):
        layout.append(_duplicates(addresses))
    return layout, (addresses, given)


def _sign_jax(operands: Sequence[Any], out: Any) -> Signature:
    kind: Any = type(operands[0])
    if out is not None:  # JAX arrays are read-only
        return None
    try:
        device = kinds.device_of(operands[0], "JAX")
        if device == "cpu":
            return _sign_views("JAX", operands, None)
        if any(one is not None and kinds.device_of(one, "JAX") != device for one in operands):
            return None
        with kinds.device_context("JAX", device):
            views = [None if one is None else kinds.view(one, "JAX").array for one in operands]
    except (Unsupported, AttributeError):  # AttributeError: an array of another library
        return None
    signed = _sign_cupy(views, None)
    return None if signed is None else ([kind, *signed[0]], (*signed[1], views))


def _sign_views(kind: str, operands: Sequence[Any], out: Any) -> Signature:
    """Sign PyTorch's or JAX's arrays in host memory, by NumPy views of them."""
    sign = _signer(type(operands[0]))
    several = isinstance(out, tuple | list)
    given = () if out is None else tuple(out) if several else (out,)
    views: list[Any] = []
    origins: list[Any] = []
    try:
        for one in (*operands, *given):
            if one is None:
                views.append(None)
                continue
            if _signer(type(one)) is not sign or kinds.device_of(one, kind) != "cpu":
                return None
            view = kinds.view(one, kind)
            if view.obstacle and len(views) >= len(operands):
                return None
            views.append(view.array)
            origins.append(view.origin)
    except Unsupported:
        return None
    if any(one != origins[0] for one in origins):
        return None
    buffers = tuple(views[len(operands) :])
    signed = _sign_numpy(views[: len(operands)], None if out is None else buffers)
    if signed is None:
        return None
    layout, (viewed_operands, *_) = signed
    if out is not None:
        return [kind, origins[0], several, *layout], (viewed_operands, given, buffers)
    return [kind, origins[0], *layout], (viewed_operands,)


def _with_buffers(layout: list[Hashable], operands: Sequence[Any], out: Any) -> tuple[Any, Any]:
    """Return all arrays and the buffers; append to the layout whether `out` is a tuple."""
    several = isinstance(out, tuple | list)
    given = tuple(out) if several else (out,)
    layout.append(several)
    return (*operands, *given), given


def _duplicates(addresses: list[int]) -> tuple[int, ...]:
    """Return the first index of each address: an array passed twice changes the signature."""
    return tuple(map(addresses.index, addresses))


def _signer(kind: type) -> Callable[[Sequence[Any], Any], Signature] | None:
    """Return the function that signs calls, by the type of the first operand, or None."""
    known = _signers.get(kind)
    if known is not None:
        return known
    cupy, jax = sys.modules.get("cupy"), sys.modules.get("jax")
    if cupy is not None and kind is getattr(cupy, "ndarray", None):
        return _signers.setdefault(kind, _sign_cupy)
    if kind in kinds.torch_classes():
        return _signers.setdefault(kind, _sign_torch)
    if jax is not None and issubclass(kind, getattr(jax, "Array", ())):
        return _sign_jax
    return None


_signers: dict[type, Callable[[Sequence[Any], Any], Signature]] = {ndarray: _sign_numpy}
