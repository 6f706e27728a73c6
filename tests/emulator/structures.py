"""The structures of runtime/state.h that a launch fills and reads."""

import ctypes

from .errors import EmulatorError

DYNAMIC_SHARED, STATIC_SHARED, ARGUMENT, ELSEWHERE = 1, 2, 3, 4  # enum Place


def fields(kind: type, names: str) -> list[tuple[str, type]]:
    """Return the fields of a C structure that have the same type."""
    return [(name, kind) for name in names.split()]


class Buffer(ctypes.Structure):
    """Buffer in state.h."""

    _fields_ = [
        *fields(ctypes.c_uint64, "base bytes"),
        ("members", ctypes.c_void_p),
        *fields(ctypes.c_uint32, "item_bytes read_only uninitialised poison"),
    ]


class SharedVariable(ctypes.Structure):
    """SharedVariable in state.h."""

    _fields_ = fields(ctypes.c_uint64, "offset bytes is_guard")


class Configuration(ctypes.Structure):
    """Configuration in state.h."""

    _fields_ = [
        *fields(ctypes.c_uint32 * 3, "grid block cluster"),
        *fields(
            ctypes.c_uint32,
            "dynamic_bytes schedule seed workers checked eager_copies count_wavefronts "
            "timeout_seconds arithmetic registers",
        ),
        ("stacks", ctypes.c_void_p),
        *fields(ctypes.c_uint64, "stack_bytes buffer_count"),
        ("buffers", ctypes.POINTER(Buffer)),
        ("shared_variable_count", ctypes.c_uint64),
        ("shared_variables", ctypes.POINTER(SharedVariable)),
    ]


class Failure(ctypes.Structure):
    """Failure in state.h."""

    _fields_ = [
        ("occurred", ctypes.c_int32),
        *fields(ctypes.c_uint32 * 3, "block thread"),
        *fields(ctypes.c_uint32, "place buffer"),
        ("offset", ctypes.c_int64),
        *fields(ctypes.c_uint64, "pc other_pc"),
        ("message", ctypes.c_char * 2000),
        ("site_file", ctypes.c_char * 200),
        ("site_line", ctypes.c_uint32),
    ]


class SharedRequests(ctypes.Structure):
    """SharedRequests in state.h."""

    _fields_ = [
        *fields(ctypes.c_uint64, "pc requests wavefronts ideal"),
        *fields(ctypes.c_uint32, "kind bytes site_line"),
        ("site_file", ctypes.c_char * 200),
    ]


def check_structures(library: ctypes.CDLL) -> None:
    """Compare the sizes of the structures above with those in the compiled runtime."""
    structures = (Buffer, SharedVariable, Configuration, Failure, SharedRequests)
    sizes = (ctypes.c_uint64 * len(structures))()
    library.emulator_structure_sizes(sizes)
    for structure, size in zip(structures, sizes, strict=True):
        if ctypes.sizeof(structure) != size:
            raise EmulatorError(
                f"{structure.__name__} has {ctypes.sizeof(structure)} bytes in structures.py, "
                f"{size} in state.h"
            )
