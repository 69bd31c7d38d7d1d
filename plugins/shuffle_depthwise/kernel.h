// The launcher of ShuffleDepthwise's CUDA kernels; includes no CUDA, so any compiler reads it.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_KERNEL_H
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_KERNEL_H

#include "params.h"

// Enqueues y = depthwise_conv(channel_shuffle(x)) on `stream` (a cudaStream_t; null: the default).
//   x, y     device, NCHW without gaps, of params.type
//   w        device, [C, 1, k, k], of params.weight_type
//   bias     device, [C], or null; of params.type, float32 when that is int8
//   w_scale  device, float32[C], or null; read for int8 only: w is w_scale * integer. Null with
//            float32 w: max|w| / 127 of each channel. int8 w needs it.
// Returns 0, the cudaError_t of the launch, or -1 where refusal(params) says why.
extern "C" int launch_shuffle_depthwise(ShuffleDepthwiseParams const& params, void const* x,
                                        void const* w, void const* bias, float const* w_scale,
                                        void* y, void* stream);

#endif
