// One block of ShuffleDepthwise on tensor cores: a band of a map per threadIdx.z, in several images
// one after the other.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_TILE_STEPS_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_TILE_STEPS_CUH

#include "job.cuh"
#include "tiles.cuh"

namespace shuffle_depthwise {

// A band of one channel, in any image.
template <typename T, int S>
struct TileBand {
  using Math = TileMath<T, S>;

  Job<T> const& job;
  int channel;
  int first;    // of y's rows
  int rows;     // of y
  int own;      // where this map begins in shared memory: weights, input, output
  T const* x;   // of the first image: the map
  T* y;         // of the first image: the band

  __device__ TileBand(Job<T> const& from, int c)
      : job(from), channel(c), first(static_cast<int>(blockIdx.x) * from.plan.band),
        rows(min(from.plan.band, from.plan.height - first)), own(own_bytes(from)) {
    ShuffleDepthwiseParams const& p = job.params;
    int const of_group = static_cast<int>(static_cast<unsigned>(c) / p.groups);
    long long const source = (c - of_group * p.groups) * job.plan.group_channels + of_group;
    x = job.x + source * p.height * p.width;
    y = job.y + (static_cast<long long>(c) * job.plan.height + first) * job.plan.width;
  }

  // Begins to fetch that image's rows; where the first of them lies in shared memory.
  __device__ int fetch(int image) const {
    ShuffleDepthwiseParams const& p = job.params;
    int const count = (rows - 1) * S + p.kernel;
    T const* const map = x + static_cast<long long>(image) * p.channels * p.height * p.width;
    Rows<T> const input{map,   p.height, p.width, first * S - p.pad_top,
                        count, Math::rows_held(job.plan, count)};
    int const base = own + kTapBytes + kVectorBytes + input.place();
    stage(input, reinterpret_cast<T*>(shared_bytes() + base));
    return base;
  }

  __device__ Byte* band(int image) const {
    long long const jump = static_cast<long long>(job.params.channels) * job.plan.height;
    return reinterpret_cast<Byte*>(y + image * jump * job.plan.width);
  }
  // where it is collected: at the same place modulo 16
  __device__ Byte* collection(Byte const* band) const {
    return shared_bytes() + own + kTapBytes + job.plan.staged +
           reinterpret_cast<size_t>(band) % kVectorBytes;
  }
};

template <typename T, int S, bool kWhole, bool kAligned>
__device__ inline void walk(Job<T> const& job, TileMath<T, S> const& math, int base, int to) {
  Walk<T, S, kWhole, kAligned> const walk{job.params, job.plan, base, to};
  int const strands = job.plan.across * job.plan.segments;
  int const warps = static_cast<int>(blockDim.y);
#pragma unroll 1
  for (int first = static_cast<int>(threadIdx.y) * kStrands; first < strands;
       first += warps * kStrands)
    walk(math, first);
}

// All images of one block. Weights are prepared once, while the first image is on its way; an image
// is written while the next is.
template <typename T, int S>
__device__ inline void tile_steps(Job<T> const& job) {
  ShuffleDepthwiseParams const& p = job.params;
  Plan const& plan = job.plan;
  if (is_spare(job)) return;
  Place const place = place_of(job);
  TileBand<T, S> const band(job, place.channel);
  Byte* const taps = shared_bytes() + band.own;
  int const last = p.batch - 1, first = place.chunk * plan.images;
  TileMath<T, S> math;
  int base = band.fetch(min(first, last));
  TileMath<T, S>::prepare(p, job.w, job.bias, job.w_scale, place.channel, taps);
#pragma unroll 1
  for (int i = 0; i < plan.images; ++i) {
    arrived();
    __syncthreads();
    if (i == 0) math.load(p, taps);
    Byte* const to = band.band(min(first + i, last));
    Byte* const collected = band.collection(to);
    int const at = static_cast<int>(collected - shared_bytes());
    if (plan.whole && plan.aligned)
      walk<T, S, true, true>(job, math, base, at);
    else if (plan.whole)
      walk<T, S, true, false>(job, math, base, at);
    else
      walk<T, S, false, false>(job, math, base, at);
    __syncthreads();
    if (i + 1 < plan.images) base = band.fetch(min(first + i + 1, last));
    write_bytes(to, collected, band.rows * plan.width * static_cast<int>(sizeof(T)));
  }
}

}  // namespace shuffle_depthwise

#endif
