"""Layouts as NVIDIA's CuTe headers compute them, from the wheel nvidia-cutlass."""

import functools
import importlib.util
from importlib import metadata
from pathlib import Path

import numpy as np

from tests.emulator import cache, toolchain

Tables = dict[str, np.ndarray]
LEADING = 0x3FFF << 16  # the bits of LBO in a matrix descriptor
MAJORS = {"K": "K", "M": "MN"}  # CuTe's names for the orders of operands
PROGRAM = Path(__file__).with_name("cute_layouts.cpp")
FLAGS = ("-std=c++17", "-O1", "-w")  # with -O0 it takes twice as long to compile


@functools.cache
def layouts() -> Tables:
    """Return the tables that cute_layouts.cpp prints, by their names."""
    program = PROGRAM.read_text(encoding="utf-8")
    version = metadata.version("nvidia-cutlass")  # PackageNotFoundError names what is missing
    key = cache.key(program, version, toolchain.fingerprint(), *FLAGS)
    text = cache.built(f"cute-{key}.txt", _print).read_text(encoding="utf-8")
    tables = {}
    for line in text.splitlines():
        name, _, numbers = line.partition(":")
        tables[name] = np.array(numbers.split(), np.uint64)
    return tables


def _print(target: Path) -> None:
    """Compile the program and keep what it prints."""
    spec = importlib.util.find_spec("cutlass_library")
    assert spec is not None
    assert spec.submodule_search_locations
    headers = Path(spec.submodule_search_locations[0], "source/include")
    includes = [f"-I{headers}", *toolchain.cuda_includes()]
    includes += [
        option
        for folder in toolchain.cuda_include_folders()
        if (folder / "cccl").is_dir()
        for option in ("-isystem", str(folder / "cccl"))
    ]
    program = target.with_suffix(".out")
    toolchain.run([toolchain.compiler(), *FLAGS, *includes, PROGRAM, "-o", program])
    target.write_text(toolchain.run([program]), encoding="utf-8")
