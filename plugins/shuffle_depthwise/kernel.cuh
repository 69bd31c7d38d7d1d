// ShuffleDepthwise on a GPU: a depthwise 3x3 or 5x5 conv that reads its input channels in shuffled
// order, so that the shuffled tensor never exists. float32 and float16 add up in float32, int8 in
// int32. Every element of x is fetched from memory once (plus k - stride rows per band). strips.cuh
// has the arithmetic for any GPU, tiles.cuh that for tensor cores, tile_plan.h picks between them.
//
// No header of the host: NVRTC compiles this file too.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_KERNEL_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_KERNEL_CUH

#include <cuda_fp16.h>

#include "job.cuh"
#include "plain.cuh"
#include "strips.cuh"
#include "tile_steps.cuh"

namespace shuffle_depthwise {

// Takes a strip's rows to y: `rows` of them, `pitch` bytes apart, `columns` elements each. kWhole: they
// start and end at a multiple of what is stored at once.
template <bool kWhole>
struct Target {
  Byte* at;
  int pitch;
  int rows;
  int columns;

  template <int N>
  __device__ void store(int r, unsigned const (&words)[N], int per_word) const {
    Byte* const row = at + r * pitch;
    if (kWhole) {
#pragma unroll
      for (int t = 0; t < N; ++t)
        if (t * per_word < columns) reinterpret_cast<unsigned*>(row)[t] = words[t];
    } else {
#pragma unroll
      for (int q = 0; q < N * per_word; ++q) {
        if (q >= columns) continue;
        unsigned const shifted = words[q / per_word] >> (q % per_word * (32 / per_word));
        if (per_word == 2)
          reinterpret_cast<unsigned short*>(row)[q] = static_cast<unsigned short>(shifted);
        else
          row[q] = static_cast<Byte>(shifted);
      }
    }
  }
};

// What a strip's numbers become in y; `math` knows how its int8 are rounded.
template <typename T, typename Math, bool kWhole>
struct Put {
  Math const& math;
  Target<kWhole> to;

