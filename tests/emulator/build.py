"""Compiles a kernel source and the runtime into one shared library."""

import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import cache, toolchain
from .source import Source

HERE = Path(__file__).resolve().parent
DEVICE, RUNTIME = HERE / "device", HERE / "runtime"
DYNAMIC_CAPACITY = 232448  # bytes, the largest limit of any architecture (227 KiB)
DYNAMIC_ALIGNMENT = 1024
RED_ZONE = 256  # bytes after every shared array that belong to none
LANGUAGE = (
    "-std=c++17",
    "-march=native",
    "-fPIC",
    "-mtls-dialect=gnu",  # asks __tls_get_addr, whose answer thread_local_blocks.cpp changes
    "-fno-exceptions",
    "-fvisibility=hidden",
    "-ffp-contract=off",  # a * b + c rounds twice; only fma() fuses
    "-fno-strict-aliasing",  # kernels reinterpret memory as packs of several values
    "-gdwarf-4",
    "-g1",
)
CHECKS = (
    "-fsanitize=thread",
    "-fsanitize=alignment,bounds-strict,signed-integer-overflow,shift,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
)
MODES = {"fast": ("-O2",), "check": ("-O1", *CHECKS)}
RUNTIME_FLAGS = (*LANGUAGE, "-O3", "-Wall", "-Wextra")
KERNEL_FLAGS = ("-fno-extern-tls-init", "-w")
EXPORT = 'extern "C" __attribute__((visibility("default")))'
UNCHECKED = f'{EXPORT} __attribute__((no_sanitize("thread")))'  # called beside another's launch


@functools.cache
def contents(folder: Path) -> str:
    """Return all source texts of a folder, in order."""
    return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()))


