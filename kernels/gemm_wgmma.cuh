// GEMM C = A B on Hopper's tensor cores (wgmma), for operands that are 16-bit planes.
//
// Persistent, warp-specialised: of three warpgroups, the first is the producer, whose elected
// thread loads tiles of all planes of A and B by TMA into a pipeline of STAGES in shared memory;
// each of the two consumers multiplies its 64 rows of a BLOCK_M × BLOCK_N tile of C. A stage has
// two mbarriers: `full` completes when its bytes have arrived, `empty` when all consumers have
// released it. A CTA computes one tile after another, and the producer runs ahead into the next.
//
// A cluster is CLUSTER_M × CLUSTER_N CTAs with adjacent tiles. CTAs adjacent in M need the same
// tile of B: each loads a slice of it and multicasts it to all of them. CTAs adjacent in N do so
// with A. Without multicast, L2 bandwidth is the limit. A stage is empty when all CTAs that share
// one of its tiles have released it. All CTAs of a cluster fill equally many stages, and all bytes
// and remote arrivals for a CTA are in when all of its stages are empty: its producer waits for
// that before the CTA exits. A stage that was never filled is empty.
//
// Weights, promotion and non-finite elements are as in gemm_mma.cuh, but for the promotion
// interval. With two or three planes it is BLOCK_K: of two planes, the tensor cores add all of its
// terms of one pair, 16 at a time, and then those of the next two pairs; while one warpgroup
// promotes, the tensor cores work for the other. With one plane it is PROMOTION_INTERVAL: the
// rounding of the inputs or of the result to 16 bits is more than what the tensor cores truncate
// over so many terms. The products of the next stage are queued before those of the current one are
// complete. A tile of 256 columns leaves no registers for promoted sums: SINGLE_INTERVAL, for K, or
// splits of it, up to PROMOTION_INTERVAL.
//
// An element of C is one sum over K (of one split of it) in ascending order: its bits depend
// neither on BLOCK_N nor on its position in the tile.
#pragma once
#include "plane_operand.cuh"
#include "ptx.cuh"
#include "target.cuh"
#include "tiles.cuh"

constexpr int WARPGROUP = 128;  // threads
constexpr int WGMMA_M = 64, WGMMA_K = 16;
constexpr int CONSUMERS = BLOCK_M / WGMMA_M;  // warpgroups
constexpr int STEPS = BLOCK_K / WGMMA_K;
constexpr int INTERVAL = PLANE_COUNT == 1 ? PROMOTION_INTERVAL : BLOCK_K;  // of promotion
constexpr int SUMS = BLOCK_N / 2;  // accumulators of a thread
constexpr int CLUSTER = CLUSTER_M * CLUSTER_N;  // CTAs

constexpr int LEFT_STAGE = PLANE_COUNT * BLOCK_M * BLOCK_K;  // elements
constexpr int RIGHT_STAGE = PLANE_COUNT * BLOCK_N * BLOCK_K;
constexpr int STAGE = LEFT_STAGE + RIGHT_STAGE;
constexpr int STAGE_BYTES = STAGE * int(sizeof(Plane));
constexpr int EPILOGUE_PITCH = EPILOGUE_N + PADDING;  // of a row of an epilogue stage
constexpr int EPILOGUE_STAGE_BYTES = 16 * EPILOGUE_PITCH * int(sizeof(float));
constexpr int EPILOGUE_BYTES = CONSUMERS * 4 * EPILOGUE_STAGE_BYTES;
constexpr int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static_assert(THREADS == (1 + CONSUMERS) * WARPGROUP && CONSUMERS == 2, "and a producer");
static_assert(BLOCK_N % ATOM_MN == 0 && BLOCK_N <= (SINGLE_INTERVAL ? 256 : 192),
              "a warpgroup has registers for 256 columns, of promoted sums for 192");
static_assert(PLANE_COUNT == 1 || !SINGLE_INTERVAL, "sums of several planes are promoted");
static_assert(SHARED_BYTES == STAGES * (STAGE_BYTES + 16) + EPILOGUE_BYTES,
              "stages with two mbarriers each, and epilogue stages");
