// SePointwise as TensorRT sees it: attributes, types, shapes, and the way to the launcher.
//
//   x [N, C, H, W], scale [N, C, 1, 1], w [M, C, 1, 1], bias [M] (optional),
//   w_scale float32[M] (optional, after bias)
//
// float32 and float16: everything of that type. int8: x and y int8, w float32 or int8 (then with
// w_scale), scale and bias float32; the scales of x and y are TensorRT's (implicit quantization)
// or the attributes x_scale and y_scale (between Q and DQ).
#pragma once

#include "kernel.h"
#include "tensorrt/op.h"

namespace onnx_deploy {
namespace tensorrt {

struct SePointwise {
  struct Values {
    float x_scale = 0.F;  // 0: not given
    float y_scale = 0.F;
  };

  static char const* name() { return "SePointwise"; }

  static Attributes const& attributes() {
    using Type = nvinfer1::PluginFieldType;
    static Attributes const rows{
        {"x_scale", Type::kFLOAT32, 1, offsetof(Values, x_scale), false},
        {"y_scale", Type::kFLOAT32, 1, offsetof(Values, y_scale), false},
    };
    return rows;
  }

  static std::string problem(Values const& v) { return scales_problem(v.x_scale, v.y_scale); }

  static bool takes(int32_t inputs) { return inputs >= 3 && inputs <= 5; }

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
    if (pos == 2 && int8) {
      return type == Type::kFLOAT || (type == Type::kINT8 && inputs == 5);
    }
    return type == (int8 || pos == 4 ? Type::kFLOAT : io[0].type);
  }

  static nvinfer1::DataType output_type(nvinfer1::DataType const* in) { return in[0]; }

  static std::string shape(Values const&, nvinfer1::DimsExprs const* in, nvinfer1::IExprBuilder&,
                           nvinfer1::DimsExprs* out) {
    if (in[0].nbDims != 4 || in[1].nbDims != 4 || in[2].nbDims != 4) {
      return "x, scale and w need 4 dimensions each, they have " + std::to_string(in[0].nbDims) +
             ", " + std::to_string(in[1].nbDims) + ", " + std::to_string(in[2].nbDims);
    }
    int64_t const channels = constant(in[0].d[1]);
    int64_t const taken = constant(in[2].d[1]);
    if (channels >= 0 && taken >= 0 && channels != taken) {
      return "w takes " + std::to_string(taken) + " channels, x has " + std::to_string(channels);
    }
    *out = in[0];
    out->d[1] = in[2].d[0];
    return "";
  }

  static void configure(Values& v, nvinfer1::PluginTensorDesc const* in,
                        nvinfer1::PluginTensorDesc const& out) {
    v.x_scale = scale_of(in[0], v.x_scale);
    v.y_scale = scale_of(out, v.y_scale);
  }

  static std::string enqueue(Values const& v, Call const& call) {
    nvinfer1::Dims const& x = call.in[0].dims;
    nvinfer1::Dims const& scale = call.in[1].dims;
    nvinfer1::Dims const& w = call.in[2].dims;
    if (x.nbDims != 4 || scale.nbDims != 4 || w.nbDims != 4) {
      return "x, scale and w need 4 dimensions each";
    }
    if (scale.d[0] != x.d[0] || scale.d[1] != x.d[1] || scale.d[2] != 1 || scale.d[3] != 1) {
      return "scale isn't [N, C, 1, 1] of x";
    }
    if (w.d[1] != x.d[1] || w.d[2] != 1 || w.d[3] != 1) {
      return "w isn't [M, C, 1, 1] for the channels of x";
    }
    SePointwiseParams p{};
    p.type = static_cast<int>(call.in[0].type);
    p.weight_type = static_cast<int>(call.in[2].type);
    p.batch = static_cast<int>(x.d[0]);
    p.channels = static_cast<int>(x.d[1]);
    p.out_channels = static_cast<int>(w.d[0]);
    p.positions = static_cast<int>(x.d[2] * x.d[3]);
    p.x_scale = scale_of(call.in[0], v.x_scale);
    p.y_scale = scale_of(call.out[0], v.y_scale);
    void const* bias = call.inputs > 3 ? call.in_data[3] : nullptr;
    void const* w_scale = call.inputs > 4 ? call.in_data[4] : nullptr;
    int const code = launch_se_pointwise(p, call.in_data[0], call.in_data[1], call.in_data[2], bias,
                                         static_cast<float const*>(w_scale), call.out_data,
                                         call.stream);
    return failure(code, refusal(p));
  }
};

}  // namespace tensorrt
}  // namespace onnx_deploy
