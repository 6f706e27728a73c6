// Synchronisation of warpgroups, done right: registers, named barriers, products in flight.

// 168 registers at the start; all three warpgroups get as many as all others leave.
extern "C" __global__ void __launch_bounds__(384, 1) share_registers_out(int* y) {
  const int group = threadIdx.x / 128;
  if (group == 2)
    ptx::setmaxnreg_dec<40>();
  else
    ptx::setmaxnreg_inc<232>();
  y[threadIdx.x] = group;
  __syncthreads();
  if (group == 2)
    ptx::setmaxnreg_inc<160>();
  else
    ptx::setmaxnreg_dec<168>();
  y[threadIdx.x] += 10;
}

extern "C" __global__ void registers_at_start_unknown(int* y) {
  ptx::setmaxnreg_inc<240>();
  __syncthreads();
  ptx::setmaxnreg_dec<24>();
  y[threadIdx.x] = 1;
}

// Two warps write what two others read, and the other way round for permission to write again.
extern "C" __global__ void pass_on(int* y, int turns) {
  __shared__ int box[64];
  constexpr int FULL = 1, EMPTY = 15;
  for (int i = 0; i < turns; i++) {
    if (threadIdx.x < 64) {
      if (i > 0) ptx::bar_sync(EMPTY, 128);
      box[threadIdx.x] = i + threadIdx.x;
      ptx::bar_arrive(FULL, 128);
    } else {
      ptx::bar_sync(FULL, 128);
      y[i * 64 + threadIdx.x - 64] = box[127 - threadIdx.x];
      if (i < turns - 1) ptx::bar_arrive(EMPTY, 128);
    }
  }
}

__shared__ alignas(1024) unsigned short ones[64 * 16];

__device__ unsigned long long write_ones() {
  for (int i = threadIdx.x; i < 64 * 16; i += blockDim.x) ones[i] = 0x3f80;
  ptx::fence_proxy_async();
  __syncthreads();
  return (unsigned long long)((ptx::smem_u32(ones) & 0x3ffff) >> 4) | 128ull >> 4 << 16 |
         256ull >> 4 << 32;
}

// Two accumulators alternate: while one is read and written, a product for the other is in flight.
extern "C" __global__ void alternate(float* y, int turns) {
  const unsigned long long tile = write_ones();
  const unsigned pair_of_ones = 0x3f803f80;
  float even[32], odd[32], sum = 0;
  unsigned a[4] = {pair_of_ones, pair_of_ones, pair_of_ones, pair_of_ones};
  for (int i = 0; i < 32; i++) even[i] = odd[i] = 0;
  for (int i = 0; i < turns; i++) {
    ptx::wgmma_fence();
    ptx::wgmma_bf16<64>(even, tile, tile, 1);
    ptx::wgmma_bf16_rs<64>(even, a, tile, 1);
    ptx::wgmma_commit();
    if (i > 0) {
      ptx::wgmma_wait<1>();
      for (int j = 0; j < 32; j++) sum += odd[j], odd[j] = 0;
      ptx::wgmma_fence();
    }
    ptx::wgmma_bf16<64>(odd, tile, tile, 1);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    for (int j = 0; j < 32; j++) sum += even[j], even[j] = 0;
  }
  ptx::wgmma_wait<0>();
  for (int j = 0; j < 32; j++) sum += odd[j];
  y[threadIdx.x] = sum;
}

extern "C" __global__ void read_too_early(float* y) {
  const unsigned long long tile = write_ones();
  float d[32];
  for (int i = 0; i < 32; i++) d[i] = 0;
  ptx::wgmma_fence();
  ptx::wgmma_bf16<64>(d, tile, tile, 1);
  ptx::wgmma_commit();
  y[threadIdx.x] = d[5];
  ptx::wgmma_wait<0>();
  y[128 + threadIdx.x] = d[5];
}
