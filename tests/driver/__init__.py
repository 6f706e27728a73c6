"""A CUDA driver for machines without a GPU, on which CuPy itself runs: see README.md."""

from .control import Order, calls, install, recover, refusals, set_devices, set_order, visible

__all__ = [
    "Order",
    "calls",
    "install",
    "recover",
    "refusals",
    "set_devices",
    "set_order",
    "visible",
]
