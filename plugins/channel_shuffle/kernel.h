// The launcher of ChannelShuffle's CUDA kernel; includes no CUDA, so any compiler reads it.
#ifndef ONNX_DEPLOY_CHANNEL_SHUFFLE_KERNEL_H
#define ONNX_DEPLOY_CHANNEL_SHUFFLE_KERNEL_H

#include "params.h"

// Enqueues y = channel_shuffle(x) on `stream` (a cudaStream_t; null: the default).
//   x, y  device, NCHW without gaps, not the same memory
// Returns 0, the cudaError_t of the launch, or -1 where refusal(params) says why.
extern "C" int launch_channel_shuffle(ChannelShuffleParams const& params, void const* x, void* y,
                                      void* stream);

#endif
