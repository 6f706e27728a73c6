"""Each kind of mistake is found, and the report names the thing, the thread and the line."""

import re

import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, uninitialised
from tests.emulator.subjects.cases import FOLDER
from tests.emulator.subjects.planted import Planted, PlantedFile

PATH = FOLDER / "planted_errors.cu"


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ints(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int32)


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(PATH)


PLANTED = {
    "race_in_block": Planted(
        "race: (read|write) is not ordered after the (read|write) by thread .* shared array box",
        (
            r"race: write is not ordered after the read by thread \(31,0,0\)",
            "shared array box, byte 128 of 256 at {race_in_block_write}; "
            "the earlier access is at {race_in_block}",
            r"\[block \(0, 0, 0\), thread \(32, 0, 0\)",
        ),
        lambda: (uninitialised(64),),
        block=64,
    ),
    "race_between_blocks": Planted(
        "race: write is not ordered after the write",
        (
            r"by thread \(0,0,0\) of block \(0,0,0\)",
            r"argument 0 \(y\), element \[0\], byte 0 \(shape \(32,\), int32\)",
            "at {race_between_blocks}; the earlier access is at {race_between_blocks}",
            r"\[block \(1, 0, 0\), thread \(0, 0, 0\)",
        ),
        lambda: (uninitialised(32, np.int32),),
        grid=2,
    ),
    "race_with_an_atomic": Planted(
        "race: (write|atomic) is not ordered after the write by thread",
        ("at {race_with_an_atomic}",),
        lambda: (ints(1),),
        grid=2,
    ),
    "shuffles_order_no_memory": Planted(
        "race: read is not ordered", ("shared array box", "at {shuffles_order_no_memory}")
    ),
    "write_after_read": Planted(
        "race: (write|read) is not ordered",
        (
            r"race: write is not ordered after the read by thread \(0,0,0\)",
            r"argument 0 \(x\), element \[1\]",
            "at {write_after_read}; the earlier access is at {write_after_read_read}",
        ),
        lambda: (ints(64),),
        block=64,
    ),
    "uninitialised_shared": Planted(
        "read of uninitialised memory: shared array box, byte 128 of 132 at {uninitialised_shared}",
        (r"thread \(31, 0, 0\)",),
        lambda: (floats(32),),
    ),
    "uninitialised_argument": Planted(
        "read of uninitialised memory",
        (r"argument 0 \(y\), element \[0\]", "at {uninitialised_argument}"),
        lambda: (uninitialised(32),),
    ),
    "read_past_the_end": Planted(
        "out-of-bounds read of 4 bytes",
        (
            r": argument 0 \(x\), byte 64 of 64 \(shape \(16,\), float32\) "
            "at {read_past_the_end}",
            r"thread \(16, 0, 0\)",
        ),
        lambda: (floats(16), floats(17), np.int32(16)),
    ),
    "write_before_the_start": Planted(
        "out-of-bounds write of 8 bytes",
        (r": argument 0 \(y\), byte -8 of 256", "at {write_before_the_start}"),
        lambda: (np.zeros(32),),
    ),
    "write_to_const": Planted(
        r"write of 4 bytes to an argument that is const: argument 0 \(x\)",
        ("at {write_to_const}",),
        lambda: (floats(32),),
    ),
    "index_of_shared_array": Planted(
        r"out-of-bounds index 8 of an array of type 'int *\[8\]' at {index_of_shared_array}",
        (r"thread \(7, 0, 0\)",),
        lambda: (ints(8), np.int32(1)),
        block=8,
    ),
    "pointer_past_shared_array": Planted(
        "out-of-bounds read of bytes that belong to no array",
        ("at {pointer_past_shared_array}",),
        lambda: (ints(5), np.int32(1)),
        block=5,
    ),
    "past_dynamic_shared": Planted(
        "out-of-bounds write of 4 bytes, the launch gave 100 bytes: dynamic shared memory",
        ("byte 100 at {past_dynamic_shared}", r"thread \(25, 0, 0\)"),
        shared_mem=100,
    ),
    "between_rows": Planted(
        "out-of-bounds read of bytes that belong to no array",
        (
            r": argument 0 \(x\), byte 24 of 96 \(shape \(4, 6\), float32\) at {between_rows}",
            r"thread \(6, 0, 0\)",
        ),
        lambda: (floats(4, 10)[:, :6], floats(7), np.int32(4), np.int32(10)),
        block=7,
    ),
    "address_of_another_thread": Planted(
        "read of another thread's local memory at {address_of_another_thread}", ()
    ),
    "wild_pointer": Planted(
        "out-of-bounds read of 4 bytes: address 0x1000, near no argument at {wild_pointer}", ()
    ),
    "misaligned_argument": Planted(
        "misaligned access: .*float4.* at {misaligned_argument}",
        (r": argument 0 \(x\), element \[1\], byte 4",),
        lambda: (floats(64), floats(32), np.int32(1)),
    ),
    "misaligned_shared": Planted(
        "misaligned access: .*float2.* at {misaligned_shared}",
        (": shared array box, byte 4 of 256",),
        lambda: (floats(32), np.int32(1)),
    ),
    "different_barriers": Planted(
        r"divergent barrier: other threads wait in __syncthreads\(\)",
        ("at {different_barriers_other}, this one at {different_barriers}",),
        lambda: (),
        block=64,
    ),
    "barrier_after_exit": Planted(
        r"divergent barrier: __syncthreads\(\) at {barrier_after_exit} is reached by 40 threads, "
        "the other 24 have exited",
        (),
        lambda: (np.int32(40),),
        block=64,
    ),
    "barrier_counts_differ": Planted(
        "barrier 1 is used with (64|96) threads here and with (64|96) at|"
        "deadlock: 32 threads at the barrier",
        ("at {barrier_counts_differ_other} at {barrier_counts_differ}",),
        lambda: (),
        block=128,
    ),
    "barrier_never_completed": Planted(
        "deadlock: 32 threads at the barrier at {barrier_never_completed}, 32 threads exited",
        (),
        lambda: (),
        block=64,
    ),
    "shuffle_outside_the_mask": Planted(
        "shuffle: lane 8 reads lane 16, which is not in the mask 0000ffff "
        "at {shuffle_outside_the_mask}",
        (),
    ),
    "mask_without_the_caller": Planted(
        "lane .* calls a warp function with the mask 0000ffff, which does not name it "
        "at {mask_without_the_caller}",
        ("lane 16 calls",),
    ),
    "shuffle_after_exit": Planted(
        "mask ffffffff, but lane 16 has exited, at {shuffle_after_exit}|"
        "deadlock: 16 threads exited, 16 threads in the warp function at {shuffle_after_exit}",
        (),
    ),
    "collectives_in_two_branches": Planted(
        "deadlock: 16 threads in the warp function at {collectives_in_two_branches}", ()
    ),
    "copy_not_awaited": Planted(
        "read of memory whose asynchronous copy has not been waited for: shared array box",
        ("at {copy_not_awaited}; the earlier access is at {copy_not_awaited_copy}",),
        lambda: (floats(128), floats(32)),
    ),
    "copy_of_another_thread": Planted(
        "asynchronous copy has not been waited for|race: read is not ordered",
        ("at {copy_of_another_thread}",),
        lambda: (floats(128), floats(32)),
    ),
    "copy_past_the_end": Planted(
        r"out-of-bounds read of 16 bytes by an asynchronous copy: argument 0 \(x\), "
        r"element \[124\].* at {copy_past_the_end}.*thread \(31, 0, 0\)",
        (),
        lambda: (floats(126),),
    ),
    "misaligned_copy": Planted(
        "cp.async of 16 bytes: misaligned shared destination: shared array box",
        ("at {misaligned_copy}",),
        lambda: (floats(128),),
    ),
    "operands_without_a_fence": Planted(
        "wgmma reads what was written without fence.proxy.async: shared array tile, byte 0 of 2048 "
        "at {operands_without_a_fence}",
        (),
        lambda: (floats(128),),
        block=128,
    ),
    "arrivals_without_init": Planted(
        "arrival on an mbarrier that was not initialised: shared array ready, byte 0 of 8 "
        "at {arrivals_without_init}",
        (),
        lambda: (),
        block=1,
    ),
    "too_many_arrivals": Planted(
        "too many arrivals on an mbarrier: shared array ready, byte 0 of 8 at {too_many_arrivals}",
        (r"thread \(7, 0, 0\)",),
        lambda: (),
    ),
    "signed_overflow": Planted(
        r"signed overflow: 50000 \* 50000 in 'int' at {signed_overflow}",
        (),
        lambda: (ints(32), np.int32(50000)),
    ),
    "shift_too_far": Planted(
        r"shift of 1 \('int'\) by 32 at {shift_too_far}", (), lambda: (ints(32), np.int32(32))
    ),
    "division_by_zero": Planted(
        "integer division by zero: 100 / 0 in 'int' at {division_by_zero}",
        (),
        lambda: (ints(32), np.int32(0)),
    ),
    "failed_assertion": Planted(
        "assertion failed: threadIdx.x < n at {failed_assertion}",
        (r"thread \(7, 0, 0\)",),
        lambda: (np.int32(7),),
    ),
    "trap": Planted(r"__trap\(\) was called at {trap}", (r"thread \(3, 0, 0\)",), lambda: ()),
}

