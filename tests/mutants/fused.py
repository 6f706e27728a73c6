"""Bugs in layer_rows.cuh, in kernels of a layer in one launch, and in what reduces its splits."""

from tests.mutants.mutant import planted

ONE_LAUNCH = ("dense_sigmoid_backward in one launch",)

MUTANTS = (
    *planted(
        "layer_rows.cuh",
        ONE_LAUNCH,
        {
            "a row more than there is": (
                "if (row0 + row(i) >= row_end) {",
                "if (row0 + row(i) > row_end) {",
            ),
            "packs of rows that are not aligned": (
                "matrix.packed && first + VECTOR <= column_end",
                "first + VECTOR <= column_end",
            ),
            "packs go beyond the end of a row": (
                "matrix.packed && first + VECTOR <= column_end",
                "matrix.packed",
            ),
            "columns have no stride": (
                "from[(first + e) * matrix.column_stride]",
                "from[first + e]",
            ),
            "a column more than there is": (
                "if (first + e < column_end)",
                "if (first + e <= column_end)",
            ),
            "the first columns for every block": (
                "const Offset first = column0 + column();",
                "const Offset first = column();",
            ),
            "y is read where dy is": (
                "saved.load(of_saved, row0,",
                "saved.load(of_dy, row0,",
            ),
            "the last row of a thread alone is summed": (
                "sum[e] += value[e];",
                "sum[e] = value[e];",
            ),
            "the last lane is lost": ("lane < LANES;", "lane < LANES - 1;"),
            "lanes are summed from themselves on": (
                "found += lanes[lane * COLUMNS + column]",
                "found += lanes[lane + column]",
            ),
            "every split of dw is the first": ("(blockIdx.y * k + row) * m", "row * m"),
            "every split of db is the first": (
                "db_partial + blockIdx.y * m + column",
                "db_partial + column",
            ),
            "rows beyond dw are written": ("if (row >= k) return;", ""),
            "columns beyond db are written": ("if (column >= m) return;", ""),
            "dw is not added to": ("dw_packed, accumulate_dw, value", "dw_packed, false, value"),
            "db is added to as dw is": (
                "db_stride, accumulate_db, value",
                "db_stride, accumulate_dw, value",
            ),
        },
    ),
    *planted(
        "dense_sigmoid_backward_fused_ffma.cu",
        ONE_LAUNCH,
        {
            "no barrier before the next rows": (
                "    __syncthreads();  // nobody reads the rows before\n",
                "",
            ),
            "no barrier after the next rows": (
                "    __syncthreads();\n    if (dx) {",
                "    if (dx) {",
            ),
            "no barrier before the sums of threads": (
                "    __syncthreads();\n    gradient.gather(dz_tile);",
                "    gradient.gather(dz_tile);",
            ),
            "no barrier after the sums of threads": (
                "gradient.gather(dz_tile);\n    __syncthreads();",
                "gradient.gather(dz_tile);",
            ),
            "quads of w are stored where they are not read": (
                "quad_at(w_tile + place_in_w(row, at)) =",
                "quad_at(w_tile + row * BLOCK + at * 4) =",
            ),
            "rows of w beyond the last are read": ("if (k0 + row < k)\n", "if (k0 + row <= k)\n"),
            "every block has the first rows of w": (
                "of_w.p + (k0 + row) * of_w.row_stride",
                "of_w.p + row * of_w.row_stride",
            ),
            "the last outputs are lost": ("q < outputs;", "q + 4 < outputs;"),
            "the last rows are lost": ("r < rows_left;", "r + 4 < rows_left;"),
            "rows of dx beyond the split are written": ("if (row < last)", "if (row <= last)"),
            "a thread's rows of dx are neighbours": (
                "row0 + ry + i * ROW_LANES;",
                "row0 + ry + i;",
            ),
            "every block writes the first columns of dx": (
                "dx_k, k0 + kx * 4, k,",
                "dx_k, kx * 4, k,",
            ),
            "dx is not added to": ("dx_packed, accumulate_dx, sum[i]", "dx_packed, 0, sum[i]"),
            "rows of dw are those of the first block": (
                "sums.store_dw(k0 + i / 4",
                "sums.store_dw(i / 4",
            ),
            "the last split goes beyond the rows": (
                "first + split_length < n ? first + split_length : n",
                "first + split_length",
            ),
            "the rows of a step are those before": (
                "gradient.load(of_dy, of_saved, row0 + ROWS, last, m);",
                "gradient.load(of_dy, of_saved, row0, last, m);",
            ),
            "x is that of the step before": (
                "inputs.load(of_x, row0 + ROWS, last, k0, k);",
                "inputs.load(of_x, row0, last, k0, k);",
            ),
        },
    ),
    *planted(
        "dense_sigmoid_backward_fused_ffma.cu",
        (),
        {"an extent of 32 bits": ("Offset n, Offset k, Offset m,", "int n, Offset k, Offset m,")},
    ),
    *planted(
        "reduce_splits.cu",
        ONE_LAUNCH,
        {
            "db is a row of dw": (
                "const bool of_dw = index < k * m;",
                "const bool of_dw = index <= k * m;",
            ),
            "db is summed from the partial sums of dw": (
                "of_dw ? dw_partial : db_partial",
                "dw_partial",
            ),
            "sums beyond db are written": (
                "if (threadIdx.y > 0 || own >= count) return;",
                "if (threadIdx.y > 0) return;",
            ),
            "rows and columns of dw are exchanged": (
                "own / m * dw_row + own % m * dw_column",
                "own / m * dw_column + own % m * dw_row",
            ),
            "dw is added to as db is": ("dw_column, accumulate_dw", "dw_column, accumulate_db"),
            "db has no stride": ("db + own * db_stride", "db + own"),
        },
    ),
)
