"""Mistakes between the blocks of a cluster: each is found, and the report names the line."""

import re
from typing import Any

import numpy as np
import pytest

from tests.emulator import Module, TensorMap
from tests.emulator.subjects.cases import FOLDER
from tests.emulator.subjects.planted import Planted, PlantedFile

EXITED = "but block [01] of the cluster (has exited|may have exited: it does not wait for this), at"

RACE_WITH_A_READER = (
    r"race: asynchronous write is not ordered after the read by thread \(.*,0,0\) of block "
    r"\(1,0,0\) in block 1 of the cluster"
)


def nothing() -> tuple[Any, ...]:
    return ()


def tensor_map() -> tuple[Any, ...]:
    return (TensorMap(np.ones((2, 8, 16), np.float32), (1, 4, 8), 0),)


def map_and_floats() -> tuple[Any, ...]:
    return (*tensor_map(), np.zeros(64, np.float32))


def in_a_cluster(always: str, arguments: Any = nothing, block: int = 32) -> Planted:
    return Planted(always, arguments=arguments, block=block, grid=2)


def overwritten(name: str) -> Planted:
    """In the second block, where the copy before may not have landed, or its bytes not counted."""
    return in_a_cluster(
        f"({RACE_WITH_A_READER}|asynchronous write of memory whose asynchronous copy has not been "
        f"waited for in block 1 of the cluster): shared array box.* at {{{name}}}|"
        f"128 bytes more land than the mbarrier expects: .* at {{{name}_arrival}}",
        map_and_floats,
    )


