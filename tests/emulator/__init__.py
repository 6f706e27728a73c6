"""Runs CUDA kernels on the CPU, under a checker: see README.md."""

from . import cache, toolchain
from .arguments import Pointer
from .errors import EmulatorError, MissingTool
from .module import Module
from .tensor_maps import TensorMap
from .uninitialised_arrays import uninitialised
from .wavefronts import Requests

__all__ = [
    "EmulatorError",
    "MissingTool",
    "Module",
    "Pointer",
    "Requests",
    "TensorMap",
    "cache",
    "toolchain",
    "uninitialised",
]