FILE = PlantedFile(PATH, PLANTED)


@pytest.mark.parametrize("policy", ["ascending", "descending", "random"])
@pytest.mark.parametrize("name", PLANTED)
def test_report(module: Module, name: str, policy: str) -> None:
    FILE.require_report(module, name, policy)


def test_every_planted_kernel_is_tested() -> None:
    assert FILE.names() == {
        *PLANTED,
        "endless_loop",
        "endless_loop_without_memory",
        "too_many_locals",
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["check", "fast"])
def test_endless_loops_time_out(mode: str) -> None:
    module = Module(PATH, mode=mode)
    for name, argument in (("endless_loop", ints(1)), ("endless_loop_without_memory", np.int32(1))):
        with pytest.raises(EmulatorError, match="not finished after 1 s"):
            module.get_function(name)((1,), (1,), (argument,), timeout=1)


def test_a_failure_leaves_the_module_usable(module: Module) -> None:
    """A launch that is abandoned half-way must not be seen by the next one."""
    good, x = module.get_function("write_after_read"), ints(64)
    for name in PLANTED:
        FILE.report(module, name)
        good((1,), (1,), (x,))


def test_workers_report_too(module: Module) -> None:
    text = FILE.report(module, "race_between_blocks", workers=2)
    assert "race: write is not ordered after the write" in text


def test_stack_overflow() -> None:
    kernel = Module(PATH, mode="fast").get_function("too_many_locals")
    with pytest.raises(EmulatorError, match=r"stack overflow|memory fault"):
        kernel((1,), (64,), (floats(64), np.int32(64)))


@pytest.mark.parametrize("name", ["read_past_the_end", "write_before_the_start"])
def test_guard_pages_and_canaries_catch_without_the_checker(name: str) -> None:
    text = FILE.report(Module(PATH, mode="fast"), name)
    assert re.search("memory fault|just outside of argument 0", text)


def test_a_failed_launch_leaves_arrays_alone(module: Module) -> None:
    y = floats(32)
    with pytest.raises(EmulatorError, match="uninitialised"):
        module.get_function("uninitialised_shared")((1,), (32,), (y,))
    assert not y.any()
