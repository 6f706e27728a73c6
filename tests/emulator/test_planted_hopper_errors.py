"""Mistakes with what only Hopper has: each is found, and the report names the line."""

from typing import Any

import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, TensorMap, uninitialised
from tests.emulator.subjects.cases import FOLDER
from tests.emulator.subjects.planted import Planted, PlantedFile


def nothing() -> tuple[Any, ...]:
    return ()


def floats() -> tuple[Any, ...]:
    return (np.zeros(160, np.float32),)


def tensor_map() -> tuple[Any, ...]:
    return (TensorMap(np.ones((8, 16), np.float32), (4, 8), 0),)


def map_of_an_unwritten_element() -> tuple[Any, ...]:
    x = uninitialised((8, 16))
    x[...] = 1
    x[3, 10] = uninitialised(1)[0]
    return (TensorMap(x, (4, 8), 0),)


def map_and_floats() -> tuple[Any, ...]:
    return (*tensor_map(), *floats())


PLANTED = {
    "arrival_is_missing": Planted(
        r"deadlock: 32 threads waiting on the mbarrier \(shared array ready, byte 0 of 8\) "
        "for parity 0, which lacks 1 of 32 arrivals and 0 bytes, at {arrival_is_missing}",
        arguments=nothing,
    ),
    "wrong_parity": Planted(
        "deadlock: 32 threads waiting on the mbarrier .* for parity 1, "
        "which lacks 32 of 32 arrivals and 0 bytes, at {wrong_parity}",
        arguments=nothing,
    ),
    "parity_is_a_number_of_phases": Planted(
        "wait on an mbarrier for the parity 2, expected 0 or 1: shared array ready, "
        "byte 0 of 8 at {parity_is_a_number_of_phases}",
        arguments=nothing,
    ),
    "does_not_wait_for_the_phase": Planted(
        "(race: read is not ordered|read of uninitialised memory).*shared array box.* "
        "at {does_not_wait_for_the_phase}",
        arguments=floats,
    ),
    "overtaken_by_a_phase": Planted(
        r"a phase of an mbarrier ends before thread \(.*,0,0\) has seen the end of the last one: "
        "shared array ready, byte 0 of 8 at {overtaken_by_a_phase}|"
        "deadlock: .* threads waiting on the mbarrier .* for parity 0, which lacks 1 of 1 "
        "arrivals and 0 bytes, at {overtaken_by_a_phase_waiter}",
        ("a phase of an mbarrier ends before",),
        arguments=nothing,
        block=64,
    ),
    "arrives_for_too_many_bytes": Planted(
        "deadlock: 32 threads waiting on the mbarrier .* which lacks 0 of 1 arrivals and "
        "16 bytes, at {arrives_for_too_many_bytes}",
        arguments=tensor_map,
    ),
    "arrives_for_too_few_bytes": Planted(
        "64 bytes more land than the mbarrier expects: shared array landed, "
        "byte 0 of 8 at {arrives_for_too_few_bytes}",
        arguments=tensor_map,
    ),
    "bytes_of_a_later_phase": Planted(
        "TMA: 128 bytes land when the phase that should count them has ended: "
        "shared array landed, byte 0 of 8 at {bytes_of_a_later_phase_copy}|"
        "128 bytes more land than the mbarrier expects: "
        "shared array landed, byte 0 of 8 at {bytes_of_a_later_phase}",
        arguments=tensor_map,
    ),
    "initialised_twice": Planted(
        "mbarrier.init of an mbarrier that is in use: shared array ready, byte 0 of 8 "
        "at {initialised_twice}",
        arguments=nothing,
    ),
    "overwritten_mbarrier": Planted(
        "arrival on an mbarrier whose memory was overwritten: shared array ready, byte 8 of 16 "
        "at {overwritten_mbarrier}",
        arguments=nothing,
        block=1,
    ),
    "no_arrivals": Planted(
        "mbarrier.init: 0 arrivals, expected 1 to 1048575: .* at {no_arrivals}",
        arguments=nothing,
        block=1,
    ),
    "misaligned_mbarrier": Planted(
        "mbarrier.init: misaligned mbarrier: shared array ready, byte 4 of 16 "
        "at {misaligned_mbarrier}",
        arguments=nothing,
        block=1,
    ),
    "initialisation_not_fenced": Planted(
        "TMA on an mbarrier whose initialisation was not fenced: shared array landed, "
        "byte 0 of 8 at {initialisation_not_fenced}",
        arguments=tensor_map,
        block=1,
    ),
    "overwrites_without_a_fence": Planted(
        "TMA overwrites what was written without fence.proxy.async: shared array box, "
        "byte 0 of 128 at {overwrites_without_a_fence}",
        arguments=tensor_map,
    ),
    "overwrites_what_is_read": Planted(
        "race: asynchronous write is not ordered after the read by thread .* shared array box, "
        "byte .* at {overwrites_what_is_read}; the earlier access is at "
        "{overwrites_what_is_read_reader}|"
        r"race: read is not ordered after the write by thread \(0,0,0\): shared array box.* "
        "at {overwrites_what_is_read_reader}|"
        "read of memory whose asynchronous copy has not been waited for: shared array box.* "
        "at {overwrites_what_is_read_reader}",
        arguments=map_and_floats,
    ),
    "reads_what_was_never_written": Planted(
        r"read of uninitialised memory: argument 0 \(map\), element \[3, 10\], byte 232 .* "
        "at {reads_what_was_never_written}",
        arguments=map_of_an_unwritten_element,
        block=1,
    ),
    "box_past_the_end": Planted(
        "out-of-bounds asynchronous write of 16 bytes, the launch gave 64 bytes: "
        "dynamic shared memory, byte 64 at {box_past_the_end}",
        arguments=tensor_map,
        block=1,
        shared_mem=64,
    ),
    "misaligned_box": Planted(
        "TMA: the destination is not 128-byte aligned shared memory: shared array box, "
        "byte 16 of 144 at {misaligned_box}",
        arguments=tensor_map,
        block=1,
    ),
    "prefetch_of_something_else": Planted(
        "TMA: the argument is no tensor map, at {prefetch_of_something_else}",
        arguments=tensor_map,
    ),
    "copy_never_lands": Planted(
        "TMA: the block ends before the copy has landed, at {copy_never_lands}",
        arguments=tensor_map,
        block=1,
    ),
    "product_without_a_fence": Planted(
        "wgmma without wgmma.fence since the last wait, at {product_without_a_fence}",
        arguments=floats,
        block=128,
    ),
    "init_fence_for_operands": Planted(
        "wgmma reads what was written without fence.proxy.async: shared array operands, "
        "byte 0 of 16384 at {init_fence_for_operands}",
        arguments=floats,
        block=128,
    ),
    "operands_without_a_barrier": Planted(
        "race: read is not ordered after the write by thread .*: shared array operands, "
        "byte .* of 16384 at {operands_without_a_barrier}",
        arguments=floats,
        block=128,
    ),
    "accumulator_written_in_flight": Planted(
        "wgmma: register 2 of the accumulator was written while the product is in flight, "
        "at {accumulator_written_in_flight}",
        arguments=floats,
        block=128,
    ),
    "accumulator_written_between_products": Planted(
        "wgmma: register 1 of the accumulator was written while the product is in flight, "
        "at {accumulator_written_between_products}",
        arguments=floats,
        block=128,
    ),
    "accumulator_of_another_shape": Planted(
        "wgmma: the accumulator is in use by a product in flight of another shape, "
        "at {accumulator_of_another_shape}",
        arguments=floats,
        block=128,
    ),
    "operand_registers_written": Planted(
        "wgmma: registers of a were written while the product is in flight, "
        "at {operand_registers_written}",
        arguments=floats,
        block=128,
    ),
    "different_columns": Planted(
        "wgmma: operands differ across the warpgroup, at {different_columns}",
        arguments=floats,
        block=128,
    ),
    "half_a_warpgroup": Planted(
        "wgmma: not issued, committed and waited for by the whole warpgroup alike, "
        "at {half_a_warpgroup}",
        arguments=floats,
        block=128,
    ),
    "partial_warpgroup": Planted(
        "wgmma in a partial warpgroup, at {partial_warpgroup}", arguments=floats, block=96
    ),
    "operand_overwritten_too_early": Planted(
        "race: write is not ordered after the read by thread .*: shared array operands, "
        "byte 0 of 16384 at {operand_overwritten_too_early}",
        arguments=floats,
        block=128,
    ),
    "reserved_bits": Planted(
        "wgmma: the descriptor of b, .*, has reserved bits that are set, at {one_product}",
        arguments=floats,
        block=128,
    ),
    "address_not_masked": Planted(
        "wgmma: the descriptor of a, .*, has reserved bits that are set, at {one_product}",
        arguments=floats,
        block=128,
    ),
    "base_offset": Planted(
        "wgmma: the descriptor of b has a base offset, which only unaligned atoms need, "
        "at {one_product}",
        arguments=floats,
        block=128,
    ),
    "atom_not_aligned": Planted(
        "wgmma: b starts 256 bytes behind a multiple of 1024, where an atom of its swizzle "
        "starts, at {one_product}",
        arguments=floats,
        block=128,
    ),
    "past_the_row_of_an_atom": Planted(
        "wgmma: a needs 32 bytes of a row and starts 48 bytes behind the start of an atom, "
        "whose rows have 64, at {one_product}",
        arguments=floats,
        block=128,
    ),
    "outside_shared_memory": Planted(
        "wgmma: a descriptor points outside shared memory, at planted_hopper_errors",
        arguments=floats,
        block=128,
    ),
    "registers_of_one_warp": Planted(
        "deadlock: .*32 threads in setmaxnreg without the rest of the warpgroup "
        "at {registers_of_one_warp}",
        arguments=nothing,
        block=384,
    ),
    "registers_not_by_eights": Planted(
        "setmaxnreg: 44 registers, expected a multiple of 8 from 24 to 256, "
        "at {registers_not_by_eights}",
        arguments=nothing,
        block=384,
    ),
    "too_few_registers": Planted(
        "setmaxnreg: 16 registers, expected a multiple of 8 from 24 to 256, at {too_few_registers}",
        arguments=nothing,
        block=384,
    ),
    "decrease_upwards": Planted(
        "setmaxnreg.dec to 176 registers, the warpgroup has 168, at {decrease_upwards}",
        arguments=nothing,
        block=384,
    ),
    "increase_downwards": Planted(
        "setmaxnreg.inc to 160 registers, the warpgroup has 168, at {increase_downwards}",
        arguments=nothing,
        block=384,
    ),
    "too_many_registers": Planted(
        "deadlock: .*128 threads waiting for 16 registers that no warpgroup gives back "
        "at {too_many_registers}",
        arguments=nothing,
        block=384,
    ),
    "registers_twice": Planted(
        "setmaxnreg without a barrier of the warpgroup since the last one, at {registers_twice}",
        arguments=nothing,
        block=384,
    ),
    "registers_in_two_branches": Planted(
        "setmaxnreg: thread .* of the warpgroup is in another one, at "
        "({registers_in_two_branches_other}, this one at {registers_in_two_branches}|"
        "{registers_in_two_branches}, this one at {registers_in_two_branches_other})",
        arguments=nothing,
        block=384,
    ),
    "registers_after_exit": Planted(
        "setmaxnreg, but thread 5 of the warpgroup has exited, at {registers_after_exit}|"
        "deadlock: .*127 threads in setmaxnreg without the rest of the warpgroup "
        "at {registers_after_exit}",
        arguments=nothing,
        block=384,
    ),
    "registers_of_a_small_block": Planted(
        "setmaxnreg in a partial warpgroup, at {registers_of_a_small_block}",
        arguments=nothing,
        block=64,
    ),
    "barrier_number": Planted(
        "barrier 16: the numbers are 0 to 15 at {barrier_number}", arguments=nothing
    ),
    "barrier_count": Planted(
        "barrier 1 is used with 16 threads, not a multiple of 32 at {barrier_count}",
        arguments=nothing,
    ),
    "barrier_of_one_lane": Planted(
        "barrier 1 completes with 16 threads of warp .*, at {barrier_of_one_lane}",
        arguments=nothing,
        block=64,
    ),
    "arrives_twice": Planted(
        "barrier 1: this thread arrives again before the barrier completes, at {arrives_twice}",
        arguments=nothing,
    ),
}

ONLY_LATE = {"copy_never_lands"}
FILE = PlantedFile(FOLDER / "planted_hopper_errors.cu", PLANTED)


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(FILE.path)


@pytest.mark.parametrize("policy", ["ascending", "descending", "random"])
@pytest.mark.parametrize("eager", [False, True], ids=["late", "eager"])
@pytest.mark.parametrize("name", PLANTED)
def test_report(module: Module, name: str, policy: str, eager: bool) -> None:
    if not (eager and name in ONLY_LATE):
        FILE.require_report(module, name, policy, eager_copies=eager)


def test_every_planted_kernel_is_tested() -> None:
    assert FILE.names() == set(PLANTED)


@pytest.mark.parametrize("columns", [0, 4, 12, 264])
def test_no_product_has_so_many_columns(columns: int) -> None:
    source = f"""
extern "C" __global__ void multiply(unsigned long long a) {{
  float d[{max(columns // 2, 1)}];
  ptx::wgmma_bf16<{columns}>(d, a, a, 0);
}}
"""
    with pytest.raises(EmulatorError, match=r"wgmma has 8, 16, \.\.\. 256 columns|no matching"):
        Module(source, mode="fast")
