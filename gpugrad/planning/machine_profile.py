"""The profile of this machine: rates measured by `gpugrad tune`, in a file of the user's cache.

The file holds the rates of the CPU and of a GPU, each with a key of all that they depend on. A part
with another machine's key and an invalid file are ignored with one warning; default rates apply. A
process reads the file once, before its first prediction, so that plans do not change while it runs.
"""

import dataclasses
import functools
import json
import math
import os
import uuid
import warnings
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpugrad import host
from gpugrad.operations import OPERATIONS
from gpugrad.planning.cpu_costs import KINDS, CpuRates, default_rates
from gpugrad.planning.gpu_costs import Copy, DeviceFacts, GpuRates
from gpugrad.planning.problem import ITEMSIZE

FORMAT = 1  # of the file; others are ignored
NAME = "profile.json"
COPIES = ("to_device", "to_host", "pinned_to_device", "pinned_to_host")

Key = dict[str, str | int]


class Rejected(Exception):  # noqa: N818  (its catcher turns it into a warning or a message)
    """A profile or a part that is ignored; the message is the reason."""


class Part(NamedTuple):
    """The rates of one device and the time of their measurement."""

    rates: Any
    measured: str


def path() -> Path:
    """Return the profile's path.

    Raises
    ------
    RuntimeError
        The user has no home directory.
    """
    return host.cache_folder() / NAME


# ---- rates for predictions


def cpu_rates(workers: int) -> CpuRates:
    """Return the measured rates of the CPU, or default rates for so many threads."""
    return _cpu_of_process(_variable()) or default_rates(workers)


def with_rates(facts: DeviceFacts) -> DeviceFacts:
    """Return a GPU's facts with its measured rates, if there are any."""
    return _gpu_of_process(_variable(), facts)


def _variable() -> str | None:
    return os.environ.get("GPUGRAD_CACHE_DIR")


@functools.cache
def _cpu_of_process(variable: str | None) -> CpuRates | None:
    part = _part("cpu", None)
    return None if part is None else part.rates


@functools.cache
def _gpu_of_process(variable: str | None, facts: DeviceFacts) -> DeviceFacts:
    part = _part("gpu", facts)
    return facts if part is None else dataclasses.replace(facts, measured=part.rates)


def _part(device: str, facts: DeviceFacts | None) -> Part | None:
    """Read a part; warn once about a file that is ignored."""
    try:
        file = path()
    except RuntimeError:  # no home directory
        return None
    try:
        return read(file, device, facts)
    except Rejected as reason:
        if file not in _warned:
            _warned.add(file)
            message = f"gpugrad: the profile {file} is ignored: {reason}; run `gpugrad tune`"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None


def clear_cache() -> None:
    """Clear the cached rates, so that the profile is read again: for tests."""
    _cpu_of_process.cache_clear()
    _gpu_of_process.cache_clear()


_warned: set[Path] = set()


# ---- keys


def cpu_key() -> Key:
    """Return everything that the CPU's rates depend on."""
    return {
        "processor": host.processor(),
        "cores": host.cores(),
        "NumPy": np.__version__,
        "BLAS": str(host.blas()),
        "gpugrad": _version(),
    }


def gpu_key(facts: DeviceFacts) -> Key:
    """Return everything that a GPU's rates depend on."""
    import cupy

    return {
        "GPU": facts.name,
        "compute capability": "{}.{}".format(*facts.compute_capability),
        "multiprocessors": facts.sm_count,
        "driver": int(cupy.cuda.runtime.driverGetVersion()),
        "CuPy": str(cupy.__version__),
        "gpugrad": _version(),
    }


def _version() -> str:
    import gpugrad

    return gpugrad.__version__


# ---- reading


def read(file: Path, device: str, facts: DeviceFacts | None = None) -> Part | None:
    """Read a part of a profile.

    Parameters
    ----------
    file : Path
    device : {"cpu", "gpu"}
    facts : DeviceFacts, optional
        Facts of the GPU that the part must belong to.

    Returns
    -------
    Part or None
        None if there is no such file or part.

    Raises
    ------
    Rejected
        The file cannot be read, is damaged, or belongs to another machine.
    """
    document = _document(file)
    if document is None or device not in document:
        return None
    part = _mapping(document[device], f"its part {device!r}")
    key = cpu_key() if facts is None else gpu_key(facts)
    found = _mapping(part.get("key"), "its key")
    for name in (*key, *found):
        if found.get(name) != key.get(name):
            raise Rejected(
                f"it is of another machine or version, {name} is {key.get(name)!r} "
                f"and was {found.get(name)!r}"
            )
    rates = _mapping(part.get("rates"), "its rates")
    measured = part.get("measured")
    if not isinstance(measured, str):
        raise Rejected(f"it is damaged, the time of measurement is {measured!r}")
    return Part((_cpu if facts is None else _gpu)(rates), measured)


