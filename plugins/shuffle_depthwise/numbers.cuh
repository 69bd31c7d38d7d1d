// How ShuffleDepthwise turns stored numbers into those it computes with, and back.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_NUMBERS_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_NUMBERS_CUH

#include <cuda_fp16.h>

#include "params.h"

namespace shuffle_depthwise {

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }

__device__ inline void from_float(float value, float* to) { *to = value; }
__device__ inline void from_float(float value, __half* to) { *to = __float2half_rn(value); }

// Two numbers as the word that y stores.
__device__ inline unsigned packed(float low, float high) {
  union {
    __half2 pair;
    unsigned word;
  } both;
  both.pair = __floats2half2_rn(low, high);
  return both.word;
}

// 1.5 * 2^23: a float near it has its integer part in its low bits, rounded half to even by the
// addition itself. An integer below 2^22 in size turns into a float, and back, without a
// conversion, which GPUs do at a quarter of the rate of an addition.
constexpr float kIntegerShift = 12582912.0f;
constexpr int kIntegerShiftBits = 0x4B400000;

// The real value of one step of channel c's integer weights.
__device__ inline float weight_step(ShuffleDepthwiseParams const& p, void const* w,
                                    float const* w_scale, int c) {
  if (w_scale != nullptr) return w_scale[c];
  int const taps = p.kernel * p.kernel;
  float largest = 0.0f;
#pragma unroll 1
  for (int i = 0; i < taps; ++i)
    largest = fmaxf(largest, fabsf(static_cast<float const*>(w)[c * taps + i]));
  return largest > 0.0f ? largest / 127.0f : 1.0f;
}

// Weight i of channel c as an integer; float32 weights are rounded half to even.
__device__ inline int integer_weight(ShuffleDepthwiseParams const& p, void const* w, float step,
                                     int c, int i) {
  int const at = c * p.kernel * p.kernel + i;
  if (p.weight_type == ShuffleDepthwiseParams::kInt8)
    return static_cast<signed char const*>(w)[at];
  float const rounded = rintf(static_cast<float const*>(w)[at] / step);
  return static_cast<int>(fminf(fmaxf(rounded, -128.0f), 127.0f));
}

// What takes channel c's sum of integer products to steps of y: sum * factor + offset.
struct Rescale {
  float factor;
  float offset;
  float low;  // the smallest y
};

__device__ inline Rescale rescale(ShuffleDepthwiseParams const& p, void const* bias, float step,
                                  int c) {
  float const shift = bias != nullptr ? static_cast<float const*>(bias)[c] : 0.0f;
  return {p.x_scale * step / p.y_scale, shift / p.y_scale, p.relu ? 0.0f : -128.0f};
}

// A word whose low byte is y: saturated, rounded half to even. `sum` is a float that holds an
// integer.
__device__ inline unsigned requantized(float sum, Rescale const& r) {
  float const steps = fminf(fmaxf(fmaf(sum, r.factor, r.offset), r.low), 127.0f);
  return static_cast<unsigned>(__float_as_int(steps + kIntegerShift));
}

// Four of y as one word: saturated, rounded half to even; negative ones 0 where `relu` is all ones.
__device__ inline unsigned packed_bytes(float const (&value)[4], unsigned relu) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 720  // V100 (7.0) has no cvt.pack
  unsigned high, word;
  asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, 0;"
      : "=r"(high)
      : "r"(__float2int_rn(value[3])), "r"(__float2int_rn(value[2])));
  asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, %3;"
      : "=r"(word)
      : "r"(__float2int_rn(value[1])), "r"(__float2int_rn(value[0])), "r"(high));
  unsigned negative;  // all ones in the bytes that are
  asm("prmt.b32 %0, %1, 0, 0xBA98;" : "=r"(negative) : "r"(word));
  return word & ~(negative & relu);
#else
  float const low = relu != 0u ? 0.0f : -128.0f;
  unsigned word = 0u;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float const steps = fminf(fmaxf(value[i], low), 127.0f);
    word |= (static_cast<unsigned>(__float_as_int(steps + kIntegerShift)) & 255u) << (8 * i);
  }
  return word;
#endif
}

}  // namespace shuffle_depthwise

#endif
