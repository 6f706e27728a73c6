"""Mistakes planted into the runtime itself: the tests of what it does must see each of them."""

import functools
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import (
    EmulatorError,
    Module,
    build,
    cache,
    test_boxes,
    test_clusters,
    test_planted_cluster_errors,
    test_wgmma_layouts,
)
from tests.emulator.subjects.cases import FOLDER, sum_tiles
from tests.emulator.test_measured_products import expect_measured
from tests.emulator.test_planted_hopper_errors import FILE

Check = Callable[[], None]


def boxes(swizzle: int) -> Check:
    def check() -> None:
        module = Module(FOLDER / "boxes.cu")
        for name in test_boxes.SHAPES:
            test_boxes.test_box(module, name, np.uint16, swizzle, False)

    return check


def products(swizzle: int, mn_major: bool) -> Check:
    def check() -> None:
        module = Module(FOLDER / "products.cu", defines=("WIDEST=24", "TYPE=bf16"))
        rng = np.random.default_rng(0)
        for _ in range(3):
            a = test_wgmma_layouts.random_operand(rng, 64, mn_major, swizzle)
            b = test_wgmma_layouts.random_operand(rng, 24, mn_major, swizzle)
            for first in (a, None):
                test_wgmma_layouts.check_product(module, rng, first, b, ml_dtypes.bfloat16)

    return check


def planted(name: str) -> Check:
    return lambda: FILE.require_report(Module(FILE.path), name, "ascending")


def planted_in_a_cluster(name: str, policy: str = "ascending", eager: bool = False) -> Check:
    file = test_planted_cluster_errors.FILE
    return lambda: file.require_report(Module(file.path), name, policy, eager_copies=eager)


def tiles_of_a_cluster() -> None:
    for cluster in (2, 4):
        module = Module(FOLDER / "clusters.cu", defines=(f"CLUSTER={cluster}",))
        sum_tiles(module, cluster)


def protocol(test: Callable[[Module, dict[str, Any]], None], policy: str = "ascending") -> Check:
    return lambda: test(Module(FOLDER / "cluster_protocols.cu"), {"policy": policy})


def measured_products(type_: str) -> Check:
    return lambda: expect_measured(type_)


@dataclass(frozen=True)
class Mutant:
    """`old`, which stands once in a file of the runtime, becomes `new`; `check` must fail."""

    file: str
    old: str
    new: str
    check: Check


