// One mistake a kernel, as in planted_errors.cu, with what only Hopper has: mbarriers, TMA,
// wgmma, setmaxnreg. The comment @name marks the line that the report must name.
struct alignas(64) Map {
  unsigned char opaque[128];
};

__device__ __forceinline__ unsigned long long place_of(const void* tile) {
  return (unsigned long long)((ptx::smem_u32(tile) & 0x3ffff) >> 4);
}

// ---- mbarriers

extern "C" __global__ void arrival_is_missing() {
  __shared__ unsigned long long ready;
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 32);
  __syncthreads();
  if (threadIdx.x > 0) ptx::mbar_arrive(&ready);
  ptx::mbar_wait(&ready, 0);  // @arrival_is_missing
}

extern "C" __global__ void wrong_parity() {
  __shared__ unsigned long long ready;
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 32);
  __syncthreads();
  ptx::mbar_arrive(&ready);
  ptx::mbar_wait(&ready, 0);
  ptx::mbar_wait(&ready, 1);  // @wrong_parity
}

extern "C" __global__ void parity_is_a_number_of_phases() {
  __shared__ unsigned long long ready;
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 32);
  __syncthreads();
  for (int i = 0; i < 3; i++) {
    ptx::mbar_arrive(&ready);
    ptx::mbar_wait(&ready, i);  // @parity_is_a_number_of_phases
  }
}

extern "C" __global__ void does_not_wait_for_the_phase(float* y) {
  __shared__ unsigned long long ready;
  __shared__ float box[32];
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 32);
  __syncthreads();
  box[threadIdx.x] = 1.f;
  ptx::mbar_arrive(&ready);
  ptx::mbar_wait(&ready, 1);
  y[threadIdx.x] = box[31 - threadIdx.x];  // @does_not_wait_for_the_phase
}

extern "C" __global__ void overtaken_by_a_phase() {
  __shared__ unsigned long long ready;
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 1);
  __syncthreads();
  if (threadIdx.x < 32) {
    ptx::mbar_wait(&ready, 0);  // @overtaken_by_a_phase_waiter
  } else if (threadIdx.x == 32) {
    ptx::mbar_arrive(&ready);
    ptx::mbar_arrive(&ready);  // @overtaken_by_a_phase
  }
}

extern "C" __global__ void arrives_for_too_many_bytes(const __grid_constant__ Map map) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long landed;
  if (threadIdx.x == 0) {
    ptx::mbar_init(&landed, 1);
    ptx::fence_mbar_init();
    ptx::mbar_expect_tx(&landed, sizeof box + 16);
    ptx::tma_load_2d(box, &map, 0, 0, &landed);
  }
  __syncthreads();
  ptx::mbar_wait(&landed, 0);  // @arrives_for_too_many_bytes
}

extern "C" __global__ void arrives_for_too_few_bytes(const __grid_constant__ Map map) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long landed;
  if (threadIdx.x == 0) {
    ptx::mbar_init(&landed, 1);
    ptx::fence_mbar_init();
    ptx::mbar_expect_tx(&landed, sizeof box / 2);
    ptx::tma_load_2d(box, &map, 0, 0, &landed);  // @arrives_for_too_few_bytes
  }
  __syncthreads();
  ptx::mbar_wait(&landed, 0);
}

extern "C" __global__ void bytes_of_a_later_phase(const __grid_constant__ Map map) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long landed;
  if (threadIdx.x == 0) {
    ptx::mbar_init(&landed, 1);
    ptx::fence_mbar_init();
    ptx::tma_load_2d(box, &map, 0, 0, &landed);  // @bytes_of_a_later_phase_copy
    ptx::mbar_arrive(&landed);  // @bytes_of_a_later_phase
    ptx::mbar_wait(&landed, 1);
  }
}

extern "C" __global__ void initialised_twice() {
  __shared__ unsigned long long ready;
  if (threadIdx.x == 0) {
    ptx::mbar_init(&ready, 1);
    ptx::mbar_arrive(&ready);
    ptx::mbar_init(&ready, 1);  // @initialised_twice
  }
}

extern "C" __global__ void overwritten_mbarrier() {
  __shared__ unsigned long long ready[2];
  ptx::mbar_init(&ready[1], 1);
  ready[1] = 0;
  ptx::mbar_arrive(&ready[1]);  // @overwritten_mbarrier
}

extern "C" __global__ void no_arrivals() {
  __shared__ unsigned long long ready;
  ptx::mbar_init(&ready, 0);  // @no_arrivals
}

