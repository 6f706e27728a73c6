"""Compile every kernel for every architecture; compare what it takes with a committed table.

    python -m tests.kernels.compile_gate [--update] [--arch sm_90 ...]

NVRTC compiles every instantiation of instantiations.py; no GPU and no driver are needed. The
assembler's report gives registers and memory, the disassembly the instructions. compile_gate.tsv
holds a row for each kernel, instantiation and architecture; it names of an instantiation's macros
those that tell it from the others of its file.

Fails always on a spill, a stack, local memory, a memory barrier, a loop over the threads of a warp
(around an instruction for one thread), more registers than the launch bound leaves, a remark of the
assembler on wgmma or setmaxnreg, and fewer instructions than expected_sass.py derives from the
contract at the head of the kernel's file. Fails where the table was made by the same compiler on a
row that is missing or new, more shared memory, more than REGISTER_SLACK registers more, and fewer
vector accesses or tensor-core instructions.
Every other difference from the table is reported and fails nothing.

The command compiles for every architecture. For one that has the code of another (SAME_CODE_AS) the
test suite compiles one instantiation of each kernel file, which must be the other's code byte by
byte, and takes the other's rows for the rest. For one whose rows differ from another's in little
but registers (SIMILAR_TO) it compiles one instantiation of each file, those that differ in more,
and those with few registers left: the rest spills there only if it grows by SPARE_REGISTERS.
"""

import argparse
import importlib
import json
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from gpugrad.errors import KernelCompileError
from gpugrad.gpu import compiler, source
from gpugrad.planning.instantiations import BY_LABEL, INSTANTIATIONS, Instantiation, exists_for
from tests.emulator import cache
from tests.kernels import machine_code
from tests.kernels.expected_sass import Counts, Subject, promised, register_limit

TABLE = Path(__file__).with_suffix(".tsv")

ARCHITECTURES = (
    "sm_75",
    "sm_80",
    "sm_86",
    "sm_89",
    "sm_90",
    "sm_90a",
    "sm_100",
    "sm_103",
    "sm_120",
)

SAME_CODE_AS = {"sm_89": "sm_86"}  # instruction by instruction, as test_compile.py samples
SIMILAR_TO = {  # as test_compile.py reads in the table
    **dict.fromkeys(("sm_75", "sm_80", "sm_86"), "sm_90"),
    **dict.fromkeys(("sm_103", "sm_120"), "sm_100"),
}
SPARE_REGISTERS = 24  # registers: an architecture takes fewer more than the one it is similar to
REGISTER_SLACK = 4  # what rescheduling may add

VECTOR_ACCESSES = (
    "load_128",
    "load_64",
    "store_128",
    "store_64",
    "shared_load_128",
    "shared_store_128",
)
KINDS = (*VECTOR_ACCESSES, "bulk_copy", "ffma", "dfma", "tensor", "barrier", "set_registers")
COLUMNS = ("registers", "shared_bytes", *KINDS)
COMPLAINT = re.compile(r"\(C\d{4}\) [^\n]*")  # such as that products are serialised
ZERO = {
    "stack": "bytes of stack",
    "spilled": "bytes spilled",
    "local": "local memory accesses",
    "memory_barrier": "memory barriers",
    "thread_loop": "loops over the threads of a warp",
}

Rows = dict[Subject, Counts]


class Measured(NamedTuple):
    rows: Rows
    rejected: list[str]  # what did not compile


class Table(NamedTuple):
    compiler: str
    rows: Rows


class Comparison(NamedTuple):
    differences: list[str]  # lines of a table for the reader, all of them
    failures: list[str]  # one sentence each


# Measuring.


