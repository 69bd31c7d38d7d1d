// Which 64 x 64 tile of y a block of SePointwise computes, and how its sums leave.
#ifndef ONNX_DEPLOY_SE_POINTWISE_TILE_CUH
#define ONNX_DEPLOY_SE_POINTWISE_TILE_CUH

#include "numbers.cuh"

namespace se_pointwise {

constexpr int kTile = 64;  // output channels, and positions

// The tile's corner: image, output channel, position.
struct Tile {
  int n;
  int m;
  int p;
};

// Four neighbouring sums of one output channel to y; those outside of y are dropped.
template <typename T, typename W>
__device__ inline void store_sums(Job<T, W> const& job, Tile const& tile, int down, int across,
                                  float const (&sum)[4]) {
  SePointwiseParams const& p = job.params;
  int const m = tile.m + down, position = tile.p + across;
  if (m >= p.out_channels || position >= p.positions) return;
  Finish const finish = finish_of(job, m);
  float value[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) value[i] = fmaf(sum[i], finish.factor, finish.offset);
  T* const to =
      job.y + (static_cast<long long>(tile.n) * p.out_channels + m) * p.positions + position;
  if (job.whole_y) {
    store_four(value, to);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (position + i < p.positions) store(value[i], to + i);
}

}  // namespace se_pointwise

#endif
