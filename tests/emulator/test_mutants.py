"""Typical mistakes, planted one at a time into correct kernels: none may pass unseen."""

import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.emulator import EmulatorError, Module
from tests.emulator.subjects.cases import CASES, FOLDER, gemm_tf32

SCHEDULES: list[dict[str, Any]] = [
    {"policy": "ascending"},
    {"policy": "descending"},
    {"policy": "random", "seed": 3},
]
WRONG_RESULT = "wrong result"


@dataclass(frozen=True)
class Mutant:
    """The n-th occurrence of `old` in a subject becomes `new`; `seen` is what gives it away."""

    case: str
    old: str
    new: str
    seen: str
    n: int = 0

    def source(self) -> str:
        text = (FOLDER / CASES[self.case][0]).read_text(encoding="utf-8")
        parts = text.split(self.old)
        assert len(parts) > self.n + 1, f"{self.old} is not in {self.case}"
        before, after = parts[: self.n + 1], parts[self.n + 1 :]
        return self.old.join(before) + self.new + self.old.join(after)


RACE = "race: "
UNINITIALISED = "uninitialised"
BOUNDS = "out-of-bounds"
NOT_AWAITED = "has not been waited for"
DEADLOCK = "deadlock"
LATE_INITIALISATION = "not initialised|initialisation is not ordered before"

