// One mistake a kernel. The comment @name marks the line that the report must name.

// ---- races

extern "C" __global__ void race_in_block(float* y) {
  __shared__ float box[64];
  box[threadIdx.x] = 0.f;
  __syncthreads();
  box[threadIdx.x] = threadIdx.x;  // @race_in_block_write
  y[threadIdx.x] = box[63 - threadIdx.x];  // @race_in_block
}

extern "C" __global__ void race_between_blocks(int* y) {
  y[threadIdx.x] = blockIdx.x;  // @race_between_blocks
}

extern "C" __global__ void race_with_an_atomic(int* y) {
  atomicAdd(y, 1);
  __syncwarp();
  if (blockIdx.x == 1 && threadIdx.x == 0) *y = 5;  // @race_with_an_atomic
}

extern "C" __global__ void shuffles_order_no_memory(int* y) {
  __shared__ int box[32];
  box[threadIdx.x] = threadIdx.x;
  __shfl_sync(0xffffffffu, 0, 0);
  y[threadIdx.x] = box[31 - threadIdx.x];  // @shuffles_order_no_memory
}

extern "C" __global__ void write_after_read(int* x) {
  const int v = x[(threadIdx.x + 1) % 64];  // @write_after_read_read
  x[threadIdx.x] = v;  // @write_after_read
}

// ---- uninitialised memory

extern "C" __global__ void uninitialised_shared(float* y) {
  __shared__ float box[33];
  box[threadIdx.x] = 1.f;
  __syncthreads();
  y[threadIdx.x] = box[threadIdx.x + 1];  // @uninitialised_shared
}

extern "C" __global__ void uninitialised_argument(float* y) {
  y[threadIdx.x] += 1.f;  // @uninitialised_argument
}

// ---- bounds

extern "C" __global__ void read_past_the_end(const float* x, float* y, int n) {
  if (threadIdx.x <= n) y[threadIdx.x] = x[threadIdx.x];  // @read_past_the_end
}

extern "C" __global__ void write_before_the_start(double* y) {
  y[int(threadIdx.x) - 1] = 0;  // @write_before_the_start
}

extern "C" __global__ void write_to_const(const float* x) {
  const_cast<float*>(x)[threadIdx.x] = 0.f;  // @write_to_const
}

extern "C" __global__ void index_of_shared_array(int* y, int i) {
  __shared__ int box[8];
  __shared__ int other[8];
  other[threadIdx.x] = 0;
  box[threadIdx.x] = threadIdx.x;
  __syncwarp();
  y[threadIdx.x] = box[threadIdx.x + i] + other[threadIdx.x];  // @index_of_shared_array
}

extern "C" __global__ void pointer_past_shared_array(int* y, int i) {
  __shared__ int box[5];
  box[threadIdx.x] = 0;
  __syncwarp();
  int* p = box;
  y[threadIdx.x] = p[threadIdx.x + i];  // @pointer_past_shared_array
}

extern "C" __global__ void past_dynamic_shared(int* y) {
  extern __shared__ int box[];
  box[threadIdx.x] = threadIdx.x;  // @past_dynamic_shared
  y[threadIdx.x] = box[threadIdx.x];
}

extern "C" __global__ void between_rows(const float* x, float* y, int rows, int pitch) {
  float sum = 0.f;
  for (int r = 0; r < rows; r++) sum += x[r * pitch + threadIdx.x];  // @between_rows
  y[threadIdx.x] = sum;
}

extern "C" __global__ void address_of_another_thread(int* y) {
  __shared__ int* box[32];
  int mine = threadIdx.x;
  box[threadIdx.x] = &mine;
  __syncwarp();
  y[threadIdx.x] = *box[31 - threadIdx.x];  // @address_of_another_thread
}

extern "C" __global__ void wild_pointer(int* y) {
  y[threadIdx.x] = *reinterpret_cast<int*>(0x1000);  // @wild_pointer
}

// ---- alignment

extern "C" __global__ void misaligned_argument(const float* x, float* y, int offset) {
  const float4 v = *reinterpret_cast<const float4*>(x + offset);  // @misaligned_argument
  y[threadIdx.x] = v.x + v.y + v.z + v.w;
}

extern "C" __global__ void misaligned_shared(float* y, int offset) {
  __shared__ __align__(16) float box[64];
  box[threadIdx.x] = box[threadIdx.x + 32] = 1.f;
  __syncwarp();
  y[threadIdx.x] = reinterpret_cast<float2*>(box + offset)->y;  // @misaligned_shared
}

// ---- barriers and collectives

extern "C" __global__ void different_barriers() {
  if (threadIdx.x < 32)
    __syncthreads();  // @different_barriers_other
  else
    __syncthreads();  // @different_barriers
}

extern "C" __global__ void barrier_after_exit(int n) {
  if (threadIdx.x >= n) return;
  __syncthreads();  // @barrier_after_exit
}

