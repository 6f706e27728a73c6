"""Kernels that CuPy generates, computed by NumPy from the bytes of their parameters.

Ufuncs and reductions of CuPy's are NumPy's of the same names. What a caller has written as an
`ElementwiseKernel` is computed statement by statement, where it is nothing but assignments of
arithmetic expressions that C++ and Python read alike.
"""

import functools
import re
from typing import Any

import numpy as np

from . import memory
from .cupy_sources import DTYPES, Kernel, NotPlayedError, Parameter

UFUNC = re.compile(r"cupy_(\w+?)__\w+")
REDUCTIONS = ("all", "any", "max", "min", "prod", "sum")
ELEMENT = re.compile(r"(?:const )?\w+ &(\w+) = (\w+)\[_ind\.get\(\)\]")
ASSIGNMENT = re.compile(r"(?:const )?(?:(\w+) )?(\w+) = ([\w\s.+*/()-]+)")
FUNCTIONS = {name: one for name, one in vars(np).items() if isinstance(one, np.ufunc)}


def run(kernel: Kernel, values: list[bytes], device: int) -> None:
    """Carry out a kernel."""
    operands = {
        parameter.name: _operand(parameter, value, device)
        for parameter, value in zip(kernel.parameters, values, strict=True)
        if parameter.dtype is not None
    }
    inputs = [operands[one.name] for one in kernel.parameters if one.dtype and not one.written]
    outputs = [operands[one.name] for one in kernel.parameters if one.written]
    with np.errstate(all="ignore"):
        if ufunc := UFUNC.fullmatch(kernel.name):
            _ufunc(ufunc[1], kernel, inputs, outputs)
        elif "_out_ind" in {one.name for one in kernel.parameters}:
            _reduction(kernel, inputs[0], *outputs)
        else:
            _assignments(kernel, operands)


def _ufunc(name: str, kernel: Kernel, inputs: list[Any], outputs: list[Any]) -> None:
    inputs = [np.asarray(one, kernel.types[f"in{index}_type"]) for index, one in enumerate(inputs)]
    if name == "copy":
        (results,) = inputs
    elif name in FUNCTIONS:
        results = FUNCTIONS[name](*inputs)
    else:
        raise NotPlayedError(f"the ufunc {name} of CuPy is not played")
    for out, result in zip(outputs, results if len(outputs) > 1 else [results], strict=True):
        out[...] = result


def _reduction(kernel: Kernel, operand: Any, out: Any) -> None:
    """Reduce the first axes of an array; the last ones, as many elements as the result's, stay."""
    name = kernel.name.removeprefix("cupy_")
    if name not in REDUCTIONS:
        raise NotPlayedError(f"the reduction {kernel.name} of CuPy is not played")
    if not out.size:
        return
    rows = np.asarray(operand, kernel.types.get("_type_reduce"))
    rows = rows.reshape(operand.size // out.size, out.size)
    out[...] = getattr(np, name)(rows, axis=0).reshape(out.shape)


def _assignments(kernel: Kernel, names: dict[str, Any]) -> None:
    """Carry out the statements of a loop, each for all elements at once."""
    casts = {
        name: functools.partial(np.asarray, dtype=dtype)
        for name, dtype in {**DTYPES, **kernel.types}.items()
    }
    for statement in filter(None, kernel.statements):
        if element := ELEMENT.fullmatch(statement):
            names[element[1]] = names[element[2]]
            continue
        assignment = ASSIGNMENT.fullmatch(statement)
        try:
            dtype, name, expression = assignment.groups()
            value = eval(expression, {"__builtins__": {}}, {**FUNCTIONS, **casts, **names})
            if dtype:
                names[name] = casts[dtype](value)
            else:
                names[name][...] = value
        except (AttributeError, KeyError, NameError, SyntaxError):
            raise NotPlayedError(f"{kernel.name}: `{statement}` is not played") from None


def _operand(parameter: Parameter, value: bytes, device: int) -> Any:
    """Read an array (a CArray of CuPy's carray.cuh: address, size, extents, strides) or a value."""
    if parameter.rank is None:
        return np.frombuffer(value, parameter.dtype)[0]
    address, _, *rest = np.frombuffer(value, np.int64).tolist()
    shape, strides = rest[: parameter.rank], rest[parameter.rank :]
    return memory.view(address & (1 << 64) - 1, device, shape, strides, parameter.dtype)
