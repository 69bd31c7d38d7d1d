// How ShuffleDepthwise's work is cut for tensor cores: plain C++14, decided on the host.
//
// A warp walks eight strands at once: tiles of 4 x 4 outputs below each other, in one segment of the
// band. A map's strands are its tile columns, once per segment.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_TILE_PLAN_H
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_TILE_PLAN_H

#include "plan.h"

// 0: never tensor cores, 1: where they need fewer instructions, 2: wherever they can
#ifndef SHUFFLE_DEPTHWISE_TENSOR
#define SHUFFLE_DEPTHWISE_TENSOR 1
#endif
#ifndef SHUFFLE_DEPTHWISE_BUSY_WARPS
#define SHUFFLE_DEPTHWISE_BUSY_WARPS 4
#endif

namespace shuffle_depthwise {

constexpr int kMostImages = 8;   // that a block takes one after the other
constexpr int kBusyWarps = SHUFFLE_DEPTHWISE_BUSY_WARPS;  // of a block
constexpr int kWalkStart = 2;    // a strand's beginning takes about as long as so many tiles

// Shared memory for `tiles` of them below each other: the rows that they read, whether x has them or
// not, with what lies before and behind, and the rows that they write, whether y has them or not.
inline long long tile_bytes(ShuffleDepthwiseParams const& p, int tiles) {
  long long const rows = static_cast<long long>(tiles) * kTile * p.stride + kTile;
  long long const all = rows * p.width * element_bytes(p.type) + 4 * kVectorBytes;
  return (all + kVectorBytes - 1) / kVectorBytes * kVectorBytes + collected_bytes(p, tiles * kTile);
}

// Tiles of a band, 0 where not one fits: few bands, since the rows between them are read twice, but
// several blocks on a multiprocessor.
inline int tiles_of_a_band(ShuffleDepthwiseParams const& p) {
  int const tiles = ceil_div(output_height(p), kTile);
  long long const limits[] = {kBlockBytes, kMostBytes};
  int const wanted[] = {2, 1};  // tiles that make the limit good enough
  for (int i = 0; i < 2; ++i) {
    long long const one = tile_bytes(p, 1), each = tile_bytes(p, 2) - one;
    long long const most = one > limits[i] ? 0 : (limits[i] - one) / (each + kVectorBytes) + 1;
    int const fitting = most < tiles ? static_cast<int>(most) : tiles;
    if (fitting >= wanted[i] || (fitting > 0 && fitting == tiles))
      return ceil_div(tiles, ceil_div(tiles, fitting));
  }
  return 0;
}

// Where tiles begin, so that their windows begin at whole words if they can; x: its address.
inline void choose_origin(ShuffleDepthwiseParams const& p, unsigned long long x, Plan& plan) {
  int const size = element_bytes(p.type);
  bool const rows = (static_cast<unsigned long long>(p.width) * size | x) % kWordBytes == 0;
  for (int origin = 0; origin <= 2 && rows && plan.whole && !plan.aligned; origin += 2) {  // pairs stay pairs
    plan.aligned = (origin * p.stride + p.pad_left) * size % kWordBytes == 0;
    plan.origin = plan.aligned ? origin : 0;
  }
  plan.across = ceil_div(plan.width + plan.origin, kTile);
}

// Segments and steps: few walks of eight strands, none of them short.
inline void choose_segments(ShuffleDepthwiseParams const& p, int tiles, Plan& plan) {
  long long best = 0;
  for (int segments = 1; segments <= tiles && segments <= kStrands; ++segments) {
    int const steps = ceil_div(tiles, segments);
    if (segments > 1 && tile_bytes(p, segments * steps) > kMostBytes) continue;
    long long const walks = ceil_div(plan.across * segments, kStrands);
    long long const work = walks * (steps + kWalkStart);
    if (segments > 1 && work >= best) continue;
    best = work;
    plan.segments = segments;
    plan.steps = steps;
  }
}

// Warps: few per map where there are maps enough, since each begins with the weights.
inline void choose_warps(ShuffleDepthwiseParams const& p, Plan& plan) {
  long long const maps = static_cast<long long>(p.batch) * p.channels;
  int const walks = ceil_div(plan.across * plan.segments, kStrands);
  int const room = at_least_1(kBlockBytes / shared_bytes_of(plan));
  bool const many = maps * plan.bands / room >= kFewestBlocks;
  int const warps = many ? at_least_1(kBusyWarps / room) : kBlockThreads / kWarp;
  plan.columns = kWarp;
  plan.rows = ceil_div(walks, ceil_div(walks, warps));
  choose_planes(maps, plan);
}

// x, y: the addresses. planes is 0 where rows are too wide.
inline Plan make_tile_plan(ShuffleDepthwiseParams const& p, unsigned long long x,
                           unsigned long long y) {
  Plan plan = empty_plan(p, y, 2 * element_bytes(p.type));
  if (is_too_much(p)) return plan;
  int const tiles = tiles_of_a_band(p);
  if (tiles == 0) return plan;
  plan.band = tiles * kTile;
  plan.bands = ceil_div(plan.height, plan.band);
  choose_origin(p, x, plan);
  choose_segments(p, tiles, plan);
  int const held = plan.segments * plan.steps;
  plan.collected = static_cast<int>(collected_bytes(p, held * kTile));
  plan.staged = static_cast<int>(tile_bytes(p, held)) - plan.collected;
  choose_warps(p, plan);
  long long const maps = static_cast<long long>(p.batch) * p.channels;
  choose_images(p, maps, kMostImages, plan);
  return plan;
}

// Instructions of all lanes for one band of a map, as counted in machine code of compute capability
// 9.0: on tensor cores, and without (see strips.cuh).
inline long long tile_work(ShuffleDepthwiseParams const& p, Plan const& plan) {
  bool const int8 = p.type == ShuffleDepthwiseParams::kInt8;
  int const step = p.stride == 1 ? (plan.aligned ? 30 : 34) : int8 ? 52 : 62;
  long long const walks = ceil_div(plan.across * plan.segments, kStrands);
  long long const bytes = static_cast<long long>(plan.staged) + plan.collected;
  return kWarp * (400 * plan.rows + walks * (90 + (plan.whole ? step : step + 5) * plan.steps)) +
         bytes * 10 / kVectorBytes;
}
inline long long strip_work(ShuffleDepthwiseParams const& p, int band) {
  // of an output, by kernel and stride
  int const halves[2][2] = {{25, 41}, {44, 64}}, bytes[2][2] = {{13, 20}, {21, 28}};
  auto const& each = p.type == ShuffleDepthwiseParams::kInt8 ? bytes : halves;
  long long const columns = round_up(output_width(p), thread_columns(p.type, p.kernel));
  int const narrow = output_width(p) * element_bytes(p.type) % kWordBytes == 0 ? 0 : 2;
  return columns * round_up(band, thread_rows(p)) * (each[p.kernel == 5][p.stride == 2] + narrow);
}
inline bool pays(ShuffleDepthwiseParams const& p, Plan const& plan) {
  if (SHUFFLE_DEPTHWISE_TENSOR != 1) return SHUFFLE_DEPTHWISE_TENSOR == 2;
  int const band = plan.band < plan.height ? plan.band : plan.height;
  return tile_work(p, plan) < strip_work(p, band);
}

}  // namespace shuffle_depthwise

#endif
