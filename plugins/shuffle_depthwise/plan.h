// How ShuffleDepthwise's work is cut into blocks: plain C++14, decided on the host.
//
// A block stages, for one or several channel maps, a band of rows in shared memory, without gaps
// and at the same place modulo 16 as in global memory, so that 16 bytes move at a time whatever the
// width. A thread computes a strip: a few outputs across, and rows of them below each other, whose
// input it reads once. Narrow types collect y in shared memory, and write it as they read x.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PLAN_H
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PLAN_H

#include "params.h"

// What benchmarks/gpu_plugins.py --tune compiles in other sizes.
#ifndef SHUFFLE_DEPTHWISE_BLOCK_BYTES
#define SHUFFLE_DEPTHWISE_BLOCK_BYTES (28 << 10)
#endif
#ifndef SHUFFLE_DEPTHWISE_ENOUGH_BLOCKS
#define SHUFFLE_DEPTHWISE_ENOUGH_BLOCKS 4096
#endif

namespace shuffle_depthwise {

constexpr int kBlockThreads = 256;
constexpr int kVectorBytes = 16;
constexpr int kWordBytes = 4;
constexpr long long kMostMaps = 0x7FFFFF00;   // of a launch: they are counted in 32 bits
constexpr int kFewestBlocks = 512;            // to keep any GPU busy, if there are maps enough
constexpr int kWarp = 32;
constexpr int kMostBytes = 46 << 10;          // of shared memory for one map: a block has 48 KiB
constexpr int kBlockBytes = SHUFFLE_DEPTHWISE_BLOCK_BYTES;      // for the maps taken at once
constexpr int kEnoughBlocks = SHUFFLE_DEPTHWISE_ENOUGH_BLOCKS;  // to fill any GPU several times over
constexpr int kMostPlanes = 64;               // CUDA: threadIdx.z
constexpr int kMostRows = 65535;              // CUDA: gridDim.y
constexpr int kTapBytes = 208;                // of shared memory, for one channel's weights

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
  int whole;           // rows of y are whole words; of float32 and on tensor cores, pairs
  // tensor cores only, see tile_plan.h
  int across;    // tiles next to each other
  int origin;    // columns of the first tile before y's first
  int aligned;   // windows begin at whole words
  int segments;  // of a band, below each other, each walked by itself; 0: no tensor cores
  int steps;     // tiles of a segment, below each other
};

// Outputs of one thread across: 8 bytes; 16 of float32 where each takes 25 products.
ONNX_DEPLOY_HOST_DEVICE constexpr int thread_columns(int type, int kernel) {
  return type == ShuffleDepthwiseParams::kFloat  ? (kernel == 3 ? 2 : 4)
         : type == ShuffleDepthwiseParams::kHalf ? 4
                                                 : 8;
}

constexpr int kTile = 4;     // outputs across and down that tensor cores take together
constexpr int kStrands = 8;  // such tiles next to each other

// Rows and columns of x that those outputs need, in whole tiles.
ONNX_DEPLOY_HOST_DEVICE constexpr int window_span(int stride) { return stride == 1 ? 8 : 12; }

// Output rows of one thread: many, to pay for what it does once; 7 divides the usual heights.
ONNX_DEPLOY_HOST_DEVICE constexpr int thread_rows(int type, int kernel, int stride) {
  return stride == 2 || (type == ShuffleDepthwiseParams::kFloat && kernel == 5) ? 7 : 14;
}

#ifndef __CUDACC_RTC__  // NVRTC compiles for the device alone

inline int element_bytes(int type) {
  return type == ShuffleDepthwiseParams::kInt8 ? 1 : type == ShuffleDepthwiseParams::kHalf ? 2 : 4;
}

