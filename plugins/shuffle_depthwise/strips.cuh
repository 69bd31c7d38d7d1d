// ShuffleDepthwise's arithmetic: the outputs of one 32-bit word across, R of them down, from rows
// in shared memory. The first window starts at word `at` and the bit `shift` of it; `pitch` words
// lie between rows.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_STRIPS_CUH
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_STRIPS_CUH

#include "numbers.cuh"
#include "shared.cuh"

namespace shuffle_depthwise {

// The values of one row that the windows of a word's outputs cover, as float32.
template <int N>
__device__ inline void load_row(int at, int, float (&value)[N], float) {
  float const* const from = reinterpret_cast<float const*>(shared_memory) + at;
#pragma unroll
  for (int j = 0; j < N; ++j) value[j] = from[j];
}
template <int N>
__device__ inline void load_row(int at, int shift, float (&value)[N], __half) {
  unsigned words[(N + 1) / 2];
  load_words(at, shift, words);
#pragma unroll
  for (int j = 0; j < N; ++j)
    value[j] = to_float(
        __ushort_as_half(static_cast<unsigned short>(j % 2 == 0 ? words[j / 2] & 0xFFFFu
                                                                : words[j / 2] >> 16)));
}

// One channel's weights and bias; float32 and float16.
template <typename T, int K, int S>
struct FloatMath {
  static constexpr int kColumns = kWordBytes / static_cast<int>(sizeof(T));
  static constexpr int kRows = thread_rows(sizeof(T) == 2, K, S);
  float weight[K][K];
  float bias;
  bool relu;

  __device__ FloatMath(ShuffleDepthwiseParams const& p, void const* w, void const* biases,
                       float const*, int c) {
#pragma unroll
    for (int i = 0; i < K * K; ++i)
      weight[i / K][i % K] = to_float(static_cast<T const*>(w)[c * K * K + i]);
    bias = biases != nullptr ? to_float(static_cast<T const*>(biases)[c]) : 0.0f;
    relu = p.relu != 0;
  }

  __device__ void strip(int at, int shift, int pitch, unsigned (&y)[kRows]) const {
    float sum[kRows][kColumns];
#pragma unroll
    for (int i = 0; i < kRows * kColumns; ++i) sum[i / kColumns][i % kColumns] = bias;
#pragma unroll
    for (int i = 0; i < (kRows - 1) * S + K; ++i) {
      float value[(kColumns - 1) * S + K];
      load_row(at + i * pitch, shift, value, T());
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        int const k = i - r * S;
        if (k < 0 || k >= K) continue;
#pragma unroll
        for (int q = 0; q < kColumns; ++q)
#pragma unroll
          for (int j = 0; j < K; ++j)
            sum[r][q] = fmaf(value[q * S + j], weight[k][j], sum[r][q]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int q = 0; q < kColumns; ++q)
        if (relu) sum[r][q] = fmaxf(sum[r][q], 0.0f);
      y[r] = packed(sum[r]);
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
  static constexpr int kColumns = kWordBytes;
  static constexpr int kRows = thread_rows(ShuffleDepthwiseParams::kInt8, K, S);
  static constexpr int kGroups = (K + 3) / 4;  // words of a weight row
  unsigned weight[K][kGroups];                 // taps 4g .. 4g + 3 of a row
  Rescale scale;

  __device__ IntegerMath(ShuffleDepthwiseParams const& p, void const* w, void const* biases,
                         float const* w_scale, int c) {
    float const step = weight_step(p, w, w_scale, c);
    scale = rescale(p, biases, step, c);
#pragma unroll
    for (int i = 0; i < K * kGroups; ++i) weight[i / kGroups][i % kGroups] = 0u;
#pragma unroll
    for (int i = 0; i < K * K; ++i)
      weight[i / K][i % K / 4] |=
          (static_cast<unsigned>(integer_weight(p, w, step, c, i)) & 255u) << (i % K % 4 * 8);
  }

  // Adds row k of the window to the outputs of one row.
  template <int N>
  __device__ void add_row(unsigned const (&words)[N], int k, int (&sum)[kColumns]) const {
#pragma unroll
    for (int q = 0; q < kColumns; ++q) {
      int const offset = q * S;
      if (K == 3 && offset % 2 == 1) {
        // three taps fit a word at the even byte before, too: that window is there already
        sum[q] = dot4(window_at(words, offset - 1), weight[k][0] << 8, sum[q]);
        continue;
      }
#pragma unroll
      for (int g = 0; g < kGroups; ++g)
        sum[q] = dot4(window_at(words, offset + 4 * g), weight[k][g], sum[q]);
    }
  }

  __device__ void strip(int at, int shift, int pitch, unsigned (&y)[kRows]) const {
    int sum[kRows][kColumns];
#pragma unroll
    for (int i = 0; i < kRows * kColumns; ++i)
      sum[i / kColumns][i % kColumns] = kIntegerShiftBits;
#pragma unroll
    for (int i = 0; i < (kRows - 1) * S + K; ++i) {
      unsigned words[((kColumns - 1) * S + K + 3) / 4];
      load_words(at + i * pitch, shift, words);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        if (i - r * S >= 0 && i - r * S < K) add_row(words, i - r * S, sum[r]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      unsigned byte[kColumns];
#pragma unroll
      for (int q = 0; q < kColumns; ++q)
        byte[q] = requantized(__int_as_float(sum[r][q]) - kIntegerShift, scale);
      y[r] = __byte_perm(__byte_perm(byte[0], byte[1], 0x0040),
                         __byte_perm(byte[2], byte[3], 0x0040), 0x5410);
    }
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
