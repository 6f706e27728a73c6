"""gpugrad tune: measure this machine, so that times are predicted and devices chosen by its rates.

The rates go to a profile in the user's cache directory. On a GPU they may change which algorithm
computes a product, and with it the last bits of results.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape

from gpugrad import dispatch, host
from gpugrad.benchmark import units
from gpugrad.benchmark.tables import Column
from gpugrad.cli import arguments as numbers
from gpugrad.cli import cpu_rates, exits, terminal
from gpugrad.cli.devices import devices
from gpugrad.planning import machine_profile
from gpugrad.planning.cpu_costs import CpuRates
from gpugrad.planning.gpu_costs import Copy, DeviceFacts, GpuRates

SECONDS = 15  # for the CPU
GPU_TIMES = 2  # as long for a GPU, whose kernels are compiled the first time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "--device",
        choices=dispatch.DEVICES,
        default="auto",
        help="what to measure; auto is GPUGRAD_DEVICE, or else every device there is",
    )
    parser.add_argument(
        "--seconds",
        type=numbers.count,
        default=SECONDS,
        metavar="S",
        help=f"about how long to measure the CPU; a GPU at most twice as long ({SECONDS})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, write the profile, and tell what was found."""
    places = devices(arguments.device)
    try:
        machine_profile.check_writable()
    except OSError as error:
        raise exits.Unusable(f"the profile cannot be kept: {_words(error)}") from None
    except RuntimeError as error:  # there is no home directory
        raise exits.Unusable(f"the profile cannot be kept: {error}") from None
    cpu, gpu, facts, failure = _measure(places, arguments.seconds)
    try:
        file = machine_profile.save(cpu, gpu, facts) if cpu or gpu else machine_profile.path()
    except OSError as error:
        reason = f"the profile cannot be kept: {_words(error)}; that from before is as it was"
        raise exits.Failed(reason) from None
    hint = host.blas_hint(host.blas())
    if arguments.json:
        found = {"cpu": cpu and dataclasses.asdict(cpu), "gpu": gpu and _as_json(gpu)}
        terminal.print_json("tune", {"profile": str(file), **found, "hint": hint})
    else:
        _print(file, cpu, gpu, facts, hint)
    if failure is not None:
        raise exits.Failed(f"the GPU could not be measured: {failure}")
    return exits.OK


def _measure(
    places: tuple[str, ...], seconds: int
) -> tuple[CpuRates | None, GpuRates | None, DeviceFacts | None, str | None]:
    """Measure devices; what a GPU that fails raises is returned in words."""
    cpu: CpuRates | None = None
    gpu: GpuRates | None = None
    facts: DeviceFacts | None = None
    failure: str | None = None
    with terminal.progress() as progress:
        seconds_of = {"cpu": seconds, "gpu": GPU_TIMES * seconds}
        task = progress.add_task("measuring", total=sum(seconds_of[one] for one in places))
        start = time.perf_counter()

        def follow(steps: Iterable[Any]) -> Any:
            """Draw how far it is, and give the last step, which is the result."""
            step = None
            for step in steps:
                if isinstance(step, str):
                    passed = int(time.perf_counter() - start)
                    progress.update(task, completed=passed, description=step, refresh=True)
            return step

        if "cpu" in places:
            cpu = follow(cpu_rates.measure(seconds_of["cpu"]))
        if "gpu" in places:
            try:
                from gpugrad.cli import gpu_rates

                facts = dispatch.runtime().facts(None)
                gpu = follow(gpu_rates.measure(seconds_of["gpu"]))
            except Exception as error:  # whatever a broken device raises; the CPU's rates are good
                failure = f"{type(error).__name__}: {error}"
    return cpu, gpu, facts, failure


def _as_json(gpu: GpuRates) -> dict[str, Any]:
    return dataclasses.asdict(gpu) | {"multiply_adds": dict(gpu.multiply_adds)}


def _words(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}; see GPUGRAD_CACHE_DIR"


# ---- printing


def _print(
    file: Path,
    cpu: CpuRates | None,
    gpu: GpuRates | None,
    facts: DeviceFacts | None,
    hint: str | None,
) -> None:
    console = terminal.stdout()
    if cpu is not None:
        columns = [
            Column("dtype"),
            *(Column(title, right=True) for title in ("products", "dz")),
            *(Column(one, right=True, optional=True) for one in ("σ", "sums", "memory")),
        ]
        threads = "1 thread" if cpu.workers == 1 else f"{cpu.workers} threads"
        terminal.table(console, columns, [(f"CPU, {threads}", list(_cpu_rows(cpu)))])
        console.print(
            "In GFLOP/s, in 10⁹ elements a second, and in GB/s. The smallest call takes "
            f"{units.seconds(min(cpu.call.values()))}."
        )
    if gpu is not None and facts is not None:
        terminal.facts(console, list(_gpu_rows(gpu, facts)))
    if hint is not None:
        console.print(f"Hint: {hint}.")
    if cpu is not None or gpu is not None:
        console.print(f"The profile is in {escape(str(file))}", soft_wrap=True)


def _cpu_rows(cpu: CpuRates) -> Iterator[tuple[str, ...]]:
    for dtype, unit in cpu.unit.items():
        rates = (unit[kind] for kind in ("product", "gradient", "sigmoid", "sum", "memory"))
        yield (dtype, *(units.digits(1e-9 / one) for one in rates))


def _gpu_rows(gpu: GpuRates, facts: DeviceFacts) -> Iterator[tuple[str, str]]:
    yield "GPU", escape(facts.name)
    yield "smallest call", units.seconds(gpu.call + gpu.launch)
    yield "each kernel", units.seconds(gpu.launch)
    yield "passes over memory", f"{units.size(gpu.bandwidth)}/s"
    yield "copies to the GPU", f"{_tell(gpu.to_device)}, pinned {_tell(gpu.pinned_to_device)}"
    yield "copies back", f"{_tell(gpu.to_host)}, pinned {_tell(gpu.pinned_to_host)}"
    for name, rate in gpu.multiply_adds:
        yield escape(name), f"{units.digits(2e-12 * rate)} TFLOP/s"


def _tell(copy: Copy) -> str:
    return f"{units.size(copy.bandwidth)}/s after {units.seconds(copy.latency)}"