inline int thread_rows(ShuffleDepthwiseParams const& p) {
  return thread_rows(p.type, p.kernel, p.stride);
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
                         (band % thread_rows(p) != 0 ? 1 : 0);
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
  int const rows = thread_rows(p), strips = ceil_div(output_height(p), rows);
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

// Of one map.
inline int shared_bytes_of(Plan const& plan) { return kTapBytes + plan.staged + plan.collected; }

// How many maps, up to `most`, to take at once, so that few lanes of their last warp idle.
inline int fullest_warps(int map_threads, int most) {
  int best = most;
  for (int planes = most; planes > 0; --planes)
    if (static_cast<long long>(planes) * round_up(best * map_threads, kWarp) >
        static_cast<long long>(best) * round_up(planes * map_threads, kWarp))
      best = planes;
  return best;
}

// Maps that a block takes at once.
inline void choose_planes(long long maps, Plan& plan) {
  int const map_threads = plan.columns * plan.rows;
  int most = kBlockThreads / map_threads;
  int const by_memory = at_least_1(kBlockBytes / shared_bytes_of(plan));
  if (most > kMostPlanes) most = kMostPlanes;
  if (most > by_memory) most = by_memory;
  // few maps: rather a warp on every multiprocessor than many on some
  long long const spread = maps * plan.bands / kFewestBlocks;
  int const warp = ceil_div(kWarp, map_threads);
  if (most > spread) most = spread > warp ? static_cast<int>(spread) : most < warp ? most : warp;
  if (most > maps) most = static_cast<int>(maps);
  plan.planes = fullest_warps(map_threads, most);
}

// Threads: the strips of a row, as many times over as shares those below each other out evenly; and
// several maps where they are small.
inline void choose_threads(ShuffleDepthwiseParams const& p, long long maps, Plan& plan) {
  int const across = ceil_div(plan.width, thread_columns(p.type, p.kernel));
  int const strips = ceil_div(plan.band, thread_rows(p));
  plan.columns = across < kBlockThreads ? across : kBlockThreads;
  plan.rows = ceil_div(strips, ceil_div(strips, kBlockThreads / plan.columns));
  choose_planes(maps, plan);
}

// Images, up to `most`: more than one only where there are blocks enough without.
inline void choose_images(ShuffleDepthwiseParams const& p, long long maps, int most, Plan& plan) {
  long long const spare = maps / plan.planes * plan.bands / kEnoughBlocks;
  plan.images = spare < 1 ? 1 : spare > most ? most : static_cast<int>(spare);
  plan.chunks = ceil_div(p.batch, plan.images);
  plan.images = ceil_div(p.batch, plan.chunks);
}

// What every plan begins with. y: the address, for what it is a multiple of, with its rows.
inline Plan empty_plan(ShuffleDepthwiseParams const& p, unsigned long long y, int multiple) {
  Plan plan{};
  plan.height = output_height(p);
  plan.width = output_width(p);
  plan.group_channels = p.channels / p.groups;
  unsigned long long const row = static_cast<unsigned long long>(plan.width) * element_bytes(p.type);
  plan.whole = (row | y) % multiple == 0;
  return plan;
}

inline bool is_too_much(ShuffleDepthwiseParams const& p) {
  return static_cast<long long>(p.width) * element_bytes(p.type) > kMostBytes ||
         static_cast<long long>(p.batch) * p.channels > kMostMaps;
}

// y: the address.
inline Plan make_plan(ShuffleDepthwiseParams const& p, unsigned long long y) {
  bool const wide = p.type == ShuffleDepthwiseParams::kFloat;
  Plan plan = empty_plan(p, y, wide ? 2 * kWordBytes : kWordBytes);
  if (is_too_much(p)) return plan;
  plan.band = rows_of_a_band(p);
  if (plan.band == 0) return plan;
  plan.bands = ceil_div(plan.height, plan.band);
  plan.staged = static_cast<int>(staged_bytes(p, plan.band));
  plan.collected = static_cast<int>(collected_bytes(p, plan.band));
  long long const maps = static_cast<long long>(p.batch) * p.channels;
  choose_threads(p, maps, plan);
  choose_images(p, maps, images_at_most(p.kernel), plan);
  return plan;
}

#endif

}  // namespace shuffle_depthwise

#endif
