"""Errors of every operation and dtype against a more precise reference, beside cuBLAS's.

Before that, those of matrix products in every precision class: bench/products.py.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bench import peers, products, section, workload
from bench.sticky_errors import is_sticky
from gpugrad.arrays.kinds import DTYPES
from gpugrad.operations import OPERATIONS
from gpugrad.testing import operations, reference

SIZES = ((257, 131, 67), (1031, 2, 3), (2048, 96, 128))
LONG = (16384, 96, 128)  # a long batch; not in float64, whose reference takes no BLAS
DATA = ("ordinary", "saturated", "graded")
SATURATED = 40.0  # standard deviation of logits, most of which then have a σ of 0 or 1
GRADES = 6  # graded entries are multiplied by powers of two up to this one
PRODUCTS_SHARE = 0.4  # of the section's time, at most

Array = np.ndarray[Any, Any]


@dataclass
class Errors:
    """The largest and the mean square of |error| / (u Σ|terms|), over all entries seen.

    u is the unit roundoff of the result, and the terms are those of the sum that an entry is.
    """

    largest: float = 0.0
    squares: float = 0.0
    count: int = 0

    def add(self, scaled: Array) -> None:
        """Take more entries."""
        if scaled.size:
            worst = float(np.max(scaled))  # a NaN stays
            self.largest = worst if math.isnan(worst) else max(self.largest, worst)
            self.squares += float(np.sum(np.square(scaled)))
            self.count += scaled.size

    def summary(self) -> dict[str, float]:
        """Return both for JSON."""
        return {"largest": self.largest, "rms": math.sqrt(self.squares / max(1, self.count))}


@dataclass
class Finding:
    """What was found of an operation in a dtype: err/bound, and errors of all who computed it."""

    op: str
    dtype: str
    ratio: float = 0.0
    where: str = ""
    errors: dict[str, Errors] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the finding for JSON."""
        errors = {name: one.summary() for name, one in self.errors.items()}
        return asdict(self) | {"ok": self.ratio <= 1, "errors": errors}


def work(section_: section.Section) -> None:
    """Compare products in every precision class, then every operation in every dtype."""
    products_left_out = products.compare(section_, PRODUCTS_SHARE)
    found: list[dict[str, Any]] = []
    section_.data["findings"] = found
    pairs = [(op, dtype) for dtype in DTYPES for op in OPERATIONS]
    left_out = 0
    for op, dtype in pairs:
        if section_.left() < 1:
            left_out += 1
            continue
        section_.begin(f"{op} {dtype}")
        try:
            finding = compare(op, dtype, quick=section_.quick)
        except Exception as error:
            section_.failed(f"{op} {dtype}", error)
            continue
        found.append(finding.document())
        if not finding.ratio <= 1:
            what = f"{op} {dtype}: {finding.where} is {finding.ratio:.3g} times its bound away"
            section_.failures.append(what)
        section_.summary = summarize(found)
        section_.save()
    unfinished = [f"{left_out} of {len(pairs)}"] * (left_out > 0)
    unfinished += [f"{products_left_out} products"] * (products_left_out > 0)
    if unfinished:
        section_.unfinished = f"no time for {' and '.join(unfinished)}"


def summarize(found: list[dict[str, Any]]) -> str:
    """Return a line on how many were right and how near to its bound the worst one was."""
    worst = max(found, key=lambda one: float(one["ratio"]))
    right = sum(one["ok"] for one in found)
    return (
        f"{right} of {len(found)} within bounds, "
        f"worst {worst['ratio']:.2f} of its bound ({worst['op']} {worst['dtype']})"
    )


def compare(op: str, dtype: str, *, quick: bool) -> Finding:
    """Compute an operation on data of all kinds and keep the worst errors."""
    finding = Finding(op, dtype)
    others = competitors()
    sizes: tuple[tuple[int, int, int], ...] = SIZES[:1] if quick else SIZES
    if dtype != "float64" and not quick:
        sizes += (LONG,)
    for size in sizes:
        for kind in DATA:
            operands = draw(op, size, dtype, kind)
            with_z = [False, True] if OPERATIONS[op].takes_z and not quick else [False]
            for from_z in with_z:
                _compare(finding, with_logits(operands) if from_z else operands, kind, others)
    return finding


def competitors() -> dict[str, Callable[[str, Any], Any]]:
    """Return those whose errors are shown beside ours, by name."""
    found: dict[str, Callable[[str, Any], Any]] = {"CuPy": peers.cupy_calls}
    if peers.no_pytorch() is None:
        found["PyTorch"] = lambda op, sets: peers.eager_calls(op, peers.tensors(sets))
    return found


