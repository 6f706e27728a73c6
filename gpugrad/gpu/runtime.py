"""What the operations need of a GPU. CuPy provides it; the tests put an emulator in its place."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from gpugrad.planning.gpu_costs import DeviceFacts

Kernel = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]  # grid, block, args


@runtime_checkable
class Encoded(Protocol):
    """An argument by value with an array's address in it, such as a tensor map."""

    array: Any
    size: int  # bytes

    def encode(self, address: int) -> bytes:
        """Return the argument for an array like this one at another address."""


class Runtime(Protocol):
    """A device that holds arrays and launches kernels on its current stream."""

    def facts(self, device: int | None) -> DeviceFacts:
        """Describe a device, the current one if None."""

    def kernel(
        self, stem: str, function: str, defines: tuple[str, ...], shared_bytes: int = 0
    ) -> Kernel:
        """Give a function of an instantiation of a kernel file, compiled on first use.

        It is launched with `shared_bytes` of dynamic shared memory.
        """

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Allocate an array on the current device."""

    def tensor_map(self, array: Any, box: tuple[int, ...], swizzle: int) -> Any:
        """Return what TMA needs to know to copy boxes of an array, a kernel's argument.

        The axes of the box are those of the array; `swizzle` is in bytes. Of an empty array, of
        which nothing is copied, it is blank.
        """

    def compact(self, array: Any) -> Any:
        """Copy an array into contiguous, aligned memory on the same device."""

    def write(self, array: Any, values: Any) -> None:
        """Write values, or one value, into an array of the device by other means than a kernel."""

    def to_device(self, array: Any) -> Any:
        """Bring a NumPy array to the current device."""

    def to_host(self, array: Any, out: Any) -> None:
        """Write a device array's values into a NumPy array of the same shape and dtype."""
