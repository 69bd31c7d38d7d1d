// What TensorRT, CUDA and the kernels' launchers would bring, and the two plugin interfaces under
// one set of names. GLUE says which: 2 or 3.
#pragma once

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#if GLUE == 2
#include "tensorrt/v2.h"
template <typename Op>
using Creator = onnx_deploy::tensorrt::CreatorV2<Op>;
#else
#include "tensorrt/v3.h"
template <typename Op>
using Creator = onnx_deploy::tensorrt::CreatorV3<Op>;
#endif
#include "channel_shuffle/trt.h"
#include "se_pointwise/trt.h"
#include "shuffle_depthwise/trt.h"

using namespace nvinfer1;
using onnx_deploy::tensorrt::ChannelShuffle;
using onnx_deploy::tensorrt::SePointwise;
using onnx_deploy::tensorrt::ShuffleDepthwise;

// what TensorRT and CUDA would bring

namespace {
std::string logged;
struct Log final : ILogger {
  void log(Severity, char const* text) noexcept override { logged = text; }
} the_log;
}  // namespace

extern "C" ILogger* getLogger() noexcept { return &the_log; }
extern "C" char const* cudaGetErrorString(cudaError_t) { return "as CUDA says"; }

// launchers that print what they were called with; `code_to_return` is what they report
namespace {
int code_to_return = 0;
char const* given(void const* pointer) { return pointer ? "yes" : "no"; }
}  // namespace

extern "C" int launch_shuffle_depthwise(ShuffleDepthwiseParams const& p, void const*, void const*,
                                        void const* bias, float const* w_scale, void*, void*) {
  std::printf("launch type %d w %d shape %d %d %d %d groups %d kernel %d stride %d pads %d %d %d "
              "%d relu %d scales %g %g bias %s w_scale %s\n",
              p.type, p.weight_type, p.batch, p.channels, p.height, p.width, p.groups, p.kernel,
              p.stride, p.pad_top, p.pad_left, p.pad_bottom, p.pad_right, p.relu, p.x_scale,
              p.y_scale, given(bias), given(w_scale));
  return refusal(p) ? -1 : code_to_return;
}

extern "C" int launch_se_pointwise(SePointwiseParams const& p, void const*, void const*,
                                   void const*, void const* bias, float const* w_scale, void*,
                                   void*) {
  std::printf("launch type %d w %d batch %d channels %d to %d positions %d scales %g %g bias %s "
              "w_scale %s\n",
              p.type, p.weight_type, p.batch, p.channels, p.out_channels, p.positions, p.x_scale,
              p.y_scale, given(bias), given(w_scale));
  return refusal(p) ? -1 : code_to_return;
}

extern "C" int launch_channel_shuffle(ChannelShuffleParams const& p, void const*, void*, void*) {
  std::printf("launch bytes %d batch %d channels %d groups %d positions %d\n", p.element_bytes,
              p.batch, p.channels, p.groups, p.positions);
  return refusal(p) ? -1 : code_to_return;
}

// sizes that TensorRT would compute with

namespace {

using Size = decltype(std::declval<IDimensionExpr const>().getConstantValue());
constexpr Size kFree = -1;  // known only when the engine runs

struct Known final : apiv::VDimensionExpr {
  Size value = 0;
  bool isConstant() const override { return value != kFree; }
  Size getConstantValue() const override { return value; }
#if NV_TENSORRT_MAJOR >= 10
  bool isSizeTensor() const override { return false; }
#endif
};

struct Expr final : IDimensionExpr {
  explicit Expr(Size value) {
    known.value = value;
    mImpl = &known;
  }
  Known known;
};

struct Sizes final : apiv::VExprBuilder {
  std::vector<std::unique_ptr<Expr>> kept;
  IDimensionExpr const* constant(Size value) override {
    kept.push_back(std::unique_ptr<Expr>(new Expr(value)));
    return kept.back().get();
  }
  IDimensionExpr const* operation(DimensionOperation op, IDimensionExpr const& a,
                                  IDimensionExpr const& b) override {
    Size const x = a.getConstantValue();
    Size const y = b.getConstantValue();
    if (!a.isConstant() || !b.isConstant()) {
      return constant(kFree);
    }
    return constant(op == DimensionOperation::kSUM   ? x + y
                    : op == DimensionOperation::kSUB ? x - y
                                                     : x / y);
  }
#if NV_TENSORRT_MAJOR >= 10
  IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&,
                                          IDimensionExpr const&) override {
    return nullptr;
  }
#endif
};

struct Builder final : IExprBuilder {
  Builder() { mImpl = &sizes; }
  Sizes sizes;
};

// what a test says of a tensor

struct Tensor {
  DataType type;
  std::vector<Size> shape;
  float scale;
};

constexpr DataType kF = DataType::kFLOAT;
constexpr DataType kH = DataType::kHALF;
constexpr DataType kI = DataType::kINT8;

PluginTensorDesc described(Tensor const& tensor) {
  PluginTensorDesc d{};
  d.dims.nbDims = static_cast<int32_t>(tensor.shape.size());
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    d.dims.d[i] = tensor.shape[i];
  }
  d.type = tensor.type;
  d.format = TensorFormat::kLINEAR;
  d.scale = tensor.scale;
  return d;
}

