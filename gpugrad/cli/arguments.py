"""Numbers and sizes on the command line."""

import argparse

from gpugrad.benchmark.sizes import PRESETS
from gpugrad.testing.operations import Size


def count(text: str) -> int:
    """Read a positive whole number."""
    return _whole(text, 1, 10**9)


def seed(text: str) -> int:
    """Read a seed, from 0 to 2³² − 1."""
    return _whole(text, 0, 2**32 - 1)


def layer(text: str) -> Size:
    """Read a preset's name or N,K,M."""
    name = text.strip().lower()
    if name in PRESETS:
        return PRESETS[name]
    if "," not in text and not text.strip()[:1].isdigit():
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither N,K,M nor one of {', '.join(PRESETS)}"
        )
    parts = text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{text!r} is not N,K,M, three whole numbers")
    n, k, m = (_whole(part, 1, 10**18) for part in parts)
    return n, k, m


def _whole(text: str, low: int, high: int) -> int:
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) < 20 and low <= int(digits) <= high:
        return int(digits)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
