// How ShuffleDepthwise's work is cut into blocks: plain C++14, decided on the host.
//
// A block stages, for one or several channel maps, a band of rows in shared memory, each followed
// by a gap of zeros that is the padding right of it and left of the next one. A thread computes the
// outputs of one 32-bit word, for a strip of rows below each other, and keeps the input rows that
// these share in registers.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PLAN_H
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PLAN_H

#include "params.h"

namespace shuffle_depthwise {

constexpr int kBlockThreads = 256;
constexpr int kVectorBytes = 16;
constexpr int kWordBytes = 4;

struct Plan {
  int band;       // output rows of one block, a multiple of thread_rows
  int bands;      // of one map
  int planes;     // maps of one block; 0: rows are too wide for shared memory, use plain()
  int threads;    // of one map
  int piece;      // bytes read at a time: the most, up to 16, that rows of x are multiples of
  int pitch;      // bytes from row to row in shared memory
  int staged;     // bytes of shared memory for the input of one map
  int collected;  // for its output, where int8 rows of y aren't whole words; else 0
  int whole;      // rows of y are whole words
};

// Output rows of one thread: as many as its registers hold.
ONNX_DEPLOY_HOST_DEVICE constexpr int thread_rows(int type, int kernel, int stride) {
  return type == ShuffleDepthwiseParams::kInt8 || stride == 2 ||
                 (type == ShuffleDepthwiseParams::kHalf && kernel == 5)
             ? 4
             : 8;
}

#ifndef __CUDACC_RTC__  // NVRTC compiles for the device alone

inline int element_bytes(int type) {
  return type == ShuffleDepthwiseParams::kInt8 ? 1 : type == ShuffleDepthwiseParams::kHalf ? 2 : 4;
}

inline int ceil_div(int value, int by) { return (value + by - 1) / by; }
inline int round_up(int value, int to) { return ceil_div(value, to) * to; }
inline int at_least_1(int value) { return value < 1 ? 1 : value; }

// Bytes from row to row: the gap holds the wider of the paddings.
inline int pitch_of(ShuffleDepthwiseParams const& p, int piece) {
  int const gap = p.pad_left > p.pad_right ? p.pad_left : p.pad_right;
  int const unit = piece > kWordBytes ? piece : kWordBytes;
  return round_up((p.width + gap) * element_bytes(p.type), unit);
}

// Shared memory for the input of `band` output rows: a gap before the first, the rows, and what the
// last window may reach over the end (for outputs that don't exist).
inline long long staged_bytes(ShuffleDepthwiseParams const& p, int pitch, int band) {
  long long const rows = static_cast<long long>(band - 1) * p.stride + p.kernel;
  long long const all = kVectorBytes + rows * pitch + 2 * kVectorBytes;
  return (all + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
}

inline int collected_bytes(ShuffleDepthwiseParams const& p, int whole, int band) {
  if (p.type != ShuffleDepthwiseParams::kInt8 || whole) return 0;
  return round_up(band * output_width(p) + kVectorBytes, kVectorBytes);
}

// As many strips in a band as fit: 16 KiB leave room for several blocks on a multiprocessor, so
// that one loads while another computes; more only where a band would be mostly shared rows.
inline int strips_of_a_band(ShuffleDepthwiseParams const& p, Plan const& plan, int strips) {
  int const rows = thread_rows(p.type, p.kernel, p.stride);
  long long const limits[] = {16 << 10, 32 << 10, 46 << 10};
  int const wanted[] = {16, 8, 1};  // output rows that make the limit good enough
  for (int i = 0; i < 3; ++i) {
    int fitting = strips;
    while (fitting > 0 && staged_bytes(p, plan.pitch, fitting * rows) +
                                  collected_bytes(p, plan.whole, fitting * rows) >
                              limits[i])
      --fitting;
    if (fitting > 0 && (fitting == strips || fitting * rows >= wanted[i])) return fitting;
  }
  return 0;
}

// x and y: the addresses, for what they are multiples of.
inline Plan make_plan(ShuffleDepthwiseParams const& p, unsigned long long x,
                      unsigned long long y) {
  Plan plan{};
  int const size = element_bytes(p.type), rows = thread_rows(p.type, p.kernel, p.stride);
  plan.piece = kVectorBytes;
  while ((static_cast<unsigned long long>(p.width) * size | x) % plan.piece != 0) plan.piece /= 2;
  plan.whole = (static_cast<unsigned long long>(output_width(p)) * size | y) % kWordBytes == 0;
  if (static_cast<long long>(p.width) * size > 46 << 10) return plan;
  plan.pitch = pitch_of(p, plan.piece);
  int const strips = ceil_div(output_height(p), rows);
  int const fitting = strips_of_a_band(p, plan, strips);
  if (fitting == 0 || ceil_div(strips, fitting) > 65535) return plan;
  plan.bands = ceil_div(strips, fitting);
  int const even = ceil_div(strips, plan.bands);
  plan.band = even * rows;
  plan.staged = static_cast<int>(staged_bytes(p, plan.pitch, plan.band));
  plan.collected = collected_bytes(p, plan.whole, plan.band);

  // threads: the words of a row, as many times over as shares the strips out evenly
  int const words = ceil_div(output_width(p) * size, kWordBytes);
  int const at_once = at_least_1(kBlockThreads / words);
  int const turns = ceil_div(even, at_once);
  plan.threads = words < kBlockThreads ? words * ceil_div(even, turns) : kBlockThreads;
  int const by_memory = at_least_1((32 << 10) / (plan.staged + plan.collected));
  long long const maps = static_cast<long long>(p.batch) * p.channels;
  plan.planes = kBlockThreads / plan.threads;
  if (plan.planes > by_memory) plan.planes = by_memory;
  if (plan.planes > maps) plan.planes = static_cast<int>(maps);
  return plan;
}

#endif

}  // namespace shuffle_depthwise

#endif
