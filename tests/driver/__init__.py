"""A CUDA driver for machines without a GPU, on which CuPy itself runs: see README.md."""

from .control import (
    Order,
    calls,
    finish,
    idle,
    install,
    is_installed,
    recover,
    refusals,
    set_devices,
    set_idle,
    set_order,
    visible,
)
from .library import TensorMapFields

__all__ = [
    "Order",
    "TensorMapFields",
    "calls",
    "finish",
    "idle",
    "install",
    "is_installed",
    "recover",
    "refusals",
    "set_devices",
    "set_idle",
    "set_order",
    "visible",
]
