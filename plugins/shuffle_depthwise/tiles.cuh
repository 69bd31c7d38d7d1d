// ShuffleDepthwise's arithmetic on tensor cores: tiles of 4 x 4 outputs, eight of them in a product.
//
// A tile's outputs are sums over one window of x, 8 x 8 numbers (12 x 12 with stride 2), with each
// output's weights where it needs them and 0 elsewhere: rows of a matrix that is the same for every
// tile of a channel. The product is mostly zeros, and still several times faster than without: per
// output, a 5x5 kernel takes as few instructions as a 3x3 one. What it costs: an Inf or NaN of
// float16 makes NaN of a whole tile (0 * Inf), rather than of the windows around it.
//
// Lane 4g + t of a warp reads rows t, t + 4, (t + 8) of tile g's window. Down a strand of tiles, the
// last four rows of one window are the first four of the next.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_TILES_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_TILES_CUH

#include "products.cuh"
#include "strips.cuh"

namespace shuffle_depthwise {

template <typename T>
struct SumOf {
  using Type = float;
};
template <>
struct SumOf<signed char> {
  using Type = int;
};

// What takes a channel's sums to y.
struct Finish {
  float factor;  // int8
  float offset;  // int8; of float16 the bias
  unsigned relu;  // all ones or none

  __device__ float start(float) const { return offset; }
  __device__ int start(int) const { return anew(kIntegerShiftBits); }
  // two pairs of y, in the halves of a word or in two
  __device__ void pairs(float const (&sum)[4], unsigned (&pair)[2]) const {
    float value[4] = {sum[0], sum[1], sum[2], sum[3]};
    if (relu != 0u)
#pragma unroll
      for (int i = 0; i < 4; ++i) value[i] = fmaxf(value[i], 0.0f);
    pair[0] = packed(value[0], value[2]);
    pair[1] = packed(value[1], value[3]);
  }
  __device__ void pairs(int const (&sum)[4], unsigned (&pair)[2]) const {
    float steps[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      steps[i] = fmaf(__int_as_float(sum[i]) - kIntegerShift, factor, offset);
    float const four[4] = {steps[0], steps[2], steps[1], steps[3]};
    pair[0] = packed_bytes(four, relu);
    pair[1] = pair[0] >> 16;
  }
};

template <typename T>
struct PairOf {
  using Type = unsigned;
  using One = unsigned short;
};
template <>
struct PairOf<signed char> {
  using Type = unsigned short;
  using One = Byte;
};

// Where one strand's pairs of outputs go in shared memory, and which of a pair are in y.
template <typename T, bool kWhole>
struct Spot {
  int at;
  bool first;
  bool second;

  __device__ void put(unsigned pair) const {
    using One = typename PairOf<T>::One;
    if (kWhole) {
      using Pair = typename PairOf<T>::Type;
      if (first) *reinterpret_cast<Pair*>(shared_bytes() + at) = static_cast<Pair>(pair);
      return;
    }
    One* const to = reinterpret_cast<One*>(shared_bytes() + at);
    if (first) to[0] = static_cast<One>(pair);
    if (second) to[1] = static_cast<One>(pair >> (8 * sizeof(T)));
  }
};

// One channel's weights as the products' left side.
template <typename T, int S>
struct TileMath {
  using Sum = typename SumOf<T>::Type;
  static constexpr int kStride = S;
  static constexpr int kSize = static_cast<int>(sizeof(T));
  static constexpr int kSpan = window_span(S);                  // rows and columns of a window
  static constexpr int kGroups = kSpan / kTile;                 // of rows
  static constexpr int kRowWords = kSpan * kSize / kWordBytes;
  static constexpr int kWords = kGroups * kRowWords;            // of one lane
  static constexpr int kProducts = (kWords + 1) / 2;
  static constexpr int kBefore = kTile * S;                     // zeros before a row of weights
  static constexpr int kPitch = kBefore + kSpan;                // of weights, in numbers
  static constexpr int kMostRows = 5;
  static constexpr int kNumbers = kMostRows * kPitch * kSize;   // where factor and offset lie
  static_assert(kNumbers + 2 * kWordBytes <= kTapBytes, "the weights don't fit their place");
  unsigned left[kProducts][4];
  Finish finish;

  __device__ static int kernel(ShuffleDepthwiseParams const& p) { return p.kernel; }
  // rows that only zeros are multiplied with have to be finite
  __device__ static int rows_held(Plan const& plan, int count) {
    return kSize == 1 ? count : plan.segments * plan.steps * kBefore + kTile;
  }

  __device__ static __half weight(ShuffleDepthwiseParams const&, void const* w, float, int at,
                                  __half) {
    return static_cast<__half const*>(w)[at];
  }
  __device__ static signed char weight(ShuffleDepthwiseParams const& p, void const* w, float step,
                                       int at, signed char) {
    return static_cast<signed char>(integer_weight(p, w, step, 0, at));
  }

  // Puts channel c's numbers into shared memory; all threads of a map.
  __device__ static void prepare(ShuffleDepthwiseParams const& p, void const* w,
                                 void const* biases, float const* w_scale, int c, Byte* taps) {
    float const step = kSize == 1 ? weight_step(p, w, w_scale, c) : 0.0f;
#pragma unroll 1
    for (int i = thread_of_map(); i < p.kernel * kPitch; i += threads_of_map()) {
      int const row = i / kPitch, column = i % kPitch - kBefore;
      bool const inside = column >= 0 && column < p.kernel;
      int const at = (c * p.kernel + row) * p.kernel + column;
      reinterpret_cast<T*>(taps)[i] = inside ? weight(p, w, step, at, T()) : T{};
    }
    if (thread_of_map() != threads_of_map() - 1) return;
    float* const numbers = reinterpret_cast<float*>(taps + kNumbers);
    if (kSize == 1) {
      Rescale const scale = rescale(p, biases, step, c);
      numbers[0] = scale.factor;
      numbers[1] = scale.offset;
    } else {
      numbers[1] = biases != nullptr ? to_float(static_cast<T const*>(biases)[c]) : 0.0f;
    }
  }

