// TensorRT 10 and 11: an op as IPluginV3.
#pragma once

#include <new>

#include "op.h"

#if NV_TENSORRT_MAJOR < 10
#error "IPluginV3 starts with TensorRT 10: compile trt_v2.cpp instead of trt_v3.cpp"
#endif

namespace onnx_deploy {
namespace tensorrt {

template <typename Op>
class PluginV3 final : public nvinfer1::IPluginV3,
                       public nvinfer1::IPluginV3OneCore,
                       public nvinfer1::IPluginV3OneBuild,
                       public nvinfer1::IPluginV3OneRuntime {
 public:
  using Values = typename Op::Values;

  explicit PluginV3(Values const& values) : values_(values) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType kind) noexcept override {
    switch (kind) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  nvinfer1::IPluginV3* clone() noexcept override {
    PluginV3* copy = new (std::nothrow) PluginV3(values_);
    if (copy) {
      copy->inputs_ = inputs_;
    }
    return copy;
  }

  char const* getPluginName() const noexcept override { return Op::name(); }
  char const* getPluginVersion() const noexcept override { return "1"; }
  char const* getPluginNamespace() const noexcept override { return ""; }
  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(nvinfer1::DataType* out, int32_t outputs,
                             nvinfer1::DataType const* in, int32_t inputs) const noexcept override {
    if (outputs != 1 || !Op::takes(inputs)) {
      return refused(wrong_count(inputs));
    }
    out[0] = Op::output_type(in);
    return 0;
  }

  int32_t getOutputShapes(nvinfer1::DimsExprs const* in, int32_t inputs, nvinfer1::DimsExprs const*,
                          int32_t, nvinfer1::DimsExprs* out, int32_t,
                          nvinfer1::IExprBuilder& build) noexcept override {
    std::string const problem = Op::takes(inputs) ? Op::shape(values_, in, build, &out[0])
                                                  : wrong_count(inputs);
    return problem.empty() ? 0 : refused(problem);
  }

  bool supportsFormatCombination(int32_t pos, nvinfer1::DynamicPluginTensorDesc const* io,
                                 int32_t inputs, int32_t outputs) noexcept override {
    if (outputs != 1 || !Op::takes(inputs) || pos >= kMostTensors) {
      return false;
    }
    nvinfer1::PluginTensorDesc plain[kMostTensors] = {};
    for (int32_t i = 0; i <= pos; ++i) {
      plain[i] = io[i].desc;
    }
    return Op::supports(pos, plain, inputs);
  }

  int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t inputs,
                          nvinfer1::DynamicPluginTensorDesc const* out,
                          int32_t) noexcept override {
    if (!Op::takes(inputs)) {
      return refused(wrong_count(inputs));
    }
    nvinfer1::PluginTensorDesc plain[kMostTensors] = {};
    for (int32_t i = 0; i < inputs && i < kMostTensors; ++i) {
      plain[i] = in[i].desc;
    }
    Op::configure(values_, plain, out[0].desc);
    return 0;
  }

  // Told before every run of a new shape, and the only one told how many inputs there are.
  int32_t onShapeChange(nvinfer1::PluginTensorDesc const*, int32_t inputs,
                        nvinfer1::PluginTensorDesc const*, int32_t) noexcept override {
    inputs_ = inputs;
    return 0;
  }

  int32_t enqueue(nvinfer1::PluginTensorDesc const* in, nvinfer1::PluginTensorDesc const* out,
                  void const* const* in_data, void* const* out_data, void*,
                  cudaStream_t stream) noexcept override {
    return run<Op>(values_, Call{in, inputs_, out, in_data, out_data[0], stream});
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return clone();
  }

  nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override {
    fields_ = as_fields(Op::attributes(), &values_);
    collection_.nbFields = static_cast<int32_t>(fields_.size());
    collection_.fields = fields_.data();
    return &collection_;
  }

 private:
  static int32_t refused(std::string const& problem) {
    report(Op::name(), problem);
    return 1;
  }

  Values values_;
  int32_t inputs_ = 0;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

template <typename Op>
class CreatorV3 final : public nvinfer1::IPluginCreatorV3One {
 public:
  CreatorV3() : fields_(as_fields(Op::attributes(), nullptr)) {
    collection_.nbFields = static_cast<int32_t>(fields_.size());
    collection_.fields = fields_.data();
  }

  char const* getPluginName() const noexcept override { return Op::name(); }
  char const* getPluginVersion() const noexcept override { return "1"; }
  char const* getPluginNamespace() const noexcept override { return ""; }
  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }

  // The same fields while building (the node's attributes) and when an engine is read.
  nvinfer1::IPluginV3* createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    typename Op::Values values;
    std::string const problem = read_values<Op>(fields, &values);
    if (!problem.empty()) {
      report(Op::name(), problem);
      return nullptr;
    }
    return new (std::nothrow) PluginV3<Op>(values);
  }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace tensorrt
}  // namespace onnx_deploy