static_assert(PROMOTION_INTERVAL % BLOCK_K == 0, "an interval is whole stages");
static_assert(STAGES >= 3, "each consumer multiplies one stage while one is in flight");
static_assert(STAGE_BYTES < 1 << 20, "the tx-count of an mbarrier holds the bytes of a stage");

// A CUtensorMap, encoded by the driver.
struct alignas(128) TensorMap {
  unsigned long long opaque[16];
};

// An operand's tile of EXTENT indices of M or N in shared memory, plane after plane. K-major: a row
// is an index of M or N and holds BLOCK_K elements. MN-major: a row is an index of K and holds
// ATOM_MN elements; swizzle atoms follow each other along K, then along M or N. The swizzle is over
// 128 or 64 bytes, of 16-byte units. SLICES CTAs load a slice of the rows each.
template <bool K_MAJOR, int EXTENT, int SLICES>
struct WgmmaTile {
  static constexpr int ROW = K_MAJOR ? BLOCK_K : ATOM_MN;              // elements
  static constexpr int SLICE = (K_MAJOR ? EXTENT : BLOCK_K) / SLICES;  // rows
  static constexpr int ATOMS = K_MAJOR ? 1 : EXTENT / ATOM_MN;         // along M or N
  static constexpr int NEXT_ATOM = BLOCK_K * ATOM_MN;                  // elements
  static constexpr int PLANE = EXTENT * BLOCK_K;
  static constexpr int STRIDE_BYTES = 8 * ROW * int(sizeof(Plane));  // of eight rows
  static constexpr unsigned long long SWIZZLE = ROW == 64 ? 1 : 2;   // over 128 or 64 bytes
  static_assert(SLICE % 8 == 0, "slices are swizzled as the whole tile");

  // Loads a slice of the tile at (mn, k) of every plane into the CTAs of the multicast mask.
  static __device__ __forceinline__ void load(Plane* to, const TensorMap* map, Offset mn, Offset k,
                                              int slice, unsigned short mask, void* full) {
#pragma unroll
    for (int p = 0; p < PLANE_COUNT; ++p)
#pragma unroll
      for (int c = 0; c < ATOMS; ++c) {
        Plane* const at = to + p * PLANE + c * NEXT_ATOM + slice * SLICE * ROW;
        const Offset column = K_MAJOR ? k : mn + c * ATOM_MN;
        const Offset row = (K_MAJOR ? mn : k) + slice * SLICE;
        if (SLICES == 1)
          ptx::tma_load_3d(at, map, int(column), int(row), p, full);
        else
          ptx::tma_load_3d_multicast(at, map, int(column), int(row), p, full, mask);
      }
  }

  // The matrix descriptor from index mn of M or N on, a multiple of 64, and index 16 step of K.
  static __device__ __forceinline__ unsigned long long descriptor(const Plane* tile, int plane,
                                                                  int mn, int step) {
    const Plane* at = tile + plane * PLANE;
    at += K_MAJOR ? mn * ROW + step * WGMMA_K : mn / ATOM_MN * NEXT_ATOM + step * WGMMA_K * ROW;
    const unsigned leading = K_MAJOR ? 16 : NEXT_ATOM * int(sizeof(Plane));  // bytes
    return (unsigned long long)(ptx::smem_u32(at) >> 4 & 0x3fff) |
           (unsigned long long)(leading >> 4) << 16 |
           (unsigned long long)(STRIDE_BYTES >> 4) << 32 | SWIZZLE << 62;
  }
};

// The stage of a warpgroup and the parity of its phase.
struct PipelineState {
  int stage = 0;
  unsigned phase = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// A CTA's coordinates in its cluster.
struct ClusterCoord {
  int cta_m, cta_n;
  __device__ __forceinline__ ClusterCoord() {
    const int rank = CLUSTER > 1 ? int(ptx::cluster_rank()) : 0;
    cta_m = rank % CLUSTER_M;
    cta_n = rank / CLUSTER_M;
  }
  // Multicast masks: the CTAs adjacent in N, which share A, and those adjacent in M, which share B.
  __device__ __forceinline__ unsigned left_mask() const {
    unsigned mask = 0;
#pragma unroll
    for (int i = 0; i < CLUSTER_N; ++i) mask |= 1u << (i * CLUSTER_M + cta_m);
    return mask;
  }
  __device__ __forceinline__ unsigned right_mask() const {
    return ((1u << CLUSTER_M) - 1) << cta_n * CLUSTER_M;
  }
};

// A CTA's tile of C and split of K: [first, last).
struct WorkTile {
  Offset split, row0, column0, first, last;

