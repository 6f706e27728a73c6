"""The static model: loops and pipes in small listings, its arithmetic, and the committed tables."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from bench.model import __main__ as command
from bench.model import predict, sass, skinny, tables
from bench.model.devices import DEVICES
from bench.model.predict import PRECISIONS, Kernel, Span
from bench.model.sass import Instruction
from gpugrad.gpu import compiler

A100, RTX_4090, H200 = DEVICES
HIGHEST, HIGH, MEDIUM, BFLOAT16, FLOAT64, IEEE = PRECISIONS


def listing(text):
    """Read lines such as "loop: @P0 BRA loop": addresses are for the labels."""
    lines = [line.strip() for line in text.strip().split("\n")]
    labels = {}
    for number, line in enumerate(lines):
        if found := re.match(r"(\w+): (.*)", line):
            labels[found[1]] = number
            lines[number] = found[2]
    code = []
    for line in lines:
        predicate, opcode, operands = re.match(r"(@\S+)? ?(\S+) ?(.*)", line).groups()
        for label, number in labels.items():
            operands = re.sub(rf"\b{label}\b", hex(number * 16), operands)
        code.append(Instruction(opcode, operands, predicate or ""))
    return code


UNROLLED = """
    MOV R1, R2
    @P0 BRA end
    LDGSTS.E.BYPASS.128 [R1], [R2]
    HMMA.16816.F32 R0, R0, R0, R0
loop: BAR.SYNC 0x0
    @P1 BRA full
    LDGSTS.E.BYPASS.128 [R1], [R2]
full: LDSM.16.M88.4 R4, [R8]
    @!PT LDS RZ, [RZ]
    HMMA.16816.F32 R0, R0, R0, R0
    HMMA.16816.F32 R0, R0, R0, R0
    FFMA R1, R1, R1, R1
    BRA P2, loop
epilogue: FFMA R1, R1, R1, R1
    @!P0 BRA epilogue
end: EXIT
    BRA end
"""
NESTED = """
loop: BAR.SYNC 0x0
    @P1 BRA elements
    LDGSTS.E.BYPASS.128 [R1], [R2]
    LDGSTS.E.BYPASS.128 [R1+0x800], [R2]
    BRA multiply
elements: LDGSTS.E.64 [R1], [R2]
    IADD3 R1, R1, R1, RZ
    @P2 BRA elements
multiply: LDS.64 R4, [R8]
    DMMA.884 R0, R0, R0, R0
    DMMA.884 R0, R0, R0, R0
    UIADD3 UR1, UR1, UR1, URZ
    @P3 BRA multiply
    @P4 BRA loop
    EXIT
"""
BRANCHING = """
loop: ISETP.GE.AND P0, PT, R1, R2, PT
    @P0 BRA outside
    LDG.E.128 R4, [R2]
    @P1 BRA narrow
    STS.128 [R4], R4
    BRA join
narrow: STS [R4], R4
    STS [R4], R4
    STS [R4], R4
join: FFMA R1, R1, R1, R1
    BRA back
outside: IADD3 R1, R1, R1, RZ
back: @P2 BRA loop
    EXIT
