// SePointwise on a GPU: the 1x1 conv as a matrix product per image, y[n] = (w * scale[n]) x[n]. The
// scale is multiplied into the tile of w on its way to shared memory, so the scaled x never exists.
//
// No header of the host: NVRTC compiles this file too.
#ifndef ONNX_DEPLOY_SE_POINTWISE_KERNEL_CUH
#define ONNX_DEPLOY_SE_POINTWISE_KERNEL_CUH

#include <cuda_fp16.h>

#include "numbers.cuh"
#include "tensor_tile.cuh"
#include "tile.cuh"

#ifdef __CUDACC__
extern __shared__ __align__(128) uint4 shared_memory[];
#endif

namespace se_pointwise {

constexpr int kFloatThreads = 256;  // 4 x 4 of y each
constexpr int kFloatDepth = 16;     // input channels at a time
constexpr int kFloatRow = kTile + 4;
constexpr int kFloatShared = 2 * kFloatDepth * kFloatRow * 4;

template <typename T>
struct Block {
  static constexpr int kThreads = sizeof(T) == 4 ? kFloatThreads : kTensorThreads;
  static constexpr int kShared = sizeof(T) == 4 ? kFloatShared : kTensorShared;  // bytes
};

// The same tile in float32, without tensor cores.
__device__ inline void tile_of_y(Job<float, float> const& job, Tile const& tile, float* shared) {
  SePointwiseParams const& p = job.params;
  float* const weights = shared;  // [kFloatDepth][kFloatRow], channels down
  float* const map = shared + kFloatDepth * kFloatRow;
  int const thread = threadIdx.x;
  int const weight_m = thread / 4, weight_c = thread % 4 * 4;
  int const map_c = thread / 16, map_p = thread % 16 * 4;
  bool const inside_m = tile.m + weight_m < p.out_channels;
  float sum[4][4] = {};
  float weight[4], scale[4], value[4];
  for (int first = -kFloatDepth; first < p.channels; first += kFloatDepth) {
    if (first >= 0) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        weights[(weight_c + i) * kFloatRow + weight_m] = weight[i] * scale[i];
        map[map_c * kFloatRow + map_p + i] = value[i];
      }
      __syncthreads();
    }
    // the next tiles come while this one is multiplied
    int const c = first + kFloatDepth + weight_c, x_c = first + kFloatDepth + map_c;
    int const count = inside_m ? max(0, p.channels - c) : 0;
    int const x_count = x_c < p.channels ? max(0, p.positions - tile.p - map_p) : 0;
    long long const w_row = static_cast<long long>(tile.m + weight_m) * p.channels;
    long long const s_row = static_cast<long long>(tile.n) * p.channels;
    long long const x_row = (s_row + x_c) * p.positions + tile.p;
    load_numbers(job.w + (count > 0 ? w_row + c : 0), count, job.whole_w, weight);
    load_numbers(job.scale + (count > 0 ? s_row + c : 0), count, job.whole_w, scale);
    load_numbers(job.x + (x_count > 0 ? x_row + map_p : 0), x_count, job.whole_x, value);
    if (first < 0) continue;
#pragma unroll
    for (int k = 0; k < kFloatDepth; ++k) {
      float4 const a = *reinterpret_cast<float4 const*>(weights + k * kFloatRow + map_c * 4);
      float4 const b = *reinterpret_cast<float4 const*>(map + k * kFloatRow + map_p);
      float const down[4] = {a.x, a.y, a.z, a.w}, across[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 16; ++i)
        sum[i / 4][i % 4] = fmaf(down[i / 4], across[i % 4], sum[i / 4][i % 4]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) store_sums(job, tile, map_c * 4 + i, map_p, sum[i]);
}

// What one block computes: blockIdx.x counts the tiles of an image, output channels first, so that
// blocks that run together read the same x; blockIdx.y counts images.
template <typename T, typename W>
__device__ inline void block_of_y(Job<T, W> const& job) {
  int const down = (job.params.out_channels + kTile - 1) / kTile;
  int const tile = static_cast<int>(blockIdx.x);
  for (int n = blockIdx.y; n < job.params.batch; n += gridDim.y)
    tile_of_y(job, Tile{n, tile % down * kTile, tile / down * kTile},
              reinterpret_cast<float*>(shared_memory));
}

template <typename T, typename W>
__global__ void __launch_bounds__(Block<T>::kThreads) tiled(Job<T, W> job) {
  block_of_y(job);
}

}  // namespace se_pointwise

#endif
