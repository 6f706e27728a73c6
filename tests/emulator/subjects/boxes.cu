// One box of a tensor, as it lies in shared memory.
struct alignas(64) Map {
  unsigned char opaque[128];
};

extern "C" __global__ void read_box(const __grid_constant__ Map map, int rank, int4 corner,
                                    unsigned bytes, unsigned* y) {
  extern __shared__ __align__(1024) unsigned char box[];
  __shared__ unsigned long long landed;
  if (threadIdx.x == 0) {
    ptx::tma_prefetch(&map);
    ptx::mbar_init(&landed, 1);
    ptx::fence_mbar_init();
    ptx::mbar_expect_tx(&landed, bytes);
    if (rank == 2) ptx::tma_load_2d(box, &map, corner.x, corner.y, &landed);
    if (rank == 3) ptx::tma_load_3d(box, &map, corner.x, corner.y, corner.z, &landed);
    if (rank == 4) ptx::tma_load_4d(box, &map, corner.x, corner.y, corner.z, corner.w, &landed);
  }
  __syncthreads();
  ptx::mbar_wait(&landed, 0);
  for (unsigned i = threadIdx.x; i < bytes / 4; i += blockDim.x) {
    y[i] = reinterpret_cast<const unsigned*>(box)[i];
  }
}
