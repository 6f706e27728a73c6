// One product of a warp (or warpgroup) whose operands come register by register: register i of
// thread t is item i * threads + t of the argument.
extern "C" __global__ void mma_tf32(const unsigned* a, const unsigned* b, float* c) {
  unsigned x[4], y[2];
  float d[4];
  const int t = threadIdx.x;
  for (int i = 0; i < 4; i++) x[i] = a[i * 32 + t], d[i] = c[i * 32 + t];
  for (int i = 0; i < 2; i++) y[i] = b[i * 32 + t];
  ptx::mma_m16n8k8_tf32(d, x, y);
  for (int i = 0; i < 4; i++) c[i * 32 + t] = d[i];
}

template <bool BF16>
__device__ void mma_16_bit(const unsigned short* a, const unsigned short* b, float* c) {
  unsigned x[4], y[2];
  float d[4];
  const int t = threadIdx.x;
  for (int i = 0; i < 4; i++) x[i] = a[2 * i * 32 + t] | unsigned(a[(2 * i + 1) * 32 + t]) << 16;
  for (int i = 0; i < 2; i++) y[i] = b[2 * i * 32 + t] | unsigned(b[(2 * i + 1) * 32 + t]) << 16;
  for (int i = 0; i < 4; i++) d[i] = c[i * 32 + t];
  if (BF16)
    ptx::mma_m16n8k16_bf16(d, x, y);
  else
    ptx::mma_m16n8k16_f16(d, x, y);
  for (int i = 0; i < 4; i++) c[i * 32 + t] = d[i];
}

extern "C" __global__ void mma_bf16(const unsigned short* a, const unsigned short* b, float* c) {
  mma_16_bit<true>(a, b, c);
}
extern "C" __global__ void mma_f16(const unsigned short* a, const unsigned short* b, float* c) {
  mma_16_bit<false>(a, b, c);
}

extern "C" __global__ void mma_f64(const double* a, const double* b, double* c) {
  const int t = threadIdx.x;
  double d[2] = {c[t], c[32 + t]};
  ptx::mma_m8n8k4_f64(d, a[t], b[t]);
  c[t] = d[0];
  c[32 + t] = d[1];
}

extern "C" __global__ void mma_f64_large(const double* a, const double* b, double* c) {
  const int t = threadIdx.x;
  double x[4][2], y[4], d[2][2];
  for (int i = 0; i < 8; i++) x[i / 2][i % 2] = a[i * 32 + t];
  for (int i = 0; i < 4; i++) y[i] = b[i * 32 + t], d[i / 2][i % 2] = c[i * 32 + t];
  ptx::mma_m16n8k16_f64(d, x, y);
  for (int i = 0; i < 4; i++) c[i * 32 + t] = d[i / 2][i % 2];
}

// x: four 8 x 8 matrices, one after another; y: register i of lane t is item i * 32 + t
extern "C" __global__ void ldmatrix(const unsigned short* x, unsigned* y, bool transposed) {
  __shared__ __align__(16) unsigned short matrices[4 * 64];
  const int t = threadIdx.x;
  for (int i = t; i < 4 * 64; i += 32) matrices[i] = x[i];
  __syncwarp();
  unsigned registers[4];
  if (transposed)
    ptx::ldmatrix_x4_trans(registers, matrices + t * 8);
  else
    ptx::ldmatrix_x4(registers, matrices + t * 8);
  for (int i = 0; i < 4; i++) y[i * 32 + t] = registers[i];
}

// x: register i of lane t is item i * 32 + t; y: four 8 x 8 matrices, one after another
extern "C" __global__ void stmatrix(const unsigned* x, unsigned short* y, bool transposed) {
  __shared__ __align__(16) unsigned short matrices[4 * 64];
  const int t = threadIdx.x;
  unsigned registers[4];
  for (int i = 0; i < 4; i++) registers[i] = x[i * 32 + t];
  if (transposed)
    ptx::stmatrix_x4_trans(matrices + t * 8, registers);
  else
    ptx::stmatrix_x4(matrices + t * 8, registers);
  __syncwarp();
  for (int i = t; i < 4 * 64; i += 32) y[i] = matrices[i];
}

// a: register i of thread t is item i * 128 + t; b: a 64 x 8 tile without swizzle
extern "C" __global__ void wgmma_tf32_rs(const unsigned* a, const unsigned* b, float* c) {
  __shared__ __align__(1024) unsigned tile_b[64 * 8];
  const int t = threadIdx.x;
  for (int i = t; i < 64 * 8; i += 128) tile_b[i] = b[i];
  ptx::fence_proxy_async();
  __syncthreads();
  unsigned x[4];
  for (int i = 0; i < 4; i++) x[i] = a[i * 128 + t];
  const unsigned long long place = (ptx::smem_u32(tile_b) & 0x3ffff) >> 4;
  float d[32];
  ptx::wgmma_fence();
  // Two atoms of 8 rows x 16 bytes along k, then the next 8 rows.
  ptx::wgmma_tf32_rs<64>(d, x, place | 128ull >> 4 << 16 | 256ull >> 4 << 32, 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (int i = 0; i < 32; i++) c[i * 128 + t] = d[i];
}

// a: register i of thread t is item i * 128 + t; b: a 64 x 16 bf16 tile without swizzle
extern "C" __global__ void wgmma_bf16_rs(const unsigned* a, const unsigned short* b, float* c) {
  __shared__ __align__(1024) unsigned short tile_b[64 * 16];
  const int t = threadIdx.x;
  for (int i = t; i < 64 * 16; i += 128) tile_b[i] = b[i];
  ptx::fence_proxy_async();
  __syncthreads();
  unsigned x[4];
  for (int i = 0; i < 4; i++) x[i] = a[i * 128 + t];
  const unsigned long long place = (ptx::smem_u32(tile_b) & 0x3ffff) >> 4;
  float d[32];
  ptx::wgmma_fence();
  ptx::wgmma_bf16_rs<64>(d, x, place | 128ull >> 4 << 16 | 256ull >> 4 << 32, 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (int i = 0; i < 32; i++) c[i * 128 + t] = d[i];
}

// a, b: 64 x 16 bf16 tiles as shared memory holds them; register i of thread t is item i * 128 + t
extern "C" __global__ void wgmma_bf16(const unsigned short* a, const unsigned short* b, float* c,
                                      unsigned long long descriptor_a,
                                      unsigned long long descriptor_b, bool transposed) {
  __shared__ __align__(1024) unsigned short tile_a[64 * 64];
  __shared__ __align__(1024) unsigned short tile_b[64 * 64];
  const int t = threadIdx.x;
  for (int i = t; i < 64 * 64; i += 128) tile_a[i] = a[i], tile_b[i] = b[i];
  ptx::fence_proxy_async();
  __syncthreads();
  const auto place = [](const void* tile) {
    return (unsigned long long)((ptx::smem_u32(tile) & 0x3ffff) >> 4);
  };
  float d[32];
  ptx::wgmma_fence();
  if (transposed)
    ptx::wgmma_bf16<64, true, true>(d, descriptor_a | place(tile_a), descriptor_b | place(tile_b),
                                    0);
  else
    ptx::wgmma_bf16<64>(d, descriptor_a | place(tile_a), descriptor_b | place(tile_b), 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (int i = 0; i < 32; i++) c[i * 128 + t] = d[i];
}