MUTANTS = {
    "boxes are not swizzled": Mutant(
        "tensor_maps.h", "swizzled(offset, map.swizzle)", "offset", boxes(128)
    ),
    "a swizzle of 64 bytes takes a bit too many": Mutant(
        "bulk_copies.h", "(offset >> 7 & 3)", "(offset >> 7 & 7)", boxes(64)
    ),
    "negative coordinates wrap around": Mutant(
        "tensor_maps.h", "std::max<int64_t>(column, 0)", "column", boxes(0)
    ),
    "rows end where the memory ends": Mutant(
        "tensor_maps.h",
        "std::min<int64_t>(end, int64_t(map.extents[0]))",
        "std::min<int64_t>(end, int64_t(map.strides[1] / map.item_bytes))",
        boxes(0),
    ),
    "outer dimensions never end": Mutant(
        "tensor_maps.h",
        "index < 0 || uint64_t(index) >= map.extents[i]",
        "index < 0",
        boxes(0),
    ),
    "dimensions of a box are exchanged": Mutant(
        "tensor_maps.h", "row % map.box[i]", "row % map.box[map.rank - i]", boxes(0)
    ),
    "half of the bytes are counted": Mutant(
        "mbarriers.cpp", "int64_t(copy.bytes)", "int64_t(copy.bytes / 2)", boxes(0)
    ),
    "bytes too many are not seen": Mutant(
        "mbarriers.cpp",
        "state.missing_bytes < 0 && !state.pending",
        "false",
        planted("arrives_for_too_few_bytes"),
    ),
    "bytes of an earlier phase are not seen": Mutant(
        "mbarriers.cpp",
        "record.phases != copy.phase",
        "false",
        planted("bytes_of_a_later_phase"),
    ),
    "a thread that is overtaken is not seen": Mutant(
        "mbarriers.cpp",
        "require_seen(barrier, thread);",
        "",
        planted("overtaken_by_a_phase"),
    ),
    "LBO and SBO exchanged, MN-major": Mutant(
        "wgmma_operands.cpp", "along_rows = plain ?", "along_rows = !plain ?", products(32, True)
    ),
    "LBO and SBO exchanged, K-major": Mutant(
        "wgmma_operands.cpp",
        "uint64_t(row / 8) * d.stride",
        "uint64_t(row / 8) * d.leading",
        products(0, False),
    ),
    "operands are not swizzled": Mutant(
        "wgmma_operands.cpp",
        "k_byte);\n  return swizzled(offset, d.swizzle);",
        "k_byte);\n  return offset;",
        products(32, False),
    ),
    "rows of an accumulator exchanged": Mutant(
        "warpgroups.cpp", "(row + i % 2 * 8)", "(row + (1 - i % 2) * 8)", products(64, False)
    ),
    "accumulators in flight are not watched": Mutant(
        "warpgroups.cpp",
        "if (bits == IN_FLIGHT) continue;",
        "continue;",
        planted("accumulator_written_in_flight"),
    ),
    "operands need no order": Mutant(
        "operand_checks.cpp",
        "cell->writer != self && cell->write_time > known[cell->writer]",
        "false",
        planted("operands_without_a_barrier"),
    ),
    "operands need no fence": Mutant(
        "operand_checks.cpp",
        "cell->write_time > threads[cell->writer].fenced_time",
        "false",
        planted("init_fence_for_operands"),
    ),
    "only a warpgroup's first warp reads": Mutant(
        "operand_checks.cpp",
        "FIRST_WARPGROUP + reading_group->id / WARPGROUP, group_read",
        "reading_group->id, reading_group->time",
        planted("operand_overwritten_too_early"),
    ),
    "registers are never short": Mutant(
        "register_pools.cpp", "more > left", "false", planted("too_many_registers")
    ),
    "registers come one by one": Mutant(
        "register_pools.cpp",
        " || count % REGISTER_STEP",
        "",
        planted("registers_not_by_eights"),
    ),
    "registers change without a barrier": Mutant(
        "register_pools.cpp",
        "require_ordered_after_last_change(group, first);",
        "",
        planted("registers_twice"),
    ),
    "lanes arrive at named barriers": Mutant(
        "barriers.cpp",
        "if (!whole_block) require_whole_warps(barrier);",
        "",
        planted("barrier_of_one_lane"),
    ),
    "ranks are not known": Mutant(
        "clusters.cpp", "return current_block->rank;", "return 0;", tiles_of_a_cluster
    ),
    "blocks of a cluster follow each other along x": Mutant(
        "clusters.cpp",
        "rank / extents[0] % extents[1]",
        "0",
        protocol(test_clusters.test_ranks),
    ),
    "blocks of a cluster share static and dynamic memory": Mutant(
        "thread_local_blocks.cpp",
        "if (cluster_size > 1) entry() = memory.begin;",
        "",
        protocol(test_clusters.test_each_block_has_its_shared_memory),
    ),
    "named barriers are those of the cluster": Mutant(
        "barriers.cpp",
        "arrive(barriers[current_block->rank][id], id, count",
        "arrive(barriers[0][id], id, count",
        protocol(test_clusters.test_each_block_has_its_shared_memory, "random"),
    ),
    "registers are those of the cluster": Mutant(
        "register_pools.cpp",
        "free_registers[current_block->rank];",
        "free_registers[0];",
        planted_in_a_cluster("registers_of_another_block"),
    ),
    "copies go to the own block only": Mutant(
        "bulk_copies.cpp",
        "block_to_visit(uint32_t(__builtin_ctz(rest)), ",
        "block_to_visit(current->block->rank, ",
        tiles_of_a_cluster,
    ),
    "bytes are counted in the own block": Mutant(
        "bulk_copies.cpp",
        "reinterpret_cast<uint64_t*>(counterpart(barrier, block))",
        "barrier",
        tiles_of_a_cluster,
    ),
    "arrivals are at the own mbarrier": Mutant(
        "mbarriers.cpp",
        'block_to_visit(rank, "arrival on an mbarrier")',
        "*current->block",
        protocol(test_clusters.test_arrivals_in_other_blocks_order_memory),
    ),
    "arrivals in other blocks order nothing": Mutant(
        "mbarriers.cpp",
        "release(record, current->knows, current->id, current->time);",
        "if (current_block == current->block) "
        "release(record, current->knows, current->id, current->time);",
        tiles_of_a_cluster,
    ),
    "the cluster's barrier orders nothing": Mutant(
        "clusters.cpp",
        "if (checking && released) order_all();",
        "",
        protocol(test_clusters.test_a_cluster_shares_global_memory),
    ),
    "the cluster's barrier passes on nothing from earlier barriers": Mutant(
        "clusters.cpp",
        "join_clock(clock, threads[id].knows);",
        "",
        protocol(test_clusters.test_a_cluster_passes_on_what_it_knows),
    ),
    "__syncthreads passes on nothing from other blocks": Mutant(
        "barriers.cpp",
        "barrier.expected == ALL_THREADS && cluster_size == 1",
        "barrier.expected == ALL_THREADS",
        protocol(test_clusters.test_a_cluster_passes_on_what_it_knows),
    ),
    "the cluster's barrier waits for those that have exited": Mutant(
        "clusters.cpp",
        "live_threads += blocks[i].live_threads;",
        "live_threads += thread_count;",
        protocol(test_clusters.test_a_cluster_shares_global_memory),
    ),
    "nobody looks whether the rest has exited": Mutant(
        "scheduler.cpp",
        "release_cluster_barrier_of_survivors();",
        "",
        protocol(test_clusters.test_a_cluster_shares_global_memory),
    ),
    "the cluster's barrier waits for the own block": Mutant(
        "clusters.cpp",
        "if (waiting.size() < live_threads) return;",
        "if (waiting.size() < current_block->live_threads) return;",
        protocol(test_clusters.test_a_cluster_shares_global_memory),
    ),
    "lanes meet in different places": Mutant(
        "clusters.cpp",
        "require_same_place_in_warp(site);",
        "",
        planted_in_a_cluster("different_places_in_a_warp"),
    ),
    "arrivals in a block that has exited": Mutant(
        "clusters.cpp",
        "if (!block.live_threads) fail(",
        "if (false) fail(",
        planted_in_a_cluster("one_exits_before_an_arrival"),
    ),
    "arrivals in a block that may have exited": Mutant(
        "scheduler.cpp",
        "if (checking) require_visits_seen();",
        "",
        planted_in_a_cluster("exits_before_a_multicast", eager=True),
    ),
    "copies into a block that has exited": Mutant(
        "bulk_copies.cpp",
        "if (copy.block != current_block) continue;",
        "continue;",
        planted_in_a_cluster("exits_before_the_copy_lands"),
    ),
    "blocks outside of the cluster": Mutant(
        "clusters.cpp",
        "if (rank >= cluster_size) {",
        "if (rank >= MAX_CLUSTER) {",
        planted_in_a_cluster("arrives_outside_the_cluster"),
    ),
    "blocks of a cluster are taken for one": Mutant(
        "cells.h",
        "(thread == current->id ||",
        "(threads[thread].block != current->block || thread == current->id ||",
        planted_in_a_cluster("freed_by_the_wrong_block", "descending"),
    ),
    "mbarriers of other blocks need no order": Mutant(
        "mbarriers.cpp",
        "!found->second.published && !last",
        "current_block == current->block && !found->second.published && !last",
        planted_in_a_cluster("initialisation_not_ordered", "descending"),
    ),
    "mbarriers of other blocks need no fence": Mutant(
        "mbarriers.cpp",
        "if (checking && record.init_time",
        "if (checking && current_block == current->block && record.init_time",
        planted_in_a_cluster("multicast_without_a_fence"),
    ),
    "one extra bit": Mutant(
        "tensor_arithmetic.cpp",
        "Hardware{2, 16, 8}",
        "Hardware{1, 16, 8}",
        measured_products("bf16"),
    ),
    "three extra bits": Mutant(
        "tensor_arithmetic.cpp",
        "Hardware{2, 16, 8}",
        "Hardware{3, 16, 8}",
        measured_products("bf16"),
    ),
    "groups of 8": Mutant(
        "tensor_arithmetic.cpp",
        "Hardware{2, 16, 8}",
        "Hardware{2, 8, 8}",
        measured_products("bf16"),
    ),
    "addends to nearest": Mutant(
        "tensor_arithmetic.cpp",
        "int64_t(significand * b.significands[from + i] >> right)",
        "int64_t((significand * b.significands[from + i] + (1ull << (right - 1))) >> right)",
        measured_products("bf16"),
    ),
    "results to nearest": Mutant(
        "tensor_arithmetic.cpp",
        "magnitude >>= drop;",
        "magnitude = (magnitude + (1ull << drop >> 1)) >> drop;",
        measured_products("bf16"),
    ),
    "subnormal operands are zeros": Mutant(
        "tensor_arithmetic.cpp",
        "parts.significand >>= least_exponent - parts.exponent;",
        "parts.significand = 0;",
        measured_products("fp16"),
    ),
    "a barrier without release orders memory": Mutant(
        "clusters.cpp",
        "released = release &&",
        "released = true ||",
        planted_in_a_cluster("exits_after_a_relaxed_barrier"),
    ),
    "the last arrival decides whether a barrier orders memory": Mutant(
        "clusters.cpp",
        "released = release && (released || waiting.empty());",
        "released = release;",
        planted_in_a_cluster("global_memory_after_a_relaxed_barrier"),
    ),
    "a barrier without release makes no mbarrier visible": Mutant(
        "clusters.cpp", "if (checking) publish_fenced_mbarriers();", "", tiles_of_a_cluster
    ),
    "a barrier makes mbarriers visible that are not fenced": Mutant(
        "mbarriers.cpp",
        "waits && is_fenced(record)",
        "waits",
        planted_in_a_cluster("arrives_without_a_fence"),
    ),
    "waits are ordered after arrivals of the next phase": Mutant(
        "mbarriers.cpp",
        "if (!checking || !record.clock) return;",
        "order_ended_phase(record);\n  if (!checking || !record.clock) return;",
        planted_in_a_cluster("exits_before_the_next_phase"),
    ),
}


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Mutant], None]:
    """Make modules take a mutated runtime, compiled quickly, while a test runs."""
    usual, kernel_object, flags = cache.folder(), build.kernel_object, (*build.LANGUAGE, "-O1")

    def from_usual_cache(make: Callable[..., Path], *args: Any) -> Path:
        """Return what no mutant changes."""
        with monkeypatch.context() as patch:
            patch.setenv("GPUGRAD_EMULATOR_CACHE", str(usual))
            return make(*args)

    def in_parts(mutant: Mutant) -> Path:
        """Compile the one file that is not as it was; a header's mutant is in all of them."""
        parts = [
            build.runtime_part(path, flags)
            if path.name == mutant.file
            else from_usual_cache(build.runtime_part, path, flags)
            for path in sorted(build.RUNTIME.glob("*.cpp"))
        ]
        together = cache.folder() / "runtime.o"
        build.toolchain.run([build.toolchain.compiler(), "-r", "-nostdlib", *parts, "-o", together])
        return together

    def plant(mutant: Mutant) -> None:
        runtime = tmp_path / "runtime"
        shutil.copytree(build.RUNTIME, runtime)
        (tmp_path / "device").symlink_to(build.DEVICE)
        path = runtime / mutant.file
        text = path.read_text(encoding="utf-8")
        assert text.count(mutant.old) == 1, f"{mutant.old} is not once in {mutant.file}"
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        monkeypatch.setattr(build, "RUNTIME", runtime)
        monkeypatch.setattr(build, "RUNTIME_FLAGS", flags)
        whole = build.runtime_object.__wrapped__
        part = functools.cache(functools.partial(in_parts, mutant))
        monkeypatch.setattr(build, "runtime_object", part if path.suffix == ".cpp" else whole)
        monkeypatch.setattr(
            build, "kernel_object", functools.partial(from_usual_cache, kernel_object)
        )
        monkeypatch.setenv("GPUGRAD_EMULATOR_CACHE", str(tmp_path / "cache"))

    return plant


FIRST = {  # of each file that is compiled by itself
    one.file: name for name, one in reversed(MUTANTS.items()) if one.file.endswith(".cpp")
}.values()


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=[pytest.mark.slow] * (one not in FIRST)) for one in MUTANTS],
)
def test_mutant_is_caught(name: str, mutate: Callable[[Mutant], None]) -> None:
    mutant = MUTANTS[name]
    mutate(mutant)
    with pytest.raises((AssertionError, EmulatorError, pytest.fail.Exception)) as caught:
        mutant.check()
    assert not re.search("compilation failed|memory fault", str(caught.value))


@pytest.mark.slow
def test_without_a_mutant_the_checks_pass(mutate: Callable[[Mutant], None]) -> None:
    mutate(Mutant("mbarriers.cpp", "namespace emulator {", "namespace emulator {\n", lambda: None))
    for check in {mutant.check for mutant in MUTANTS.values()}:
        check()
