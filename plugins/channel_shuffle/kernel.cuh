// ChannelShuffle on a GPU: each channel's map is one contiguous copy, in pieces as wide as the
// addresses allow. Types don't matter; all counts are bytes.
//
// No header of the host: NVRTC compiles this file too.
#ifndef ONNX_DEPLOY_CHANNEL_SHUFFLE_KERNEL_CUH
#define ONNX_DEPLOY_CHANNEL_SHUFFLE_KERNEL_CUH

#include "params.h"

namespace channel_shuffle {

using Byte = unsigned char;

constexpr int kBlockThreads = 256;
constexpr int kInFlight = 4;  // pieces a thread loads before it stores the first

// What bounds the reads: all of x.
struct Source {
  Byte const* begin;
  Byte const* end;
};

// The 4 bytes at `from`, which may lie at any address: the two aligned words around them, or, at
// the ends of x, byte by byte.
__device__ inline unsigned word_at(Byte const* from, Source const& x) {
  int const over = static_cast<int>(reinterpret_cast<size_t>(from) % 4);
  Byte const* const aligned = from - over;
  if (over == 0) return *reinterpret_cast<unsigned const*>(from);
  if (aligned < x.begin || aligned + 8 > x.end)
    return from[0] | from[1] << 8 | from[2] << 16 | static_cast<unsigned>(from[3]) << 24;
  unsigned const* const words = reinterpret_cast<unsigned const*>(aligned);
  return __funnelshift_r(words[0], words[1], over * 8);
}

// One map, by threads `thread` of `threads`.
__device__ inline void copy_map(Byte* to, Byte const* from, int count, Source const& x, int thread,
                                int threads) {
  if (((reinterpret_cast<size_t>(to) | reinterpret_cast<size_t>(from)) % 16) == 0) {
    int const pieces = count / 16;
    for (int i = thread; i < pieces; i += kInFlight * threads) {
      uint4 held[kInFlight];
#pragma unroll
      for (int k = 0; k < kInFlight; ++k)
        if (i + k * threads < pieces)
          held[k] = reinterpret_cast<uint4 const*>(from)[i + k * threads];
#pragma unroll
      for (int k = 0; k < kInFlight; ++k)
        if (i + k * threads < pieces) reinterpret_cast<uint4*>(to)[i + k * threads] = held[k];
    }
    for (int i = pieces * 16 + thread; i < count; i += threads) to[i] = from[i];
    return;
  }
  int const over = static_cast<int>(reinterpret_cast<size_t>(to) % 4);
  int const lead = over == 0 ? 0 : min(4 - over, count);
  int const words = (count - lead) / 4;
  for (int i = thread; i < words; i += kInFlight * threads) {
    unsigned held[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (i + k * threads < words) held[k] = word_at(from + lead + 4 * (i + k * threads), x);
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (i + k * threads < words)
        reinterpret_cast<unsigned*>(to + lead)[i + k * threads] = held[k];
  }
  for (int i = thread; i < lead; i += threads) to[i] = from[i];
  for (int i = lead + words * 4 + thread; i < count; i += threads) to[i] = from[i];
}

// All maps, at the grid's stride: blockDim.y maps at a time, blockDim.x threads each. Any 1-D grid.
__device__ inline void copy_maps(ChannelShuffleParams const& p, void const* x, void* y) {
  int const count = p.positions * p.element_bytes;
  long long const maps = static_cast<long long>(p.batch) * p.channels;
  Source const source{static_cast<Byte const*>(x), static_cast<Byte const*>(x) + maps * count};
  long long const step = static_cast<long long>(gridDim.x) * blockDim.y;
  for (long long map = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y; map < maps;
       map += step) {
    int const c = static_cast<int>(map % p.channels);
    int const from = c % p.groups * (p.channels / p.groups) + c / p.groups;
    copy_map(static_cast<Byte*>(y) + map * count, source.begin + (map - c + from) * count, count,
             source, threadIdx.x, blockDim.x);
  }
}

__global__ void __launch_bounds__(kBlockThreads) shuffle(ChannelShuffleParams params, void const* x,
                                                         void* y) {
  copy_maps(params, x, y);
}

}  // namespace channel_shuffle

#endif
