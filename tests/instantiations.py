"""Every instantiation of every kernel file that the package can ask for."""

from gpugrad.planning.warpgroup_tiles import WIDTHS

ELEMENTS = ("ELEMENT_F32", "ELEMENT_F64", "ELEMENT_F16", "ELEMENT_BF16")
HALVES = ("ELEMENT_F16", "ELEMENT_BF16")
PLANES = ("PLANES=1", "PLANES=2", "PLANES=3")  # of float32
FUSED_FFMA, FUSED_MMA = "dense_sigmoid_backward_fused_ffma", "dense_sigmoid_backward_fused_mma"
ACROSS = ((), ("LEFT_ACROSS",), ("RIGHT_ACROSS",), ("LEFT_ACROSS", "RIGHT_ACROSS"))
# By the last word of a stem: tensor cores as these kernels use them, and what is made for them.
LEAST_ARCHITECTURE = {"mma": 80, "dmma": 80, "planes": 80, "exponents": 80}
WGMMA_ARCHITECTURE = "sm_90a"  # which no other kernel is compiled for

Instantiation = tuple[str, tuple[str, ...]]  # stem and macros, in the order of gpu/arguments.py


def _instantiations() -> list[Instantiation]:
    found: list[Instantiation] = []
    for element in ELEMENTS:
        results: tuple[tuple[str, ...], ...] = ((), ("RESULT_F32",)) if element in HALVES else ((),)
        tiles = ("TILE=64",) if element == "ELEMENT_F64" else ("TILE=64", "TILE=128")
        found.append(("sigmoid", (element,)))
        found += [("dense_sigmoid_ffma", (element, tile)) for tile in tiles]
        for logits in ((), ("FROM_LOGITS",)):
            found.append(("sigmoid_backward", (element, *logits)))
            macros = (element, *logits)
            found += [("dense_sigmoid_backward_dx_ffma", (*macros, tile)) for tile in tiles]
        for result in results:
            found.append(("bias_backward", (element, *result)))
            found.append(("reduce_splits", (element, *result)))
            found += [("matmul_backward_ffma", (element, *result, tile)) for tile in tiles]
            for logits in ((), ("FROM_LOGITS",)):
                macros = (element, *result, *logits)
                found.append(("sigmoid_bias_backward", macros))
                found += [("dense_sigmoid_backward_dw_ffma", (*macros, tile)) for tile in tiles]
    for logits in ((), ("FROM_LOGITS",)):
        found += [(FUSED_FFMA, ("ELEMENT_F32", *logits, tile)) for tile in ("TILE=64", "TILE=128")]
        found += [
            (FUSED_MMA, ("ELEMENT_F32", *logits, "PLANES=3", tile))
            for tile in ("TILE=64", "TILE=128")
        ]
        found += [
            (FUSED_MMA, (element, *logits, f"TILE={tile}"))
            for element in HALVES
            for tile in (64, 128, 256)
        ]
        found.append(("plane_exponents", ("ELEMENT_F32", *logits, "GRADIENT")))
        found += [("sigmoid_bias_planes", ("ELEMENT_F32", *logits, planes)) for planes in PLANES]
    found.append(("plane_exponents", ("ELEMENT_F32",)))
    found += [("split_planes", ("ELEMENT_F32", planes)) for planes in PLANES]
    for stem in ("dense_sigmoid_dmma", "matmul_backward_dmma"):
        for across in ACROSS:
            found += [(stem, ("ELEMENT_F64", *across, tile)) for tile in ("TILE=64", "TILE=128")]
    on_planes: list[tuple[str, ...]] = [("ELEMENT_F32", planes) for planes in PLANES]
    on_planes += [(element,) for element in HALVES]
    summed = [(element, "RESULT_F32") for element in HALVES]
    for across in ACROSS:
        for tile in ("TILE=64", "TILE=128"):
            found += [("dense_sigmoid_mma", (*of, *across, tile)) for of in on_planes]
            found += [("matmul_backward_mma", (*of, *across, tile)) for of in (*on_planes, *summed)]
        for of in on_planes:
            found += [("dense_sigmoid_wgmma", (*of, *across, tile)) for tile in _widths(of)]
        for of in (*on_planes, *summed):
            found += [("matmul_backward_wgmma", (*of, *across, tile)) for tile in _widths(of)]
    return sorted(found)


def _widths(of: tuple[str, ...]) -> tuple[str, ...]:
    planes = 1 if of[0] in HALVES else int(of[1].removeprefix("PLANES="))
    return tuple(f"TILE={width}" for width in WIDTHS[planes])


def exists_for(stem: str, arch: str) -> bool:
    """Say whether a kernel file is compiled for an architecture such as "sm_90"."""
    if arch == WGMMA_ARCHITECTURE or stem.endswith("_wgmma"):
        return arch == WGMMA_ARCHITECTURE and stem.endswith("_wgmma")
    number = int("".join(filter(str.isdigit, arch)))
    return number >= LEAST_ARCHITECTURE.get(stem.rpartition("_")[2], 0)


INSTANTIATIONS = _instantiations()