PLANTED = {
    "exits_before_an_arrival": in_a_cluster(
        f"arrival on an mbarrier, {EXITED} {{exits_before_an_arrival}}"
    ),
    "one_exits_before_an_arrival": in_a_cluster(
        "arrival on an mbarrier, but block 0 of the cluster "
        "(has exited|may have exited: it does not wait for this), at {one_exits_before_an_arrival}"
    ),
    "exits_before_a_multicast": in_a_cluster(
        f"(TMA: multicast, {EXITED}|TMA: the block ends before the copy has landed, at) "
        "{exits_before_a_multicast}",
        tensor_map,
    ),
    "exits_before_the_copy_lands": in_a_cluster(
        "TMA: the block ends before the copy has landed, at {exits_before_the_copy_lands}",
        tensor_map,
    ),
    "exits_before_the_next_phase": in_a_cluster(
        "arrival on an mbarrier, but block 0 of the cluster "
        "(has exited|may have exited: it does not wait for this), at {exits_before_the_next_phase}"
    ),
    "exits_before_the_last_stage_is_empty": in_a_cluster(
        f"arrival on an mbarrier, {EXITED} {{exits_before_the_last_stage_is_empty}}"
    ),
    "exits_after_a_relaxed_barrier": in_a_cluster(
        f"arrival on an mbarrier, {EXITED} {{exits_after_a_relaxed_barrier}}"
    ),
    "arrives_outside_the_cluster": in_a_cluster(
        "arrival on an mbarrier, but block 2 is outside the cluster of 2 blocks, "
        "at {arrives_outside_the_cluster}"
    ),
    "multicast_outside_the_cluster": in_a_cluster(
        "TMA: multicast, but block 2 is outside the cluster of 2 blocks, "
        "at {multicast_outside_the_cluster}",
        tensor_map,
    ),
    "multicast_to_nobody": in_a_cluster(
        "TMA: the multicast goes to no block, at {multicast_to_nobody}", tensor_map
    ),
    "arrives_without_a_cluster": in_a_cluster(
        "arrival on an mbarrier, but block 1 is outside the cluster of 1 blocks, "
        "at {arrives_without_a_cluster}"
    ),
    "arrives_after_a_block_barrier": in_a_cluster(
        "arrival on an mbarrier (that was not initialised|whose initialisation is not ordered "
        "before) in block [01] of the cluster: shared array ready, byte 0 of 8 "
        "at {arrives_after_a_block_barrier}"
    ),
    "arrives_without_a_fence": in_a_cluster(
        "arrival on an mbarrier whose initialisation is not ordered before in block [01] of the "
        "cluster: shared array ready, byte 0 of 8 at {arrives_without_a_fence}"
    ),
    "initialisation_not_ordered": in_a_cluster(
        "arrival on an mbarrier whose initialisation is not ordered before in block 1 of the "
        "cluster: shared array late, byte 0 of 8 at {initialisation_not_ordered}"
    ),
    "multicast_to_a_late_block": in_a_cluster(
        "TMA on an mbarrier (that was not initialised|whose initialisation is not ordered before) "
        "in block [01] of the cluster: shared array ready, byte 0 of 8 "
        "at {multicast_to_a_late_block}",
        tensor_map,
    ),
    "multicast_without_a_fence": in_a_cluster(
        "TMA on an mbarrier whose initialisation was not fenced in block 1 of the cluster: "
        "shared array ready, byte 0 of 8 at {multicast_without_a_fence}",
        tensor_map,
    ),
    "bytes_that_one_block_expects": in_a_cluster(
        r"deadlock: .*32 threads of block 1 of the cluster waiting on the mbarrier .* "
        "which lacks 1 of 1 arrivals and -128 bytes, at {bytes_that_one_block_expects}",
        tensor_map,
    ),
    "a_block_stays_away": in_a_cluster(
        "deadlock: 32 threads of block 0 of the cluster at the cluster barrier "
        "at {a_block_stays_away}, 32 threads of block 1 of the cluster waiting on the mbarrier .* "
        "at {a_block_stays_away_waiter}"
    ),
    "different_places_in_a_warp": in_a_cluster(
        "divergent cluster barrier: lane .* of the warp waits in the one at "
        "({different_places_in_a_warp}, this one at {different_places_in_a_warp_other}|"
        "{different_places_in_a_warp_other}, this one at {different_places_in_a_warp})"
    ),
    "registers_of_another_block": in_a_cluster(
        "deadlock: .*128 threads of block 1 of the cluster waiting for 8 registers that no "
        "warpgroup gives back at {registers_of_another_block}",
        block=128,
    ),
    "global_memory_without_a_barrier": in_a_cluster(
        r"race: (read|write) is not ordered after the (read|write) by thread \(\d+,0,0\) of block "
        r"\([01],0,0\): argument 0 \(y\).* at {global_memory_without_a_barrier}",
        lambda: (np.zeros(32, np.int32),),
    ),
    "global_memory_after_syncthreads": in_a_cluster(
        r"race: write is not ordered after the write by thread \(\d+,0,0\) of block \([01],0,0\): "
        r"argument 0 \(y\).* at {global_memory_after_syncthreads}",
        lambda: (np.zeros(32, np.int32),),
    ),
    "global_memory_after_a_relaxed_barrier": in_a_cluster(
        r"race: write is not ordered after the write by thread \(\d+,0,0\) of block \(0,0,0\): "
        r"argument 0 \(y\).* at {global_memory_after_a_relaxed_barrier}",
        lambda: (np.zeros(32, np.int32),),
    ),
    "overwrites_too_early": overwritten("overwrites_too_early"),
    "freed_by_the_wrong_block": overwritten("freed_by_the_wrong_block"),
    "overwrites_without_a_fence": in_a_cluster(
        "TMA overwrites what was written without fence.proxy.async in block 1 of the cluster: "
        "shared array box, byte 0 of 128 at {overwrites_without_a_fence}",
        tensor_map,
    ),
}

ONLY_LATE = {"exits_before_the_copy_lands"}
FILE = PlantedFile(FOLDER / "planted_cluster_errors.cu", PLANTED)


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(FILE.path)


@pytest.mark.parametrize("policy", ["ascending", "descending", "random"])
@pytest.mark.parametrize("eager", [False, True], ids=["late", "eager"])
@pytest.mark.parametrize("name", PLANTED)
def test_report(module: Module, name: str, policy: str, eager: bool) -> None:
    if not (eager and name in ONLY_LATE):
        FILE.require_report(module, name, policy, eager_copies=eager)


@pytest.mark.parametrize("name", ["overwrites_too_early", "freed_by_the_wrong_block"])
@pytest.mark.parametrize("eager", [False, True], ids=["late", "eager"])
def test_only_readers_of_the_other_block_free_its_memory(
    module: Module, name: str, eager: bool
) -> None:
    text = FILE.report(module, name, policy="descending", eager_copies=eager)
    place = FILE.with_lines(f"at {{{name}}}; the earlier access is at {{{name}_reader}}")
    assert re.search(f"{RACE_WITH_A_READER}: shared array box, .* {place}", text)


def test_every_planted_kernel_is_tested() -> None:
    assert FILE.names() == set(PLANTED)
