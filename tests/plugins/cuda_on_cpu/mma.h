// Tensor cores' matrix products, 16 x 16 x 16, for one warp. The first thread of the warp does the
// whole of it; the others' fragments stay empty, which nobody may look at anyway.
#ifndef CUDA_ON_CPU_MMA_H
#define CUDA_ON_CPU_MMA_H

#include "cuda_fp16.h"

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
enum layout_t { mem_row_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
struct fragment {
  static_assert(M == 16 && N == 16 && K == 16, "the shape that every compute capability has");
  T value[16][16];
};

inline bool first_of_warp() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32 == 0;
}

// What the hardware asks of an address and a row length; the launch fails where they are off.
template <typename T>
void check(T const* at, unsigned row) {
  if (reinterpret_cast<std::uintptr_t>(at) % 32 != 0 || row * sizeof(T) % 16 != 0) std::abort();
}

template <typename Fragment>
void fill_fragment(Fragment& to, float value) {
  for (auto& row : to.value)
    for (auto& each : row) each = value;
}

template <typename Fragment, typename T>
void load_matrix_sync(Fragment& to, T const* from, unsigned row) {
  check(from, row);
  if (!first_of_warp()) return;
  for (int i = 0; i < 256; ++i) to.value[i / 16][i % 16] = from[i / 16 * row + i % 16];
}

template <typename Sum, typename A, typename B>
void mma_sync(Sum& to, A const& a, B const& b, Sum const& from) {
  if (!first_of_warp()) return;
  for (int i = 0; i < 256; ++i) {
    float sum = from.value[i / 16][i % 16];
    for (int k = 0; k < 16; ++k)
      sum += __half2float(a.value[i / 16][k]) * __half2float(b.value[k][i % 16]);
    to.value[i / 16][i % 16] = sum;
  }
}

template <typename Sum>
void store_matrix_sync(float* to, Sum const& from, unsigned row, layout_t) {
  check(to, row);
  if (!first_of_warp()) return;
  for (int i = 0; i < 256; ++i) to[i / 16 * row + i % 16] = from.value[i / 16][i % 16];
}

}  // namespace wmma
}  // namespace nvcuda

#endif
