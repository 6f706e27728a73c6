"""The first call in a fresh process, with nothing in the kernel cache and with everything."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import section
from gpugrad.benchmark import samples

SIZE = (256, 512, 512)
TIMES = {True: (1, 2), False: (3, 5)}  # processes with a cold and a warm cache, by `quick`
PROBE = "--probe"


def work(section_: section.Section) -> None:
    """Start processes that time their first call of dense_sigmoid_backward."""
    cold_runs, warm_runs = TIMES[section_.quick]
    taken: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        for name, count in (("cold", cold_runs), ("warm", warm_runs)):
            for index in range(count):
                used = Path(folder, str(index if name == "cold" else 0))
                if section_.left() < 3:
                    section_.unfinished = f"no time for all processes with a {name} cache"
                    break
                try:
                    taken[name].append(probe(used, section_.left()))
                except subprocess.TimeoutExpired:
                    section_.unfinished = f"a process with a {name} cache was stopped"
                    break
    section_.data |= {"size": SIZE, "dtype": "float32"}
    told = []
    for name, found in taken.items():
        if found:
            section_.data[name] = {
                part: asdict(samples.summarize([one[part] for one in found])) for part in found[0]
            }
            told.append(f"{name} {1e3 * section_.data[name]['first_call']['median']:.0f} ms")
    section_.summary = ", ".join(told)


def probe(cache: Path, seconds: float) -> dict[str, float]:
    """Run one process with a cache folder and give what it measured."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.first_call", PROBE],
        cwd=section.ROOT,
        env=os.environ | {"GPUGRAD_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the first call failed: {done.stderr.strip()[-1000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure() -> dict[str, float]:
    """Time imports, the device's start, and the first calls, each after the one before."""
    start = time.perf_counter()
    import gpugrad

    imported = time.perf_counter()
    import cupy

    cupy_imported = time.perf_counter()
    n, k, m = SIZE
    shapes = ((n, m), (n, m), (n, k), (k, m))
    operands: list[Any] = [cupy.full(shape, 0.5, "f4") for shape in shapes]
    stream = cupy.cuda.get_current_stream()
    stream.synchronize()
    marks = [time.perf_counter()]
    for _ in range(3):
        gpugrad.dense_sigmoid_backward(*operands)
        stream.synchronize()
        marks.append(time.perf_counter())
    return {
        "import_gpugrad": imported - start,
        "import_cupy": cupy_imported - imported,
        "start_device": marks[0] - cupy_imported,
        "first_call": marks[1] - marks[0],
        "second_call": marks[2] - marks[1],
        "third_call": marks[3] - marks[2],
    }


if __name__ == "__main__":
    if PROBE in sys.argv:
        print(json.dumps(measure()))
    else:
        section.main(work)
