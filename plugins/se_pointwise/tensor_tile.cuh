// A 64 x 64 tile of SePointwise's y by tensor cores: float16 in, float32 sums. For float16 and
// int8 x; an int8 is exact in float16.
#ifndef ONNX_DEPLOY_SE_POINTWISE_TENSOR_TILE_CUH
#define ONNX_DEPLOY_SE_POINTWISE_TENSOR_TILE_CUH

#include <mma.h>

#include "numbers.cuh"
#include "tile.cuh"

namespace se_pointwise {

constexpr int kTensorThreads = 128;  // four warps, 32 x 32 of y each
constexpr int kTensorDepth = 32;     // input channels at a time
constexpr int kRun = 16;             // elements that one thread brings of w, and of x
// rows of the tiles in shared memory, padded so that rows start at different banks
constexpr int kWeightRow = kTensorDepth + 8;
constexpr int kMapRow = kTile + 8;
constexpr int kSumRow = kTile + 4;
constexpr int kWeightBytes = kTile * kWeightRow * 2;
constexpr int kTensorShared = kTile * kSumRow * 4;  // the sums take the place of both operands
static_assert(kWeightBytes + kTensorDepth * kMapRow * 2 <= kTensorShared, "operands fit");

using Weights = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, __half,
                                       nvcuda::wmma::row_major>;
using Map = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, __half,
                                   nvcuda::wmma::row_major>;
using Sum = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;

__device__ inline unsigned bits(__half value) { return __half_as_ushort(value); }
__device__ inline unsigned bits(signed char value) { return static_cast<unsigned char>(value); }

// kRun elements of x as they are stored, zeros from number `count` on.
template <typename T>
__device__ inline void load_run(T const* from, int count, bool whole,
                                unsigned (&words)[kRun * sizeof(T) / 4]) {
  constexpr int kWords = kRun * static_cast<int>(sizeof(T)) / 4;
  constexpr int kEach = 4 / static_cast<int>(sizeof(T));
  if (whole && count >= kRun) {
#pragma unroll
    for (int i = 0; i < kWords; i += 4) {
      uint4 const piece = reinterpret_cast<uint4 const*>(from)[i / 4];
      words[i] = piece.x;
      words[i + 1] = piece.y;
      words[i + 2] = piece.z;
      words[i + 3] = piece.w;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kWords; ++i) {
    words[i] = 0;
#pragma unroll
    for (int k = 0; k < kEach; ++k)
      if (i * kEach + k < count) words[i] |= bits(from[i * kEach + k]) << (k * 32 / kEach);
  }
}

// A run of x to shared memory, as float16.
__device__ inline void store_run(unsigned const (&words)[8], uint4* to) {
  to[0] = uint4{words[0], words[1], words[2], words[3]};
  to[1] = uint4{words[4], words[5], words[6], words[7]};
}
// Bytes: 0x64 above the byte v + 128 is the float16 1024 + (v + 128), so one subtraction of 1152
// converts two, without the slow conversion instruction.
__device__ inline void store_run(unsigned const (&words)[4], uint4* to) {
  unsigned pair[8];
  __half2 const shift = __half2half2(__ushort_as_half(0x6480));  // 1152
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    unsigned const above = words[i / 2] ^ 0x80808080u;
    unsigned const shifted = __byte_perm(above, 0x64646464u, i % 2 == 0 ? 0x4140 : 0x4342);
    union {
      unsigned word;
      __half2 value;
    } both;
    both.word = shifted;
    both.value = __hsub2(both.value, shift);
    pair[i] = both.word;
  }
  store_run(pair, to);
}

// A run of w times scale to shared memory, as float16.
template <typename T, typename W>
__device__ inline void store_weights(Job<T, W> const& job, Tile const& tile, int c, uint4* to) {
  int const m = tile.m + static_cast<int>(threadIdx.x) / 2;
  int const count = m < job.params.out_channels ? job.params.channels - c : 0;
  long long const row = static_cast<long long>(m) * job.params.channels;
  float weight[kRun], scale[kRun];
  load_numbers(job.w + (count > 0 ? row + c : 0), count, job.whole_w, weight);
  long long const scale_row = static_cast<long long>(tile.n) * job.params.channels;
  load_numbers(job.scale + scale_row + (count > 0 ? c : 0), count, job.whole_w, scale);
  float const* const step = sizeof(W) == 4 && sizeof(T) == 1 && job.w_scale != nullptr && count > 0
                                ? job.w_scale + m
                                : nullptr;
  unsigned words[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    union {
      unsigned word;
      __half2 value;
    } both;
    both.value = __floats2half2_rn(stepped(weight[2 * i], step) * scale[2 * i],
                                   stepped(weight[2 * i + 1], step) * scale[2 * i + 1]);
    words[i] = both.word;
  }
  store_run(words, to);
}

// The sums of the tile, in shared memory as float32[kTile][kSumRow].
template <typename T, typename W>
__device__ inline void tensor_sums(Job<T, W> const& job, Tile const& tile, float* shared) {
  SePointwiseParams const& p = job.params;
  __half* const weights = reinterpret_cast<__half*>(shared);
  __half* const map = weights + kTile * kWeightRow;
  int const thread = threadIdx.x;
  int const across = thread % 4 * kRun;
  uint4* const to_weights =
      reinterpret_cast<uint4*>(weights + thread / 2 * kWeightRow + thread % 2 * kRun);
  uint4* const to_map = reinterpret_cast<uint4*>(map + thread / 4 * kMapRow + across);
  int const warp_m = thread / 64 * 32, warp_p = thread / 32 % 2 * 32;

  Sum sum[2][2];
#pragma unroll
  for (int i = 0; i < 4; ++i) nvcuda::wmma::fill_fragment(sum[i / 2][i % 2], 0.0f);
  unsigned words[kRun * sizeof(T) / 4];
  for (int first = -kTensorDepth; first < p.channels; first += kTensorDepth) {
    if (first >= 0) {
      store_weights(job, tile, first + thread % 2 * kRun, to_weights);
      store_run(words, to_map);
      __syncthreads();
    }
    // the next rows of x come while the tensor cores work on these
    int const c = first + kTensorDepth + thread / 4;
    int const count = c < p.channels ? p.positions - tile.p - across : 0;
    long long const row = (static_cast<long long>(tile.n) * p.channels + c) * p.positions;
    load_run(job.x + (count > 0 ? row + tile.p + across : 0), count, job.whole_x, words);
    if (first < 0) continue;
#pragma unroll
    for (int k = 0; k < kTensorDepth; k += 16) {
      Weights a[2];
      Map b[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        nvcuda::wmma::load_matrix_sync(a[i], weights + (warp_m + i * 16) * kWeightRow + k,
                                       kWeightRow);
        nvcuda::wmma::load_matrix_sync(b[i], map + k * kMapRow + warp_p + i * 16, kMapRow);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
        nvcuda::wmma::mma_sync(sum[i / 2][i % 2], a[i / 2], b[i % 2], sum[i / 2][i % 2]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
    nvcuda::wmma::store_matrix_sync(
        shared + (warp_m + i / 2 * 16) * kSumRow + warp_p + i % 2 * 16, sum[i / 2][i % 2], kSumRow,
        nvcuda::wmma::mem_row_major);
  __syncthreads();
}

template <typename T, typename W>
__device__ inline void tile_of_y(Job<T, W> const& job, Tile const& tile, float* shared) {
  tensor_sums(job, tile, shared);
  int const across = threadIdx.x % 16 * 4;
  for (int down = threadIdx.x / 16; down < kTile; down += kTensorThreads / 16) {
    float const* const from = shared + down * kSumRow + across;
    float const sum[4] = {from[0], from[1], from[2], from[3]};
    store_sums(job, tile, down, across, sum);
  }
  __syncthreads();
}

}  // namespace se_pointwise

#endif
