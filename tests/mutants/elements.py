"""Bugs in element.cuh and matrix.cuh: dtypes, rounding, packs, guards, strides."""

from tests.mutants.mutant import planted

ELEMENTWISE = ("sigmoid", "bias_backward")
STORES = ("sigmoid", "bias_backward", "sigmoid_bias_backward", "matmul_backward")

MUTANTS = (
    *planted(
        "element.cuh",
        ELEMENTWISE,
        {
            "float16 rounds towards zero": ("__float2half_rn(x)", "__float2half_rz(x)"),
            "bfloat16 rounds towards zero": ("__float2bfloat16_rn(x)", "__float2bfloat16_rz(x)"),
            "float64 is summed in float32": (
                "typedef double Accumulator;",
                "typedef float Accumulator;",
            ),
            "float64 is widened through float32": (
                "double widen(double x)",
                "float widen(double x)",
            ),
            "sums leave in 16 bits where float32 is asked for": (
                "typedef float Result;",
                "typedef Element Result;",
            ),
            "packs of 8 bytes under launches for 16": (
                "VECTOR = 16 / int(sizeof(Element))",
                "VECTOR = 8 / int(sizeof(Element))",
            ),
        },
    ),
    *planted(
        "element.cuh",
        ("matmul_backward",),
        {
            "float64 is multiplied in float32": ("return fma(a, b, c);", "return fmaf(a, b, c);"),
            "float32 products replace the sum": ("fmaf(a, b, c)", "fmaf(a, b, 0.0f)"),
            "packs of four doubles ask for 32-byte alignment": (
                "alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16)",
                "alignas(sizeof(T) * N)",
            ),
        },
    ),
    *planted(
        "element.cuh",
        ("split", "mma.product"),
        {
            "the largest exponents are not finite": (
                "& 0x7f800000u) != 0x7f800000u",
                "& 0x7f000000u) != 0x7f000000u",
            ),
            "half of the numbers are finite": (
                "& 0x7f800000u) != 0x7f800000u",
                "& 0x40000000u) == 0",
            ),
            "everything is finite": (
                "return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;",
                "return true;",
            ),
        },
    ),
    *planted(
        "matrix.cuh",
        ELEMENTWISE,
        {
            "one element more is read": (
                "value[e] = column + e < columns ?",
                "value[e] = column + e <= columns ?",
            ),
            "elements are read side by side whatever their stride": (
                "row[(column + e) * column_stride]",
                "row[column + e]",
            ),
            "a pack is read beyond the end of the row": (
                "if (packed && column + N <= columns)\n    widen_pack",
                "if (packed)\n    widen_pack",
            ),
            "packs are read where rows are not aligned": (
                "if (packed && column + N <= columns)\n    widen_pack",
                "if (column + N <= columns)\n    widen_pack",
            ),
            "every pack is the row's first": ("load_pack<N>(row + column)", "load_pack<N>(row)"),
            "all of a pack is its first element": ("widen(pack.v[e]);", "widen(pack.v[0]);"),
            "a pack is written beyond the end of the row": (
                "if (packed && column + N <= columns) {",
                "if (packed) {",
            ),
            "packs are written where rows are not aligned": (
                "if (packed && column + N <= columns) {",
                "if (column + N <= columns) {",
            ),
            "one element more is written": (
                "if (column + e < columns)\n",
                "if (column + e <= columns)\n",
            ),
            "elements are written side by side whatever their stride": (
                "store_one(row + (column + e) * column_stride,",
                "store_one(row + column + e,",
            ),
        },
    ),
    *planted(
        "matrix.cuh",
        STORES,
        {
            "the tail of a row counts as one": (": Accumulator(0);", ": Accumulator(1);"),
            "an element replaces what it is added to": (
                "accumulate ? widen(*p) + value : value",
                "value",
            ),
            "an element is rounded before it is added": (
                "widen(*p) + value : value",
                "widen(*p) + widen(Narrow<T>::from(value)) : value",
            ),
            "a pack is rounded before it is added": (
                "widen(pack.v[e]) + value[e]",
                "widen(pack.v[e]) + widen(Narrow<T>::from(value[e]))",
            ),
            "a pack replaces what it is added to": ("widen(pack.v[e]) + value[e]", "value[e]"),
            "all words of a pack go to its beginning": (
                "reinterpret_cast<W*>(p) + i, words[i]",
                "reinterpret_cast<W*>(p), words[i]",
            ),
            "a pack is added to what is not initialised": ("if (accumulate) {", "if (true) {"),
        },
    ),
    *planted(
        "matrix.cuh",
        (),
        {
            "strides of 32 bits": (
                "const Element* row, Offset column_stride, Offset column,\n"
                "                                          Offset columns,",
                "const Element* row, int column_stride, Offset column,\n"
                "                                          Offset columns,",
            ),
        },
    ),
)