def measure(
    arch: str, instantiations: Sequence[Instantiation] = INSTANTIATIONS, *, text: str = ""
) -> Measured:
    """Compile instantiations for an architecture, and count; `text` replaces the kernel files.

    What has been counted before, in a file that is named by all that decides it, is not compiled.
    """
    importlib.import_module("cuda.core")  # not from several threads at once, the first time
    machine_code.nvdisasm()  # if it is missing, say so before minutes of compiling

    def compiled(one: Instantiation) -> dict[Subject, tuple[Counts, bytes]] | str:
        try:
            cubin, log = compiler.compile_kernel(one.stem, one.macros, arch, text=text)
        except KernelCompileError as error:
            return str(error)
        if complaint := COMPLAINT.search(log):
            return f"{one.stem} [{one.label}] {arch}: {complaint[0]}"
        codes, usage = machine_code.kernels(cubin), read_log(log)
        if codes.keys() != usage.keys():
            return f"{one.stem} [{one.label}] {arch}: the assembler's report has other kernels"
        return {
            Subject(one.stem, one.label, kernel, arch): (usage[kernel], codes[kernel])
            for kernel in codes
        }

    files = {
        one: counts_file(one, arch, text) for one in instantiations if exists_for(one.stem, arch)
    }
    kept = {one: counts for one, file in files.items() if (counts := read_counts(file))}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NVRTC does not hold the GIL
        results = list(pool.map(compiled, [one for one in files if one not in kept]))
    rejected = [one for one in results if isinstance(one, str)]
    found = {key: of for one in results if not isinstance(one, str) for key, of in one.items()}
    codes = list({code for _, code in found.values()})  # some instantiations share a kernel's
    listings = machine_code.disassemble(codes, arch) if codes else []
    counts = dict(zip(codes, map(count, listings), strict=True))
    rows = {key: usage | counts[code] for key, (usage, code) in found.items()}
    for one, file in files.items():
        name = one.stem, one.label
        if one in kept:
            rows |= {Subject(*name, kernel, arch): of for kernel, of in kept[one].items()}
        elif of := {row.kernel: rows[row] for row in rows if row[:2] == name}:
            keep_counts(file, of)
    return Measured(rows, rejected)


def tightest(table: Table, arch: str) -> list[Instantiation]:
    """Return, of each kernel file, the instantiation with the fewest registers left in a table."""
    left = registers_left(table, arch)
    first = {one.stem: one for one in sorted(left, key=left.__getitem__, reverse=True)}
    return list(first.values())


def sample(table: Table, arch: str) -> list[Instantiation]:
    """Return the instantiations that speak for all on an architecture similar to another."""
    left = registers_left(table, arch)
    chosen = {one for one in left if left[one] < SPARE_REGISTERS}.union(tightest(table, arch))
    for subject, counts in table.rows.items():
        if subject.arch == arch:
            other = table.rows[subject._replace(arch=SIMILAR_TO[arch])]
            if any(counts[column] != other[column] for column in COLUMNS[1:]):
                chosen.add(BY_LABEL[subject[:2]])
    return [one for one in INSTANTIATIONS if one in chosen]


def registers_left(table: Table, arch: str) -> dict[Instantiation, int]:
    """Return what launch bounds leave, by the kernel of each instantiation that has fewest left."""
    left: dict[Instantiation, int] = {}
    for subject, counts in table.rows.items():
        if subject.arch == arch and (one := BY_LABEL.get(subject[:2])):
            free = register_limit(subject) - counts["registers"]
            left[one] = min(free, left.get(one, free))
    return left


def counts_file(one: Instantiation, arch: str, text: str = "") -> Path:
    """Return where the counts of an instantiation's kernels are kept, by name."""
    rules = [Path(module).read_bytes() for module in (__file__, machine_code.__file__)]
    disassembler = metadata.version("nvidia-cuda-nvdisasm")
    key = cache.key(
        text or source.expand(one.stem),
        " ".join(one.macros),
        compiler.fingerprint(),
        disassembler,
        *rules,
    )
    return cache.folder() / f"{one.stem}-{arch}-{key}.json"


