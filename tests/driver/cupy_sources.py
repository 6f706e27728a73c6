"""The kernels that CuPy generates and compiles, as their sources describe them.

Of an element-wise kernel the source says the types and the loop's body:

    typedef float in0_type;
    extern "C" __global__ void cupy_exp__float32_float32(
        const CArray<float, 1, 1, 1> _raw_in0, CArray<float, 1, 1, 1> _raw_out0, CIndexer<1, 1> …
"""

import functools
import re
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

_TYPES: dict[str, Any] = {
    "bool": "?",
    "signed char": "i1",
    "short": "i2",
    "int": "i4",
    "long long": "i8",
    "unsigned char": "u1",
    "unsigned short": "u2",
    "unsigned int": "u4",
    "unsigned long long": "u8",
    "float16": "f2",
    "bfloat16": ml_dtypes.bfloat16,
    "float": "f4",
    "double": "f8",
    "thrust::complex<float>": "c8",
    "thrust::complex<double>": "c16",
}
DTYPES = {name: np.dtype(one) for name, one in _TYPES.items()}
SIGNATURE = r'extern "C" __global__ void {}\((.*)\) {{'
PARAMETER = re.compile(
    r"(?P<const>const )?(?:CArray<(?P<item>.+?), (?P<rank>\d+), \d, \d>|(?P<value>[\w ]+|\S+<.+?>))"
    r" (?P<name>\w+)(?:, |$)"
)
TYPEDEF = re.compile(r"typedef (.+) (\w+);")
STATEMENTS = re.compile(r"_ind\.set\(i\);(.*?);\n\s*\}\n", re.DOTALL)  # of the loop


class NotPlayedError(Exception):
    """A kernel of CuPy's that nothing here computes."""


class Parameter(NamedTuple):
    """An array, whose rank is a number, or a value; an indexer has no dtype."""

    name: str
    dtype: np.dtype[Any] | None
    rank: int | None
    written: bool


class Kernel(NamedTuple):
    """What the source says of a kernel."""

    name: str
    parameters: list[Parameter]
    types: dict[str, np.dtype[Any]]  # by the names that the source gives to them
    statements: list[str]  # of an element-wise kernel, for each index


_sources: dict[int, str] = {}  # by the driver's handles of modules


class Watch:
    """A finder that has CuPy's compiler keep the source of each module, from its import on."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find the compiler, and nothing else."""
        spec = PathFinder.find_spec(name, path) if name == "cupy.cuda.compiler" else None
        if spec is not None:
            loader: Any = spec.loader
            loader.exec_module = functools.partial(_import, loader.exec_module)
        return spec


def _import(execute: Callable[[Any], None], compiler: Any) -> None:
    execute(compiler)
    compiled = compiler._compile_module_with_cache

    def compile_and_keep(source: str, *arguments: Any, **options: Any) -> Any:
        module = compiled(source, *arguments, **options)
        _sources[module.ptr] = source
        kernel.cache_clear()  # the handle may have been another module's
        return module

    compiler._compile_module_with_cache = compile_and_keep


@functools.cache
def kernel(module: int, name: str) -> Kernel:
    """Read what the source of a module says of one of its kernels."""
    source = _sources.get(module, "")
    signature = re.search(SIGNATURE.format(name), source)
    found = [*PARAMETER.finditer(signature[1])] if signature else []
    if not signature or sum(len(one[0]) for one in found) != len(signature[1]):
        raise NotPlayedError(f"the kernel {name} is none that CuPy generates")
    parameters = []
    for one in found:
        c = one["item"] or one["value"]
        if c not in DTYPES and not c.startswith("CIndexer"):
            raise NotPlayedError(f"{name}: the type {c} is not played")
        rank = int(one["rank"]) if one["item"] else None
        written = bool(one["item"]) and not one["const"]
        parameters.append(Parameter(one["name"], DTYPES.get(c), rank, written))
    types = {alias: DTYPES[c] for c, alias in TYPEDEF.findall(source) if c in DTYPES}
    body = STATEMENTS.search(source)
    statements = [one.strip() for one in body[1].split(";")] if body else []
    return Kernel(name, parameters, types, statements)
