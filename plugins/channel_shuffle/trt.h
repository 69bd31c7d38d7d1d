// ChannelShuffle as TensorRT sees it: attributes, types, shapes, and the way to the launcher.
//
// x [N, C, ...] of float32, float16 or int8. The kernel copies, so an int8 x and y need one scale:
// true between Q and DQ, and with a calibration cache that gives both the same.
#pragma once

#include <cmath>

#include "kernel.h"
#include "tensorrt/op.h"

namespace onnx_deploy {
namespace tensorrt {

struct ChannelShuffle {
  struct Values {
    int32_t groups = 1;
  };

  static char const* name() { return "ChannelShuffle"; }

  static Attributes const& attributes() {
    static Attributes const rows{
        {"groups", nvinfer1::PluginFieldType::kINT32, 1, offsetof(Values, groups), true},
    };
    return rows;
  }

  static std::string problem(Values const& v) {
    return v.groups >= 1 ? "" : "groups is " + std::to_string(v.groups) + ", expected 1 or more";
  }

  static bool takes(int32_t inputs) { return inputs == 1; }

  static bool supports(int32_t pos, nvinfer1::PluginTensorDesc const* io, int32_t) {
    return is_linear(io[pos]) && is_known(io[0].type) && io[pos].type == io[0].type;
  }

  static nvinfer1::DataType output_type(nvinfer1::DataType const* in) { return in[0]; }

  static std::string shape(Values const& v, nvinfer1::DimsExprs const* in, nvinfer1::IExprBuilder&,
                           nvinfer1::DimsExprs* out) {
    if (in[0].nbDims < 2) {
      return "x has " + std::to_string(in[0].nbDims) + " dimensions, expected [N, C, ...]";
    }
    int64_t const channels = constant(in[0].d[1]);
    if (channels >= 0 && channels % v.groups != 0) {
      return "groups = " + std::to_string(v.groups) + " doesn't divide " +
             std::to_string(channels) + " channels";
    }
    *out = in[0];
    return "";
  }

  static void configure(Values&, nvinfer1::PluginTensorDesc const*,
                        nvinfer1::PluginTensorDesc const&) {}

  static std::string enqueue(Values const& v, Call const& call) {
    nvinfer1::Dims const& x = call.in[0].dims;
    float const from = scale_of(call.in[0], 0.F);
    float const to = scale_of(call.out[0], 0.F);
    if (from > 0.F && to > 0.F && std::fabs(from - to) > 1e-6F * from) {
      return "x has scale " + std::to_string(from) + " and y " + std::to_string(to) +
             ": a shuffle only copies, give both the same in the calibration cache";
    }
    if (x.nbDims < 2) {
      return "x has " + std::to_string(x.nbDims) + " dimensions, expected [N, C, ...]";
    }
    ChannelShuffleParams p{};
    p.element_bytes = call.in[0].type == nvinfer1::DataType::kINT8    ? 1
                      : call.in[0].type == nvinfer1::DataType::kHALF ? 2
                                                                     : 4;
    p.batch = static_cast<int>(x.d[0]);
    p.channels = static_cast<int>(x.d[1]);
    p.groups = v.groups;
    p.positions = 1;
    for (int32_t i = 2; i < x.nbDims; ++i) {
      p.positions *= static_cast<int>(x.d[i]);
    }
    return failure(launch_channel_shuffle(p, call.in_data[0], call.out_data, call.stream),
                   refusal(p));
  }
};

}  // namespace tensorrt
}  // namespace onnx_deploy
