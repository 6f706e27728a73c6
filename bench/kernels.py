"""Every kernel compiled for this machine's GPU, on all cores, into the run's kernel cache."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from bench import section
from gpugrad import dispatch, host
from gpugrad.gpu import cache, compiler
from gpugrad.planning.instantiations import INSTANTIATIONS, exists_for


def work(section_: section.Section) -> None:
    """Compile every instantiation."""
    capability = "{}{}".format(*dispatch.runtime().facts(None).compute_capability)
    arch = f"sm_{capability}"
    start = time.perf_counter()
    seconds: dict[str, float] = {}
    of_stem = {one.stem: compiler.architecture(one.stem, capability) for one in LONGEST}
    wanted = [one for one in LONGEST if exists_for(one.stem, of_stem[one.stem])]
    section_.data |= {"arch": arch, "count": len(wanted), "seconds": seconds}
    spawn = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
    pool = ProcessPoolExecutor(min(host.cores(), len(wanted)), mp_context=spawn)
    started = {
        pool.submit(build, one.stem, one.macros, of_stem[one.stem]): f"{one.stem} {one.label}"
        for one in wanted
    }
    try:
        for future in as_completed(started, timeout=section_.left()):
            name = started[future]
            try:
                seconds[name] = round(future.result(), 3)
            except Exception as error:  # a compiler's or a worker's end is a finding
                section_.failures.append(f"{name}: {type(error).__name__}: {error}"[:2000])
    except TimeoutError:
        section_.unfinished = f"{len(wanted) - len(seconds)} kernels were not compiled"
    pool.shutdown(wait=False, cancel_futures=True)
    elapsed = time.perf_counter() - start
    slowest = max(seconds, key=lambda name: seconds[name], default="")
    section_.summary = f"{len(seconds)} of {len(wanted)} for {arch} in {elapsed:.1f} s"
    if slowest:
        section_.summary += f", at most {seconds[slowest]:.1f} s ({slowest})"


def build(stem: str, macros: tuple[str, ...], arch: str) -> float:
    """Compile one instantiation into the cache and give the seconds that it took."""
    start = time.perf_counter()
    cache.load(stem, macros, arch)
    return time.perf_counter() - start


LONGEST = sorted(INSTANTIATIONS, key=lambda one: "ffma" not in one.stem)  # products first

if __name__ == "__main__":
    section.main(work)
