"""Bugs in gemm_mma.cuh, fragments.cuh, plane_operand.cuh, their kernels, and in what they use.

Of planes.cuh, these are the bugs that products show; tests/mutants/planes.py has the others.
"""

from tests.mutants.mutant import planted

MUTANTS = (
    *planted(
        "fragments.cuh",
        ("mma.product",),
        {
            "chunks are exchanged only where they are written": (
                "+ upper_mn) ^ T::swizzle(row)",
                "+ upper_mn)",
            ),
            "pieces are added to exchanged chunks": (
                "(chunk ^ right * (16 / CHUNK))",
                "((chunk + right * (16 / CHUNK)) % T::CHUNKS)",
            ),
            "tiles along the contraction are transposed": (
                "    if (K_MAJOR)\n      ptx::ldmatrix",
                "    if (!K_MAJOR)\n      ptx::ldmatrix",
            ),
            "no tile is transposed": ("ldmatrix_x4_trans", "ldmatrix_x4"),
            "the upper rows of a piece are the lower": (
                "warp_mn + 8 * upper_mn : 8 * upper_k",
                "warp_mn : 8 * upper_k",
            ),
            "the upper terms of a piece are the lower": (
                "warp_mn + 8 * upper_mn : 8 * upper_k",
                "warp_mn + 8 * upper_mn : 0",
            ),
            "a piece down is a piece to the right": (
                "down = K_MAJOR ? i : s, right = K_MAJOR ? s : i",
                "down = K_MAJOR ? s : i, right = K_MAJOR ? i : s",
            ),
            "products are those of the other 16-bit format": (
                "#if defined(PLANES_BF16)",
                "#if !defined(PLANES_BF16)",
            ),
        },
    ),
    *planted(
        "fragments.cuh",
        ("dense_sigmoid_backward fused",),
        {
            "chunks are placed as though none were exchanged": (
                "row * COLUMNS + (chunk ^ swizzle(row)) * CHUNK",
                "row * COLUMNS + chunk * CHUNK",
            ),
        },
    ),
    *planted(
        "gemm_mma.cuh",
        ("mma.product",),
        {
            # stages and barriers
            "no barrier before a stage is multiplied": (
                "    __syncthreads();  // the stage has arrived",
                "    // the stage has arrived",
            ),
            "a stage is multiplied while it comes": (
                "cp_async_wait<STAGES - 2>",
                "cp_async_wait<STAGES - 1>",
            ),
            "the left tile is copied to the stage in use": (
                "copy_left.start(stages + next * STAGE)",
                "copy_left.start(stages + now * STAGE)",
            ),
            "the right tile is copied to the stage in use": (
                "copy_right.start(stages + next * STAGE + PLANE_COUNT * PLANE_TILE)",
                "copy_right.start(stages + now * STAGE + PLANE_COUNT * PLANE_TILE)",
            ),
            "copies in the loop are not committed": (
                "    ptx::cp_async_commit();\n    multiply_stage",
                "    multiply_stage",
            ),
            "copies before the loop are one group": (
                "    ptx::cp_async_commit();\n  }\n  int now",
                "  }\n  ptx::cp_async_commit();\n  int now",
            ),
            "the same stage is multiplied again": ("now = now + 1 < STAGES ? now + 1 : 0;", ""),
            "the last step is lost": ("k0 < last; k0 +=", "k0 + BLOCK_K < last; k0 +="),
            "the last tile is not copied": (
                "if (k0 + (STAGES - 1) * BLOCK_K < last)",
                "if (k0 + STAGES * BLOCK_K < last)",
            ),
            "every split is the first": ("first = blockIdx.y * split_length;", "first = 0;"),
            "the last split goes beyond the contraction": (
                "first + split_length < K ? first + split_length : K",
                "first + split_length",
            ),
            "sums are written where a stage is still read": (
                "  ptx::cp_async_wait<0>();\n  __syncthreads();\n",
                "  ptx::cp_async_wait<0>();\n",
            ),
            "no barrier before sums are read": (
                "__syncthreads();\n#pragma unroll 1\n  for (int quad",
                "#pragma unroll 1\n  for (int quad",
            ),
            # copies
            "chunks go beyond the end of a row": (
                "columns_left > 0 ? int(columns_left) : 0",
                "columns_left > 0 ? CHUNK : 0",
            ),
            "the last elements of a row are lost": (
                "columns_left > 0 ? int(columns_left) : 0",
                "0",
            ),
            "a row more is copied": ("i * ROW_STEP < rows_left", "i * ROW_STEP <= rows_left"),
            "all copies of a thread end as the first": (
                "i * ROW_STEP < rows_left",
                "0 < rows_left",
            ),
            "the next tile along the contraction ends as the first": (
                "    (K_MAJOR ? columns_left : rows_left) -= BLOCK_K;\n",
                "",
            ),
            "the next tile is along the row": (
                "from += K_MAJOR ? BLOCK_K : BLOCK_K * row_stride",
                "from += BLOCK_K",
            ),
            "every plane is the first": ("from + p * plane_stride + i", "from + i"),
            "planes overlay each other": ("tiles + p * PLANE_TILE + to", "tiles + to"),
            "the columns of a tile end with its rows": (
                "(K_MAJOR ? k_end : mn_end) - column",
                "(K_MAJOR ? mn_end : k_end) - column",
            ),
            "chunks are exchanged only where they are read": (
                "(c ^ T::swizzle(r)) * CHUNK",
                "c * CHUNK",
            ),
            # fragments
            "lanes bring A as they bring B": (
                "Reader<LEFT_K_MAJOR, 3> read_left",
                "Reader<LEFT_K_MAJOR, 4> read_left",
            ),
            "lanes bring B as they bring A": (
                "Reader<RIGHT_K_MAJOR, 4> read_right",
                "Reader<RIGHT_K_MAJOR, 3> read_right",
            ),
            "the columns of a pair are exchanged": (
                "{b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]}",
                "{b[j / 2][2 - j % 2 * 2], b[j / 2][3 - j % 2 * 2]}",
            ),
            "halves of the terms of B are exchanged": (
                "{b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]}",
                "{b[j / 2][j % 2 * 2 + 1], b[j / 2][j % 2 * 2]}",
            ),
            "all planes of B are its first": (
                "(PLANE_COUNT + p) * PLANE_TILE",
                "PLANE_COUNT * PLANE_TILE",
            ),
            "only the first piece of A": ("i, s, a[p][i])", "0, s, a[p][i])"),
            # products of planes
            "two planes make one product of their weight": (
                "p <= weight; ++p",
                "p <= weight; p += 2",
            ),
            "the middle pair thrice, and no other": (
                "sums.add(a[p], b[weight - p]);",
                "sums.add(a[weight > 1 ? 1 : p], b[weight > 1 ? 1 : weight - p]);",
            ),
            "products are of equal planes": ("b[weight - p]", "b[p]"),
            "products of the smallest weight are left out": (
                "weight = PLANE_COUNT - 1; weight >= 0",
                "weight = PLANE_COUNT > 2 ? 1 : PLANE_COUNT - 1; weight >= 0",
            ),
            "products beyond the last plane": (
                "weight = PLANE_COUNT - 1; weight >= 0",
                "weight = PLANE_COUNT == 2 ? 2 : PLANE_COUNT - 1; weight >= 0",
            ),
            "a promotion without its weight": ("sums.promote(WEIGHT);", "sums.promote(1);"),
            "a promotion is lost": ("        sums.promote(WEIGHT);\n", ""),
            "smaller weights stay on the tensor cores": (
                "        sums.promote(WEIGHT);\n        sums.clear(sums.part);",
                "",
            ),
            "what is promoted stays": (
                "        sums.promote(WEIGHT);\n        sums.clear(sums.part);",
                "        sums.promote(WEIGHT);",
            ),
            "planes are promoted once a stage": (
                "if (PLANE_COUNT > 1 || s == STEPS - 1) sums.promote(1);",
                "if (s == STEPS - 1) sums.promote(1);",
            ),
            "one plane is promoted after every product": (
                "if (PLANE_COUNT > 1 || s == STEPS - 1) sums.promote(1);",
                "sums.promote(1);",
            ),
            "parts are cleared once a stage": (
                "if (PLANE_COUNT > 1 || s == 0) sums.clear(sums.part);",
                "if (s == 0) sums.clear(sums.part);",
            ),
            "one plane's part is cleared at every step": (
                "if (PLANE_COUNT > 1 || s == 0) sums.clear(sums.part);",
                "sums.clear(sums.part);",
            ),
            "sums begin with what was there": ("  sums.clear(sums.sum);\n", ""),
            "a promotion forgets the sum": (
                "multiply_add(part[i][j][e], weight, sum[i][j][e])",
                "part[i][j][e] * weight",
            ),
            # where sums go
            "warps are counted along the rows": (
                "warp / WARPS_N * (BLOCK / WARPS_M)",
                "warp % WARPS_M * (BLOCK / WARPS_M)",
            ),
            "the lower rows of a product are the upper": (
                "i * MMA_M + e / 2 * 8 + lane / 4",
                "i * MMA_M + (1 - e / 2) * 8 + lane / 4",
            ),
            "the next product is in the next column": (
                "j * MMA_N + lane % 4 * 2",
                "j * 2 + lane % 4 * MMA_N",
            ),
            "one row more is written": ("if (row >= M ||", "if (row > M ||"),
        },
    ),
    *planted(
        "plane_operand.cuh",
        ("mma.product",),
        {
            "elements beyond the last column are scaled": (
                "      if (column + e < N) pack.v[e]",
                "      pack.v[e]",
            ),
            "what is not finite stays": ("  if (finite) {", "  if (true) {"),
            "finite sums beside others are not scaled": (
                "is_finite(sums[e]) ? rescaled(left, right, row, column + e, sums[e])",
                "is_finite(sums[e]) ? sums[e]",
            ),
            "finite sums beside others are repaired": ("is_finite(sums[e]) ?", "false ?"),
            "elements beyond the last column are repaired": (
                "e < 4 && column + e < N;",
                "e < 4;",
            ),
            "a split is repaired with all before it": (
                "row, column + e, first, last);",
                "row, column + e, 0, last);",
            ),
            "the first element of four is repaired": (
                "row, column + e, first, last);",
                "row, column, first, last);",
            ),
            "a plain sum ends at an infinity": (
                "k < last && sum == sum;",
                "k < last && is_finite(sum);",
            ),
            "a plain sum has the row of A in B": ("right.value(column, k)", "right.value(row, k)"),
            "values behind planes are across where they are along": (
                "K_MAJOR ? mn * row_stride + k : k * row_stride + mn",
                "K_MAJOR ? k * row_stride + mn : mn * row_stride + k",
            ),
            "the value behind planes is the first of them": ("at[i * plane_stride]", "at[0]"),
            "only rows have exponents": (
                "-left.exponent[row] - right.exponent[column]",
                "-left.exponent[row]",
            ),
            "exponents of rows and columns are exchanged": (
                "-left.exponent[row] - right.exponent[column]",
                "-left.exponent[column] - right.exponent[row]",
            ),
            "exponents have the wrong sign": (
                "-left.exponent[row] - right.exponent[column]",
                "left.exponent[row] + right.exponent[column]",
            ),
            "four columns have one exponent": ("column + e, pack.v[e]);", "column, pack.v[e]);"),
            "only one operand's shift is undone": ("UNSHIFT * UNSHIFT", "UNSHIFT"),
        },
    ),
    *planted(
        "plane_operand.cuh",
        (),
        {
            "strides of 32 bits": (
                "  Offset row_stride, plane_stride;\n  const int* exponent;",
                "  int row_stride, plane_stride;\n  const int* exponent;",
            ),
        },
    ),
    *planted(
        "gemm_mma.cuh",
        (),
        {
            "a split begins in 32 bits": (
                "const Offset first = blockIdx.y * split_length;",
                "const int first = int(blockIdx.y * split_length);",
            ),
        },
    ),
    *planted(
        "planes.cuh",
        ("mma.product",),
        {
            "a plane has the weight of the one before it": (
                "WEIGHT = 1.0f / (1 << STEP)",
                "WEIGHT = 1.0f",
            ),
            "a plane has half of its weight": (
                "WEIGHT = 1.0f / (1 << STEP)",
                "WEIGHT = 0.5f / (1 << STEP)",
            ),
            "the shift is not undone": ("UNSHIFT = 1.0f / (1 << SHIFT)", "UNSHIFT = 1.0f"),
            "the shift is undone by a bit less": (
                "UNSHIFT = 1.0f / (1 << SHIFT)",
                "UNSHIFT = 2.0f / (1 << SHIFT)",
            ),
            "planes are joined in the wrong order": (
                "for (int p = PLANE_COUNT - 1; p >= 0; --p) sum",
                "for (int p = 0; p < PLANE_COUNT; ++p) sum",
            ),
            "the last plane is not joined": (
                "for (int p = PLANE_COUNT - 1; p >= 0; --p) sum",
                "for (int p = PLANE_COUNT > 1 ? PLANE_COUNT - 2 : 0; p >= 0; --p) sum",
            ),
            "what is joined stays shifted": ("return sum * UNSHIFT;", "return sum;"),
            "bits are joined as though they were planes": (
                "  if (!is_finite(plane_value(plane[0])))\n    return",
                "  if (false)\n    return",
            ),
            "the upper half of the bits is lost": (
                "unsigned(__bfloat16_as_ushort(plane[1])) << 16 |\n"
                "                           __bfloat16_as_ushort(plane[2])",
                "__bfloat16_as_ushort(plane[2])",
            ),
            "the lower half of the bits is lost": (
                "unsigned(__bfloat16_as_ushort(plane[1])) << 16 |\n"
                "                           __bfloat16_as_ushort(plane[2])",
                "unsigned(__bfloat16_as_ushort(plane[1])) << 16",
            ),
            "the halves of the bits are joined in the wrong order": (
                "unsigned(__bfloat16_as_ushort(plane[1])) << 16 |\n"
                "                           __bfloat16_as_ushort(plane[2])",
                "unsigned(__bfloat16_as_ushort(plane[2])) << 16 |\n"
                "                           __bfloat16_as_ushort(plane[1])",
            ),
        },
    ),
    *planted(
        "matmul_backward_mma.cu",
        ("matmul_backward on tensor cores",),
        {
            "rows and planes of A are exchanged": (
                "LeftPlanes{a, a_row, a_plane,",
                "LeftPlanes{a, a_plane, a_row,",
            ),
            "rows and planes of B are exchanged": (
                "RightPlanes{b, b_row, b_plane,",
                "RightPlanes{b, b_plane, b_row,",
            ),
            "rows of B are as long as those of A": ("{b, b_row, b_plane,", "{b, a_row, b_plane,"),
            "planes of A are as large as those of B": (
                "{a, a_row, a_plane,",
                "{a, a_row, b_plane,",
            ),
            "B is A": ("RightPlanes{b,", "RightPlanes{a,"),
            "A has the exponents of B": ("a_plane, a_exponent}", "a_plane, b_exponent}"),
            "B has the exponents of A": ("b_plane, b_exponent}", "b_plane, a_exponent}"),
            "C is in packs whatever the alignment": (
                "partial, c_packed, accumulate}",
                "partial, 1, accumulate}",
            ),
            "rows and columns of C are exchanged": (
                "{c, c_m, c_n, partial",
                "{c, c_n, c_m, partial",
            ),
            "C is not added to": ("c_packed, accumulate}", "c_packed, 0}"),
            "C is always added to": ("c_packed, accumulate}", "c_packed, 1}"),
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
        "matmul_backward_mma.cu",
        (),
        {"a stride of 32 bits": ("Offset c_m,", "int c_m,")},
    ),
    *planted(
        "dense_sigmoid_mma.cu",
        ("dense_sigmoid on tensor cores",),
        {
            "rows and planes of x are exchanged": (
                "LeftPlanes{x, x_row, x_plane,",
                "LeftPlanes{x, x_plane, x_row,",
            ),
            "rows of w are as long as those of x": ("{w, w_row, w_plane,", "{w, x_row, w_plane,"),
            "planes of w are as large as those of x": (
                "{w, w_row, w_plane,",
                "{w, w_row, x_plane,",
            ),
            "w is x": ("RightPlanes{w,", "RightPlanes{x,"),
            "x has the exponents of w": ("x_plane, x_exponent}", "x_plane, w_exponent}"),
            "w has the exponents of x": ("w_plane, w_exponent}", "w_plane, x_exponent}"),
            "y is in packs whatever the alignment": ("nullptr, y_packed, 0}", "nullptr, 1, 0}"),
            "y is added to": ("y_packed, 0}", "y_packed, 1}"),
            "rows and columns of y are exchanged": ("{y, y_n, y_m,", "{y, y_m, y_n,"),
            "the contraction ends after one step": ("k > 0 ? k : 1", "BLOCK_K"),
            "rows and columns are exchanged": ("0}, n, m, k,", "0}, m, n, k,"),
            "the last term is lost": ("0}, n, m, k,", "0}, n, m, k - 1,"),
            "the bias has no stride": ("{b, b_stride, m}", "{b, 1, m}"),
            "as much bias as there are rows": ("{b, b_stride, m}", "{b, b_stride, n}"),
            "no bias": ("{b, b_stride, m}", "{nullptr, b_stride, m}"),
            "no sigmoid": ("BiasSigmoid{b, b_stride, m}", "Identity{}"),
        },
    ),
    *planted(
        "dense_sigmoid_mma.cu",
        (),
        {"a stride of 32 bits": ("Offset y_n,", "int y_n,")},
    ),
    *planted(
        "target.cuh",
        ("matmul_backward", "matmul_backward on tensor cores"),
        {
            "all splits are written to one plane": (
                "target.partial + split * M * N + row * N",
                "target.partial + row * N",
            ),
            "all rows of partial sums are the first": (
                "target.partial + split * M * N + row * N",
                "target.partial + split * M * N",
            ),
            "partial sums have the rows of C": (
                "M * N + row * N",
                "M * N + row * target.row_stride",
            ),
            "partial sums are stored in packs that are not aligned": ("N % 4 == 0", "true"),
            "partial sums are added to what was there": (
                "N % 4 == 0, false, value",
                "N % 4 == 0, true, value",
            ),
            "two splits are taken for one": ("splits > 1)", "splits > 2)"),
            "one split is taken for two": ("splits > 1)", "splits > 0)"),
            "rows and columns of C are exchanged": (
                "target.out + row * target.row_stride, target.column_stride",
                "target.out + row * target.column_stride, target.row_stride",
            ),
            "columns of C are side by side": (
                "row * target.row_stride, target.column_stride",
                "row * target.row_stride, 1",
            ),
            "C is not added to": ("target.packed, target.accumulate", "target.packed, 0"),
            "C is in packs whatever the alignment": (
                "target.packed, target.accumulate",
                "true, target.accumulate",
            ),
            "elements beyond the last column are written": (
                "column, N,\n              target.packed",
                "column, column + 4,\n              target.packed",
            ),
        },
    ),
    *planted(
        "target.cuh",
        ("dense_sigmoid", "dense_sigmoid on tensor cores"),
        {
            "the epilogue is left out": ("    epilogue(column, value);\n", ""),
            "the epilogue has the columns of the first tile": (
                "    epilogue(column, value);",
                "    epilogue(column % 64, value);",
            ),
        },
    ),
    *planted(
        "target.cuh",
        (),
        {
            "planes at an offset of 32 bits": (
                "target.partial + split * M * N + row * N",
                "target.partial + int(split * M * N) + row * N",
            ),
        },
    ),
)
