// One launch of ShuffleDepthwise, and which part of it a thread has.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_JOB_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_JOB_CUH

#include "plan.h"
#include "shared.cuh"

namespace shuffle_depthwise {

// The pointers of kernel.h, typed.
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

// Where this thread's map begins in shared memory: its weights, its input, its output.
template <typename T>
__device__ inline int own_bytes(Job<T> const& job) {
  return anew(threadIdx.z) * (kTapBytes + job.plan.staged + job.plan.collected);
}

// Which maps a block has. blockIdx.x is its band, so that blocks with rows in common run at about
// the same time.
__device__ inline unsigned block_of_maps() { return blockIdx.z * gridDim.y + blockIdx.y; }

// Whether the grid has this block to spare.
template <typename T>
__device__ inline bool is_spare(Job<T> const& job) {
  unsigned const maps = static_cast<unsigned>(job.plan.chunks) * job.params.channels;
  return block_of_maps() * blockDim.z >= maps;
}

// A thread's channel, in plan.images images: the chunk-th so many.
struct Place {
  int chunk;
  int channel;
};
template <typename T>
__device__ inline Place place_of(Job<T> const& job) {
  unsigned const channels = static_cast<unsigned>(job.params.channels);
  unsigned const last = static_cast<unsigned>(job.plan.chunks) * channels - 1;
  // threads past the last redo it: all of a block must reach its barriers
  unsigned const mine = min(block_of_maps() * blockDim.z + anew(threadIdx.z), last);
  unsigned const chunk = mine / channels;
  return {static_cast<int>(chunk), static_cast<int>(mine - chunk * channels)};
}

}  // namespace shuffle_depthwise

#endif
