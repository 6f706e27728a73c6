"""gpugrad info: versions, devices with the reason for their use, the profile, the kernel cache."""

import argparse
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

import gpugrad
from gpugrad import dispatch, host
from gpugrad.arrays import kinds
from gpugrad.arrays.call import PRECISIONS
from gpugrad.benchmark import environment, units
from gpugrad.cli import arguments as numbers
from gpugrad.cli import exits, terminal
from gpugrad.cli.launches import launches
from gpugrad.cpu.scratch import KEPT_BYTES
from gpugrad.cpu.threads import limits
from gpugrad.operations import OPERATIONS
from gpugrad.planning import machine_profile
from gpugrad.planning.gpu_costs import DeviceFacts

PACKAGES = {
    "CuPy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "cuda-core": ("cuda-core",),
    "NVRTC": ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc-cu13"),
    "ml_dtypes": ("ml-dtypes",),
    "PyTorch": ("torch",),
    "JAX": ("jax",),
}
LAYERS = ((64, 64, 10), (65536, 1024, 1024))  # one small, one large


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "--plan", choices=tuple(OPERATIONS), help="print what a call would launch on a GPU instead"
    )
    parser.add_argument(
        "--size", type=numbers.layer, default=LAYERS[1], metavar="N,K,M", help="of its layer"
    )
    parser.add_argument("--dtype", choices=kinds.DTYPES, default="float32", help="(float32)")
    parser.add_argument("--precision", choices=PRECISIONS, default="highest", help="(highest)")


def run(arguments: argparse.Namespace) -> int:
    """Print what is known about this installation and machine, or what a call would launch."""
    if arguments.plan is not None:
        return _print_launches(arguments)
    facts = collect()
    if arguments.json:
        terminal.print_json("info", facts)
    else:
        _print(facts)
    for choice in facts["device"]["layers"]:
        if choice["device"] is None:  # every call would fail
            raise exits.Unusable(choice["reason"])
    return exits.OK


def _print_launches(arguments: argparse.Namespace) -> int:
    found = launches(arguments.plan, arguments.size, arguments.dtype, arguments.precision)
    if arguments.json:
        terminal.print_json("info", found)
        return exits.OK
    size = " × ".join(map(str, found["size"]))
    print(f"{found['op']} {size} {found['dtype']}: {found['reason']}")
    for step in found["steps"]:
        print(f"  {step}")
    print(f"  workspace: {found['workspace_bytes']} bytes")
    return exits.OK


def collect() -> dict[str, Any]:
    """Collect the facts; no unused package is imported."""
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "numpy": {"version": np.__version__, "blas": _blas()},
        "packages": {name: host.version(*names) for name, names in PACKAGES.items()},
        "cpu": {
            "model": host.processor(),
            "cores": host.cores(),
            "free_memory": environment.free_memory(),
            "threads": _threads(),
        },
        "gpu": _gpu(),
        "profile": _profile(),
        "device": {"GPUGRAD_DEVICE": os.environ.get("GPUGRAD_DEVICE"), "layers": _choices()},
        "kernel_cache": _cache(),
    }


def _blas() -> dict[str, Any]:
    used = host.blas()
    if used is not None:
        return used._asdict() | {"hint": host.blas_hint(used)}
    config: Any = np.show_config(mode="dicts")
    known = config.get("Build Dependencies", {}).get("blas", {})
    name, version = known.get("name") or "unknown", known.get("version") or ""
    return host.Blas(name, version, "", 0)._asdict() | {"hint": None}


def _threads() -> dict[str, Any]:
    """Return how many threads a call on the CPU may use, and the limit that decides."""
    try:
        found = limits()
    except gpugrad.GpugradError as error:  # every call would fail
        return {"number": None, "reason": str(error)}
    number = min(found.values())
    decisive = [name for name, limit in found.items() if limit == number]
    return {"number": number, "reason": " and ".join(decisive), "limits": found}


def _gpu() -> dict[str, Any]:
    missing = dispatch.gpu_missing()
    if missing is not None:
        return {"usable": False, "reason": missing}
    try:
        return {"usable": True, **environment.gpu()}
    except Exception as error:  # a broken installation may raise anything
        return {"usable": False, "reason": f"{type(error).__name__}: {error}"}


def _profile() -> dict[str, Any]:
    """Return for each device the time of its measurement, or why default rates are used."""
    try:
        path = machine_profile.path()
    except RuntimeError as error:  # no home directory
        return {"path": None, "reason": str(error)}
    parts: dict[str, Any] = {"path": str(path), "cpu": _part(path, "cpu", None)}
    if dispatch.gpu_missing() is None:
        try:
            parts["gpu"] = _part(path, "gpu", dispatch.runtime().facts(None))
        except Exception as error:  # a broken GPU, reported above
            parts["gpu"] = {"measured": None, "reason": f"{type(error).__name__}: {error}"}
    return parts


