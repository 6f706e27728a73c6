// A matrix product C = A B on Hopper's tensor cores (wgmma), for operands that are 16-bit planes.
//
// Three warpgroups: an elected thread of the first, the producer, brings tiles of all planes of both
// operands by TMA into a ring of STAGES in shared memory; each of the other two multiplies its 64
// rows of a BLOCK_M × BLOCK_N tile of C. Two mbarriers a stage pass it on: `full` when its bytes have
// come, `empty` when it has been multiplied. Blocks stay: each takes a tile after another, and the
// producer runs ahead into the next.
//
// CLUSTER_M × CLUSTER_N blocks are a cluster, with neighbouring tiles. Those of one column of tiles
// need the same tile of B: each brings its part of it to all of them (multicast). So do those of one
// row with A. What the L2 cache has to give would bind otherwise. A stage is empty when all blocks
// that share one of its tiles have multiplied it. All blocks of a cluster fill equally many stages,
// and the bytes and arrivals that others send to a block are in when all of its stages are empty: its
// producer waits for that at the end, so that the block does not exit before. A stage that was never
// filled is empty.
//
// Weights, promotion and what happens to elements that are not finite are as in gemm_mma.cuh, but
// that sums are promoted after other numbers of terms. From two or three planes it is after every
// BLOCK_K: of two planes, all of these are added on the tensor cores, 16 terms after 16, and then
// those of the next two; while one warpgroup promotes, the tensor cores work for the other. From one
// plane it is after MAX_PART: there what the planes have rounded away, or the result will, is
// more than the tensor cores cut off of so many terms. The next stage's products are waiting when
// those of one are done. A tile of 256 columns leaves no registers for promoted sums: IN_ONE_PART, it
// is for contractions, or splits, of up to MAX_PART.
//
// An element of C is one sum over the contraction in ascending order (of one split of it): its bits
// depend neither on the tile's width nor on where in the tile it lies.
#pragma once
#include "plane_operand.cuh"
#include "ptx.cuh"
#include "target.cuh"
#include "tiles.cuh"

constexpr int WARPGROUP = 128;  // threads
constexpr int WGMMA_M = 64, WGMMA_K = 16;
constexpr int CONSUMERS = BLOCK_M / WGMMA_M;  // warpgroups
constexpr int STEPS = BLOCK_K / WGMMA_K;
constexpr int SUMS = BLOCK_N / 2;  // of a thread
constexpr int CLUSTER = CLUSTER_M * CLUSTER_N;  // blocks

constexpr int LEFT_STAGE = PLANE_COUNT * BLOCK_M * BLOCK_K;  // elements
constexpr int RIGHT_STAGE = PLANE_COUNT * BLOCK_N * BLOCK_K;
constexpr int STAGE = LEFT_STAGE + RIGHT_STAGE;
constexpr int STAGE_BYTES = STAGE * int(sizeof(Plane));
constexpr int STRIP_PITCH = STRIP + PADDING;  // of a row of a strip
constexpr int STRIP_BYTES = 16 * STRIP_PITCH * int(sizeof(float));
constexpr int STRIPS_BYTES = CONSUMERS * 4 * STRIP_BYTES;
constexpr int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static_assert(THREADS == (1 + CONSUMERS) * WARPGROUP && CONSUMERS == 2, "and a producer");
static_assert(BLOCK_N % CHUNK == 0 && BLOCK_N <= (IN_ONE_PART ? 256 : 192),
              "a warpgroup has registers for 256 columns, of promoted sums for 192");
static_assert(PLANE_COUNT == 1 || !IN_ONE_PART, "sums of several planes are promoted");
static_assert(SHARED_BYTES == STAGES * (STAGE_BYTES + 16) + STRIPS_BYTES,
              "stages, two mbarriers for each, and strips");
static_assert(MAX_PART % BLOCK_K == 0, "parts are whole stages");
static_assert(STAGES >= 3, "one stage is multiplied by either warpgroup, one is on its way");
static_assert(STAGE_BYTES < 1 << 20, "an mbarrier counts the bytes of a stage");

