"""Every instantiation of every kernel file that the package can ask for."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from gpugrad.planning.configurations import (
    ELEMENTWISE,
    FAMILIES,
    FUSED,
    PLANE_EXPONENTS,
    PLANE_SUMS,
    REDUCTION,
    SPLIT_PLANES,
    Configuration,
    row_sums,
    tiles,
)
from gpugrad.planning.problem import ITEMSIZE

ELEMENTS = {
    "float32": "ELEMENT_F32",
    "float64": "ELEMENT_F64",
    "float16": "ELEMENT_F16",
    "bfloat16": "ELEMENT_BF16",
}
HALVES = ("float16", "bfloat16")
MAJORS = ((), ("LEFT_MN_MAJOR",), ("RIGHT_MN_MAJOR",), ("LEFT_MN_MAJOR", "RIGHT_MN_MAJOR"))
LOGITS = ((), ("FROM_LOGITS",))
LABELS = ("PLANES", "BLOCK_N", "OUTPUTS")  # macros that tell the configurations of a family apart


class Instantiation(NamedTuple):
    """A kernel file with the macros that it is compiled with.

    Attributes
    ----------
    stem : str
    chosen : tuple of str
        What is computed.
    configuration : Configuration
        How it is computed.
    """

    stem: str
    chosen: tuple[str, ...]
    configuration: Configuration

    @property
    def macros(self) -> tuple[str, ...]:
        """All macros, in the order of gpugrad/gpu."""
        return (*self.chosen, *self.configuration.macros)

    @property
    def label(self) -> str:
        """The macros that tell the instantiations of a file apart, as the gate's table has them."""
        found = dict(one.split("=") for one in self.configuration.macros)
        labels = (f"{name}={found[name]}" for name in LABELS if name in found)
        return " ".join((*self.chosen, *labels))


def _instantiations() -> Iterator[Instantiation]:
    for dtype, element in ELEMENTS.items():
        results: tuple[tuple[str, ...], ...] = ((), ("RESULT_F32",)) if dtype in HALVES else ((),)
        sums, by_ffma = row_sums(ITEMSIZE[dtype]), tiles("ffma", dtype, 0)
        yield Instantiation("sigmoid", (element,), ELEMENTWISE)
        for logits in LOGITS:
            yield Instantiation("sigmoid_backward", (element, *logits), ELEMENTWISE)
        for result in results:
            yield Instantiation("bias_backward", (element, *result), sums)
            yield Instantiation("reduce_splits", (element, *result), REDUCTION)
            for logits in LOGITS:
                chosen = (element, *result, *logits)
                yield Instantiation("sigmoid_bias_backward", chosen, sums)
                for one in by_ffma:
                    yield Instantiation("dense_sigmoid_backward_dw_ffma", chosen, one)
            for one in by_ffma:
                yield Instantiation("matmul_backward_ffma", (element, *result), one)
        for one in by_ffma:
            yield Instantiation("dense_sigmoid_ffma", (element,), one)
            for logits in LOGITS:
                yield Instantiation("dense_sigmoid_backward_dx_ffma", (element, *logits), one)
        yield from _on_tensor_cores(dtype, results)
    for (dtype, algorithm), configurations in FUSED.items():
        for logits in LOGITS:
            for layer in configurations:
                stem = f"dense_sigmoid_backward_fused_{algorithm}"
                yield Instantiation(stem, (ELEMENTS[dtype], *logits), layer)
    for planes in ("PLANES=1", "PLANES=2", "PLANES=3"):
        yield Instantiation("split_planes", ("ELEMENT_F32", planes), SPLIT_PLANES)
        for logits in LOGITS:
            chosen = ("ELEMENT_F32", *logits, planes)
            yield Instantiation("sigmoid_bias_planes", chosen, PLANE_SUMS)
    for chosen in ((), ("GRADIENT",), ("FROM_LOGITS", "GRADIENT")):
        yield Instantiation("plane_exponents", ("ELEMENT_F32", *chosen), PLANE_EXPONENTS)


def _on_tensor_cores(dtype: str, results: tuple[tuple[str, ...], ...]) -> Iterator[Instantiation]:
    element = ELEMENTS[dtype]
    for algorithm in ("dmma",) if dtype == "float64" else ("mma", "wgmma"):
        for planes in (3, 2, 1) if dtype == "float32" else (1,):
            for one in tiles(algorithm, dtype, planes):
                for majors in MAJORS:
                    forward = (element, *majors)
                    yield Instantiation(f"dense_sigmoid_{algorithm}", forward, one)
                    for result in results:
                        chosen = (element, *result, *majors)
                        yield Instantiation(f"matmul_backward_{algorithm}", chosen, one)


def exists_for(stem: str, arch: str) -> bool:
    """Return whether a kernel file is compiled for an architecture such as "sm_90"."""
    family = FAMILIES[stem]
    digits, suffix = re.fullmatch(r"sm_(\d+)(\w*)", arch).groups()  # type: ignore[union-attr]
    capability = int(digits[:-1]), int(digits[-1])
    if family.suffix or suffix:  # of no other architecture
        return (capability, suffix) == (family.capability, family.suffix)
    return capability >= family.capability


INSTANTIATIONS = sorted(_instantiations(), key=lambda one: (one.stem, one.chosen, one.label))
BY_LABEL = {(one.stem, one.label): one for one in INSTANTIATIONS}
