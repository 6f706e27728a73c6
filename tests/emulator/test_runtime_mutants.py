"""Mistakes planted into the runtime itself: the tests of what it does must see each of them."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, build, test_boxes, test_wgmma_layouts
from tests.emulator.subjects.cases import FOLDER
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
        "register_pools.cpp", "more > free_registers", "false", planted("too_many_registers")
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
}


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Mutant], None]:
    """Makes modules take a mutated runtime, compiled quickly, while a test runs."""
    build.precompiled_header("check")  # from the usual cache

    def plant(mutant: Mutant) -> None:
        runtime = tmp_path / "runtime"
        shutil.copytree(build.RUNTIME, runtime)
        (tmp_path / "device").symlink_to(build.DEVICE)
        path = runtime / mutant.file
        text = path.read_text(encoding="utf-8")
        assert text.count(mutant.old) == 1, f"{mutant.old} is not once in {mutant.file}"
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        monkeypatch.setattr(build, "RUNTIME", runtime)
        monkeypatch.setattr(build, "RUNTIME_FLAGS", (*build.LANGUAGE, "-O1"))
        monkeypatch.setattr(build, "runtime_object", build.runtime_object.__wrapped__)
        monkeypatch.setenv("GPUGRAD_EMULATOR_CACHE", str(tmp_path / "cache"))

    return plant


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, mutate: Callable[[Mutant], None]) -> None:
    mutant = MUTANTS[name]
    mutate(mutant)
    with pytest.raises((AssertionError, EmulatorError, pytest.fail.Exception)) as caught:
        mutant.check()
    assert not re.search("compilation failed|memory fault", str(caught.value))


def test_without_a_mutant_the_checks_pass(mutate: Callable[[Mutant], None]) -> None:
    mutate(Mutant("mbarriers.cpp", "namespace emulator {", "namespace emulator {\n", lambda: None))
    for check in {mutant.check for mutant in MUTANTS.values()}:
        check()