// What TMA knows of an operand; made by the driver.
struct alignas(128) TensorMap {
  unsigned long long opaque[16];
};

// An operand's tile of EXTENT outer indices in shared memory, plane after plane. If ALONG, a row is
// an outer index and holds BLOCK_K elements; if not, a row is an index of the contraction and holds
// CHUNK outer indices, and chunk follows chunk. 16-byte pieces of rows are swizzled, over eight rows
// of 128 bytes or four pairs of 64. PARTS blocks bring a part of the rows each.
template <bool ALONG, int EXTENT, int PARTS>
struct WgmmaTile {
  static constexpr int ROW = ALONG ? BLOCK_K : CHUNK;                // elements
  static constexpr int PART = (ALONG ? EXTENT : BLOCK_K) / PARTS;    // rows
  static constexpr int CHUNKS = ALONG ? 1 : EXTENT / CHUNK;
  static constexpr int NEXT_CHUNK = BLOCK_K * CHUNK;                 // elements
  static constexpr int PLANE = EXTENT * BLOCK_K;
  static constexpr int EIGHT_ROWS = 8 * ROW * int(sizeof(Plane));    // bytes
  static constexpr unsigned long long SWIZZLE = ROW == 64 ? 1 : 2;   // over 128 or 64 bytes
  static_assert(PART % 8 == 0, "parts are swizzled as the whole");

  // Brings a part of the tile at (outer, q) of every plane to the blocks of the mask.
  static __device__ __forceinline__ void load(Plane* to, const TensorMap* map, Offset outer,
                                              Offset q, int part, unsigned short blocks,
                                              void* full) {
#pragma unroll
    for (int p = 0; p < PLANE_COUNT; ++p)
#pragma unroll
      for (int c = 0; c < CHUNKS; ++c) {
        Plane* const at = to + p * PLANE + c * NEXT_CHUNK + part * PART * ROW;
        const Offset column = ALONG ? q : outer + c * CHUNK;
        const Offset row = (ALONG ? outer : q) + part * PART;
        if (PARTS == 1)
          ptx::tma_load_3d(at, map, int(column), int(row), p, full);
        else
          ptx::tma_load_3d_multicast(at, map, int(column), int(row), p, full, blocks);
      }
  }

  // The descriptor of the piece of a plane from an outer index on, a multiple of 64, and from 16 step
  // on along the contraction.
  static __device__ __forceinline__ unsigned long long describe(const Plane* tile, int plane,
                                                                int outer, int step) {
    const Plane* at = tile + plane * PLANE;
    at += ALONG ? outer * ROW + step * WGMMA_K : outer / CHUNK * NEXT_CHUNK + step * WGMMA_K * ROW;
    const unsigned leading = ALONG ? 16 : NEXT_CHUNK * int(sizeof(Plane));  // from chunk to chunk
    return (unsigned long long)(ptx::smem_u32(at) >> 4 & 0x3fff) |
           (unsigned long long)(leading >> 4) << 16 |
           (unsigned long long)(EIGHT_ROWS >> 4) << 32 | SWIZZLE << 62;
  }
};

// Where in the ring a warpgroup is.
struct Turn {
  int stage = 0;
  unsigned phase = 0;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// A block's place in its cluster: its row of tiles, and its column.
struct Place {
  int down, across;
  __device__ __forceinline__ Place() {
    const int rank = CLUSTER > 1 ? int(ptx::cluster_rank()) : 0;
    down = rank % CLUSTER_M;
    across = rank / CLUSTER_M;
  }
  // The blocks of its row of tiles, and those of its column, as bits.
  __device__ __forceinline__ unsigned row() const {
    unsigned blocks = 0;
#pragma unroll
    for (int i = 0; i < CLUSTER_N; ++i) blocks |= 1u << (i * CLUSTER_M + down);
    return blocks;
  }
  __device__ __forceinline__ unsigned column() const {
    return ((1u << CLUSTER_M) - 1) << across * CLUSTER_M;
  }
};

// One block's tile of one split, of those that its cluster takes at once.
struct Share {
  Offset split, row0, column0, first, last;

