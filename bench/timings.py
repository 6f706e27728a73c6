"""Times of every operation beside cuBLAS's and PyTorch's, on the same data in the same run."""

import contextlib
import functools
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gpugrad
from bench import graphs, nvml, section, workload
from bench.sticky_errors import is_sticky
from bench.workload import Set, Workload
from gpugrad.benchmark import roofline, samples
from gpugrad.benchmark.peers import cupy_cublas, pytorch
from gpugrad.benchmark.timer import Candidate, TimeBudget, interleave, prepared, rotating
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations

LARGE, SKINNY, WIDER = (8192, 4096, 4096), (1_000_000, 64, 64), (200_000, 128, 128)
SMALL, TINY = (256, 512, 512), (64, 64, 64)
PRODUCTS = ("matmul_backward", "dense_sigmoid_backward", "dense_sigmoid")
PRECISIONS = ("highest", "high", "medium", "ieee")
BUDGETS = {  # of a row, by `quick`
    quick: TimeBudget(60, seconds, min_rounds=7, rests=False)
    for quick, seconds in ((True, 0.3), (False, 0.6))
}
COPIED = 1 << 30  # bytes, far more than the L2 cache holds
RESERVE = 4.0  # seconds that a row may take before it is timed; more where it compiles
RESERVE_COMPILED = 25.0


@dataclass(frozen=True)
class Row:
    """A workload, and its candidates besides the library, CuPy and PyTorch eager."""

    workload: Workload
    compiled: bool = False
    small: bool = False  # calls on tensors and graph replays, which differ where calls are short


def rows(*, quick: bool) -> list[Row]:
    """List what is timed, the most telling first: time may not suffice for all."""
    whole, pass_ = "dense_sigmoid_backward", "sigmoid_bias_backward"
    if quick:
        return [
            Row(Workload(whole, LARGE, "float32")),
            Row(Workload(pass_, LARGE, "float32")),
            Row(Workload(whole, LARGE, "bfloat16")),
            Row(Workload(whole, SKINNY, "float32")),
            Row(Workload(whole, SMALL, "float32"), small=True),
        ]
    dtypes = ("float32", "bfloat16", "float16", "float64")
    two = dtypes[:2]
    found = [Row(Workload(whole, LARGE, dtype), compiled=True) for dtype in dtypes]
    for op in (pass_, "bias_backward"):
        found += [Row(Workload(op, LARGE, dtype), compiled=op == pass_) for dtype in two]
    found += [Row(Workload(whole, size, dtype), True) for size in (SKINNY, WIDER) for dtype in two]
    for size in (SMALL, TINY):
        found += [Row(Workload(whole, size, dtype), size == SMALL, small=True) for dtype in two]
    found += [Row(Workload("matmul_backward", LARGE, dtype)) for dtype in dtypes]
    for op in ("sigmoid_backward", "sigmoid", "dense_sigmoid"):
        found += [Row(Workload(op, LARGE, dtype)) for dtype in two]
    for op in OPERATIONS:
        found += [Row(Workload(op, LARGE, dtype)) for dtype in dtypes]
        found += [Row(Workload(op, SKINNY, "float32"))]
        found += [Row(Workload(op, SMALL, "float32"), small=True)]
    first = {row.workload: row for row in reversed(found)}  # the earliest of each workload
    return [row for row in found if first[row.workload] is row]


def work(section_: section.Section) -> None:
    """Time all rows that there is time for."""
    copy = roofline.bandwidth("gpu", COPIED)
    release()
    wanted = rows(quick=section_.quick)
    found: list[dict[str, Any]] = []
    section_.data |= {
        "copy_bandwidth": asdict(copy),
        "clocks_before": nvml.readings(),
        "rows": found,
    }
    section_.data["no_pytorch"] = pytorch.no_gpu()
    left_out = 0
    for row in wanted:
        if section_.left() < (RESERVE_COMPILED if row.compiled else RESERVE):
            left_out += 1
            continue
        section_.begin(str(row.workload))
        try:
            one = time_row(row, quick=section_.quick, torch=section_.data["no_pytorch"] is None)
        except Exception as error:  # it ends the row and not the section
            section_.failed(str(row.workload), error)
            continue
        finally:
            release()
        rate(one, row.workload, copy.median)
        section_.failures += one.pop("failures")
        found.append({**one, "clocks": nvml.readings()})
        section_.summary = f"{len(found)} of {len(wanted)} rows, copy {copy.median / 1e12:.2f} TB/s"
        section_.save()
    section_.data["clocks_after"] = nvml.readings()
    if left_out:
        section_.unfinished = f"no time for {left_out} rows"


