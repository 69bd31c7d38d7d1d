// ShuffleDepthwise's arithmetic: a strip of outputs, thread_columns across and thread_rows down,
// from rows in shared memory. A row of x is read once, and used for every row of y it reaches.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_STRIPS_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_STRIPS_CUH

#include "numbers.cuh"
#include "shared.cuh"

namespace shuffle_depthwise {

// Where a strip's windows lie: the first one's first byte in shared memory, the bytes from row to
// row, and which elements of a row are x's: from `begin` to below `end`, counted from the window.
struct Windows {
  int at;
  int pitch;
  int begin;
  int end;
};

// All ones in those bytes of word t that lie in `begin` .. `end` (bytes).
__device__ inline unsigned bytes_between(int begin, int end, int t) {
  // shifted by 32 and more, nothing is left
  unsigned const behind = static_cast<unsigned>(max(8 * (4 * t + 4 - end), 0));
  unsigned const before = static_cast<unsigned>(max(8 * (begin - 4 * t), 0));
  return __funnelshift_rc(~0u, 0u, behind) & __funnelshift_lc(0u, ~0u, before);
}

// Rows of a strip's windows as words; what lies outside of x is 0. The next row is on its way while
// one is used.
template <typename T, int N>
struct MaskedRows {
  unsigned mask[N];
  unsigned loaded[N + 1];

  __device__ explicit MaskedRows(Windows const& in) {
    int const size = static_cast<int>(sizeof(T));
#pragma unroll
    for (int t = 0; t < N; ++t)  // no padding is wider than a word
      mask[t] = bytes_between(t == 0 ? in.begin * size : 0, in.end * size, t);
  }
  __device__ void load(int at) { load_words<N>(at & ~3, loaded); }
  // from a multiple of 4: N words where all rows start at one, then they need no shift
  template <bool kWords>
  __device__ void load_aligned(int at) {
    unsigned const* const from = reinterpret_cast<unsigned const*>(shared_bytes() + at);
#pragma unroll
    for (int t = 0; t < (kWords ? N : N + 1); ++t) loaded[t] = from[t];
  }
  // the row at byte `at`, which was loaded last
  __device__ void take(int at, unsigned (&words)[N]) const { shift(at << 3, words); }
  __device__ void take_words(unsigned (&words)[N]) const {
#pragma unroll
    for (int t = 0; t < N; ++t) words[t] = loaded[t] & mask[t];
  }
  // `bits`: modulo 32 it's what counts
  __device__ void shift(int bits, unsigned (&words)[N]) const {
#pragma unroll
    for (int t = 0; t < N; ++t)
      words[t] =
          __funnelshift_r(loaded[t], loaded[t + 1], static_cast<unsigned>(bits)) & mask[t];
  }
};
template <int N>
struct MaskedRows<float, N> {
  unsigned mask[N];
  unsigned loaded[N];

  __device__ explicit MaskedRows(Windows const& in) {
#pragma unroll
    for (int t = 0; t < N; ++t) mask[t] = t >= in.begin && t < in.end ? ~0u : 0u;
  }
  __device__ void load(int at) {
    unsigned const* const from = reinterpret_cast<unsigned const*>(shared_bytes() + at);
#pragma unroll
    for (int t = 0; t < N; ++t) loaded[t] = from[t];
  }
  __device__ void take(int, unsigned (&words)[N]) const {
#pragma unroll
    for (int t = 0; t < N; ++t) words[t] = loaded[t] & mask[t];
  }
};

__device__ inline float number_at(unsigned const* words, int j, float) {
  return __int_as_float(static_cast<int>(words[j]));
}
__device__ inline float number_at(unsigned const* words, int j, __half) {
  unsigned const word = words[j / 2];
  return to_float(
      __ushort_as_half(static_cast<unsigned short>(j % 2 == 0 ? word & 0xFFFFu : word >> 16)));
}

// One channel's weights and bias; float32 and float16.
template <typename T, int K, int S>
struct FloatMath {
  static constexpr int kType = sizeof(T) == 2 ? ShuffleDepthwiseParams::kHalf
                                              : ShuffleDepthwiseParams::kFloat;
  static constexpr int kStride = S;
  static constexpr int kColumns = thread_columns(kType, K);
  static constexpr int kRows = thread_rows(kType, K, S);
  static constexpr int kInputs = (kRows - 1) * S + K;  // rows of x
  static constexpr int kTaps = K * K;
  static constexpr int kValues = (kColumns - 1) * S + K;  // of a row of x
  static constexpr int kWords = (kValues * static_cast<int>(sizeof(T)) + 3) / 4;
  // otherwise a row ahead takes more registers than there are
  static constexpr bool kAhead = S == 1 && (K == 3 || sizeof(T) == 2);
  unsigned number[(kTaps + 4) / 4 * 4];  // float32 bits of the weights, then of the bias
  bool relu;

