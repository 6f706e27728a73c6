"""Runs CUDA kernels on the CPU, under a checker: see README.md."""

from .arguments import Pointer
from .errors import EmulatorError
from .module import Module
from .tensor_maps import TensorMap
from .uninitialised_arrays import uninitialised

__all__ = ["EmulatorError", "Module", "Pointer", "TensorMap", "uninitialised"]
