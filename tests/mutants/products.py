"""Bugs in gemm_ffma.cuh and in the kernels that are made of it."""

from tests.mutants.mutant import planted

MUTANTS = (
    *planted(
        "gemm_ffma.cuh",
        ("matmul_backward",),
        {
            "no barrier after the first tiles": (
                "right_stage.store(right.k_major, right_tile[0]);\n    __syncthreads();",
                "right_stage.store(right.k_major, right_tile[0]);",
            ),
            "no barrier after the next tiles": (
                "      __syncthreads();\n      now ^= 1;",
                "      now ^= 1;",
            ),
            "the same tiles are multiplied again": ("      now ^= 1;\n", ""),
            "the next tile overwrites the one in use": ("left_tile[now ^ 1]);", "left_tile[now]);"),
            "the last step is lost": ("k0 + BLOCK_K < last;", "k0 + 2 * BLOCK_K < last;"),
            "the last step goes beyond the contraction": (
                "left_stage.load(left, row0, k0 + BLOCK_K, M, last);",
                "left_stage.load(left, row0, k0 + BLOCK_K, M, k0 + 2 * BLOCK_K);",
            ),
            "the last split goes beyond the contraction": (
                "first + split_length < K ? first + split_length : K",
                "first + split_length",
            ),
            "every split is the first": ("first = blockIdx.y * split_length;", "first = 0;"),
            "one product of a step is lost": ("kk < BLOCK_K; ++kk", "kk < BLOCK_K - 1; ++kk"),
            "products are not added up": (
                "multiply_add(a[i], b[j], sum[i][j])",
                "multiply_add(a[i], b[j], 0)",
            ),
            "no transposition on the way to shared memory": (
                "tile[kk + e][mn] = value[h][e]",
                "tile[kk][mn + e] = value[h][e]",
            ),
            "threads place quads across the tile wrongly": (
                "quad % (BLOCK / 4) * 4;",
                "quad % (BLOCK / 4);",
            ),
            "rows of a shared tile are not aligned": ("PITCH = BLOCK + 4;", "PITCH = BLOCK + 2;"),
            "a thread reads another's rows": (
                "(BLOCK / QUADS) + ty * 4]",
                "(BLOCK / QUADS) + tx * 4]",
            ),
            "a row more of an operand": ("if (mn < mn_end)", "if (mn <= mn_end)"),
            "a term more of an operand": ("if (k < k_end)", "if (k <= k_end)"),
            "terms beyond the contraction are what was there": (
                "mn, mn_end, packed, value);\n      else\n        zero(value);",
                "mn, mn_end, packed, value);",
            ),
            "the strides of a walk along the contraction are exchanged": (
                "p + mn * mn_stride, k_stride, k",
                "p + mn * k_stride, mn_stride, k",
            ),
            "the strides of a walk across it are exchanged": (
                "p + k * k_stride, mn_stride, mn",
                "p + k * mn_stride, k_stride, mn",
            ),
            "tiles are counted along the rows": (
                "int((N + BLOCK - 1) / BLOCK)",
                "int((M + BLOCK - 1) / BLOCK)",
            ),
            "one row more is written": ("if (row >= M)", "if (row > M)"),
            "the second half of a large tile is the first": (
                "quad = h * THREADS + threadIdx.x",
                "quad = threadIdx.x",
            ),
            "rows of a large tile are taken for a small one's": (
                "i / 4 * (BLOCK / QUADS) + ty * 4 + i % 4",
                "ty * THREAD_TILE + i",
            ),
            "columns of a large tile are taken for a small one's": (
                "column0 + h * (BLOCK / QUADS) + tx * 4",
                "column0 + tx * THREAD_TILE + h * 4",
            ),
        },
    ),
    *planted(
        "gemm_ffma.cuh",
        (),
        {
            "a split begins in 32 bits": (
                "const Offset first = blockIdx.y * split_length;",
                "const int first = int(blockIdx.y * split_length);",
            ),
        },
    ),
    *planted(
        "matmul_backward_ffma.cu",
        ("matmul_backward",),
        {
            "rows and contraction of A are exchanged": (
                "Operand{a, a_m, a_k,",
                "Operand{a, a_k, a_m,",
            ),
            "columns and contraction of B are exchanged": (
                "Operand{b, b_n, b_k,",
                "Operand{b, b_k, b_n,",
            ),
            "along and packed are exchanged": ("a_k_major, a_packed}", "a_packed, a_k_major}"),
            "B is walked as A is": ("b_k_major, b_packed}", "a_k_major, b_packed}"),
            "B is in packs where A is": ("b_k_major, b_packed}", "b_k_major, a_packed}"),
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
            "as many columns as rows": (
                "accumulate}, M, N, K,",
                "accumulate}, M, M, K,",
            ),
            "the last term is lost": (
                "accumulate}, M, N, K,",
                "accumulate}, M, N, K - 1,",
            ),
            "a split is one step": ("K, split_length,", "K, BLOCK_K,"),
            "a stride of 32 bits": ("Offset c_m,", "int c_m,"),
        },
    ),
    *planted(
        "bias_sigmoid.cuh",
        ("dense_sigmoid",),
        {
            "no bias": ("value[e] + bias[e]", "value[e]"),
            "no sigmoid": ("logistic(value[e] + bias[e])", "value[e] + bias[e]"),
            "the last element has no sigmoid": ("e < 4; ++e", "e < 3; ++e"),
            "a bias that is not given is read": ("if (b != nullptr) load_row", "load_row"),
            "the bias has no stride": ("load_row(b, stride,", "load_row(b, 1,"),
            "the bias is that of the first columns": (
                "stride, column, columns",
                "stride, 0, columns",
            ),
            "the bias is read beyond its end": (
                "column, columns, false, bias",
                "column, column + 4, false, bias",
            ),
            "packs of a bias that is not aligned": ("columns, false, bias", "columns, true, bias"),
        },
    ),
    *planted(
        "bias_sigmoid.cuh",
        (),
        {"a stride of 32 bits": ("  Offset stride, columns;", "  int stride; Offset columns;")},
    ),
    *planted(
        "dense_sigmoid_ffma.cu",
        ("dense_sigmoid",),
        {
            "no bias": ("{b, b_stride, m}", "{nullptr, b_stride, m}"),
            "as much bias as there are rows": ("{b, b_stride, m}", "{b, b_stride, n}"),
            "columns and contraction of w are exchanged": (
                "Operand{w, w_m, w_k,",
                "Operand{w, w_k, w_m,",
            ),
            "w is walked as x is": ("w_k_major, w_packed}", "x_k_major, w_packed}"),
            "w is in packs where x is": ("w_k_major, w_packed}", "w_k_major, x_packed}"),
            "x is in packs where w is": ("x_k_major, x_packed}", "x_k_major, w_packed}"),
            "y is in packs where x is": ("nullptr, y_packed, 0}", "nullptr, x_packed, 0}"),
            "y is added to": ("y_packed, 0}", "y_packed, 1}"),
            "the contraction ends after one step": ("k > 0 ? k : 1", "BLOCK_K"),
            "rows and columns are exchanged": ("0}, n, m, k,", "0}, m, n, k,"),
        },
    ),
    *planted(
        "dense_sigmoid_ffma.cu",
        (),
        {"a stride of 32 bits": ("Offset b_stride,", "int b_stride,")},
    ),
    *planted(
        "gradient_operand.cuh",
        ("dense_sigmoid_backward",),
        {
            "dy and y are exchanged": (
                "sigmoid_gradient(value[e], s[e])",
                "sigmoid_gradient(s[e], value[e])",
            ),
            "the fourth element stays dy": ("e < 4; ++e", "e < 3; ++e"),
            "all elements have the first y": (
                "sigmoid_gradient(value[e], s[e])",
                "sigmoid_gradient(value[e], s[0])",
            ),
            "y is read where dy is": ("saved.load(mn, k,", "dy.load(mn, k,"),
            "y is transposed": (
                "saved.load(mn, k, mn_end, k_end, s)",
                "saved.load(k, mn, k_end, mn_end, s)",
            ),
            "the rows of y have no end": (
                "saved.load(mn, k, mn_end, k_end, s)",
                "saved.load(mn, k, mn_end + 4, k_end, s)",
            ),
            "the columns of y have no end": (
                "saved.load(mn, k, mn_end, k_end, s)",
                "saved.load(mn, k, mn_end, k_end + 4, s)",
            ),
            "dy is that of the first terms": (
                "dy.load(mn, k, mn_end, k_end, value)",
                "dy.load(mn, 0, mn_end, k_end, value)",
            ),
        },
    ),
    *planted(
        "dense_sigmoid_backward_dx_ffma.cu",
        ("dense_sigmoid_backward",),
        {
            "y has the strides of dy": (
                "{saved, saved_n, saved_m, dz_k_major",
                "{saved, dy_n, dy_m, dz_k_major",
            ),
            "y is in packs where w is": (
                "{saved, saved_n, saved_m, dz_k_major, dz_packed}",
                "{saved, saved_n, saved_m, dz_k_major, w_packed}",
            ),
            "w is not transposed": ("Operand{w, w_k, w_m,", "Operand{w, w_m, w_k,"),
            "w is in packs where dy and y are": ("w_k_major, w_packed}", "w_k_major, dz_packed}"),
            "the tile of dz is stored along the contraction": (
                "saved_m, dz_k_major, dz_packed},\n                           dz_k_major}",
                "saved_m, dz_k_major, dz_packed},\n                           !dz_k_major}",
            ),
            "dx is not added to": ("nullptr, dx_packed, accumulate}", "nullptr, dx_packed, 0}"),
            "dx ends after one step": ("n, k, m, m,", "n, k, m, BLOCK_K,"),
            "rows and columns are exchanged": ("n, k, m, m,", "k, n, m, m,"),
        },
    ),
    *planted(
        "dense_sigmoid_backward_dx_ffma.cu",
        (),
        {
            "an extent of 32 bits": (
                "int dx_packed, int accumulate, Offset n,",
                "int dx_packed, int accumulate, int n,",
            ),
        },
    ),
    *planted(
        "dense_sigmoid_backward_dw_ffma.cu",
        ("dense_sigmoid_backward",),
        {
            "dy is not transposed": ("{{dy, dy_m, dy_n,", "{{dy, dy_n, dy_m,"),
            "x is not transposed": ("Operand{x, x_k, x_n,", "Operand{x, x_n, x_k,"),
            "y has the strides of dy": (
                "{saved, saved_m, saved_n, dz_k_major",
                "{saved, dy_m, dy_n, dz_k_major",
            ),
            "dw is not added to": ("partial, dw_packed, accumulate}", "partial, dw_packed, 0}"),
            "splits have no place for their sums": (
                "dw_m, partial, dw_packed",
                "dw_m, nullptr, dw_packed",
            ),
            "the rows end with the first split": (
                "k, m, n, split_length",
                "k, m, split_length, split_length",
            ),
            "rows and columns are exchanged": ("k, m, n, split_length", "m, k, n, split_length"),
            "dw is in packs where x is": ("partial, dw_packed,", "partial, x_packed,"),
        },
    ),
)