  __device__ static constexpr int kernel(ShuffleDepthwiseParams const&) { return K; }
  __device__ static int rows_held(Plan const&, int count) { return count; }

  // Puts channel c's numbers into shared memory; all threads of a map.
  __device__ static void prepare(ShuffleDepthwiseParams const&, void const* w, void const* biases,
                                 float const*, int c, Byte* taps) {
#pragma unroll 1
    for (int i = thread_of_map(); i <= kTaps; i += threads_of_map()) {
      float value = 0.0f;
      if (i < kTaps)
        value = to_float(static_cast<T const*>(w)[c * kTaps + i]);
      else if (biases != nullptr)
        value = to_float(static_cast<T const*>(biases)[c]);
      reinterpret_cast<float*>(taps)[i] = value;
    }
  }

  __device__ FloatMath(ShuffleDepthwiseParams const& p, Byte const* taps) : relu(p.relu != 0) {
    load_vectors(taps, number);
  }

  // Row r of the strip is put(r, its kColumns numbers).
  template <typename Put>
  __device__ void strip(Windows const& in, Put const& put) const {
    MaskedRows<T, kWords> input(in);
    input.load(in.at);
    float sum[kRows][kColumns];
#pragma unroll
    for (int i = 0; i < kInputs; ++i) {
      unsigned words[kWords];
      if (!kAhead && i > 0) input.load(in.at + i * in.pitch);
      input.take(in.at + i * in.pitch, words);
      if (kAhead && i + 1 < kInputs) input.load(in.at + (i + 1) * in.pitch);
      float value[kValues];
#pragma unroll
      for (int j = 0; j < kValues; ++j) value[j] = number_at(words, j, T());
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        int const k = i - r * S;
        if (k < 0 || k >= K) continue;
#pragma unroll
        for (int q = 0; q < kColumns; ++q) {
          if (k == 0) sum[r][q] = __int_as_float(static_cast<int>(number[kTaps]));
#pragma unroll
          for (int j = 0; j < K; ++j)
            sum[r][q] = fmaf(value[q * S + j],
                             __int_as_float(static_cast<int>(number[k * K + j])), sum[r][q]);
          if (k == K - 1 && relu) sum[r][q] = fmaxf(sum[r][q], 0.0f);
        }
        if (k != K - 1) continue;
        put(r, sum[r]);
        if (put.last(r)) return;
      }
    }
  }
};

// sum + the products of four signed bytes.
__device__ inline int dot4(unsigned a, unsigned b, int sum) {
#ifdef __CUDACC_RTC__
  // NVRTC 11 knows the name __dp4a and has no code for it
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(sum));
  return sum;
#else
  return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
#endif
}

// The 32 bits that start at byte `offset` of `words`, zeros behind the last.
template <int N>
__device__ inline unsigned window_at(unsigned const (&words)[N], int offset) {
  unsigned const low = offset / 4 < N ? words[offset / 4] : 0u;
  unsigned const high = offset / 4 + 1 < N ? words[offset / 4 + 1] : 0u;
  return __funnelshift_r(low, high, offset % 4 * 8);
}

