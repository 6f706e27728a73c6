"""What a cubin holds: the code of its kernels, and their instructions as nvdisasm names them."""

import json
import struct
import subprocess
import tempfile
from importlib import util
from pathlib import Path

from tests.emulator import MissingTool

INSTRUCTION_BYTES = 16  # on every architecture since sm_70
SECTION = ".text."


def kernels(cubin: bytes) -> dict[str, bytes]:
    """Return the machine code of each kernel: the .text sections of a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", cubin, 40)
    size, count, of_names = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    names = sections[of_names][4]
    found = {}
    for name_offset, _, _, _, offset, length in sections:
        start = names + name_offset
        name = cubin[start : cubin.index(b"\0", start)].decode()
        if name.startswith(SECTION):
            found[name.removeprefix(SECTION)] = cubin[offset : offset + length]
    return found


def disassemble(codes: list[bytes], arch: str) -> list[list[str]]:
    """Return the opcodes of several kernels, such as "LDG.E.128", in the order of their addresses.

    An opcode is in its instruction's bits, and kernels made of the same pieces have most of their
    instructions in common. nvdisasm, which is slow, gets each of them once, all in one file.
    """
    kernels = [
        [code[at : at + INSTRUCTION_BYTES] for at in range(0, len(code), INSTRUCTION_BYTES)]
        for code in codes
    ]
    distinct = list(dict.fromkeys(instruction for kernel in kernels for instruction in kernel))
    opcodes = dict(zip(distinct, _opcodes(b"".join(distinct), arch), strict=True))
    return [[opcodes[instruction] for instruction in kernel] for kernel in kernels]


def _opcodes(code: bytes, arch: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "instructions.bin")
        file.write_bytes(code)
        machine = arch.replace("sm_", "SM")
        run = subprocess.run(
            [nvdisasm(), "-b", machine, "-ndf", "-json", file], capture_output=True, text=True
        )
    if run.returncode:
        raise RuntimeError(f"nvdisasm cannot read code for {arch}: {run.stderr.strip()}")
    _, functions = json.loads(run.stdout)
    opcodes = [one["opcode"] for function in functions for one in function["sass-instructions"]]
    if len(opcodes) * INSTRUCTION_BYTES != len(code):
        raise RuntimeError(f"nvdisasm gave {len(opcodes)} instructions for {arch}, not one each 16")
    return opcodes


def nvdisasm() -> Path:
    """Find the disassembler that the wheel nvidia-cuda-nvdisasm installs."""
    spec = util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(root).glob("*/bin/nvdisasm*")):
            return path
    raise MissingTool("machine code needs nvidia-cuda-nvdisasm: pip install -e '.[test]'")