"""


def test_loops_are_found():
    code = listing(UNROLLED)
    found = sass.loops(code)
    assert [(loop.head, loop.latch) for loop in found] == [(4, 12), (13, 14), (15, 16)]
    main, inner = sass.main_loop(code, "HMMA")
    assert (main.head, inner) == (4, None)
    assert main.body == frozenset(range(4, 13))
    assert sass.main_loop(code, "FFMA")[0].head == 4
    with pytest.raises(ValueError, match="no loop holds DMMA"):
        sass.main_loop(code, "DMMA")


def test_what_lies_behind_a_loop_belongs_to_it_if_it_comes_back():
    code = listing(BRANCHING)
    (loop,) = sass.loops(code)
    assert loop.body == frozenset(range(13))
    way = sass.way_round(code, loop, None, "FFMA")
    assert [code[number].opcode for number in way] == [
        *("ISETP.GE.AND", "BRA", "LDG.E.128", "BRA", "STS.128", "BRA", "FFMA", "BRA", "BRA")
    ]


def test_a_step_takes_full_tiles_and_counts_what_is_executed():
    code = listing(UNROLLED)
    step = sass.step(code, "HMMA", warps=8, tile=32, term_bytes=4, pairs=2)
    assert step.terms == 512 * 8 // (2 * 32 * 4)
    executed = "BAR.SYNC BRA LDGSTS.E.BYPASS.128 LDSM.16.M88.4 NOP HMMA.16816.F32 HMMA.16816.F32"
    assert step.counts == Counter([*executed.split(), "FFMA", "BRA"])
    assert step.instructions() == 9
    assert step.instructions("tensor") == step.multiplications == 2
    assert step.multiply_adds("HMMA") == 2 * 2048
    assert step.copied_bytes == 512
    assert step.wavefronts({}) == 4 + 4
    assert step.wavefronts({"LDSM.16.M88.4": 7}) == 7 + 4


def test_an_inner_loop_counts_as_often_as_its_products_are_needed():
    code = listing(NESTED)
    main, inner = sass.main_loop(code, "DMMA")
    assert (main.head, inner.head) == (0, 8)
    step = sass.step(code, "DMMA", warps=4, tile=16, term_bytes=8, pairs=1)
    assert step.terms == 16
    assert step.counts["DMMA.884"] == 2 * (16 * 16 * 16 // (4 * 2 * 256))
    assert step.counts["LDS.64"] == step.counts["UIADD3"] == 2
    assert step.counts["LDGSTS.E.64"] == 0
    assert step.counts["LDGSTS.E.BYPASS.128"] == 2


BLOCKS_THAT_STAY = """
tiles: MOV R1, R2
loop: SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2
    @!P0 BRA loop
    WARPGROUP.ARRIVE
    HGMMA.64x128x16.F32.BF16 R24, gdesc[UR16], RZ, !UPT
    HGMMA.64x128x16.F32.BF16 R24, gdesc[UR20], R24, gsb0
    FFMA R1, R1, R1, R1
    @P1 BRA loop
    STG.E.64 [R2], R4
    @P2 BRA tiles
    EXIT
"""


def test_a_step_whose_operands_the_copy_engine_brings():
    """The loop over tiles is not the main loop. Two blocks share the right operand."""
    code = listing(BLOCKS_THAT_STAY)
    shape = {"warps": 8, "tile": 128, "term_bytes": 2, "pairs": 1, "tile_rows": 128}
    step = sass.step(code, "HGMMA", **shape, bulk_terms=32, cluster=(2, 1))
    assert step.terms == 32
    assert step.instructions() == 7
    assert step.multiply_adds("HGMMA") * 8 == 128 * 128 * 32
    assert step.bulk_bytes * 8 == (128 + 128) * 32 * 2
    assert step.copied_bytes * 8 == (128 + 64) * 32 * 2
    read = 2 * (64 + 128) * 16 * 2  # of a warpgroup
    assert step.wavefronts({}) * 8 == pytest.approx((2 * read + (128 + 128) * 32 * 2) / 128)
    with pytest.raises(ValueError, match="multiplies 64 terms, not all"):
        sass.step(code, "HGMMA", **shape, bulk_terms=64)


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"tile": 48}, "copies 4096 bytes a block"), ({"pairs": 3}, "multiplies 16 terms, not all")],
)
def test_a_loop_that_does_not_fit_its_product_is_refused(changed, says):
    shape = {"warps": 8, "tile": 32, "term_bytes": 4, "pairs": 2} | changed
    with pytest.raises(ValueError, match=says):
        sass.step(listing(UNROLLED), "HMMA", **shape)


@pytest.mark.parametrize(
    ("opcode", "pipe", "size"),
    [
        ("HMMA.16816.F32.BF16", "tensor", None),
        ("HFMA2.BF16_V2", "integer", None),
        ("IMAD.WIDE.U32", "float32", None),
        ("LDSM.16.MT88.4", "shared", 16),
        ("LDSM.16.M88", "shared", 4),
        ("LDS", "shared", 4),
        ("LDS.U.128", "shared", 16),
        ("STS.64", "shared", 8),
        ("LDG.E.U16.CONSTANT", "global", 2),
        ("LDGSTS.E.BYPASS.128.ZFILL", "global", 16),
        ("UIADD3.X", "uniform", None),
        ("S2UR", "uniform", None),
        ("ULDC.64", "uniform", None),
        ("S2R", "special", None),
        ("BSYNC", "control", None),
        ("LOP3.LUT", "integer", None),
    ],
)
def test_pipes(opcode, pipe, size):
    one = Instruction(opcode)
    assert one.pipe == pipe
    assert size is None or one.bytes == size


def test_branches():
    branch = Instruction("BRA", "P2,0x40")
    assert (branch.target, branch.falls_through) == (4, True)
    assert not Instruction("BRA", "0x40").falls_through
    assert Instruction("BRA", "0x40", "@!P0").falls_through
    assert not Instruction("EXIT").falls_through
    assert Instruction("EXIT", predicate="@P0").falls_through
    assert Instruction("CALL.REL.NOINC", "0x40").target is None


ROWS_OF_A_LAYER = """
    MOV R1, R2
