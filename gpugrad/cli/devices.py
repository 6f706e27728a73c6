"""The devices that a command uses."""

import os

from gpugrad import dispatch
from gpugrad.cli.exits import Unusable


def devices(wanted: str) -> tuple[str, ...]:
    """Return the devices of the option --device.

    Parameters
    ----------
    wanted : {"auto", "cpu", "gpu"}
        "auto" means GPUGRAD_DEVICE, or all usable devices if that is not set.

    Returns
    -------
    tuple of str
        "cpu", "gpu", or both in this order.

    Raises
    ------
    Unusable
        The GPU is requested and cannot be used, or GPUGRAD_DEVICE names no device.
    """
    source = "--device"
    if wanted == "auto":
        wanted = os.environ.get("GPUGRAD_DEVICE", "auto")
        source = "GPUGRAD_DEVICE"
    if wanted not in dispatch.DEVICES:
        raise Unusable(f"{source} is {wanted!r}, expected one of {', '.join(dispatch.DEVICES)}")
    if wanted == "cpu":
        return ("cpu",)
    missing = dispatch.gpu_missing()
    if wanted == "gpu":
        if missing is not None:
            raise Unusable(f"{source} is 'gpu', but {missing}")
        return ("gpu",)
    return ("cpu",) if missing is not None else ("cpu", "gpu")


def why_no_gpu() -> str:
    """Return why "auto" does not include the GPU."""
    missing = dispatch.gpu_missing() if "GPUGRAD_DEVICE" not in os.environ else None
    return missing or f"GPUGRAD_DEVICE is {os.environ.get('GPUGRAD_DEVICE')!r}"