extern "C" __global__ void misaligned_mbarrier() {
  __shared__ unsigned ready[4];
  ptx::mbar_init(&ready[1], 1);  // @misaligned_mbarrier
}

// ---- bulk copies

extern "C" __global__ void initialisation_not_fenced(const __grid_constant__ Map map) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long landed;
  ptx::mbar_init(&landed, 1);
  ptx::mbar_expect_tx(&landed, sizeof box);
  ptx::tma_load_2d(box, &map, 0, 0, &landed);  // @initialisation_not_fenced
  ptx::mbar_wait(&landed, 0);
}

extern "C" __global__ void overwrites_without_a_fence(const __grid_constant__ Map map) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long landed;
  box[threadIdx.x] = 0.f;
  if (threadIdx.x == 0) ptx::mbar_init(&landed, 1);
  ptx::fence_mbar_init();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::mbar_expect_tx(&landed, sizeof box);
    ptx::tma_load_2d(box, &map, 0, 0, &landed);  // @overwrites_without_a_fence
  }
  ptx::mbar_wait(&landed, 0);
}

extern "C" __global__ void overwrites_what_is_read(const __grid_constant__ Map map, float* y) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long landed;
  if (threadIdx.x == 0) ptx::mbar_init(&landed, 1);
  ptx::fence_mbar_init();
  __syncthreads();
  for (int i = 0; i < 2; i++) {
    if (threadIdx.x == 0) {
      ptx::mbar_expect_tx(&landed, sizeof box);
      ptx::tma_load_2d(box, &map, i, 0, &landed);  // @overwrites_what_is_read
    }
    ptx::mbar_wait(&landed, i & 1);
    __syncwarp();
    y[threadIdx.x] = box[threadIdx.x];  // @overwrites_what_is_read_reader
  }
}

extern "C" __global__ void reads_what_was_never_written(const __grid_constant__ Map map) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long landed;
  ptx::mbar_init(&landed, 1);
  ptx::fence_mbar_init();
  ptx::mbar_expect_tx(&landed, sizeof box);
  ptx::tma_load_2d(box, &map, 4, 2, &landed);  // @reads_what_was_never_written
  ptx::mbar_wait(&landed, 0);
}

extern "C" __global__ void box_past_the_end(const __grid_constant__ Map map) {
  extern __shared__ alignas(1024) float boxes[];
  __shared__ unsigned long long landed;
  ptx::mbar_init(&landed, 1);
  ptx::fence_mbar_init();
  ptx::mbar_expect_tx(&landed, 128);
  ptx::tma_load_2d(boxes, &map, 0, 0, &landed);  // @box_past_the_end
  ptx::mbar_wait(&landed, 0);
}

extern "C" __global__ void misaligned_box(const __grid_constant__ Map map) {
  __shared__ alignas(128) float box[4 * 8 + 4];
  __shared__ unsigned long long landed;
  ptx::mbar_init(&landed, 1);
  ptx::fence_mbar_init();
  ptx::mbar_expect_tx(&landed, 128);
  ptx::tma_load_2d(box + 4, &map, 0, 0, &landed);  // @misaligned_box
  ptx::mbar_wait(&landed, 0);
}

extern "C" __global__ void prefetch_of_something_else(const __grid_constant__ Map map) {
  alignas(64) const Map other = {};
  ptx::tma_prefetch(&other);  // @prefetch_of_something_else
}

extern "C" __global__ void copy_never_lands(const __grid_constant__ Map map) {
  __shared__ alignas(128) float box[4 * 8];
  __shared__ unsigned long long landed;
  ptx::mbar_init(&landed, 1);
  ptx::fence_mbar_init();
  ptx::mbar_expect_tx(&landed, sizeof box);
  ptx::tma_load_2d(box, &map, 0, 0, &landed);  // @copy_never_lands
}

// ---- wgmma, all with operands that are zeros

__shared__ alignas(1024) unsigned char operands[16384];

__device__ unsigned long long zero_operands() {
  for (int i = threadIdx.x; i < 16384 / 16; i += blockDim.x) {
    reinterpret_cast<uint4*>(operands)[i] = make_uint4(0, 0, 0, 0);
  }
  ptx::fence_proxy_async();
  __syncthreads();
  return place_of(operands) | 128ull >> 4 << 16 | 256ull >> 4 << 32;
}

