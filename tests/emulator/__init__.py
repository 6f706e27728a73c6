"""Runs CUDA kernels on the CPU, under a checker: see README.md."""

from .arguments import Pointer
from .errors import EmulatorError, MissingTool
from .module import Module
from .tensor_maps import TensorMap
from .uninitialised_arrays import uninitialised

__all__ = ["EmulatorError", "MissingTool", "Module", "Pointer", "TensorMap", "uninitialised"]
