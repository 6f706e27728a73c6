"""What the contracts at the heads of the kernels' files promise of their machine code.

Instructions that it must hold at least, registers that a launch bound leaves.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gpugrad.gpu import mma, wgmma
from gpugrad.planning.plan import THREADS

REGISTERS_AN_SM = 65536
REGISTERS_A_THREAD = 255
BLOCK_K = 16  # of gemm_ffma.cuh
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
BLOCKS_AN_SM = {  # of the others that state them
    "reduce_splits": 4,
    "reduce_layer_splits": 2,
    "split_planes": 3,
    "sigmoid_bias_planes": 2,
    "plane_maxima": 2,
    "plane_exponents": 4,
}
WITH_RESULT = ("matmul_backward_ffma", "dense_sigmoid_backward_dw_ffma")  # and with partial sums
DMMA_PRODUCTS = ("dense_sigmoid_dmma", "matmul_backward_dmma")
MMA_PRODUCTS = ("dense_sigmoid_mma", "matmul_backward_mma")
WGMMA_PRODUCTS = ("dense_sigmoid_wgmma", "matmul_backward_wgmma")


class Subject(NamedTuple):
    """What a row is about."""

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
    macros, kernel = subject.macros.split(), subject.kernel
    double = "ELEMENT_F64" in macros
    half = "ELEMENT_F16" in macros or "ELEMENT_BF16" in macros
    if kernel in ELEMENT_WISE:
        read, written = ELEMENT_WISE[kernel]
        return {"load_128": read, "store_128": written}
    if kernel in COLUMN_SUMS:
        read, written = COLUMN_SUMS[kernel]
        rows = 2 if half else 4  # ROWS_IN_FLIGHT of the source of rows
        return {"load_128": read * rows, "store_128": written * rows, "barrier": 1}
    if kernel in PRODUCTS:
        thread = _tile(macros) // 16
        quads, accesses = thread // 4, 2 if double else 1
        found = {
            "load_64" if half else "load_128": PRODUCTS[kernel] * quads * accesses,
            "shared_load_128": BLOCK_K * 2 * quads * accesses,
            "shared_store_128": 2 * quads * accesses,
            "dfma" if double else "ffma": thread * thread * BLOCK_K,
            "barrier": 2,
        }
        stores = thread * quads * accesses
        if kernel in WITH_RESULT:
            found["store_128"] = stores
        if not (kernel in WITH_RESULT and "RESULT_F32" in macros):
            found["store_64" if half else "store_128"] = stores
        return found
    if kernel in DMMA_PRODUCTS:
        pieces = _tile(macros) // 32  # of a warp's rows, and twice those of its columns
        return {
            "load_128": 3 * 2 * pieces,  # the first two stages and those in the loop, two operands
            "store_128": pieces * (2 if kernel == "matmul_backward_dmma" else 1),
            "tensor": pieces**2 * (1 if subject.arch.startswith("sm_90") else 8),
            "barrier": 1,
        }
    if kernel in MMA_PRODUCTS:
        planes, tile = _planes(macros), _tile(macros)
        step, stages = mma.stages(tile, planes)
        pieces = tile // 32  # of 16 rows of a warp's share, and of 8 of its columns
        unrolled = step // 16 if planes == 1 else 1
        copies = 2 * planes * (step * tile // (8 * THREADS))  # of a stage
        return {
            "load_128": stages * copies,  # before the loop, and in it
            "shared_load_128": 1,
            "tensor": unrolled * pieces * pieces * planes * (planes + 1) // 2,
            "barrier": 3,
        }
    if kernel in WGMMA_PRODUCTS:
        planes, tile = _planes(macros), _tile(macros)
        left, right = ("LEFT_ACROSS" in macros, 128), ("RIGHT_ACROSS" in macros, tile)
        boxes = [extent // 64 if across else 1 for across, extent in (left, right)]
        return {
            "tensor": wgmma.block_k(planes) // 16 * planes * (planes + 1) // 2,
            "bulk_copy": planes * sum(boxes),
            "shared_load_128": 1,
            "set_registers": 2,
        }
    if kernel == "split_planes":  # eight elements a thread
        return {"load_128": 2, "store_128": _planes(macros)}
    if kernel == "sigmoid_bias_planes":  # four, of four rows at once
        planes = _planes(macros)
        read, written = (2, 1) if planes == 3 else (3, 2)  # exponents; by row and by column
        return {"load_128": read * 4, "store_64": written * planes * 4, "barrier": 1}
    if kernel == "plane_maxima":
        return {"load_128": (2 if "GRADIENT" in macros else 1) * 4, "barrier": 1}
    if kernel in ("reduce_splits", "reduce_layer_splits", "plane_exponents"):
        return {"barrier": 1}
    if kernel == "dense_sigmoid_backward_fused_mma" and _planes(macros) == 3:
        side, rows = _tile(macros) // 32, 32  # side: of a warp's share of dw, in instructions
        return {
            "load_128": rows * 3 * 32 * side // (4 * THREADS) + 1,  # dy, saved, x, of a thread; w
            "store_64": 2 * side,  # of dx, in pairs
            "tensor": 7 * (side + side * side),  # 16 terms of dx, 16 rows of dw
            "barrier": 3,
        }
    if kernel == "dense_sigmoid_backward_fused_mma":
        tile = _tile(macros)
        inputs, rows = 128 if tile == 128 else 64, 32 if tile == 256 else 64
        rows = 32 if tile == 64 and "FROM_LOGITS" in macros else rows
        packs = rows * (2 * tile + inputs) // (8 * THREADS)  # of dy, saved and x, of a thread
        pieces = (rows // 32) * (inputs // 32)  # of a warp's share of dx, by one instruction
        return {
            "load_128": packs + 1,  # and w
            "store_64": 1,  # of dx; 16-bit elements leave in fours
            "shared_load_128": 1,
            "shared_store_128": rows * (tile + inputs) // (8 * THREADS) + 1,
            "tensor": 4 * pieces + (inputs // 32) * (tile // 32),  # 64 terms; 16 rows of dw
            "barrier": 3,
        }
    if kernel == "dense_sigmoid_backward_fused_ffma":
        side = _tile(macros) // 16  # of a thread's share of dw; of dx it is 4 × 4
        ahead = 2  # quads of outputs at once
        rows = 1 if side == 4 and subject.arch == "sm_120" else 4
        return {
            "load_128": 3 * 4 + 1,  # dy, saved and x; w
            "store_128": 4 + 2 * side * side // 4,  # dx; dw and its partial sums
            "shared_load_128": rows * 2 * side // 4 + ahead * 2 * 4,
            "shared_store_128": 2 * 4 + 1,
            "ffma": rows * side * side + ahead * 4 * 16,
            "barrier": 4,
        }
    raise ValueError(f"{subject}: contract_promises.promised does not know this kernel")


def blocks_a_multiprocessor(subject: Subject) -> int:
    """Give the second argument of the kernel's launch bounds."""
    if subject.kernel.startswith("dense_sigmoid_backward_fused_"):
        return 1 if _tile(subject.macros.split()) > 64 else 2
    if subject.kernel in PRODUCTS:
        macros = subject.macros.split()
        return 1 if _tile(macros) > 64 or "ELEMENT_F64" in macros else 2
    if subject.kernel in (*DMMA_PRODUCTS, *MMA_PRODUCTS):
        return 1 if _tile(subject.macros.split()) > 64 else 2
    if subject.kernel in COLUMN_SUMS:
        return 2
    return BLOCKS_AN_SM.get(subject.kernel, 1)


def register_limit(subject: Subject) -> int:
    """Give the registers that the launch bound leaves each thread; they come in eights."""
    threads = wgmma.THREADS if subject.kernel in WGMMA_PRODUCTS else THREADS
    share = REGISTERS_AN_SM // (threads * blocks_a_multiprocessor(subject))
    return min(share // 8 * 8, REGISTERS_A_THREAD)


def _tile(macros: Iterable[str]) -> int:
    return next(int(one.removeprefix("TILE=")) for one in macros if one.startswith("TILE="))


def _planes(macros: Iterable[str]) -> int:
    return next((int(one.removeprefix("PLANES=")) for one in macros if "PLANES=" in one), 1)
