// The block's shared memory, how rows of x get there, and how y leaves it.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_SHARED_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_SHARED_CUH

#include "plan.h"

#ifdef __CUDACC__
extern __shared__ __align__(128) uint4 shared_memory[];
#endif

namespace shuffle_depthwise {

using Byte = unsigned char;

constexpr int kInFlight = 4;  // vectors a thread loads before it stores the first

__device__ inline Byte* shared_bytes() { return reinterpret_cast<Byte*>(shared_memory); }

// The value, computed anew wherever this is: what follows from it isn't kept in registers through a
// loop, for which there are none to spare.
__device__ inline int anew(int value) {
#ifdef __CUDA_ARCH__
  asm volatile("" : "+r"(value));
#endif
  return value;
}

// This thread's number among those of its map, and how many they are.
__device__ inline int thread_of_map() {
  return anew(threadIdx.y) * static_cast<int>(blockDim.x) + anew(threadIdx.x);
}
__device__ inline int threads_of_map() { return static_cast<int>(blockDim.x * blockDim.y); }

// `count` elements from global to shared memory, between addresses that are equal modulo 16.
template <typename T>
__device__ inline void read_elements(T* to, T const* from, int count) {
  constexpr int kEach = kVectorBytes / static_cast<int>(sizeof(T));
  int const thread = thread_of_map(), threads = threads_of_map();
  int const over = static_cast<int>(reinterpret_cast<size_t>(from) % kVectorBytes / sizeof(T));
  int const lead = min((kEach - over) % kEach, count);
  int const vectors = (count - lead) / kEach;
  uint4 const* const source = reinterpret_cast<uint4 const*>(from + lead);
  uint4* const target = reinterpret_cast<uint4*>(to + lead);
#pragma unroll 1
  for (int at = thread; at < vectors; at += kInFlight * threads) {
    uint4 held[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (at + k * threads < vectors) held[k] = source[at + k * threads];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (at + k * threads < vectors) target[at + k * threads] = held[k];
  }
  // the few elements on either side
  int const rest = count - vectors * kEach;
#pragma unroll 1
  for (int i = thread; i < rest; i += threads) {
    int const at = i < lead ? i : i + vectors * kEach;
    to[at] = from[at];
  }
}

template <typename T>
__device__ inline void write_zeros(T* to, int count) {
#pragma unroll 1
  for (int i = thread_of_map(); i < count; i += threads_of_map()) to[i] = T{};
}

// The rows of x that a band needs: `count` of them from row `first`, which may lie above x.
template <typename T>
struct Rows {
  T const* map;
  int height;
  int width;
  int first;
  int count;

  // where the first of them would lie in global memory, modulo 16
  __device__ int place() const {
    long long const before = static_cast<long long>(first) * width * static_cast<int>(sizeof(T));
    return static_cast<int>((reinterpret_cast<size_t>(map) + static_cast<size_t>(before)) %
                            kVectorBytes);
  }
};

// Those rows to shared memory at `to`; zeros for rows outside of x.
template <typename T>
__device__ inline void stage(Rows<T> const& rows, T* to) {
  int const above = max(-rows.first, 0);
  int const end = min(rows.count, rows.height - rows.first);
  write_zeros(to, above * rows.width);
  write_zeros(to + end * rows.width, (rows.count - end) * rows.width);
  long long const before = static_cast<long long>(rows.first + above) * rows.width;
  read_elements(to + above * rows.width, rows.map + before, (end - above) * rows.width);
}

// Bytes from shared to global memory, between addresses that are equal modulo 16.
__device__ inline void write_bytes(Byte* to, Byte const* from, int count) {
  int const thread = thread_of_map(), threads = threads_of_map();
  int const over = static_cast<int>(reinterpret_cast<size_t>(to) % kVectorBytes);
  int const lead = min((kVectorBytes - over) % kVectorBytes, count);
  int const vectors = (count - lead) / kVectorBytes;
#pragma unroll 2
  for (int i = thread; i < vectors; i += threads)
    reinterpret_cast<uint4*>(to + lead)[i] = reinterpret_cast<uint4 const*>(from + lead)[i];
  int const rest = count - vectors * kVectorBytes;
#pragma unroll 1
  for (int i = thread; i < rest; i += threads) {
    int const at = i < lead ? i : i + vectors * kVectorBytes;
    to[at] = from[at];
  }
}

// The N + 1 words of shared memory that hold N from byte `at` on.
template <int N>
__device__ inline void load_words(int at, unsigned (&words)[N + 1]) {
  unsigned const* const from = reinterpret_cast<unsigned const*>(shared_bytes() + (at & ~3));
#pragma unroll
  for (int t = 0; t <= N; ++t) words[t] = from[t];
}

// N words from a multiple of 16, N a multiple of 4.
template <int N>
__device__ inline void load_vectors(Byte const* from, unsigned (&words)[N]) {
#pragma unroll
  for (int t = 0; t < N; t += 4) {
    uint4 const four = *reinterpret_cast<uint4 const*>(from + t * kWordBytes);
    words[t] = four.x;
    words[t + 1] = four.y;
    words[t + 2] = four.z;
    words[t + 3] = four.w;
  }
}

}  // namespace shuffle_depthwise

#endif
