"""Bugs in layer_rows.cuh, in the fused backward kernels, and in what reduces its splits."""

from tests.mutants.mutant import planted

FUSED = ("dense_sigmoid_backward fused",)
FROM_PLANES = ("layers from planes", "dense_sigmoid_backward fused from planes")

MUTANTS = (
    *planted(
        "layer_rows.cuh",
        FUSED,
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
            "the last lane is lost": ("thread < THREADS_PER_SUM;", "thread < THREADS_PER_SUM - 1;"),
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
        FUSED,
        {
            "no barrier before the next rows": (
                "    __syncthreads();  // no thread reads the rows before\n",
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
                "quad_at(w_tile + swizzled(row, at)) =",
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
        FUSED,
        {
            "no barrier before the next rows": (
                "__syncthreads();  // no thread reads the rows before, and their dx",
                "//",
            ),
            "no barrier after the next rows": (
                "      });\n    __syncthreads();\n  }",
                "      });\n  }",
            ),
            "no barrier after the sums of threads": (
                "gradient.gather(smem);\n    __syncthreads();",
                "gradient.gather(smem);",
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
                "w_of_dx, w_tile.p, q / MMA_K + s);",
                "w_of_dx, w_tile.p, s);",
            ),
            "sums of dx are not promoted": (
                "        sum.promote(part);\n",
                "        sum = part;\n",
            ),
            "rows of dw are promoted without those before": (
                "dw_sum.promote(part);",
                "dw_sum = part;",
            ),
            "rows of dx beyond the split are written": (
                "        if (row < last)\n          store_row",
                "        if (row <= last)\n          store_row",
            ),
            "dx is not added to": ("dx_packed, accumulate_dx, pack.v", "dx_packed, 0, pack.v"),
            "every block writes the first columns of dx": (
                "k0 + c, k, dx_packed, accumulate_dx, pack.v",
                "c, k, dx_packed, accumulate_dx, pack.v",
            ),
        },
    ),
    *planted(
        "dense_sigmoid_backward_fused_mma.cu",
        FROM_PLANES,
        {
            "all planes are in one place": ("p + plane * PLANE + Rows", "p + Rows"),
            "halves of a chunk are in one place": (
                "offset(r, c / CHUNK) + c % CHUNK;",
                "offset(r, c / CHUNK);",
            ),
            "left planes are the first": ("left_tile + p * left_plane,", "left_tile,"),
            "right planes are the first": ("right_tile + p * right_plane,", "right_tile,"),
            "planes of dz are as far apart as those of w": (
                "sum.add_planes(dz_of_dx, dz_tile.p, GradientTile::PLANE,",
                "sum.add_planes(dz_of_dx, dz_tile.p, Weights::PLANE,",
            ),
            "what is truncated is lost": (
                "others[j][e] = -first[j][e];\n      multiply_row(others, a[0], b[0]);",
                "others[j][e] = 0;",
            ),
            "what is truncated is subtracted": (
                "others[j][e] = -first[j][e];\n      multiply_row(others, a[0], b[0]);",
                "others[j][e] = first[j][e];",
            ),
            "products of the last weight are left out": (
                "int weight = PLANE_COUNT - 1; weight > 0;",
                "int weight = PLANE_COUNT - 2; weight > 0;",
            ),
            "a product of a weight is left out": (
                "for (int p = 0; p <= weight; ++p) multiply_row(others",
                "for (int p = 0; p < weight; ++p) multiply_row(others",
            ),
            "products of the first planes are added on the tensor cores": (
                "v[i][j][e] += first[j][e] + others[j][e];",
                "v[i][j][e] = v[i][j][e] + first[j][e] + others[j][e];",
            ),
            "sums are not promoted": (
                "v[i][j][e] += first[j][e] + others[j][e];",
                "v[i][j][e] = first[j][e] + others[j][e];",
            ),
            "the last inputs are no piece": (
                "int(inputs_left + MMA_M - 1) / MMA_M",
                "int(inputs_left) / MMA_M",
            ),
            "sums keep the scale of planes": ("sum *= UNSHIFT * UNSHIFT;", "sum *= UNSHIFT;"),
            "what is not finite is left": (
                "if (!is_finite(sum)) nonfinite",
                "if (false) nonfinite",
            ),
            "the sum beside is replaced": ("if (at == one) v[", "if (at == one + 1) v["),
            "the row of a piece is that of another": (
                "exact(row(one / 4 / N, one % 4)",
                "exact(row(0, one % 4)",
            ),
            "dx of the next rows replaces": (
                "layer.dx(row0 - STEP_ROWS + dx_row + r",
                "layer.dx(row0 + dx_row + r",
            ),
            "dx beyond the last input is computed once more": (
                "if (row < last && column < k)",
                "if (row < last)",
            ),
            "dx beyond the last row is computed once more": (
                "if (row < last && column < k)",
                "if (column < k)",
            ),
            "dw of all rows replaces that of a split": (
                "dw_column + c, first, last);",
                "dw_column + c, 0, last);",
            ),
            "dw beyond its end is computed once more": ("if (row < k && column < m)", "if (true)"),
            "a pair of dx is one row below": (
                "const Offset row = row0 - STEP_ROWS + r;\n              if",
                "const Offset row = row0 - STEP_ROWS + r + 1;\n              if",
            ),
            "pairs of dx are written beyond the split": (
                "              if (row < last)\n                store_row",
                "              store_row",
            ),
            "pairs of dx are not added to": (
                "dx_packed, accumulate_dx, pair.v",
                "dx_packed, 0, pair.v",
            ),
            "no barrier before the next planes": (
                "__syncthreads();  // no thread reads the rows before, and their dx",
                "//",
            ),
            "no barrier after the next planes": (
                "      });\n    __syncthreads();\n  }",
                "      });\n  }",
            ),
        },
    ),
    *planted(
        "reduce_splits.cu",
        FUSED,
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