  __device__ __forceinline__ static Offset cluster_tiles(Offset M, Offset N) {
    return ((M + CLUSTER_M * BLOCK_M - 1) / (CLUSTER_M * BLOCK_M)) *
           ((N + CLUSTER_N * BLOCK_N - 1) / (CLUSTER_N * BLOCK_N));
  }
  __device__ __forceinline__ WorkTile(Offset index, const ClusterCoord& coord, Offset M, Offset N,
                                      Offset K, Offset split_length) {
    const Offset tiles = cluster_tiles(M, N);
    split = index / tiles;
    tile_origin<CLUSTER_M * BLOCK_M, CLUSTER_N * BLOCK_N>(index % tiles, M, N, row0, column0);
    row0 += coord.cta_m * BLOCK_M;
    column0 += coord.cta_n * BLOCK_N;
    first = split * split_length;
    last = first + split_length < K ? first + split_length : K;
  }
};

template <bool A_MN_MAJOR, bool B_MN_MAJOR>
__device__ __forceinline__ void multiply(float (&d)[SUMS], unsigned long long a,
                                         unsigned long long b, int scale_d) {
#if defined(PLANES_BF16)
  ptx::wgmma_bf16<BLOCK_N, A_MN_MAJOR, B_MN_MAJOR>(d, a, b, scale_d);
#else
  ptx::wgmma_f16<BLOCK_N, A_MN_MAJOR, B_MN_MAJOR>(d, a, b, scale_d);
#endif
}

// Arrives for a warp at `empty` of a stage, in all CTAs that load slices of it.
__device__ __forceinline__ void consumer_release(void* empty, unsigned release_mask) {
  const unsigned lane = threadIdx.x % 32;
  if (CLUSTER == 1) {
    if (ptx::elect_one()) ptx::mbar_arrive(empty);
  } else if (lane < CLUSTER && release_mask >> lane & 1) {
    ptx::mbar_arrive_cluster(empty, lane);
  }
}

__device__ __forceinline__ void promote(const float (&part)[SUMS], float weight,
                                        float (&sum)[SUMS]) {
#pragma unroll
  for (int i = 0; i < SUMS; ++i) sum[i] = multiply_add(part[i], weight, sum[i]);
}

// A consumer's view of the pipeline.
struct Pipeline {
  const Plane* stages;
  unsigned long long *full, *empty;
  unsigned release_mask;  // CTAs whose stages this one releases
  PipelineState state;

