"""The GPU runtime for tests without a GPU: NumPy arrays, and kernels on the emulator."""

import functools
from pathlib import Path
from typing import Any

from gpugrad.arrays.call import whole_elements
from gpugrad.gpu import source
from gpugrad.gpu.runtime import Kernel
from gpugrad.planning.gpu_costs import DeviceFacts
from tests.emulator import Module, TensorMap, uninitialised

FACTS = DeviceFacts(
    name="emulator",
    compute_capability=(9, 0),
    sm_count=132,
    clock_hz=1.98e9,
    bandwidth=4.8e12,
    memory=141 << 30,
)


class EmulatorRuntime:
    """Runs the kernels under the checker, with everything else as on a GPU.

    Parameters
    ----------
    schedule : {"ascending", "descending", "random"}
        The order in which threads run between barriers.
    kernels : Path, optional
        The folder of the kernels; without it, that of the package.
    arithmetic : {"exact", "hopper", "ampere"}
        How tensor cores round.
    """

    def __init__(
        self,
        schedule: str = "ascending",
        kernels: Path | None = None,
        arithmetic: str = "exact",
    ) -> None:
        self.schedule = schedule
        self.kernels = kernels or source.directory()
        self.arithmetic = arithmetic

    def facts(self, device: int | None) -> DeviceFacts:
        return FACTS

    def kernel(
        self, stem: str, function: str, defines: tuple[str, ...], shared_bytes: int = 0
    ) -> Kernel:
        launch = module(self.path(stem), defines).get_function(function)
        return functools.partial(
            launch, shared_mem=shared_bytes, policy=self.schedule, arithmetic=self.arithmetic
        )

    def path(self, stem: str) -> Path:
        """Find the kernel file."""
        return self.kernels / f"{stem}.cu"

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return uninitialised(shape, dtype)

    def tensor_map(self, array: Any, box: tuple[int, ...], swizzle: int) -> Any:
        return TensorMap(array, box, swizzle) if array.size else bytes(128)

    def compact(self, array: Any) -> Any:
        return array.copy(order="C")

    def write(self, array: Any, values: Any) -> None:
        array[...] = values

    def to_device(self, array: Any) -> Any:
        """Give the array itself, for its strides and alignment are what a test wants to see.

        Only what no copy to a device could be, an array within others' elements, is copied.
        """
        return array if whole_elements(array) else array.copy(order="C")

    def to_host(self, array: Any, out: Any) -> None:
        out[...] = array


@functools.cache
def module(path: Path, defines: tuple[str, ...]) -> Module:
    return Module(path, defines=defines)