def read_counts(file: Path) -> dict[str, Counts] | None:
    """Read what is kept; None where there is nothing, or anything else than was written."""
    try:
        text, _, digest = file.read_text("utf-8").rpartition("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return json.loads(text) if digest == cache.key(text) else None


def keep_counts(file: Path, counts: dict[str, Counts]) -> None:
    """Keep the counts of an instantiation's kernels, whole or not at all."""
    text = json.dumps(counts)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as aside:
        aside.write(f"{text}\n{cache.key(text)}")
    Path(aside.name).replace(file)


def read_log(log: str) -> dict[str, Counts]:
    """Read the registers and the memory of each kernel in a report of ptxas -v."""
    pieces = re.split(r"Compiling entry function '(\w+)' for", log)
    found = {}
    for kernel, report in zip(pieces[1::2], pieces[2::2], strict=True):
        memory = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report
        )
        registers = re.search(r"Used (\d+) registers", report)
        if not memory or not registers:
            raise ValueError(f"the assembler's report of {kernel} is of a new form:\n{report}")
        shared = re.search(r"(\d+) bytes smem", report)
        found[kernel] = {
            "registers": int(registers[1]),
            "shared_bytes": int(shared[1]) if shared else 0,
            "stack": int(memory[1]),
            "spilled": int(memory[2]) + int(memory[3]),
        }
    return found


def count(opcodes: Iterable[str]) -> Counts:
    """Count the instructions that matter, in a listing of opcodes such as "LDG.E.128"."""
    found: Counter[str] = Counter()
    for opcode, times in Counter(opcodes).items():
        name, *modifiers = opcode.split(".")
        column = COLUMN_OF.get(opcode, COLUMN_OF.get(name))
        if column in ("load", "store", "shared_load", "shared_store"):
            width = next((bits for bits in ("128", "64") if bits in modifiers), None)
            column = f"{column}_{width}" if width else None
        if column:
            found[column] += times * (2 if name == "FFMA2" else 1)
    return {column: found[column] for column in (*KINDS, "local", "memory_barrier", "thread_loop")}


# Generic accesses (LD, ST) are those whose address space the compiler has lost sight of.
COLUMN_OF = {
    **dict.fromkeys(("LDG", "LD", "LDGSTS"), "load"),
    **dict.fromkeys(("STG", "ST"), "store"),
    **dict.fromkeys(("LDL", "STL"), "local"),
    **dict.fromkeys(("HMMA", "DMMA", "IMMA", "QMMA", "HGMMA", "QGMMA", "UTCHMMA"), "tensor"),
    **dict.fromkeys(("FFMA", "FFMA2"), "ffma"),  # FFMA2 is two
    "LDS": "shared_load",
    "STS": "shared_store",
    "DFMA": "dfma",
    "BAR": "barrier",
    "UTMALDG": "bulk_copy",
    "USETMAXREG": "set_registers",
    "MEMBAR": "memory_barrier",
    "BRA.U.ANY": "thread_loop",  # as long as any thread is left
}


# The rules.


def faults(rows: Rows) -> list[str]:
    """Check the rules that hold whatever the compiler's version and the table."""
    found = []
    for subject, counts in rows.items():
        found += [
            f"{subject}: {counts[column]} {words}"
            for column, words in ZERO.items()
            if counts[column]
        ]
        if counts["registers"] > (limit := register_limit(subject)):
            found.append(
                f"{subject}: {counts['registers']} registers, its launch bound leaves {limit}"
            )
        found += [
            f"{subject}: {column} is {counts[column]}, its contract promises {least} or more"
            for column, least in promised(subject).items()
            if counts[column] < least
        ]
    return found


# The table.


def read_table(text: str) -> Table:
    """Read the table's text."""
    first, header, *lines = text.splitlines()
    columns = header.split("\t")[len(Subject._fields) :]
    rows = {}
    for line in lines:
        fields = line.split("\t")
        numbers = map(int, fields[len(Subject._fields) :])
        rows[Subject(*fields[: len(Subject._fields)])] = dict(zip(columns, numbers, strict=True))
    return Table(first.removeprefix("# "), rows)