  // whether row r is the strip's last that y has
  __device__ bool last(int r) const { return r + 1 >= to.rows; }
  template <int N>
  __device__ void operator()(int r, float const (&value)[N]) const {
    put(r, value, T());
  }
  template <int N>
  __device__ void put(int r, float const (&value)[N], float) const {
    float* const row = reinterpret_cast<float*>(to.at + r * to.pitch);
#pragma unroll
    for (int q = 0; q < N; q += 2) {
      if (q >= to.columns) continue;
      if (kWhole) {
        *reinterpret_cast<float2*>(row + q) = float2{value[q], value[q + 1]};
        continue;
      }
      row[q] = value[q];
      if (to.columns > q + 1) row[q + 1] = value[q + 1];
    }
  }
  __device__ void put(int r, float const (&value)[4], __half) const {
    unsigned const words[] = {packed(value[0], value[1]), packed(value[2], value[3])};
    to.store(r, words, 2);
  }
  __device__ void put(int r, float const (&steps)[8], signed char) const {
    unsigned const words[] = {math.word(steps), math.word(steps + 4)};
    to.store(r, words, 4);
  }
};

// `rows` rows of one map's y to `to`; their input lies in shared memory from byte `base` on.
template <bool kWhole, typename T, typename Math>
__device__ inline void compute(Job<T> const& job, Math const& math, int base, int rows, Byte* to) {
  constexpr int S = Math::kStride;
  ShuffleDepthwiseParams const& p = job.params;
  int const size = static_cast<int>(sizeof(T)), width = anew(job.plan.width);
  int const pitch = anew(p.width * size), y_pitch = anew(width * size);
  int const across = static_cast<int>(blockDim.x) * Math::kColumns;
  int const down = static_cast<int>(blockDim.y) * Math::kRows;
#pragma unroll 1
  for (int column = anew(threadIdx.x) * Math::kColumns; column < width; column += across) {
    int const left = column * S - p.pad_left;
#pragma unroll 1
    for (int row = anew(threadIdx.y) * Math::kRows; row < rows; row += down) {
      Windows const windows{base + row * S * pitch + left * size, pitch, -left, p.width - left};
      Target<kWhole> const target{to + row * y_pitch + column * size, y_pitch, rows - row,
                                  width - column};
      Put<T, Math, kWhole> const put{math, target};
      math.strip(windows, put);
    }
  }
}

// The output rows of this block.
template <typename T>
__device__ inline int first_row(Job<T> const& job) {
  return anew(blockIdx.x) * job.plan.band;
}
template <typename T>
__device__ inline int count_rows(Job<T> const& job) {
  return min(job.plan.band, job.plan.height - first_row(job));
}

// They in y, for a map of it; and where they are collected: at the same place modulo 16.
template <typename T>
__device__ inline Byte* band_of(Job<T> const& job, int map) {
  long long const row = static_cast<long long>(map) * job.plan.height + first_row(job);
  return reinterpret_cast<Byte*>(job.y + row * job.plan.width);
}
template <typename T>
__device__ inline Byte* collection_of(Job<T> const& job, Byte const* band) {
  return shared_bytes() + own_bytes(job) + kTapBytes + job.plan.staged +
         reinterpret_cast<size_t>(band) % kVectorBytes;
}

// Step `i` of one block: a band of a map per threadIdx.z, each in plan.images images after each other,
// so that weights are prepared once.
template <typename T, typename Math>
__device__ inline void step(Job<T> const& job, int i) {
  ShuffleDepthwiseParams const& p = job.params;
  Plan const& plan = job.plan;
  constexpr bool kCollects = sizeof(T) != kWordBytes;
  Place const place = place_of(job);
  int const channel = place.channel;
  Byte* const taps = shared_bytes() + own_bytes(job);
  int const before = min(place.chunk * plan.images + i, p.batch - 1) * p.channels;
  // shuffled(), with one division
  int const of_group = static_cast<int>(static_cast<unsigned>(channel) / p.groups);
  long long const source =
      before + (channel - of_group * p.groups) * plan.group_channels + of_group;
  int const count = (count_rows(job) - 1) * Math::kStride + Math::kernel(p);
  Rows<T> const input{job.x + source * p.height * p.width, p.height, p.width,
                      first_row(job) * Math::kStride - p.pad_top, count,
                      Math::rows_held(plan, count)};
  int const base = own_bytes(job) + kTapBytes + kVectorBytes + input.place();
  stage(input, reinterpret_cast<T*>(shared_bytes() + base));
  // while x is on its way
  if (i == 0) Math::prepare(p, job.w, job.bias, job.w_scale, channel, taps);
  arrived();
  __syncthreads();

  int const map = before + channel;
  Byte* const to = kCollects ? collection_of(job, band_of(job, map)) : band_of(job, map);
  if (plan.whole)
    compute<true>(job, Math(p, taps), base, count_rows(job), to);
  else
    compute<false>(job, Math(p, taps), base, count_rows(job), to);
  if (!kCollects && i + 1 == plan.images) return;
  // before the next step takes the input's place
  __syncthreads();
  if (!kCollects) return;
  Byte* const band = band_of(job, anew(map));
  write_bytes(band, collection_of(job, band),
              count_rows(job) * plan.width * static_cast<int>(sizeof(T)));
}

// All steps of one block; none where the grid has blocks to spare.
template <typename T, typename Math>
__device__ inline void steps(Job<T> const& job, int images) {
  if (is_spare(job)) return;
#pragma unroll 1
  for (int i = 0; i < images; ++i) step<T, Math>(job, i);
}

// Blocks of a multiprocessor: what leaves each thread the registers it needs, which is more on some
// compute capabilities.
template <typename T, int K, int S>
struct ResidentBlocks {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
  static constexpr int kCount = K == 3 && sizeof(T) != kWordBytes ? 3 : 2;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  static constexpr int kCount = K == 3    ? (S == 2 && sizeof(T) == 1 ? 3 : 4)
                                : S == 1 && sizeof(T) != kWordBytes ? 3
                                                                    : 2;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  static constexpr int kCount = K == 3 ? 4 : sizeof(T) == kWordBytes ? 2 : 3;
#else
  static constexpr int kCount = K == 3 ? 4 : 3;
#endif
};

template <typename T, int K, int S>
__global__ void __launch_bounds__(kBlockThreads, ResidentBlocks<T, K, S>::kCount)
    tiled(Job<T> job) {
  steps<T, typename MathOf<T, K, S>::Type>(job, images_at_most(K) == 1 ? 1 : job.plan.images);
}

// On tensor cores, for float16 and int8; nothing where there are none.
template <typename T, int S>
__global__ void __launch_bounds__(kBlockThreads, S == 2 && sizeof(T) == 2     ? 1
                                                 : ONNX_DEPLOY_ARCH >= 900 ? 3
                                                                           : 2)
    tensor(Job<T> job) {
#if ONNX_DEPLOY_ARCH >= 800
  tile_steps<T, S>(job);
#else
  static_cast<void>(job);
#endif
}

template <typename T>
__global__ void __launch_bounds__(kBlockThreads) untiled(Job<T> job) {
  plain(job.params, job.x, job.w, job.bias, job.w_scale, job.y);
}

}  // namespace shuffle_depthwise

#endif
