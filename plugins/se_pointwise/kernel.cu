// Picks and launches the kernel for one SePointwise; see kernel.h.
#include "kernel.h"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernel.cuh"

namespace se_pointwise {
namespace {

bool multiple(void const* pointer, long long row_bytes, int of) {
  return reinterpret_cast<size_t>(pointer) % of == 0 && row_bytes % of == 0;
}

template <typename T, typename W>
int launch(SePointwiseParams const& p, void const* x, void const* scale, void const* w,
           void const* bias, float const* w_scale, void* y, void* stream) {
  using Side = typename Beside<T>::Type;
  int const size = sizeof(T);
  long long const x_row = static_cast<long long>(p.positions) * size;
  bool const whole_w = multiple(w, static_cast<long long>(p.channels) * sizeof(W), 16) &&
                       multiple(scale, static_cast<long long>(p.channels) * sizeof(Side), 16);
  Job<T, W> job{p,
                static_cast<T const*>(x),
                static_cast<Side const*>(scale),
                static_cast<W const*>(w),
                static_cast<Side const*>(bias),
                w_scale,
                static_cast<T*>(y),
                multiple(x, x_row, 16),
                multiple(y, x_row, 4 * size),
                whole_w};
  long long const tiles = (static_cast<long long>(p.out_channels) + kTile - 1) / kTile *
                          ((static_cast<long long>(p.positions) + kTile - 1) / kTile);
  dim3 const grid(static_cast<unsigned>(tiles), p.batch < 65535 ? p.batch : 65535);
  void* arguments[] = {&job};
  return cudaLaunchKernel(tiled<T, W>, grid, dim3(Block<T>::kThreads), arguments,
                          size_t{Block<T>::kShared}, static_cast<cudaStream_t>(stream));
}

}  // namespace
}  // namespace se_pointwise

extern "C" int launch_se_pointwise(SePointwiseParams const& params, void const* x,
                                   void const* scale, void const* w, void const* bias,
                                   float const* w_scale, void* y, void* stream) {
  using se_pointwise::launch;
  if (refusal(params) != nullptr) return -1;
  if (params.weight_type == SePointwiseParams::kInt8 && w_scale == nullptr) return -1;
  if (params.type == SePointwiseParams::kFloat)
    return launch<float, float>(params, x, scale, w, bias, w_scale, y, stream);
  if (params.type == SePointwiseParams::kHalf)
    return launch<__half, __half>(params, x, scale, w, bias, w_scale, y, stream);
  if (params.weight_type == SePointwiseParams::kInt8)
    return launch<signed char, signed char>(params, x, scale, w, bias, w_scale, y, stream);
  return launch<signed char, float>(params, x, scale, w, bias, w_scale, y, stream);
}
