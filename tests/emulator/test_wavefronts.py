"""Requests and wavefronts of shared memory, where it is known by hand how many there are."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, Requests, uninitialised

SOURCE = """
struct alignas(8) Pair { float v[2]; };
struct alignas(16) Quad { float v[4]; };
struct alignas(16) Both { double v[4]; };
extern "C" __global__ void loads(const int* word, int bytes, float* out) {
  __shared__ __align__(128) float box[2048];
  for (int i = threadIdx.x; i < 2048; i += blockDim.x) box[i] = i;
  __syncthreads();
  const int at = word[threadIdx.x];
  float sum = 0;
  if (bytes == 4) sum = box[at];
  if (bytes == 8) {
    const Pair pair = *reinterpret_cast<const Pair*>(box + at);
    sum = pair.v[0] + pair.v[1];
  }
  if (bytes == 16) {
    const Quad quad = *reinterpret_cast<const Quad*>(box + at);
    sum = quad.v[0] + quad.v[1] + quad.v[2] + quad.v[3];
  }
  out[threadIdx.x] = sum;
}
extern "C" __global__ void stores(const int* word, int bytes, double* out) {
  __shared__ __align__(128) float box[2048];
  float* at = box + word[threadIdx.x];
  if (bytes == 4) *at = 1;
  if (bytes == 16) *reinterpret_cast<Quad*>(at) = Quad{{1, 2, 3, 4}};
  if (bytes == 32) *reinterpret_cast<Both*>(at) = Both{{1, 2, 3, 4}};
}
extern "C" __global__ void copies(const int* word, const float* from) {
  extern __shared__ float4 memory[];
  float* const box = reinterpret_cast<float*>(memory);
  ptx::cp_async16(box + word[threadIdx.x], from + 4 * threadIdx.x, threadIdx.x < 20 ? 16 : 0);
  ptx::cp_async_wait_all();
}
extern "C" __global__ void matrices(const int* word) {
  extern __shared__ float4 memory[];
  float* const box = reinterpret_cast<float*>(memory);
  for (int i = 0; i < 32; ++i) box[i * 64 + threadIdx.x] = box[i * 64 + threadIdx.x + 32] = 0;
  __syncwarp();
  unsigned r[4];
  ptx::ldmatrix_x4(r, box + word[threadIdx.x]);
  ptx::stmatrix_x4_trans(box + word[threadIdx.x], r);
}
extern "C" __global__ void diverging(float* out) {
  __shared__ float box[96];
  for (int i = 0; i < 96; i += 32) box[i + threadIdx.x] = i;
  __syncwarp();
  float sum = 0;
  for (int i = 0; i < (threadIdx.x < 8 ? 3 : 1); ++i) sum += box[2 * threadIdx.x + i];
  out[threadIdx.x] = sum;
}
"""
LANES = np.arange(32)


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(SOURCE)


def words(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.asarray(numbers, np.int32)


def of_kind(found: list[Requests], kind: str) -> Requests:
    (one,) = [requests for requests in found if requests.kind == kind]
    return one


def launched(module: Module, name: str, *arguments: object, shared_mem: int = 0) -> list[Requests]:
    kernel = module.get_function(name)
    kernel((1,), (32,), arguments, shared_mem=shared_mem, count_wavefronts=True)
    return kernel.shared_requests


@pytest.mark.parametrize(
    ("at", "bytes_", "wavefronts", "ideal"),
    [
        (LANES, 4, 1, 1),
        (LANES * 2, 4, 2, 1),
        (LANES * 32, 4, 32, 1),
        (LANES * 33, 4, 1, 1),
        (LANES * 0, 4, 1, 1),  # one word serves all
        (LANES // 2 * 32, 4, 16, 1),
        (LANES * 2, 8, 2, 2),  # 16 lanes a wavefront
        (LANES * 4, 8, 4, 2),
        (LANES // 2 * 2, 8, 1, 1),  # lanes in pairs: all 32 at once
        (LANES // 4 * 4 + LANES % 2 * 2, 8, 1, 1),  # and so if bit 1 tells them apart
        (LANES // 16 * 32 + LANES % 16 * 2, 8, 2, 2),
        (LANES * 4, 16, 4, 4),  # 8 lanes
        (LANES * 8, 16, 8, 4),
        (LANES % 8 * 4, 16, 4, 4),  # not in pairs
        (LANES // 8 * 4, 16, 2, 2),
        (LANES // 8 * 32, 16, 4, 2),
    ],
)
def test_loads(module: Module, at: np.ndarray, bytes_: int, wavefronts: int, ideal: int) -> None:
    out = uninitialised(32)
    found = launched(module, "loads", words(at), np.int32(bytes_), out)
    one = of_kind(found, "load")
    assert (one.bytes, one.requests, one.wavefronts, one.ideal) == (bytes_, 1, wavefronts, ideal)
    fill = of_kind(found, "store")
    assert (fill.bytes, fill.requests, fill.wavefronts, fill.ideal) == (4, 64, 64, 64)


@pytest.mark.parametrize(
    ("at", "bytes_", "requests", "wavefronts", "ideal"),
    [
        (LANES, 4, 1, 1, 1),
        (LANES * 4, 16, 1, 4, 4),
        (LANES * 8, 16, 1, 8, 4),
        (LANES * 8, 32, 2, 16, 8),  # two accesses of 16 bytes, each with a stride of 32
    ],
)
def test_stores(
    module: Module, at: np.ndarray, bytes_: int, requests: int, wavefronts: int, ideal: int
) -> None:
    one = of_kind(launched(module, "stores", words(at), np.int32(bytes_), None), "store")
    assert (one.requests, one.wavefronts, one.ideal) == (requests, wavefronts, ideal)


@pytest.mark.parametrize(
    ("at", "wavefronts"), [(LANES * 4, 4), (LANES * 8, 8), (LANES % 8 * 32 + LANES // 8 * 4, 32)]
)
def test_asynchronous_copies(module: Module, at: np.ndarray, wavefronts: int) -> None:
    """Lanes that write zeros only take part."""
    found = launched(module, "copies", words(at), np.zeros(128, np.float32), shared_mem=8192)
    one = of_kind(found, "copy")
    assert (one.bytes, one.requests, one.wavefronts, one.ideal) == (16, 1, wavefronts, 4)


@pytest.mark.parametrize(
    ("pitch", "wavefronts"),  # bytes from row to row of 16: eight rows a wavefront at best
    [(16, 4), (32, 8), (64, 16), (128, 32), (144, 4), (80, 4), (48, 4)],
)
def test_matrices(module: Module, pitch: int, wavefronts: int) -> None:
    found = launched(module, "matrices", words(LANES * (pitch // 4)), shared_mem=8192)
    for kind in ("matrix load", "matrix store"):
        one = of_kind(found, kind)
        assert (one.requests, one.wavefronts, one.ideal) == (1, wavefronts, 4)


def test_lanes_that_run_on_are_counted_by_themselves(module: Module) -> None:
    one = of_kind(launched(module, "diverging", uninitialised(32)), "load")
    assert (one.bytes, one.requests, one.wavefronts, one.ideal) == (4, 3, 2 + 1 + 1, 3)


def test_blocks_are_added_up_until_a_launch_counts_anew(module: Module) -> None:
    kernel = module.get_function("stores")
    arguments = (words(LANES), np.int32(4), None)
    kernel((3,), (32,), arguments, count_wavefronts=True)
    before = kernel.shared_requests
    assert of_kind(before, "store")[3:] == (3, 3, 3)
    kernel((1,), (32,), arguments)
    assert kernel.shared_requests == before
    kernel((1,), (64,), (words([*LANES, *LANES + 32]), np.int32(4), None), count_wavefronts=True)
    assert of_kind(kernel.shared_requests, "store")[3:] == (2, 2, 2)


def test_places_are_lines_of_the_source(module: Module) -> None:
    lines = SOURCE.split("\n")
    found = launched(module, "matrices", words(LANES * 4), shared_mem=8192)
    for one in found:
        file, number = one.place.split(":")
        mark = {"matrix load": "ldmatrix", "matrix store": "stmatrix"}.get(one.kind, "box[i")
        assert file == "source.cu"
        assert mark in lines[int(number) - 1]


def test_only_one_checking_worker_counts(module: Module) -> None:
    arguments = (words(LANES), np.int32(4), None)
    with pytest.raises(EmulatorError, match="by one worker"):
        module.get_function("stores")((1,), (32,), arguments, count_wavefronts=True, workers=2)
    fast = Module(SOURCE, mode="fast")
    with pytest.raises(EmulatorError, match="in mode 'check'"):
        fast.get_function("stores")((1,), (32,), arguments, count_wavefronts=True)
