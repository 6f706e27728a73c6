"""The predictions as tables, and their place in docs/performance.md."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import section
from bench.model import predict, skinny
from bench.model.devices import DEVICES, Device
from bench.model.predict import PRECISIONS, Precision, Span
from gpugrad.gpu import compiler
from gpugrad.planning.choice import fastest
from gpugrad.planning.gpu_costs import DeviceFacts

DOCUMENT = section.ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- begin: python -m bench.model --update -->", "<!-- end -->"
PRODUCTS = ("dx", "dw")
ROUNDED = 1.005  # data sheets have three digits
COUNTED = ("float32", "integer", "shared", "global", "")  # pipes; the last: all of them
BUSY = ("tensor", "float32", "float64", "integer", "shared", "issue", "L2")
LOOPS = (
    *("device", "precision", "product", "tile"),
    *(f"{pipe} / MMA" for pipe in ("float32", "integer", "shared", "copies", "all")),
    *(f"{pipe} cycles" for pipe in BUSY),
    *("binds", "of the peak", "registers", "shared memory", "blocks"),
)
LAYERS = (
    *("device", "precision", "TFLOP/s", "time", "passes in it"),
    *("peer's products, TFLOP/s", "times the peer", "at most", "target", "reached"),
    *("peak share for the target", "the plan takes"),
)

SKINNY = (
    *("device", "dtype", "k = m", "moved", "memory alone", "time", "PyTorch at least", "times it"),
    *("target", "reached", *(f"{pipe} cycles" for pipe in BUSY), "binds"),
    *("registers", "shared memory", "blocks"),
)

Row = tuple[str, ...]


def loop_row(precision: Precision, product: str, tile: int, device: Device) -> Row:
    """Describe one main loop: instructions a multiplication, cycles a step, and what binds."""
    loop = predict.main_loop(precision, product, tile, device)
    step = loop.kernel.step
    counts = [step.instructions(pipe) / step.multiplications for pipe in COUNTED]
    return (
        *(device.name, precision.name, product, str(tile)),
        *(f"{one:.2f}" for one in counts),
        *(f"{loop.by_pipe[pipe]:.0f}" if loop.by_pipe[pipe] else "" for pipe in BUSY),
        *(loop.binding, span(loop.share, "%"), str(loop.kernel.registers)),
        *(f"{loop.kernel.shared_bytes / 1024:.0f} KB", str(loop.blocks)),
    )


def layer_row(precision: Precision, device: Device) -> Row:
    """Describe the whole layer's backward pass, beside its peer and target."""
    flops = predict.layer(precision.dtype).flops
    time = predict.layer_seconds(precision, device)
    rate = Span(flops / time.best / 1e12, flops / time.worst / 1e12)
    peer = predict.peer_seconds(precision, device)
    ratio = Span(peer / time.best, peer / time.worst)
    limit = predict.flops_limit(precision.rate(device), precision, device) * peer / flops
    peak = predict.flops_limit(precision.peak_rate(device), precision, device) * peer / flops
    passes = Span(predict.pass_seconds(precision, device), predict.pass_seconds(precision, device))
    aim: Row = ("", "", "")
    if (target := precision.target) is not None:
        aim = (f"{target:g}", verdict(target, ratio, limit, peak), f"{100 * target / peak:.0f} %")
    public = f"{device.public[precision.peer]:g} ({device.public_is}, {precision.peer})"
    return (
        *(device.name, precision.name, span(rate), span(time, "ms"), span(passes, "ms")),
        *(public, span(ratio), f"{limit:.2f}", *aim, choice(precision, device)),
    )


def skinny_row(precision: Precision, side: int, device: Device) -> Row:
    """Describe a skinny layer whose gradients come from one launch."""
    found = skinny.predicted(precision, side, device)
    moved = found.memory * device.copy_bandwidth / 1e9
    reached = "yes" if found.ratio.worst >= skinny.TARGET else "if memory and pipes overlap"
    if found.ratio.best < skinny.TARGET:
        reached = "no"
    return (
        *(device.name, precision.name, str(side), f"{moved:.2f} GB"),
        *(span(Span(found.memory, found.memory), "ms"), span(found.time, "ms")),
        *(span(Span(found.peer, found.peer), "ms"), span(found.ratio)),
        *(f"{skinny.TARGET:g}", reached),
        *(f"{found.by_pipe[pipe]:.0f}" if found.by_pipe[pipe] else "" for pipe in BUSY),
        *(found.binding, str(found.kernel.registers)),
        *(f"{found.kernel.shared_bytes / 1024:.0f} KB", str(found.blocks)),
    )


