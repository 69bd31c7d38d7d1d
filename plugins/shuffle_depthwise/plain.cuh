// ShuffleDepthwise without shared memory, for any width and any grid: each thread takes outputs at
// the grid's stride. It runs where rows are too wide for kernel.cuh, and inside kernels that a
// vendor's tool launches itself.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PLAIN_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PLAIN_CUH

#include "numbers.cuh"

namespace shuffle_depthwise {

// Which channel of x the shuffle puts at channel c.
__device__ inline int shuffled(int c, int groups, int channels) {
  return c % groups * (channels / groups) + c / groups;
}

// One output of one map: its window's first row and column of x, and the map.
template <typename T>
struct Window {
  T const* map;
  int top;
  int left;
};

template <typename T>
__device__ inline void plain_output(ShuffleDepthwiseParams const& p, Window<T> const& window,
                                    void const* w, void const* bias, float const*, int c, T* y) {
  T const* const weight = static_cast<T const*>(w) + c * p.kernel * p.kernel;
  float sum = bias != nullptr ? to_float(static_cast<T const*>(bias)[c]) : 0.0f;
  for (int i = 0; i < p.kernel; ++i) {
    if (window.top + i < 0 || window.top + i >= p.height) continue;
    T const* const row = window.map + static_cast<long long>(window.top + i) * p.width;
    for (int j = 0; j < p.kernel; ++j)
      if (window.left + j >= 0 && window.left + j < p.width)
        sum = fmaf(to_float(row[window.left + j]), to_float(weight[i * p.kernel + j]), sum);
  }
  from_float(p.relu ? fmaxf(sum, 0.0f) : sum, y);
}

__device__ inline void plain_output(ShuffleDepthwiseParams const& p,
                                    Window<signed char> const& window, void const* w,
                                    void const* bias, float const* w_scale, int c,
                                    signed char* y) {
  float const step = weight_step(p, w, w_scale, c);
  int sum = 0;
  for (int i = 0; i < p.kernel; ++i) {
    if (window.top + i < 0 || window.top + i >= p.height) continue;
    signed char const* const row = window.map + static_cast<long long>(window.top + i) * p.width;
    for (int j = 0; j < p.kernel; ++j)
      if (window.left + j >= 0 && window.left + j < p.width)
        sum += row[window.left + j] * integer_weight(p, w, step, c, i * p.kernel + j);
  }
  unsigned const byte = requantized(static_cast<float>(sum), rescale(p, bias, step, c));
  *y = static_cast<signed char>(byte);
}

// All of y; T is float, __half or signed char, the pointers are those of kernel.h.
template <typename T>
__device__ void plain(ShuffleDepthwiseParams const& p, T const* x, void const* w,
                      void const* bias, float const* w_scale, T* y) {
  int const height = output_height(p);
  int const width = output_width(p);
  long long const all = static_cast<long long>(p.batch) * p.channels * height * width;
  long long const step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; at < all;
       at += step) {
    int const column = static_cast<int>(at % width);
    int const row = static_cast<int>(at / width % height);
    long long const plane = at / width / height;
    int const c = static_cast<int>(plane % p.channels);
    long long const source = plane - c + shuffled(c, p.groups, p.channels);
    Window<T> const window{x + source * p.height * p.width, row * p.stride - p.pad_top,
                           column * p.stride - p.pad_left};
    plain_output(p, window, w, bias, w_scale, c, y + at);
  }
}

}  // namespace shuffle_depthwise

#endif