  // Waits until the next stage is full.
  __device__ __forceinline__ const Plane* consumer_wait() const {
    ptx::mbar_wait(&full[state.stage], state.phase);
    return stages + state.stage * STAGE;
  }
};

// part = left right over [first, last) of K, at most PROMOTION_INTERVAL, of one plane, for the
// warpgroup's rows from `mn` on. A stage is released when the next one's products have been issued.
template <bool LEFT_K_MAJOR, bool RIGHT_K_MAJOR>
__device__ __forceinline__ void multiply_interval(Pipeline& pipeline, int mn, Offset first,
                                                  Offset last, float (&part)[SUMS]) {
  typedef WgmmaTile<LEFT_K_MAJOR, BLOCK_M, CLUSTER_N> Left;
  typedef WgmmaTile<RIGHT_K_MAJOR, BLOCK_N, CLUSTER_M> Right;
  int before = 0;  // the stage before
#pragma unroll 1
  for (Offset k = first; k < last; k += BLOCK_K) {
    const Plane* const stage = pipeline.consumer_wait();
    ptx::wgmma_fence(part);
#pragma unroll
    for (int s = 0; s < STEPS; ++s)
      multiply<!LEFT_K_MAJOR, !RIGHT_K_MAJOR>(part, Left::descriptor(stage, 0, mn, s),
                                              Right::descriptor(stage + LEFT_STAGE, 0, 0, s),
                                              s > 0 || k > first);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    if (k > first) consumer_release(&pipeline.empty[before], pipeline.release_mask);
    before = pipeline.state.stage;
    pipeline.state.advance();
  }
  ptx::wgmma_wait(part);
  consumer_release(&pipeline.empty[before], pipeline.release_mask);
}

// sum += left right over one stage of several planes.
template <bool LEFT_K_MAJOR, bool RIGHT_K_MAJOR>
__device__ __forceinline__ void multiply_stage(Pipeline& pipeline, int mn, float (&part)[SUMS],
                                               float (&sum)[SUMS]) {
  typedef WgmmaTile<LEFT_K_MAJOR, BLOCK_M, CLUSTER_N> Left;
  typedef WgmmaTile<RIGHT_K_MAJOR, BLOCK_N, CLUSTER_M> Right;
  const Plane* const stage = pipeline.consumer_wait();
#pragma unroll
  for (int weight = PLANE_COUNT - 1; weight >= 0; --weight) {
    const bool zeroed = weight == 0 || weight == PLANE_COUNT - 1;
    if (zeroed) ptx::wgmma_fence(part);
#pragma unroll
    for (int s = 0; s < STEPS; ++s)
#pragma unroll
      for (int p = 0; p <= weight; ++p)
        multiply<!LEFT_K_MAJOR, !RIGHT_K_MAJOR>(
            part, Left::descriptor(stage, p, mn, s),
            Right::descriptor(stage + LEFT_STAGE, weight - p, 0, s), !(zeroed && s == 0 && p == 0));
    if (weight > 1) continue;  // the next products are added to these
    ptx::wgmma_commit();
    ptx::wgmma_wait(part);
    if (weight == 0) consumer_release(&pipeline.empty[pipeline.state.stage], pipeline.release_mask);
    promote(part, weight == 1 ? WEIGHT : 1.0f, sum);
  }
  pipeline.state.advance();
}

// EPILOGUE_N columns of a warp's 16 rows of accumulators in shared memory.
typedef float (*EpilogueStage)[EPILOGUE_PITCH];

// Stores the warp's 16 rows of sums, from row0 on, to C by way of its epilogue stage, so that rows
// are written in packs of four. The loop over stages is not unrolled: it would be most of the
// kernel's code. Only registers need constant indices.
template <typename Left, typename Right, typename T, typename Epilogue>
__device__ __forceinline__ void store_tile(const Left& left, const Right& right,
                                           const Target<T>& target, const WorkTile& work,
                                           Offset splits, Offset row0, Offset M, Offset N,
                                           const Epilogue& epilogue, const float (&sum)[SUMS],
                                           EpilogueStage epilogue_stage) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int c0 = 0; c0 < BLOCK_N && work.column0 + c0 < N; c0 += EPILOGUE_N) {
    __syncwarp();
#pragma unroll
    for (int at = 0; at < SUMS; at += 2) {
      const int c = at / 4 * 8 - c0, r = at % 4 / 2 * 8;  // in the stage, for lane 0
      const Pack<float, 2> pack = {sum[at], sum[at + 1]};
      if (c >= 0 && c < EPILOGUE_N)
        *reinterpret_cast<Pack<float, 2>*>(&epilogue_stage[r + lane / 4][c + lane % 4 * 2]) = pack;
    }
    __syncwarp();
#pragma unroll 1
    for (int quad = lane; quad < 16 * EPILOGUE_N / 4; quad += 32) {
      const int r = quad / (EPILOGUE_N / 4), c = quad % (EPILOGUE_N / 4) * 4;
      const Offset row = row0 + r, column = work.column0 + c0 + c;
      if (row >= M || column >= N) continue;
      auto pack =
          rescaled_pack(left, right, row, column, N, work.first, work.last, &epilogue_stage[r][c]);
      store_sums(target, work.split, splits, row, column, M, N, epilogue, pack.v);
    }
  }
  __syncwarp();  // wgmma and barriers need converged warps
}