extern "C" __global__ void product_without_a_fence(float* y) {
  const unsigned long long tile = zero_operands();
  float d[4];
  ptx::wgmma_bf16<8>(d, tile, tile, 0);  // @product_without_a_fence
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  y[threadIdx.x] = d[0];
}

extern "C" __global__ void init_fence_for_operands(float* y) {
  for (int i = threadIdx.x; i < 16384 / 4; i += blockDim.x) {
    reinterpret_cast<unsigned*>(operands)[i] = 0;
  }
  ptx::fence_mbar_init();
  __syncthreads();
  float d[4];
  ptx::wgmma_fence();
  ptx::wgmma_bf16<8>(d, place_of(operands), place_of(operands), 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();  // @init_fence_for_operands
  y[threadIdx.x] = d[0];
}

extern "C" __global__ void operands_without_a_barrier(float* y) {
  for (int i = threadIdx.x; i < 16384 / 4; i += blockDim.x) {
    reinterpret_cast<unsigned*>(operands)[i] = 0;
  }
  ptx::fence_proxy_async();
  float d[4];
  ptx::wgmma_fence();
  ptx::wgmma_bf16<8>(d, place_of(operands), place_of(operands), 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();  // @operands_without_a_barrier
  y[threadIdx.x] = d[0];
}

extern "C" __global__ void accumulator_written_in_flight(float* y) {
  const unsigned long long tile = zero_operands();
  float d[4];
  ptx::wgmma_fence();
  ptx::wgmma_bf16<8>(d, tile, tile, 0);  // @accumulator_written_in_flight
  ptx::wgmma_commit();
  d[2] = 1.f;
  ptx::wgmma_wait<0>();
  y[threadIdx.x] = d[2];
}

extern "C" __global__ void accumulator_written_between_products(float* y) {
  const unsigned long long tile = zero_operands();
  float d[4];
  ptx::wgmma_fence();
  ptx::wgmma_bf16<8>(d, tile, tile, 0);
  d[1] = 1.f;
  ptx::wgmma_bf16<8>(d, tile, tile, 1);  // @accumulator_written_between_products
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  y[threadIdx.x] = d[1];
}

extern "C" __global__ void accumulator_of_another_shape(float* y) {
  const unsigned long long tile = zero_operands();
  float d[8];
  float(&half)[4] = *reinterpret_cast<float(*)[4]>(d + 4);
  ptx::wgmma_fence();
  ptx::wgmma_bf16<16>(d, tile, tile, 0);
  ptx::wgmma_bf16<8>(half, tile, tile, 1);  // @accumulator_of_another_shape
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  y[threadIdx.x] = d[0];
}

extern "C" __global__ void operand_registers_written(float* y) {
  const unsigned long long tile = zero_operands();
  float d[4];
  unsigned a[4] = {};
  ptx::wgmma_fence();
  ptx::wgmma_bf16_rs<8>(d, a, tile, 0);  // @operand_registers_written
  ptx::wgmma_commit();
  a[3] = 1;
  ptx::wgmma_wait<0>();
  y[threadIdx.x] = d[0] + a[3];
}

extern "C" __global__ void different_columns(float* y) {
  const unsigned long long tile = zero_operands();
  float d[8];
  ptx::wgmma_fence();
  if (threadIdx.x < 64)
    ptx::wgmma_bf16<16>(d, tile, tile, 0);  // @different_columns
  else
    ptx::wgmma_bf16<8>(*reinterpret_cast<float(*)[4]>(d), tile, tile, 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  y[threadIdx.x] = d[0];
}

extern "C" __global__ void half_a_warpgroup(float* y) {
  const unsigned long long tile = zero_operands();
  float d[4];
  ptx::wgmma_fence();
  if (threadIdx.x < 64) ptx::wgmma_bf16<8>(d, tile, tile, 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();  // @half_a_warpgroup
  y[threadIdx.x] = d[0];
}

extern "C" __global__ void partial_warpgroup(float* y) {
  const unsigned long long tile = zero_operands();
  float d[4];
  ptx::wgmma_fence();
  ptx::wgmma_bf16<8>(d, tile, tile, 0);  // @partial_warpgroup
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  y[threadIdx.x] = d[0];
}

// One warp says that its products are done; the others have not.
extern "C" __global__ void operand_overwritten_too_early(float* y) {
  __shared__ unsigned long long done;
  if (threadIdx.x == 0) ptx::mbar_init(&done, 1);
  const unsigned long long tile = zero_operands();
  float d[4];
  ptx::wgmma_fence();
  ptx::wgmma_bf16<8>(d, tile, tile, 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  if (threadIdx.x == 0) ptx::mbar_arrive(&done);
  if (threadIdx.x == 127) {
    ptx::mbar_wait(&done, 0);
    operands[0] = 1;  // @operand_overwritten_too_early
  }
  y[threadIdx.x] = d[0];
}

__device__ void multiply_once(float* y, unsigned long long a, unsigned long long b) {
  float d[4];
  ptx::wgmma_fence();
  ptx::wgmma_bf16<8>(d, a, b, 0);  // @one_product
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  y[threadIdx.x] = d[0];
}
extern "C" __global__ void reserved_bits(float* y) {
  const unsigned long long tile = zero_operands();
  multiply_once(y, tile, tile | 1ull << 52);
}
extern "C" __global__ void address_not_masked(float* y) {
  const unsigned long long tile = zero_operands();
  multiply_once(y, tile | 1ull << 14, tile);
}
extern "C" __global__ void base_offset(float* y) {
  const unsigned long long tile = zero_operands();
  multiply_once(y, tile, tile | 1ull << 49);
}
extern "C" __global__ void atom_not_aligned(float* y) {
  const unsigned long long tile = zero_operands();
  multiply_once(y, tile | 1ull << 62, (tile + (256 >> 4)) | 1ull << 62);
}
extern "C" __global__ void past_the_row_of_an_atom(float* y) {
  const unsigned long long tile = zero_operands();
  multiply_once(y, (tile + (48 >> 4)) | 2ull << 62, tile);
}
extern "C" __global__ void outside_shared_memory(float* y) {
  multiply_once(y, zero_operands(), 0x3fff);
}

// ---- setmaxnreg: 168 registers at the start

extern "C" __global__ void __launch_bounds__(384, 1) registers_of_one_warp() {
  if (threadIdx.x < 32) ptx::setmaxnreg_dec<40>();  // @registers_of_one_warp
  __syncthreads();
}
extern "C" __global__ void __launch_bounds__(384, 1) registers_not_by_eights() {
  ptx::setmaxnreg_dec<44>();  // @registers_not_by_eights
}
extern "C" __global__ void __launch_bounds__(384, 1) too_few_registers() {
  ptx::setmaxnreg_dec<16>();  // @too_few_registers
}
extern "C" __global__ void __launch_bounds__(384, 1) decrease_upwards() {
  ptx::setmaxnreg_dec<176>();  // @decrease_upwards
}
extern "C" __global__ void __launch_bounds__(384, 1) increase_downwards() {
  ptx::setmaxnreg_inc<160>();  // @increase_downwards
}
extern "C" __global__ void __launch_bounds__(384, 1) too_many_registers() {
  if (threadIdx.x < 128)
    ptx::setmaxnreg_dec<40>();
  else
    ptx::setmaxnreg_inc<240>();  // @too_many_registers
}
extern "C" __global__ void __launch_bounds__(384, 1) registers_twice() {
  ptx::setmaxnreg_dec<160>();
  ptx::setmaxnreg_dec<152>();  // @registers_twice
}
extern "C" __global__ void __launch_bounds__(384, 1) registers_in_two_branches() {
  if (threadIdx.x % 128 < 64)
    ptx::setmaxnreg_dec<160>();  // @registers_in_two_branches_other
  else
    ptx::setmaxnreg_dec<152>();  // @registers_in_two_branches
}
extern "C" __global__ void __launch_bounds__(384, 1) registers_after_exit() {
  if (threadIdx.x % 128 == 5) return;
  ptx::setmaxnreg_dec<40>();  // @registers_after_exit
}
extern "C" __global__ void registers_of_a_small_block() {
  ptx::setmaxnreg_dec<40>();  // @registers_of_a_small_block
}

// ---- named barriers

extern "C" __global__ void barrier_number() {
  ptx::bar_sync(16, 32);  // @barrier_number
}
extern "C" __global__ void barrier_count() {
  ptx::bar_sync(1, 16);  // @barrier_count
}
extern "C" __global__ void barrier_of_one_lane() {
  if (threadIdx.x % 2 == 0)
    ptx::bar_sync(1, 32);  // @barrier_of_one_lane
}
extern "C" __global__ void arrives_twice() {
  ptx::bar_arrive(1, 64);
  ptx::bar_arrive(1, 64);  // @arrives_twice
}
