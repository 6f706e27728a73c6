"""Bugs in gemm_dmma.cuh and in the kernels that are made of it."""

from tests.mutants.mutant import planted

MUTANTS = (
    *planted(
        "gemm_dmma.cuh",
        ("dmma.product",),
        {
            "no barrier before a stage is multiplied": (
                "    __syncthreads();  // the stage has arrived",
                "    // the stage has arrived",
            ),
            "a stage is multiplied while it comes": (
                "cp_async_wait<STAGES - 2>",
                "cp_async_wait<STAGES - 1>",
            ),
            "copies go to the stage in use": (
                "(now > 0 ? now - 1 : STAGES - 1) * STAGE",
                "now * STAGE",
            ),
            "the same stage is multiplied again": (
                "now = now + 1 < STAGES ? now + 1 : 0;",
                "now = 0;",
            ),
            "copies are not committed": ("    ptx::cp_async_commit();\n", ""),
            "the last step is lost": ("k_left > 0; k_left", "k_left > BLOCK_K; k_left"),
            "tiles are copied as though they were nearer": (
                "k_left_then = k_left - (STAGES - 1) * BLOCK_K",
                "k_left_then = k_left",
            ),
            "the last tile is not copied": (
                "k_left_then = k_left - (STAGES - 1) * BLOCK_K",
                "k_left_then = k_left - STAGES * BLOCK_K",
            ),
            "the left tile stays": ("    copy_left.from += copy_left.step;\n", ""),
            "the next tile is as though the walk were along": (
                "step(BLOCK_K * operand.k_stride)",
                "step(BLOCK_K)",
            ),
            "every split is the first": ("first = blockIdx.y * split_length;", "first = 0;"),
            "the last split goes beyond the contraction": (
                "first + split_length < K ? first + split_length : K",
                "first + split_length",
            ),
            "packs whatever the alignment": ("packed(operand.packed)", "packed(1)"),
            "packs go beyond the end of a row": (
                "columns_left > 1 ? 16 : columns_left == 1 ? 8 : 0",
                "columns_left > 0 ? 16 : 0",
            ),
            "the last element of an odd row is lost": (
                "columns_left > 1 ? 16 : columns_left == 1 ? 8 : 0",
                "columns_left > 1 ? 16 : 0",
            ),
            "packs of a row more": (
                "row < rows_left ? bytes : 0",
                "row <= rows_left ? bytes : 0",
            ),
            "packs of all rows": ("row < rows_left ? bytes : 0", "bytes"),
            "packs of neighbouring rows": (
                "row = number * 2 * ROW_STEP",
                "row = number * ROW_STEP",
            ),
            "elements of a row more": (
                "row < rows_left && columns_left > 0",
                "row <= rows_left && columns_left > 0",
            ),
            "elements beyond the end of a row": (
                "row < rows_left && columns_left > 0",
                "row < rows_left",
            ),
            "half of the rows are copied": ("row += ROW_STEP)", "row += 2 * ROW_STEP)"),
            "a row is as long as the other walk's": (
                "row_stride(K_MAJOR ? operand.mn_stride : operand.k_stride)",
                "row_stride(K_MAJOR ? operand.k_stride : operand.mn_stride)",
            ),
            "a thread begins at the other walk's index": (
                "kk = K_MAJOR ? column : row;",
                "kk = K_MAJOR ? row : column;",
            ),
            "outer indices are counted from the tile": (
                "mn_end - mn < BLOCK ? int(mn_end - mn) : BLOCK",
                "mn_end - mn0 < BLOCK ? int(mn_end - mn0) : BLOCK",
            ),
            "odd rows are not shifted where they are read": (
                "T::offset(mn, kk) : T::offset(kk, mn)",
                "mn * T::PITCH + kk : kk * T::PITCH + mn",
            ),
            "the second half of a piece is the first": (
                "fragment * FRAGMENT + half * 2, kk",
                "fragment * FRAGMENT, kk",
            ),
            "halves lie one after the other": (
                "fragment * FRAGMENT + half * 2, kk",
                "fragment * FRAGMENT + half * 8, kk",
            ),
            "a lane's rows lie one after the other": ("g / 2 * 4 + g % 2", "g"),
            "warps share the columns as they do the rows": (
                "warp % WARPS_N * (BLOCK / WARPS_N)",
                "warp % WARPS_N * (BLOCK / WARPS_M)",
            ),
            "every piece of A is the first": (
                "read_left.load(left_tile, i, half, s)",
                "read_left.load(left_tile, 0, half, s)",
            ),
            "the halves of A are exchanged": (
                "read_left.load(left_tile, i, half, s)",
                "read_left.load(left_tile, i, 1 - half, s)",
            ),
            "every half of B is the first": (
                "read_right.load(right_tile, j / 2, j % 2, s)",
                "read_right.load(right_tile, j / 2, 0, s)",
            ),
            "the same terms of B": (
                "read_right.load(right_tile, j / 2, j % 2, s)",
                "read_right.load(right_tile, j / 2, j % 2, 0)",
            ),
            "all columns are multiplied by the first": ("(sum[j], a, b[j])", "(sum[j], a, b[0])"),
            "one row more is written": ("if (row < M) store", "if (row <= M) store"),
            "the sums stay where they are": (
                "= sum[p / 2][j][p % 2][e];",
                "= sum[(p - 1) / 2][j][(p - 1) % 2][e];",
            ),
            "rows of C lie one after the other": (
                "h / 2 * FRAGMENT + h % 2 * 2 + mn",
                "h * 2 + mn",
            ),
            "columns of C are exchanged": (
                "{sum[0][2 * j][0][0], sum[0][2 * j][0][1], sum[0][2 * j + 1][0][0],",
                "{sum[0][2 * j][0][0], sum[0][2 * j + 1][0][0], sum[0][2 * j][0][1],",
            ),
        },
    ),
    *planted(
        "gemm_dmma.cuh",
        (),
        {
            "a stride of 32 bits": ("  Offset row_stride, step;", "  int row_stride; Offset step;"),
            "a row of 32 bits": (
                "const Offset row = row0 + warp_row",
                "const int row = int(row0) + warp_row",
            ),
        },
    ),
    *planted(
        "matmul_backward_dmma.cu",
        ("dmma.product",),
        {
            "rows and contraction of A are exchanged": (
                "Left{a, a_m, a_k,",
                "Left{a, a_k, a_m,",
            ),
            "columns and contraction of B are exchanged": (
                "Right{b, b_n, b_k,",
                "Right{b, b_k, b_n,",
            ),
            "A is in packs where B is": ("a_k, a_packed}", "a_k, b_packed}"),
            "B is in packs where A is": ("b_k, b_packed}", "b_k, a_packed}"),
            "C is in packs where A is": (
                "partial, c_packed, accumulate}",
                "partial, a_packed, accumulate}",
            ),
            "rows and columns of C are exchanged": (
                "{c, c_m, c_n, partial",
                "{c, c_n, c_m, partial",
            ),
            "C is not added to": ("c_packed, accumulate}", "c_packed, 0}"),
            "splits have no place for their sums": ("c_n, partial,", "c_n, nullptr,"),
            "as many columns as rows": ("accumulate}, M, N,", "accumulate}, M, M,"),
            "the last term is lost": (
                "K, split_length, Identity",
                "K - 1, split_length, Identity",
            ),
            "a split is one step": ("split_length, Identity{}", "BLOCK_K, Identity{}"),
        },
    ),
    *planted(
        "matmul_backward_dmma.cu",
        (),
        {"a stride of 32 bits": ("Offset c_m,", "int c_m,")},
    ),
    *planted(
        "dense_sigmoid_dmma.cu",
        ("dmma.forward",),
        {
            "rows and contraction of x are exchanged": ("Left{x, x_n, x_k,", "Left{x, x_k, x_n,"),
            "columns and contraction of w are exchanged": (
                "Right{w, w_m, w_k,",
                "Right{w, w_k, w_m,",
            ),
            "x is in packs where w is": ("x_k, x_packed}", "x_k, w_packed}"),
            "w is in packs where x is": ("w_k, w_packed}", "w_k, x_packed}"),
            "y is in packs where x is": ("nullptr, y_packed, 0}", "nullptr, x_packed, 0}"),
            "y is added to": ("y_packed, 0}", "y_packed, 1}"),
            "rows and columns of y are exchanged": ("{y, y_n, y_m,", "{y, y_m, y_n,"),
            "the contraction ends after one step": ("n, m, k, k,", "n, m, k, BLOCK_K,"),
            "rows and columns are exchanged": ("0}, n, m, k,", "0}, m, n, k,"),
            "the last term is lost": ("0}, n, m, k,", "0}, n, m, k - 1,"),
            "the bias has no stride": ("{b, b_stride, m}", "{b, 1, m}"),
            "as much bias as there are rows": ("{b, b_stride, m}", "{b, b_stride, n}"),
            "no bias": ("{b, b_stride, m}", "{nullptr, b_stride, m}"),
            "no sigmoid": ("BiasSigmoid{b, b_stride, m}", "Identity{}"),
        },
    ),
    *planted(
        "dense_sigmoid_dmma.cu",
        (),
        {"a stride of 32 bits": ("Offset y_n,", "int y_n,")},
    ),
)
