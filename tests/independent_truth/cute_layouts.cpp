// Prints where the tensor cores of NVIDIA GPUs have their operands, from the CuTe headers.
//
// A line is the name of a table, a colon and its numbers. The tables are
//
//   fragment <instruction> <A, B or C>   the element that value v of thread t is, t fastest; the
//                                        elements of a fragment are numbered down its columns
//   matrices <ldmatrix or its transpose> the 16-bit element that value v of lane t is, t fastest
//   place <major> <K> <extent>           bytes from the start of a tile in shared memory to each
//                                        element (outer, contraction), the contraction fastest
//   descriptor <A or B> <major> <K> <extent>  of the first 64 outer indices of A, then of the next,
//                                        or of all of B; for every 16 of the contraction
//   swizzle <major> <K>                  bytes, of the boxes that fill such a tile
#define CUTE_CVTA_GENERIC_TO_SHARED_ACTIVATED 1
#include <cstddef>

// Host memory stands for shared memory: its address is what the low bits of a pointer say.
inline std::size_t __cvta_generic_to_shared(const void* pointer) {
  return reinterpret_cast<std::size_t>(pointer);
}

#include <cstdio>

#include <cute/arch/copy_sm75.hpp>
#include <cute/arch/mma_sm80.hpp>
#include <cute/arch/mma_sm90.hpp>
#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/copy_traits_sm90_tma_swizzle.hpp>
#include <cute/atom/mma_atom.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
#include <cute/tensor.hpp>

using namespace cute;
using Element = bfloat16_t;
using SM90::GMMA::Major;

constexpr int MAX_TILE_BYTES = 256 * 64 * int(sizeof(Element));
constexpr int MAX_START = 1 << 18;  // a descriptor has no higher bits of an address
// What a descriptor holds of the address of the tile is 0.
alignas(MAX_START) Element memory[MAX_TILE_BYTES / sizeof(Element)];

const char* name_of(Major major) { return major == Major::K ? "K" : "MN"; }

template <typename Layout>
void print_values(const char* name, const Layout& layout) {
  std::printf("%s:", name);
  for (int value = 0; value < int(size<1>(layout)); ++value)
    for (int thread = 0; thread < int(size<0>(layout)); ++thread)
      std::printf(" %d", int(layout(thread, value)));
  std::printf("\n");
}

template <typename Instruction>
void print_fragments(const char* name) {
  using Traits = MMA_Traits<Instruction>;
  char line[64];
  std::snprintf(line, sizeof line, "fragment %s A", name);
  print_values(line, typename Traits::ALayout{});
  std::snprintf(line, sizeof line, "fragment %s B", name);
  print_values(line, typename Traits::BLayout{});
  std::snprintf(line, sizeof line, "fragment %s C", name);
  print_values(line, typename Traits::CLayout{});
}

template <typename Instruction>
void print_accumulator(int columns) {
  char line[64];
  std::snprintf(line, sizeof line, "fragment m64n%dk16 C", columns);
  print_values(line, typename MMA_Traits<Instruction>::CLayout{});
}

// The traits count bits; every sixteenth begins an element.
template <typename Instruction>
void print_matrices(const char* name) {
  const auto layout = typename Copy_Traits<Instruction>::DstLayout{};
  std::printf("matrices %s:", name);
  for (int value = 0; value < int(size<1>(layout)); value += 16)
    for (int lane = 0; lane < 32; ++lane) std::printf(" %d", int(layout(lane, value)) / 16);
  std::printf("\n");
}

// The tile of an operand, with the widest swizzle that its rows have room for.
template <Major MAJOR, int EXTENT, int DEPTH>
auto tile_layout() {
  if constexpr (MAJOR == Major::MN)  // atoms follow each other along the contraction first
    return tile_to_shape(SM90::GMMA::Layout_MN_SW128_Atom<Element>{},
                         Shape<Int<EXTENT>, Int<DEPTH>>{}, Step<_2, _1>{});
  else if constexpr (DEPTH == 64)
    return tile_to_shape(SM90::GMMA::Layout_K_SW128_Atom<Element>{},
                         Shape<Int<EXTENT>, Int<DEPTH>>{});
  else
    return tile_to_shape(SM90::GMMA::Layout_K_SW64_Atom<Element>{},
                         Shape<Int<EXTENT>, Int<DEPTH>>{});
}

