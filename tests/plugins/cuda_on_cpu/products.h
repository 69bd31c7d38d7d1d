// The PTX instructions mma.m16n8k32 (signed bytes) and mma.m16n8k16 (float16), for a warp of fibers.
// Written from the PTX manual's tables of fragments, element by element, and not from the kernels.
#ifndef CUDA_ON_CPU_PRODUCTS_H
#define CUDA_ON_CPU_PRODUCTS_H

#include "cuda_runtime.h"

namespace cuda_on_cpu {

// The 32 fibers of the warp that runs, after all of them have shown their words.
inline Fiber* shown_by_warp(unsigned const (&a)[4], unsigned b0, unsigned b1) {
  Fiber* const self = block->running;
  std::size_t const at = static_cast<std::size_t>(self - block->fibers.data());
  if (at / kLanes * kLanes + kLanes > block->fibers.size()) std::abort();
  std::copy(a, a + 4, self->shown);
  self->shown[4] = b0;
  self->shown[5] = b1;
  pause(State::kAtWarp);
  return block->fibers.data() + at / kLanes * kLanes;
}

// Element [row][k] of the left matrix, [k][column] of the right one; T: four or two in a word.
template <typename T>
T left_element(Fiber const* warp, int row, int k) {
  int const each = 4 / static_cast<int>(sizeof(T)), half = 4 * each;
  int const lane = row % 8 * 4 + k % half / each;
  T values[4 / sizeof(T)];
  std::memcpy(values, &warp[lane].shown[row / 8 + 2 * (k / half)], 4);
  return values[k % each];
}
template <typename T>
T right_element(Fiber const* warp, int k, int column) {
  int const each = 4 / static_cast<int>(sizeof(T)), half = 4 * each;
  int const lane = column * 4 + k % half / each;
  T values[4 / sizeof(T)];
  std::memcpy(values, &warp[lane].shown[4 + k / half], 4);
  return values[k % each];
}

template <typename T, typename Sum>
void multiply(Sum (&sum)[4], unsigned const (&a)[4], unsigned b0, unsigned b1,
              Sum const (&from)[4]) {
  Fiber const* const warp = shown_by_warp(a, b0, b1);
  int const lane = static_cast<int>(block->running - warp);
  for (int i = 0; i < 4; ++i) {
    int const row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    Sum total = from[i];
    for (int k = 0; k < 32 / static_cast<int>(sizeof(T)); ++k)
      total += static_cast<Sum>(left_element<T>(warp, row, k)) *
               static_cast<Sum>(right_element<T>(warp, k, column));
    sum[i] = total;
  }
  pause(State::kAtWarp);  // before the next words are shown
}

inline void multiply_bytes(int (&sum)[4], unsigned const (&a)[4], unsigned b0, unsigned b1,
                           int const (&from)[4]) {
  multiply<std::int8_t>(sum, a, b0, b1, from);
}
inline void multiply_halves(float (&sum)[4], unsigned const (&a)[4], unsigned b0, unsigned b1,
                            float const (&from)[4]) {
  multiply<_Float16>(sum, a, b0, b1, from);
}

}  // namespace cuda_on_cpu

#endif
