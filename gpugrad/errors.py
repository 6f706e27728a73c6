"""Exceptions of gpugrad.

::

    GpugradError
    ├── ArgumentError       (ValueError)      an invalid value, such as a read-only out
    ├── ShapeError          (ValueError)      an array's shape does not fit the others'
    ├── DTypeError          (TypeError)       an unsupported dtype, or no array
    ├── DeviceError         (RuntimeError)    a missing device, or arrays on different ones
    ├── KernelCompileError  (RuntimeError)    NVRTC rejected a kernel; has its log
    ├── GradcheckError      (AssertionError)  a gradient does not match its function
    └── AccuracyError       (AssertionError)  a result is outside its error bound

Every message starts with the name of the function that was called and names the argument.
"""


class GpugradError(Exception):
    """Base class of all errors raised by gpugrad."""


class ArgumentError(GpugradError, ValueError):
    """An argument has an invalid value."""


class ShapeError(GpugradError, ValueError):
    """An array has a shape that does not fit the other arguments."""


class DTypeError(GpugradError, TypeError):
    """An argument has an unsupported dtype, or no array at all."""


class DeviceError(GpugradError, RuntimeError):
    """A device is missing or unusable, or the arguments are on different devices."""


class KernelCompileError(GpugradError, RuntimeError):
    """A kernel could not be compiled.

    Attributes
    ----------
    log : str
        The output of the compiler.
    source : str
        The expanded source.
    """

    def __init__(self, message: str, *, log: str = "", source: str = "") -> None:
        super().__init__(message)
        self.log = log
        self.source = source


class GradcheckError(GpugradError, AssertionError):
    """A vector-Jacobian product disagrees with finite differences of its function."""


class AccuracyError(GpugradError, AssertionError):
    """A result is outside its error bound; raised by gpugrad.testing."""
