"""The main loop of a kernel's machine code, and its instructions by pipe."""

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.kernels import machine_code

WARP = 32

# By the opcode's name; what is not here is integer arithmetic, logic, or a move of registers.
PIPES = {
    **dict.fromkeys(("HMMA", "HGMMA", "DMMA"), "tensor"),
    **dict.fromkeys(("FFMA", "FMUL", "FADD", "IMAD"), "float32"),  # integer multiply-adds too
    **dict.fromkeys(("DFMA", "DMUL", "DADD"), "float64"),
    **dict.fromkeys(("LDS", "LDSM", "STS", "STSM"), "shared"),
    **dict.fromkeys(("LDGSTS", "LDG", "STG"), "global"),
    **dict.fromkeys(("MUFU", "I2F", "F2I", "F2F", "POPC", "S2R"), "special"),
    **dict.fromkeys(
        (
            *("BAR", "BRA", "BSSY", "BSYNC", "BREAK", "CALL", "DEPBAR", "EXIT", "LDGDEPBAR", "NOP"),
            *("SYNCS", "WARPGROUP", "WARPSYNC"),
        ),
        "control",
    ),
}
MULTIPLY_ADDS = {  # of a whole warp
    "HMMA.16816": 16 * 8 * 16,
    **{f"HGMMA.64x{n}x16": 64 * n * 16 // 4 for n in (64, 128, 192, 256)},
    "DMMA.16x8x16": 16 * 8 * 16,
    "DMMA.884": 8 * 8 * 4,
    "FFMA": WARP,
    "DFMA": WARP,
}


class Instruction(NamedTuple):
    """One line of a disassembly."""

    opcode: str
    operands: str = ""
    predicate: str = ""

    @property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def pipe(self) -> str:
        """What executes it; the uniform datapath where a whole warp has one operand."""
        if re.match(r"U[A-Z]|R2UR|S2UR", self.name):
            return "uniform"
        return PIPES.get(self.name, "integer")

    @property
    def bytes(self) -> int:
        """Of each lane, where it accesses memory."""
        if self.name == "LDSM":
            matrices = self.opcode.rpartition(".")[2]  # of 8 × 8 elements of 2 bytes
            return 4 * int(matrices) if matrices.isdigit() else 4
        found = re.search(r"\.(U8|S8|U16|S16|64|128)\b", self.opcode)
        sizes = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
        return sizes[found[1]] if found else 4

    @property
    def target(self) -> int | None:
        """Where a branch goes, as the number of an instruction."""
        if self.name != "BRA":
            return None
        return int(self.operands.rpartition("0x")[2], 16) // machine_code.INSTRUCTION_BYTES

    @property
    def falls_through(self) -> bool:
        """Whether the next instruction can follow."""
        if self.name in ("EXIT", "RET", "BRX"):
            return bool(self.predicate)
        return self.name != "BRA" or bool(self.predicate) or not self.operands.startswith("0x")


def listing(code: bytes, arch: str) -> list[Instruction]:
    """Disassemble a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.bin")
        file.write_bytes(code)
        command = [str(machine_code.nvdisasm()), "-b", arch.replace("sm_", "SM"), "-ndf", "-json"]
        run = subprocess.run([*command, file], capture_output=True, text=True, check=True)
    _, functions = json.loads(run.stdout)
    return [
        Instruction(one["opcode"], one.get("operands", ""), one.get("predicate", ""))
        for function in functions
        for one in function["sass-instructions"]
    ]


# ---- loops


@dataclass(frozen=True)
class Loop:
    """A natural loop: the instructions, by number, that can come between two of its heads."""

    head: int
    latch: int  # its branch back
    body: frozenset[int]


def loops(code: Sequence[Instruction]) -> list[Loop]:
    """Find the loops of a listing, from its branches back."""
    before: dict[int, list[int]] = {number: [] for number in range(len(code))}
    for number in before:
        for after in _successors(code, number):
            before[after].append(number)
    found = []
    for latch, one in enumerate(code):
        head = one.target
        if head is None or head > latch:
            continue
        body, rest = {head}, [latch]
        while rest:
            number = rest.pop()
            if number not in body:
                body.add(number)
                rest += before[number]
        found.append(Loop(head, latch, frozenset(body)))
    return found


def _successors(code: Sequence[Instruction], number: int) -> list[int]:
    one = code[number]
    found = [number + 1] if one.falls_through and number + 1 < len(code) else []
    return found if one.target is None else [*found, one.target]


def main_loop(
    code: Sequence[Instruction], multiply: str, *, blocks_stay: bool = False
) -> tuple[Loop, Loop | None]:
    """Find the loop over the contraction, and the loop inside it if its steps are not unrolled.

    Parameters
    ----------
    code : sequence of Instruction
    multiply : str
        Name of the instruction that multiplies, such as "HMMA".
    blocks_stay : bool
        Whether the outermost loop is over tiles.

    Returns
    -------
    tuple
        The loop with the most of these, the outermost of several, or the innermost where blocks
        stay; and the innermost with any.
    """

    def count(loop: Loop) -> int:
        return sum(code[number].name == multiply for number in loop.body)

    holding = [loop for loop in loops(code) if count(loop)]
    if not holding:
        raise ValueError(f"no loop holds {multiply}")
    sign = -1 if blocks_stay else 1
    main = max(holding, key=lambda loop: (count(loop), sign * len(loop.body)))
    inner = min(
        (loop for loop in holding if loop.body < main.body),
        key=lambda loop: len(loop.body),
        default=None,
    )
    return main, inner


def way_round(
    code: Sequence[Instruction], main: Loop, inner: Loop | None, multiply: str
) -> list[int]:
    """Choose one way round a loop: what full tiles of aligned operands take.

    Of all ways from the head to the branch back, with every branch back of another loop left out,
    it is the one with the most multiplications, then with the fewest instructions of loops that
    have none (which copy single elements), with the most accesses of 16 bytes that leave global
    memory or enter shared memory, and with the fewest instructions.
    """
    multiplying = [main] if inner is None else [main, inner]
    aside = [one for one in loops(code) if one.body < main.body and one not in multiplying]
    in_aside = frozenset().union(*(loop.body for loop in aside))

    def worth(number: int) -> tuple[int, int, int, int]:
        one = code[number]
        wide = one.name in ("LDG", "LDGSTS", "STS") and one.bytes == 16
        return int(one.name == multiply), -(number in in_aside), int(wide), -1

    best: dict[int, tuple[tuple[int, ...], int | None]] = {main.head: (worth(main.head), None)}
    for number in sorted(main.body):
        if number not in best:
            continue
        for after in _successors(code, number):
            if after <= number or after not in main.body:
                continue
            value = tuple(map(sum, zip(best[number][0], worth(after), strict=True)))
            if after not in best or value > best[after][0]:
                best[after] = value, number
    way: list[int] = []
    at: int | None = main.latch
    while at is not None:
        way.append(at)
        at = best[at][1]
    return way[::-1]


# ---- what one step of the main loop executes


@dataclass(frozen=True)
class Step:
    """What one warp executes in one turn of the main loop.

    Attributes
    ----------
    counts : Counter
        Of instructions, by opcode.
    terms : int
        Of the contraction, in a turn.
    bulk_bytes, own_bytes : float
        Its share of what TMA brings to its block for a turn, and of what the block's own
        one brings, in a cluster to others too.
    """

    counts: Counter[str]
    terms: int
    bulk_bytes: float = 0
    own_bytes: float = 0

    def instructions(self, pipe: str = "") -> int:
        """Count those of a pipe, or all."""
        return sum(
            times for opcode, times in self.counts.items() if pipe in ("", Instruction(opcode).pipe)
        )

    @property
    def multiplications(self) -> int:
        """Count the instructions that multiply: those of tensor cores, where there are any."""
        return self.instructions("tensor") or sum(self.counts[one] for one in ("FFMA", "DFMA"))

    def multiply_adds(self, multiply: str) -> int:
        """Count the multiply-adds of a warp in the instructions of that name."""
        return _multiplied(self.counts, multiply)

    @property
    def copied_bytes(self) -> float:
        """Bytes that a warp brings from global memory."""
        return _copied(self.counts) + self.own_bytes

    def wavefronts(self, of_opcode: Mapping[str, float]) -> float:
        """Count wavefronts of shared memory, of 128 bytes but for the opcodes that are given.

        TMA's writes are among them, and the operands that wgmma reads.
        """
        total = (self.bulk_bytes + _operand_bytes(self.counts)) / 128
        for opcode, times in self.counts.items():
            one = Instruction(opcode)
            if one.pipe == "shared" or one.name == "LDGSTS":
                total += times * of_opcode.get(opcode, max(1, one.bytes * WARP / 128))
        return total


def _copied(counts: Mapping[str, int]) -> int:
    kinds = {opcode: Instruction(opcode) for opcode in counts}
    return WARP * sum(
        times * kinds[opcode].bytes
        for opcode, times in counts.items()
        if kinds[opcode].name in ("LDG", "LDGSTS")
    )


def step(
    code: Sequence[Instruction],
    multiply: str,
    *,
    warps: int,
    tile: int,
    term_bytes: int,
    pairs: int,
    tile_rows: int = 0,
    bulk_terms: int = 0,
    cluster: tuple[int, int] = (1, 1),
) -> Step:
    """Count what a warp executes in one turn of the main loop.

    How many terms of the contraction a turn takes follows from the bytes that it copies, how often
    an inner loop runs from the multiplications that these terms need.

    Parameters
    ----------
    code : sequence of Instruction
    multiply : str
        Name of the instruction that multiplies.
    warps : int
        Of a block.
    tile : int
        Columns of a block's results, and their rows.
    term_bytes : int
        Of one element of each operand, with all its planes.
    pairs : int
        Products of planes.
    tile_rows : int, optional
        Rows of a block's results, where they are others.
    bulk_terms : int, optional
        Terms of a turn, where TMA brings them and other warps ask for it.
    cluster : tuple of int
        Blocks down and across that bring a part each of what they share.
    """
    tile_rows = tile_rows or tile
    main, inner = main_loop(code, multiply, blocks_stay=bulk_terms > 0)
    way = way_round(code, main, inner, multiply)
    repeated = frozenset() if inner is None else inner.body
    once = Counter(_counted(code[number]) for number in way if number not in repeated)
    again = Counter(_counted(code[number]) for number in way if number in repeated)
    terms, left = divmod(_copied(once) * warps, (tile_rows + tile) * term_bytes)
    terms = bulk_terms or terms
    if left or not terms:
        raise ValueError(f"a turn of the main loop copies {_copied(once) * warps} bytes a block")
    needed = tile_rows * tile * terms * pairs - warps * _multiplied(once, multiply)
    times, left = divmod(needed, warps * _multiplied(again, multiply)) if again else (0, needed)
    if left:
        raise ValueError(f"a turn of the main loop multiplies {terms} terms, not all or too many")
    counts = once + Counter({one: times * n for one, n in again.items()})
    bulk = bulk_terms * term_bytes / warps
    down, across = cluster
    own = (tile_rows / across + tile / down) * bulk
    return Step(counts, terms, (tile_rows + tile) * bulk, own)


def _operand_bytes(counts: Mapping[str, int]) -> float:
    """Count what a warp's share of wgmma reads of shared memory: both operands, of 16-bit terms."""
    total = 0.0
    for opcode, times in counts.items():
        if found := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", opcode):
            rows, columns, terms = map(int, found.groups())
            total += times * (rows + columns) * terms * 2 / 4
    return total


def _counted(one: Instruction) -> str:
    """Return the opcode; what is never executed, such as @!PT LDS, takes its turn to issue only."""
    return "NOP" if one.predicate == "@!PT" else one.opcode


def _multiplied(counts: Mapping[str, int], multiply: str) -> int:
    return sum(
        times * number
        for opcode, times in counts.items()
        for name, number in MULTIPLY_ADDS.items()
        if opcode.startswith(name) and name.partition(".")[0] == multiply
    )
