"""Bugs in column_sum.cuh, bias_backward.cu, sigmoid_bias_backward.cu and reduce_splits.cu."""

from tests.mutants.mutant import planted

MUTANTS = (
    *planted(
        "column_sum.cuh",
        ("bias_backward", "sigmoid_bias_backward"),
        {
            "no barrier in the tree": ("    __syncthreads();\n", ""),
            "a barrier for half of the lanes": (
                "__syncthreads();\n    if (threadIdx.y < half)\n",
                "if (threadIdx.y < half) __syncthreads();\n    if (threadIdx.y < half)\n",
            ),
            "the tree ends one step early": ("half > 0;", "half > 1;"),
            "the tree begins one step late": ("half = blockDim.y / 2;", "half = blockDim.y / 4;"),
            "one lane too many adds": ("if (threadIdx.y < half)\n", "if (threadIdx.y <= half)\n"),
            "a lane's partner is in its own row": (
                "smem[e][thread + half * blockDim.x]",
                "smem[e][thread + half]",
            ),
            "every lane writes the sum": ("if (threadIdx.y > 0) return;", ""),
            "the last split goes beyond the rows": (
                "split + split_length < n ? split + split_length : n",
                "split + split_length",
            ),
            "every split begins at the first row": (
                "first = split + threadIdx.y",
                "first = threadIdx.y",
            ),
            "rows in flight are added again": ("row += ROWS_IN_FLIGHT * step", "row += step"),
            "the rows in flight are not guarded": (
                "if (row + r * step < last) loaded[r]",
                "loaded[r]",
            ),
            "only the last row of a lane is left": ("sum[e] += value[e]", "sum[e] = value[e]"),
            "packs go beyond the end of a row": (
                "if (packed && column + VECTOR <= m)",
                "if (packed)",
            ),
            "packs of rows that are not aligned": (
                "if (packed && column + VECTOR <= m)",
                "if (column + VECTOR <= m)",
            ),
            "columns beyond the last are read": ("if (column + e < m)\n        for", "for"),
            "columns beyond the last are written": (
                "if (column + e < m) {",
                "if (column + e <= m) {",
            ),
            "all splits are written to one plane": (
                "partial[blockIdx.y * m + column + e]",
                "partial[column + e]",
            ),
            "two splits are taken for one": ("gridDim.y > 1)", "gridDim.y > 2)"),
            "db is written side by side": (
                "sums.db + (column + e) * sums.db_stride",
                "sums.db + column + e",
            ),
            "db is not added to": ("sums.accumulate, total", "false, total"),
            "half of the shared memory": (
                "smem[VECTOR][THREADS];",
                "smem[VECTOR][THREADS / 2];",
            ),
        },
    ),
    *planted(
        "column_sum.cuh",
        (),
        {
            "columns are counted in 32 bits": (
                "(Offset(blockIdx.x) * blockDim.x + threadIdx.x)",
                "(blockIdx.x * blockDim.x + threadIdx.x)",
            ),
        },
    ),
    *planted(
        "bias_backward.cu",
        ("bias_backward",),
        {
            "packs of consecutive rows overlap": (
                "dy + row * row_stride + column)",
                "dy + row + column)",
            ),
            "packs are read from transposed memory": (
                "dy + row * row_stride + column)",
                "dy + column * row_stride + row)",
            ),
            "rows and columns of an element are exchanged": (
                "dy[row * row_stride + column * column_stride]",
                "dy[row * column_stride + column * row_stride]",
            ),
            "elements are side by side": (
                "dy[row * row_stride + column * column_stride]",
                "dy[row * row_stride + column]",
            ),
            "strides are handed over in the wrong order": (
                "Rows{dy, dy_row, dy_column}",
                "Rows{dy, dy_column, dy_row}",
            ),
            "packs whatever the alignment": (
                "dy_column}, packed, n, m,",
                "dy_column}, true, n, m,",
            ),
            "as many columns as rows": ("packed, n, m, split_length", "packed, n, n, split_length"),
            "the rows end with the first split": (
                "packed, n, m, split_length",
                "packed, split_length, m, split_length",
            ),
            "one row less": ("packed, n, m, split_length", "packed, n - 1, m, split_length"),
            "db has no stride": ("{partial, db, db_stride,", "{partial, db, 1,"),
            "db is added to without being asked": ("accumulate != 0", "true"),
            "db is not added to": ("accumulate != 0", "false"),
        },
    ),
    *planted(
        "bias_backward.cu",
        (),
        {
            "elements at an offset of 32 bits": (
                "dy[row * row_stride + column * column_stride]",
                "dy[int(row * row_stride) + column * column_stride]",
            ),
        },
    ),
    *planted(
        "sigmoid_bias_backward.cu",
        ("sigmoid_bias_backward",),
        {
            "packs of y have the rows of dy": (
                "load_pack<VECTOR>(saved + row * saved_row + column)",
                "load_pack<VECTOR>(saved + row * dy_row + column)",
            ),
            "packs of dz have the rows of dy": (
                "dz + row * dz_row + column, accumulate",
                "dz + row * dy_row + column, accumulate",
            ),
            "packs of dz are not added to": (
                "store_pack(dz + row * dz_row + column, accumulate,",
                "store_pack(dz + row * dz_row + column, false,",
            ),
            "dy is taken for y": ("widen_pack(loaded.saved, s)", "widen_pack(loaded.dy, s)"),
            "rows and columns of dy are exchanged": (
                "dy[row * dy_row + column * dy_column]",
                "dy[row * dy_column + column * dy_row]",
            ),
            "y has the columns of dy": ("column * saved_column]", "column * dy_column]"),
            "dz has the columns of dy": (
                "row * dz_row + column * dz_column, accumulate",
                "row * dz_row + column * dy_column, accumulate",
            ),
            "an element of dz is not added to": (
                "column * dz_column, accumulate, value",
                "column * dz_column, false, value",
            ),
            "elements of dz are not written": ("if (STORE) store_one", "if (!STORE) store_one"),
            "db sums what is rounded": (
                "return value;",
                "return widen(Narrow<Element>::from(value));",
            ),
            "dz is added to where db should be": ("accumulate_dz != 0}", "accumulate_db != 0}"),
            "packs whatever the alignment": (
                "accumulate_dz != 0};\n  column_sum(gradient, packed,",
                "accumulate_dz != 0};\n  column_sum(gradient, true,",
            ),
        },
    ),
    *planted(
        "sigmoid_bias_backward.cu",
        ("dense_sigmoid_backward",),
        {
            "the sum alone stores dz too": (
                "const Gradient<false> gradient{dy,",
                "const Gradient<true> gradient{dy,",
            ),
            "the sum alone reads y by the rows of dy": (
                "nullptr, dy_row, dy_column, saved_row,",
                "nullptr, dy_row, dy_column, dy_row,",
            ),
            "the sum alone is not added to db": (
                "false};\n  column_sum(gradient, packed, n, m, split_length,\n"
                "             ColumnSums{partial, db, db_stride, accumulate_db != 0}",
                "false};\n  column_sum(gradient, packed, n, m, split_length,\n"
                "             ColumnSums{partial, db, db_stride, false}",
            ),
        },
    ),
    *planted(
        "sigmoid_bias_backward.cu",
        (),
        {
            "elements of y at an offset of 32 bits": (
                "saved[row * saved_row + column * saved_column]",
                "saved[int(row * saved_row + column * saved_column)]",
            ),
        },
    ),
    *planted(
        "reduce_splits.cu",
        ("bias_backward", "matmul_backward"),
        {
            "no barrier": ("  __syncthreads();\n", ""),
            "threads beyond the end leave before the barrier": (
                "  Accumulator sum = 0;\n  if (index < count)\n",
                "  Accumulator sum = 0;\n  if (index >= count) return 0;\n",
            ),
            "every lane adds the splits after its first": ("s += THREADS_PER_SUM", "s += 1"),
            "the last split is lost": ("s < splits;", "s + 1 < splits;"),
            "one split more": ("s < splits;", "s <= splits;"),
            "the first lane is added twice": ("int thread = 1;", "int thread = 0;"),
            "the last lane is lost": ("thread < THREADS_PER_SUM;", "thread < THREADS_PER_SUM - 1;"),
            "planes are as far apart as rows": (
                "partial[s * count + index]",
                "partial[s + index]",
            ),
            "sums beyond the end are read": (
                "  if (index < count)\n    for",
                "  for",
            ),
            "sums beyond the end are written": (
                "if (threadIdx.y > 0 || index >= count) return;",
                "if (threadIdx.y > 0) return;",
            ),
            "every lane writes": (
                "if (threadIdx.y > 0 || index >= count) return;",
                "if (index >= count) return;",
            ),
            "rows and columns of out are exchanged": (
                "index / columns * out_row + index % columns * out_column",
                "index / columns * out_column + index % columns * out_row",
            ),
            "rows are as long as columns": (
                "index / columns * out_row + index % columns * out_column",
                "index / rows * out_row + index % rows * out_column",
            ),
            "lanes and columns of the shared array are exchanged": (
                "smem[threadIdx.y][threadIdx.x] = sum;",
                "smem[threadIdx.x % THREADS_PER_SUM][threadIdx.x] = sum;",
            ),
            "out is not added to": ("out_column, accumulate, sum", "out_column, false, sum"),
        },
    ),
    *planted(
        "reduce_splits.cu",
        (),
        {
            "sums are counted in 32 bits": (
                "Offset(blockIdx.x) * SUMS + threadIdx.x;  // [0, count)",
                "blockIdx.x * SUMS + threadIdx.x;",
            ),
        },
    ),
)
