// Launches the kernel for one ChannelShuffle; see kernel.h.
#include "kernel.h"

#include <cuda_runtime.h>

#include "kernel.cuh"

extern "C" int launch_channel_shuffle(ChannelShuffleParams const& params, void const* x, void* y,
                                      void* stream) {
  using channel_shuffle::kBlockThreads;
  if (refusal(params) != nullptr) return -1;
  // as many threads per map as it has pieces of 16 bytes, the rest of the block for other maps
  long long const pieces =
      (static_cast<long long>(params.positions) * params.element_bytes + 15) / 16;
  unsigned threads = 1;
  while (threads < pieces && threads < kBlockThreads) threads *= 2;
  dim3 const block(threads, kBlockThreads / threads);
  long long const maps = static_cast<long long>(params.batch) * params.channels;
  dim3 const grid(static_cast<unsigned>((maps + block.y - 1) / block.y));
  ChannelShuffleParams copy = params;
  void* arguments[] = {&copy, &x, &y};
  return cudaLaunchKernel(channel_shuffle::shuffle, grid, block, arguments, size_t{0},
                          static_cast<cudaStream_t>(stream));
}