  // What prepare() left, for this lane.
  __device__ void load(ShuffleDepthwiseParams const& p, Byte const* taps) {
    float const* const numbers = reinterpret_cast<float const*>(taps + kNumbers);
    finish = {kSize == 1 ? numbers[0] : 0.0f, numbers[1],
              static_cast<unsigned>(anew(p.relu != 0 ? -1 : 0))};
    int const from = static_cast<int>(taps - shared_bytes());
    int const lane = static_cast<int>(threadIdx.x), tile = lane / 4, line = lane % 4;
#pragma unroll
    for (int i = 0; i < 4 * kProducts; ++i) {
      int const part = i % 4, word = i / 4 * 2 + part / 2;
      left[i / 4][part] = 0u;
      if (word >= kWords) continue;
      // the output's place in its tile is row tile / 2, column 2 * (tile % 2) + part % 2
      int const row = word / kRowWords * kTile + line - tile / 2 * S;
      int const column =
          word % kRowWords * (kWordBytes / kSize) - (tile % 2 * 2 + part % 2) * S;
      if (row < 0 || row >= p.kernel) continue;
      int const at = from + (row * kPitch + kBefore + column) * kSize;
      unsigned words[2];
      load_words<1>(at & ~3, words);
      left[i / 4][part] =
          __funnelshift_r(words[0], words[1], static_cast<unsigned>(at) << 3);
    }
  }

  // The sums of eight tiles, from this lane's part of their windows.
  __device__ void sums(unsigned const (&words)[kGroups][kRowWords], Sum (&sum)[4]) const {
    Sum const start = finish.start(Sum());
    Sum const all[4] = {start, start, start, start};
#pragma unroll
    for (int i = 0; i < kProducts; ++i) {
      int const next = 2 * i + 1;
      unsigned const low = words[2 * i / kRowWords][2 * i % kRowWords];
      unsigned const high =
          next < kWords ? words[next / kRowWords % kGroups][next % kRowWords] : 0u;
      if (i == 0)
        multiply(sum, left[i], low, high, all);
      else
        multiply(sum, left[i], low, high, sum);
    }
  }
};

// Walks a warp's eight strands, tile by tile to the bottom. kWhole: y's pairs lie at multiples of
// their size; kAligned: windows at those of a word.
template <typename T, int S, bool kWhole, bool kAligned>
struct Walk {
  using Math = TileMath<T, S>;
  static constexpr int kSize = static_cast<int>(sizeof(T));
  static constexpr int kKept = Math::kGroups - S;  // groups of rows that two windows share

  ShuffleDepthwiseParams const& p;
  Plan const& plan;
  int base;  // of the band's input in shared memory
  int to;    // of its output

  // the first output of strand n
  struct Start {
    int row;
    int column;
  };
  __device__ Start start(int n) const {
    int segment = 0;
#pragma unroll 1
    for (; n >= plan.across; n -= plan.across) ++segment;
    return {segment * plan.steps * kTile, n * kTile - (kAligned ? plan.origin : 0)};
  }

  __device__ Spot<T, kWhole> spot(int n) const {
    bool const is = n < plan.across * plan.segments;
    Start const from = start(is ? n : 0);
    int const tile = static_cast<int>(threadIdx.x) / 4;
    int const row = from.row + tile / 2, column = from.column + tile % 2 * 2;
    return {to + (row * plan.width + column) * kSize, is && column >= 0 && column < plan.width,
            is && column + 1 < plan.width};
  }

  template <typename Input, int N>
  __device__ static void fetch(Input& input, int at, int place, unsigned (&words)[N]) {
    input.template load_aligned<kAligned>(at);
    if (kAligned)
      input.take_words(words);
    else
      input.shift(place, words);
  }

  // from strand `first` on
  __device__ void operator()(Math const& math, int first) const {
    int const lane = static_cast<int>(threadIdx.x), pitch = p.width * kSize;
    int const jump = kTile * pitch, y_jump = kTile * plan.width * kSize;
    Start const from = start(min(first + lane / 4, plan.across * plan.segments - 1));
    int const outside = from.column * S - p.pad_left;
    int at = base + (from.row * S + lane % 4) * pitch + outside * kSize;
    MaskedRows<T, Math::kRowWords> input({at, pitch, -outside, p.width - outside});
    int const place = anew(at << 3);  // the same for all rows of this lane, as take() wants it
    at &= ~3;
    Spot<T, kWhole> low = spot(first + lane % 4 * 2), high = spot(first + lane % 4 * 2 + 1);
    unsigned words[Math::kGroups][Math::kRowWords];
#pragma unroll
    for (int i = 0; i < kKept; ++i, at += jump) fetch(input, at, place, words[i]);
#pragma unroll 2
    for (int step = 0; step < plan.steps; ++step) {
#pragma unroll
      for (int i = kKept; i < Math::kGroups; ++i, at += jump) fetch(input, at, place, words[i]);
      typename Math::Sum sum[4];
      math.sums(words, sum);
      unsigned pair[2];
      math.finish.pairs(sum, pair);
      low.put(pair[0]);
      high.put(pair[1]);
      low.at += y_jump;
      high.at += y_jump;
#pragma unroll
      for (int i = 0; i < kKept; ++i)
#pragma unroll
        for (int t = 0; t < Math::kRowWords; ++t) words[i][t] = words[i + S][t];
    }
  }
};

}  // namespace shuffle_depthwise

#endif
