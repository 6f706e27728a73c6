"""Bugs planted in the cache of bound calls, each of which a few calls show."""

import contextlib
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpugrad
from gpugrad import backward, calls, forward
from gpugrad import gpu as package
from gpugrad.errors import ArgumentError, DTypeError
from gpugrad.gpu import bound, cupy_runtime, memory
from gpugrad.planning import choice as plan
from gpugrad.testing.algorithms import on_tensor_cores, products_by
from tests import driver
from tests.conftest import ON_A_GPU, CupyBackend
from tests.support.cases import LAYOUTS, Layer, layer_arrays
from tests.support.operations import same_bits

pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.skipif(ON_A_GPU, reason="needs a GPU that is played"),
]
BACKEND = CupyBackend()
SQUARE, SPLIT = Layer((24,), 24, 24), Layer((600,), 9, 5)
NAMES = ("dy", "y", "x", "w")


def brought(layer: Layer, seed: int = 0) -> list[Any]:
    arrays = layer_arrays(layer, "float32", seed)
    return [BACKEND.array(arrays[name]) for name in NAMES]


def expect_right(found: Any, *operands: Any, **options: Any) -> None:
    """Compare a layer's gradients with those that NumPy computes."""
    on_host = [one if isinstance(one, np.ndarray) else one.get() for one in operands]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backward, "calls", calls)
        patch.setattr(calls, "cache", calls.Cache())
        expected = gpugrad.dense_sigmoid_backward(*on_host, device="cpu", **options)
    for one, exact in zip(found, expected, strict=True):
        assert (one is None) == (exact is None)
        values = one.get() if hasattr(one, "get") else one
        assert exact is None or np.allclose(values, exact, rtol=1e-4, atol=1e-4)


# ---- calls that show them


def of_other_strides(bring: Callable[[Any], Any]) -> None:
    operands = [bring(one.get()) for one in brought(SQUARE)]
    for changed in (operands, [one.T for one in operands]):
        expect_right(gpugrad.dense_sigmoid_backward(*changed), *changed)


def on_the_host_of_other_strides() -> None:
    """Dw has the memory order of w."""
    dy, y, x, w = (one.get() for one in brought(SQUARE))
    for changed in (w, w.T):
        dw = gpugrad.dense_sigmoid_backward(dy, y, x, changed).dw
        assert dw.flags.f_contiguous == changed.flags.f_contiguous


def on_the_host_of_another_alignment() -> None:
    """Bits are those of the same call alone."""
    arrays = layer_arrays(Layer((34,), 62, 151), "float32")
    operands = [arrays[name] for name in NAMES]
    shifted = [LAYOUTS["byte offset"](one) for one in operands]
    alone = gpugrad.dense_sigmoid_backward(*shifted, device="cpu")
    backward.calls.cache.clear()
    gpugrad.dense_sigmoid_backward(*operands, device="cpu")
    found = gpugrad.dense_sigmoid_backward(*shifted, device="cpu")
    assert all(map(same_bits, found, alone))


def on_the_host_into_other_strides() -> None:
    arrays = layer_arrays(Layer((4, 6), 24, 24), "float32")
    operands = [arrays[name] for name in NAMES]
    for order in "CF":
        out = np.zeros((4, 6, 24), np.float32, order)
        found = gpugrad.dense_sigmoid_backward(*operands, out=(out, None, None))
        expect_right(found, *operands)


def on_a_gpu_of_other_strides() -> None:
    of_other_strides(BACKEND.array)


def of_another_alignment() -> None:
    import cupy

    operands = brought(SQUARE)
    shifted = []
    for one in operands:
        buffer = cupy.empty(one.size + 1, one.dtype)[1:].reshape(one.shape)
        buffer[...] = one
        shifted.append(buffer)
    for changed in (operands, shifted):
        expect_right(gpugrad.dense_sigmoid_backward(*changed), *changed)


def of_another_dtype() -> None:
    for dtype in ("float16", "bfloat16"):
        arrays = layer_arrays(SQUARE, dtype)
        dy, y = (BACKEND.array(arrays[name]) for name in NAMES[:2])
        found = gpugrad.sigmoid_backward(dy, y).get().astype(np.float32)
        wide_dy, wide_y = (arrays[name].astype(np.float32) for name in NAMES[:2])
        assert np.allclose(found, wide_dy * wide_y * (1 - wide_y), rtol=0.02, atol=1e-3)