// One channel's weights as words for dot4, and what takes its sums to y; int8.
template <int K, int S>
struct IntegerMath {
  static constexpr int kStride = S;
  static constexpr int kColumns = thread_columns(ShuffleDepthwiseParams::kInt8, K);
  static constexpr int kRows = thread_rows(ShuffleDepthwiseParams::kInt8, K, S);
  static constexpr int kInputs = (kRows - 1) * S + K;  // rows of x
  static constexpr int kGroups = (K + 3) / 4;  // words of a weight row
  static constexpr int kTaps = K * kGroups;    // words
  static constexpr int kWords = ((kColumns - 1) * S + K + 3) / 4;
  unsigned number[(kTaps + 2 + 3) / 4 * 4];  // taps 4g .. 4g + 3 of a row; factor, offset
  unsigned relu;                             // all ones or none

  __device__ static constexpr int kernel(ShuffleDepthwiseParams const&) { return K; }
  __device__ static int rows_held(Plan const&, int count) { return count; }

  __device__ static void prepare(ShuffleDepthwiseParams const& p, void const* w,
                                 void const* biases, float const* w_scale, int c, Byte* taps) {
    float const step = weight_step(p, w, w_scale, c);
#pragma unroll 1
    for (int i = thread_of_map(); i < kTaps * kWordBytes; i += threads_of_map()) {
      int const row = i / (kGroups * kWordBytes), column = i % (kGroups * kWordBytes);
      int const value = column < K ? integer_weight(p, w, step, c, row * K + column) : 0;
      taps[i] = static_cast<Byte>(value);
    }
    if (thread_of_map() != threads_of_map() - 1) return;
    Rescale const scale = rescale(p, biases, step, c);
    float* const behind = reinterpret_cast<float*>(taps + kTaps * kWordBytes);
    behind[0] = scale.factor;
    behind[1] = scale.offset;
  }

  __device__ IntegerMath(ShuffleDepthwiseParams const& p, Byte const* taps)
      : relu(p.relu != 0 ? ~0u : 0u) {
    load_vectors(taps, number);
  }

  // Adds row k of the window to the outputs of one row.
  __device__ void add_row(unsigned const (&words)[kWords], int k, int (&sum)[kColumns]) const {
#pragma unroll
    for (int q = 0; q < kColumns; ++q) {
      int const offset = q * S;
      if (K == 3 && offset % 2 == 1) {
        // three taps fit a word at the even byte before, too: that window is there already
        sum[q] = dot4(window_at(words, offset - 1), number[k] << 8, sum[q]);
        continue;
      }
#pragma unroll
      for (int g = 0; g < kGroups; ++g)
        sum[q] = dot4(window_at(words, offset + 4 * g), number[k * kGroups + g], sum[q]);
    }
  }

  // Row r of the strip is put(r, its sums as steps of y, not yet rounded).
  template <typename Put>
  __device__ void strip(Windows const& in, Put const& put) const {
    MaskedRows<signed char, kWords> input(in);
    input.load(in.at);
    float const factor = __int_as_float(static_cast<int>(number[kTaps]));
    float const offset = __int_as_float(static_cast<int>(number[kTaps + 1]));
    int sum[kRows][kColumns];
#pragma unroll
    for (int i = 0; i < kInputs; ++i) {
      unsigned words[kWords];
      input.take(in.at + i * in.pitch, words);
      if (i + 1 < kInputs) input.load(in.at + (i + 1) * in.pitch);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        int const k = i - r * S;
        if (k < 0 || k >= K) continue;
        if (k == 0)
#pragma unroll
          for (int q = 0; q < kColumns; ++q) sum[r][q] = kIntegerShiftBits;
        add_row(words, k, sum[r]);
        if (k != K - 1) continue;
        float steps[kColumns];
#pragma unroll
        for (int q = 0; q < kColumns; ++q)
          steps[q] = fmaf(__int_as_float(sum[r][q]) - kIntegerShift, factor, offset);
        put(r, steps);
        if (put.last(r)) return;
      }
    }
  }

  // Four outputs as the word that y stores.
  __device__ unsigned word(float const* steps) const {
    float const four[4] = {steps[0], steps[1], steps[2], steps[3]};
    return packed_bytes(four, relu);
  }
};

template <typename T, int K, int S>
struct MathOf {
  using Type = FloatMath<T, K, S>;
};
template <int K, int S>
struct MathOf<signed char, K, S> {
  using Type = IntegerMath<K, S>;
};

}  // namespace shuffle_depthwise

#endif
