// How SePointwise turns stored numbers into those it computes with, and back.
#ifndef ONNX_DEPLOY_SE_POINTWISE_NUMBERS_CUH
#define ONNX_DEPLOY_SE_POINTWISE_NUMBERS_CUH

#include <cuda_fp16.h>

#include "params.h"

namespace se_pointwise {

// The type of scale and bias that goes with a type of x.
template <typename T>
struct Beside {
  using Type = T;
};
template <>
struct Beside<signed char> {
  using Type = float;
};

// One launch: the pointers of kernel.h, typed; T of x and y, W of w.
template <typename T, typename W>
struct Job {
  SePointwiseParams params;
  T const* x;
  typename Beside<T>::Type const* scale;
  W const* w;
  typename Beside<T>::Type const* bias;
  float const* w_scale;
  T* y;
  int whole_x;      // rows of x can be read in pieces of 16 bytes
  int whole_y;      // rows of y can be written four elements at a time
  int whole_w;      // rows of w and scale can be read in pieces of 16 bytes
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(signed char value) { return value; }

// Element i of the 16 bytes in `words`.
__device__ inline float element(uint4 const& words, int i, float) {
  return __int_as_float(static_cast<int>(i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z
                                                                                      : words.w));
}
__device__ inline float element(uint4 const& words, int i, __half) {
  unsigned const word = i / 2 == 0 ? words.x : i / 2 == 1 ? words.y : i / 2 == 2 ? words.z
                                                                                 : words.w;
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word >> (i % 2 * 16))));
}
__device__ inline float element(uint4 const& words, int i, signed char) {
  unsigned const word = i / 4 == 0 ? words.x : i / 4 == 1 ? words.y : i / 4 == 2 ? words.z
                                                                                 : words.w;
  return static_cast<signed char>(word >> (i % 4 * 8));
}

// N numbers from `from`, zeros from number `count` on; `whole`: 16 bytes at a time, if all count.
template <int N, typename T>
__device__ inline void load_numbers(T const* from, int count, bool whole, float (&to)[N]) {
  constexpr int kPiece = 16 / static_cast<int>(sizeof(T));
  if (N % kPiece == 0 && whole && count >= N) {
#pragma unroll
    for (int i = 0; i < N; i += kPiece) {
      uint4 const words = *reinterpret_cast<uint4 const*>(from + i);
#pragma unroll
      for (int k = 0; k < kPiece && i + k < N; ++k) to[i + k] = element(words, k, T());
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = i < count ? to_float(from[i]) : 0.0f;
}

// Weight as the kernel multiplies with it: on w_scale's grid where there is one.
__device__ inline float stepped(float weight, float const* step) {
  if (step == nullptr) return weight;
  return fminf(fmaxf(rintf(weight / *step), -128.0f), 127.0f);
}

// What becomes of a sum: sum * factor + offset, in the type of y, or in steps of y_scale.
struct Finish {
  float factor;
  float offset;
};

template <typename T, typename W>
__device__ inline Finish finish_of(Job<T, W> const& job, int m) {
  float const bias = job.bias != nullptr ? to_float(job.bias[m]) : 0.0f;
  if (sizeof(T) != 1) return {1.0f, bias};
  float const step = job.w_scale != nullptr ? job.w_scale[m] : 1.0f;
  return {job.params.x_scale * step / job.params.y_scale, bias / job.params.y_scale};
}

__device__ inline void store(float value, float* to) { *to = value; }
__device__ inline void store(float value, __half* to) { *to = __float2half_rn(value); }
// rounded half to even by adding 1.5 * 2^23, which leaves the integer in the float's low bits
__device__ inline void store(float value, signed char* to) {
  float const steps = fminf(fmaxf(value, -128.0f), 127.0f);
  *to = static_cast<signed char>(__float_as_int(steps + 12582912.0f) & 255);
}

// Four of them, where the address is a multiple of their size.
__device__ inline void store_four(float const (&value)[4], float* to) {
  *reinterpret_cast<float4*>(to) = float4{value[0], value[1], value[2], value[3]};
}
template <typename T>
__device__ inline void store_four(float const (&value)[4], T* to) {
  union {
    T each[4];
    uint2 half;
    unsigned bytes;
  } words;
#pragma unroll
  for (int i = 0; i < 4; ++i) store(value[i], words.each + i);
  if (sizeof(T) == 2)
    *reinterpret_cast<uint2*>(to) = words.half;
  else
    *reinterpret_cast<unsigned*>(to) = words.bytes;
}

}  // namespace se_pointwise

#endif