template <Major MAJOR, int EXTENT, int DEPTH>
void print_places() {
  const auto layout = tile_layout<MAJOR, EXTENT, DEPTH>();
  const auto tile = make_tensor(make_smem_ptr(memory), layout);
  std::printf("place %s %d %d:", name_of(MAJOR), DEPTH, EXTENT);
  for (int outer = 0; outer < EXTENT; ++outer)
    for (int k = 0; k < DEPTH; ++k)
      std::printf(" %d", int((&tile(outer, k) - memory) * sizeof(Element)));
  std::printf("\nswizzle %s %d: %d\n", name_of(MAJOR), DEPTH,
              16 << int(detail::get_tma_swizzle_bits(layout)));
}

template <typename Descriptors>
void print_descriptors(const Descriptors& descriptors) {
  for (int i = 0; i < int(size<1>(descriptors)); ++i)
    for (int k = 0; k < int(size<2>(descriptors)); ++k)
      std::printf(" %llu", (unsigned long long)descriptors(_0{}, i, k).desc_);
}

template <Major MAJOR, int DEPTH>
void print_left() {
  print_places<MAJOR, 128, DEPTH>();
  const auto tile = make_tensor(make_smem_ptr(memory), tile_layout<MAJOR, 128, DEPTH>());
  const auto product = make_tiled_mma(SM90::GMMA::MMA_64x64x16_F32BF16BF16_SS<MAJOR, Major::K>{},
                                      Layout<Shape<_2, _1, _1>>{});
  std::printf("descriptor A %s %d 128:", name_of(MAJOR), DEPTH);
  for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
    const auto slice = product.get_slice(warpgroup * 128);
    print_descriptors(slice.make_fragment_A(slice.partition_A(tile)));
  }
  std::printf("\n");
}

template <Major MAJOR, int DEPTH, int EXTENT, typename Instruction>
void print_right(Instruction) {
  print_places<MAJOR, EXTENT, DEPTH>();
  const auto tile = make_tensor(make_smem_ptr(memory), tile_layout<MAJOR, EXTENT, DEPTH>());
  const auto slice = make_tiled_mma(Instruction{}).get_slice(0);
  std::printf("descriptor B %s %d %d:", name_of(MAJOR), DEPTH, EXTENT);
  print_descriptors(slice.make_fragment_B(slice.partition_B(tile)));
  std::printf("\n");
}

template <Major MAJOR>
void print_tiles() {
  print_left<MAJOR, 64>();
  print_left<MAJOR, 32>();
  const SM90::GMMA::MMA_64x64x16_F32BF16BF16_SS<Major::K, MAJOR> n64{};
  const SM90::GMMA::MMA_64x128x16_F32BF16BF16_SS<Major::K, MAJOR> n128{};
  const SM90::GMMA::MMA_64x192x16_F32BF16BF16_SS<Major::K, MAJOR> n192{};
  const SM90::GMMA::MMA_64x256x16_F32BF16BF16_SS<Major::K, MAJOR> n256{};
  print_right<MAJOR, 64, 64>(n64);
  print_right<MAJOR, 64, 128>(n128);
  print_right<MAJOR, 64, 192>(n192);
  print_right<MAJOR, 64, 256>(n256);
  print_right<MAJOR, 32, 64>(n64);
  print_right<MAJOR, 32, 128>(n128);
  print_right<MAJOR, 32, 192>(n192);
}

int main() {
  print_fragments<SM80_16x8x16_F32BF16BF16F32_TN>("mma_bf16");
  print_fragments<SM80_16x8x16_F32F16F16F32_TN>("mma_f16");
  print_fragments<SM80_8x8x4_F64F64F64F64_TN>("mma_f64");
  print_fragments<SM90_16x8x16_F64F64F64F64_TN>("mma_f64_large");
  print_accumulator<SM90::GMMA::MMA_64x64x16_F32BF16BF16_SS<Major::K, Major::K>>(64);
  print_accumulator<SM90::GMMA::MMA_64x128x16_F32BF16BF16_SS<Major::K, Major::K>>(128);
  print_accumulator<SM90::GMMA::MMA_64x192x16_F32BF16BF16_SS<Major::K, Major::K>>(192);
  print_accumulator<SM90::GMMA::MMA_64x256x16_F32BF16BF16_SS<Major::K, Major::K>>(256);
  print_matrices<SM75_U32x4_LDSM_N>("ldmatrix");
  print_matrices<SM75_U16x8_LDSM_T>("ldmatrix_trans");
  print_tiles<Major::K>();
  print_tiles<Major::MN>();
}
