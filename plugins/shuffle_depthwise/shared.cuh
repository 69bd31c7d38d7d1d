// The block's shared memory, how rows of x get there, and how threads share rows out.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_SHARED_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_SHARED_CUH

#include "plan.h"

#ifdef __CUDACC__
extern __shared__ __align__(128) uint4 shared_memory[];
#endif

namespace shuffle_depthwise {

using Byte = unsigned char;

constexpr int kInFlight = 4;  // pieces a thread loads before it stores the first

__device__ inline Byte* shared_bytes() { return reinterpret_cast<Byte*>(shared_memory); }

// A thread's share of a grid of rows and columns: column `column` and every `across`-th from there,
// in row `row` and every `down`-th from there. No division while walking.
struct Share {
  int column;
  int across;
  int row;
  int down;
};

__device__ inline Share share_of(int columns) {
  int const threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  Share share;
  share.across = min(columns, threads);
  share.down = threads / share.across;
  share.column = thread % share.across;
  share.row = thread / share.across;
  // the few threads that are over have no share
  if (share.row >= share.down) share.column = columns;
  return share;
}

// The rows of x that a band needs: `count` of them from row `first`, which may lie above x, as
// `bytes` each.
struct Rows {
  Byte const* map;
  int height;
  int first;
  int count;
  int bytes;
};

// Those rows to shared memory, `pitch` apart from `base` on, in pieces of type P; zeros for rows
// outside of x, between the rows, and before the first.
template <typename P>
__device__ inline void stage_pieces(Rows const& rows, int base, int pitch) {
  int const size = static_cast<int>(sizeof(P));
  Share const share = share_of(rows.bytes / size);
  for (int column = share.column; column < rows.bytes / size; column += share.across) {
    for (int row = share.row; row < rows.count; row += kInFlight * share.down) {
      P held[kInFlight];
#pragma unroll
      for (int k = 0; k < kInFlight; ++k) {
        int const at = row + k * share.down, from = rows.first + at;
        held[k] = P{};
        if (at < rows.count && from >= 0 && from < rows.height)
          held[k] = reinterpret_cast<P const*>(rows.map +
                                               static_cast<long long>(from) * rows.bytes)[column];
      }
#pragma unroll
      for (int k = 0; k < kInFlight; ++k) {
        int const at = row + k * share.down;
        if (at < rows.count)
          reinterpret_cast<P*>(shared_bytes() + base + at * pitch)[column] = held[k];
      }
    }
  }
  int const gap = pitch - rows.bytes;
  for (int row = static_cast<int>(threadIdx.x) - 1; row < rows.count; row += blockDim.x)
    for (int i = 0; i < gap / size; ++i)
      reinterpret_cast<P*>(shared_bytes() + base + row * pitch + rows.bytes)[i] = P{};
}

__device__ inline void stage(Rows const& rows, int base, Plan const& plan) {
  if (plan.piece == 16)
    stage_pieces<uint4>(rows, base, plan.pitch);
  else if (plan.piece == 8)
    stage_pieces<uint2>(rows, base, plan.pitch);
  else if (plan.piece == 4)
    stage_pieces<unsigned>(rows, base, plan.pitch);
  else if (plan.piece == 2)
    stage_pieces<unsigned short>(rows, base, plan.pitch);
  else
    stage_pieces<Byte>(rows, base, plan.pitch);
}

// Bytes from shared to global memory, between addresses that are equal modulo 16.
__device__ inline void write_bytes(Byte* to, Byte const* from, int count) {
  int const thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  int const over = static_cast<int>(reinterpret_cast<size_t>(to) % kVectorBytes);
  int const lead = min(over == 0 ? 0 : kVectorBytes - over, count);
  int const pieces = (count - lead) / kVectorBytes;
  for (int i = thread; i < pieces; i += threads)
    reinterpret_cast<uint4*>(to + lead)[i] = reinterpret_cast<uint4 const*>(from + lead)[i];
  for (int i = thread; i < lead; i += threads) to[i] = from[i];
  for (int i = lead + pieces * kVectorBytes + thread; i < count; i += threads) to[i] = from[i];
}

// The N words that start `shift` bits into word `at` of shared memory.
template <int N>
__device__ inline void load_words(int at, int shift, unsigned (&words)[N]) {
  unsigned const* const from = reinterpret_cast<unsigned const*>(shared_memory) + at;
  unsigned low = from[0];
#pragma unroll
  for (int t = 0; t < N; ++t) {
    unsigned const high = from[t + 1];
    words[t] = __funnelshift_r(low, high, shift);
    low = high;
  }
}

}  // namespace shuffle_depthwise

#endif
