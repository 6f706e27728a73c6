"""Bugs in sigmoid.cuh, sigmoid.cu and sigmoid_backward.cu."""

from tests.mutants.mutant import planted

MUTANTS = (
    *planted(
        "sigmoid.cuh",
        ("sigmoid",),
        {
            "the exponential of z overflows": (
                "const Accumulator e = exponential(-magnitude(z));\n"
                "  return (z >= 0 ? one : e) / (one + e);",
                "return one / (one + exponential(-z));",
            ),
            "no magnitude in the sigmoid": ("exponential(-magnitude(z))", "exponential(-z)"),
            "the branches for the sign are exchanged": ("z >= 0 ? one : e", "z >= 0 ? e : one"),
            "the magnitude of a double is a float": ("return fabs(x);", "return fabsf(x);"),
            "the exponential of a double is a float": ("return exp(x);", "return expf(x);"),
            "the exponential is rounded to the element": (
                "exponential(-magnitude(z));",
                "widen(Narrow<Element>::from(exponential(-magnitude(z))));",
            ),
        },
    ),
    *planted(
        "sigmoid.cuh",
        ("sigmoid_backward",),
        {
            "no magnitude in the gradient": (
                "exponential(-magnitude(saved))",
                "exponential(-saved)",
            ),
            "one minus the sigmoid of large logits": (
                "return dy * (e / ((one + e) * (one + e)));",
                "return dy * (one / (one + e) * (one - one / (one + e)));",
            ),
            "one factor of 1 + e": ("e / ((one + e) * (one + e))", "e / (one + e)"),
            "y and its square are subtracted": (
                "dy * (saved * (one - saved))",
                "dy * (saved - saved * saved)",
            ),
            "y is not multiplied": ("dy * (saved * (one - saved))", "dy * (one - saved)"),
            "y is taken for z": ("#if defined(FROM_LOGITS)", "#if !defined(FROM_LOGITS)"),
        },
    ),
    *planted(
        "sigmoid.cuh",
        (),
        {"an approximate exponential": ("return expf(x);", "return __expf(x);")},
    ),
    *planted(
        "sigmoid.cu",
        ("sigmoid",),
        {
            "threads are one element apart": (
                "(Offset(blockIdx.x) * THREADS + threadIdx.x) * VECTOR;",
                "Offset(blockIdx.x) * THREADS * VECTOR + threadIdx.x;",
            ),
            "the first block does everything": (
                "(Offset(blockIdx.x) * THREADS + threadIdx.x)",
                "Offset(threadIdx.x)",
            ),
            "the tail of a row is lost": (
                "if (column >= columns) return;",
                "if (column + VECTOR > columns) return;",
            ),
            "every block does all later rows": ("row += gridDim.y", "row += 1"),
            "one row more": ("row < rows", "row <= rows"),
            "the last row is lost": ("row < rows", "row + 1 < rows"),
            "rows beyond the grid are lost": (
                "row < rows; row += gridDim.y",
                "row < rows; row = rows",
            ),
            "rows and columns of z are exchanged": (
                "z + row * z_row, z_column",
                "z + row * z_column, z_row",
            ),
            "y has the rows of z": ("y + row * y_row", "y + row * z_row"),
            "y has the columns of z": (
                "y_column, column, columns, packed",
                "z_column, column, columns, packed",
            ),
            "packs are read whatever the alignment": (
                "z_column, column, columns, packed, value",
                "z_column, column, columns, true, value",
            ),
            "packs are written whatever the alignment": (
                "packed, false, value",
                "true, false, value",
            ),
            "y is added to": ("packed, false, value", "packed, true, value"),
        },
    ),
    *planted(
        "sigmoid.cu",
        (),
        {
            "columns are counted in 32 bits": (
                "(Offset(blockIdx.x) * THREADS + threadIdx.x)",
                "(blockIdx.x * THREADS + threadIdx.x)",
            ),
        },
    ),
    *planted(
        "sigmoid_backward.cu",
        ("sigmoid_backward",),
        {
            "blocks overlap": (
                "(Offset(blockIdx.x) * THREADS + threadIdx.x) * VECTOR;",
                "Offset(blockIdx.x) * THREADS + threadIdx.x * VECTOR;",
            ),
            "the tail of a row is lost": (
                "if (column >= columns) return;",
                "if (column + VECTOR > columns) return;",
            ),
            "every block does all later rows": ("row += gridDim.y", "row += 1"),
            "one row more": ("row < rows", "row <= rows"),
            "rows beyond the grid are lost": (
                "row < rows; row += gridDim.y",
                "row < rows; row = rows",
            ),
            "rows and columns of dy are exchanged": (
                "dy + row * dy_row, dy_column",
                "dy + row * dy_column, dy_row",
            ),
            "y has the rows of dy": ("saved + row * saved_row", "saved + row * dy_row"),
            "y has the columns of dy": (
                "saved_column, column, columns, packed, s)",
                "dy_column, column, columns, packed, s)",
            ),
            "dz has the rows of dy": ("dz + row * dz_row", "dz + row * dy_row"),
            "dz has the columns of dy": (
                "dz_column, column, columns, packed, false",
                "dy_column, column, columns, packed, false",
            ),
            "packs of y are read whatever the alignment": (
                "saved_column, column, columns, packed, s)",
                "saved_column, column, columns, true, s)",
            ),
            "dy and y are exchanged": (
                "sigmoid_gradient(value[e], s[e])",
                "sigmoid_gradient(s[e], value[e])",
            ),
            "the last element of a pack is left as it is": (
                "e < VECTOR; ++e",
                "e < VECTOR - 1; ++e",
            ),
            "dz is added to": ("packed, false, value", "packed, true, value"),
        },
    ),
    *planted(
        "sigmoid_backward.cu",
        (),
        {
            "rows of y begin at an offset of 32 bits": (
                "saved + row * saved_row",
                "saved + int(row * saved_row)",
            ),
        },
    ),
)