  __device__ __forceinline__ static Offset clusters(Offset rows, Offset columns) {
    return ((rows + CLUSTER_M * BLOCK_M - 1) / (CLUSTER_M * BLOCK_M)) *
           ((columns + CLUSTER_N * BLOCK_N - 1) / (CLUSTER_N * BLOCK_N));
  }
  __device__ __forceinline__ Share(Offset index, const Place& place, Offset rows, Offset columns,
                                   Offset contraction, Offset split_length) {
    const Offset tiles = clusters(rows, columns);
    split = index / tiles;
    place_tile<CLUSTER_M * BLOCK_M, CLUSTER_N * BLOCK_N>(index % tiles, rows, columns, row0,
                                                         column0);
    row0 += place.down * BLOCK_M;
    column0 += place.across * BLOCK_N;
    first = split * split_length;
    last = first + split_length < contraction ? first + split_length : contraction;
  }
};

template <bool A_ACROSS, bool B_ACROSS>
__device__ __forceinline__ void multiply(float (&d)[SUMS], unsigned long long a,
                                         unsigned long long b, int scale_d) {
#if defined(PLANES_BF16)
  ptx::wgmma_bf16<BLOCK_N, A_ACROSS, B_ACROSS>(d, a, b, scale_d);
#else
  ptx::wgmma_f16<BLOCK_N, A_ACROSS, B_ACROSS>(d, a, b, scale_d);
#endif
}

// Tells all blocks that bring parts of this block's stages that its warp has multiplied one.
__device__ __forceinline__ void release(void* empty, unsigned sharing) {
  const unsigned lane = threadIdx.x % 32;
  if (CLUSTER == 1) {
    if (ptx::elect_one()) ptx::mbar_arrive(empty);
  } else if (lane < CLUSTER && sharing >> lane & 1) {
    ptx::mbar_arrive_cluster(empty, lane);
  }
}

__device__ __forceinline__ void promote(const float (&part)[SUMS], float weight,
                                        float (&sum)[SUMS]) {
#pragma unroll
  for (int i = 0; i < SUMS; ++i) sum[i] = multiply_add(part[i], weight, sum[i]);
}

// A consumer's way through the ring.
struct Ring {
  const Plane* stages;
  unsigned long long *full, *empty;
  unsigned sharing;  // blocks that are told of stages that have been multiplied
  Turn turn;

