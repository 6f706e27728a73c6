"""One compiled instantiation of a .cu file."""

import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path

from . import build, source, toolchain
from .errors import EmulatorError
from .launch import Function, LaunchBounds
from .structures import SharedVariable, check_structures

SIGNATURE_BYTES = 4096
GUARD_PREFIX = "_ZGV"  # guard variables of block-scope statics, in the Itanium C++ ABI
LOCAL_NAME = re.compile(r"^_ZZ.*E\d*([A-Za-z_]\w*?)(?:_\d+)?$")


class Module:
    """A .cu file compiled for the CPU; called as cupy.RawModule is.

    Parameters
    ----------
    path_or_source : path of a .cu file, or a source text (anything with a line break)
    defines : macros, NAME or NAME=VALUE; they choose the instantiation of a file
    include_dirs : folders of headers, besides the file's own
    functions : names of the kernels; found in the source if they are declared in plain sight there
    mode : "check" finds errors, "fast" only runs
    arch : the value of __CUDA_ARCH__
    """

    def __init__(
        self,
        path_or_source: str | os.PathLike[str],
        *,
        defines: Sequence[str] = (),
        include_dirs: Sequence[str | os.PathLike[str]] = (),
        functions: Sequence[str] | None = None,
        mode: str = "check",
        arch: int = 900,
    ) -> None:
        if mode not in build.MODES:
            raise EmulatorError(f"mode is {mode!r}, expected one of {sorted(build.MODES)}")
        self.mode, self.arch = mode, arch
        self.source = source.read(path_or_source, [Path(folder) for folder in include_dirs])
        self.functions = list(functions) if functions is not None else self.source.kernels()
        if not self.functions:
            raise EmulatorError(f"{self.source.name}: no kernel found; name them in `functions`")
        self.path = build.module_library(self.source, self.functions, defines, mode, arch)
        self.library = ctypes.CDLL(str(self.path))
        self.library.emulator_dynamic_address.restype = ctypes.c_void_p
        self.library.emulator_allocate.restype = ctypes.c_void_p
        self.library.emulator_allocate.argtypes = [ctypes.c_uint64, ctypes.c_uint32]
        self.library.emulator_is_intact.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self.library.emulator_release.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self.library.emulator_shared_requests.restype = ctypes.c_uint64
        self.library.emulator_shared_requests.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        check_structures(self.library)
        self._symbols = toolchain.thread_local_symbols(self.path)
        self.shared_variables = (SharedVariable * len(self._symbols))(
            *[
                SharedVariable(offset, size, name.startswith(GUARD_PREFIX))
                for name, offset, size in self._symbols
            ]
        )

    def get_function(self, name: str) -> Function:
        """Return the kernel of that name."""
        if name not in self.functions:
            raise EmulatorError(f"{self.source.name} has no kernel {name}; it has {self.functions}")
        index = self.functions.index(name)
        entry = ctypes.cast(getattr(self.library, f"emulator_entry_{index}"), ctypes.c_void_p)
        signature = ctypes.create_string_buffer(SIGNATURE_BYTES)
        getattr(self.library, f"emulator_signature_{index}")(signature)
        bound = getattr(self.library, f"emulator_launch_bound_{index}")
        cluster = getattr(self.library, f"emulator_cluster_extent_{index}")
        bounds = LaunchBounds(bound(0), bound(1), (cluster(0), cluster(1), cluster(2)))
        return Function(self, name, entry.value or 0, signature.value.decode(), bounds)

    def describe_shared(self, offset: int) -> str:
        """Return the shared variable at an offset of the module's shared memory."""
        for symbol, start, size in self._symbols:
            if start <= offset < start + size:
                name = LOCAL_NAME.sub(r"\1", symbol)
                return f"shared array {name}, byte {offset - start} of {size}"
        return f"static shared memory, byte {offset}"
