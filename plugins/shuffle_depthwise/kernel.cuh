// ShuffleDepthwise on a GPU: a depthwise 3x3 or 5x5 conv that reads its input channels in shuffled
// order, so that the shuffled tensor never exists. float32 and float16 add up in float32, int8 in
// int32. Every element of x is fetched from memory once (plus k - stride rows per band).
//
// No header of the host: NVRTC compiles this file too.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_KERNEL_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_KERNEL_CUH

#include <cuda_fp16.h>

#include "plain.cuh"
#include "plan.h"
#include "shared.cuh"
#include "strips.cuh"

namespace shuffle_depthwise {

// One launch: the pointers of kernel.h, typed.
template <typename T>
struct Job {
  ShuffleDepthwiseParams params;
  Plan plan;
  T const* x;
  void const* w;
  void const* bias;
  float const* w_scale;
  T* y;
};

// Element q of a word.
template <typename T>
__device__ inline T element(unsigned word, int q) {
  union {
    unsigned word;
    T each[kWordBytes / sizeof(T)];
  } both;
  both.word = word >> (q * 8 * static_cast<int>(sizeof(T)));
  return both.each[0];
}

// A strip's first `rows` words to rows of y that are `width` apart.
template <typename T, int R>
__device__ inline void store_words(unsigned const (&y)[R], T* to, int width, int rows) {
  Byte* at = reinterpret_cast<Byte*>(to);
  size_t const step = static_cast<size_t>(width) * sizeof(T);
#pragma unroll
  for (int r = 0; r < R; ++r, at += step)
    if (r < rows) *reinterpret_cast<unsigned*>(at) = y[r];
}

// The same for rows that aren't whole words: the first `columns` elements of each.
template <typename T, int R>
__device__ inline void store_elements(unsigned const (&y)[R], T* to, int width, int rows,
                                      int columns) {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int q = 0; q < kWordBytes / static_cast<int>(sizeof(T)); ++q)
      if (r < rows && q < columns) to[r * width + q] = element<T>(y[r], q);
}

// What one block computes. blockIdx.x: its maps, one per threadIdx.y; blockIdx.y: its band.
template <typename T, int K, int S>
__device__ inline void block_of_y(Job<T> const& job) {
  using Math = typename MathOf<T, K, S>::Type;
  ShuffleDepthwiseParams const& p = job.params;
  Plan const& plan = job.plan;
  long long const last = static_cast<long long>(p.batch) * p.channels - 1;
  long long const wanted = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y;
  // threads past the last map redo it: all of a block must reach its barriers
  long long const map = wanted < last ? wanted : last;
  int const channel = static_cast<int>(map % p.channels);
  long long const source = map - channel + shuffled(channel, p.groups, p.channels);
  int const height = output_height(p), width = output_width(p);
  int const first = static_cast<int>(blockIdx.y) * plan.band;
  int const rows = min(plan.band, height - first);
  int const own = static_cast<int>(threadIdx.y) * (plan.staged + plan.collected);
  int const base = own + kVectorBytes;

  stage(Rows{reinterpret_cast<Byte const*>(job.x + source * p.height * p.width), p.height,
             first * S - p.pad_top, (rows - 1) * S + K, p.width * static_cast<int>(sizeof(T))},
        base, plan);
  Math const math(p, job.w, job.bias, job.w_scale, channel);
  T* const band = job.y + (map * height + first) * width;
  T* to = band;
  if (plan.collected != 0)
    to = reinterpret_cast<T*>(shared_bytes() + own + plan.staged +
                              reinterpret_cast<size_t>(band) % kVectorBytes);
  __syncthreads();

  int const words = (width + Math::kColumns - 1) / Math::kColumns;
  int const pitch = plan.pitch / kWordBytes;
  Share const share = share_of(words);
  for (int word = share.column; word < words; word += share.across) {
    int const column = word * Math::kColumns;
    int const left = base + (column * S - p.pad_left) * static_cast<int>(sizeof(T));
    for (int row = share.row * Math::kRows; row < rows; row += share.down * Math::kRows) {
      unsigned y[Math::kRows];
      math.strip(left / kWordBytes + row * S * pitch, left % kWordBytes * 8, pitch, y);
      int const at = row * width + column;
      if (sizeof(T) != kWordBytes && !plan.whole)
        store_elements(y, to + at, width, rows - row, width - column);
      else if (rows - row >= Math::kRows)
        store_words(y, band + at, width, Math::kRows);
      else
        store_words(y, band + at, width, rows - row);
    }
  }
  if (plan.collected == 0) return;
  __syncthreads();
  write_bytes(reinterpret_cast<Byte*>(band), reinterpret_cast<Byte const*>(to),
              rows * width * static_cast<int>(sizeof(T)));
}

template <typename T, int K, int S>
__global__ void __launch_bounds__(kBlockThreads) tiled(Job<T> job) {
  block_of_y<T, K, S>(job);
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads) untiled(Job<T> job) {
  plain(job.params, job.x, job.w, job.bias, job.w_scale, job.y);
}

}  // namespace shuffle_depthwise

#endif
