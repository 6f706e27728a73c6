"""Products on the BLAS's own threads: taken where no number of them changes a bit."""

import threading
import time

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import gpugrad
from gpugrad.calls import cache
from gpugrad.cpu import products, threads
from gpugrad.cpu.products import product_into
from gpugrad.cpu.scratch import take
from tests.conftest import Backend
from tests.support.cases import Layer, layer_arrays
from tests.support.operations import compute, same_bits

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
THREADS = (1, 2, 3, 5)
LAYERS = (  # small, of a contraction with a rest, with dz in several blocks, square
    Layer((130,), 71, 58),
    Layer((128,), 96, 112),
    Layer((1003,), 80, 96),
    Layer((3000,), 96, 64),
    Layer((700,), 400, 272),
    Layer((300,), 272, 464),
    Layer((8193,), 65, 64),  # whose last piece of rows would be a single one
)


@pytest.fixture(params=["agree", "differ"])
def kernels(request, monkeypatch):
    """The BLAS's kernels as if their products had the same bits on any number of threads, or not.

    Where that is wrong, trying finds it out.
    """
    monkeypatch.setattr(threads, "_kernels_agree", lambda: request.param == "agree")
    cache.clear()
    yield request.param
    cache.clear()


def on(number, work):
    with ThreadpoolController().limit(limits=number, user_api="blas"):
        return work()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_products_have_the_same_bits_on_any_number_of_threads(dtype):
    """Of random sizes: what is taken to be so by kernels, dtype and shape."""
    random = np.random.default_rng(0)
    seen = 0
    for _ in range(40):
        n, k, m = (int(2**extent) for extent in random.uniform(1, 9, 3))
        if dtype == FLOAT64:
            k, m = (max(16, one // 16 * 16) for one in (k, m))
        n *= int(random.choice([1, 8]))
        if not threads.same_bits(n, k, m, dtype):
            continue
        dz, x, w = (random.random(shape).astype(dtype) for shape in ((n, m), (n, k), (k, m)))
        cases = [(dz, w.T), (dz, np.asfortranarray(w).T), (x.T, dz), (x, w)]
        results = []
        for number in THREADS:
            outs = [np.empty((len(a), b.shape[1]), dtype) for a, b in cases]
            outs.append(np.empty((m, k), dtype).T)
            with take() as scratch:
                for (a, b), out in zip([*cases, (x.T, dz)], outs, strict=True):
                    on(
                        number,
                        lambda a=a, b=b, out=out, scratch=scratch: products.multiply_whole(
                            a, b, out, scratch, add=False
                        ),
                    )
            results.append(outs)
        for other in results[1:]:
            assert all(map(same_bits, results[0], other)), (n, k, m)
        seen += 1
    assert seen or not threads._kernels_agree()


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", ["matmul_backward", "dense_sigmoid_backward", "dense_sigmoid"])
def test_layers_have_the_same_bits_on_any_threads(kernels, monkeypatch, name, dtype, layer):
    arrays = layer_arrays(layer, dtype)
    expected = on(1, lambda: compute(Backend(), name, arrays))
    for workers, number in (("1", 2), ("2", 2), ("3", 5), ("8", 3), ("8", 1)):
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", workers)
        found = on(number, lambda: compute(Backend(), name, arrays))
        assert all(same_bits(expected[one], found[one]) for one in expected), (workers, number)


@pytest.mark.parametrize("n", [96, 512, 777])
def test_a_matrix_and_its_own_transpose(n):
    """NumPy computes half of such a product, by another function of the BLAS."""
    x = np.random.default_rng(0).random((n, 192)).astype(np.float32) / n
    square = np.ascontiguousarray(x[:96, :96])
    calls = (
        lambda: gpugrad.matmul_backward(x, x, np.ones((192, 192), np.float32)).dw,
        lambda: gpugrad.matmul_backward(square, np.ones_like(square), square).dx,
        lambda: gpugrad.dense_sigmoid(x, x.T),
    )
    for call in calls:
        expected = on(1, call)
        assert all(same_bits(expected, on(number, call)) for number in THREADS)


def test_calls_from_several_threads_have_the_same_bits():
    """One of them holds the BLAS at one thread again and again."""
    arrays = layer_arrays(Layer((300,), 272, 464), "float32")
    expected = compute(Backend(), "dense_sigmoid_backward", arrays)
    results = []

    def call():
        results.extend(compute(Backend(), "dense_sigmoid_backward", arrays) for _ in range(10))

    callers = [threading.Thread(target=call) for _ in range(3)]
    for thread in callers:
        thread.start()
    while any(thread.is_alive() for thread in callers):
        threads.on_threads(1, lambda: time.sleep(1e-4))
    assert len(results) == 30
    assert all(same_bits(expected[one], found[one]) for found in results for one in expected)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["dense_sigmoid", "dense_sigmoid_backward"])
def test_pieces_on_workers_have_the_bits_of_whole_products(monkeypatch, name, dtype, layer):
    """Where trying has found that threads do change bits, all is computed on one each."""
    arrays = layer_arrays(layer, dtype)
    expected = compute(Backend(), name, arrays)
    monkeypatch.setattr(threads, "_agree", lambda number, dtype: number == 1)
    monkeypatch.setattr(products, "TASK", 1 << 22)
    found = compute(Backend(), name, arrays)
    assert all(same_bits(expected[one], found[one]) for one in expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("layer", LAYERS[2:], ids=str)
def test_accumulating_adds_the_same_product(kernels, dtype, layer):
    """To zeros, which round nothing."""
    arrays = layer_arrays(layer, dtype)
    expected = compute(Backend(), "matmul_backward", arrays)
    out = {name: np.zeros_like(one) for name, one in expected.items()}
    compute(Backend(), "matmul_backward", arrays, out=out, accumulate=True)
    assert all(same_bits(expected[one], out[one]) for one in expected)


def test_which_products_they_are(monkeypatch):
    monkeypatch.setattr(threads, "_kernels_agree", lambda: True)
    assert threads.same_bits(100, 77, 33, FLOAT32)
    assert threads.same_bits(100, 80, 32, FLOAT64)
    assert not threads.same_bits(100, 77, 32, FLOAT64)
    assert not threads.same_bits(100, 80, 33, FLOAT64)
    for vector in ((1, 64, 64), (64, 1, 64), (64, 64, 1)):
        assert not threads.same_bits(*vector, FLOAT32)
    monkeypatch.setattr(threads, "_kernels_agree", lambda: False)
    assert not threads.same_bits(100, 80, 32, FLOAT32)


@pytest.mark.parametrize("architecture", ["SkylakeX", "Haswell", "", None])
def test_which_kernels_agree(monkeypatch, architecture):
    class Library:
        pass

    library = Library()
    if architecture is not None:
        library.architecture = architecture
    monkeypatch.setattr(threads, "libraries", lambda: threads.Libraries([library]))
    assert threads._kernels_agree.__wrapped__() == (architecture == "SkylakeX")
    monkeypatch.setattr(threads, "libraries", lambda: threads.Libraries([]))
    assert not threads._kernels_agree.__wrapped__()


def test_no_more_threads_than_there_are_to_be(monkeypatch):
    monkeypatch.setattr(threads, "_agree", lambda number, dtype: True)
    library, seen = threads.libraries().all[0], []
    for workers in ("1", "2", "8"):
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", workers)

        def look():
            number = threads.allowed(threads.libraries().threads(), FLOAT32)
            threads.on_threads(number, lambda: seen.append(library.get_num_threads()))

        on(3, look)
    assert seen == [1, 2, 3]


class Liar:
    """A BLAS whose products have other bits as soon as it has several threads."""

    internal_api = "openblas"

    def __init__(self):
        self.threads = 4

    def get_num_threads(self):
        return self.threads

    def set_num_threads(self, number):
        self.threads = number


@pytest.mark.parametrize(
    ("lie", "expected"), [("none", 4), ("of several threads", 1), ("of pieces", 1)]
)
def test_trying_finds_products_that_differ(monkeypatch, lie, expected):
    library = Liar()
    libraries = threads.Libraries([library])

    def products(dtype):
        several = lie == "of several threads" and library.threads > 1
        return [np.zeros(2), np.full(2, lie == "of pieces"), np.full(2, several)]

    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "4")
    monkeypatch.setattr(threads, "libraries", lambda: libraries)
    monkeypatch.setattr(threads, "_products", products)
    threads._agree.cache_clear()
    try:
        assert threads.allowed(4, FLOAT32) == expected
    finally:
        threads._agree.cache_clear()


def test_the_number_of_threads_is_the_least_of_all_holds():
    library = Liar()
    libraries = threads.Libraries([library])
    three, one, nine = (threads.Hold(libraries, number) for number in (3, 1, 9))
    seen = [library.threads]
    for step in (nine.take, three.take, one.take, one.release, one.release, nine.release):
        step()
        seen.append(library.threads)
        assert libraries.threads() == 4, "what others allow"
    three.release()
    assert (seen, library.threads) == ([4, 4, 3, 1, 3, 3, 3], 4)


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("meanwhile", [1, 2, 3, 4])
def test_a_number_that_others_set_during_a_hold_stays(before, meanwhile):
    """But for one thread, as a hold sets it: that is not to be told from the hold's."""
    library = Liar()
    library.threads = before
    libraries = threads.Libraries([library])
    hold, second = threads.Hold(libraries), threads.Hold(libraries)
    hold.take()
    library.threads = meanwhile
    second.take()
    assert (library.threads, libraries.threads()) == (1, before if meanwhile == 1 else meanwhile)
    second.release()
    hold.release()
    assert library.threads == (before if meanwhile == 1 else meanwhile)


@pytest.mark.parametrize("owner", ["suspended", "gone"])
def test_the_lock_of_a_thread_that_does_not_run_is_not_waited_for(monkeypatch, owner):
    """As of one that a signal handler has interrupted, or at the interpreter's end."""
    library = Liar()
    libraries = threads.Libraries([library])
    held, done = threading.Event(), threading.Event()

    def own():
        with libraries.lock:
            held.set()
            done.wait(10)

    thread = threading.Thread(target=own)
    thread.start()
    held.wait(10)
    monkeypatch.setattr(threads, "PATIENCE", 0.01 if owner == "suspended" else 10)
    monkeypatch.setattr(threads.sys, "is_finalizing", lambda: owner == "gone")
    hold, start = threads.Hold(libraries), time.monotonic()
    hold.take()
    assert library.threads == 1
    hold.release()
    assert library.threads == 4
    assert time.monotonic() - start < 5
    done.set()
    thread.join()


@pytest.mark.parametrize("rows", [1, 2, 300])
@pytest.mark.parametrize("terms", [1, 2, 70])
@pytest.mark.parametrize("columns", [1, 3, 40])
def test_products_of_all_kinds(rows, terms, columns):
    """Vectors and small results by one of NumPy's functions, larger ones by another."""
    random = np.random.default_rng(0)
    a, b = random.random((rows, terms)), random.random((terms, columns))
    out = np.full((rows, columns), np.nan)
    product_into(rows, terms, columns, out.itemsize)(a, b, out)
    np.testing.assert_allclose(out, np.einsum("it,tj->ij", a, b))
    transposed = np.full((columns, rows), np.nan)
    product_into(columns, terms, rows, out.itemsize)(b.T, a.T, transposed)
    np.testing.assert_allclose(transposed, out.T)
