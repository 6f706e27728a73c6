// c = a bᵀ by one wgmma of any width. a: 64 x 16, b: columns x 16, as images of shared memory, or a
// in registers: register i of thread t is item i * 128 + t, and so it is with c.
#ifndef WIDEST
#define WIDEST 256
#define TYPE bf16
#endif
#define JOIN_NAMES(A, B) A##B
#define JOIN(A, B) JOIN_NAMES(A, B)
constexpr int IMAGE_A = 24 << 10;  // bytes

template <int COLUMNS, bool A_TRANSPOSED, bool B_TRANSPOSED>
__device__ void multiply(const unsigned* a, float* c, unsigned long long descriptor_a,
                         unsigned long long descriptor_b) {
  const int t = threadIdx.x;
  float d[COLUMNS / 2];
  for (int i = 0; i < COLUMNS / 2; i++) d[i] = c[i * 128 + t];
  unsigned registers[4];
  for (int i = 0; i < 4; i++) registers[i] = a ? a[i * 128 + t] : 0;
  ptx::wgmma_fence();
  if (a)
    ptx::JOIN(wgmma_, JOIN(TYPE, _rs))<COLUMNS, B_TRANSPOSED>(d, registers, descriptor_b, 1);
  else
    ptx::JOIN(wgmma_, TYPE)<COLUMNS, A_TRANSPOSED, B_TRANSPOSED>(d, descriptor_a, descriptor_b, 1);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (int i = 0; i < COLUMNS / 2; i++) c[i * 128 + t] = d[i];
}

template <int COLUMNS, bool A_TRANSPOSED, bool B_TRANSPOSED>
__device__ void dispatch(int columns, const unsigned* a, float* c, unsigned long long descriptor_a,
                         unsigned long long descriptor_b) {
  if (columns == COLUMNS) {
    multiply<COLUMNS, A_TRANSPOSED, B_TRANSPOSED>(a, c, descriptor_a, descriptor_b);
  } else if constexpr (COLUMNS < WIDEST) {
    dispatch<COLUMNS + 8, A_TRANSPOSED, B_TRANSPOSED>(columns, a, c, descriptor_a, descriptor_b);
  }
}

extern "C" __global__ void __launch_bounds__(128)
product(const uint4* images, int bytes, const unsigned* a, float* c,
        unsigned long long descriptor_a, unsigned long long descriptor_b, int columns,
        bool a_transposed, bool b_transposed) {
  extern __shared__ alignas(1024) unsigned char memory[];
  for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
    reinterpret_cast<uint4*>(memory)[i] = images[i];
  }
  ptx::fence_proxy_async();
  __syncthreads();
  const auto at = [&](int byte) {
    return (unsigned long long)((ptx::smem_u32(memory + byte) & 0x3ffff) >> 4);
  };
  descriptor_a += at(0);
  descriptor_b += at(IMAGE_A);
  if (a_transposed && b_transposed)
    dispatch<8, true, true>(columns, a, c, descriptor_a, descriptor_b);
  else if (a_transposed)
    dispatch<8, true, false>(columns, a, c, descriptor_a, descriptor_b);
  else if (b_transposed)
    dispatch<8, false, true>(columns, a, c, descriptor_a, descriptor_b);
  else
    dispatch<8, false, false>(columns, a, c, descriptor_a, descriptor_b);
}
