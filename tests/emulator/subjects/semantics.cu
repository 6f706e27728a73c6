// What emulated CUDA means, one question a kernel.

extern "C" __global__ void order_of_threads(int* counter, int* order) {
  order[atomicAdd(counter, 1)] = threadIdx.x;
}

extern "C" __global__ void order_of_blocks(int* counter, int* order) {
  order[atomicAdd(counter, 1)] = blockIdx.x;
}

extern "C" __global__ void indices(int* out) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int threads = blockDim.x * blockDim.y * blockDim.z;
  out[(long long)block * threads + thread] = block * 10000 + thread;
}

extern "C" __global__ void shuffles(const int* x, int* y) {
  const int t = threadIdx.x, v = x[t];
  const unsigned all = 0xffffffffu;
  y[t] = __shfl_sync(all, v, t + 1);
  y[32 + t] = __shfl_sync(all, v, 3, 8);
  y[64 + t] = __shfl_xor_sync(all, v, 5);
  y[96 + t] = __shfl_up_sync(all, v, 2);
  y[128 + t] = __shfl_down_sync(all, v, 3, 16);
  y[160 + t] = __ballot_sync(all, v & 1);
  y[192 + t] = __any_sync(all, v == 1000) * 2 + __all_sync(all, v >= 0);
  if (t < 8) y[224 + t] = __shfl_sync(0xffu, v, 7 - t);
}

extern "C" __global__ void elections(int* y) {
  y[threadIdx.x] = ptx::elect_one();
  __syncwarp();
  if (threadIdx.x < 32) y[threadIdx.x] += 2 * ptx::elect_one();
}

extern "C" __global__ void block_votes(const int* x, int* y) {
  const int v = x[threadIdx.x];
  const int count = __syncthreads_count(v), any = __syncthreads_or(v), all = __syncthreads_and(v);
  y[threadIdx.x] = count * 4 + any * 2 + all;
}

extern "C" __global__ void atomics(int* i, unsigned* u, unsigned long long* l, float* f, double* d,
                                   int n) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= n) return;
  atomicAdd(&i[0], t);
  atomicMax(&i[1], t);
  atomicMin(&i[2], -t);
  atomicCAS(&i[3], -1, t);
  atomicAdd(u, 1);
  atomicAdd(l, 1ull << 33);
  atomicAdd(f, 0.5f);
  atomicAdd(d, 0.25);
}

struct alignas(16) Pack {
  float v[4];
};

extern "C" __global__ void packs(const float* x, float* y, int64_t count) {
  const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (i >= count) return;
  Pack pack = reinterpret_cast<const Pack*>(x)[i];
#pragma unroll
  for (int k = 0; k < 4; k++) pack.v[k] *= 2.f;
  reinterpret_cast<Pack*>(y)[i] = pack;
}

extern "C" __global__ void conversions(const float* x, __half* h, __nv_bfloat16* b, float* back) {
  const int t = threadIdx.x;
  h[t] = __float2half_rn(x[t]);
  b[t] = __float2bfloat16_rn(x[t]);
  back[t] = __half2float(h[t]) + __bfloat162float(b[t]);
}

extern "C" __global__ void products_and_sums(float a, float b, float c, float* out) {
  out[0] = a * b + c;
  out[1] = fmaf(a, b, c);
  out[2] = max(min(a, 1.f), 2);
}

extern "C" __global__ void by_value(bool flag, signed char c, unsigned short s, long long l,
                                    double d, Pack pack, float* out) {
  out[0] = flag ? 1.f : 0.f;
  out[1] = c;
  out[2] = s;
  out[3] = float(l >> 32);
  out[4] = float(d);
  out[5] = pack.v[3];
}

// The second half of the block computes while the first waits at a barrier of its own.
extern "C" __global__ void named_barriers(int* out) {
  __shared__ int box[64];
  const int t = threadIdx.x;
  if (t < 64) {
    box[t] = t;
    ptx::bar_sync(1, 64);
    out[t] = box[63 - t];
    ptx::bar_arrive(2, 128);
  } else {
    ptx::bar_sync(2, 128);
    out[t] = out[t - 64] + box[t - 64];
  }
}

__constant__ int table[4] = {2, 3, 5, 7};

extern "C" __global__ void constants(int* out) { out[threadIdx.x] = table[threadIdx.x % 4]; }

extern "C" __global__ void null_pointer(const float* x, int* out) { *out = x == nullptr; }

extern "C" __global__ void dynamic_shared(int* out, int n) {
  extern __shared__ int box[];
  for (int i = threadIdx.x; i < n; i += blockDim.x) box[i] = i;
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = box[n - 1 - i];
}

extern "C" __global__ void architecture(int* out) { *out = __CUDA_ARCH__; }

extern "C" __global__ void prints(int n) {
  if (threadIdx.x == 0) printf("n is %d\n", n);
}