def runtime_part(path: Path, flags: Sequence[str]) -> Path:
    """Return one file of the runtime, compiled by itself."""
    headers = [one.read_text(encoding="utf-8") for one in sorted(path.parent.glob("*.h"))]
    headers.append((DEVICE / "runtime_calls.h").read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")
    key = cache.key(path.name, text, *headers, toolchain.fingerprint(), *flags)

    def build(target: Path) -> None:
        toolchain.run([toolchain.compiler(), *flags, "-c", path, "-o", target])

    return cache.built(f"{path.stem}-{key}.o", build)


@functools.cache
def runtime_object() -> Path:
    """Return the runtime, compiled as one translation unit so that the checker is inlined."""
    parts = sorted(RUNTIME.glob("*.cpp"))
    text = "".join(f'#include "{path}"\n' for path in parts)
    calls = (DEVICE / "runtime_calls.h").read_text(encoding="utf-8")
    key = cache.key(text, contents(RUNTIME), calls, toolchain.fingerprint(), *RUNTIME_FLAGS)

    def build(target: Path) -> None:
        unit = target.with_suffix(".cpp")
        unit.write_text(text, encoding="utf-8")
        toolchain.run([toolchain.compiler(), *RUNTIME_FLAGS, "-c", unit, "-o", target])

    return cache.built(f"runtime-{key}.o", build)


def kernel_flags(mode: str) -> tuple[str, ...]:
    """Return a mode's flags; a precompiled header serves only equal flags."""
    return (*LANGUAGE, *MODES[mode], *KERNEL_FLAGS)


@functools.cache
def precompiled_header(mode: str) -> Path:
    """Return the folder with the precompiled cuda_on_cpu.h of a mode."""
    flags = kernel_flags(mode)
    key = cache.key(str(HERE), contents(DEVICE), toolchain.fingerprint(), *flags)

    def build(target: Path) -> None:
        target.mkdir()
        include = [f"-I{DEVICE}", *toolchain.cuda_includes()]
        header = DEVICE / "cuda_on_cpu.h"
        command = [toolchain.compiler(), *flags, *include, "-x", "c++-header", str(header)]
        toolchain.run([*command, "-o", str(target / "cuda_on_cpu.h.gch")])

    return cache.built(f"header-{mode}-{key}", build)


def dynamic_memory_object(names: Sequence[str]) -> Path:
    """Return thread-local memory for extern __shared__ arrays, which all start at one address."""
    symbols = [*names, "emulator_dynamic_memory"]
    lines = ['.section .tbss,"awT",@nobits', f".balign {DYNAMIC_ALIGNMENT}"]
    for name in symbols:
        lines += [f".globl {name}", f".hidden {name}", f".type {name},@object", f"{name}:"]
    lines += [f".zero {DYNAMIC_CAPACITY}", '.section .note.GNU-stack,"",@progbits', ""]
    text = "\n".join(lines)

    def build(target: Path) -> None:
        assembly = target.with_suffix(".s")
        assembly.write_text(text, encoding="utf-8")
        toolchain.run([toolchain.compiler(), "-c", assembly, "-o", target])

    return cache.built(f"dynamic-{cache.key(text, toolchain.fingerprint())}.o", build)


def with_red_zones(assembly: str) -> str:
    """Return the assembly with unused bytes after every thread-local variable.

    An access past the end of one __shared__ array then hits no other.
    """
    zone = f"\t.zero\t{RED_ZONE}\n"
    sections = re.split(r"(?m)^(?=\t\.(?:section|text|data|bss)\b)", assembly)
    return "".join(
        re.sub(r"(?m)^(\S+:\n\t\.zero\t\d+\n)", rf"\g<1>{zone}", section)
        if section.startswith("\t.section\t.tbss")
        else section
        for section in sections
    )


def definition(macro: str) -> str:
    """Return a #define for what -D would take: NAME or NAME=VALUE."""
    name, equals, value = macro.partition("=")
    return f"#define {name} {value if equals else 1}"


def translation_unit(
    source: Source, functions: Sequence[str], defines: Iterable[str], arch: int
) -> str:
    """Return the source between the emulator's header and an entry point for each function."""
    lines = ['#include "cuda_on_cpu.h"', f"#define __CUDA_ARCH__ {arch}"]
    lines += [*map(definition, defines), source.code]
    for index, name in enumerate(functions):
        lines += [
            f"{EXPORT} void emulator_entry_{index}(void** a) {{ emulator::call({name}, a); }}",
            f"{UNCHECKED} void emulator_signature_{index}(char* s) "
            f"{{ emulator::describe({name}, s); }}",
            f"{UNCHECKED} int emulator_launch_bound_{index}(int i) "
            f"{{ const int bounds[] = {{{source.attribute(name, '__launch_bounds__') or 0}, 0}}; "
            "return bounds[i]; }",
            f"{UNCHECKED} int emulator_cluster_extent_{index}(int i) {{ const int extents[] = "
            f"{{{source.attribute(name, '__cluster_dims__') or 1}, 1, 1}}; return extents[i]; }}",
        ]
    # Touching one thread-local variable makes the loader allocate the module's block.
    lines += ["thread_local char emulator_anchor;"]
    dynamic = "nullptr"
    if source.dynamic_arrays():
        lines += ['extern "C" thread_local char emulator_dynamic_memory[];']
        dynamic = "emulator_dynamic_memory"
    lines += [
        f"{UNCHECKED} char* emulator_dynamic_address() {{ emulator_anchor = 1; return {dynamic}; }}"
    ]
    return "\n".join(lines) + "\n"


def kernel_object(
    source: Source, functions: Sequence[str], defines: Iterable[str], mode: str, arch: int
) -> Path:
    """Return one instantiation of a kernel source; it does not depend on the runtime."""
    text = translation_unit(source, functions, defines, arch)
    header = precompiled_header(mode)
    places = [f"-I{folder}" for folder in source.folders]
    flags = kernel_flags(mode)
    key = cache.key(text, *source.texts, header.name, *flags, *places, str(RED_ZONE))

    def build(target: Path) -> None:
        unit, assembly = target.with_suffix(".cpp"), target.with_suffix(".s")
        unit.write_text(text, encoding="utf-8")
        include = [f"-I{header}", f"-I{DEVICE}", *places, *toolchain.cuda_includes()]
        toolchain.run([toolchain.compiler(), *flags, *include, "-S", unit, "-o", assembly])
        compiled = assembly.read_text(encoding="utf-8")
        assembly.write_text(with_red_zones(compiled), encoding="utf-8")
        toolchain.run([toolchain.compiler(), "-c", assembly, "-o", target])

    return cache.built(f"{Path(source.name).stem}-{mode}-{key}.o", build)


def module_library(
    source: Source, functions: Sequence[str], defines: Iterable[str], mode: str, arch: int
) -> Path:
    """Return the shared library of one instantiation of a kernel source."""
    objects = [kernel_object(source, functions, defines, mode, arch), runtime_object()]
    if source.dynamic_arrays():  # linked last: it must end the thread-local block
        objects.append(dynamic_memory_object(source.dynamic_arrays()))
    linker = toolchain.linker()
    key = cache.key(*(path.name for path in objects), *linker)

    def build(target: Path) -> None:
        link = [*linker, "-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", *objects]
        toolchain.run([toolchain.compiler(), *link, "-o", target])

    return cache.built(f"{Path(source.name).stem}-{mode}-{key}.so", build)