outer: LDG.E.128 R4, [R2]
dx: LDS.128 R4, [R8]
    FFMA R0, R0, R0, R0
    FFMA R0, R0, R0, R0
    @P0 BRA dx
dw: LDS.128 R4, [R8]
    FFMA R0, R0, R0, R0
    @P0 BRA dw
out: LDS.128 R4, [R8]
    STG.E.64 [R2], R4
    @P0 BRA out
    STS.128 [R4], R4
    BAR.SYNC 0x0
    @P1 BRA outer
    EXIT
"""


def test_a_turn_of_a_layer_has_its_products_as_often_as_they_are_needed():
    counts = skinny.turn(listing(ROWS_OF_A_LAYER), "FFMA", 8, 3)
    assert counts["FFMA"] == 16
    assert counts["LDS.128"] == 4 + 8 + 3
    assert (counts["STG.E.64"], counts["LDG.E.128"], counts["STS.128"]) == (3, 1, 1)
    with pytest.raises(ValueError, match="an inner loop has 2 of 9 FFMA"):
        skinny.turn(listing(ROWS_OF_A_LAYER), "FFMA", 9, 3)
    without_dw = ROWS_OF_A_LAYER.replace("dw: LDS.128 R4, [R8]\n    FFMA", "dw: NOP\n    FADD")
    with pytest.raises(ValueError, match="a turn lacks 8 of 16 FFMA"):
        skinny.turn(listing(without_dw), "FFMA", 8, 3)


# ---- arithmetic


MULTIPLYING = {"HMMA.16816.F32": 64, "FFMA": 64, "IADD3": 100}
STEP = sass.Step(Counter(MULTIPLYING | {"LDSM.16.M88.4": 24, "LDGSTS.E.BYPASS.128": 8}), 64)


@pytest.mark.parametrize(
    ("registers", "shared_kb", "blocks"),
    [(255, 96, (1, 1, 1)), (128, 96, (1, 1, 2)), (120, 48, (2, 2, 2)), (32, 1, (8, 6, 8))],
)
def test_occupancy(registers, shared_kb, blocks):
    kernel = Kernel(registers, shared_kb << 10, STEP)
    assert tuple(predict.resident_blocks(kernel, device) for device in DEVICES) == blocks


def test_cycles_of_a_step():
    """Two of the eight warps lie in each partition."""
    found = predict.step_by_pipe(STEP, MEDIUM, A100)
    assert found["tensor"] == 2 * 64 * 8
    assert found["float32"] == 2 * 64 * 2
    assert found["integer"] == 2 * 100 * 2
    assert found["issue"] == 2 * 260
    assert found["shared"] == 8 * (24 + 8) * 4
    assert found["L2"] == pytest.approx(32768 / (4.8e12 / 108 / 1.41e9))
    on_ada = predict.step_by_pipe(STEP, MEDIUM, RTX_4090)
    assert (on_ada["tensor"], on_ada["float32"]) == (2 * 64 * 32, 2 * 64)
    assert predict.step_by_pipe(STEP, MEDIUM, H200)["tensor"] == pytest.approx(1024 * 1024 / 1290)


def test_what_the_other_warps_do_not_cover_is_added_at_worst():
    by_pipe = {"tensor": 100.0, "float32": 40.0, "shared": 20.0, "issue": 90.0, "L2": 30.0}
    assert predict.step_cycles(by_pipe, 1) == Span(100, 130)
    assert predict.step_cycles(by_pipe, 2) == Span(100, 115)
    assert predict.step_cycles(by_pipe | {"L2": 200.0}, 1) == Span(200, 230)


@pytest.mark.slow
def test_what_clusters_spare_the_cache():
    """Without them it would bind, at these shares of the peak: as docs/performance.md has it."""
    for precision, tile, share in ((HIGHEST, 128, 0.86), (HIGH, 192, 0.77), (MEDIUM, 256, 0.57)):
        own = precision.on(H200)
        compiled = predict.kernel(own, "dx", tile, H200.arch)
        alone = replace(compiled.step, own_bytes=compiled.step.bulk_bytes)
        by_pipe = predict.step_by_pipe(alone, own, H200)
        assert max(by_pipe, key=by_pipe.get) == "L2"
        assert by_pipe["tensor"] / by_pipe["L2"] == pytest.approx(share, abs=0.005)
        shared = predict.step_by_pipe(compiled.step, own, H200)
        busiest = max(shared["tensor"], shared["shared"])
        if tile < 256:
            assert shared["L2"] < busiest
        else:
            assert busiest / shared["L2"] == pytest.approx(0.86, abs=0.005)


def test_data_sheets():
    """Rates and clocks give the peaks, in TFLOP/s, that the makers state."""
    stated = {"A100": (312, 19.5, 19.5), "RTX 4090": (165.2, 82.6, 1.29), "H200": (989, 67, 67)}
    for device in DEVICES:
        for precision, peak in zip((BFLOAT16, IEEE, FLOAT64), stated[device.name], strict=True):
            own = precision.on(device)
            rate = predict.flops_limit(own.peak_rate(device), own, device)
            assert rate / 1e12 == pytest.approx(peak, rel=0.01)
    products = replace(BFLOAT16, planes=3).pairs, HIGH.pairs, MEDIUM.pairs, FLOAT64.pairs
    assert products == (6, 3, 1, 1)


def test_memory_of_a_product():
    plan = predict.plan_of(HIGHEST, "dw")
    assert (plan.rows, plan.columns, plan.contraction) == (4096, 4096, 8192)
    assert plan.configuration.BLOCK_N == 128
    least = 2 * 4096 * 8192 * 6 + 4096 * 4096 * 4
    assert least < predict.memory_bytes(plan, HIGHEST, H200, 1) < 10 * least
    alone = replace(plan, rows=128, columns=128)
    assert predict.memory_bytes(alone, HIGHEST, H200, 1) == 2 * 128 * 8192 * 6 + 128 * 128 * 4


@pytest.mark.parametrize(
    ("best", "worst", "limit", "peak", "says"),
    [
        (3.0, 2.0, 4.0, 4.0, "yes"),
        (3.0, 1.9, 4.0, 4.0, "if pipes overlap"),
        (1.9, 1.0, 1.995, 4.0, "not as it is"),
        (1.9, 1.0, 1.95, 4.0, "not by this instruction"),
        (1.9, 1.0, 1.95, 1.95, "more than the peak"),
    ],
)
def test_verdicts(best, worst, limit, peak, says):
    assert tables.verdict(2.0, Span(best, worst), limit, peak) == says


def test_spans():
    assert tables.span(Span(3.456, 2.0)) == "2.00–3.46"
    assert tables.span(Span(0.6349, 0.4), "%") == "40–63 %"
    assert tables.span(Span(1e-3, 1e-3), "ms") == "1.00 ms"
    assert tables.span(Span(96, 60.84)) == "60.8–96.0"


# ---- the tables in docs/performance.md

COMMITTED = tables.committed(tables.DOCUMENT.read_text("utf-8"))
ROWS = [tuple(line[2:-2].split(" | ")) for line in COMMITTED.split("\n") if line.startswith("| ")]


def test_the_tables_have_every_device_and_precision():
    named = [row[:2] for row in ROWS if row[0] in {device.name for device in DEVICES}]
    expected = [(device.name, one.name) for device in DEVICES for one in PRECISIONS]
    fused_path = [
        (device.name, one.name)
        for device in DEVICES
        for one in skinny.PRECISIONS
        for side in skinny.SIDES
        if skinny.fits(one, side, device)
    ]
    loops = [pair for pair in expected for _ in tables.PRODUCTS]
    assert named == expected + loops + fused_path


def shown(rows, header):
    """Return rows with the columns that the committed table has."""
    (columns,) = [row for row in ROWS if row[:2] == header[:2] and row[2] == header[2]]
    return [tuple(row[header.index(name)] for name in columns) for row in rows]


@pytest.mark.slow
def test_the_tables_are_fresh():
    """Some rows, computed anew; of another compiler's machine code no more than that they can."""
    loops = [
        tables.loop_row(HIGHEST.on(H200), "dx", 128, H200),
        tables.loop_row(HIGH, "dw", 128, A100),
        tables.loop_row(FLOAT64, "dx", 128, H200),
        tables.loop_row(FLOAT64.on(RTX_4090), "dw", 64, RTX_4090),
    ]
    layers = [tables.layer_row(one.on(H200), H200) for one in (HIGHEST, HIGH, FLOAT64)]
    fused = [tables.skinny_row(one, 64, H200) for one in skinny.PRECISIONS]
    if f"by {compiler.version()}." in COMMITTED:
        stale = "python -m bench.model --update"
        assert set(shown(loops, tables.LOOPS)) <= set(ROWS), stale
        assert set(shown(layers, tables.LAYERS)) <= set(ROWS), stale
        assert set(shown(fused, tables.SKINNY)) <= set(ROWS), stale


def test_the_command_writes_between_the_markers(tmp_path, monkeypatch, capsys):
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n", "utf-8")
    monkeypatch.setattr(tables, "DOCUMENT", document)
    width = len(tables.LAYERS), len(tables.LOOPS) - 2
    monkeypatch.setattr(tables, "layers", lambda: [("a",) * width[0]])
    monkeypatch.setattr(tables, "skinny_layers", lambda: [("c",) * len(tables.SKINNY)])
    monkeypatch.setattr(tables, "loops", lambda tiles=(): [("", str(tiles), *"b" * width[1])])
    assert command.main(["--update"]) == 0
    text = document.read_text("utf-8")
    assert text.startswith(f"before\n{tables.BEGIN}\nPredicted, not measured; from machine code")
    assert "| b |\n\n| device | dtype |" in text
    assert text.endswith(f"| c |\n{tables.END}\nafter\n")
    assert command.main([]) == 0
    assert capsys.readouterr().out == tables.committed(text) + "\n"
    assert command.main(["--tile", "64"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("| precision | product |")  # without a column that is empty
    assert "| (64,) | b |" in printed
    with pytest.raises(ValueError, match="no place"):
        tables.placed("nothing", "text")
