"""Builds the kernels with a planted bug, and finds out what notices it."""

import functools
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from gpugrad import calls, dispatch
from gpugrad.gpu import source
from gpugrad.gpu.launches import Launch
from gpugrad.planning.instantiations import INSTANTIATIONS
from tests.emulator import EmulatorError
from tests.kernels.test_contracts import FAST_MATH, code, faults_of_offsets
from tests.mutants import killed_by
from tests.mutants.dmma_probes import DMMA_PROBES, ProductProbe
from tests.mutants.layer_probes import LAYER_PROBES, LayerProbe
from tests.mutants.mma_probes import MMA_PROBES, MmaProbe
from tests.mutants.mutant import Mutant, NotAMutantError
from tests.mutants.plane_probes import PLANE_PROBES, PlaneProbe
from tests.mutants.probes import FUSED_PROBES, PROBES, TENSOR_CORE_PROBES, Probe
from tests.support.emulator_runtime import EmulatorRuntime, module

SCHEDULES = ("ascending", "random")
ALL_PROBES: dict[str, Sequence[Probe | PlaneProbe | ProductProbe | MmaProbe | LayerProbe]] = {
    **PROBES,
    **TENSOR_CORE_PROBES,
    **FUSED_PROBES,
    **PLANE_PROBES,
    **DMMA_PROBES,
    **MMA_PROBES,
    **LAYER_PROBES,
}


class Outcome(NamedTuple):
    """What noticed a mutant (nothing if empty) and in which probe, or why it was not examined."""

    caught: str
    problem: str = ""
    probe: str = ""


def examine_all(mutants: Sequence[Mutant]) -> dict[Mutant, Outcome]:
    """Examine mutants in as many processes as there are processors."""
    with (
        tempfile.TemporaryDirectory(prefix="gpugrad-mutants-") as folder,
        ProcessPoolExecutor(
            min(os.cpu_count() or 1, len(mutants)),
            mp_context=get_context("spawn"),
            initializer=_use_cache,
            initargs=(folder,),
        ) as pool,
    ):
        return dict(zip(mutants, pool.map(examine, mutants), strict=True))


def _use_cache(folder: str) -> None:
    """Let the emulator keep what it builds apart from what is worth keeping."""
    os.environ["GPUGRAD_EMULATOR_CACHE"] = folder


def examine(mutant: Mutant) -> Outcome:
    """Plant a bug in a copy of the kernels and run them."""
    with tempfile.TemporaryDirectory(prefix="gpugrad-mutant-") as folder:
        kernels = Path(folder, "kernels")
        shutil.copytree(source.directory(), kernels)
        try:
            text = mutant.applied((kernels / mutant.file).read_text(encoding="utf-8"))
            (kernels / mutant.file).write_text(text, encoding="utf-8")
            for stem in set(source.stems()) - _made_of(mutant.file):
                (kernels / f"{stem}.cu").unlink()
            if not mutant.ops:
                compile_one(mutant.file, kernels)
                return Outcome(broken_rule(text))
            return first_failure(mutant.ops, kernels, likely=killed_by.table().get(str(mutant)))
        except NotAMutantError as error:
            return Outcome("", str(error))
        except Exception as error:  # the others are examined all the same
            return Outcome("", f"{type(error).__name__}: {error}")


class _Runtime(EmulatorRuntime):
    """Tells what cannot be built from what is noticed when it runs.

    What its folder has not is the package's own, which is built once for all mutants.
    """

    def path(self, stem: str) -> Path:
        mutated = super().path(stem)
        return mutated if mutated.exists() else source.directory() / mutated.name

    def launch(self, step: Launch, args: tuple[Any, ...]) -> None:
        _build(self.path(step.stem), step.macros)
        super().launch(step, args)


def _build(path: Path, defines: tuple[str, ...]) -> None:
    try:
        module(path, defines)
    except EmulatorError as error:
        raise NotAMutantError(str(error)) from None


def first_failure(
    ops: Iterable[str], kernels: Path | None = None, *, likely: str | None = None
) -> Outcome:
    """Run the probes of some functions on a folder's kernels; tell what the first one notices.

    The probe of which str is `likely` is tried first, the others in their order.
    """
    probes = [probe for op in ops for probe in ALL_PROBES[op]]
    probes.sort(key=lambda probe: str(probe) != likely)
    for schedule in SCHEDULES:
        runtime = _Runtime(schedule, kernels)
        with (
            mock.patch.object(dispatch, "runtime", return_value=runtime),
            mock.patch.object(dispatch, "gpu_missing", return_value=None),
        ):
            for probe in probes:
                calls.cache.clear()  # bound calls of other kernels, or in other circumstances
                try:
                    probe.run()
                except EmulatorError as error:
                    return Outcome(f"checker: {error} ({probe})", probe=str(probe))
                except AssertionError as error:
                    first = str(error).strip().splitlines()[0]
                    return Outcome(f"bounds: {first} ({probe}, {schedule})", probe=str(probe))
    return Outcome("")


def broken_rule(text: str) -> str:
    """Return what tests/kernels/test_contracts.py has against a kernel's text."""
    fast = FAST_MATH.search(code(text))
    faults = [*faults_of_offsets(text), *([f"fast math: {fast[0]}"] if fast else [])]
    return f"contract: {faults[0]}" if faults else ""


def compile_one(file: str, kernels: Path) -> None:
    """Compile an instantiation of a kernel that is made of a file."""
    one = next(one for one in INSTANTIATIONS if one.stem in _made_of(file))
    _build(kernels / f"{one.stem}.cu", one.macros)


@functools.cache
def _made_of(file: str) -> set[str]:
    """Name the kernels that are made of a file."""
    return {stem for stem in source.stems() if f'"{file}"' in source.expand(stem)}
