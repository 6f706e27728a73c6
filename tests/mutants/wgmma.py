"""Bugs in gemm_wgmma.cuh and in the kernels that are made of it."""

from tests.mutants.mutant import planted

MUTANTS = (
    *planted(
        "gemm_wgmma.cuh",
        ("wgmma.product",),
        {
            # the ring
            "nobody waits until mbarriers are made": (
                "  if (CLUSTER > 1)\n    ptx::cluster_sync_relaxed();\n"
                "  else\n    __syncthreads();\n",
                "",
            ),
            "blocks do not wait until others' mbarriers are made": (
                "    ptx::cluster_sync_relaxed();\n  else",
                "    __syncthreads();\n  else",
            ),
            "mbarriers are not fenced": ("    ptx::fence_mbar_init();\n", ""),
            "a block goes while others tell it of stages": (
                "s < STAGES; ++s, turn.next())",
                "s < 0; ++s, turn.next())",
            ),
            "the last stage is not waited for at the end": (
                "s < STAGES; ++s, turn.next())",
                "s < STAGES - 1; ++s, turn.next())",
            ),
            "one stage is waited for at the end": (
                "s < STAGES; ++s, turn.next())",
                "s < STAGES; ++s)",
            ),
            "the first block does not wait at the end": (
                "s < STAGES; ++s, turn.next())",
                "s < STAGES && place.down + place.across > 0; ++s, turn.next())",
            ),
            "clusters of four do not wait at the end": (
                "if (CLUSTER > 1) {  // until",
                "if (CLUSTER_N == 1) {  // until",
            ),
            "the producer waits for the wrong phase at the end": (
                "turn.next())\n          ptx::mbar_wait(&empty[turn.stage], turn.phase ^ 1);\n",
                "turn.next())\n          ptx::mbar_wait(&empty[turn.stage], turn.phase);\n",
            ),
            "the producer waits for the wrong phase": (
                "turn.phase ^ 1);\n          ptx::mbar_expect_tx",
                "turn.phase);\n          ptx::mbar_expect_tx",
            ),
            "the producer does not wait": (
                "          ptx::mbar_wait(&empty[turn.stage], turn.phase ^ 1);\n"
                "          ptx::mbar_expect_tx",
                "          ptx::mbar_expect_tx",
            ),
            "the whole warp initialises mbarriers": (
                "if (warp == 0 && ptx::elect_one()) {\n    for (int s",
                "if (warp == 0) {\n    for (int s",
            ),
            "every warp initialises mbarriers": (
                "if (warp == 0 && ptx::elect_one()) {\n    for (int s",
                "if (ptx::elect_one()) {\n    for (int s",
            ),
            "the whole warp is a producer": (
                "if (warp == 0 && ptx::elect_one()) {\n      for (Offset",
                "if (warp == 0) {\n      for (Offset",
            ),
            "every warp of the first warpgroup has a producer": (
                "if (warp == 0 && ptx::elect_one()) {\n      for (Offset",
                "if (ptx::elect_one()) {\n      for (Offset",
            ),
            "all threads of a block by itself tell of a stage": (
                "if (ptx::elect_one()) ptx::mbar_arrive(empty);",
                "ptx::mbar_arrive(empty);",
            ),
            "consumers wait for the wrong phase": (
                "mbar_wait(&full[turn.stage], turn.phase)",
                "mbar_wait(&full[turn.stage], turn.phase ^ 1)",
            ),
            "consumers do not wait": (
                "    ptx::mbar_wait(&full[turn.stage], turn.phase);\n",
                "",
            ),
            "phases never change": ("      phase ^= 1;\n", ""),
            "the ring has a stage more": ("if (++stage == STAGES)", "if (++stage > STAGES)"),
            "half of the bytes are expected": (
                "mbar_expect_tx(barrier, STAGE_BYTES)",
                "mbar_expect_tx(barrier, STAGE_BYTES / 2)",
            ),
            "a stage is released while it is multiplied": (
                "    ptx::wgmma_wait(part);\n    if (weight == 0) release(",
                "    if (weight == 0) ptx::wgmma_wait<1>();\n    if (weight == 0) release(",
            ),
            "a stage is released after its smallest weight": (
                "if (weight == 0) release",
                "if (weight == PLANE_COUNT - 1) release",
            ),
            "a stage is empty when a warp of each consumer has multiplied it": (
                "(CLUSTER_M + CLUSTER_N - 1) * CONSUMERS * 4)",
                "(CLUSTER_M + CLUSTER_N - 1) * CONSUMERS)",
            ),
            "a stage is empty when one block has multiplied it": (
                "(CLUSTER_M + CLUSTER_N - 1) * CONSUMERS * 4)",
                "CONSUMERS * 4)",
            ),
            "a block tells itself as often as others": (
                "ptx::mbar_arrive_cluster(empty, lane);",
                "ptx::mbar_arrive(empty);",
            ),
            "blocks of one row of tiles are not told": (
                "full, empty, place.row() | place.column()",
                "full, empty, place.column()",
            ),
            # products
            "no fence before products": ("    if (afresh) ptx::wgmma_fence(part);\n", ""),
            "products are not committed": (
                "    if (weight > 1) continue;  // the next products are added to these\n"
                "    ptx::wgmma_commit();\n",
                "    if (weight > 1) continue;  // the next products are added to these\n",
            ),
            "nobody waits for products": ("    ptx::wgmma_wait(part);\n", ""),
            "warpgroups ask for more registers than there are": (
                "CONSUMER_REGISTERS = 232",
                "CONSUMER_REGISTERS = 248",
            ),
            "the producer keeps its registers": (
                "    ptx::setmaxnreg_dec<PRODUCER_REGISTERS>();\n",
                "",
            ),
            "two planes make one product of their weight": (
                "p <= weight; ++p",
                "p <= weight; p += 2",
            ),
            "products are of equal planes": (
                "LEFT_STAGE, weight - p, 0, s)",
                "LEFT_STAGE, p, 0, s)",
            ),
            "products of the smallest weight are left out": (
                "weight = PLANE_COUNT - 1; weight >= 0",
                "weight = PLANE_COUNT > 2 ? 1 : PLANE_COUNT - 1; weight >= 0",
            ),
            "what is promoted stays": (
                "afresh = weight == 0 || weight == PLANE_COUNT - 1",
                "afresh = weight == PLANE_COUNT - 1",
            ),
            "parts begin with what was there": ("!(afresh && s == 0 && p == 0)", "1"),
            "every step begins afresh": ("!(afresh && s == 0 && p == 0)", "!(afresh && p == 0)"),
            "the smallest products are begun afresh": (
                "afresh = weight == 0 || weight == PLANE_COUNT - 1;",
                "afresh = true;",
            ),
            "a promotion without its weight": ("weight == 1 ? WEIGHT : 1.0f", "1.0f"),
            "a promotion forgets the sum": (
                "multiply_add(part[i], weight, sum[i])",
                "part[i] * weight",
            ),
            "a promotion is lost": ("if (weight > 1) continue;", "if (weight > 0) continue;"),
            "sums begin with those of the tile before": (
                "      for (int i = 0; i < SUMS; ++i) sum[i] = part[i] = 0;",
                "      for (int i = 0; i < SUMS && index == start; ++i) sum[i] = part[i] = 0;",
            ),
            # of one plane
            "the last stage of a part is lost": (
                "for (Offset q = first; q < last; q += BLOCK_K) {",
                "for (Offset q = first; q + BLOCK_K < last; q += BLOCK_K) {",
            ),
            "no fence before a stage of one plane": (
                "    ptx::wgmma_fence(part);\n#pragma",
                "#pragma",
            ),
            "a stage of one plane is not committed": (
                "    ptx::wgmma_commit();\n    ptx::wgmma_wait<1>();\n",
                "    ptx::wgmma_wait<1>();\n",
            ),
            "nobody waits for the stage before": ("    ptx::wgmma_wait<1>();\n", ""),
            "all but two stages are waited for": ("ptx::wgmma_wait<1>();", "ptx::wgmma_wait<2>();"),
            "the stage that is multiplied is released": (
                "if (q > first) release(&ring.empty[before]",
                "if (q > first) release(&ring.empty[ring.turn.stage]",
            ),
            "the stage before is not released": (
                "    if (q > first) release(&ring.empty[before], ring.sharing);\n",
                "",
            ),
            "the first stage is always the one before": ("    before = ring.turn.stage;\n", ""),
            "a part's only stage is the last one too": ("if (q > first) release", "release"),
            "all stages are the first": (
                "    before = ring.turn.stage;\n    ring.turn.next();\n",
                "    before = ring.turn.stage;\n",
            ),
            "nobody waits for the end of a part": (
                "  }\n  ptx::wgmma_wait(part);\n",
                "  }\n",
            ),
            "the last stage of a part is not released": (
                "  ptx::wgmma_wait(part);\n  release(&ring.empty[before], ring.sharing);\n",
                "  ptx::wgmma_wait(part);\n",
            ),
            "a part begins with what was there": ("s > 0 || q > first);", "1);"),
            "every stage begins afresh": ("s > 0 || q > first);", "s > 0);"),
            "every product begins afresh": ("s > 0 || q > first);", "q > first);"),
            "a part is not promoted": ("        promote(part, 1, sum);\n", ""),
            "the first part is the whole contraction": (
                "terms = rest < MAX_PART ? rest : MAX_PART",
                "terms = rest",
            ),
            "there is one part": ("if (IN_ONE_PART) break;", "break;"),
            # descriptors
            "rows of 64 bytes are swizzled as those of 128": ("ROW == 64 ? 1 : 2", "1"),
            "rows of 128 bytes are swizzled as those of 64": ("ROW == 64 ? 1 : 2", "2"),
            "nothing is swizzled": ("SWIZZLE << 62", "0ull << 62"),
            "eight rows are as long as four": ("EIGHT_ROWS = 8 * ROW", "EIGHT_ROWS = 4 * ROW"),
            "the next chunk is the next eight rows": (
                "leading = ALONG ? 16 : NEXT_CHUNK * int(sizeof(Plane))",
                "leading = ALONG ? 16 : EIGHT_ROWS",
            ),
            "a step along is half a step": (
                "outer * ROW + step * WGMMA_K",
                "outer * ROW + step * 8",
            ),
            "a step across is half a step": ("step * WGMMA_K * ROW;", "step * 8 * ROW;"),
            "both warpgroups have the first rows along": (
                "outer * ROW + step * WGMMA_K",
                "step * WGMMA_K",
            ),
            "both warpgroups have the first rows across": (
                "outer / CHUNK * NEXT_CHUNK + step",
                "step",
            ),
            "all planes are the first": ("at = tile + plane * PLANE;", "at = tile;"),
            # copies
            "TMA brings the first plane alone": (
                "int(row), p, full, blocks)",
                "int(row), 0, full, blocks)",
            ),
            "a block by itself brings the first plane alone": (
                "int(row), p, full);",
                "int(row), 0, full);",
            ),
            "planes overlay each other": ("to + p * PLANE + c", "to + c"),
            "chunks overlay each other": ("c * NEXT_CHUNK + part", "part"),
            "parts overlay each other": (" + part * PART * ROW;", ";"),
            "all chunks are the first": ("q : outer + c * CHUNK;", "q : outer;"),
            "all parts are the first": ("outer : q) + part * PART;", "outer : q);"),
            "rows and columns of a box are exchanged": (
                "column = ALONG ? q : outer",
                "column = !ALONG ? q : outer",
            ),
            # clusters
            "blocks of a row of tiles are taken for those of a column": (
                "1u << (i * CLUSTER_M + down)",
                "1u << (i + down * CLUSTER_M)",
            ),
            "all columns of tiles are the first": ("<< across * CLUSTER_M", "<< 0"),
            "blocks have their row's place in both ways": (
                "across = rank / CLUSTER_M;",
                "across = rank % CLUSTER_M;",
            ),
            "a block brings the part of the other operand": (
                "share.row0, q, place.across,",
                "share.row0, q, place.down,",
            ),
            "all blocks of a cluster have its first row of tiles": (
                "    row0 += place.down * BLOCK_M;\n",
                "",
            ),
            "all blocks of a cluster have its first column of tiles": (
                "    column0 += place.across * BLOCK_N;\n",
                "",
            ),
            "every block begins with a tile of its own": (
                "start = blockIdx.x / CLUSTER",
                "start = blockIdx.x",
            ),
            "clusters step as blocks": ("step = gridDim.x / CLUSTER", "step = gridDim.x"),
            "the last cluster across is lost": (
                "(columns + CLUSTER_N * BLOCK_N - 1)",
                "(columns + BLOCK_N - 1)",
            ),
            "the last cluster down is lost": (
                "(rows + CLUSTER_M * BLOCK_M - 1)",
                "(rows + BLOCK_M - 1)",
            ),
            # splits, and where sums go
            "every split is the first": ("first = split * split_length;", "first = 0;"),
            "the last split goes beyond the contraction": (
                "first + split_length < contraction ? first + split_length : contraction",
                "first + split_length",
            ),
            "the last step is lost": (
                "q < share.last; q += PLANE_COUNT",
                "q + BLOCK_K < share.last; q += PLANE_COUNT",
            ),
            "all sums are of the first split": (
                "store_sums(target, share.split",
                "store_sums(target, 0",
            ),
            "a strip is overwritten while it is read": (
                "    __syncwarp();\n#pragma unroll\n    for (int at",
                "#pragma unroll\n    for (int at",
            ),
            "a strip is read while it is written": (
                "    __syncwarp();\n#pragma unroll 1\n    for (int quad",
                "#pragma unroll 1\n    for (int quad",
            ),
            "a strip lacks its last columns": ("c < STRIP)", "c < STRIP - 8)"),
            "the lower rows of a product are nearer": ("r = at % 4 / 2 * 8", "r = at % 4 / 2 * 4"),
            "warps have eight rows": ("share.row0 + consumer * 16", "share.row0 + consumer * 8"),
            "one row more is written": ("if (row >= rows ||", "if (row > rows ||"),
            "the last strip is left out": (
                "share.column0 + c0 < columns",
                "share.column0 + c0 + STRIP < columns",
            ),
        },
    ),
    *planted(
        "gemm_wgmma.cuh",
        (),
        {
            "a split begins in 32 bits": (
                "first = split * split_length;",
                "first = int(split * split_length);",
            ),
        },
    ),
    *planted(
        "matmul_backward_wgmma.cu",
        ("matmul_backward by warpgroups",),
        {
            "the maps are exchanged": ("gemm_wgmma(a_map, b_map,", "gemm_wgmma(b_map, a_map,"),
            "rows and planes of A are exchanged": (
                "LeftPlanes{a, a_row, a_plane,",
                "LeftPlanes{a, a_plane, a_row,",
            ),
            "rows of B are as long as those of A": ("{b, b_row, b_plane,", "{b, a_row, b_plane,"),
            "B is A": ("RightPlanes{b,", "RightPlanes{a,"),
            "A has the exponents of B": ("a_plane, a_exponent}", "a_plane, b_exponent}"),
            "B has the exponents of A": ("b_plane, b_exponent}", "b_plane, a_exponent}"),
            "C is in packs whatever the alignment": (
                "partial, c_packed, accumulate}",
                "partial, 1, accumulate}",
            ),
            "rows and columns of C are exchanged": (
                "{c, c_row, c_column, partial",
                "{c, c_column, c_row, partial",
            ),
            "C is not added to": ("c_packed, accumulate}", "c_packed, 0}"),
            "C is always added to": ("c_packed, accumulate}", "c_packed, 1}"),
            "splits have no place for their sums": ("c_column, partial,", "c_column, nullptr,"),
            "as many columns as rows": ("accumulate}, rows, columns,", "accumulate}, rows, rows,"),
            "the contraction is a step shorter": (
                "contraction, split_length, splits, S",
                "contraction - BLOCK_K, split_length, splits, S",
            ),
            "one split": ("split_length, splits, Same{}", "split_length, 1, Same{}"),
        },
    ),
    *planted(
        "matmul_backward_wgmma.cu",
        (),
        {"a stride of 32 bits": ("Offset c_row,", "int c_row,")},
    ),
    *planted(
        "dense_sigmoid_wgmma.cu",
        ("dense_sigmoid by warpgroups",),
        {
            "the maps are exchanged": ("gemm_wgmma(x_map, w_map,", "gemm_wgmma(w_map, x_map,"),
            "rows and planes of x are exchanged": (
                "LeftPlanes{x, x_row, x_plane,",
                "LeftPlanes{x, x_plane, x_row,",
            ),
            "w is x": ("RightPlanes{w,", "RightPlanes{x,"),
            "x has the exponents of w": ("x_plane, x_exponent}", "x_plane, w_exponent}"),
            "w has the exponents of x": ("w_plane, w_exponent}", "w_plane, x_exponent}"),
            "y is in packs whatever the alignment": ("nullptr, y_packed, 0}", "nullptr, 1, 0}"),
            "y is added to": ("y_packed, 0}", "y_packed, 1}"),
            "rows and columns of y are exchanged": ("{y, y_n, y_m,", "{y, y_m, y_n,"),
            "the contraction ends after one step": ("k > 0 ? k : 1, 1,", "BLOCK_K, 1,"),
            "rows and columns are exchanged": ("0}, n, m, k,", "0}, m, n, k,"),
            "the bias has no stride": ("{b, b_stride, m}", "{b, 1, m}"),
            "as much bias as there are rows": ("{b, b_stride, m}", "{b, b_stride, n}"),
            "no bias": ("{b, b_stride, m}", "{nullptr, b_stride, m}"),
            "no sigmoid": ("BiasSigmoid{b, b_stride, m}", "Same{}"),
        },
    ),
    *planted(
        "dense_sigmoid_wgmma.cu",
        (),
        {"a stride of 32 bits": ("Offset y_n,", "int y_n,")},
    ),
)
