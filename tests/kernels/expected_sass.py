"""What the contracts at the heads of the kernels' files promise of their machine code.

Instructions that it must hold at least, registers that a launch bound leaves.
"""

import functools
import re
from typing import NamedTuple

from gpugrad.gpu import source
from gpugrad.planning.instantiations import BY_LABEL

REGISTERS_AN_SM = 65536
REGISTERS_A_THREAD = 255
ELEMENT_WISE = {"sigmoid": (1, 1), "sigmoid_backward": (2, 1)}  # matrices read and written
COLUMN_SUMS = {
    "bias_backward": (1, 0),
    "sigmoid_bias_backward": (2, 1),
    "sigmoid_bias_sum": (2, 0),
}
PRODUCTS = {  # matrices read
    "dense_sigmoid_ffma": 2,
    "matmul_backward_ffma": 2,
    "dense_sigmoid_backward_dx_ffma": 3,
    "dense_sigmoid_backward_dw_ffma": 3,
}
WITH_RESULT = ("matmul_backward_ffma", "dense_sigmoid_backward_dw_ffma")  # and with partial sums
DMMA_PRODUCTS = ("dense_sigmoid_dmma", "matmul_backward_dmma")
MMA_PRODUCTS = ("dense_sigmoid_mma", "matmul_backward_mma")
WGMMA_PRODUCTS = ("dense_sigmoid_wgmma", "matmul_backward_wgmma")


class Subject(NamedTuple):
    """What a row is about; `macros` are those that the instantiation's label names."""

    stem: str
    macros: str
    kernel: str
    arch: str

    def __str__(self) -> str:
        return f"{self.stem} [{self.macros}] {self.kernel} {self.arch}"


Counts = dict[str, int]  # by COLUMNS and ZERO of compile_gate


