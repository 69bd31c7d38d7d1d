// What one launch of ShuffleDepthwise needs to know: plain C++14, no vendor type, no CUDA.
#ifndef ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PARAMS_H
#define ONNX_DEPLOY_SHUFFLE_DEPTHWISE_PARAMS_H

#ifdef __CUDACC__
#define ONNX_DEPLOY_HOST_DEVICE __host__ __device__
#else
#define ONNX_DEPLOY_HOST_DEVICE
#endif

struct ShuffleDepthwiseParams {
  enum Type { kFloat = 0, kHalf = 1, kInt8 = 2 };  // the numbers nvinfer1::DataType uses

  int type;         // of x and y
  int weight_type;  // of w: `type`; with int8 x also kFloat, then the kernel rounds w itself
  int batch;
  int channels;
  int height;  // of x
  int width;   // of x
  int groups;  // of the shuffle; divides channels
  int kernel;  // 3 or 5, both sides
  int stride;  // 1 or 2, both directions
  int pad_top;
  int pad_left;
  int pad_bottom;
  int pad_right;
  int relu;       // 1: max(0, .) before y is rounded
  float x_scale;  // int8 only: x is x_scale * the stored integer
  float y_scale;  // int8 only
};

ONNX_DEPLOY_HOST_DEVICE inline int output_height(ShuffleDepthwiseParams const& p) {
  return (p.height + p.pad_top + p.pad_bottom - p.kernel) / p.stride + 1;
}

ONNX_DEPLOY_HOST_DEVICE inline int output_width(ShuffleDepthwiseParams const& p) {
  return (p.width + p.pad_left + p.pad_right - p.kernel) / p.stride + 1;
}

#ifndef __CUDACC_RTC__  // NVRTC compiles for the device alone
// Why no kernel takes these, or null when one does.
inline char const* refusal(ShuffleDepthwiseParams const& p) {
  if (p.type < ShuffleDepthwiseParams::kFloat || p.type > ShuffleDepthwiseParams::kInt8)
    return "type is none of float32, float16, int8";
  if (p.weight_type != p.type &&
      !(p.type == ShuffleDepthwiseParams::kInt8 &&
        p.weight_type == ShuffleDepthwiseParams::kFloat))
    return "w must have x's type, or be float32 when x is int8";
  if (p.batch < 1 || p.channels < 1 || p.height < 1 || p.width < 1)
    return "x has an empty dimension";
  if (p.groups < 1 || p.channels % p.groups != 0) return "groups doesn't divide the channels";
  if (p.kernel != 3 && p.kernel != 5) return "the kernel is neither 3x3 nor 5x5";
  if (p.stride != 1 && p.stride != 2) return "the stride is neither 1 nor 2";
  if (p.pad_top < 0 || p.pad_left < 0 || p.pad_bottom < 0 || p.pad_right < 0 ||
      p.pad_top > p.kernel / 2 || p.pad_left > p.kernel / 2 || p.pad_bottom > p.kernel / 2 ||
      p.pad_right > p.kernel / 2)
    return "a pad is outside 0 .. kernel / 2";
  if (p.height + p.pad_top + p.pad_bottom < p.kernel ||
      p.width + p.pad_left + p.pad_right < p.kernel)
    return "x is smaller than the kernel";
  if (p.type == ShuffleDepthwiseParams::kInt8 && !(p.x_scale > 0 && p.y_scale > 0))
    return "int8 needs x_scale and y_scale above 0";
  return nullptr;
}
#endif

#endif
