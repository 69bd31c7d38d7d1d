// Runs CUDA kernels on the CPU, for tests: the same kernel source, compiled as C++ with this folder
// first on the include path.
//
// Every CUDA thread of a block is a fiber that runs until its next barrier, of its block or its
// warp; blocks run one after the other. Shared memory is a block of the heap, exactly as large as the launch asked for and
// full of junk, so that the address sanitizer sees what lies outside and a test what was never
// written. CUDA_ON_CPU_REVERSED=1 runs the threads of a block in the opposite order: a missing
// barrier shows in one order or the other.
#ifndef CUDA_ON_CPU_CUDA_RUNTIME_H
#define CUDA_ON_CPU_CUDA_RUNTIME_H

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// The compute capability that is acted, times 100.
#ifndef CUDA_ON_CPU_ARCH
#define CUDA_ON_CPU_ARCH 900
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
inline thread_local uint4* shared_memory = nullptr;

using std::max;
using std::min;

// The CPU's word for the GPU's instructions.
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  std::uint64_t const both = static_cast<std::uint64_t>(high) << 32 | low;
  return static_cast<unsigned>(both >> (shift & 31));
}
inline unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned shift) {
  return shift >= 32 ? high : __funnelshift_r(low, high, shift);
}
inline unsigned __funnelshift_lc(unsigned low, unsigned high, unsigned shift) {
  return shift >= 32 ? low : shift == 0 ? high : high << shift | low >> (32 - shift);
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  std::uint64_t const both = static_cast<std::uint64_t>(high) << 32 | low;
  unsigned picked = 0;
  for (int i = 0; i < 4; ++i) {
    unsigned const from = selector >> (4 * i) & 7;
    picked |= static_cast<unsigned>(both >> (8 * from) & 255) << (8 * i);
  }
  return picked;
}
inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; ++i)
    sum += static_cast<std::int8_t>(static_cast<unsigned>(a) >> (8 * i)) *
           static_cast<std::int8_t>(static_cast<unsigned>(b) >> (8 * i));
  return sum;
}
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline int __float_as_int(float value) {
  int bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

namespace cuda_on_cpu {

constexpr std::size_t kStack = 64 << 10;

constexpr std::size_t kLanes = 32;  // of a warp

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Copy {
  void* to;
  void const* from;
  std::size_t bytes;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  dim3 thread;
  State state;
  std::vector<Copy> copies;  // begun and not waited for
  unsigned shown[6];         // to the other lanes, see products.h
};

struct Block {
  std::function<void()> body;
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  Fiber* running;
  void const* stack_of_scheduler;
  std::size_t bytes_of_scheduler;
};

inline thread_local Block* block = nullptr;

#if defined(__SANITIZE_ADDRESS__)
inline void leave(void** fake, void const* stack, std::size_t bytes) {
  __sanitizer_start_switch_fiber(fake, stack, bytes);
}
inline void arrive(void* fake, void const** stack, std::size_t* bytes) {
  __sanitizer_finish_switch_fiber(fake, stack, bytes);
}
#else
inline void leave(void**, void const*, std::size_t) {}
inline void arrive(void*, void const**, std::size_t*) {}
#endif

// From the fiber that runs to the scheduler; comes back when all it waits for are there.
inline void pause(State state) {
  void* fake = nullptr;
  Fiber& self = *block->running;
  self.state = state;
  leave(self.state == State::kDone ? nullptr : &fake, block->stack_of_scheduler, block->bytes_of_scheduler);
  swapcontext(&self.context, &block->scheduler);
  arrive(fake, &block->stack_of_scheduler, &block->bytes_of_scheduler);
}

inline void enter() {
  arrive(nullptr, &block->stack_of_scheduler, &block->bytes_of_scheduler);
  block->body();
  if (!block->running->copies.empty()) std::abort();
  pause(State::kDone);
}

inline void resume(Fiber& fiber) {
  void* fake = nullptr;
  block->running = &fiber;
  threadIdx = fiber.thread;
  leave(&fake, fiber.stack.get(), kStack);
  swapcontext(&block->scheduler, &fiber.context);
  arrive(fake, nullptr, nullptr);
}

// Lets those warps go on whose threads all wait for each other; whether there were any. Aborts where
// only some of a warp do.
inline bool release_warps(Block& self) {
  bool any = false;
  for (std::size_t from = 0; from < self.fibers.size(); from += kLanes) {
    std::size_t const end = min(from + kLanes, self.fibers.size());
    std::size_t waiting = 0;
    for (std::size_t i = from; i < end; ++i) waiting += self.fibers[i].state == State::kAtWarp;
    if (waiting == 0) continue;
    if (waiting != end - from) std::abort();
    for (std::size_t i = from; i < end; ++i) self.fibers[i].state = State::kReady;
    any = true;
  }
  return any;
}

// One block, from barrier to barrier. Aborts where some threads wait at a barrier and others ended.
inline void run_block(Block& self, dim3 shape) {
  block = &self;
  std::size_t const count = static_cast<std::size_t>(shape.x) * shape.y * shape.z;
  bool const reversed = std::getenv("CUDA_ON_CPU_REVERSED") != nullptr;
  self.fibers.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    Fiber& fiber = self.fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[kStack]);
    fiber.state = State::kReady;
    unsigned const at = static_cast<unsigned>(i);
    fiber.thread = dim3(at % shape.x, at / shape.x % shape.y, at / shape.x / shape.y);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (std::size_t ended = 0; ended < count;) {
    for (std::size_t i = 0; i < count; ++i) {
      Fiber& next = self.fibers[reversed ? count - 1 - i : i];
      if (next.state == State::kReady) resume(next);
    }
    if (release_warps(self)) continue;
    ended = 0;
    for (Fiber& fiber : self.fibers) {
      ended += fiber.state == State::kDone;
      if (fiber.state == State::kAtBlock) fiber.state = State::kReady;
    }
    if (ended != 0 && ended != count) std::abort();
  }
}

template <typename... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<A*>(arguments[I])...);
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::pause(cuda_on_cpu::State::kAtBlock); }

// The host's part.
using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaErrorInvalidConfiguration = 9;

struct cudaFuncAttributes {
  int ptxVersion;
};
template <typename F>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* to, F*) {
  to->ptxVersion = CUDA_ON_CPU_ARCH / 10;
  return 0;
}

template <typename... A>
cudaError_t cudaLaunchKernel(void (*kernel)(A...), dim3 grid, dim3 shape, void** arguments,
                             std::size_t shared, cudaStream_t) {
  // what every GPU since compute capability 5.0 takes without being asked
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
      shape.x * shape.y * shape.z == 0 || shape.x * shape.y * shape.z > 1024 ||
      shared > 48 << 10)
    return cudaErrorInvalidConfiguration;
  gridDim = grid;
  blockDim = shape;
  cuda_on_cpu::Block self;
  self.body = [&] { cuda_on_cpu::call(kernel, arguments, std::index_sequence_for<A...>()); };
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 128, shared) != 0) std::abort();
        std::memset(memory, 0xA5, shared);
        shared_memory = static_cast<uint4*>(memory);
        cuda_on_cpu::run_block(self, shape);
        std::free(memory);
      }
  return 0;
}

#include "products.h"

#endif
