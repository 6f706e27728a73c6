"""The devices that are predicted: rates, bandwidths and capacities, each with its source.

Multiply-adds a clock are those of `gpugrad.planning.gpu_costs.RATES`. Everything else that the
model assumes of a device stands here:

clock
    The one at which the maker's data sheet has the peak of 16-bit tensor cores, and of the rest.
    A device that is out of power runs slower.
dense_16
    Multiply-adds a clock and multiprocessor of dense 16-bit tensor cores, from the same peak. On
    compute capability 9.0 wgmma alone has them: mma.sync was measured at 63 % of it (Luo et al.,
    Benchmarking and Dissecting the Nvidia Hopper GPU Architecture, arXiv 2402.13499).
copy_bandwidth
    0.9 of the data sheet's memory bandwidth, which plain copies reach.
l2_bandwidth
    As others measured it: 4.8 TB/s on an A100 (of 5120 bytes a clock in its white paper), 4.9 TB/s
    by cp.async on an RTX 4090, 6.65 TB/s on an H100, which OpenXLA's cost model has.
shared_bytes, warps
    Of a multiprocessor: CUDA programming guide, technical specifications by compute capability.
public
    What a BLAS is compared with, in TFLOP/s: published rates of cuBLAS for the H200, the data
    sheet's peaks for the others, which cuBLAS cannot exceed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gpugrad.planning.gpu_costs import Rates, rates_of

PARTITIONS = 4  # of a multiprocessor, each with a scheduler and its own pipes
# Results a clock and multiprocessor, the same for 8.0, 8.9 and 9.0 (CUDA programming guide,
# throughput of native arithmetic instructions).
INTEGER_LANES = 64
SPECIAL_LANES = 16
WAVEFRONT_BYTES = 128  # of shared memory, one a clock and multiprocessor
REGISTERS = 65536  # of a multiprocessor
REGISTER_UNIT = 8  # that a thread's are rounded up to: warps take 256 at a time
RESERVED_BYTES = 1024  # of shared memory, that each block takes for the system


@dataclass(frozen=True)
class Device:
    """What the model knows of a device; see the module's docstring."""

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    tensor_16_clock_hz: float
    clock_hz: float
    dense_16: int
    copy_bandwidth: float
    l2_bandwidth: float
    memory: int
    shared_bytes: int
    warps: int
    public: Mapping[str, float]
    public_is: str

    @property
    def arch(self) -> str:
        """As the compiler calls it."""
        return "sm_{}{}".format(*self.capability)

    @property
    def rates(self) -> Rates:
        """Multiply-adds a clock and multiprocessor."""
        return rates_of(self.capability)


DEVICES = (
    Device(
        name="A100",
        capability=(8, 0),
        multiprocessors=108,
        tensor_16_clock_hz=1.41e9,
        clock_hz=1.41e9,
        dense_16=1024,
        copy_bandwidth=0.9 * 2.04e12,
        l2_bandwidth=4.8e12,
        memory=80 * 10**9,
        shared_bytes=164 << 10,
        warps=64,
        public={"float32": 19.5, "TF32": 156, "bfloat16": 312, "float64": 19.5},
        public_is="peak",
    ),
    Device(
        name="RTX 4090",
        capability=(8, 9),
        multiprocessors=128,
        tensor_16_clock_hz=2.52e9,
        clock_hz=2.52e9,
        dense_16=256,
        copy_bandwidth=0.9 * 1.008e12,
        l2_bandwidth=4.9e12,
        memory=24 * 10**9,
        shared_bytes=100 << 10,
        warps=48,
        public={"float32": 82.6, "TF32": 82.6, "bfloat16": 165, "float64": 1.29},
        public_is="peak",
    ),
    Device(
        name="H200",
        capability=(9, 0),
        multiprocessors=132,
        tensor_16_clock_hz=1.83e9,
        clock_hz=1.98e9,
        dense_16=2048,
        copy_bandwidth=0.9 * 4.8e12,
        l2_bandwidth=6.65e12,
        memory=141 * 10**9,
        shared_bytes=228 << 10,
        warps=64,
        public={"float32": 51, "TF32": 395, "bfloat16": 790, "float64": 57},
        public_is="cuBLAS",
    ),
)
