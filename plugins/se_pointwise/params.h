// What one launch of SePointwise needs to know: plain C++14, no vendor type, no CUDA.
#ifndef ONNX_DEPLOY_SE_POINTWISE_PARAMS_H
#define ONNX_DEPLOY_SE_POINTWISE_PARAMS_H

struct SePointwiseParams {
  enum Type { kFloat = 0, kHalf = 1, kInt8 = 2 };  // the numbers nvinfer1::DataType uses

  int type;         // of x and y
  int weight_type;  // of w: `type`; with int8 x also kFloat, then w is taken as it is
  int batch;
  int channels;      // C, of x
  int out_channels;  // M, of y
  int positions;     // H * W
  float x_scale;     // int8 only: x is x_scale * the stored integer
  float y_scale;     // int8 only
};

#ifndef __CUDACC_RTC__  // NVRTC compiles for the device alone
// Why no kernel takes these, or null when one does.
inline char const* refusal(SePointwiseParams const& p) {
  if (p.type < SePointwiseParams::kFloat || p.type > SePointwiseParams::kInt8)
    return "type is none of float32, float16, int8";
  if (p.weight_type != p.type &&
      !(p.type == SePointwiseParams::kInt8 && p.weight_type == SePointwiseParams::kFloat))
    return "w must have x's type, or be float32 when x is int8";
  if (p.batch < 1 || p.channels < 1 || p.out_channels < 1 || p.positions < 1)
    return "x or w has an empty dimension";
  if (p.type == SePointwiseParams::kInt8 && !(p.x_scale > 0 && p.y_scale > 0))
    return "int8 needs x_scale and y_scale above 0";
  return nullptr;
}
#endif

#endif
