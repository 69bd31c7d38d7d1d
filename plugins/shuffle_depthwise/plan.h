// How ShuffleDepthwise's work is cut into blocks: plain C++14, decided on the host.
//
// A block stages, for one or several channel maps, a band of rows in shared memory, without gaps
// and at the same place modulo 16 as in global memory, so that 16 bytes move at a time whatever the
// width. A thread computes a strip: a few outputs across, and rows of them below each other, whose
// input it reads once. Narrow types collect y in shared memory, and write it as they read x.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PLAN_H
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PLAN_H

#include "params.h"

namespace shuffle_depthwise {

constexpr int kBlockThreads = 256;
constexpr int kVectorBytes = 16;
constexpr int kWordBytes = 4;
constexpr long long kMostMaps = 0x7FFFFF00;   // of a launch: they are counted in 32 bits
constexpr int kFewestBlocks = 512;            // to keep any GPU busy, if there are maps enough
constexpr int kWarp = 32;
constexpr int kMostBytes = 46 << 10;          // of shared memory for one map: a block has 48 KiB
constexpr int kEnoughBlocks = 2048;           // to fill any GPU a few times over
constexpr int kMostPlanes = 64;               // CUDA: threadIdx.z
constexpr int kTapBytes = 128;                // of shared memory, for one channel's weights

// Images that a block takes one after the other: 5x5 has no registers left for a loop around it.
ONNX_DEPLOY_HOST_DEVICE constexpr int images_at_most(int kernel) { return kernel == 3 ? 8 : 1; }

struct Plan {
  int height;          // of y
  int width;           // of y
  int group_channels;  // of the shuffle
  int band;            // output rows of one block: a multiple of thread_rows, or fewer
  int bands;           // of one map
  int images;          // that a block takes one after the other
  int chunks;          // of so many images, in the batch
  int planes;          // maps that a block takes at once; 0: rows are too wide, use plain()
  int columns;         // threads next to each other
  int rows;            // threads below each other
  int staged;          // bytes of shared memory for the input of one map
  int collected;       // for its output; 0: threads write y themselves
  int whole;           // rows of y are whole words; of float32, pairs of them
};

// Outputs of one thread across: 8 bytes.
ONNX_DEPLOY_HOST_DEVICE constexpr int thread_columns(int type) {
  return type == ShuffleDepthwiseParams::kFloat ? 2 : type == ShuffleDepthwiseParams::kHalf ? 4 : 8;
}

// Output rows of one thread: many, to pay for what it does once; 7 divides the usual heights.
ONNX_DEPLOY_HOST_DEVICE constexpr int thread_rows(int stride) { return stride == 2 ? 7 : 14; }

#ifndef __CUDACC_RTC__  // NVRTC compiles for the device alone

inline int element_bytes(int type) {
  return type == ShuffleDepthwiseParams::kInt8 ? 1 : type == ShuffleDepthwiseParams::kHalf ? 2 : 4;
}

inline int ceil_div(int value, int by) { return (value + by - 1) / by; }
inline int round_up(int value, int to) { return ceil_div(value, to) * to; }
inline int at_least_1(int value) { return value < 1 ? 1 : value; }

// Shared memory for the input of `band` output rows: what lies before the first (the padding and
// the shift to x's place modulo 16), the rows, and what the last strip may reach over the end (for
// outputs that don't exist).
inline long long staged_bytes(ShuffleDepthwiseParams const& p, int band) {
  // in a cut strip, threads read one row ahead
  long long const rows = static_cast<long long>(band - 1) * p.stride + p.kernel +
                         (band % thread_rows(p.stride) != 0 ? 1 : 0);
  long long const all =
      2 * kVectorBytes + rows * p.width * element_bytes(p.type) + 2 * kVectorBytes;
  return (all + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
}

// Threads next to each other write float32 well without help.
inline long long collected_bytes(ShuffleDepthwiseParams const& p, int band) {
  if (p.type == ShuffleDepthwiseParams::kFloat) return 0;
  long long const all =
      static_cast<long long>(band) * output_width(p) * element_bytes(p.type) + kVectorBytes;
  return (all + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
}

inline long long shared_bytes_of(ShuffleDepthwiseParams const& p, int band) {
  return staged_bytes(p, band) + collected_bytes(p, band);
}

// Output rows of a band, 0 if not one fits: as many strips as 16 KiB take, which leaves room for
// several blocks on a multiprocessor, so that one loads while another computes; more only where a
// band would be mostly shared rows, and a part of a strip where rows are wide.
inline int rows_of_a_band(ShuffleDepthwiseParams const& p) {
  int const rows = thread_rows(p.stride), strips = ceil_div(output_height(p), rows);
  long long const limits[] = {16 << 10, 32 << 10, kMostBytes};
  int const wanted[] = {16, 8, 1};  // output rows that make the limit good enough
  for (int i = 0; i < 3; ++i) {
    int fitting = strips;
    while (fitting > 0 && shared_bytes_of(p, fitting * rows) > limits[i]) --fitting;
    if (fitting > 0 && (fitting == strips || fitting * rows >= wanted[i]))
      return ceil_div(strips, ceil_div(strips, fitting)) * rows;
  }
  int fitting = rows - 1;
  while (fitting > 0 && shared_bytes_of(p, fitting) > kMostBytes) --fitting;
  return fitting;
}

// How many maps, up to `most`, to take at once, so that few lanes of their last warp idle.
inline int fullest_warps(int map_threads, int most) {
  int best = most;
  for (int planes = most; planes > 0; --planes)
    if (static_cast<long long>(planes) * round_up(best * map_threads, kWarp) >
        static_cast<long long>(best) * round_up(planes * map_threads, kWarp))
      best = planes;
  return best;
}

// Threads: the strips of a row, as many times over as shares those below each other out evenly; and
// several maps where they are small.
inline void choose_threads(ShuffleDepthwiseParams const& p, long long maps, Plan& plan) {
  int const across = ceil_div(plan.width, thread_columns(p.type));
  int const strips = ceil_div(plan.band, thread_rows(p.stride));
  plan.columns = across < kBlockThreads ? across : kBlockThreads;
  plan.rows = ceil_div(strips, ceil_div(strips, kBlockThreads / plan.columns));
  int const map_threads = plan.columns * plan.rows;
  int most = kBlockThreads / map_threads;
  int const by_memory = at_least_1((28 << 10) / (kTapBytes + plan.staged + plan.collected));
  if (most > kMostPlanes) most = kMostPlanes;
  if (most > by_memory) most = by_memory;
  // few maps: rather a warp on every multiprocessor than many on some
  long long const spread = maps * plan.bands / kFewestBlocks;
  int const warp = ceil_div(kWarp, map_threads);
  if (most > spread) most = spread > warp ? static_cast<int>(spread) : most < warp ? most : warp;
  if (most > maps) most = static_cast<int>(maps);
  plan.planes = fullest_warps(map_threads, most);
}

// Images: more than one only where there are blocks enough without.
inline void choose_images(ShuffleDepthwiseParams const& p, long long maps, Plan& plan) {
  int const most = images_at_most(p.kernel);
  long long const spare = maps / plan.planes * plan.bands / kEnoughBlocks;
  plan.images = spare < 1 ? 1 : spare > most ? most : static_cast<int>(spare);
  plan.chunks = ceil_div(p.batch, plan.images);
  plan.images = ceil_div(p.batch, plan.chunks);
}

// y: the address, for what it is a multiple of.
inline Plan make_plan(ShuffleDepthwiseParams const& p, unsigned long long y) {
  Plan plan{};
  plan.height = output_height(p);
  plan.width = output_width(p);
  plan.group_channels = p.channels / p.groups;
  int const size = element_bytes(p.type);
  plan.whole = (static_cast<unsigned long long>(plan.width) * size | y) %
                   (size == kWordBytes ? 2 * kWordBytes : kWordBytes) ==
               0;
  long long const maps = static_cast<long long>(p.batch) * p.channels;
  if (static_cast<long long>(p.width) * size > kMostBytes || maps > kMostMaps) return plan;
  plan.band = rows_of_a_band(p);
  if (plan.band == 0) return plan;
  plan.bands = ceil_div(plan.height, plan.band);
  if (plan.bands > 65535) return plan;
  plan.staged = static_cast<int>(staged_bytes(p, plan.band));
  plan.collected = static_cast<int>(collected_bytes(p, plan.band));
  choose_threads(p, maps, plan);
  choose_images(p, maps, plan);
  return plan;
}

#endif

}  // namespace shuffle_depthwise

#endif
