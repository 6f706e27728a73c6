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
                "s < STAGES; ++s, state.advance())",
                "s < 0; ++s, state.advance())",
            ),
            "the last stage is not waited for at the end": (
                "s < STAGES; ++s, state.advance())",
                "s < STAGES - 1; ++s, state.advance())",
            ),
            "one stage is waited for at the end": (
                "s < STAGES; ++s, state.advance())",
                "s < STAGES; ++s)",
            ),
            "the first block does not wait at the end": (
                "s < STAGES; ++s, state.advance())",
                "s < STAGES && coord.cta_m + coord.cta_n > 0; ++s, state.advance())",
            ),
            "clusters of four do not wait at the end": (
                "if (CLUSTER > 1) {  // until",
                "if (CLUSTER_N == 1) {  // until",
            ),
            "the producer waits for the wrong phase at the end": (
                "state.advance())\n"
                "          ptx::mbar_wait(&empty[state.stage], state.phase ^ 1);\n",
                "state.advance())\n          ptx::mbar_wait(&empty[state.stage], state.phase);\n",
            ),
            "the producer waits for the wrong phase": (
                "state.phase ^ 1);\n          ptx::mbar_expect_tx",
                "state.phase);\n          ptx::mbar_expect_tx",
            ),
            "the producer does not wait": (
                "          ptx::mbar_wait(&empty[state.stage], state.phase ^ 1);\n"
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
                "mbar_wait(&full[state.stage], state.phase)",
                "mbar_wait(&full[state.stage], state.phase ^ 1)",
            ),
            "consumers do not wait": (
                "    ptx::mbar_wait(&full[state.stage], state.phase);\n",
                "",
            ),
            "phases never change": ("      phase ^= 1;\n", ""),
            "the ring has a stage more": ("if (++stage == STAGES)", "if (++stage > STAGES)"),
            "half of the bytes are expected": (
                "mbar_expect_tx(barrier, STAGE_BYTES)",
                "mbar_expect_tx(barrier, STAGE_BYTES / 2)",
            ),
            "a stage is released while it is multiplied": (
                "    ptx::wgmma_wait(part);\n    if (weight == 0) consumer_release(",
                "    if (weight == 0) ptx::wgmma_wait<1>();\n"
                "    if (weight == 0) consumer_release(",
            ),
            "a stage is released after its smallest weight": (
                "if (weight == 0) consumer_release",
                "if (weight == PLANE_COUNT - 1) consumer_release",
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
                "full, empty, coord.left_mask() | coord.right_mask()",
                "full, empty, coord.right_mask()",
            ),
            # products
            "no fence before products": ("    if (zeroed) ptx::wgmma_fence(part);\n", ""),
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
                "zeroed = weight == 0 || weight == PLANE_COUNT - 1",
                "zeroed = weight == PLANE_COUNT - 1",
            ),
            "parts begin with what was there": ("!(zeroed && s == 0 && p == 0)", "1"),
            "every step begins from zero": ("!(zeroed && s == 0 && p == 0)", "!(zeroed && p == 0)"),
            "the smallest products are begun from zero": (
                "zeroed = weight == 0 || weight == PLANE_COUNT - 1;",
                "zeroed = true;",
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
                "for (Offset k = first; k < last; k += BLOCK_K) {",
                "for (Offset k = first; k + BLOCK_K < last; k += BLOCK_K) {",
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
                "if (k > first) consumer_release(&pipeline.empty[before]",
                "if (k > first) consumer_release(&pipeline.empty[pipeline.state.stage]",
            ),
            "the stage before is not released": (
                "    if (k > first) consumer_release(&pipeline.empty[before], "
                "pipeline.release_mask);\n",
                "",
            ),
            "the first stage is always the one before": (
                "    before = pipeline.state.stage;\n",
                "",
            ),
            "a part's only stage is the last one too": (
                "if (k > first) consumer_release",
                "consumer_release",
            ),
            "all stages are the first": (
                "    before = pipeline.state.stage;\n    pipeline.state.advance();\n",
                "    before = pipeline.state.stage;\n",
            ),
            "nobody waits for the end of a part": (
                "  }\n  ptx::wgmma_wait(part);\n",
                "  }\n",
            ),
            "the last stage of a part is not released": (
                "  ptx::wgmma_wait(part);\n"
                "  consumer_release(&pipeline.empty[before], pipeline.release_mask);\n",
                "  ptx::wgmma_wait(part);\n",
            ),
            "a part begins with what was there": ("s > 0 || k > first);", "1);"),
            "every stage begins from zero": ("s > 0 || k > first);", "s > 0);"),
            "every product begins from zero": ("s > 0 || k > first);", "k > first);"),
            "a part is not promoted": ("        promote(part, 1, sum);\n", ""),
            "the first part is the whole contraction": (
                "terms = rest < INTERVAL ? rest : INTERVAL",
                "terms = rest",
            ),
            "there is one part": ("if (SINGLE_INTERVAL) break;", "break;"),
            # descriptors
            "rows of 64 bytes are swizzled as those of 128": ("ROW == 64 ? 1 : 2", "1"),
            "rows of 128 bytes are swizzled as those of 64": ("ROW == 64 ? 1 : 2", "2"),
            "nothing is swizzled": ("SWIZZLE << 62", "0ull << 62"),
            "eight rows are as long as four": ("STRIDE_BYTES = 8 * ROW", "STRIDE_BYTES = 4 * ROW"),
            "the next chunk is the next eight rows": (
                "leading = K_MAJOR ? 16 : NEXT_ATOM * int(sizeof(Plane))",
                "leading = K_MAJOR ? 16 : STRIDE_BYTES",
            ),
            "a step along is half a step": (
                "mn * ROW + step * WGMMA_K",
                "mn * ROW + step * 8",
            ),
            "a step across is half a step": ("step * WGMMA_K * ROW;", "step * 8 * ROW;"),
            "both warpgroups have the first rows along": (
                "mn * ROW + step * WGMMA_K",
                "step * WGMMA_K",
            ),
            "both warpgroups have the first rows across": (
                "mn / ATOM_MN * NEXT_ATOM + step",
                "step",
            ),
            "all planes are the first": ("at = tile + plane * PLANE;", "at = tile;"),
            # copies
            "TMA brings the first plane alone": (
                "int(row), p, full, mask)",
                "int(row), 0, full, mask)",
            ),
            "a block by itself brings the first plane alone": (
                "int(row), p, full);",
                "int(row), 0, full);",
            ),
            "planes overlay each other": ("to + p * PLANE + c", "to + c"),
            "chunks overlay each other": ("c * NEXT_ATOM + slice", "slice"),
            "parts overlay each other": ("+ slice * SLICE * ROW;", ";"),
            "all chunks are the first": ("k : mn + c * ATOM_MN;", "k : mn;"),
            "all parts are the first": ("mn : k) + slice * SLICE;", "mn : k);"),
            "rows and columns of a box are exchanged": (
                "column = K_MAJOR ? k : mn",
                "column = !K_MAJOR ? k : mn",
            ),
            # clusters
            "blocks of a row of tiles are taken for those of a column": (
                "1u << (i * CLUSTER_M + cta_m)",
                "1u << (i + cta_m * CLUSTER_M)",
            ),
            "all columns of tiles are the first": ("<< cta_n * CLUSTER_M", "<< 0"),
            "blocks have their row's place in both ways": (
                "cta_n = rank / CLUSTER_M;",
                "cta_n = rank % CLUSTER_M;",
            ),
            "a block brings the part of the other operand": (
                "work.row0, k, coord.cta_n,",
                "work.row0, k, coord.cta_m,",
            ),
            "all blocks of a cluster have its first row of tiles": (
                "    row0 += coord.cta_m * BLOCK_M;\n",
                "",
            ),
            "all blocks of a cluster have its first column of tiles": (
                "    column0 += coord.cta_n * BLOCK_N;\n",
                "",
            ),
            "every block begins with a tile of its own": (
                "start = blockIdx.x / CLUSTER",
                "start = blockIdx.x",
            ),
            "clusters step as blocks": ("step = gridDim.x / CLUSTER", "step = gridDim.x"),
            "the last cluster across is lost": (
                "(N + CLUSTER_N * BLOCK_N - 1)",
                "(N + BLOCK_N - 1)",
            ),
            "the last cluster down is lost": (
                "(M + CLUSTER_M * BLOCK_M - 1)",
                "(M + BLOCK_M - 1)",
            ),
            # splits, and where sums go
            "every split is the first": ("first = split * split_length;", "first = 0;"),
            "the last split goes beyond the contraction": (
                "first + split_length < K ? first + split_length : K",
                "first + split_length",
            ),
            "the last step is lost": (
                "k < work.last; k += INTERVAL",
                "k + BLOCK_K < work.last; k += INTERVAL",
            ),
            "all sums are of the first split": (
                "store_sums(target, work.split",
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
            "a strip lacks its last columns": ("c < EPILOGUE_N)", "c < EPILOGUE_N - 8)"),
            "the lower rows of a product are nearer": ("r = at % 4 / 2 * 8", "r = at % 4 / 2 * 4"),
            "warps have eight rows": ("work.row0 + consumer * 16", "work.row0 + consumer * 8"),
            "one row more is written": ("if (row >= M ||", "if (row > M ||"),
            "the last strip is left out": (
                "work.column0 + c0 < N",
                "work.column0 + c0 + EPILOGUE_N < N",
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
                "{c, c_m, c_n, partial",
                "{c, c_n, c_m, partial",
            ),
            "C is not added to": ("c_packed, accumulate}", "c_packed, 0}"),
            "C is always added to": ("c_packed, accumulate}", "c_packed, 1}"),
            "splits have no place for their sums": ("c_n, partial,", "c_n, nullptr,"),
            "as many columns as rows": ("accumulate}, M, N,", "accumulate}, M, M,"),
            "the contraction is a step shorter": (
                "K, split_length, splits, Identity",
                "K - BLOCK_K, split_length, splits, Identity",
            ),
            "one split": ("split_length, splits, Identity{}", "split_length, 1, Identity{}"),
        },
    ),
    *planted(
        "matmul_backward_wgmma.cu",
        (),
        {"a stride of 32 bits": ("Offset c_m,", "int c_m,")},
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
            "no sigmoid": ("BiasSigmoid{b, b_stride, m}", "Identity{}"),
        },
    ),
    *planted(
        "dense_sigmoid_wgmma.cu",
        (),
        {"a stride of 32 bits": ("Offset y_n,", "int y_n,")},
    ),
)