def release() -> None:
    """Return all unused device memory back."""
    import cupy

    gc.collect()
    cupy.cuda.Device().synchronize()
    cupy.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()


def time_row(row: Row, *, quick: bool, torch: bool) -> dict[str, Any]:
    """Check each candidate's results, then time those that are right, interleaved."""
    import cupy

    job = row.workload
    free, _ = cupy.cuda.runtime.memGetInfo()
    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    count, cold = workload.copies(job.bytes_in, int(properties["l2CacheSize"]), free // 8)
    result: dict[str, Any] = {
        "op": job.op,
        "size": job.size,
        "dtype": job.dtype,
        "sets": count,
        "cold": cold,
        "ours": {},
        "peers": {},
        "left_out": {},
        "failures": [],
    }
    if 8 * job.bytes_moved * 8 // operations.dtype_of(job.dtype).itemsize > free:
        result["left_out"]["all"] = f"{free} bytes of free memory do not suffice"
        return result
    sets = workload.draw(job, count)
    answers = workload.exact(job, sets[0])
    taking_part: dict[str, list[Candidate]] = {"ours": [], "peers": []}
    for side, name, tolerance, enter in entrants(row, sets, torch=torch):
        try:
            candidate, first = enter()
            candidate.name = name
            with candidate.within():
                off = workload.distance(named(job.op, first()), answers)
        except Exception as error:
            if side == "ours" or is_sticky(error):
                raise
            result["left_out"][name] = f"{type(error).__name__}: {error}"[:300]
            continue
        if off <= workload.TOLERANCES[tolerance]:
            taking_part[side].append(candidate)
            result[side][name] = {"error": off}
        else:
            result["left_out"][name] = f"wrong by {off:.3g}"
            if side == "ours":
                result["failures"].append(f"{job} {name}: wrong by {off:.3g}")
    del answers
    ours, others = taking_part["ours"], taking_part["peers"]
    result["rounds"] = interleave([*ours, *others], BUDGETS[quick]) if ours else 0
    for candidate in ours:
        ratios = {one.name: asdict(samples.ratio(one.samples, candidate.samples)) for one in others}
        result["ours"][candidate.name] |= times(candidate) | {"ratios": ratios}
    for candidate in others:
        result["peers"][candidate.name] |= times(candidate)
    return result


def times(candidate: Candidate) -> dict[str, Any]:
    """Summarise samples for JSON: seconds an operation, on the device and on the host."""
    return {
        "device": asdict(candidate.summary),
        "host": asdict(samples.summarize(candidate.host)),
    }


# a candidate: side, name, tolerance, and what gives the candidate and its first results
Entry = tuple[str, str, str, Callable[[], tuple[Candidate, Callable[[], Any]]]]


def entrants(row: Row, sets: Sequence[Set], *, torch: bool) -> Iterator[Entry]:
    """List the candidates of a row; nothing is made before it is asked for."""
    op, dtype = row.workload.op, row.workload.dtype
    for name, options in variants(row.workload, sets[0]):
        tolerance = "tf32" if name == "medium" else dtype
        yield "ours", name, tolerance, functools.partial(_ours, row.workload, sets, options)
    plain = functools.partial(_plain, cupy_cublas.calls, op, sets)
    yield "peers", "CuPy", dtype, plain
    if row.small:
        yield "ours", "graph", dtype, functools.partial(_our_graph, op, sets)
    if not torch:
        return
    views = [pytorch.tensors(one) for one in sets]
    yield "peers", "eager", dtype, functools.partial(_torch, pytorch.eager, op, views)
    if "y" not in OPERATIONS[op].results:
        enter = functools.partial(_torch, pytorch.backward, op, views)
        yield "peers", "autograd", dtype, enter
    if row.compiled:
        enter = functools.partial(_torch, pytorch.compiled, op, views)
        yield "peers", "compiled", dtype, enter
    if dtype == "float32" and op in PRODUCTS:
        enter = functools.partial(_torch, pytorch.eager, op, views, precision="high")
        yield "peers", "TF32", "tf32", enter
    if row.small:
        yield "ours", "on tensors", dtype, functools.partial(_plain, library_calls, op, views)
        yield "peers", "torch graph", dtype, functools.partial(_torch_graph, op, views)


def variants(job: Workload, operands: Set) -> list[tuple[str, dict[str, Any]]]:
    """Name the precision classes that are computed differently, each with its options."""
    if job.op not in PRODUCTS or job.dtype != "float32":
        return [("gpugrad", {})]
    groups: dict[Any, list[str]] = {}
    for precision in PRECISIONS:
        arrays = [operands[name] for name in OPERATIONS[job.op].operands]
        plan = gpugrad.plan(job.op, *arrays, precision=precision)
        groups.setdefault((plan.algorithm, tuple(plan.steps)), []).append(precision)
    return [(names[0], {"precision": names[0]}) for names in groups.values()]


def library_calls(op: str, sets: Sequence[Set], **options: Any) -> list[Callable[[], Any]]:
    """Return a call of the library for each set of operands, of arrays or tensors."""
    function = getattr(gpugrad, op)
    return [
        functools.partial(function, *(one[name] for name in OPERATIONS[op].operands), **options)
        for one in sets
    ]


def _on_gpu(calls: Sequence[Callable[[], Any]], within: Any = contextlib.nullcontext) -> Candidate:
    return Candidate("", rotating(calls), "gpu", within)


def _ours(
    job: Workload, sets: Sequence[Set], options: dict[str, Any]
) -> tuple[Candidate, Callable[[], Any]]:
    def first() -> Any:
        """Write into buffers of NaNs, so that what is not written shows."""
        buffers = tuple(workload.poisoned(job).values())
        out = buffers if len(buffers) > 1 else buffers[0]
        return library_calls(job.op, sets[:1], out=out, **options)[0]()

    return _on_gpu(library_calls(job.op, sets, **options)), first


def _plain(
    make: Callable[[str, Sequence[Set]], list[Callable[[], Any]]], op: str, sets: Sequence[Set]
) -> tuple[Candidate, Callable[[], Any]]:
    calls = make(op, sets)
    return _on_gpu(calls), calls[0]


def _torch(
    make: Callable[[str, Sequence[Set]], list[Callable[[], Any]]],
    op: str,
    sets: Sequence[Set],
    precision: str = "highest",
) -> tuple[Candidate, Callable[[], Any]]:
    prepare = functools.partial(pytorch.set_float32_products, precision)
    prepare()
    calls = make(op, sets)
    return _on_gpu(calls, functools.partial(prepared, prepare)), calls[0]


def _our_graph(op: str, sets: Sequence[Set]) -> tuple[Candidate, Callable[[], Any]]:
    candidate, results = graphs.cupy_graph("", library_calls(op, sets))
    return candidate, functools.partial(_replayed, candidate, results)


def _torch_graph(op: str, sets: Sequence[Set]) -> tuple[Candidate, Callable[[], Any]]:
    pytorch.set_float32_products("highest")
    candidate, results = graphs.pytorch_graph("", pytorch.eager(op, sets))
    return candidate, functools.partial(_replayed, candidate, results)


def _replayed(candidate: Candidate, results: list[Any]) -> Any:
    """Replay a graph over results that hold nothing but NaN; give those of the first call."""
    first = results[0] if isinstance(results[0], tuple) else (results[0],)
    for one in first:
        workload.as_cupy(one).view("u1").fill(workload.NAN_BYTE)
    candidate.call()
    return results[0]


def named(op: str, results: Any) -> dict[str, Any]:
    """Return results by name, as CuPy arrays."""
    several = results if isinstance(results, tuple | list) else (results,)
    return {
        name: workload.as_cupy(one)
        for name, one in zip(OPERATIONS[op].results, several, strict=True)
    }


def rate(row: Mapping[str, Any], job: Workload, copy: float) -> None:
    """Add bytes and operations a second, the former also as a part of the copy bandwidth."""
    for found in [*row["ours"].values(), *row["peers"].values()]:
        with contextlib.suppress(KeyError, ZeroDivisionError):
            seconds = found["device"]["median"]
            found["bytes_per_second"] = job.bytes_moved / seconds
            found["of_copy"] = job.bytes_moved / seconds / copy
            found["flops_per_second"] = job.flops / seconds


if __name__ == "__main__":
    section.main(work)
