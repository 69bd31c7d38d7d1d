// Tensor cores' products of 16 x 32 bytes by 32 x 8 bytes, one warp together; compute capability 8.0
// and later. A lane's words follow the PTX manual, "Matrix Fragments for mma.m16n8k16" and
// "... mma.m16n8k32": of lane 4g + t, a[0] and a[2] are of row g, a[1] and a[3] of row g + 8, b0 and
// b1 of column g; a[0], a[1] and b0 meet, and so do a[2], a[3] and b1. sum[0], sum[1] are of row g,
// sum[2], sum[3] of row g + 8, in columns 2t and 2t + 1.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PRODUCTS_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PRODUCTS_CUH

#include "shared.cuh"

namespace shuffle_depthwise {

// Signed bytes, added up as integers to `from`.
__device__ inline void multiply(int (&sum)[4], unsigned const (&a)[4], unsigned b0, unsigned b1,
                                int const (&from)[4]) {
#ifdef CUDA_ON_CPU_ARCH
  cuda_on_cpu::multiply_bytes(sum, a, b0, b1, from);
#elif ONNX_DEPLOY_ARCH >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%10, %11, %12, %13};"
      : "=r"(sum[0]), "=r"(sum[1]), "=r"(sum[2]), "=r"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(from[0]), "r"(from[1]),
        "r"(from[2]), "r"(from[3]));
#endif
}

// float16, added up in float32 to `from`.
__device__ inline void multiply(float (&sum)[4], unsigned const (&a)[4], unsigned b0, unsigned b1,
                                float const (&from)[4]) {
#ifdef CUDA_ON_CPU_ARCH
  cuda_on_cpu::multiply_halves(sum, a, b0, b1, from);
#elif ONNX_DEPLOY_ARCH >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%10, %11, %12, %13};"
      : "=f"(sum[0]), "=f"(sum[1]), "=f"(sum[2]), "=f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(from[0]), "f"(from[1]),
        "f"(from[2]), "f"(from[3]));
#endif
}

}  // namespace shuffle_depthwise

#endif
