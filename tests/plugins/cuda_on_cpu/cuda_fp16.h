// CUDA's half precision, by the compiler's _Float16 (which rounds half to even, as the GPU does).
#ifndef CUDA_ON_CPU_CUDA_FP16_H
#define CUDA_ON_CPU_CUDA_FP16_H

#include "cuda_runtime.h"

struct __half {
  _Float16 value;
};
using half = __half;

struct __half2 {
  __half x, y;
};

inline float __half2float(__half from) { return static_cast<float>(from.value); }
inline __half __float2half_rn(float from) { return {static_cast<_Float16>(from)}; }
inline __half __ushort_as_half(unsigned short bits) {
  __half value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned short __half_as_ushort(__half value) {
  unsigned short bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline __half2 __half2half2(__half value) { return {value, value}; }
inline __half2 __floats2half2_rn(float x, float y) {
  return {__float2half_rn(x), __float2half_rn(y)};
}
inline __half2 __hsub2(__half2 a, __half2 b) {
  return __floats2half2_rn(__half2float(a.x) - __half2float(b.x),
                           __half2float(a.y) - __half2float(b.y));
}

#endif