def on_another_device() -> None:
    import cupy

    for device in (0, 1):
        with cupy.cuda.Device(device):
            operands = brought(SPLIT)
            grads = gpugrad.dense_sigmoid_backward(*operands)
            assert {one.device.id for one in grads} == {device}
            expect_right(grads, *operands)


def while_another_device_is_current() -> None:
    import cupy

    operands = brought(SPLIT)
    gpugrad.dense_sigmoid_backward(*operands)
    with cupy.cuda.Device(1):
        grads = gpugrad.dense_sigmoid_backward(*operands)
    expect_right(grads, *operands)


def with_other_options() -> None:
    operands = brought(SQUARE)
    for wrt in (("x",), ("w", "b")):
        expect_right(gpugrad.dense_sigmoid_backward(*operands, wrt=wrt), *operands, wrt=wrt)
    dy, y, x, w = (one.get() for one in operands)
    for changed in ({}, {"precision": "most"}, {"device": "moon"}):
        try:
            gpugrad.dense_sigmoid_backward(dy, y, x, w, **{"device": "cpu"} | changed)
        except ArgumentError:
            assert changed
        else:
            assert not changed


def with_the_variable_for_the_device() -> None:
    operands = [one.get() for one in brought(SQUARE)]
    gpugrad.dense_sigmoid_backward(*operands)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUGRAD_DEVICE", "moon")
        with pytest.raises(ArgumentError):
            gpugrad.dense_sigmoid_backward(*operands)


def with_the_variable_for_threads() -> None:
    operands = [one.get() for one in brought(SQUARE)]
    gpugrad.dense_sigmoid_backward(*operands, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPUGRAD_NUM_THREADS", "0")
        with pytest.raises(ArgumentError):
            gpugrad.dense_sigmoid_backward(*operands, device="cpu")


def with_accumulation() -> None:
    operands = brought(SQUARE)
    out = gpugrad.dense_sigmoid_backward(*operands)
    before = [one.get() for one in out]
    for times, accumulate in ((1, False), (2, True), (3, True)):
        gpugrad.dense_sigmoid_backward(*operands, out=out, accumulate=accumulate)
        for one, exact in zip(out, before, strict=True):
            assert np.allclose(one.get(), times * exact, rtol=1e-4, atol=1e-4)


def with_a_tuple_of_one() -> None:
    (z, *_) = brought(SQUARE)
    out = z.copy()
    gpugrad.sigmoid(z, out=out)
    with pytest.raises(DTypeError):
        gpugrad.sigmoid(z, out=(out,))


def in_place(bring: Callable[[Any], Any]) -> None:
    dy, y = (bring(one.get()) for one in brought(SQUARE)[:2])
    expected = gpugrad.sigmoid_backward(dy, y)
    for target in (dy, y):
        operands = [dy.copy(), y.copy()]
        out = operands[0 if target is dy else 1]
        gpugrad.sigmoid_backward(*operands, out=out)
        assert (out == expected).all()
    other = bring(np.zeros((24, 24), np.float32))
    gpugrad.sigmoid_backward(dy, y, out=other)
    for shift in (0, 4):
        memory_of_both = bring(np.zeros(600, np.float32))
        one, over = (memory_of_both[k : k + 576].reshape(24, 24) for k in (0, shift))
        with pytest.raises(ArgumentError) if shift else pytest.MonkeyPatch.context():
            gpugrad.sigmoid_backward(dy, one, out=over)


def in_place_on_the_host() -> None:
    in_place(np.asarray)


def in_place_on_a_gpu() -> None:
    in_place(BACKEND.array)


def into_read_only_memory() -> None:
    z, out = np.zeros(3, np.float32), np.ones(3, np.float32)
    gpugrad.sigmoid(z, out=out, device="cpu")
    out.flags.writeable = False
    with pytest.raises(ArgumentError):
        gpugrad.sigmoid(z, out=out, device="cpu")


def in_threads() -> None:
    """Each on operands of its own, at the same time, after a call of the main thread's."""
    import cupy

    gpugrad.dense_sigmoid_backward(*brought(SPLIT))
    meeting, launch = threading.Barrier(2), cupy.cuda.driver.launchKernel
    found: list[Any] = [None, None]

    def slow(*args: int) -> None:
        meeting.wait(20)  # both have filled in their parameters
        launch(*args)

    def work(seed: int) -> None:
        try:
            operands = brought(SPLIT, seed)
            meeting.wait(20)
            found[seed] = operands, gpugrad.dense_sigmoid_backward(*operands)
        except BaseException:
            meeting.abort()
            raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        patch.setattr(cupy.cuda.driver, "launchKernel", slow)
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)
    for one in found:
        assert one is not None
        expect_right(one[1], *one[0])