def _document(file: Path) -> Mapping[str, Any] | None:
    """Read a file and check its format."""
    try:
        document = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Rejected(f"it cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, or too deep
        raise Rejected(f"it is damaged ({error})") from None
    known = _mapping(document, "the document")
    if known.get("format") != FORMAT:
        raise Rejected(f"its format is {known.get('format')!r}, expected {FORMAT}")
    return known


def _cpu(rates: Mapping[str, Any]) -> CpuRates:
    workers = _positive(rates, "workers")
    speedup = _positive(rates, "speedup")
    if workers != int(workers) or speedup < 1:
        raise Rejected(f"it is damaged, {speedup!r} is no speed-up of {workers!r} threads")
    units = _mapping(rates.get("unit"), "unit")
    return CpuRates(
        int(workers),
        speedup,
        _numbers(rates.get("call"), "call", OPERATIONS),
        {dtype: _numbers(units.get(dtype), f"unit of {dtype}", KINDS) for dtype in ITEMSIZE},
    )


def _gpu(rates: Mapping[str, Any]) -> GpuRates:
    multiply_adds = _mapping(rates.get("multiply_adds"), "multiply_adds")
    copies = {
        name: Copy(**_numbers(rates.get(name), name, ("latency", "bandwidth"))) for name in COPIES
    }
    return GpuRates(
        _positive(rates, "call"),
        _positive(rates, "launch"),
        _positive(rates, "bandwidth"),
        **copies,
        multiply_adds=tuple((name, _positive(multiply_adds, name)) for name in multiply_adds),
    )


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Rejected(f"it is damaged, {name} is {str(value)[:50]!r}, expected an object")
    return value


def _numbers(value: Any, name: str, wanted: Iterable[str]) -> dict[str, float]:
    numbers = _mapping(value, name)
    return {one: _positive(numbers, one) for one in wanted}


def _positive(numbers: Mapping[str, Any], name: str) -> float:
    value = numbers.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(value) and value > 0:
                return float(value)
        except OverflowError:  # an integer of hundreds of digits
            pass
    raise Rejected(f"it is damaged, {name} is {str(value)[:50]}, expected a positive number")


# ---- writing


def check_writable() -> Path:
    """Check that the profile can be written; return its path.

    Raises
    ------
    OSError, RuntimeError
        It cannot be written, or there is no home directory.
    """
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        raise IsADirectoryError(21, "is a directory", str(file))
    probe = _temporary(file)
    probe.touch(exist_ok=False)
    probe.unlink()
    return file


def save(cpu: CpuRates | None, gpu: GpuRates | None, facts: DeviceFacts | None) -> Path:
    """Write a profile atomically; a part that is None keeps its old content.

    A temporary file is renamed, so that concurrent readers and writers do not interfere. The rates
    of the current process do not change.

    Parameters
    ----------
    cpu : CpuRates or None
    gpu : GpuRates or None
    facts : DeviceFacts or None
        Facts of the GPU.

    Raises
    ------
    OSError
        It cannot be written; the old file is unchanged.
    """
    file = path()
    try:
        document = dict(_document(file) or {})
    except Rejected:
        document = {}
    document["format"] = FORMAT
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if cpu is not None:
        document["cpu"] = {"key": cpu_key(), "measured": now, "rates": dataclasses.asdict(cpu)}
    if gpu is not None and facts is not None:
        rates = dataclasses.asdict(gpu) | {"multiply_adds": dict(gpu.multiply_adds)}
        document["gpu"] = {"key": gpu_key(facts), "measured": now, "rates": rates}
    text = json.dumps(document, indent=2, allow_nan=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(file)
    try:
        with temporary.open("x", encoding="utf-8") as opened:
            opened.write(text + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return file


def _temporary(file: Path) -> Path:
    return file.with_name(f".{uuid.uuid4().hex}.tmp")