void say(char const* what) {
  std::printf("%s%s%s\n", what, logged.empty() ? "" : ": ", logged.c_str());
  logged.clear();
}

// the two interfaces under one set of names

#if GLUE == 2
using Plugin = IPluginV2DynamicExt;
void drop(Plugin* plugin) { plugin->destroy(); }
#else
using Plugin = IPluginV3;
void drop(Plugin* plugin) { delete plugin; }
IPluginV3OneBuild& builds(Plugin& plugin) {
  return *static_cast<IPluginV3OneBuild*>(
      plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime& runs(Plugin& plugin) {
  return *static_cast<IPluginV3OneRuntime*>(
      plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}
#endif

struct Drop {
  void operator()(Plugin* plugin) const { drop(plugin); }
};
using Held = std::unique_ptr<Plugin, Drop>;

template <typename Op>
Held create(std::vector<PluginField> const& fields) {
  PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
#if GLUE == 2
  return Held(static_cast<Plugin*>(Creator<Op>().createPlugin("", &collection)));
#else
  return Held(Creator<Op>().createPlugin("", &collection, TensorRTPhase::kBUILD));
#endif
}

// What an engine would keep of the plugin, made into a plugin again.
template <typename Op>
Held reread(Plugin& plugin) {
#if GLUE == 2
  std::vector<char> blob(plugin.getSerializationSize());
  plugin.serialize(blob.data());
  return Held(static_cast<Plugin*>(Creator<Op>().deserializePlugin("", blob.data(), blob.size())));
#else
  return Held(Creator<Op>().createPlugin("", runs(plugin).getFieldsToSerialize(),
                                         TensorRTPhase::kRUNTIME));
#endif
}

void ask_shape(Plugin& plugin, std::vector<std::vector<Size>> const& shapes) {
  Builder builder;
  std::vector<DimsExprs> in(shapes.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    in[i].nbDims = static_cast<int32_t>(shapes[i].size());
    for (size_t k = 0; k < shapes[i].size(); ++k) {
      in[i].d[k] = builder.constant(shapes[i][k]);
    }
  }
  int32_t const inputs = static_cast<int32_t>(in.size());
  DimsExprs out{};
#if GLUE == 2
  out = plugin.getOutputDimensions(0, in.data(), inputs, builder);
#else
  if (builds(plugin).getOutputShapes(in.data(), inputs, nullptr, 0, &out, 1, builder) != 0) {
    out = DimsExprs{};
  }
#endif
  std::string text = out.nbDims ? "shape" : "shape refused";
  for (int32_t i = 0; i < out.nbDims; ++i) {
    text += " " + std::to_string(out.d[i]->getConstantValue());
  }
  say(text.c_str());
}

// Whether all tensors, inputs then output, may have these types, as TensorRT asks: one by one.
bool takes(Plugin& plugin, std::vector<DataType> const& types) {
  int32_t const inputs = static_cast<int32_t>(types.size()) - 1;
#if GLUE == 2
  std::vector<PluginTensorDesc> io(types.size());
#else
  std::vector<DynamicPluginTensorDesc> io(types.size());
#endif
  for (int32_t at = 0; at <= inputs; ++at) {
    PluginTensorDesc const plain = described(Tensor{types[at], {1}, 0.F});
#if GLUE == 2
    io[at] = plain;
    if (!plugin.supportsFormatCombination(at, io.data(), inputs, 1)) {
#else
    io[at].desc = plain;
    if (!builds(plugin).supportsFormatCombination(at, io.data(), inputs, 1)) {
#endif
      return false;
    }
  }
  return true;
}

void ask_types(Plugin& plugin, std::vector<std::vector<DataType>> const& all) {
  std::string text = "types";
  for (auto const& types : all) {
    text += takes(plugin, types) ? " yes" : " no";
  }
  say(text.c_str());
}

void run(Plugin& plugin, std::vector<Tensor> const& tensors, Tensor const& result) {
  static char memory;
  std::vector<PluginTensorDesc> in;
  std::vector<DynamicPluginTensorDesc> in_range(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    in.push_back(described(tensors[i]));
    in_range[i].desc = in[i];
  }
  std::vector<void const*> const in_data(in.size(), &memory);
  void* out_data[] = {&memory};
  PluginTensorDesc const out = described(result);
  DynamicPluginTensorDesc out_range{};
  out_range.desc = out;
  int32_t const inputs = static_cast<int32_t>(in.size());
#if GLUE == 2
  plugin.configurePlugin(in_range.data(), inputs, &out_range, 1);
  Held const copy(static_cast<Plugin*>(plugin.clone()));
  int const code = copy->enqueue(in.data(), &out, in_data.data(), out_data, nullptr, nullptr);
#else
  builds(plugin).configurePlugin(in_range.data(), inputs, &out_range, 1);
  Held const copy(runs(plugin).attachToContext(nullptr));
  runs(*copy).onShapeChange(in.data(), inputs, &out, 1);
  int const code =
      runs(*copy).enqueue(in.data(), &out, in_data.data(), out_data, nullptr, nullptr);
#endif
  say(("ran " + std::to_string(code)).c_str());
}

template <typename Op>
void ask_create(std::vector<PluginField> const& fields) {
  say(create<Op>(fields) ? "created" : "not created");
}

}  // namespace
