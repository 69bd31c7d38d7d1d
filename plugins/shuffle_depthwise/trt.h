// ShuffleDepthwise as TensorRT sees it: attributes, types, shapes, and the way to the launcher.
//
//   x [N, C, H, W], w [C, 1, k, k], bias [C] (optional), w_scale float32[C] (optional, after bias)
//
// float32 and float16: everything of that type. int8: x and y int8, w float32 or int8 (then with
// w_scale), bias float32; the scales of x and y are TensorRT's (implicit quantization) or the
// attributes x_scale and y_scale (between Q and DQ).
#pragma once

#include "kernel.h"
#include "tensorrt/op.h"

namespace onnx_deploy {
namespace tensorrt {

struct ShuffleDepthwise {
  struct Values {
    int32_t groups = 1;
    int32_t strides[2] = {1, 1};
    int32_t pads[4] = {0, 0, 0, 0};  // top, left, bottom, right
    char activation[8] = "";         // "" or "Relu"
    float x_scale = 0.F;             // 0: not given
    float y_scale = 0.F;
  };

  static char const* name() { return "ShuffleDepthwise"; }

  static Attributes const& attributes() {
    using Type = nvinfer1::PluginFieldType;
    static Attributes const rows{
        {"groups", Type::kINT32, 1, offsetof(Values, groups), false},
        {"strides", Type::kINT32, 2, offsetof(Values, strides), false},
        {"pads", Type::kINT32, 4, offsetof(Values, pads), false},
        {"activation", Type::kCHAR, 8, offsetof(Values, activation), false},
        {"x_scale", Type::kFLOAT32, 1, offsetof(Values, x_scale), false},
        {"y_scale", Type::kFLOAT32, 1, offsetof(Values, y_scale), false},
    };
    return rows;
  }

  static std::string problem(Values const& v) {
    std::string const activation(v.activation, strnlen(v.activation, sizeof v.activation));
    if (v.groups < 1) {
      return "groups is " + std::to_string(v.groups) + ", expected 1 or more";
    }
    if (v.strides[0] != v.strides[1] || v.strides[0] < 1 || v.strides[0] > 2) {
      return "strides are " + std::to_string(v.strides[0]) + ", " + std::to_string(v.strides[1]) +
             ", expected 1, 1 or 2, 2";
    }
    for (int32_t pad : v.pads) {
      if (pad < 0 || pad > 2) {
        return "a pad is " + std::to_string(pad) + ", expected 0, 1 or 2";
      }
    }
    if (!activation.empty() && activation != "Relu") {
      return "activation is '" + activation + "', expected '' or 'Relu'";
    }
    return scales_problem(v.x_scale, v.y_scale);
  }

  static bool takes(int32_t inputs) { return inputs >= 2 && inputs <= 4; }

  static bool supports(int32_t pos, nvinfer1::PluginTensorDesc const* io, int32_t inputs) {
    using Type = nvinfer1::DataType;
    Type const type = io[pos].type;
    if (!is_linear(io[pos]) || !is_known(io[0].type)) {
      return false;
    }
    bool const int8 = io[0].type == Type::kINT8;
    if (pos == 0 || pos == inputs) {
      return type == io[0].type;
    }
    if (pos == 1 && int8) {
      return type == Type::kFLOAT || (type == Type::kINT8 && inputs == 4);
    }
    return type == (int8 || pos == 3 ? Type::kFLOAT : io[0].type);
  }

  static nvinfer1::DataType output_type(nvinfer1::DataType const* in) { return in[0]; }

  static std::string shape(Values const& v, nvinfer1::DimsExprs const* in,
                           nvinfer1::IExprBuilder& build, nvinfer1::DimsExprs* out) {
    if (in[0].nbDims != 4 || in[1].nbDims != 4) {
      return "x has " + std::to_string(in[0].nbDims) + " and w " + std::to_string(in[1].nbDims) +
             " dimensions, expected [N, C, H, W] and [C, 1, k, k]";
    }
    int64_t const channels = constant(in[0].d[1]);
    int64_t const kernel = constant(in[1].d[2]);
    if (channels >= 0 && channels % v.groups != 0) {
      return "groups = " + std::to_string(v.groups) + " doesn't divide " +
             std::to_string(channels) + " channels";
    }
    if (kernel >= 0 && ((kernel != 3 && kernel != 5) || constant(in[1].d[3]) != kernel)) {
      return "the kernel of w is neither 3x3 nor 5x5";
    }
    for (int32_t pad : v.pads) {
      if (kernel >= 0 && pad > kernel / 2) {
        return "a pad is " + std::to_string(pad) + ", more than half of the kernel " +
               std::to_string(kernel);
      }
    }
    *out = in[0];
    for (int32_t side = 0; side < 2; ++side) {
      int32_t const pads = v.pads[side] + v.pads[side + 2];
      auto const* padded = build.operation(nvinfer1::DimensionOperation::kSUM, *in[0].d[2 + side],
                                           *build.constant(pads));
      auto const* steps =
          build.operation(nvinfer1::DimensionOperation::kSUB, *padded, *in[1].d[2 + side]);
      auto const* strides = build.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *steps,
                                            *build.constant(v.strides[side]));
      out->d[2 + side] =
          build.operation(nvinfer1::DimensionOperation::kSUM, *strides, *build.constant(1));
    }
    return "";
  }

  static void configure(Values& v, nvinfer1::PluginTensorDesc const* in,
                        nvinfer1::PluginTensorDesc const& out) {
    v.x_scale = scale_of(in[0], v.x_scale);
    v.y_scale = scale_of(out, v.y_scale);
  }

  static std::string enqueue(Values const& v, Call const& call) {
    nvinfer1::Dims const& x = call.in[0].dims;
    nvinfer1::Dims const& w = call.in[1].dims;
    if (x.nbDims != 4 || w.nbDims != 4 || w.d[0] != x.d[1] || w.d[1] != 1 || w.d[2] != w.d[3]) {
      return "w isn't [C, 1, k, k] for the channels of x";
    }
    ShuffleDepthwiseParams p{};
    p.type = static_cast<int>(call.in[0].type);
    p.weight_type = static_cast<int>(call.in[1].type);
    p.batch = static_cast<int>(x.d[0]);
    p.channels = static_cast<int>(x.d[1]);
    p.height = static_cast<int>(x.d[2]);
    p.width = static_cast<int>(x.d[3]);
    p.groups = v.groups;
    p.kernel = static_cast<int>(w.d[2]);
    p.stride = v.strides[0];
    p.pad_top = v.pads[0];
    p.pad_left = v.pads[1];
    p.pad_bottom = v.pads[2];
    p.pad_right = v.pads[3];
    p.relu = v.activation[0] != '\0';
    p.x_scale = scale_of(call.in[0], v.x_scale);
    p.y_scale = scale_of(call.out[0], v.y_scale);
    void const* bias = call.inputs > 2 ? call.in_data[2] : nullptr;
    void const* w_scale = call.inputs > 3 ? call.in_data[3] : nullptr;
    int const code = launch_shuffle_depthwise(p, call.in_data[0], call.in_data[1], bias,
                                              static_cast<float const*>(w_scale), call.out_data,
                                              call.stream);
    return failure(code, refusal(p));
  }
};

}  // namespace tensorrt
}  // namespace onnx_deploy