  // Waits until the next stage is there.
  __device__ __forceinline__ const Plane* next_stage() const {
    ptx::mbar_wait(&full[turn.stage], turn.phase);
    return stages + turn.stage * STAGE;
  }
};

// part = left right for the terms [first, last), at most MAX_PART, of one plane; the warpgroup's
// rows are those from `outer` on. A stage is released when the next one's products are on their way.
template <bool LEFT_ALONG, bool RIGHT_ALONG>
__device__ __forceinline__ void multiply_part(Ring& ring, int outer, Offset first, Offset last,
                                              float (&part)[SUMS]) {
  typedef WgmmaTile<LEFT_ALONG, BLOCK_M, CLUSTER_N> Left;
  typedef WgmmaTile<RIGHT_ALONG, BLOCK_N, CLUSTER_M> Right;
  int before = 0;  // the last stage that is multiplied
#pragma unroll 1
  for (Offset q = first; q < last; q += BLOCK_K) {
    const Plane* const stage = ring.next_stage();
    ptx::wgmma_fence(part);
#pragma unroll
    for (int s = 0; s < STEPS; ++s)
      multiply<!LEFT_ALONG, !RIGHT_ALONG>(part, Left::describe(stage, 0, outer, s),
                                          Right::describe(stage + LEFT_STAGE, 0, 0, s),
                                          s > 0 || q > first);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    if (q > first) release(&ring.empty[before], ring.sharing);
    before = ring.turn.stage;
    ring.turn.next();
  }
  ptx::wgmma_wait(part);
  release(&ring.empty[before], ring.sharing);
}

// sum += left right for one stage of several planes.
template <bool LEFT_ALONG, bool RIGHT_ALONG>
__device__ __forceinline__ void multiply_stage(Ring& ring, int outer, float (&part)[SUMS],
                                               float (&sum)[SUMS]) {
  typedef WgmmaTile<LEFT_ALONG, BLOCK_M, CLUSTER_N> Left;
  typedef WgmmaTile<RIGHT_ALONG, BLOCK_N, CLUSTER_M> Right;
  const Plane* const stage = ring.next_stage();
#pragma unroll
  for (int weight = PLANE_COUNT - 1; weight >= 0; --weight) {
    const bool afresh = weight == 0 || weight == PLANE_COUNT - 1;
    if (afresh) ptx::wgmma_fence(part);
#pragma unroll
    for (int s = 0; s < STEPS; ++s)
#pragma unroll
      for (int p = 0; p <= weight; ++p)
        multiply<!LEFT_ALONG, !RIGHT_ALONG>(
            part, Left::describe(stage, p, outer, s),
            Right::describe(stage + LEFT_STAGE, weight - p, 0, s), !(afresh && s == 0 && p == 0));
    if (weight > 1) continue;  // the next products are added to these
    ptx::wgmma_commit();
    ptx::wgmma_wait(part);
    if (weight == 0) release(&ring.empty[ring.turn.stage], ring.sharing);
    promote(part, weight == 1 ? WEIGHT : 1.0f, sum);
  }
  ring.turn.next();
}

// Brings the warp's 16 rows of sums, from (row0, column0) on, to C; a strip of columns after another
// passes through shared memory, so that rows are written in packs of four. The loop over strips
// stays one, which unrolled would be most of the kernel's code; only registers need constant indices.
template <typename Left, typename Right, typename T, typename Finish>
__device__ __forceinline__ void store_tile(const Left& left, const Right& right,
                                           const Target<T>& target, const Share& share,
                                           Offset splits, Offset row0, Offset rows, Offset columns,
                                           const Finish& finish, const float (&sum)[SUMS],
                                           float (*strip)[STRIP_PITCH]) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int c0 = 0; c0 < BLOCK_N && share.column0 + c0 < columns; c0 += STRIP) {
    __syncwarp();
#pragma unroll
    for (int at = 0; at < SUMS; at += 2) {
      const int c = at / 4 * 8 - c0, r = at % 4 / 2 * 8;  // of the strip, for the warp's first lane
      const Pack<float, 2> pack = {sum[at], sum[at + 1]};
      if (c >= 0 && c < STRIP)
        *reinterpret_cast<Pack<float, 2>*>(&strip[r + lane / 4][c + lane % 4 * 2]) = pack;
    }
    __syncwarp();
#pragma unroll 1
    for (int quad = lane; quad < 16 * STRIP / 4; quad += 32) {
      const int r = quad / (STRIP / 4), c = quad % (STRIP / 4) * 4;
      const Offset row = row0 + r, column = share.column0 + c0 + c;
      if (row >= rows || column >= columns) continue;
      auto pack =
          finished(left, right, row, column, columns, share.first, share.last, &strip[r][c]);
      store_sums(target, share.split, splits, row, column, rows, columns, finish, pack.v);
    }
  }
  __syncwarp();  // products and barriers want whole warps
}

