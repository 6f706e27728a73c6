"""Bugs in layer_rows.cuh, in kernels of a layer in one launch, and in what reduces its splits."""

from tests.mutants.mutant import planted

ONE_LAUNCH = ("dense_sigmoid_backward in one launch",)

MUTANTS = (
    *planted(
        "layer_rows.cuh",
        ONE_LAUNCH,
        {
            "a row of packs more than there is": (
                "return row < row_end ? load_pack",
                "return row <= row_end ? load_pack",
            ),
            "a row of elements more than there is": (
                "if (row < row_end && column + e < column_end)",
                "if (row <= row_end && column + e < column_end)",
            ),
            "packs of rows that are not aligned": (
                "return packed && column + VECTOR <= column_end;",
                "return column + VECTOR <= column_end;",
            ),
            "packs go beyond the end of a row": (
                "return packed && column + VECTOR <= column_end;",
                "return packed;",
            ),
            "columns have no stride": ("++e, from += column_stride)", "++e, ++from)"),
            "y is read where dy is": (
                "saved_pack[i] = saved.read_whole(",
                "saved_pack[i] = dy.read_whole(",
            ),
            "y is in packs where dy is": (
                "const Offset end = dy.whole(column, m) && saved.whole(column, m) ? row_end : 0;",
                "const Offset end = dy.whole(column, m) ? row_end : 0;",
            ),
            "the last lane is lost": ("lane < LANES;", "lane < LANES - 1;"),
            "every split of dw is the first": ("(blockIdx.y * k + row) * m", "row * m"),
            "rows beyond dw are written": ("if (row >= k) return;", ""),
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
                "      });\n    __syncthreads();\n  }",
                "      });\n  }",
            ),
            "no barrier after the sums of threads": (
                "gradient.gather(dz_tile);\n    __syncthreads();",
                "gradient.gather(dz_tile);",
            ),
            "quads of w are stored where they are not read": (
                "quad_at(w_tile + place_in_w(row, at)) =",
                "quad_at(w_tile + row * BLOCK + at * 4) =",
            ),
            "the last outputs are lost": ("q < outputs;", "q + 4 < outputs;"),
            "the last row of a step is lost": ("r < ROWS;", "r < ROWS - 1;"),
            "rows of dx beyond the split are written": ("if (row < last)", "if (row <= last)"),
            "every block writes the first columns of dx": (
                "dx_k, k0 + kx * 4, k,",
                "dx_k, kx * 4, k,",
            ),
            "dx is not added to": ("dx_packed, accumulate_dx, sum[i]", "dx_packed, 0, sum[i]"),
            "the last split goes beyond the rows": (
                "first + split_length < n ? first + split_length : n",
                "first + split_length",
            ),
            "the rows of a step are those before": (
                "gradient.load(of_dy, of_saved, row0, last, m);",
                "gradient.load(of_dy, of_saved, row0 > first ? before : first, last, m);",
            ),
        },
    ),
    *planted(
        "dense_sigmoid_backward_fused_ffma.cu",
        (),
        {"an extent of 32 bits": ("Offset n, Offset k, Offset m,", "int n, Offset k, Offset m,")},
    ),
    *planted(
        "dense_sigmoid_backward_fused_mma.cu",
        ONE_LAUNCH,
        {
            "no barrier before the next rows": (
                "__syncthreads();  // nobody reads the rows before, and their dx",
                "//",
            ),
            "no barrier after the next rows": (
                "      });\n    __syncthreads();\n  }",
                "      });\n  }",
            ),
            "no barrier after the sums of threads": (
                "gradient.gather(lanes);\n    __syncthreads();",
                "gradient.gather(lanes);",
            ),
            "lanes bring dz of dx as they bring w": (
                "FragmentReader<true, OUTPUTS, 3> dz_of_dx",
                "FragmentReader<true, OUTPUTS, 4> dz_of_dx",
            ),
            "x of dw is not transposed": (
                "FragmentReader<false, INPUTS, 3> x_of_dw",
                "FragmentReader<true, INPUTS, 3> x_of_dw",
            ),
            "one piece of the contraction is all of it": (
                "w_of_dx, w_tile, q / MMA_K + s);",
                "w_of_dx, w_tile, s);",
            ),
            "sums of dx are not promoted": (
                "        sum.promote(part);\n",
                "        sum = part;\n",
            ),
            "rows of dw are promoted without those before": (
                "dw_sum.promote(part);",
                "dw_sum = part;",
            ),
            "rows of dx beyond the split are written": ("if (row < last)", "if (row <= last)"),
            "dx is not added to": ("dx_packed, accumulate_dx, pack.v", "dx_packed, 0, pack.v"),
            "every block writes the first columns of dx": (
                "k0 + c, k, dx_packed",
                "c, k, dx_packed",
            ),
        },
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
        },
    ),
)