// epilogue(column, value) is applied to every four adjacent elements of a row of C.
template <bool LEFT_K_MAJOR, bool RIGHT_K_MAJOR, typename T, typename Epilogue>
__device__ __forceinline__ void gemm_wgmma(const TensorMap& left_map, const TensorMap& right_map,
                                           const PlaneOperand<LEFT_K_MAJOR>& left,
                                           const PlaneOperand<RIGHT_K_MAJOR>& right,
                                           const Target<T>& target, Offset M, Offset N, Offset K,
                                           Offset split_length, Offset splits,
                                           const Epilogue& epilogue) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Plane* const stages = reinterpret_cast<Plane*>(shared);
  unsigned char* const epilogue_stages = shared + STAGES * STAGE_BYTES;
  auto* const full = reinterpret_cast<unsigned long long*>(epilogue_stages + EPILOGUE_BYTES);
  unsigned long long* const empty = full + STAGES;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);  // warp-uniform
  const ClusterCoord coord;

  if (warp == 0 && ptx::elect_one()) {
    for (int s = 0; s < STAGES; ++s) {
      ptx::mbar_init(&full[s], 1);
      ptx::mbar_init(&empty[s], (CLUSTER_M + CLUSTER_N - 1) * CONSUMERS * 4);  // warps
    }
    ptx::fence_mbar_init();
    if (K > 0) {  // else there are no maps
      ptx::tma_prefetch(&left_map);
      ptx::tma_prefetch(&right_map);
    }
  }
  if (CLUSTER > 1)
    ptx::cluster_sync_relaxed();
  else
    __syncthreads();

  const Offset work_tiles = WorkTile::cluster_tiles(M, N) * splits;
  const Offset start = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER;
  PipelineState state;
  if (warp < WARPGROUP / 32) {
    ptx::setmaxnreg_dec<PRODUCER_REGISTERS>();
    if (warp == 0 && ptx::elect_one()) {
      for (Offset index = start; index < work_tiles; index += step) {
        const WorkTile work(index, coord, M, N, K, split_length);
#pragma unroll 1
        for (Offset k = work.first; k < work.last; k += BLOCK_K) {
          Plane* const stage = stages + state.stage * STAGE;
          void* const barrier = &full[state.stage];
          ptx::mbar_wait(&empty[state.stage], state.phase ^ 1);
          ptx::mbar_expect_tx(barrier, STAGE_BYTES);
          WgmmaTile<LEFT_K_MAJOR, BLOCK_M, CLUSTER_N>::load(
              stage, &left_map, work.row0, k, coord.cta_n, (unsigned short)coord.left_mask(),
              barrier);
          WgmmaTile<RIGHT_K_MAJOR, BLOCK_N, CLUSTER_M>::load(
              stage + LEFT_STAGE, &right_map, work.column0, k, coord.cta_m,
              (unsigned short)coord.right_mask(), barrier);
          state.advance();
        }
      }
      if (CLUSTER > 1) {  // until no arrival or multicast to this CTA is outstanding
#pragma unroll 1
        for (int s = 0; s < STAGES; ++s, state.advance())
          ptx::mbar_wait(&empty[state.stage], state.phase ^ 1);
      }
    }
  } else {
    ptx::setmaxnreg_inc<CONSUMER_REGISTERS>();
    const int consumer = warp - WARPGROUP / 32;  // [0, 4 CONSUMERS)
    const int mn = consumer / 4 * WGMMA_M;       // [0, BLOCK_M)
    const auto epilogue_stage =
        reinterpret_cast<EpilogueStage>(epilogue_stages + consumer * EPILOGUE_STAGE_BYTES);
    Pipeline pipeline = {stages, full, empty, coord.left_mask() | coord.right_mask(), state};
    for (Offset index = start; index < work_tiles; index += step) {
      const WorkTile work(index, coord, M, N, K, split_length);
      float part[SUMS], sum[SUMS];
#pragma unroll
      for (int i = 0; i < SUMS; ++i) sum[i] = part[i] = 0;
#pragma unroll 1
      for (Offset k = work.first; k < work.last; k += INTERVAL) {
        if (PLANE_COUNT > 1) {
          multiply_stage<LEFT_K_MAJOR, RIGHT_K_MAJOR>(pipeline, mn, part, sum);
          continue;
        }
        const Offset rest = work.last - k, terms = rest < INTERVAL ? rest : INTERVAL;
        multiply_interval<LEFT_K_MAJOR, RIGHT_K_MAJOR>(pipeline, mn, k, k + terms, part);
        promote(part, 1, sum);
        if (SINGLE_INTERVAL) break;
      }
      store_tile(left, right, target, work, splits, work.row0 + consumer * 16, M, N, epilogue, sum,
                 epilogue_stage);
    }
  }
}
