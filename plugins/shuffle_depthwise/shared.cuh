// The block's shared memory, how rows of x get there, and how y leaves it.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_SHARED_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_SHARED_CUH

#include <cuda_pipeline_primitives.h>

#include "plan.h"

// The compute capability that this is compiled for, times 100; tests compile it for the CPU.
#if defined(CUDA_ON_CPU_ARCH)
#define ONNX_DEPLOY_ARCH CUDA_ON_CPU_ARCH
#elif defined(__CUDA_ARCH__)
#define ONNX_DEPLOY_ARCH __CUDA_ARCH__
#else
#define ONNX_DEPLOY_ARCH 0
#endif

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

// `count` vectors from global to shared memory: they are there after arrived() and a barrier.
__device__ inline void copy_vectors(uint4* target, uint4 const* source, int count) {
  int const thread = thread_of_map(), threads = threads_of_map();
#if ONNX_DEPLOY_ARCH >= 800
  target += thread;
  source += thread;
  int left = count - thread;
#pragma unroll 1
  for (; left > threads; left -= 2 * threads) {
    __pipeline_memcpy_async(target, source, kVectorBytes);
    __pipeline_memcpy_async(target + threads, source + threads, kVectorBytes);
    target += 2 * threads;
    source += 2 * threads;
  }
  if (left > 0) __pipeline_memcpy_async(target, source, kVectorBytes);
#else
#pragma unroll 1
  for (int at = thread; at < count; at += kInFlight * threads) {
    uint4 held[kInFlight];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (at + k * threads < count) held[k] = source[at + k * threads];
#pragma unroll
    for (int k = 0; k < kInFlight; ++k)
      if (at + k * threads < count) target[at + k * threads] = held[k];
  }
#endif
}

// Waits for this thread's part of what copy_vectors() began.
__device__ inline void arrived() {
#if ONNX_DEPLOY_ARCH >= 800
  __pipeline_commit();
  __pipeline_wait_prior(0);
#endif
}

// `count` elements from global to shared memory, between addresses that are equal modulo 16, as
// copy_vectors() does it.
template <typename T>
__device__ inline void read_elements(T* to, T const* from, int count) {
  constexpr int kEach = kVectorBytes / static_cast<int>(sizeof(T));
  int const over = static_cast<int>(reinterpret_cast<size_t>(from) % kVectorBytes / sizeof(T));
  int const lead = min((kEach - over) % kEach, count);
  int const vectors = (count - lead) / kEach;
  copy_vectors(reinterpret_cast<uint4*>(to + lead), reinterpret_cast<uint4 const*>(from + lead),
               vectors);
  // the few elements on either side
  int const rest = count - vectors * kEach;
#pragma unroll 1
  for (int i = thread_of_map(); i < rest; i += threads_of_map()) {
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
  int held;  // in shared memory: zeros behind the last

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
  write_zeros(to + end * rows.width, (rows.held - end) * rows.width);
  long long const before = static_cast<long long>(rows.first + above) * rows.width;
  read_elements(to + above * rows.width, rows.map + before, (end - above) * rows.width);
}

// Bytes from shared to global memory, between addresses that are equal modulo 16.
__device__ inline void write_bytes(Byte* to, Byte const* from, int count) {
  int const thread = thread_of_map(), threads = threads_of_map();
  int const over = static_cast<int>(reinterpret_cast<size_t>(to) % kVectorBytes);
  int const lead = min((kVectorBytes - over) % kVectorBytes, count);
  int const vectors = (count - lead) / kVectorBytes;
  uint4* target = reinterpret_cast<uint4*>(to + lead) + thread;
  uint4 const* source = reinterpret_cast<uint4 const*>(from + lead) + thread;
#pragma unroll 1
  for (int left = vectors - thread; left > 0; left -= threads) {
    *target = *source;
    target += threads;
    source += threads;
  }
  int const rest = count - vectors * kVectorBytes;
#pragma unroll 1
  for (int i = thread; i < rest; i += threads) {
    int const at = i < lead ? i : i + vectors * kVectorBytes;
    to[at] = from[at];
  }
}

// N + 1 words of shared memory from byte `at` on, a multiple of 4.
template <int N>
__device__ inline void load_words(int at, unsigned (&words)[N + 1]) {
  unsigned const* const from = reinterpret_cast<unsigned const*>(shared_bytes() + at);
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