def _part(path: Path, device: str, facts: DeviceFacts | None) -> dict[str, Any]:
    try:
        part = machine_profile.read(path, device, facts)
    except machine_profile.Rejected as reason:
        return {"measured": None, "reason": str(reason)}
    if part is None:
        return {"measured": None, "reason": "not measured"}
    return {"measured": part.measured, "reason": None}


def _choices() -> list[dict[str, Any]]:
    """Return the device of a small layer and of a large one."""
    choices = []
    for n, k, m in LAYERS:
        dy, x, w = (np.broadcast_to(np.float32(0), shape) for shape in ((n, m), (n, k), (k, m)))
        try:
            plan = gpugrad.plan("dense_sigmoid_backward", dy, dy, x, w)
            choice: dict[str, str | None] = {"device": plan.device, "reason": plan.reason}
        except gpugrad.GpugradError as error:
            choice = {"device": None, "reason": str(error)}
        except Exception as error:  # a broken GPU, as above
            choice = {"device": None, "reason": f"{type(error).__name__}: {error}"}
        choices.append({"n": n, "k": k, "m": m, **choice})
    return choices


def _cache() -> dict[str, Any]:
    try:
        from gpugrad.gpu import cache

        path, entries, size = cache.summary()
    except (ImportError, OSError, RuntimeError) as error:  # no compiler, or no home directory
        return {"path": None, "reason": str(error)}
    return {"path": str(path), "entries": entries, "bytes": size}


def _print(facts: dict[str, Any]) -> None:
    terminal.facts(terminal.stdout(), list(_rows(facts)))


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "gpugrad", gpugrad.__version__
    yield "Python", escape(facts["python"])
    yield "NumPy", escape(facts["numpy"]["version"])
    blas = facts["numpy"]["blas"]
    kernels = f", kernels for {blas['architecture']}" if blas["architecture"] else ""
    blas_threads = f", {_count(blas['threads'], 'thread')}" if blas["threads"] else ""
    yield "BLAS", escape(f"{blas['library']} {blas['version']}{kernels}{blas_threads}")
    if blas["hint"]:
        yield "hint", escape(blas["hint"])
    for name, version in facts["packages"].items():
        yield name, version or "[dim]not installed[/]"
    cpu = facts["cpu"]
    free = "" if cpu["free_memory"] is None else f", {units.size(cpu['free_memory'])} free"
    yield "CPU", escape(f"{cpu['model']}, {_count(cpu['cores'], 'core')}{free}")
    threads = cpu["threads"]
    if threads["number"] is None:
        yield "CPU threads", f"[{terminal.BAD}]error[/]: {escape(threads['reason'])}"
    else:
        told = f"{threads['number']}, limited by {threads['reason']}"
        kept = units.size(KEPT_BYTES)
        yield "CPU threads", escape(f"{told}; each keeps at most {kept} of buffers")
    gpu = facts["gpu"]
    if gpu["usable"]:
        yield (
            "GPU",
            f"[{terminal.GOOD}]{escape(gpu['name'])}[/], compute capability "
            f"{gpu['compute_capability']}, {gpu['multiprocessors']} multiprocessors, "
            f"{units.size(gpu['memory'])} at {units.size(gpu['bandwidth'])}/s",
        )
    else:
        yield "GPU", f"[{terminal.BAD}]not used[/]: {escape(gpu['reason'])}"
    device = facts["device"]
    yield "GPUGRAD_DEVICE", escape(device["GPUGRAD_DEVICE"] or "not set")
    previous = ""
    for choice in device["layers"]:
        layer = f"layer {choice['n']} × {choice['k']} × {choice['m']}"
        where = choice["device"] or f"[{terminal.BAD}]error[/]"
        if choice["reason"] == previous:
            yield layer, f"{where}, for the same reason"
        else:
            yield layer, f"{where}: {escape(choice['reason'])}"
        previous = choice["reason"]
    yield from _profile_rows(facts["profile"])
    cache = facts["kernel_cache"]
    if cache["path"] is None:
        yield "kernel cache", f"not used: {escape(cache['reason'])}"
    else:
        kept = f"{_count(cache['entries'], 'kernel')}, {units.size(cache['bytes'])}"
        yield "kernel cache", f"{escape(cache['path'])}: {kept}"


def _profile_rows(profile: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if profile["path"] is None:
        yield "profile", f"none, default rates: {escape(profile['reason'])}"
        return
    yield "profile", escape(profile["path"])
    for device in ("cpu", "gpu"):
        if device not in profile:
            continue
        measured, reason = profile[device]["measured"], profile[device]["reason"]
        rates = f"measured {measured}" if measured else f"default rates ({reason}); gpugrad tune"
        yield f"rates of the {device.upper()}", escape(rates)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