// finish(column, value) is applied to every four neighbouring elements of a row of C.
template <bool LEFT_ALONG, bool RIGHT_ALONG, typename T, typename Finish>
__device__ __forceinline__ void gemm_wgmma(const TensorMap& left_map, const TensorMap& right_map,
                                           const PlaneOperand<LEFT_ALONG>& left,
                                           const PlaneOperand<RIGHT_ALONG>& right,
                                           const Target<T>& target, Offset rows, Offset columns,
                                           Offset contraction, Offset split_length, Offset splits,
                                           const Finish& finish) {
  extern __shared__ __align__(1024) unsigned char shared[];
  Plane* const stages = reinterpret_cast<Plane*>(shared);
  unsigned char* const strips = shared + STAGES * STAGE_BYTES;
  unsigned long long* const full = reinterpret_cast<unsigned long long*>(strips + STRIPS_BYTES);
  unsigned long long* const empty = full + STAGES;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);  // known to be one in a warp
  const Place place;

  if (warp == 0 && ptx::elect_one()) {
    for (int s = 0; s < STAGES; ++s) {
      ptx::mbar_init(&full[s], 1);
      ptx::mbar_init(&empty[s], (CLUSTER_M + CLUSTER_N - 1) * CONSUMERS * 4);  // warps
    }
    ptx::fence_mbar_init();
    if (contraction > 0) {  // else there are no maps
      ptx::tma_prefetch(&left_map);
      ptx::tma_prefetch(&right_map);
    }
  }
  if (CLUSTER > 1)
    ptx::cluster_sync_relaxed();
  else
    __syncthreads();

  const Offset shares = Share::clusters(rows, columns) * splits;
  const Offset start = blockIdx.x / CLUSTER, step = gridDim.x / CLUSTER;
  Turn turn;
  if (warp < WARPGROUP / 32) {
    ptx::setmaxnreg_dec<PRODUCER_REGISTERS>();
    if (warp == 0 && ptx::elect_one()) {
      for (Offset index = start; index < shares; index += step) {
        const Share share(index, place, rows, columns, contraction, split_length);
#pragma unroll 1
        for (Offset q = share.first; q < share.last; q += BLOCK_K) {
          Plane* const stage = stages + turn.stage * STAGE;
          void* const barrier = &full[turn.stage];
          ptx::mbar_wait(&empty[turn.stage], turn.phase ^ 1);
          ptx::mbar_expect_tx(barrier, STAGE_BYTES);
          WgmmaTile<LEFT_ALONG, BLOCK_M, CLUSTER_N>::load(
              stage, &left_map, share.row0, q, place.across, (unsigned short)place.row(), barrier);
          WgmmaTile<RIGHT_ALONG, BLOCK_N, CLUSTER_M>::load(
              stage + LEFT_STAGE, &right_map, share.column0, q, place.down,
              (unsigned short)place.column(), barrier);
          turn.next();
        }
      }
      if (CLUSTER > 1) {  // until nobody arrives or multicasts here any more
#pragma unroll 1
        for (int s = 0; s < STAGES; ++s, turn.next())
          ptx::mbar_wait(&empty[turn.stage], turn.phase ^ 1);
      }
    }
  } else {
    ptx::setmaxnreg_inc<CONSUMER_REGISTERS>();
    const int consumer = warp - WARPGROUP / 32;  // [0, 4 CONSUMERS)
    const int outer = consumer / 4 * WGMMA_M;    // [0, BLOCK_M)
    auto strip = reinterpret_cast<float (*)[STRIP_PITCH]>(strips + consumer * STRIP_BYTES);
    Ring ring = {stages, full, empty, place.row() | place.column(), turn};
    for (Offset index = start; index < shares; index += step) {
      const Share share(index, place, rows, columns, contraction, split_length);
      float part[SUMS], sum[SUMS];
#pragma unroll
      for (int i = 0; i < SUMS; ++i) sum[i] = part[i] = 0;
#pragma unroll 1
      for (Offset q = share.first; q < share.last; q += PLANE_COUNT == 1 ? MAX_PART : BLOCK_K) {
        if (PLANE_COUNT > 1) {
          multiply_stage<LEFT_ALONG, RIGHT_ALONG>(ring, outer, part, sum);
          continue;
        }
        const Offset rest = share.last - q, terms = rest < MAX_PART ? rest : MAX_PART;
        multiply_part<LEFT_ALONG, RIGHT_ALONG>(ring, outer, q, q + terms, part);
        promote(part, 1, sum);
        if (IN_ONE_PART) break;
      }
      store_tile(left, right, target, share, splits, share.row0 + consumer * 16, rows, columns,
                 finish, sum, strip);
    }
  }
}
