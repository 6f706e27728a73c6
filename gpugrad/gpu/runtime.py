"""What a call needs of a GPU. CuPy provides it; the tests put an emulator in its place."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gpugrad.gpu.launches import Program
from gpugrad.planning.gpu_costs import DeviceFacts


class Runtime(Protocol):
    """A device that holds arrays and runs programs."""

    def facts(self, device: int | None) -> DeviceFacts:
        """Describe a device, the current one if None."""

    def bind(self, program: Program, arrays: int) -> Callable[[Sequence[Any]], None]:
        """Compile a program's kernels; what is returned runs it on so many arrays of the device."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array on the current device."""

    def to_device(self, array: Any) -> Any:
        """Bring a NumPy array to the current device."""

    def to_host(self, array: Any, out: Any) -> None:
        """Write a device array's values into a NumPy array of the same shape and dtype."""