MUTANTS = {
    "sgemm: no barrier after the loads": Mutant(
        "sgemm", "__syncthreads();", "", f"{RACE}|{UNINITIALISED}"
    ),
    "sgemm: no barrier before the next loads": Mutant("sgemm", "__syncthreads();", "", RACE, 1),
    "sgemm: stores one column too many": Mutant("sgemm", "column < n)", "column <= n)", RACE),
    "sgemm: loads one row too many": Mutant("sgemm", "row >= rows", "row > rows", BOUNDS),
    "sgemm: float4 from unaligned rows": Mutant("sgemm", "k % 4 == 0", "true", "misaligned"),
    "sgemm: a shared row is never written": Mutant(
        "sgemm", "tile_a[t % 4 * 4 + 1]", "tile_a[t % 4 * 4 + 2]", f"{RACE}|{UNINITIALISED}"
    ),
    "sgemm: a shared array is written past its end": Mutant(
        "sgemm", "&tile_b[t / 16][", "&tile_b[t / 16 + 1][", BOUNDS
    ),
    "sgemm: a shared index is too large": Mutant(
        "sgemm", "tile_a[i][ty * 4]", "tile_a[i][ty * 4 + 8]", f"{BOUNDS}|{UNINITIALISED}"
    ),
    "sgemm: blocks overlap": Mutant("sgemm", "blockIdx.y * BLOCK_M", "blockIdx.y * 32", RACE),
    "row sums: no barrier": Mutant("row_sums", "__syncthreads();", "", f"{RACE}|{UNINITIALISED}"),
    "row sums: shuffles start at 8": Mutant("row_sums", "d = 16", "d = 8", WRONG_RESULT),
    "row sums: half a warp shuffles with a full mask": Mutant(
        "row_sums", "if (threadIdx.x < 32) {", "if (threadIdx.x < 16) {", f"exited|{DEADLOCK}"
    ),
    "row sums: array too small for the block": Mutant("row_sums", "part[8]", "part[4]", BOUNDS),
    "row sums: guard dropped": Mutant(
        "row_sums",
        "threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.f",
        "part[threadIdx.x]",
        BOUNDS,
    ),
    "row sums: barrier in a branch": Mutant(
        "row_sums",
        "  __syncthreads();\n  if (threadIdx.x < 32) {",
        "  if (threadIdx.x < 32) { __syncthreads();",
        f"divergent|{RACE}|{UNINITIALISED}",
    ),
    "column sums: += for atomicAdd": Mutant(
        "column_sums", "atomicAdd(&y[c], v)", "y[c] += v", RACE
    ),
    "tf32: waits for one group too few": Mutant("gemm_tf32", "wait<1>", "wait<2>", NOT_AWAITED),
    "tf32: no wait": Mutant("gemm_tf32", "ptx::cp_async_wait<1>();", "", NOT_AWAITED),
    "tf32: no commit in the loop": Mutant(
        "gemm_tf32", "ptx::cp_async_commit();", "", NOT_AWAITED, 1
    ),
    "tf32: no barrier after the wait": Mutant(
        "gemm_tf32", "__syncthreads();", "", f"{NOT_AWAITED}|{RACE}|{UNINITIALISED}"
    ),
    "tf32: no barrier before the next copies": Mutant("gemm_tf32", "__syncthreads();", "", RACE, 1),
    "tf32: wrong rows of b": Mutant("gemm_tf32", "member + h * 4", "member * 2 + h", WRONG_RESULT),
    "tf32: wrong ldmatrix address": Mutant(
        "gemm_tf32", "lane / 16 * 4", "lane / 16 * 8", f"{WRONG_RESULT}|{UNINITIALISED}"
    ),
    "tf32: wrong column of c": Mutant("gemm_tf32", "member * 2;", "member;", f"{RACE}|misaligned"),
    "tf32: copy predicate dropped": Mutant(
        "gemm_tf32", "n0 + c < n;", "true;", f"{BOUNDS}|{WRONG_RESULT}"
    ),
    "tf32: wrong stage": Mutant(
        "gemm_tf32", "(i + 1) % 2 * STAGE", "i % 2 * STAGE", f"{NOT_AWAITED}|{RACE}"
    ),
    "tf32: the low parts are lost": Mutant(
        "gemm_tf32", "ptx::to_tf32(x - __uint_as_float(high))", "0", WRONG_RESULT
    ),
    "16 bit: no __syncwarp after the loads": Mutant(
        "gemm_16_bit", "__syncwarp();", "", f"{RACE}|{UNINITIALISED}"
    ),
    "16 bit: no __syncwarp before the next loads": Mutant(
        "gemm_16_bit", "__syncwarp();", "", RACE, 1
    ),
    "16 bit: b not transposed": Mutant(
        "gemm_16_bit", "ldmatrix_x4_trans", "ldmatrix_x4", WRONG_RESULT
    ),
    "cluster: __syncthreads after mbarrier.init": Mutant(
        "sum_tiles", "ptx::cluster_sync_relaxed();", "__syncthreads();", LATE_INITIALISATION
    ),
    "cluster: nothing after mbarrier.init": Mutant(
        "sum_tiles", "ptx::cluster_sync_relaxed();", "", LATE_INITIALISATION
    ),
    "cluster: nobody waits at the end": Mutant(
        "sum_tiles", "i < tiles + STAGES", "i < tiles", "has exited|may have exited"
    ),
    "cluster: one stage is not waited for at the end": Mutant(
        "sum_tiles", "i < tiles + STAGES", "i < tiles + STAGES - 1", "has exited|may have exited"
    ),
    "cluster: the first block does not wait at the end": Mutant(
        "sum_tiles",
        "i < tiles + STAGES",
        "i < tiles + STAGES && rank > 0",
        "block 0 of the cluster (has exited|may have exited)",
    ),
    "cluster: parity at the end": Mutant(
        "sum_tiles",
        "(i / STAGES & 1) ^ 1",
        "i / STAGES & 1",
        f"has exited|may have exited|{DEADLOCK}",
    ),
    "cluster: no fence after mbarrier.init": Mutant(
        "sum_tiles", "ptx::fence_mbar_init();", "", LATE_INITIALISATION
    ),
    "cluster: stages are freed in the own block only": Mutant(
        "sum_tiles",
        "ptx::mbar_arrive_cluster(&empty[s], lane)",
        "ptx::mbar_arrive(&empty[s])",
        f"{RACE}|{NOT_AWAITED}",
    ),
    "cluster: stages are freed by the own block only": Mutant(
        "sum_tiles",
        "if (lane < CLUSTER) ptx::mbar_arrive_cluster(&empty[s], lane)",
        "if (lane < CLUSTER) ptx::mbar_arrive_cluster(&empty[s], rank)",
        f"{RACE}|{NOT_AWAITED}",
    ),
    "cluster: a stage is freed by one warp of each block": Mutant(
        "sum_tiles", "CLUSTER * CONSUMERS);", "CLUSTER);", f"{RACE}|{NOT_AWAITED}|arrivals"
    ),
    "cluster: stages are freed before they are read": Mutant(
        "sum_tiles", "__syncwarp();", "", RACE
    ),
    "cluster: the part goes to the own block only": Mutant(
        "sum_tiles", "&full[s], ALL)", "&full[s], 1 << rank)", DEADLOCK
    ),
    "cluster: the own part's bytes expected": Mutant(
        "sum_tiles", "TILE * 4);", "PART * 4);", f"more land|{NOT_AWAITED}|{UNINITIALISED}|{RACE}"
    ),
    "cluster: all bring the first part": Mutant(
        "sum_tiles", "rank * PART", "0", f"{RACE}|{NOT_AWAITED}|{UNINITIALISED}"
    ),
    "cluster: parts from the wrong rows": Mutant(
        "sum_tiles", "rank * ROWS", "(CLUSTER - 1 - rank) * ROWS", WRONG_RESULT
    ),
    "cluster: the producer does not wait": Mutant(
        "sum_tiles",
        "ptx::mbar_wait(&empty[s], phase ^ 1);",
        "",
        f"too many arrivals|{RACE}|{NOT_AWAITED}",
    ),
    "cluster: one block too few is told": Mutant(
        "sum_tiles", "lane < CLUSTER", "lane < CLUSTER - 1", DEADLOCK
    ),
    "cluster: one block too many is told": Mutant(
        "sum_tiles", "lane < CLUSTER", "lane <= CLUSTER", "outside the cluster"
    ),
    "wgmma: producer does not wait": Mutant(
        "gemm_wgmma", "ptx::mbar_wait(&empty[s], phase ^ 1);", "", "too many arrivals"
    ),
    "wgmma: producer's parity": Mutant("gemm_wgmma", "phase ^ 1", "phase", DEADLOCK),
    "wgmma: consumers' parity": Mutant(
        "gemm_wgmma",
        "mbar_wait(&full[s], phase)",
        "mbar_wait(&full[s], phase ^ 1)",
        f"{UNINITIALISED}|{NOT_AWAITED}|{DEADLOCK}",
    ),
    "wgmma: consumers do not wait": Mutant(
        "gemm_wgmma",
        "ptx::mbar_wait(&full[s], phase);",
        "",
        f"{UNINITIALISED}|{NOT_AWAITED}|{RACE}",
    ),
    "wgmma: half of the bytes expected": Mutant(
        "gemm_wgmma",
        "mbar_expect_tx(&full[s], 2 * TILE)",
        "mbar_expect_tx(&full[s], TILE)",
        f"{NOT_AWAITED}|{DEADLOCK}|{RACE}",
    ),
    "wgmma: one consumer frees the stage": Mutant(
        "gemm_wgmma", "mbar_init(&empty[s], 4)", "mbar_init(&empty[s], 1)", f"{RACE}|arrivals|wait"
    ),
    "wgmma: no barrier after mbarrier.init": Mutant(
        "gemm_wgmma", "  __syncthreads();\n", "", "not initialised|initialisation is not ordered"
    ),
    "wgmma: no fence after mbarrier.init": Mutant(
        "gemm_wgmma", "ptx::fence_mbar_init();", "", "initialisation was not fenced"
    ),
    "wgmma: no wgmma.fence": Mutant("gemm_wgmma", "ptx::wgmma_fence();", "", "without wgmma.fence"),
    "wgmma: wrong stride of the descriptor": Mutant(
        "gemm_wgmma", "1024 >> 4", "512 >> 4", WRONG_RESULT
    ),
    "wgmma: wrong step along k": Mutant(
        "gemm_wgmma", "b + kk * 2", "b + kk * 4", f"{WRONG_RESULT}|{RACE}|b starts 128 bytes"
    ),
    "wgmma: no swizzle in the descriptor": Mutant("gemm_wgmma", "1ull << 62", "0ull", WRONG_RESULT),
    "wgmma: no wait": Mutant("gemm_wgmma", "ptx::wgmma_wait<0>();", "", "nobody waited|wrong"),
    "wgmma: waits for one group too few": Mutant(
        "gemm_wgmma", "wgmma_wait<0>", "wgmma_wait<1>", f"nobody waited|{RACE}|{NOT_AWAITED}"
    ),
    "wgmma: no commit": Mutant("gemm_wgmma", "ptx::wgmma_commit();", "", "nobody waited"),
    "wgmma: stage freed before the products are done": Mutant(
        "gemm_wgmma",
        "ptx::wgmma_wait<0>();\n      if (lane == 0) ptx::mbar_arrive(&empty[s]);",
        "if (lane == 0) ptx::mbar_arrive(&empty[s]);\n      ptx::wgmma_wait<0>();",
        f"{RACE}|{NOT_AWAITED}",
    ),
    "wgmma: accumulates onto nothing": Mutant("gemm_wgmma", "i | kk", "1", WRONG_RESULT),
    "wgmma: a consumer never frees the stage": Mutant(
        "gemm_wgmma", "if (lane == 0) ptx::mbar", "if (lane == 0 && warp < 3) ptx::mbar", DEADLOCK
    ),
}


def outcome(module: Module, case: str, **options: Any) -> str:
    """Return what running a case shows: the error's message, WRONG_RESULT, or nothing."""
    try:
        CASES[case][3](module, timeout=30, **options)
    except EmulatorError as error:
        return str(error)
    except AssertionError:
        return WRONG_RESULT
    return ""


FIRST = {MUTANTS[name].case: name for name in reversed(MUTANTS)}.values()  # of each kernel


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=[pytest.mark.slow] * (one not in FIRST)) for one in MUTANTS],
)
def test_mutant_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    _, functions, defines, _ = CASES[mutant.case]
    module = Module(mutant.source(), functions=functions, defines=defines)
    seen = [text for options in SCHEDULES if (text := outcome(module, mutant.case, **options))]
    assert any(re.search(mutant.seen, text) for text in seen), seen


def test_too_little_dynamic_shared_memory() -> None:
    module = Module(FOLDER / "gemm_tf32.cu")
    with pytest.raises(EmulatorError, match="the launch gave 14848 bytes: dynamic shared memory"):
        gemm_tf32(module, shared_mem=(128 * 20 + 16 * 72) * 4)