def promised(subject: Subject) -> Counts:
    """Derive the fewest instructions of each kind that the kernel's contract allows.

    Element-wise kernels move a pack of 16 bytes an access, sums over rows several at once. Products
    move quads: 8 bytes of 16-bit elements, 16 of float32, 2 × 16 of float64.
    """
    macros, kernel, of = subject.macros.split(), subject.kernel, constants(subject)
    double = "ELEMENT_F64" in macros
    half = "ELEMENT_F16" in macros or "ELEMENT_BF16" in macros
    if kernel in ELEMENT_WISE:
        read, written = ELEMENT_WISE[kernel]
        return {"load_128": read, "store_128": written}
    if kernel in COLUMN_SUMS:
        read, written = COLUMN_SUMS[kernel]
        rows = of["ROWS_IN_FLIGHT"]
        return {"load_128": read * rows, "store_128": written * rows, "barrier": 1}
    if kernel in PRODUCTS:
        thread = of["BLOCK_M"] // 16
        quads, accesses = thread // 4, 2 if double else 1
        found = {
            "load_64" if half else "load_128": PRODUCTS[kernel] * quads * accesses,
            "shared_load_128": of["BLOCK_K"] * 2 * quads * accesses,
            "shared_store_128": 2 * quads * accesses,
            "dfma" if double else "ffma": thread * thread * of["BLOCK_K"],
            "barrier": 2,
        }
        stores = thread * quads * accesses
        if kernel in WITH_RESULT:
            found["store_128"] = stores
        if not (kernel in WITH_RESULT and "RESULT_F32" in macros):
            found["store_64" if half else "store_128"] = stores
        return found
    if kernel in DMMA_PRODUCTS:
        down, across = of["BLOCK_M"] // of["WARPS_M"] // 16, of["BLOCK_N"] // of["WARPS_N"] // 8
        return {
            "load_128": of["STAGES"] * 2 * down,  # before the loop and in it, two operands
            "store_128": down * (2 if kernel == "matmul_backward_dmma" else 1),
            "tensor": down * across * (1 if subject.arch.startswith("sm_90") else 8),
            "barrier": 1,
        }
    if kernel in MMA_PRODUCTS:
        planes, step = of["PLANES"], of["BLOCK_K"]
        down, across = of["BLOCK_M"] // of["WARPS_M"] // 16, of["BLOCK_N"] // of["WARPS_N"] // 8
        unrolled = step // 16 if planes == 1 else 1
        copies = 2 * planes * (step * of["BLOCK_M"] // (8 * of["THREADS"]))  # of a stage
        return {
            "load_128": of["STAGES"] * copies,  # before the loop, and in it
            "shared_load_128": 1,
            "tensor": unrolled * down * across * planes * (planes + 1) // 2,
            "barrier": 3,
        }
    if kernel in WGMMA_PRODUCTS:
        planes = of["PLANES"]
        sides = (("LEFT_MN_MAJOR", of["BLOCK_M"]), ("RIGHT_MN_MAJOR", of["BLOCK_N"]))
        boxes = [extent // of["ATOM_MN"] if across in macros else 1 for across, extent in sides]
        return {
            "tensor": of["BLOCK_K"] // 16 * planes * (planes + 1) // 2,
            "bulk_copy": planes * sum(boxes),
            "shared_load_128": 1,
            "set_registers": 2,
        }
    if kernel == "split_planes":  # eight elements a thread
        return {"load_128": 2, "store_128": of["PLANES"]}
    if kernel == "sigmoid_bias_planes":  # four, of several rows at once
        planes, rows = of["PLANES"], of["ROWS_IN_FLIGHT"]
        read, written = (2, 1) if planes == 3 else (3, 2)  # exponents; by row and by column
        return {"load_128": read * rows, "store_64": written * planes * rows, "barrier": 1}
    if kernel == "plane_maxima":
        return {"load_128": (2 if "GRADIENT" in macros else 1) * of["ROWS_IN_FLIGHT"], "barrier": 1}
    if kernel in ("reduce_splits", "reduce_layer_splits", "plane_exponents"):
        return {"barrier": 1}
    if kernel == "dense_sigmoid_backward_fused_mma" and of["PLANES"] == 3:
        side, packs = of["OUTPUTS"] // 32, 4 * of["THREADS"]  # side: of a warp's share of dw
        return {
            "load_128": of["ROWS"] * 3 * 32 * side // packs + 1,  # dy, saved, x, of a thread; w
            "store_64": 2 * side,  # of dx, in pairs
            "tensor": 7 * (side + side * side),  # 16 terms of dx, 16 rows of dw
            "barrier": 3,
        }
    if kernel == "dense_sigmoid_backward_fused_mma":
        outputs, inputs = of["OUTPUTS"], of["INPUTS"]
        rows = of["ROWS_FROM_LOGITS" if "FROM_LOGITS" in macros else "ROWS"]
        share = 8 * of["THREADS"]  # elements in a pack of each thread
        packs = rows * (2 * outputs + inputs) // share  # of dy, saved and x
        pieces = (rows // 32) * (inputs // 32)  # of a warp's share of dx, by one instruction
        return {
            "load_128": packs + 1,  # and w
            "store_64": 1,  # of dx; 16-bit elements leave in fours
            "shared_load_128": 1,
            "shared_store_128": rows * (outputs + inputs) // share + 1,
            "tensor": 4 * pieces + (inputs // 32) * (outputs // 32),  # 64 terms; 16 rows of dw
            "barrier": 3,
        }
    if kernel == "dense_sigmoid_backward_fused_ffma":
        side = of["OUTPUTS"] // 16  # of a thread's share of dw; of dx it is 4 × 4
        ahead = of["DX_UNROLL"]
        rows = of["DW_UNROLL_SM120" if subject.arch == "sm_120" else "DW_UNROLL"]
        return {
            "load_128": 3 * 4 + 1,  # dy, saved and x; w
            "store_128": 4 + 2 * side * side // 4,  # dx; dw and its partial sums
            "shared_load_128": rows * 2 * side // 4 + ahead * 2 * 4,
            "shared_store_128": 2 * 4 + 1,
            "ffma": rows * side * side + ahead * 4 * 16,
            "barrier": 4,
        }
    raise ValueError(f"{subject}: expected_sass.promised does not know this kernel")


@functools.cache
def constants(subject: Subject) -> dict[str, int]:
    """Return the macros of an instantiation that have a value."""
    macros = BY_LABEL[subject.stem, subject.macros].macros
    return {name: int(value) for name, _, value in (one.partition("=") for one in macros) if value}


def launch_bounds(subject: Subject) -> tuple[int, int]:
    """Return the threads and the blocks a multiprocessor of the kernel's launch bounds."""
    text = (source.directory() / f"{subject.stem}.cu").read_text(encoding="utf-8")
    found = re.search(rf"__launch_bounds__\(([^)]*)\)[^;{{]*\b{subject.kernel}\(", text)
    assert found, f"{subject.kernel} has no launch bounds"
    of = constants(subject)
    values = [of[one] if one in of else int(one) for one in found[1].split(", ")]
    return values[0], (values[1:] or [1])[0]


def register_limit(subject: Subject) -> int:
    """Return the registers that the launch bound leaves each thread; they come in eights."""
    threads, blocks = launch_bounds(subject)
    return min(REGISTERS_AN_SM // (threads * blocks) // 8 * 8, REGISTERS_A_THREAD)
