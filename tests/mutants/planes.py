"""Bugs in planes.cuh, split_row.cuh and the kernels that make planes."""

from tests.mutants.mutant import planted

MUTANTS = (
    *planted(
        "planes.cuh",
        ("split",),
        {
            "three planes without a shift": ("SHIFT = 16;", "SHIFT = 0;"),
            "float16 planes overlap by a bit": (
                "bool WITH_EXPONENTS = true;\nconstexpr int STEP = 11;",
                "bool WITH_EXPONENTS = true;\nconstexpr int STEP = 10;",
            ),
            "bfloat16 is rounded to zero": ("__float2bfloat16_rn(x)", "__float2bfloat16_rz(x)"),
            "float16 is rounded to zero": ("__float2half_rn(x)", "__float2half_rz(x)"),
            "what is too small for planes is lost": ("joined(plane) == 0 && value != 0", "false"),
            "what is too small for planes has no sign": ("value < 0 ? 0x8001 : 0x0001", "0x0001"),
            "zeros are brought up too": ("joined(plane) == 0 && value != 0", "joined(plane) == 0"),
            "what is left of an infinity is a NaN": (
                "PLANE_COUNT == 3 || is_finite(rest) ? left : 0;",
                "left;",
            ),
            "what is left is not brought up": (
                "(rest - plane_value(plane[p])) * (1 << STEP)",
                "(rest - plane_value(plane[p]))",
            ),
            "numbers from 2^111 on are split": ("< 0x1p111f)", "< 0x1p112f)"),
            "numbers below 2^111 are kept as bits": ("< 0x1p111f)", "< 0x1p110f)"),
            "NaNs are not kept as bits": (
                "if (!(fabsf(value) < 0x1p111f))",
                "if (fabsf(value) >= 0x1p111f)",
            ),
            "a sign is large": ("fabsf(value) < 0x1p111f", "value < 0x1p111f"),
            "the halves of the bits are exchanged": (
                "static_cast<unsigned short>(bits >> 16)",
                "static_cast<unsigned short>(bits)",
            ),
            "all packs are of the first plane": (
                "packs[p].v[e] = plane[p];",
                "packs[p].v[e] = plane[0];",
            ),
            "a pack is its first element": ("split(value[e], plane);", "split(value[0], plane);"),
        },
    ),
    *planted(
        "split_row.cuh",
        ("split",),
        {
            "an exponent is applied at once": ("first = exponent / 2;", "first = exponent;"),
            "the largest numbers are rounded to 2^128": (
                "if (PLANE_COUNT == 1 && is_finite(value))",
                "if (false)",
            ),
            "infinities are the largest number": (
                "if (PLANE_COUNT == 1 && is_finite(value))",
                "if (PLANE_COUNT == 1)",
            ),
            "odd exponents are even": ("second = exponent - first;", "second = first;"),
            "an exponent is biased twice as much": (
                "unsigned(second + 127)",
                "unsigned(second + 128)",
            ),
            "exponents are applied by half": (
                "__uint_as_float(unsigned(first + 127) << 23) *\n"
                "                        __uint_as_float(unsigned(second + 127) << 23);",
                "__uint_as_float(unsigned(first + 127) << 23);",
            ),
            "elements of all planes are written to one": ("to[p * plane_stride] =", "to[0] ="),
            "only the first element of planes is written": (
                "for (int p = 0; p < PLANE_COUNT; ++p) to[",
                "for (int p = 0; p < 1; ++p) to[",
            ),
            "an element is not split": (
                "split(value, plane);",
                "split(value, plane), split(0, plane);",
            ),
            "packs of all planes are written to one": (
                "to + p * plane_stride, packs[p]",
                "to, packs[p]",
            ),
            "planes are side by side": ("to + p * plane_stride, packs[p]", "to + p * N, packs[p]"),
            "the last pack is not written": (
                "p < PLANE_COUNT; ++p) write_pack",
                "p < PLANE_COUNT - 1; ++p) write_pack",
            ),
        },
    ),
    *planted(
        "split_planes.cu",
        ("split",),
        {
            "packs overlap": (") * PACK;", ") * (PACK - 1);"),
            "every block takes the first columns": (
                "(Offset(blockIdx.x) * blockDim.x + threadIdx.x)",
                "Offset(threadIdx.x)",
            ),
            "planes have no pitch": (
                "plane_stride = rows * pitch",
                "plane_stride = rows * columns",
            ),
            "rows of planes have no pitch": ("planes + row * pitch", "planes + row * columns"),
            "exponents beyond the last column are read": (
                "      if (column + e < columns) exponent[e] =",
                "      exponent[e] =",
            ),
            "a pack has the exponent of its first column": (
                "column_exponents[column + e]",
                "column_exponents[column]",
            ),
            "rows have no exponents": ("exponent[e] + of_row", "exponent[e]"),
            "columns have no exponents": ("exponent[e] + of_row", "of_row"),
            "rows have the exponents of columns": (
                "row_exponents[row] : 0",
                "row_exponents[column] : 0",
            ),
            "only the first rows of a grid are split": (
                "row < rows; row += step",
                "row < rows; row += rows",
            ),
            "lanes take each other's rows": (
                "step = Offset(gridDim.y) * blockDim.y",
                "step = Offset(gridDim.y)",
            ),
            "one row more": ("row < rows; row += step", "row <= rows; row += step"),
            "rows of x are as long as it has columns": ("x + row * x_row,", "x + row * columns,"),
            "elements of x are side by side": (
                "x_row, x_column, column, columns",
                "x_row, 1, column, columns",
            ),
            "packs whatever the alignment": ("columns, packed, value);", "columns, true, value);"),
            "packs go beyond the end of a row": (
                "if (column + PACK <= columns)",
                "if (column < columns)",
            ),
            "an element beyond the last is written": (
                "if (column + e < columns) split_one",
                "if (column + e <= columns) split_one",
            ),
        },
    ),
    *planted(
        "split_planes.cu",
        (),
        {
            "columns are counted in 32 bits": (
                "(Offset(blockIdx.x) * blockDim.x + threadIdx.x)",
                "(blockIdx.x * blockDim.x + threadIdx.x)",
            ),
            "rows are counted in 32 bits": (
                "row = Offset(blockIdx.y) * blockDim.y",
                "row = blockIdx.y * blockDim.y",
            ),
        },
    ),
    *planted(
        "sigmoid_bias_planes.cu",
        ("split_gradient",),
        {
            "packs of y have the rows of dy": (
                "load_pack<VECTOR>(saved + row * saved_row + column)",
                "load_pack<VECTOR>(saved + row * dy_row + column)",
            ),
            "dy is taken for y": ("widen_pack(loaded.saved, s)", "widen_pack(loaded.dy, s)"),
            "y has the columns of dy": ("column * saved_column]", "column * dy_column]"),
            "db sums what is brought up": (
                "scaled_value[e] = scaled(value[e], exponent);",
                "scaled_value[e] = value[e] = scaled(value[e], exponent);",
            ),
            "packs by row have the exponent of the column": (
                "const int exponent = row_exponents[row];",
                "const int exponent = row_exponents[column];",
            ),
            "packs by column have one exponent": ("exponent.v[e]);", "exponent.v[0]);"),
            "elements by row have the exponent of the column": (
                "scaled(value, row_exponents[row])",
                "scaled(value, row_exponents[column])",
            ),
            "elements by column have the exponent of the row": (
                "scaled(value, column_exponents[column])",
                "scaled(value, column_exponents[row])",
            ),
            "packs by column go to those by row": (
                "split_pack(dz_by_column + at",
                "split_pack(dz_by_row + at",
            ),
            "elements by column go to those by row": (
                "split_one(dz_by_column + at",
                "split_one(dz_by_row + at",
            ),
            "planes by row are always wanted": ("    if (dz_by_row) split_one", "    split_one"),
            "planes by column are always wanted": ("    if (dz_by_column) {", "    {"),
            "planes have no pitch": ("n * pitch}", "n * m}"),
            "rows have no pitch": (
                "at = row * pitch + column;\n    if (!WITH_EXPONENTS) {\n      split_pack",
                "at = row * dy_row + column;\n    if (!WITH_EXPONENTS) {\n      split_pack",
            ),
            "packs whatever the alignment": (
                "column_sum(gradient, packed,",
                "column_sum(gradient, true,",
            ),
            "db is added to without being asked": ("accumulate_db != 0", "true"),
            "db has no stride": ("{partial, db, db_stride,", "{partial, db, 1,"),
        },
    ),
    *planted(
        "sigmoid_bias_planes.cu",
        (),
        {
            "elements of y at an offset of 32 bits": (
                "saved[row * saved_row + column * saved_column]",
                "saved[int(row * saved_row + column * saved_column)]",
            ),
        },
    ),
    *planted(
        "column_sum.cuh",
        ("split_gradient",),
        {
            "sums that nobody wants are stored": ("  if (!sums.db) return;\n", ""),
        },
    ),
    *planted(
        "plane_exponents.cu",
        ("split", "split_gradient"),
        {
            "exponents bring up to 2^15": ("LARGEST_EXPONENT = 13;", "LARGEST_EXPONENT = 14;"),
            "infinities count": (
                "is_finite(x) ? __float_as_uint(x) & 0x7fffffffu : 0u",
                "__float_as_uint(x) & 0x7fffffffu",
            ),
            "a sign is large": ("& 0x7fffffffu", "& 0xffffffffu"),
            "zeros have the exponent of subnormal numbers": (
                "  if (magnitude == 0) return 0;\n",
                "",
            ),
            "subnormal numbers are one": ("31 - __clz(magnitude) - 149", "-127"),
            "subnormal numbers have a bit more": ("- 149;", "- 148;"),
            "the last split goes beyond the rows": (
                "split + split_length < rows ? split + split_length : rows",
                "split + split_length",
            ),
            "every split begins at the first row": (
                "split = blockIdx.y * split_length",
                "split = 0 * split_length",
            ),
            "every second row is passed over": (
                "first += ROWS_IN_FLIGHT * blockDim.y",
                "first += 2 * ROWS_IN_FLIGHT * blockDim.y",
            ),
            "rows of x beyond the split are read": (
                "if (row < last) load_row(x",
                "load_row(x",
            ),
            "y has the rows of dy": ("saved + row * saved_row,", "saved + row * x_row,"),
            "y has the columns of dy": (
                "saved_row, saved_column, column,",
                "saved_row, x_column, column,",
            ),
            "a row's maximum is that of half of its lanes": (
                "half = blockDim.x / 2; half > 0; half /= 2)\n          of_row",
                "half = blockDim.x / 4; half > 0; half /= 2)\n          of_row",
            ),
            "a row's maximum is that of its last element": (
                "of_row = max(of_row, magnitude);",
                "of_row = magnitude;",
            ),
            "a column's maximum is that of its last element": (
                "of_column[e] = max(of_column[e], magnitude);",
                "of_column[e] = magnitude;",
            ),
            "every lane writes the row's maximum": (
                "if (threadIdx.x == 0 && row < last)",
                "if (row < last)",
            ),
            "maxima of rows beyond the split are written": (
                "if (threadIdx.x == 0 && row < last)",
                "if (threadIdx.x == 0)",
            ),
            "all blocks of columns write one maximum": (
                "row_maxima[blockIdx.x * rows + row]",
                "row_maxima[row]",
            ),
            "all splits write one maximum": (
                "column_maxima[blockIdx.y * columns + column + e]",
                "column_maxima[column + e]",
            ),
            "no barrier in the tree": ("half /= 2) {\n    __syncthreads();", "half /= 2) {"),
            "the tree ends one step early": (
                "half = blockDim.y / 2; half > 0;",
                "half = blockDim.y / 2; half > 1;",
            ),
            "columns beyond the last are written": (
                "if (column + e < columns) column_maxima",
                "column_maxima",
            ),
            "packs whatever the alignment": (
                "x_column, column, columns, packed, value[r])",
                "x_column, column, columns, true, value[r])",
            ),
            "no barrier between the lanes of parts": (
                "= largest;\n  __syncthreads();",
                "= largest;",
            ),
            "the last part is lost": ("part < parts;", "part + 1 < parts;"),
            "parts are as far apart as there are of them": (
                "part * count + index",
                "part * parts + index",
            ),
            "the last lane is lost": ("thread < THREADS_PER_SUM;", "thread < THREADS_PER_SUM - 1;"),
            "exponents beyond the last are written": (
                "if (threadIdx.y > 0 || index >= count) return;",
                "if (threadIdx.y > 0) return;",
            ),
        },
    ),
    *planted(
        "plane_exponents.cu",
        (),
        {
            "columns are counted in 32 bits": (
                "(Offset(blockIdx.x) * blockDim.x + threadIdx.x)",
                "(blockIdx.x * blockDim.x + threadIdx.x)",
            ),
            "exponents are counted in 32 bits": (
                "Offset(blockIdx.x) * SUMS + threadIdx.x",
                "blockIdx.x * SUMS + threadIdx.x",
            ),
        },
    ),
)
