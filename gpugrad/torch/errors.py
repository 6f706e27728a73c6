"""gpugrad's errors as the RuntimeErrors that callers of PyTorch expect.

An error is caught by either name: ``except gpugrad.ShapeError`` and ``except RuntimeError``.
"""

from gpugrad.errors import ArgumentError, DTypeError, ShapeError


class TorchArgumentError(ArgumentError, RuntimeError):
    """An argument has a value that cannot be used."""


class TorchDTypeError(DTypeError, RuntimeError):
    """A tensor has an unsupported element type, or is no plain tensor."""


class TorchShapeError(ShapeError, RuntimeError):
    """A tensor has a shape that does not fit the other arguments."""


def as_runtime_error(error: Exception) -> Exception:
    """Return the RuntimeError for an error of gpugrad; anything else as it is."""
    for ours, theirs in (
        (ArgumentError, TorchArgumentError),
        (DTypeError, TorchDTypeError),
        (ShapeError, TorchShapeError),
    ):
        if isinstance(error, ours):
            return theirs(*error.args)
    return error
