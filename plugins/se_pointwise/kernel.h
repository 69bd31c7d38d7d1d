// The launcher of SePointwise's CUDA kernels; includes no CUDA, so any compiler reads it.
#ifndef ONNX_DEPLOY_SE_POINTWISE_KERNEL_H
#define ONNX_DEPLOY_SE_POINTWISE_KERNEL_H

#include "params.h"

// Enqueues y = conv1x1(x * scale) + bias on `stream` (a cudaStream_t; null: the default).
//   x, y     device, NCHW without gaps, of params.type
//   scale    device, [N, C, 1, 1]; of params.type, float32 when that is int8
//   w        device, [M, C, 1, 1], of params.weight_type
//   bias     device, [M], or null; of params.type, float32 when that is int8
//   w_scale  device, float32[M] for int8 w: w is w_scale * integer; else null
// Returns 0, the cudaError_t of the launch, or -1 where refusal(params) says why.
extern "C" int launch_se_pointwise(SePointwiseParams const& params, void const* x,
                                   void const* scale, void const* w, void const* bias,
                                   float const* w_scale, void* y, void* stream);

#endif