def first_of_a_thread() -> None:
    """Nothing else of the thread's makes a context current."""
    operands = brought(SPLIT)
    gpugrad.dense_sigmoid_backward(*operands)
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(gpugrad.dense_sigmoid_backward(*operands))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda _: None)
        thread.start()
        thread.join(60)
    (grads,) = found
    expect_right(grads, *operands)


def with_memory_given_back() -> None:
    """A workspace goes back to the driver, which has other memory for the next call."""
    import cupy

    with cupy.cuda.using_allocator(None):
        for seed in range(2):
            operands = brought(SPLIT, seed)
            expect_right(gpugrad.dense_sigmoid_backward(*operands), *operands)


def of_tensor_maps() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in products_by(on_tensor_cores).items():
            patch.setattr(plan, name, value)
        for seed in range(2):
            arrays = layer_arrays(SQUARE, "float16", seed)
            dy, x, w = (BACKEND.array(arrays[name]) for name in ("dy", "x", "w"))
            grads = gpugrad.matmul_backward(dy, x, w)
            exact = arrays["dy"].astype(np.float32) @ arrays["w"].astype(np.float32).T
            assert np.allclose(grads.dx.get(), exact, rtol=0.01, atol=0.05)


def in_a_graph() -> None:
    """Replayed when what follows has been given all memory that is not a graph's."""
    import cupy

    operands, stream = brought(SPLIT), cupy.cuda.Stream(non_blocking=True)
    gpugrad.dense_sigmoid_backward(*operands)
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        grads = gpugrad.dense_sigmoid_backward(*operands)
        graph = stream.end_capture()
        others = [cupy.zeros(1 << k, np.float32) for k in range(4, 14) for _ in range(4)]
    graph.launch(stream)
    stream.synchronize()
    expect_right(grads, *operands)
    assert not any(one.get().any() for one in others)


def on_another_stream() -> None:
    import cupy

    operands = brought(SPLIT)
    gpugrad.dense_sigmoid_backward(*operands)
    cupy.cuda.Device().synchronize()
    used: list[int] = []
    launch = cupy.cuda.driver.launchKernel
    with pytest.MonkeyPatch.context() as patch, cupy.cuda.Stream(non_blocking=True) as stream:
        patch.setattr(
            cupy.cuda.driver, "launchKernel", lambda *args: (used.append(args[8]), launch(*args))
        )
        gpugrad.dense_sigmoid_backward(*operands)
        stream.synchronize()
    assert set(used) == {stream.ptr}


@dataclass(frozen=True)
class Mutant:
    """A change of a module's text, and calls that show it."""

    module: types.ModuleType
    old: str
    new: str
    probe: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.probe.__name__}: {self.old.splitlines()[-1].strip()}"


NUMPY_KEY = "layout += (one.shape, one.strides, one.dtype, one.flags.aligned)"
TWICE = """if len(set(addresses)) < len(addresses):
        layout.append(_duplicates(addresses))
    return layout, (addresses, given)


def _sign_torch"""
BUFFER_KEY = """aligned and writeable
            layout += (one.shape, one.strides, one.dtype)"""
