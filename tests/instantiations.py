"""Every instantiation of every kernel file that the package can ask for."""

ELEMENTS = ("ELEMENT_F32", "ELEMENT_F64", "ELEMENT_F16", "ELEMENT_BF16")
HALVES = ("ELEMENT_F16", "ELEMENT_BF16")

Instantiation = tuple[str, tuple[str, ...]]  # stem and macros, in the order of gpu/launch.py


def _instantiations() -> list[Instantiation]:
    found: list[Instantiation] = []
    for element in ELEMENTS:
        results: tuple[tuple[str, ...], ...] = ((), ("RESULT_F32",)) if element in HALVES else ((),)
        tiles = ("TILE=64",) if element == "ELEMENT_F64" else ("TILE=64", "TILE=128")
        found.append(("sigmoid", (element,)))
        found += [("dense_sigmoid_ffma", (element, tile)) for tile in tiles]
        for logits in ((), ("FROM_LOGITS",)):
            found.append(("sigmoid_backward", (element, *logits)))
        for result in results:
            found.append(("bias_backward", (element, *result)))
            found.append(("reduce_splits", (element, *result)))
            found += [("matmul_backward_ffma", (element, *result, tile)) for tile in tiles]
            for logits in ((), ("FROM_LOGITS",)):
                macros = (element, *result, *logits)
                found.append(("sigmoid_bias_backward", macros))
                found += [("dense_sigmoid_backward_ffma", (*macros, tile)) for tile in tiles]
    return sorted(found)


INSTANTIATIONS = _instantiations()
