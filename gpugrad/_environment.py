"""Environment variables that every call looks at."""

import os
from typing import Any

_WITHOUT_CODING = os.name == "nt"


def raw(name: str) -> Any:
    """Give a variable as the process keeps it, bytes or str; None if it is not set.

    CPython's os.environ raises two exceptions on its way to tell that a variable is not set, which
    takes 0.5 µs, a tenth of a small layer. The dict inside it tells in 0.1 µs.
    """
    kept = getattr(os.environ, "_data", None)
    if type(kept) is not dict:
        return os.environ.get(name)
    return kept.get(name if _WITHOUT_CODING else _coded[name])


_coded = {name: name.encode() for name in ("GPUGRAD_DEVICE", "GPUGRAD_NUM_THREADS")}