def draw(op: str, size: tuple[int, int, int], dtype: str, kind: str) -> dict[str, Array]:
    """Make operands in host memory: ordinary, with saturated logits, or of graded magnitudes.

    Where there are a y and a dy, logits z are under "logits".
    """
    spread = SATURATED if kind == "saturated" else 1.0
    wanted = operations.dtype_of(dtype)
    operands: dict[str, Array] = operations.arrays(op, size, wanted, seed=1, spread=spread)
    if OPERATIONS[op].takes_z:
        drawn = operations.arrays(op, size, wanted, seed=1, spread=spread, from_z=True)
        operands["logits"] = drawn["z"]
    if kind == "graded":
        random = np.random.default_rng(2)
        for name in ("dy", "x", "w"):
            if name in operands:
                array = operands[name]
                powers = np.exp2(random.integers(-GRADES, GRADES + 1, array.shape))
                operands[name] = (array.astype(np.float64) * powers).astype(array.dtype)
    return operands


def with_logits(operands: Mapping[str, Array]) -> dict[str, Array]:
    """Replace the sigmoid's result by the logits."""
    kept = {name: array for name, array in operands.items() if name not in ("y", "logits")}
    return kept | {"z": operands["logits"]}


def _compare(
    finding: Finding,
    operands: Mapping[str, Array],
    kind: str,
    others: Mapping[str, Callable[[str, Any], Any]],
) -> None:
    import cupy

    op = finding.op
    host: dict[str, Any] = {name: one for name, one in operands.items() if name != "logits"}
    from_z = "z" in host and "z" not in OPERATIONS[op].operands
    device = {name: workload.as_device(array) for name, array in host.items()}
    planes = operations.planes(op, device, device="auto")
    answers = reference.reference(op, wrt=OPERATIONS[op].wrt, planes=planes, **host)
    terms = magnitudes(op, host)
    results = operations.call(op, device, device="auto")
    ours = {name: cupy.asnumpy(one) for name, one in results.items()}
    for name, answer in answers.items():
        ratio = reference.check(ours[name], *answer)
        if not ratio <= finding.ratio:
            extents = "x".join(str(array.shape) for array in host.values())
            finding.ratio, finding.where = ratio, f"{name} of {kind} {extents}"
    _keep(finding, "gpugrad from z" if from_z else "gpugrad", ours, answers, terms)
    if from_z:
        return
    for who, calls in others.items():
        try:
            set_ieee(who)
            raw = calls(op, [device])[0]()
            several = raw if isinstance(raw, tuple) else (raw,)
            theirs = {
                name: cupy.asnumpy(workload.as_cupy(one))
                for name, one in zip(OPERATIONS[op].results, several, strict=True)
            }
        except Exception as error:
            if is_sticky(error):
                raise
            finding.left_out[who] = f"{type(error).__name__}: {error}"[:300]
            continue
        _keep(finding, who, theirs, answers, terms)


def set_ieee(who: str) -> None:
    """See to it that float32 products are IEEE ones."""
    if who == "PyTorch":
        peers.set_float32_products("highest")


def _keep(
    finding: Finding,
    who: str,
    results: Mapping[str, Array],
    answers: Mapping[str, reference.Answer],
    terms: Mapping[str, Array],
) -> None:
    errors = finding.errors.setdefault(who, Errors())
    for name, answer in answers.items():
        errors.add(scaled_errors(results[name], answer.exact, terms[name], finding.dtype))


def scaled_errors(result: Array, exact: Array, terms: Array, dtype: str) -> Array:
    """Return |result - exact| / (u Σ|terms|) where neither leaves the dtype's normal numbers."""
    numbers = reference.FORMATS[dtype]
    smallest = numbers.subnormal / numbers.roundoff  # below it, errors are absolute
    plain = np.isfinite(exact) & (np.abs(exact) >= smallest) & (terms < numbers.largest)
    off = np.abs(result.astype(exact.dtype)[plain] - exact[plain])
    return np.asarray(off / (numbers.roundoff * terms[plain]), np.float64)


def magnitudes(op: str, operands: Mapping[str, Array]) -> dict[str, Array]:
    """Return the sum of the magnitudes of every entry's terms, in float64.

    A sigmoid has itself for a term, and in a dense layer those of its argument times its slope.
    """
    wide = {name: array.astype(np.float64) for name, array in operands.items()}
    if op == "sigmoid":
        return {"y": _sigma(wide["z"])}
    if op == "dense_sigmoid":  # an error of z passes on by the slope y (1 - y)
        y = _sigma(wide["x"] @ wide["w"] + wide["b"])
        return {"y": y + y * (1 - y) * (np.abs(wide["x"]) @ np.abs(wide["w"]) + np.abs(wide["b"]))}
    slope: Any = 1.0
    if "z" in wide:
        slope = _sigma(wide["z"]) * _sigma(-wide["z"])
    elif "y" in wide:
        slope = wide["y"] * (1 - wide["y"])
    dz = np.abs(wide["dy"] * slope)
    every = {"dz": dz, "db": dz.sum(axis=0)}
    if "x" in wide:
        every |= {"dx": dz @ np.abs(wide["w"]).T, "dw": np.abs(wide["x"]).T @ dz}
    return {name: every[name] for name in OPERATIONS[op].results}


def _sigma(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1, e) / (1 + e))


if __name__ == "__main__":
    section.main(work)
