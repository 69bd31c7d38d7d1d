// Picks and launches the kernel for one ShuffleDepthwise; see kernel.h.
#include "kernel.h"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernel.cuh"
#include "tile_plan.h"

namespace shuffle_depthwise {
namespace {

constexpr long long kPlainBlocks = 1 << 16;

template <typename T>
int enqueue(void (*kernel)(Job<T>), dim3 grid, dim3 block, size_t shared, Job<T> job,
            void* stream) {
  void* arguments[] = {&job};
  return cudaLaunchKernel(kernel, grid, block, arguments, shared,
                          static_cast<cudaStream_t>(stream));
}

template <typename T>
int enqueue_tiled(void (*kernel)(Job<T>), Job<T> const& job, void* stream) {
  Plan const& plan = job.plan;
  long long const maps = static_cast<long long>(plan.chunks) * job.params.channels;
  long long const blocks = (maps + plan.planes - 1) / plan.planes;
  unsigned const deep = static_cast<unsigned>((blocks + kMostRows - 1) / kMostRows);
  dim3 const grid(plan.bands, static_cast<unsigned>((blocks + deep - 1) / deep), deep);
  dim3 const block(plan.columns, plan.rows, plan.planes);
  size_t const shared =
      static_cast<size_t>(plan.planes) * (kTapBytes + plan.staged + plan.collected);
  return enqueue(kernel, grid, block, shared, job, stream);
}

// On tensor cores: -1 where this GPU, or the code that was compiled for it, has none, where they
// don't pay, or where rows are too wide.
template <typename T>
int enqueue_tensor(Job<T> job, void* stream) {
  void (*const kernel)(Job<T>) = job.params.stride == 1 ? tensor<T, 1> : tensor<T, 2>;
  job.plan = make_tile_plan(job.params, reinterpret_cast<size_t>(job.x),
                            reinterpret_cast<size_t>(job.y));
  cudaFuncAttributes compiled{};
  if (job.plan.planes == 0 || !pays(job.params, job.plan)) return -1;
  if (cudaFuncGetAttributes(&compiled, kernel) != 0) return -1;
  return compiled.ptxVersion >= 80 ? enqueue_tiled(kernel, job, stream) : -1;
}
template <>
int enqueue_tensor<float>(Job<float>, void*) {
  return -1;
}

template <typename T>
int enqueue_plain(Job<T> const& job, void* stream) {
  ShuffleDepthwiseParams const& p = job.params;
  long long const all =
      static_cast<long long>(p.batch) * p.channels * output_height(p) * output_width(p);
  long long const blocks = (all + kBlockThreads - 1) / kBlockThreads;
  dim3 const grid(static_cast<unsigned>(blocks < kPlainBlocks ? blocks : kPlainBlocks));
  return enqueue(untiled<T>, grid, dim3(kBlockThreads), 0, job, stream);
}

template <typename T>
int launch(ShuffleDepthwiseParams const& p, void const* x, void const* w, void const* bias,
           float const* w_scale, void* y, void* stream) {
  Plan const plan = make_plan(p, reinterpret_cast<size_t>(y));
  Job<T> const job{p, plan, static_cast<T const*>(x), w, bias, w_scale, static_cast<T*>(y)};
  int const status = enqueue_tensor(job, stream);
  if (status != -1) return status;
  if (job.plan.planes == 0) return enqueue_plain(job, stream);
  if (p.kernel == 3 && p.stride == 1) return enqueue_tiled(tiled<T, 3, 1>, job, stream);
  if (p.kernel == 3) return enqueue_tiled(tiled<T, 3, 2>, job, stream);
  if (p.stride == 1) return enqueue_tiled(tiled<T, 5, 1>, job, stream);
  return enqueue_tiled(tiled<T, 5, 2>, job, stream);
}

}  // namespace
}  // namespace shuffle_depthwise

extern "C" int launch_shuffle_depthwise(ShuffleDepthwiseParams const& params, void const* x,
                                        void const* w, void const* bias, float const* w_scale,
                                        void* y, void* stream) {
  if (refusal(params) != nullptr) return -1;
  if (params.weight_type == ShuffleDepthwiseParams::kInt8 && w_scale == nullptr) return -1;
  if (params.type == ShuffleDepthwiseParams::kInt8)
    return shuffle_depthwise::launch<signed char>(params, x, w, bias, w_scale, y, stream);
  if (params.type == ShuffleDepthwiseParams::kHalf)
    return shuffle_depthwise::launch<__half>(params, x, w, bias, w_scale, y, stream);
  return shuffle_depthwise::launch<float>(params, x, w, bias, w_scale, y, stream);
}