def table_text(table: Table) -> str:
    """Write a table as text: an instantiation's architectures stand together."""
    lines = [f"# {table.compiler}", "\t".join((*Subject._fields, *COLUMNS))]
    for subject in sorted(table.rows, key=lambda one: (*one[:3], _generation(one.arch))):
        counts = table.rows[subject]
        lines.append("\t".join((*subject, *(str(counts[column]) for column in COLUMNS))))
    return "\n".join(lines) + "\n"


def compare(rows: Rows, table: Table, archs: Iterable[str], now: str) -> Comparison:
    """Compare rows measured for some architectures with the table's."""
    chosen = set(archs)
    before = {subject: row for subject, row in table.rows.items() if subject.arch in chosen}
    failures = [f"{one}: in the table, not compiled any more" for one in before if one not in rows]
    failures += [f"{one}: not in the table" for one in rows if one not in before]
    changes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for subject, counts in rows.items():
        old = before.get(subject, counts)
        for column in COLUMNS:
            was, is_now = old.get(column, 0), counts[column]
            if was == is_now:
                continue
            changes[*subject[:3], column, f"{was} → {is_now}"].append(subject.arch)
            if _worse(column, was, is_now, promised(subject)):
                failures.append(f"{subject}: {column} was {was}, is {is_now}")
    differences = _aligned([(*key, " ".join(of)) for key, of in changes.items()])
    if now != table.compiler:
        differences.insert(0, f"The table was made by {table.compiler}; this is {now}.")
        differences.insert(1, "Only the rules that need no table are applied.")
        failures = []
    return Comparison(differences, failures)


def _worse(column: str, was: int, now: int, promises: Counts) -> bool:
    if column == "registers":
        return now > was + REGISTER_SLACK
    if column == "shared_bytes":
        return now > was
    return now < was and (column == "tensor" or (column in VECTOR_ACCESSES and column in promises))


def _aligned(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _generation(arch: str) -> tuple[int, str]:
    match = re.fullmatch(r"sm_(\d+)(\w*)", arch)
    if not match:
        raise ValueError(f"{arch} is no architecture such as sm_90")
    return int(match[1]), match[2]


def rows_of(table: Table, instantiations: Iterable[Instantiation]) -> Table:
    """Return the part of a table that is about some instantiations."""
    names = {(one.stem, one.label) for one in instantiations}
    return table._replace(rows={one: row for one, row in table.rows.items() if one[:2] in names})


def check(measured: Measured, table: Table, archs: Iterable[str]) -> Comparison:
    """Apply every rule to what was measured for some architectures."""
    differences, failures = compare(measured.rows, table, archs, compiler.version())
    return Comparison(differences, [*measured.rejected, *faults(measured.rows), *failures])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernels.compile_gate", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--update", action="store_true", help=f"write {TABLE.name} anew")
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    chosen = parser.parse_args(arguments)

    now = compiler.version()
    table = read_table(TABLE.read_text("utf-8")) if TABLE.exists() else Table(now, {})
    kept = {one: row for one, row in table.rows.items() if one.arch not in chosen.arch}
    if chosen.update and kept and table.compiler != now:
        parser.error(f"the table was made by {table.compiler}, this is {now}: update all of it")
    parts = [measure(arch) for arch in chosen.arch]
    measured = Measured(
        {subject: row for part in parts for subject, row in part.rows.items()},
        [one for part in parts for one in part.rejected],
    )
    differences, failures = check(measured, table, chosen.arch)
    if chosen.update:
        TABLE.write_text(table_text(Table(now, kept | measured.rows)), "utf-8")
        failures = [*measured.rejected, *faults(measured.rows)]  # which no table excuses
    for title, lines in (("Different from the table", differences), ("Failures", failures)):
        if lines:
            print(f"{title}:", *lines, sep="\n  ")
    print(f"{len(measured.rows)} kernels compiled for {' '.join(chosen.arch)} by {now}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