def span(value: Span, unit: str = "") -> str:
    """Write a prediction from its lower end to its upper, in percent or milliseconds if asked."""
    scale = {"%": 100, "ms": 1000, "": 1}[unit]
    low, high = sorted((scale * value.best, scale * value.worst))
    digits = 0 if unit == "%" or high >= 100 else 1 if high >= 10 else 2
    text = [f"{one:.{digits}f}" for one in (low, high)]
    return " ".join(("–".join(dict.fromkeys(text)), unit)).strip()


def verdict(target: float, ratio: Span, limit: float, peak: float) -> str:
    """Return whether a target is reached, as multiples of a peer.

    Parameters
    ----------
    target : float
    ratio : Span
        What is predicted.
    limit, peak : float
        The same if the instruction that multiplies never rested, and by the device's peak.
    """
    if ratio.worst >= target:
        return "yes"
    if ratio.best >= target:
        return "if pipes overlap"
    if target > ROUNDED * peak:
        return "more than the peak"
    return "not as it is" if target <= ROUNDED * limit else "not by this instruction"


def choice(precision: Precision, device: Device) -> str:
    """Return how `gpugrad.plan` computes the layer on the device."""
    rates = (device.copy_bandwidth, device.memory)
    facts = DeviceFacts(
        device.name, device.capability, device.multiprocessors, device.clock_hz, *rates
    )
    asked = precision.name.split()[-1] if precision.dtype == "float32" else "highest"
    taken = fastest(predict.layer(precision.dtype), asked, facts)
    return f"{taken.algorithm}, {taken.planes} planes" if taken.planes > 1 else taken.algorithm


# ---- whole tables


def loops(tiles: Sequence[int] = ()) -> list[Row]:
    """Predict every main loop, with the tiles that the layer's products take or with others."""
    asked = [
        (precision, product, tile, device)
        for device in DEVICES
        for precision in (one.on(device) for one in PRECISIONS)
        for product in PRODUCTS
        for widest in (predict.plan_of(precision, product).configuration.BLOCK_N,)
        for tile in tiles or (widest,)
        if tile <= widest  # some have small tiles only
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # neither NVRTC nor nvdisasm holds the GIL
        return list(pool.map(lambda one: loop_row(*one), asked))


def layers() -> list[Row]:
    """Predict the whole layer on every device."""
    return [layer_row(one.on(device), device) for device in DEVICES for one in PRECISIONS]


def skinny_layers() -> list[Row]:
    """Predict the skinny layers of the targets on every device."""
    return [
        skinny_row(precision, side, device)
        for device in DEVICES
        for precision in skinny.PRECISIONS
        for side in skinny.SIDES
        if skinny.fits(precision, side, device)
    ]


def table(header: Row, rows: Sequence[Row]) -> str:
    """Write a table; columns without an entry are left out."""
    kept = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[row[i] for i in kept] for row in (header, ("---",) * len(header), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def generated() -> str:
    """Return what stands in the document between the markers."""
    parts = (
        f"Predicted, not measured; from machine code by {compiler.version()}.",
        table(LAYERS, layers()),
        table(LOOPS, loops()),
        table(SKINNY, skinny_layers()),
    )
    return "\n\n".join(parts)


def placed(document: str, text: str) -> str:
    """Put a text between the markers of a document."""
    before, found, rest = document.partition(f"{BEGIN}\n")
    _, ended, after = rest.partition(f"\n{END}")
    if not found or not ended:
        raise ValueError(f"the document has no place between {BEGIN} and {END}")
    return f"{before}{found}{text}{ended}{after}"


def committed(document: str) -> str:
    """Return what stands between the markers."""
    return document.partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]