extern "C" __global__ void barrier_counts_differ() {
  if (threadIdx.x < 32)
    ptx::bar_sync(1, 64);  // @barrier_counts_differ_other
  else
    ptx::bar_sync(1, 96);  // @barrier_counts_differ
}

extern "C" __global__ void barrier_never_completed() {
  if (threadIdx.x < 32) ptx::bar_sync(1, 64);  // @barrier_never_completed
}

extern "C" __global__ void shuffle_outside_the_mask(int* y) {
  if (threadIdx.x < 16) {
    y[threadIdx.x] = __shfl_sync(0xffffu, 1, threadIdx.x + 8);  // @shuffle_outside_the_mask
  }
}

extern "C" __global__ void mask_without_the_caller(int* y) {
  y[threadIdx.x] = __shfl_sync(0xffffu, 1, 0);  // @mask_without_the_caller
}

extern "C" __global__ void shuffle_after_exit(int* y) {
  if (threadIdx.x >= 16) return;
  y[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);  // @shuffle_after_exit
}

extern "C" __global__ void collectives_in_two_branches(int* y) {
  if (threadIdx.x < 16)
    y[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);  // @collectives_in_two_branches
  else
    y[threadIdx.x] = __shfl_sync(0xffffffffu, 2, 0);
}

// ---- asynchronous copies

extern "C" __global__ void copy_not_awaited(const float* x, float* y) {
  __shared__ __align__(16) float box[128];
  ptx::cp_async16(box + 4 * threadIdx.x, x + 4 * threadIdx.x);  // @copy_not_awaited_copy
  ptx::cp_async_commit();
  ptx::cp_async_wait<1>();
  y[threadIdx.x] = box[4 * threadIdx.x];  // @copy_not_awaited
}

extern "C" __global__ void copy_of_another_thread(const float* x, float* y) {
  __shared__ __align__(16) float box[128];
  ptx::cp_async16(box + 4 * threadIdx.x, x + 4 * threadIdx.x);
  __syncwarp();
  ptx::cp_async_wait_all();
  y[threadIdx.x] = box[127 - 4 * threadIdx.x];  // @copy_of_another_thread
}

extern "C" __global__ void copy_past_the_end(const float* x) {
  __shared__ __align__(16) float box[128];
  ptx::cp_async16(box + 4 * threadIdx.x, x + 4 * threadIdx.x);  // @copy_past_the_end
  ptx::cp_async_wait_all();
}

extern "C" __global__ void misaligned_copy(const float* x) {
  __shared__ __align__(16) float box[132];
  ptx::cp_async16(box + 4 * threadIdx.x + 1, x + 4 * threadIdx.x);  // @misaligned_copy
  ptx::cp_async_wait_all();
}

extern "C" __global__ void operands_without_a_fence(float* y) {
  __shared__ __align__(1024) unsigned short tile[64 * 16];
  for (int i = threadIdx.x; i < 64 * 16; i += blockDim.x) tile[i] = 0;
  __syncthreads();
  const unsigned long long place = (ptx::smem_u32(tile) & 0x3ffff) >> 4;
  float d[32];
  ptx::wgmma_fence();
  ptx::wgmma_bf16<64>(d, place, place, 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();  // @operands_without_a_fence
  y[threadIdx.x] = d[0];
}

extern "C" __global__ void arrivals_without_init() {
  __shared__ unsigned long long ready;
  ready = 0;
  ptx::mbar_arrive(&ready);  // @arrivals_without_init
}

extern "C" __global__ void too_many_arrivals() {
  __shared__ unsigned long long ready;
  if (threadIdx.x == 0) ptx::mbar_init(&ready, 7);
  __syncthreads();
  ptx::mbar_expect_tx(&ready, 16);  // @too_many_arrivals
}

// ---- arithmetic and control

extern "C" __global__ void signed_overflow(int* y, int n) {
  y[threadIdx.x] = n * (threadIdx.x + 1 > 1 ? n : 1);  // @signed_overflow
}

extern "C" __global__ void shift_too_far(int* y, int n) {
  y[threadIdx.x] = 1 << n;  // @shift_too_far
}

extern "C" __global__ void division_by_zero(int* y, int n) {
  y[threadIdx.x] = 100 / n;  // @division_by_zero
}

extern "C" __global__ void failed_assertion(int n) {
  assert(threadIdx.x < n);  // @failed_assertion
}

extern "C" __global__ void trap() {
  if (threadIdx.x == 3) __trap();  // @trap
}

extern "C" __global__ void endless_loop(volatile int* y) {
  while (*y == 0) __nanosleep(10);
}

extern "C" __global__ void endless_loop_without_memory(int n) {
  while (n) asm volatile("");
}

extern "C" __global__ void too_many_locals(float* y, int n) {
  float local[64 << 10];
  for (int i = 0; i < n; i++) local[i] = i;
  for (int i = 0; i < n; i++) y[i] = local[n - 1 - i];
}