CUPY_KEY = "layout += (one.shape, one.strides, one.dtype, at & MISALIGNED)"
KEY = "key = (op, where, threads, precision, wrt, accumulate, *layout)"
MUTANTS = [
    Mutant(calls, NUMPY_KEY, NUMPY_KEY.replace(" one.strides,", ""), on_the_host_of_other_strides),
    Mutant(
        calls,
        NUMPY_KEY,
        NUMPY_KEY.replace(", one.flags.aligned", ""),
        on_the_host_of_another_alignment,
    ),
    Mutant(calls, CUPY_KEY, CUPY_KEY.replace(" one.strides,", ""), on_a_gpu_of_other_strides),
    Mutant(calls, CUPY_KEY, CUPY_KEY.replace(", at & MISALIGNED", ""), of_another_alignment),
    Mutant(calls, CUPY_KEY, CUPY_KEY.replace("one.dtype", "one.dtype.itemsize"), of_another_dtype),
    Mutant(calls, "layout: list[Hashable] = [kind, device]", "layout = [kind]", on_another_device),
    Mutant(calls, KEY, KEY.replace(" wrt,", ""), with_other_options),
    Mutant(calls, KEY, KEY.replace(" precision,", ""), with_other_options),
    Mutant(calls, KEY, KEY.replace(" where,", ""), with_other_options),
    Mutant(calls, KEY, KEY.replace(" accumulate,", ""), with_accumulation),
    Mutant(calls, KEY, KEY.replace(" threads,", ""), with_the_variable_for_threads),
    Mutant(
        calls,
        'variable("GPUGRAD_DEVICE") or device',
        "device",
        with_the_variable_for_the_device,
    ),
    Mutant(
        calls,
        BUFFER_KEY,
        BUFFER_KEY.replace(" one.strides,", ""),
        on_the_host_into_other_strides,
    ),
    Mutant(calls, "layout.append(several)\n    return", "return", with_a_tuple_of_one),
    Mutant(
        calls,
        TWICE,
        TWICE.replace("len(set(addresses)) < len(addresses)", "False"),
        in_place_on_a_gpu,
    ),
    Mutant(calls, "one.flags.behaved", "one.flags.aligned", into_read_only_memory),
    Mutant(
        bound, "if given is not None and self._overlap(addresses):", "if False:", in_place_on_a_gpu
    ),
    Mutant(bound, "self._frames.pop()", "self._frames[-1]", in_threads),
    Mutant(bound, "if self.device not in thread.devices:", "if False:", first_of_a_thread),
    Mutant(
        bound,
        "if cuda.runtime.getDevice() != self.device:",
        "if False:",
        while_another_device_is_current,
    ),
    Mutant(bound, "if where != one.where:", "if one.where is None:", of_tensor_maps),
    Mutant(
        bound,
        "addresses += [at + offset for offset in program.offsets]",
        "addresses += [vars(self).setdefault('at', at) + one for one in program.offsets]",
        with_memory_given_back,
    ),
    Mutant(
        bound,
        "memory, program = self.memory, self.program\n        stream = memory.stream()",
        "memory, program = self.memory, self.program\n"
        "        stream = vars(self).setdefault('stream', memory.stream())",
        on_another_stream,
    ),
    Mutant(memory, "if stream in NEVER_CAPTURED or not", "if True or not", in_a_graph),
]


@pytest.fixture
def planted(request: pytest.FixtureRequest, gpu: None) -> Iterator[None]:
    """The package with a changed module."""
    mutant: Mutant = request.getfixturevalue("change")
    file = Path(str(mutant.module.__file__))
    text = file.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    changed = types.ModuleType(mutant.module.__name__)
    changed.__file__ = str(file)
    exec(compile(text.replace(mutant.old, mutant.new), file, "exec"), vars(changed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, mutant.module.__name__, changed)
        if mutant.module is calls:
            patch.setattr(backward, "calls", changed)
            patch.setattr(forward, "calls", changed)
        else:
            patch.setattr(package, mutant.module.__name__.rpartition(".")[2], changed)
        if mutant.module is bound:
            patch.setattr(cupy_runtime, "BoundProgram", vars(changed)["BoundProgram"])
        yield
    with contextlib.suppress(RuntimeError):  # of work that has failed
        driver.finish()
    driver.recover()


@pytest.mark.parametrize("change", MUTANTS, ids=str)
# Memory is given back in a context that is lost.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("planted")
def test_mutant_is_caught(change: Mutant) -> None:
    try:
        change.probe()
    except (Exception, pytest.fail.Exception):  # of whatever class
        return
    pytest.fail("survives")


@pytest.mark.parametrize("probe", {one.probe.__name__: one.probe for one in MUTANTS}.values())
def test_the_package_as_it_is_passes(probe: Callable[[], None]) -> None:
    probe()
